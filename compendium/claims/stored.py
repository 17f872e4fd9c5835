"""What VS22's authors stored of their own runs, as rows, and which printed number each row stands behind.

Their repository [1]_ keeps 66 text files with densities, coverages and accuracies. `data/published/stored.csv` holds
them as one table; it was made from a folder with these files (`ad_attack/metrics_files`, MIT licence) by

    python -m compendium.claims.stored FOLDER

`data/published/print_and_store.yaml` says how a printed number is read from that table; `counterpart` reads it.

References
----------
.. [1] github.com/danushv07/n2gem, commit f47d8fa; D. K. Venkatesh and P. Steinbach, arXiv:2206.08738 (2022).
"""

import functools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import yaml

from advlib.paths import replacing
from compendium import paths as places
from compendium.claims import published

COLUMNS = ("file", "data set", "attack", "network", "what", "kind", "x", "statistic", "value")
"""Of the table. `x` is ε for FGSM and the number of images in a batch for the boundary attack; it is empty for FGSM's
untouched images. `statistic` is "value" for the whole batch, else a quartile over batches."""

EPSILONS = np.linspace(0, 1, 20)
QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}
_QUARTILES_APART, _LEVEL = 1.349, 1.96  # of a normal distribution, in deviations: its quartiles, half of 95 %
TITLES = {"mnist": "MNIST", "organmnist": "OrganMNIST", "pathmnist": "PathMNIST"}

PAPER, FEATURES = "the paper's", "the paper's, features of its last layer"
_SET = r"fgsm/(?P<set>mnist|organmnist|pathmnist)"
_WHAT = r"(?P<what>density|coverage)\.dat"
_KINDS = {
    "curve": (
        rf"{_SET}/FGSM_attack_(?:organmnist_|pathmnist_)?{_WHAT}",
        rf"{_SET}/FGSM_attack_(?:mnist|orgmnist|pathmnist)_(?P<features>FX)_(?:NewNet_)?{_WHAT}",
        rf"fgsm/(?:model_capacity|resnet)/FGSM_attack_(?P<network>overfit|underfit|resnet\d+)_{_WHAT}",
    ),
    "mixture": (
        rf"{_SET}(?:_mix|/mix)/FGSM_attack_\w*mnist_(?:(?P<network>[13]C)_)?NewNet_"
        r"(?P<share>\d+)(?P<random>rand)?mix_valiadv\.dat",
    ),
    "fgsm_batches": (rf"{_SET}/FGSM_attack_(?:\w+mnist_)?(?P<size>\d+)batch_(?P<adversarial>adv_)?metrics\.dat",),
    "boundary": (r"bdy_attack/Boundary_attack_(?:(?P<set>organmnist|pathmnist)_)?(?:(?P<size>\d+)batch_)?\w+\.dat",),
}
_NETWORKS = {"1C": "one for grey tiles", "3C": "one for coloured tiles", None: PAPER}


# ---------------------------------------------------------------- from the authors' files


def rows(folder: Path) -> pandas.DataFrame:
    """Read the authors' files into one table.

    Parameters
    ----------
    folder : Path
        With the folders `fgsm` and `bdy_attack`.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, in the order of the files' names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For a file whose name or content is not understood, naming it.
    """
    files = sorted(Path(folder).rglob("*.dat"))
    if not files:
        raise FileNotFoundError(f"folder must hold the authors' metric files (*.dat), but {folder} has none")
    table = [row for file in files for row in _file_rows(file, file.relative_to(folder).as_posix())]
    return pandas.DataFrame(table, columns=COLUMNS)


def _file_rows(path: Path, name: str) -> Iterator[tuple[Any, ...]]:
    found = {kind: match for kind, patterns in _KINDS.items() for p in patterns if (match := re.fullmatch(p, name))}
    if len(found) != 1:
        raise ValueError(f"{name} must be named like one of the authors' metric files, but is not")
    ((kind, match),) = found.items()
    about = match.groupdict()
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("#")]
    try:
        values = np.array([line.split() for line in lines if line and not line.startswith("#")], float)
        read = {"curve": _curve, "mixture": _mixture, "fgsm_batches": _fgsm_batches, "boundary": _boundary}[kind]
        content = list(read(about, header, values))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{name} must hold what its kind of file holds ({kind}), but does not: {error}") from None
    title, attack = TITLES[about.get("set") or "mnist"], "boundary" if kind == "boundary" else "FGSM"
    network = FEATURES if about.get("features") else _NETWORKS.get(about.get("network"), about.get("network"))
    yield from ((name, title, attack, network, *row) for row in content)


def _checked(values: np.ndarray, columns: int) -> np.ndarray:
    if values.ndim != 2 or values.shape[1] != columns:
        raise ValueError(f"{columns} numbers a line are needed, but the shape is {values.shape}")
    return values


def _over_epsilon(what: str, kind: str, values: np.ndarray) -> Iterator[tuple[Any, ...]]:
    yield from ((what, kind, x, "value", value) for x, value in zip(EPSILONS, values, strict=True))


def _curve(about: Mapping[str, str], header: Sequence[str], values: np.ndarray) -> Iterator[tuple[Any, ...]]:
    values = _checked(values, 3)
    if not np.allclose(values[:, 0], EPSILONS):
        raise ValueError("the first column is not the grid of ε")
    (reference,) = (float(line.rsplit(":", 1)[1]) for line in header if "validation set" in line)
    yield about["what"], "reference", np.nan, "value", reference
    yield from _over_epsilon("accuracy", "adversarial", values[:, 1])
    yield from _over_epsilon(about["what"], "adversarial", values[:, 2])


def _mixture(about: Mapping[str, str], header: Sequence[str], values: np.ndarray) -> Iterator[tuple[Any, ...]]:
    names = ("density", "coverage") if about["network"] == "1C" else ("accuracy", "density", "coverage")
    values = _checked(values, 1 + len(names))
    kind = f"{'random' if about['random'] else 'ordered'} mixture, {about['share']} % adversarial"
    for column, what in enumerate(names, 1):
        yield from _over_epsilon(what, "adversarial" if what == "accuracy" else kind, values[:, column])


def _quartiles(what: str, kind: str, x: float, values: np.ndarray) -> Iterator[tuple[Any, ...]]:
    yield from ((what, kind, x, name, np.quantile(values, share)) for name, share in QUARTILES.items())


def _fgsm_batches(about: Mapping[str, str], header: Sequence[str], values: np.ndarray) -> Iterator[tuple[Any, ...]]:
    values = _checked(values, 2)
    for column, what in enumerate(("density", "coverage")):
        if about["adversarial"]:  # batch after batch, each at all ε
            by_epsilon = values[:, column].reshape(-1, len(EPSILONS)).T
            for x, batches in zip(EPSILONS, by_epsilon, strict=True):
                yield from _quartiles(what, "adversarial", x, batches)
        else:
            yield from _quartiles(what, "reference", np.nan, values[:, column])


def _boundary(about: Mapping[str, str], header: Sequence[str], values: np.ndarray) -> Iterator[tuple[Any, ...]]:
    images = int(re.search(r"validation_dataset\((\d+) images\)", header[0])[1])
    seen = set()
    for line in header:
        if match := re.search(r"validation (set|adv[^:]*): (density|coverage): (\S+)", line):
            kind = "reference" if match[1] == "set" else "adversarial"
            # One file calls its adversarial coverage a second density.
            what = "coverage" if (kind, match[2]) in seen else match[2]
            seen.add((kind, what))
            yield what, kind, images, "value", float(match[3])
    if not len(values):
        return
    size = int(about["size"] or 100)  # the authors' README: the file without a number has batches of 100
    for column, (what, kind) in enumerate(
        ((what, kind) for what in ("density", "coverage") for kind in ("reference", "adversarial")), 1
    ):
        yield from _quartiles(what, kind, size, _checked(values, 5)[:, column])


# ---------------------------------------------------------------- the table


def load(where: Mapping[str, Any] | None = None, path: Path | None = None) -> pandas.DataFrame:
    """Read the stored rows that meet some conditions.

    Parameters
    ----------
    where : mapping, optional
        Column → the value wanted, or a list of values. Numbers count as equal within 0.0005, so that an ε may be
        given to three places.
    path : Path, optional
        `data/published/stored.csv` by default.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`; x and value are float64. Never empty.

    Raises
    ------
    FileNotFoundError
        If the table is missing; the message says how it is made.
    ValueError
        For other columns, a condition on a column that is not there, or conditions that no row meets.
    """
    found = _table(places.PUBLISHED / "stored.csv" if path is None else Path(path))
    for column, wanted in (where or {}).items():
        if column not in COLUMNS:
            raise ValueError(f"where must name columns of {', '.join(COLUMNS)}, but names {column!r}")
        options = wanted if isinstance(wanted, list) else [wanted]
        if column in ("x", "value"):
            meets = np.any([np.isclose(found[column], option, rtol=0, atol=5e-4) for option in options], axis=0)
        else:
            meets = found[column].isin(options)
        found = found[meets]
    if found.empty:
        raise ValueError(f"where must be met by some stored row, but none has {dict(where or {})}")
    return found.reset_index(drop=True)


@functools.cache
def _table(path: Path) -> pandas.DataFrame:
    try:
        found = pandas.read_csv(path)
    except FileNotFoundError:
        words = f"no stored metrics at {path}; make them with: python -m compendium.claims.stored FOLDER"
        raise FileNotFoundError(words) from None
    if tuple(found.columns) != COLUMNS:
        raise ValueError(f"{path.name} must have the columns {', '.join(COLUMNS)}, but has {', '.join(found.columns)}")
    return found.astype({"x": float, "value": float})


def write(folder: Path, path: Path | None = None) -> Path:
    """Write the table of a folder with the authors' files, values to seven digits; see `rows` for errors."""
    path = places.PUBLISHED / "stored.csv" if path is None else Path(path)
    table = rows(folder)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")
    _table.cache_clear()
    return path


# ---------------------------------------------------------------- print and store


def counterpart(key: Sequence[str]) -> float | None:
    """Return the stored number behind a printed one, in the printed unit, or None if nothing is stored for it.

    Parameters
    ----------
    key : sequence of str
        (item, row, column) of `data/published/vs22.csv`, or the same after "vs22".

    Raises
    ------
    ValueError
        For a rule in `print_and_store.yaml` that does not lead to one number.
    """
    rule = mapping().get(tuple(key)[-3:])
    return None if rule is None else _read(rule)


def chance(key: Sequence[str]) -> float:
    """Return how far one draw may lie from `counterpart`, with 95 % probability; 0 for what was stored as such.

    A mixture's density depends on which images were replaced: with a share s of n it has the variance s(1 − s)/n
    times that of a single image, clean and attacked together. That of an image follows from the stored quartiles of
    batches, as of a normal distribution.

    Parameters
    ----------
    key : sequence of str
        As for `counterpart`.
    """
    rule = mapping().get(tuple(key)[-3:])
    if rule is None or rule["take"] != "line":
        return 0.0
    whole, share = load(rule["where"]), rule["share"]
    same = {name: whole[name].iloc[0] for name in ("data set", "attack", "what")}
    variance = 0.0
    for kind in ("reference", "adversarial"):
        quartiles = load(same | {"kind": kind, "statistic": list(QUARTILES)}).pivot(
            index="x", columns="statistic", values="value"
        )
        deviations = (quartiles["q75"] - quartiles["q25"]) / _QUARTILES_APART * np.sqrt(quartiles.index)
        variance += float(np.median(deviations)) ** 2
    return float(_LEVEL * np.sqrt(share * (1 - share) / whole["x"].iloc[0] * variance))


@functools.cache
def mapping() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return how printed numbers are read from the store: (item, row, column) → `where`, `take` and what it needs."""
    text = (places.PUBLISHED / "print_and_store.yaml").read_text(encoding="utf-8")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for rule in yaml.safe_load(text):
        key = tuple(rule.pop("key"))
        published.lookup("vs22", *key)  # raises for a key that is not printed
        if key in found:
            raise ValueError(f"print_and_store.yaml must have one rule a key, but has two for {' | '.join(key)}")
        found[key] = rule
    return found


def _read(rule: Mapping[str, Any]) -> float:
    found, take = load(rule["where"]), rule["take"]
    values, x = found["value"].to_numpy(), found["x"].to_numpy()
    if take in ("value", "per cent"):
        if len(values) != 1:
            raise ValueError(f"a rule that takes the {take} must lead to one row, but leads to {len(values)}: {rule}")
        return float(values[0]) * (100 if take == "per cent" else 1)
    extremes = {"smallest": values.min(), "largest": values.max(), "x of the largest": x[values.argmax()]}
    if take in extremes:
        return float(extremes[take])
    reference, adversarial = (found[found["kind"] == kind]["value"].to_numpy() for kind in ("reference", "adversarial"))
    if take == "line":
        return float((1 - rule["share"]) * reference[0] + rule["share"] * adversarial[0])
    if take == "crossing":
        return _crossing(x[(found["kind"] == "adversarial").to_numpy()], adversarial, reference[0])
    raise ValueError(f"take must be known, but is {take!r}: {rule}")


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """Where y, having been above `level`, first falls below it, interpolated on x."""
    below = np.flatnonzero((y < level) & np.maximum.accumulate(y > level))
    if not len(below):
        raise ValueError(f"a curve that is said to cross {level:g} must fall below it, but does not")
    j = below[0]
    return float(x[j - 1] + (y[j - 1] - level) / (y[j - 1] - y[j]) * (x[j] - x[j - 1]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(f"{write(Path(sys.argv[1]))} written")
