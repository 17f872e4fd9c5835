"""From what the two reruns gave to a row of the claims table: one shape, one three-way verdict."""

from collections.abc import Mapping
from typing import Any

AS_PUBLISHED, CORRECTED = "as published", "corrected"


def verdict(holds: Mapping[str, bool]) -> str:
    """Return the verdict that follows from which rerun bears a number or a sentence out.

    Parameters
    ----------
    holds : dict
        "as published" and "corrected" → whether this rerun agrees with the paper.

    Returns
    -------
    str
        "reproduced" if the corrected one does, else "reproduced as published only" if that one does, else "not
        reproduced".
    """
    if holds[CORRECTED]:
        return "reproduced"
    return "reproduced as published only" if holds[AS_PUBLISHED] else "not reproduced"


def compare(
    key: tuple[str, str, str, str],
    ours: Mapping[str, float | str | None],
    holds: Mapping[str, bool],
    cause: str = "",
    *,
    corrected_only: str = "",
) -> dict[str, Any]:
    """Return a row for `record.Run.compare`.

    Parameters
    ----------
    key : (paper, item, row, column)
        As in `data/published/`; a sentence is item "claim", column "".
    ours : dict
        "as published" and "corrected" → our number, or a phrase for a sentence.
    holds : dict
        The same keys → whether it agrees with the paper.
    cause : str
        Why the two differ, or what was tried.
    corrected_only : str
        Put before the cause where the corrected rerun alone agrees.
    """
    if corrected_only and holds[CORRECTED] and not holds[AS_PUBLISHED]:
        cause = f"{corrected_only}; {cause}" if cause else corrected_only
    names = dict(zip(("paper", "item", "row", "column"), key, strict=True))
    mine = {"as_published": ours.get(AS_PUBLISHED), "corrected": ours.get(CORRECTED)}
    return {**names, **mine, "verdict": verdict(holds), "cause": cause}
