"""The metrics that VS22's authors stored, as rows."""

from compendium.claims.published import Key


def counterpart(key: Key) -> float | None:
    """Return the stored number that a printed one was read from, None where there is none."""
    return None
