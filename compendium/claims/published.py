"""What the two papers print, one number a row, and the table that sets our numbers beside them.

`data/published/g17.csv` and `vs22.csv` hold the printed numbers and sentences:

- G17: L. Gondara (2017), Detecting Adversarial Samples Using Density Ratio Estimates, arXiv:1705.02224.
- VS22: D. K. Venkatesh, P. Steinbach (2022), Detecting Adversarial Examples in Batches - a geometrical approach,
  arXiv:2206.08738.

A row's key is (paper, item, row, column), for instance ("g17", "Table 1", "CIFAR-10 (grey)", "R1 eps=0.1"). Two
items are not places in a paper: "claim" (a sentence: row is its short name, column and value are empty, source
quotes it) and "setting" (what an experiment was run with, as printed). `results/claims.csv` is made from these rows
and from the comparisons that notebook runs leave behind.
"""

import csv
import difflib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from advlib.paths import write_atomically
from compendium import paths as places

PAPERS = ("g17", "vs22")
VERDICTS = (
    "reproduced",
    "reproduced by the papers' code only",
    "not reproduced",
    "no evidence",
    "undecided",
    "fitted",
    "setting",
    "confirmed by stored data",
    "contradicted by stored data",
    "not run here",
)
"""Words of docs/verdicts.md, in the order of its table."""

NOT_RUN = VERDICTS[-1]

CLAIMS = places.RESULTS / "claims.csv"

Key = tuple[str, str, str, str]
PARTS = ("paper", "item", "row", "column")
"""Of a key."""

_CLAIM = "claim"


class NotPublishedError(KeyError):
    """No such row in the papers' tables; the message names near matches."""

    def __str__(self) -> str:
        return self.args[0]  # KeyError would show the quoted repr of the message


@dataclass(frozen=True)
class Row:
    """A row by its place in a paper."""

    paper: str
    item: str
    row: str
    column: str

    @property
    def key(self) -> Key:
        """(paper, item, row, column)."""
        return (self.paper, self.item, self.row, self.column)


@dataclass(frozen=True)
class Published(Row):
    """One printed number or sentence.

    Attributes
    ----------
    paper : str
        "g17" or "vs22".
    item, row, column : str
        Where in the paper; together with `paper` unique.
    value : float or None
        The printed number, in the printed unit (per cent only where the column says so); None for a sentence.
    low, high : float or None
        The printed interval (G17: 95 % confidence interval of the mean), None where none is printed.
    source : str
        The cell, caption or sentence that it was read from, quoted.
    digits : int
        Printed behind the point; not a column of the file.
    """

    value: float | None
    low: float | None
    high: float | None
    source: str
    digits: int = field(default=0, compare=False)

    @property
    def shown(self) -> float | str:
        """The printed number, or the sentence."""
        return self.source if self.value is None else self.value


@dataclass(frozen=True)
class Claim(Row):
    """One row of `results/claims.csv`: what a paper prints, what we got, and the verdict.

    Attributes
    ----------
    paper, item, row, column : str
        Key of the published row.
    published : float or str
        The printed number, or the quoted sentence.
    as_published, corrected : float, str or None
        Our number (or a phrase, for a sentence) with the papers' own method, and with its defects mended.
    verdict : str
        One of `VERDICTS`.
    cause : str
        Why, or what was tried; never empty for the two middle verdicts.
    notebook : str
        The notebook that shows it; empty where nothing was run.
    """

    published: float | str
    as_published: float | str | None
    corrected: float | str | None
    verdict: str
    cause: str
    notebook: str


def words(key: Sequence[str]) -> str:
    """Show a key in one line."""
    return " | ".join(part for part in key if part)


def key_of(comparison: Mapping[str, Any]) -> Key:
    """Return the key of the row that a comparison is about; raise a ValueError where it names none."""
    lacking = [part for part in PARTS if part not in comparison]
    if lacking:
        raise ValueError(f"a comparison must have {', '.join(PARTS)}, but lacks {', '.join(lacking)}: {comparison}")
    return tuple(str(comparison[part]) for part in PARTS)


def _columns(kind: type[Row]) -> list[str]:
    return [column.name for column in fields(kind) if column.compare]


def _read(path: Path, kind: type[Row]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("file line n", field → cell) of a CSV file whose header must be the fields of `kind`."""
    columns = _columns(kind)
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True)
        header = next(reader, [])
        lines = [(f"{path.name} line {reader.line_num}", cells) for cells in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is damaged, restore it from the repository: {error}") from None
    except IsADirectoryError:
        raise ValueError(f"{path.name} must be a file, but is a folder") from None
    if header != columns:
        raise ValueError(f"{path.name} must start with the columns {','.join(columns)}, but has {','.join(header)}")
    for place, cells in lines:
        if len(cells) != len(columns):
            raise ValueError(f"{place} must have {len(columns)} cells, but has {len(cells)}")
        yield place, dict(zip(columns, cells, strict=True))


def _published(cells: dict[str, str], place: str) -> Published:
    texts = {name: cells[name] for name in ("value", "low", "high")}
    try:
        numbers = {name: float(text) if text else None for name, text in texts.items()}
    except ValueError:
        raise ValueError(f"{place}: value, low and high must be numbers or empty, but are {texts}") from None
    entry = Published(**cells | numbers, digits=len(texts["value"].partition(".")[2]))
    if any(number is not None and not math.isfinite(number) for number in numbers.values()):
        raise ValueError(f"{place}: value, low and high must be finite, but are {texts}")
    if not (entry.item and entry.row and entry.source):
        raise ValueError(f"{place}: item, row and source must not be empty, but are {cells}")
    if (entry.low is None) != (entry.high is None):
        raise ValueError(f"{place}: low and high must both be there or both be empty, but are {texts}")
    if (entry.item == _CLAIM) != (entry.value is None):
        raise ValueError(f"{place}: a claim has no value and every other item has one, but {entry.item!r} has {texts}")
    return entry


def load(paper: str | None = None, item: str | None = None) -> list[Published]:
    """Read the published rows, in the order of the papers.

    Parameters
    ----------
    paper : str, optional
        "g17" or "vs22"; both by default.
    item : str, optional
        For instance "Table 1", "§5.1", "claim", "setting"; all by default.

    Returns
    -------
    list of Published
        Never empty.

    Raises
    ------
    NotPublishedError
        For a paper or item that is not there, naming those that are.
    ValueError
        For a file that breaks its own rules (columns, numbers, missing source, a key twice), naming file and line.
    """
    if paper is not None and paper not in PAPERS:
        raise NotPublishedError(f"paper must be one of {', '.join(PAPERS)}, but is {paper!r}")
    rows: dict[Key, Published] = {}
    for name in PAPERS if paper is None else (paper,):
        path = places.PUBLISHED / f"{name}.csv"
        for place, cells in _read(path, Published):
            entry = _published(cells, place)
            if entry.paper != name:
                raise ValueError(f"{place}: paper must be {name!r}, but is {entry.paper!r}")
            if entry.key in rows:
                raise ValueError(f"{place}: the key {words(entry.key)} is there twice")
            rows[entry.key] = entry
    chosen = [entry for entry in rows.values() if item is None or entry.item == item]
    if not chosen:
        items = dict.fromkeys(entry.item for entry in rows.values())
        raise NotPublishedError(f"no item {item!r} in {paper or 'either paper'}; there are {', '.join(items)}")
    return chosen


def lookup(paper: str, item: str, row: str = "", column: str = "") -> Published:
    """Find one row by its key.

    Parameters
    ----------
    paper, item, row, column : str
        Exactly as in the file; a sentence ("claim") has no column.

    Raises
    ------
    NotPublishedError
        Naming the nearest keys, if there is no such row.

    Examples
    --------
    >>> entry = lookup("g17", "Table 1", row="MNIST", column="R1 eps=0.1")
    >>> entry.value, entry.low, entry.high
    (1.83, 1.75, 1.91)
    """
    entries = {entry.key: entry for entry in load(paper, item)}
    key = (paper, item, row, column)
    if key not in entries:
        raise NotPublishedError(missing(key, entries))
    return entries[key]


def missing(key: Key, known: Iterable[Key]) -> str:
    """Say that there is no such row, and name near ones."""
    near = difflib.get_close_matches(words(key), [words(other) for other in known], n=3, cutoff=0.5)
    return f"no published row {words(key)}" + (f"; near are: {'; '.join(near)}" if near else "")


def value(paper: str, item: str, row: str = "", column: str = "") -> float:
    """Give one printed number, in the printed unit.

    Parameters
    ----------
    paper, item, row, column : str
        Key, as for `lookup`.

    Raises
    ------
    NotPublishedError
        If there is no such row, or if it is a sentence and has no number.
    """
    entry = lookup(paper, item, row, column)
    if entry.value is None:
        raise NotPublishedError(f"{words(entry.key)} is a sentence and has no number; use lookup(...).source")
    return entry.value


def one_line(text: str) -> str:
    """Put single spaces where the text has any blanks or line ends."""
    return " ".join(text.split())


def number_or_text(content: Any) -> float | str | None:
    """Read a CSV cell, or a value from JSON, as what `Claim` keeps: finite number, text, or None for nothing."""
    if content is None or isinstance(content, str):
        text = one_line(content or "")
        try:
            number = float(text)
        except ValueError:
            return text or None
        return number if math.isfinite(number) else text
    if isinstance(content, bool) or not isinstance(content, (int, float)) or not math.isfinite(content):
        raise ValueError(f"must be a finite number, a phrase or nothing, but is {content!r}")
    return float(content)


def four_digits(content: float | str | None) -> str:
    """Show what `Claim` keeps: a number to four digits, a text as it is, nothing for None."""
    return f"{content:.4g}" if isinstance(content, float) else content or ""


def csv_text(rows: Iterable[Row], kind: type[Row], text: Callable[[Any], str]) -> str:
    """Write rows of a kind as plain CSV, each value as `text` shows it."""
    columns, lines = _columns(kind), io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([text(getattr(row, name)) for name in columns] for row in rows)
    return lines.getvalue()


def _text(content: Any) -> str:
    if isinstance(content, float):
        return str(int(content)) if content.is_integer() and abs(content) < 1e15 else repr(content)
    return "" if content is None else content


def write_claims(table: Iterable[Claim], path: Path = CLAIMS) -> Path:
    """Write the claims table as plain CSV; a run that is cut off leaves the old file whole.

    Parameters
    ----------
    table : iterable of Claim
        From `claims_table`.
    path : Path, optional
        `results/claims.csv` by default.

    Returns
    -------
    Path
        The file that was written.
    """
    write_atomically(path, csv_text(table, Claim, _text))
    return path


def read_claims(path: Path = CLAIMS) -> list[Claim]:
    """Read a claims table back, equal to what was written.

    Parameters
    ----------
    path : Path, optional
        `results/claims.csv` by default.

    Raises
    ------
    ValueError
        For other columns, an unknown verdict or a key that is there twice, naming file and line.
    """
    table: dict[Key, Claim] = {}
    for place, cells in _read(path, Claim):
        numbers = {name: number_or_text(cells[name]) for name in ("published", "as_published", "corrected")}
        claim = Claim(**cells | numbers)
        if claim.verdict not in VERDICTS:
            raise ValueError(f"{place}: verdict must be one of {', '.join(VERDICTS)}, but is {claim.verdict!r}")
        if claim.key in table:
            raise ValueError(f"{place}: the key {words(claim.key)} is there twice")
        table[claim.key] = claim
    return list(table.values())
