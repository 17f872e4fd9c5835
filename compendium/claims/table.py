"""The claims table: every printed number and sentence with its verdict, and what each verdict rests on.

Made from four sources: the records of paper scale (`results/reference/*.paper.json`), the same experiments with other
networks and seeds (`results/reference/spread/*.json`), the reruns with VS22's own networks
(`results/reference/authors.json`), and the metrics that its authors stored (`data/published/stored.csv`). The rule
is `compendium.claims.rule`; what it needs to know of each number and sentence is data in `data/published/`.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from advlib.paths import write_atomically
from advlib.prdc import expected_coverage
from compendium import paths as places
from compendium.claims import published, record, rule, stored
from compendium.claims.published import NOT_RUN, PARTS, Claim, Key, Published, Row, key_of, number_or_text, words
from compendium.claims.rule import AGREES, DISAGREES, Bound, Interval, Outcome

EVIDENCE = places.RESULTS / "evidence.csv"
MODES = {"as published": "as_published", "corrected": "corrected"}
AUTHORS = "authors' network"
K = 5
"""Neighbours that set a ball's radius in VS22 (§4)."""

CONFIRMED, CONTRADICTED = "confirmed by stored data", "contradicted by stored data"
_WITH_CAUSE = ("not reproduced", "reproduced by the papers' code only", "no evidence", "fitted")

Runs = Mapping[str, Sequence[float]]  # network → one value a seed
Intervals = Mapping[tuple[str, ...], tuple[float, float, float]]  # (*key, mode) → low, centre, high


@dataclass(frozen=True)
class Kind:
    """What `data/published/numbers.yaml` says of a printed number."""

    name: str = "number"
    source: str = "printed"
    reference: float | Key | None = None
    constant: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Evidence(Row):
    """What one way of rerunning says about one row: a line of `results/evidence.csv`.

    Attributes
    ----------
    mode : str
        "as published", "corrected", or one of them with VS22's own network.
    low, centre, high : float or None
        Our interval.
    networks, runs : int
        How many it rests on.
    says, why : str
        See `rule.Outcome`.
    """

    mode: str
    low: float | None
    centre: float | None
    high: float | None
    networks: int
    runs: int
    says: str
    why: str


@cache
def _yaml(name: str) -> list[dict[str, Any]]:
    return yaml.safe_load((places.PUBLISHED / name).read_text(encoding="utf-8"))


@cache
def criteria() -> dict[Key, dict[str, Any]]:
    """Read `data/published/criteria.yaml`: key of a sentence → its entry, with `bounds` as `rule.Bound`."""
    found = {}
    for entry in _yaml("criteria.yaml"):
        key = (entry["paper"], "claim", entry["row"], "")
        if key in found:
            raise ValueError(f"criteria.yaml: the sentence {words(key)} is there twice")
        found[key] = entry | {"bounds": [Bound(**bound) for bound in entry["bounds"]]}
    return found


@cache
def _printed() -> dict[Key, Published]:
    return {entry.key: entry for entry in published.load()}


def _fits(about: Mapping[str, Any], key: Key) -> bool:
    """Whether an entry of `numbers.yaml` or `causes.yaml`, which names rows by patterns, is about this row."""
    return all(re.fullmatch(str(about.get(name, ".*")), part) for name, part in zip(PARTS, key, strict=True))


def kind(entry: Published) -> Kind:
    """Find out what kind of number a printed one is.

    Raises
    ------
    ValueError
        Where no entry of `data/published/numbers.yaml` fits.
    """
    about = next((about for about in _yaml("numbers.yaml") if _fits(about, entry.key)), None)
    if about is None:
        raise ValueError(f"data/published/numbers.yaml says nothing about {words(entry.key)}")
    reference, constant = about.get("reference"), about.get("constant")
    if isinstance(reference, str):
        groups = re.fullmatch(about["column"], entry.column).groups()
        named = reference.format(*groups, item=entry.item, row=entry.row)
        reference = (entry.paper, *(part.strip() for part in named.split("|")))
    if isinstance(constant, dict):
        constant = expected_coverage(constant["references"], constant["queries"], K)
    name, source = about.get("class", "number"), about.get("source", "printed")
    return Kind(name, source, reference, constant, about.get("why", ""))


def cause(key: Key) -> dict[str, Any]:
    """Find the cause of a row in `data/published/causes.yaml`: cause, and shown_by or conjecture; empty if none."""
    return next((about for about in _yaml("causes.yaml") if _fits(about, key)), {})


@dataclass(frozen=True)
class Measured:
    """All runs of all rows.

    Attributes
    ----------
    numbers : dict
        (key, mode) → network → values.
    statistics : dict
        (key, mode) → statistic → network → values.
    comparisons : dict
        Key → what the record of paper scale (or of the quick profile, where there is none) holds.
    """

    numbers: dict[tuple[Key, str], dict[str, list[Any]]]
    statistics: dict[tuple[Key, str], dict[str, dict[str, list[float]]]]
    comparisons: dict[Key, dict[str, Any]]


def measured(
    records: Iterable[Mapping[str, Any]],
    spreads: Iterable[Mapping[str, Any]] = (),
    authors: Mapping[str, Any] | None = None,
) -> Measured:
    """Gather what all runs found.

    Parameters
    ----------
    records : iterable of mappings
        Records of paper scale. Rows of notebooks that have no spread are single runs.
    spreads : iterable of mappings
        {"notebook", "runs": [{"network", "seed", "comparisons"}]}, from `compendium.spread`.
    authors : mapping, optional
        {"values": {"vs22 | item | row | column": {mode: {seed: value}}}}, from `compendium.authors`.

    Raises
    ------
    NotPublishedError, ValueError
        For a row that the papers do not have, or one that two notebooks compare.
    """
    known = _printed()
    found = Measured(defaultdict(lambda: defaultdict(list)), defaultdict(dict), {})
    for single in records:
        for raw in single.get("comparisons") or ():
            key, by = key_of(raw), single["notebook"]
            if key not in known:
                raise published.NotPublishedError(published.missing(key, known))
            if key in found.comparisons:
                raise ValueError(f"{words(key)} is compared twice: by {found.comparisons[key]['notebook']} and {by}")
            found.comparisons[key] = {**raw, "notebook": by}
    runs: dict[Key, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for spread in spreads:
        for run in spread["runs"]:
            for raw in run["comparisons"]:
                key = key_of(raw)
                runs[key].append((str(run["network"]), raw))
                # The first run holds words as well, and tells what a row's other runs, numbers alone, belong to.
                told = {} if "cause" in raw else found.comparisons.get(key, {})
                found.comparisons[key] = {**raw, **told, "notebook": spread["notebook"]}
    for key, raw in found.comparisons.items():
        for network, one in runs.get(key) or [("0", raw)]:
            _take(found, key, network, one)
    for name, modes in (authors or {}).get("values", {}).items():
        key = tuple(part.strip() for part in name.split("|"))
        for mode, values in modes.items():
            found.numbers[key, f"{AUTHORS}, {mode}"][AUTHORS] = list(values.values())
    return found


def _take(found: Measured, key: Key, network: str, raw: Mapping[str, Any]) -> None:
    for mode, column in MODES.items():
        value = number_or_text(raw.get(column))
        if value is not None:
            found.numbers[key, mode][network].append(value)
        for statistic, number in (raw.get("statistics") or {}).get(mode, {}).items():
            found.statistics[key, mode].setdefault(statistic, {}).setdefault(network, []).append(number)


def printed_interval(entry: Published) -> Interval:
    """Return a printed number's interval, widened by what printing leaves open; the number is its centre.

    Rounding leaves open half a unit of the last digit to both sides. VS22 cuts digits off in places (it prints 0.65
    where 0.6588 is stored): there a whole unit is left open above.
    """
    unit = 10.0**-entry.digits
    low, high = (entry.value if end is None else end for end in (entry.low, entry.high))
    return Interval(low - unit / 2, high + (unit if entry.paper == "vs22" else unit / 2), entry.value)


def _numbers_only(runs: Runs) -> dict[str, list[float]]:
    return {network: [v for v in values if isinstance(v, float)] for network, values in runs.items()}


def _judge_number(
    entry: Published, mode: str, found: Measured, factor: float
) -> tuple[Outcome | None, Interval | None, Runs]:
    runs = found.numbers.get((entry.key, mode), {})
    if not runs:
        return None, None, {}
    numbers = _numbers_only(runs)
    if any(len(numbers[network]) < len(values) for network, values in runs.items()):
        return Outcome(rule.DISAGREES, "some runs give no such number"), None, runs
    about = kind(entry)
    if about.name == "label":
        return rule.judge_label(entry.value, numbers), None, numbers
    ours = rule.prediction_interval(numbers)
    reference, our_reference = about.reference, None
    if isinstance(reference, tuple):
        base = rule.prediction_interval(_numbers_only(found.numbers.get((reference, mode), {})))
        reference, our_reference = _printed()[reference].value, base.centre if base else None
    outcome = rule.judge_number(
        printed_interval(entry), ours.scaled(factor) if ours else None,
        reference=reference, our_reference=our_reference, constant=about.constant,
    )  # fmt: skip
    return outcome, ours, numbers


def _judge_sentence(
    entry: Published, mode: str, found: Measured, factor: float
) -> tuple[Outcome | None, Interval | None, Runs]:
    statistics = found.statistics.get((entry.key, mode))
    if not statistics:
        return None, None, {}
    bounds = [bound.moved(factor) for bound in criteria()[entry.key]["bounds"]]
    return rule.judge_sentence(bounds, statistics), None, next(iter(statistics.values()))


def judge(entry: Published, found: Measured, factor: float = 1.0) -> tuple[str, list[Evidence]]:
    """Give a row's verdict, and what each way of rerunning says.

    Parameters
    ----------
    entry : Published
    found : Measured
    factor : float
        Our intervals' width, and the distance of sentences' bounds, as a multiple of what they are: for the question
        how far the counts depend on the rule.
    """
    decide = _judge_sentence if entry.value is None else _judge_number
    modes = [*MODES, *(f"{AUTHORS}, {mode}" for mode in MODES)]
    outcomes, lines = {}, []
    for mode in modes:
        outcome, ours, runs = decide(entry, mode, found, factor)
        if outcome is None:
            continue
        outcomes[mode] = outcome
        ends = (ours.low, ours.centre, ours.high) if ours else (None, None, None)
        networks, count = len(runs), sum(len(values) for values in runs.values())
        lines.append(Evidence(*entry.key, mode, *ends, networks, count, outcome.says, outcome.why))
    name = "" if entry.value is None else kind(entry).name
    if name in ("setting", "fitted"):
        return (name if outcomes or name == "setting" else NOT_RUN), lines
    return _with_the_store(entry, outcomes, lines)


def _with_the_store(
    entry: Published, outcomes: dict[str, Outcome], lines: Sequence[Evidence]
) -> tuple[str, list[Evidence]]:
    """Add what the authors stored as a line of its own; it decides where nothing was run, or only read from there."""
    if entry.value is None:
        mode = criteria().get(entry.key, {}).get("stored")
        theirs = outcomes.pop(mode, None)
        lines = [replace(line, mode="stored", networks=0, runs=0) if line.mode == mode else line for line in lines]
        agrees = {AGREES: True, DISAGREES: False}.get(theirs.says) if theirs else None
    else:
        line = _stored(entry)
        agrees = line and line.says == CONFIRMED
        lines = [*lines, line] if line else list(lines)
    word = rule.verdict(*(outcomes.get(mode) for mode in MODES))
    undone = word == NOT_RUN or (entry.value is None and word != "reproduced")
    return (CONFIRMED if agrees else CONTRADICTED) if undone and agrees is not None else word, lines


def _stored(entry: Published) -> Evidence | None:
    """Hold a printed number against what the authors stored of it, chance of one draw included; None without it."""
    counterpart = stored.counterpart(entry.key) if kind(entry).source == "printed" else None
    if counterpart is None:
        return None
    off = stored.chance(entry.key)
    theirs = Interval(counterpart - off, counterpart + off, counterpart)
    agrees = theirs.meets(printed_interval(entry))
    why = f"stored: {counterpart:.4g}{f' ± {off:.2g}' if off else ''}{'' if agrees else ', not as printed'}"
    ends = (theirs.low, counterpart, theirs.high) if off else (None, counterpart, None)
    return Evidence(*entry.key, "stored", *ends, 0, 0, CONFIRMED if agrees else CONTRADICTED, why)


def _explained(entry: Published, word: str, found: Measured, lines: Sequence[Evidence]) -> str:
    """Put the reason for a verdict into one line: the cause as data, then what the notebook says of this number."""
    about = cause(entry.key)
    raw = found.comparisons.get(entry.key, {})
    note = raw.get("cause") or ""
    parts = [note, *(line.why for line in lines if line.mode == "stored" and "stored" not in note)]
    if about and word in _WITH_CAUSE:
        how = f"shown by {about['shown_by']}" if "shown_by" in about else "a conjecture"
        parts.insert(0, f"{about['cause']} ({how})")
    if entry.value is not None and kind(entry).why:
        parts.insert(0, kind(entry).why)
    return published.one_line("; ".join(part for part in parts if part))


def _ours(entry: Published, mode: str, found: Measured, lines: Sequence[Evidence]) -> float | str | None:
    """Give the centre of our interval, else the single value, else the words."""
    raw = found.comparisons.get(entry.key, {})
    centre = next((line.centre for line in lines if line.mode == mode and line.centre is not None), None)
    return float(f"{centre:.4g}") if centre is not None else number_or_text(raw.get(MODES[mode]))


def claims_table(found: Measured, factor: float = 1.0) -> tuple[list[Claim], list[Evidence]]:
    """Judge every printed number and sentence.

    Returns
    -------
    claims : list of Claim
        In the papers' order. A setting of item "setting" is an input and is listed only where a record compares it.
    evidence : list of Evidence
    """
    claims, evidence = [], []
    for entry in _printed().values():
        if entry.item == "setting" and entry.key not in found.comparisons:
            continue
        word, lines = judge(entry, found, factor) if entry.item != "setting" else ("setting", [])
        ours = [_ours(entry, mode, found, lines) for mode in MODES]
        notebook = found.comparisons.get(entry.key, {}).get("notebook", "")
        claims.append(Claim(*entry.key, entry.shown, *ours, word, _explained(entry, word, found, lines), notebook))
        evidence += lines
    return claims, evidence


def stored_runs() -> Measured:
    """Gather the committed records of paper scale, their spread, and the reruns with VS22's own networks."""
    spreads = map(record.read, sorted((places.REFERENCE / "spread").glob("*.json")))
    authors = places.REFERENCE / "authors.json"
    return measured(record.references("paper"), spreads, record.read(authors) if authors.is_file() else None)


def evidence_csv(evidence: Iterable[Evidence]) -> str:
    """Write evidence as CSV, numbers to five digits."""
    return published.csv_text(evidence, Evidence, lambda v: f"{v:.5g}" if isinstance(v, float) else v)


def write_evidence(evidence: Iterable[Evidence], path: Path = EVIDENCE) -> Path:
    """Write `results/evidence.csv`."""
    write_atomically(path, evidence_csv(evidence))
    return path


def read_evidence(path: Path = EVIDENCE) -> Iterator[dict[str, str]]:
    """Read `results/evidence.csv`, one dict a line, everything as text."""
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def intervals() -> Intervals:
    """Return the intervals of `results/evidence.csv`."""
    return {
        (*key_of(line), line["mode"]): (float(line["low"]), float(line["centre"]), float(line["high"]))
        for line in read_evidence()
        if line["low"]
    }
