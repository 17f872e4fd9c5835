"""Where data, weights, notebooks and results lie: one place, from whatever folder one works in.

A clone keeps everything inside itself. `ADVLIB_HOME` moves the whole tree (an installed wheel has no clone
around it), `ADVLIB_DATA` only the downloads, `ADVLIB_RUNS` only what runs leave behind.
"""

import os
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
PUBLISHED = DATA / "published"
WEIGHTS = DATA / "models"
NOTEBOOKS = HOME / "notebooks"
PROFILES = HOME / "params"
RESULTS = HOME / "results"
REFERENCE = RESULTS / "reference"
RUNS = Path(os.environ.get("ADVLIB_RUNS", RESULTS / "runs")).expanduser().resolve()
CACHE = RESULTS / "cache"
