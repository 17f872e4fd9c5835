"""Where notebooks, published tables, profiles, records and runs lie, inside the clone (see `advlib.paths`)."""

import os
from pathlib import Path

from advlib.paths import DATA, HOME

PUBLISHED = DATA / "published"
NOTEBOOKS = HOME / "notebooks"
PROFILES = HOME / "params"
EXERCISES = HOME / "exercises"
RESULTS = HOME / "results"
REFERENCE = RESULTS / "reference"
RUNS = Path(os.environ.get("ADVLIB_RUNS", RESULTS / "runs")).expanduser().resolve()

NUMBERED = "[0-9][0-9]*_*"
"""Pattern of the names of notebooks and of what belongs to one, without ending: "01_intuition", "02a_density_ratio"."""


def number(name: str) -> str:
    """Return the number that a notebook's name begins with: "02a" of "02a_density_ratio"."""
    return name.partition("_")[0]
