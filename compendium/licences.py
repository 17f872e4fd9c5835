"""The licences of everything in `requirements.lock`, as the packages state them: `python -m compendium.licences`.

The table is written from the metadata of what is installed, by the lock's own names. A package of another system or
Python is not installed here and has no line of its own to show; what it is said to be under is then left open.
"""

import re
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

from advlib import paths

PAGE = paths.HOME / "docs" / "licences.md"
LOCK = paths.HOME / "requirements.lock"
ABSENT = "not installed where this page was written"

# Stated nowhere in the metadata; read from the project's own page.
_STATED_ELSEWHERE = {"cuda-toolkit": "LicenseRef-NVIDIA-Proprietary (as the packages it names)"}
_SHORT = {
    "BSD License": "BSD", "MIT License": "MIT", "Apache Software License": "Apache-2.0", "ISC License (ISCL)": "ISC",
    "Apache 2.0": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0", "MIT + file LICENSE": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
}  # fmt: skip


def pinned() -> dict[str, list[str]]:
    """Return the names in the lock with their versions; there are several where the marker decides."""
    found: dict[str, list[str]] = {}
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        pin = re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)", line)
        if pin:
            found.setdefault(pin[1], []).append(pin[2])
    return found


def stated(about: PackageMetadata) -> str:
    """Return a package's licence in its own words, the clearest there are: SPDX expression, classifiers, free text."""
    if expression := about.get("License-Expression"):
        return expression
    lines = [line.split(" :: ") for line in about.get_all("Classifier") or []]
    classified = [line[-1].strip() for line in lines if line[0] == "License" and line[-1].strip() != "OSI Approved"]
    text = (about.get("License") or "").strip().splitlines()
    words = classified or text[:1]
    return ", ".join(_SHORT.get(each, each) for each in words) or "not stated"


def licence(name: str) -> str:
    """Return the licence of a package by its name in the lock."""
    if name in _STATED_ELSEWHERE:
        return _STATED_ELSEWHERE[name]
    try:
        return stated(metadata(name))
    except PackageNotFoundError:
        return ABSENT


def page() -> str:
    """Return the table as Markdown."""
    lines = [
        "# Licences of the dependencies",
        "",
        "<!-- Written by `python -m compendium.licences` from requirements.lock; run that instead of editing. -->",
        "",
        "What each package of `requirements.lock` says of itself. This project is under the MIT licence "
        "(`LICENSE`); it ships none of these packages, an installation fetches them. Data and networks of others have "
        "their terms in `data/README.md`.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {', '.join(versions)} | {licence(name)} |" for name, versions in pinned().items()]
    return "\n".join(lines) + "\n"


def write() -> Path:
    """Renew the page."""
    paths.write_atomically(PAGE, page())
    return PAGE


if __name__ == "__main__":
    print(f"written: {paths.shown(write())}")
