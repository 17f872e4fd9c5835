"""What `advlib run` and `advlib compare` leave on the terminal: one screen."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from compendium import paths as places

if TYPE_CHECKING:
    from compendium.compare import Comparison
    from compendium.runner import Outcome

_COLOURS = {"ran": "green", "reused": "cyan", "failed": "red"}


def _table(title: str, *columns: str) -> Table:
    """Return an empty table whose first column is a name and whose others are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, heading in enumerate(columns):
        table.add_column(heading, justify="right" if i else "left", no_wrap=i == 0)
    return table


def of_runs(outcomes: Iterable["Outcome"], profile: str) -> Table:
    """Summarise a call of `advlib run`, a line a notebook.

    Parameters
    ----------
    outcomes : iterable of Outcome
    profile : str

    Returns
    -------
    Table
        What became of each, its duration beside the stored run's, how many statements hold, and how many numbers lie
        outside their bands, where bands hold.
    """
    from compendium import compare, runner  # heavy, and `advlib --help` need not wait for them
    from compendium.claims import record
    from compendium.execution import clock

    table = _table("", "notebook", "", "time", "stored", "statements true", "numbers outside their bands")
    for outcome in outcomes:
        path = places.RUNS / profile / outcome.notebook / "metrics.json"
        content = record.read(path) if path.is_file() else None
        stored = runner.expected_seconds(outcome.notebook, profile)
        cells: list[Any] = [
            outcome.notebook, Text(outcome.status, _COLOURS[outcome.status]),
            clock(outcome.seconds) if outcome.status != "reused" else "", clock(stored) if stored else "",
        ]  # fmt: skip
        if content and outcome.status != "failed":
            judged = compare.outside(content)
            cells.append(f"{sum(content['verdicts'].values())} of {len(content['verdicts'])}")
            cells.append(f"{judged[0]} of {judged[1]}" if judged else "")
        table.add_row(*cells)
    return table


def of_comparisons(found: Iterable["Comparison"]) -> Table:
    """Summarise comparisons, a line a notebook."""
    columns = ("notebook", "profile", "numbers", "moved", "beyond", "judged by", "statements", "seconds")
    table = _table("What changed from the first to the second", *columns)
    for each in found:
        beyond = Text(str(len(each.beyond)), "red" if each.beyond else "green")
        table.add_row(
            each.notebook, " → ".join(dict.fromkeys(each.profiles)), str(each.compared), str(len(each.moved)), beyond,
            "band" if each.banded else "relative change", str(len(each.statements)),
            f"{each.durations[0]:.0f} → {each.durations[1]:.0f}",
        )  # fmt: skip
    return table


def details(each: "Comparison", show: int) -> Iterator[str]:
    """Yield lines about one notebook: parameters, numbers beyond, and statements that changed.

    Parameters
    ----------
    each : Comparison
    show : int
        Numbers at most.
    """
    lines = [f"  parameter {name}: {before} → {after}" for name, (before, after) in each.parameters.items()]
    for change in each.beyond[:show]:
        band = "" if change.expected is None else f", band {change.expected:.6g} ± {change.half_width:.3g}"
        lines.append(f"  {change.metric}: {change.first:.6g} → {change.second:.6g} ({change.relative:.1%}{band})")
    if len(each.beyond) > show:
        lines.append(f"  … and {len(each.beyond) - show} more (--show, --json)")
    for words, names in (("first", each.only_first), ("second", each.only_second)):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            lines.append(f"  in the {words} only: {shown}")
    lines += [f"  statement “{words}”: {before} → {after}" for words, (before, after) in each.statements.items()]
    if lines:
        yield f"{each.notebook} ({' → '.join(dict.fromkeys(each.profiles))})"
        yield from lines
