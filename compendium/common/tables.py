"""Tables as the notebooks print them: a run's comparisons with the papers, long sentences wrapped, nothing cut off."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas
from pandas.io.formats.style import Styler

from compendium import paths as places
from compendium.claims import published, record

_KEY = ["paper", "item", "row", "column"]
_OURS = ["as published", "corrected", "verdict", "cause"]
_LEARNED = ["printed", "as the papers' code did it", "as the paper describes it", "verdict"]


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


def comparisons(run: Any, items: Sequence[str] | None = None, paper: str | None = None) -> pandas.DataFrame:
    """Tabulate what a run has compared with the papers, one row a comparison, in the order it was judged.

    Parameters
    ----------
    run : compendium.claims.record.Run
    items : sequence of str, optional
        Only these, for instance "Table 1", "claim"; all by default.
    paper : str, optional
        "g17" or "vs22"; both by default.

    Returns
    -------
    pandas.DataFrame
        paper, item, row, column; published (the printed number, none for a sentence) and source (the quotation it was
        read from); as published, corrected, verdict, cause.
    """
    rows = []
    for row in run.comparisons.values():
        if (items is None or row["item"] in items) and paper in (None, row["paper"]):
            printed = published.lookup(*(row[name] for name in _KEY))
            ours = {name: row.get(name.replace(" ", "_")) for name in _OURS} | {"verdict": run.shown(row)}
            rows.append(
                {name: row[name] for name in _KEY} | {"published": printed.value, "source": printed.source} | ours
            )
    return pandas.DataFrame(rows, columns=[*_KEY, "published", "source", *_OURS])


def learned(run: Any, rows: Mapping[published.Key, str]) -> Styler:
    """Show what the stored runs at paper scale say of a few printed numbers and sentences, two digits a number.

    Parameters
    ----------
    run : compendium.claims.record.Run
    rows : dict
        Key (paper, item, row, column) → short words that name the line.
    """
    claims = {claim.key: claim for claim in published.read_claims()}
    lines = {
        words: [_printed(key), *map(_short, (claims[key].as_published, claims[key].corrected)),
                run.shown(dict(zip(_KEY, key, strict=True)))]
        for key, words in rows.items()
    }  # fmt: skip
    return wrapped(pandas.DataFrame.from_dict(lines, orient="index", columns=_LEARNED), "learned")


def beside_paper(run: Any, rows: Mapping[str, str]) -> Styler:
    """Show numbers of this run beside those of the stored run at paper scale, two digits each.

    Parameters
    ----------
    run : compendium.claims.record.Run
    rows : dict
        Metric → words that name the line. What no run at paper scale has stored is left blank.
    """
    stored = {r["notebook"]: r["metrics"] for r in record.references("paper")}.get(run.notebook, {})
    lines = {words: [_short(run.metrics[name]), _short(stored.get(name))] for name, words in rows.items()}
    return wrapped(
        pandas.DataFrame.from_dict(lines, orient="index", columns=["this run", "at paper scale"]), "beside-paper"
    )


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
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def claims_frame(run: Any) -> pandas.DataFrame:
    """Show a run's comparisons with sentences: by short name, the sentence, as published, corrected, verdict, cause."""
    frame = comparisons(run, ["claim"]).assign(published=lambda table: table["source"])
    return frame.rename(columns={"row": "claim"}).set_index("claim")[["published", *_OURS]]


def section_frame(run: Any, items: Sequence[str]) -> pandas.DataFrame:
    """Show a run's comparisons with VS22's items: published, as published, corrected, verdict, band and cause."""
    frame = comparisons(run, items, "vs22")
    quoted = frame["source"].str.partition("“")[2].str.rstrip("”")
    printed = [
        words if pandas.isna(value) else f"{value:g}" for value, words in zip(frame["published"], quoted, strict=True)
    ]
    where = frame[["item", "row", "column"]].agg(" ".join, axis=1).str.strip()
    frame = frame.assign(where=where, published=printed).set_index("where")
    return frame[["published", *_OURS]].rename(columns={"cause": "band and cause"})


def comparison_frame(run: Any) -> pandas.DataFrame:
    """Show all of a run's comparisons by item, row and column: published, as published, corrected, verdict, cause.

    Values of an image set that was not run share one line.
    """
    frame = comparisons(run).astype(object)
    not_run = (frame["verdict"] == "not run here") & (frame["item"] != "claim")
    frame.loc[not_run, ["column", "published"]] = "all values", None
    frame = frame.groupby(["item", "row", "column"], sort=False).last()
    return frame[["published", *_OURS]].fillna("")


def judged(run: Any, keys: Sequence[tuple[str, str, str, str]], name: str) -> Styler:
    """Show printed numbers and sentences beside the stored runs at paper scale, which decide, with their verdicts.

    Parameters
    ----------
    run : compendium.claims.record.Run
    keys : sequence of (paper, item, row, column)
        As in `data/published/`; eight at most are read on a page.
    name : str
        Unique in the notebook, see `wrapped`.

    Returns
    -------
    Styler
        Ours have two significant digits. For a sentence both columns are blank: what was measured for it is in
        `docs/results.md`.
    """
    stored = published.read_claims() if (places.RESULTS / "claims.csv").is_file() else []
    claims = {claim.key: claim for claim in stored}
    lines = []
    for key in keys:
        entry, claim = published.lookup(*key), claims.get(key)
        ours = [claim.as_published, claim.corrected] if claim is not None and entry.value is not None else ["", ""]
        named = f"sentence: {entry.row.replace('-', ' ')}" if entry.item == "claim" else " ".join(key[1:])
        where = f"{entry.paper.upper()} {named}"
        printed = entry.source if entry.value is None else f"{entry.value:g}"
        lines.append([where, printed, *map(_two_digits, ours), run.shown(dict(zip(_KEY, key, strict=True)))])
    columns = ["where", "printed", "as the papers' code did it", "as the paper describes it", "verdict"]
    return wrapped(pandas.DataFrame(lines, columns=columns).set_index("where"), name)


def _two_digits(value: float | str | None) -> str:
    """Write a number with two significant digits and without a power of ten; words as they are."""
    return f"{float(f'{value:.2g}'):g}" if isinstance(value, (int, float)) else value or ""
