"""Two runs side by side: which numbers moved, which of them beyond their band, which statements changed.

A band (`tests/expected/`, in a clone) says where a number of the quick profile lies under five seeds and several kinds
of arithmetic. A number has moved beyond its band when the two runs differ and one of them lies outside of it. Where
bands hold, a number that has none (a duration, say) is never beyond. They hold for the notebook's own parameters,
whatever the seed; for other parameters, and for the paper profile, the relative change counts.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from advlib import paths
from compendium import paths as places
from compendium.claims import record

BANDS = paths.HOME / "tests" / "expected"
_SAME = 1e-9  # records hold ten digits


@dataclass(frozen=True)
class Change:
    """One number of two runs.

    Attributes
    ----------
    metric : str
        Its dotted name; a list's element is "name[2]", a mapping's "name[key]".
    first, second : float
        What the two runs recorded.
    relative : float
        Their distance, relative to the larger of the two.
    expected, half_width : float or None
        The band, where one holds.
    beyond : bool
        Whether it moved beyond its band or, where no bands hold, by more than the tolerance.
    """

    metric: str
    first: float
    second: float
    relative: float
    expected: float | None
    half_width: float | None
    beyond: bool


@dataclass(frozen=True)
class Comparison:
    """Two runs of one notebook.

    Attributes
    ----------
    notebook : str
    profiles : (str, str)
    banded : bool
        Whether bands hold for both runs.
    parameters : dict
        Name → (first, second), where they differ.
    machines : (str, str)
    durations : (float, float)
        Seconds.
    compared : int
        How many numbers both have.
    moved : list of Change
        Those that differ, the ones beyond their band first, then by relative change.
    only_first, only_second : list of str
        Numbers that one run has alone.
    statements : dict
        Statement → (first, second), where they differ; None where a run does not have it.
    """

    notebook: str
    profiles: tuple[str, str]
    banded: bool
    parameters: dict[str, tuple[Any, Any]]
    machines: tuple[str, str]
    durations: tuple[float, float]
    compared: int
    moved: list[Change]
    only_first: list[str]
    only_second: list[str]
    statements: dict[str, tuple[Any, Any]]

    @property
    def beyond(self) -> list[Change]:
        """Numbers that moved beyond their band."""
        return [change for change in self.moved if change.beyond]

    @property
    def differs(self) -> bool:
        """Whether anything moved that should not have: a number or a statement."""
        return bool(self.beyond or self.statements)

    def as_dict(self) -> dict[str, Any]:
        """Return it in JSON's types, with a count of what is beyond."""
        return {**asdict(self), "beyond": len(self.beyond), "differs": self.differs}


def load(place: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the records at a place.

    Parameters
    ----------
    place : Path
        A record (`metrics.json`, or a file of `results/reference/`), a run's folder, a profile's folder, or
        `results/reference` itself.

    Returns
    -------
    dict
        (notebook, profile) → record, never empty.

    Raises
    ------
    ValueError
        Where there is no run, or a file is none.
    """
    if place.is_file():
        files = [place]
    elif place.is_dir():
        patterns = ("metrics.json", "*/metrics.json", f"{places.NUMBERED}.json")
        files = next(filter(None, (sorted(place.glob(pattern)) for pattern in patterns)), [])
    else:
        raise ValueError(f"there is no {place}: give a metrics.json, a run's folder or a profile's folder")
    if not files:
        raise ValueError(f"{place} holds no run: no metrics.json in it or in a folder below it")
    contents = (record.read(file, whole=True) for file in files)
    return {(content["notebook"], content["profile"]): content for content in contents}


def pairs(first: Path, second: Path) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[str]]:
    """Match the runs of two places.

    By notebook where either place has each notebook once, by notebook and profile otherwise.

    Returns
    -------
    (list of (record, record), list of str)
        The pairs in the order of the notebooks; what only one of the places holds.

    Raises
    ------
    ValueError
        Where a place holds no run, or the two have no notebook in common.
    """
    sides = load(first), load(second)
    once = all(len({notebook for notebook, _ in side}) == len(side) for side in sides)
    left, right = ({key[0] if once else key: content for key, content in side.items()} for side in sides)
    common = [key for key in left if key in right]
    if not common:
        names = (", ".join(sorted({notebook for notebook, _ in side})) for side in sides)
        raise ValueError("the two have no run of the same notebook: {} against {}".format(*names))
    words = [key if once else " ".join(key) for key in (*left, *right) if (key in left) != (key in right)]
    return [(left[key], right[key]) for key in common], words


def numbers(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number of a record by its name; lists and mappings are taken apart."""
    for name, value in metrics.items():
        if isinstance(value, (Mapping, list)):
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            yield from numbers({f"{name}[{key}]": part for key, part in parts})
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def bands(*records: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Read the bands of a notebook: metric → (expected value, half-width).

    Empty where there is no clone, and where a run is not one that bands hold for: of the quick profile, with the
    parameters of the stored run but for the seed.
    """
    path = BANDS / f"{records[0]['notebook']}.yaml"
    stored = record.reference_path(records[0]["notebook"], "quick")
    if not (path.is_file() and stored.is_file()):
        return {}
    usual = record.read(stored)["parameters"]
    if any({**each["parameters"], "seed": None} != {**usual, "seed": None} for each in records):
        return {}
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["metrics"]
    return {entry["metric"]: (entry["value"], entry["atol"] + entry["rtol"] * abs(entry["value"])) for entry in entries}


def outside(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """Count a run's numbers outside their bands, and those that have one; None where no band holds."""
    wanted = bands(content)
    there = dict(numbers(content["metrics"]))
    judged = [not abs(there[name] - value) <= width for name, (value, width) in wanted.items() if name in there]
    return (sum(judged), len(judged)) if judged else None


def _change(
    metric: str, first: float, second: float, known: Mapping[str, tuple[float, float]], tolerance: float
) -> Change:
    larger = max(abs(first), abs(second))
    relative = abs(first - second) / larger if larger else 0.0
    if metric not in known:
        return Change(metric, first, second, relative, None, None, not known and relative > tolerance)
    expected, width = known[metric]
    beyond = not (abs(first - expected) <= width and abs(second - expected) <= width)
    return Change(metric, first, second, relative, expected, width, beyond)


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys((*first, *second))
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}


def compare(first: Mapping[str, Any], second: Mapping[str, Any], tolerance: float = 0.05) -> Comparison:
    """Set two records of one notebook side by side.

    Parameters
    ----------
    first, second : dict
        Records, as `metrics.json` holds them.
    tolerance : float
        Relative change that counts as none where no band holds.

    Raises
    ------
    ValueError
        For records of different notebooks, or a tolerance that is none.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a number of at least 0, but is {tolerance}")
    if first["notebook"] != second["notebook"]:
        raise ValueError(f"the two are runs of different notebooks: {first['notebook']} and {second['notebook']}")
    mine, yours = dict(numbers(first["metrics"])), dict(numbers(second["metrics"]))
    common = [name for name in mine if name in yours]
    known = bands(first, second)
    changes = [_change(name, mine[name], yours[name], known, tolerance) for name in common]
    return Comparison(
        notebook=first["notebook"],
        profiles=(first["profile"], second["profile"]),
        banded=bool(known),
        parameters=_differences(first["parameters"], second["parameters"]),
        machines=(record.hardware(first), record.hardware(second)),
        durations=(first["duration_s"], second["duration_s"]),
        compared=len(common),
        moved=sorted((c for c in changes if c.relative > _SAME), key=lambda c: (not c.beyond, -c.relative)),
        only_first=[name for name in mine if name not in yours],
        only_second=[name for name in yours if name not in mine],
        statements=_differences(first["verdicts"], second["verdicts"]),
    )
