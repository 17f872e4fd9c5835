"""What a notebook finds out about the papers' numbers and sentences, put into its record.

A notebook measures; it judges nothing. The verdict follows from all runs at paper scale by one rule
(`compendium.claims.rule`, docs/verdicts.md) and is shown beside what this run found.
"""

from collections.abc import Mapping
from typing import Any

from compendium.claims.published import PARTS, Key
from compendium.claims.table import MODES, criteria

AS_PUBLISHED, CORRECTED = MODES


def number(run: Any, key: Key, ours: Mapping[str, float | str | None], note: str = "") -> None:
    """Record what this run gives for a printed number.

    Parameters
    ----------
    run : record.Run
    key : (paper, item, row, column)
        As in `data/published/`.
    ours : dict
        "as published" and "corrected" → our number; a phrase where there is no such number ("never"); None where that
        way was not run.
    note : str
        What a reader should know about this number.
    """
    run.compare(_row(key, ours, note))


def sentence(
    run: Any,
    paper: str,
    row: str,
    statistics: Mapping[str, Mapping[str, float]],
    words: Mapping[str, str] | None = None,
    note: str = "",
) -> None:
    """Record what this run gives for a sentence.

    Parameters
    ----------
    run : record.Run
    paper, row : str
        As in `data/published/`; item is "claim".
    statistics : dict
        "as published" and "corrected" → statistic → number. Those that the sentence's bounds in
        `data/published/criteria.yaml` name must be there. A sentence that has but one way of rerunning is given under
        "corrected".
    words : dict, optional
        The same keys → what was measured, in words; the statistics themselves by default.
    note : str

    Raises
    ------
    ValueError
        For a sentence without criterion, or a statistic that its bounds name and this run lacks.
    """
    key = (paper, "claim", row, "")
    if key not in criteria():
        raise ValueError(f"the sentence {paper} {row} must have a criterion in data/published/criteria.yaml")
    for mode, found in statistics.items():
        lacking = [bound.statistic for bound in criteria()[key]["bounds"] if bound.statistic not in found]
        if lacking:
            raise ValueError(f"{row}, {mode}: no statistic {', '.join(lacking)}; there are {', '.join(found)}")
    if words is None:
        words = {
            mode: "; ".join(f"{name}: {value:.3g}" for name, value in found.items())
            for mode, found in statistics.items()
        }
    run.compare({**_row(key, words, note), "statistics": {m: dict(found) for m, found in statistics.items()}})


def _row(key: Key, ours: Mapping[str, float | str | None], note: str) -> dict[str, Any]:
    unknown = set(ours) - set(MODES)
    if unknown:
        raise ValueError(f"ours must have the keys {AS_PUBLISHED!r} and {CORRECTED!r}, but has {', '.join(unknown)}")
    numbers = {column: ours.get(mode) for mode, column in MODES.items()}
    return {**dict(zip(PARTS, key, strict=True)), **numbers, "cause": note}
