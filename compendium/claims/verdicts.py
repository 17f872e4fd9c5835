"""From what the two reruns gave to a row of the claims table: one shape, one three-way verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas
import yaml

from compendium import paths as places
from compendium.claims.published import Published, lookup

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
        reproduced"; "not run here" if `holds` is empty.
    """
    if not holds:
        return "not run here"
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
    if corrected_only and holds and holds[CORRECTED] and not holds[AS_PUBLISHED]:
        cause = f"{corrected_only}; {cause}" if cause else corrected_only
    names = dict(zip(("paper", "item", "row", "column"), key, strict=True))
    mine = {"as_published": ours.get(AS_PUBLISHED), "corrected": ours.get(CORRECTED)}
    return {**names, **mine, "verdict": verdict(holds), "cause": cause}


@dataclass(frozen=True)
class Finding:
    """What a predicate finds out about one sentence of a paper.

    Attributes
    ----------
    holds : dict
        "as published" and "corrected" → whether this rerun bears the sentence out.
    words : dict
        The same keys → what was measured, in words.
    numbers : dict
        What the cause in the YAML file names in curly brackets.
    """

    holds: Mapping[str, bool]
    words: Mapping[str, str]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, tuple[bool, str]], **numbers: Any) -> "Finding":
        """Put together what was found in each rerun: "as published" and "corrected" → (holds, words)."""
        holds, words = ({mode: pair[part] for mode, pair in found.items()} for part in (0, 1))
        return cls(holds, words, numbers)


NOT_RUN = Finding({}, {})
"""Of a sentence about what is not there, for instance a data set that is not on disk."""


NOT_RUN = Finding({}, {})
"""Of a sentence about what is not there, for instance a data set that is not on disk."""


def sentences(notebook: str) -> list[dict[str, str]]:
    """Read the sentences that a notebook judges from `data/published/sentences/<notebook>.yaml`.

    Each has paper, row (its short name in `data/published/`), predicate, criterion, cause and, where it differs when
    the corrected rerun alone agrees, corrected_only. Two further keys replace the cause: cause_if_not where the
    corrected rerun does not agree, not_run where the sentence is `NOT_RUN`.
    """
    path = places.PUBLISHED / "sentences" / f"{notebook}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def judge_sentences(run: Any, findings: Mapping[str, Finding], paper: str | None = None) -> None:
    """Record a verdict on each sentence that the run's notebook judges.

    Parameters
    ----------
    run : record.Run
    findings : dict
        Name of the predicate → what it found; each sentence of the YAML file needs one.
    paper : str, optional
        "g17" or "vs22": the sentences of this paper alone; of both by default.

    Raises
    ------
    ValueError
        Before anything is recorded, where a sentence's predicate has no finding.
    """
    entries = [entry for entry in sentences(run.notebook) if paper in (None, entry["paper"])]
    missing = {entry["predicate"] for entry in entries} - set(findings)
    if missing:
        raise ValueError(f"no finding for {', '.join(sorted(missing))}; there are {', '.join(sorted(findings))}")
    for entry in entries:
        found = findings[entry["predicate"]]
        cause = entry.get("cause", "")
        if not found.holds:
            cause = entry["not_run"]
        elif not found.holds[CORRECTED]:
            cause = entry.get("cause_if_not", cause)
        run.compare(
            compare(
                (entry["paper"], "claim", entry["row"], ""),
                found.words,
                found.holds,
                cause.format(**found.numbers),
                corrected_only=entry.get("corrected_only", ""),
            )
        )


def judge_numbers(
    run: Any,
    ours: Mapping[tuple[str, str, str, str], Mapping[str, float | None]],
    agrees: Callable[[float, Published], bool],
    cause: Callable[[Published, Mapping[str, float | None]], str],
) -> None:
    """Record a verdict on each printed number.

    Parameters
    ----------
    run : record.Run
    ours : dict
        (paper, item, row, column) → {"as published": number, "corrected": number}.
    agrees : callable
        Whether one of our numbers agrees with the printed one; never asked for None, which does not.
    cause : callable
        Why, from the printed row and our two.
    """
    for key, mine in ours.items():
        printed = lookup(*key)
        holds = {mode: mine.get(mode) is not None and agrees(mine[mode], printed) for mode in (AS_PUBLISHED, CORRECTED)}
        run.compare(compare(key, mine, holds, cause(printed, mine)))


def rows(run: Any, item: str | None = None) -> pandas.DataFrame:
    """Tabulate what a run has compared so far, of one item or all: row, column, ours, verdict, cause."""
    chosen = [entry for entry in run.comparisons.values() if item is None or entry["item"] == item]
    return pandas.DataFrame([{**entry, "verdict": run.shown(entry)} for entry in chosen])
