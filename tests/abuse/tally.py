"""How many generated cases a test went through, and how many it shall: few in `make test`, many in `make abuse`."""

import os

FULL = os.environ.get("ADVLIB_ABUSE") == "full"

cases = 0
"""Generated cases since this process began; conftest writes each test's share into its report."""


def case(n: int = 1) -> None:
    """Count generated cases."""
    global cases
    cases += n


def times(few: int, many: int) -> int:
    """Choose how many cases to generate."""
    return many if FULL else few
