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
