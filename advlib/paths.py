"""Where data, weights, notebooks and results lie: one place, from whatever folder one works in.

A clone keeps everything inside itself. `ADVLIB_HOME` moves the whole tree (an installed wheel has no clone
around it), `ADVLIB_DATA` only the downloads, `ADVLIB_RUNS` only what runs leave behind, `ADVLIB_CACHE`
only the crafted images that runs share.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _home() -> Path:
    override = os.environ.get("ADVLIB_HOME")
    if override:
        return Path(override).expanduser().resolve()
    clone = Path(__file__).resolve().parent.parent
    return clone if (clone / "pyproject.toml").is_file() else Path.cwd()


HOME = _home()
DATA = HOME / "data"
DOWNLOADS = Path(os.environ.get("ADVLIB_DATA", DATA / "downloads")).expanduser().resolve()


WEIGHTS = DATA / "models"


CACHE = Path(os.environ.get("ADVLIB_CACHE", HOME / "results" / "cache")).expanduser().resolve()


def shown(path: Path) -> str:
    """Return `path` as messages and stored outputs show it: from the project's folder on where it lies inside."""
    return path.relative_to(HOME).as_posix() if path.is_relative_to(HOME) else str(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it takes the final name only when the block ends well.

    A killed process or a full disk leaves the old file or none, never half of one. The ending is kept, because
    writers choose their format by it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # else a device would become a file
        raise ValueError(f"{path} must be a file, but is a folder or a device")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
