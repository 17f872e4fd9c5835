"""What a table of powers says: attack against noise, image set by image set; and what of it is recorded."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas

from compendium.nb13_hypothesis_tests.perturbations import ATTACK, CONTROL, TITLES

ATTACKS = ("FGSM", "PGD", "TGSM", "JSMA", "boundary")
"""Names of `perturbations.perturb`'s attacks; everything else is a control."""


def at(
    table: pandas.DataFrame, test: str, perturbation: str, size: float | None, m: int, share: float = 1.0
) -> pandas.Series:
    """Return power by data set for one test, perturbation, batch size and share."""
    chosen = table[(table.test == test) & (table.perturbation == perturbation) & (table.m == m)]
    chosen = chosen[chosen["size"].isna() if size is None else np.isclose(chosen["size"], size)]
    return chosen[np.isclose(chosen.share, share)].set_index("dataset").power


def labels(table: pandas.DataFrame, form: str = ", ε = {:g}") -> pandas.Series:
    """Name each row's perturbation, with its size where it has one."""
    return table.perturbation + table["size"].map(lambda size: "" if pandas.isna(size) else form.format(size))


def pivot(table: pandas.DataFrame, dataset: str, m: int, tests: Iterable[str]) -> pandas.DataFrame:
    """Return power, a perturbation a row and a test a column, for one data set and batch size, whole batches."""
    chosen = table[(table.dataset == dataset) & (table.m == m) & (table.share == 1)]
    return _wide(chosen, labels(chosen), tests)


def details(table: pandas.DataFrame, dataset: str, m: int, tests: Iterable[str], perturbation: str) -> pandas.DataFrame:
    """Return the same of one perturbation, at the size for which shares were drawn: other batch sizes, then shares."""
    chosen = table[(table.dataset == dataset) & (table.perturbation == perturbation)]
    sizes = chosen.loc[chosen.share < 1, "size"]
    chosen = chosen[chosen["size"].isin(sizes) & ~((chosen.m == m) & (chosen.share == 1))]
    chosen = chosen.sort_values(["share", "m"], ascending=[False, True], kind="stable")
    what = [f": of {row.m} image{'s' * (row.m > 1)}" if row.share == 1 else f": {row.share:.0%} of {row.m}"
            for row in chosen.itertuples()]  # fmt: skip
    return _wide(chosen, labels(chosen) + what, tests)


def _wide(chosen: pandas.DataFrame, names: pandas.Series, tests: Iterable[str]) -> pandas.DataFrame:
    wide = chosen.assign(label=names).pivot(index="label", columns="test", values="power")
    return wide.loc[names.unique(), [test for test in tests if test in wide.columns]]


def attack_or_noise(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Set beside each other how often FGSM, PGD and random noise of the same size are flagged.

    Returns
    -------
    DataFrame
        dataset, test ("nearest ball · texture", "density · hidden", "density · stability"), size, FGSM, PGD, noise.
    """
    tests = ["nearest ball · texture", "density · hidden", "density · stability"]
    chosen = table[(table.m == m) & (table.share == 1) & table.test.isin(tests)]
    wide = chosen.pivot_table("power", ["dataset", "test", "size"], "perturbation")[["FGSM", "PGD", "random noise"]]
    return wide.dropna().rename(columns={"random noise": "noise"}).reset_index().rename_axis(columns=None)


def record_metrics(run: Any, table: pandas.DataFrame, calibrated: pandas.DataFrame) -> None:
    """Keep both tables in the run's record, and by name the numbers that a fresh run is held to.

    Power is kept as dataset → test → perturbation → m (or m and share) → share flagged.
    """
    named = table.assign(label=labels(table, " {:g}"))
    for (dataset, test), part in named.groupby(["dataset", "test"], sort=False):
        content: dict[str, dict[str, float]] = {}
        for row in part.itertuples():
            key = f"{row.m}" if row.share == 1 else f"{row.m}, share {row.share:g}"
            content.setdefault(row.label, {})[key] = round(row.power, 4)
        run.metric(f"power.{dataset}.{test}", content)
    attacked = named[named.kind == ATTACK].drop_duplicates(["dataset", "label"])
    run.metric("success", dict(zip(attacked.dataset + ", " + attacked.label, attacked.success, strict=True)))
    spent = table[table.share == 1].groupby(["test", "m"])[["ms", "feature_ms"]].mean()
    for (test, m), row in spent.iterrows():
        run.metric(f"time.{test}.{m}", {"statistic_ms": row.ms, "feature_ms_an_image": row.feature_ms})
    for row in calibrated.itertuples():
        kept = {name: getattr(row, name) for name in ("rejected", "low", "high", "n", "uniform_p")}
        run.metric(f"calibration.{row.dataset}.{row.test}.{row.m}.{row.alpha:g}", kept)
    held = [(test, "FGSM", size, m) for test in ("nearest ball · texture", "density · pixels")
            for m, size in ((25, 0.05), (1, 0.1))]  # fmt: skip
    held += [("density · stability", perturbation, 0.1, 25) for perturbation in ("FGSM", "random noise")]
    for test, perturbation, size, m in held:
        for dataset, value in at(table, test, perturbation, size, m).items():
            run.metric(f"{dataset}.{test}.{perturbation} {size:g}.{m}", value)


def recorded(metrics: Mapping[str, Any]) -> pandas.DataFrame:
    """Read powers back from the metrics of a stored run, as `record_metrics` kept them.

    Returns
    -------
    DataFrame
        dataset, test, perturbation, kind, size (NaN where there is none), m, share, power.
    """
    rows = []
    for name, content in metrics.items():
        if not name.startswith("power."):
            continue
        _, dataset, test = name.split(".", 2)
        for label, powers in content.items():
            perturbation, size = re.fullmatch(r"(.*?)(?: ([\d.]+))?", label).groups()
            kind = ATTACK if perturbation in ATTACKS else CONTROL
            for key, power in powers.items():
                m, _, share = key.partition(", share ")
                cell = {"size": float(size or "nan"), "m": int(m), "share": float(share or 1), "power": power}
                rows.append({"dataset": dataset, "test": test, "perturbation": perturbation, "kind": kind} | cell)
    return pandas.DataFrame(rows, columns=["dataset", "test", "perturbation", "kind", "size", "m", "share", "power"])


def by_image_set(
    table: pandas.DataFrame, test: str, m: int, changes: Iterable[tuple[str, float | None]]
) -> pandas.DataFrame:
    """Return the power of one test, an image set a row and a change a column.

    Parameters
    ----------
    table : DataFrame
        From `power.study` or `recorded`.
    test : str
    m : int
        Images in a batch.
    changes : iterable of (perturbation, size)
        Size None where there is none.
    """
    columns = {name if size is None else f"{name}, ε = {size:g}": at(table, test, name, size, m)
               for name, size in changes}  # fmt: skip
    return pandas.DataFrame(columns).rename(index=TITLES).rename_axis(index=None)
