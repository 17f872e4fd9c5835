"""Tables as the notebooks print them: what was learned, long sentences wrapped, nothing cut off."""

from collections.abc import Mapping
from typing import Any

import pandas
from pandas.io.formats.style import Styler

from compendium.claims import published, record

_KEY = ["paper", "item", "row", "column"]
_LEARNED = ["printed", "as the papers' code did it", "as the paper describes it", "verdict"]
_SCALES = ["this run", "at paper scale"]


class _WholeTable(Styler):
    """A styled table whose plain text is the table, and not an address that every run changes."""

    def __repr__(self) -> str:
        return self.to_string(delimiter=" | ")


def wrapped(frame: pandas.DataFrame, name: str, digits: int = 3) -> Styler:
    """Show a table of sentences whole: a bare one is cut after 50 letters.

    Parameters
    ----------
    frame : pandas.DataFrame
    name : str
        Unique in the notebook; without it every run would write another page.
    digits : int
        After the point, of numbers; a missing one is left blank.
    """
    style = _WholeTable(frame, uuid=name).format(precision=digits, na_rep="")
    return style.set_properties(**{"white-space": "normal", "text-align": "left"})


def learned(run: Any, rows: Mapping[published.Key | str, str], name: str = "learned") -> Styler:
    """Show printed numbers and sentences, or numbers of this run, beside the stored runs at paper scale.

    Parameters
    ----------
    run : compendium.claims.record.Run
    rows : dict
        Words that name the line, by key (paper, item, row, column) as in `data/published/`, or by metric of this run.
    name : str
        Unique in the notebook, see `wrapped`.

    Returns
    -------
    Styler
        Of a key what is printed, both ways at paper scale, and the verdict; of a metric this run and paper scale.
        Numbers have two digits. What this run or no run at paper scale has is left blank.
    """
    claims = {claim.key: claim for claim in published.read_claims()}

    def of_key(key: published.Key) -> list[str]:
        claim = claims.get(key)
        ours = (claim.as_published, claim.corrected) if claim else (None, None)
        return [_printed(key), *map(_short, ours), run.shown(dict(zip(_KEY, key, strict=True)))]

    metrics = [what for what in rows if isinstance(what, str)]
    if metrics:
        stored = at_paper_scale(run)
        # What this run does not reach at its size may be known at paper scale; a name that neither knows is a mistake.
        here = [run.metrics.get(what) if what in stored else run.metrics[what] for what in metrics]
        lines = [[_short(value), _short(stored.get(what))] for what, value in zip(metrics, here, strict=True)]
        columns = _SCALES
    else:
        lines, columns = [of_key(key) for key in rows], _LEARNED
    return wrapped(pandas.DataFrame(lines, index=list(rows.values()), columns=columns), name)


def at_paper_scale(run: Any) -> dict[str, Any]:
    """Return the metrics of the stored run of the same notebook at paper scale, none where there is no such run."""
    return {r["notebook"]: r["metrics"] for r in record.references("paper")}.get(run.notebook, {})


def _printed(key: published.Key) -> str:
    entry = published.lookup(*key)
    if entry.value is None:
        return entry.source
    interval = f" ({_short(entry.low)} to {_short(entry.high)})" if entry.low is not None else ""
    return f"{_short(entry.value)}{interval}"


def _short(value: float | str | None) -> str:
    """Write a number with two digits and without an exponent; words stay as they are."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{float(f'{value:.2g}'):g}" if abs(value) < 100 else f"{value:.0f}"
