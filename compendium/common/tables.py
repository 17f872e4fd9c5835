"""Tables as the notebooks print them: long sentences wrapped, nothing cut off."""

from collections.abc import Sequence
from typing import Any

import pandas
from pandas.io.formats.style import Styler

from compendium.claims import published


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


def claims_frame(run: Any) -> pandas.DataFrame:
    """Show a run's comparisons with sentences of the paper: sentence, as published, corrected, verdict, cause."""
    lines = []
    for c in run.comparisons.values():
        if c["item"] == "claim":
            lines.append({
                "claim": c["row"],
                "published": published.lookup(c["paper"], "claim", c["row"]).source,
                "as published": c["as_published"],
                "corrected": c["corrected"],
                "verdict": c["verdict"],
                "cause": c["cause"],
            })  # fmt: skip
    return pandas.DataFrame(lines).set_index("claim")


def section_frame(run: Any, items: Sequence[str]) -> pandas.DataFrame:
    """Show a run's comparisons with VS22's items as a table: published, as published, corrected, verdict, cause."""
    lines = []
    for c in run.comparisons.values():
        if c["paper"] == "vs22" and c["item"] in items:
            entry = published.lookup("vs22", c["item"], c["row"], c["column"])
            printed = entry.source.partition("“")[2].rstrip("”") if entry.value is None else f"{entry.value:g}"
            lines.append({
                "where": f"{c['item']} {c['row']} {c['column']}".strip(),
                "published": printed,
                "as published": c["as_published"],
                "corrected": c["corrected"],
                "verdict": c["verdict"],
                "band and cause": c["cause"],
            })  # fmt: skip
    return pandas.DataFrame(lines).set_index("where")


def comparison_frame(run: Any) -> pandas.DataFrame:
    """Show a run's comparisons as a table: published, as published, corrected, verdict and cause.

    Values of an image set that was not run share one line.
    """
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in run.comparisons.values():
        missing = row["verdict"] == "not run here" and row["item"] != "claim"
        column = "all values" if missing else row["column"]
        lines[row["item"], row["row"], column] = {
            "item": row["item"],
            "row": row["row"],
            "column": column,
            "published": None
            if missing
            else published.lookup(*(row[part] for part in ("paper", "item", "row", "column"))).value,
            **{name.replace("_", " "): row.get(name) for name in ("as_published", "corrected", "verdict", "cause")},
        }
    return pandas.DataFrame(list(lines.values())).astype(object).fillna("").set_index(["item", "row", "column"])
