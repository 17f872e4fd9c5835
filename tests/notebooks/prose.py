"""Numbers in the text cells of notebooks, and what they may rest on; used by the tests, imported by nothing else."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from compendium import runner
from compendium.claims import published, record

SMALL = 12
"""Whole numbers up to this one are words: "two batches", "k = 5"."""

SIZES = {
    "16 and 25": (16, 25),  # pixels of a patch
    "pixels of an image": (28, 32, 784, 3072, 255),
    "minutes of an exercise": (15,),
    "share or level of a test": (0.05, 0.025, 0.95, 0.5, 0.25, 0.75, 0.2, 0.1, 0.01, 0.001, 0.9, 0.8),
    "round numbers of images, draws and steps": (20, 25, 40, 50, 60, 99, 100, 199, 200, 1000, 10_000, 20_000, 25_000),
}

_LEFT_OUT = (
    r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"<!--.*?-->", r"\]\([^)]*\)", r"https?://\S+",
    r"(?:arXiv|doi|DOI):\s*\S+", r"“[^”]*”", r"\(\d+ min\)",  # the last: how long an exercise takes
    r"(?:Tables?|Figs?\.|Figures?|§+|[Ee]qs?\.|[Ee]quations?|Algorithms?|[Nn]otebooks?|[Ss]ections?|[Ee]xercises?|"
    r"[Aa]ppendix|\*\*)\s*[A-F]?\d+[a-z]?(?:\.\d+)*(?:\s*(?:,|and|to|–|-)\s*\d+[a-z]?(?:\.\d+)*)*",
)  # fmt: skip


def numbers(text: str) -> Iterator[str]:
    """Yield the numbers in a text that state a result or a setting: as written, "27 %" with its sign."""
    for pattern in _LEFT_OUT:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    for match in re.finditer(r"(?<![\w.\-−·])\d+(?:,\d{3})*(?:\.\d+)?(?:\s?%)?(?![\w])", text):
        yield match[0]


def _scalars(value: Any) -> Iterator[float]:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, (int, float)):
        yield float(value)
    elif isinstance(value, str):
        yield from (float(found.replace(",", "")) for found in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", value))
    else:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _scalars(item)


def known(path: Path) -> set[float]:
    """All numbers that a notebook's prose may state: its records, its parameters, and what the papers print."""
    found = {float(v) for group in SIZES.values() for v in group}
    for profile in ("quick", "paper"):
        stored = record.reference_path(path.stem, profile)
        if stored.is_file():
            content = json.loads(stored.read_text(encoding="utf-8"))
            parts = (content["metrics"], content["parameters"], content["comparisons"], content["duration_s"])
            found |= set(_scalars(parts)) | {content["duration_s"] / 60}
        found |= set(_scalars(record.profile_parameters(profile))) if profile == "paper" else set()
    found |= set(_scalars(runner.defaults(path)))
    for claim in published.read_claims():
        found |= set(_scalars([claim.as_published, claim.corrected])) if claim.notebook == path.stem else set()
    for entry in published.load():
        found |= set(_scalars([entry.value, entry.low, entry.high, entry.source]))
    return found


def holds(text: str, values: Iterable[float]) -> bool:
    """Whether a number as written is one of the values, rounded to as many digits; per cent of a share as well."""
    plain = text.rstrip("% \u202f").replace(",", "")
    value, half = float(plain), 0.5 * 10.0 ** -len(plain.partition(".")[2]) + 1e-9
    if value.is_integer() and value <= SMALL and "%" not in text:
        return True
    if "%" not in text and "." not in plain and 1900 <= value <= 2100:
        return True  # a year
    scales = (1, 100) if "%" in text else (1,)
    return any(abs(scale * abs(v) - value) <= half for v in values for scale in scales)


def unexplained(path: Path) -> list[str]:
    """List the numbers in a notebook's text cells that no record holds, each with its cell."""
    values = known(path)
    found = []
    for index, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            text = cell.source.partition("## References")[0]
            found += [f"[{index}] {number}" for number in numbers(text) if not holds(number, values)]
    return found
