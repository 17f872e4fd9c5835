"""What a table of powers says: who wins where, attack against noise; and what of it is recorded."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas

from compendium.nb13_hypothesis_tests.perturbations import ATTACK, TITLES


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


def whole(table: pandas.DataFrame, tests: Sequence[str], m: int) -> pandas.DataFrame:
    """Return all powers of some tests in one table, and above them the time of a batch of m.

    Returns
    -------
    DataFrame
        One row a data set, perturbation, batch size and share; one column a test, empty where a test cannot be asked
        (peers about a single image).
    """
    keys = ["data set", "change", "m", "share"]
    long = table.assign(**{"data set": table.dataset.map(TITLES), "change": labels(table)})
    wide = long[long.test.isin(tests)].pivot(index=keys, columns="test", values="power")
    wide = wide.loc[list(dict.fromkeys(long[keys].itertuples(index=False, name=None))), list(tests)]
    spent = times(table, m)[["together, ms"]].T.reindex(columns=tests)
    spent.index = pandas.MultiIndex.from_tuples([("all", "CPU time, ms", m, 1.0)], names=keys)
    return pandas.concat([spent, wide]).rename_axis(columns=None)


def times(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Return CPU milliseconds of one batch of m, mean over data sets: looking at its images, the statistic, both."""
    chosen = table[(table.m == m) & (table.share == 1)]
    spent = chosen.groupby("test", sort=False)[["feature_ms", "ms"]].mean()
    spent["feature_ms"] *= m
    spent["together, ms"] = spent.sum(axis=1)
    return spent.rename(columns={"feature_ms": "images, ms", "ms": "statistic, ms"})


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


def winners(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Name the best of our tests and of the peers on pixels and on any features, for each attack, with their powers.

    Returns
    -------
    DataFrame
        One row an attack and data set; columns "ours, pixels", "peers, pixels", "lead, pixels" (ours minus peers), and
        the same on any features.
    """
    chosen = table[(table.m == m) & (table.share == 1) & (table.kind == ATTACK)]
    peer = chosen.test.str.split(" · ").str[0].isin(["MMD", "energy", "classifier"])
    chosen = chosen.assign(
        dataset=chosen.dataset.map(TITLES), attack=labels(chosen), side=np.where(peer, "peers", "ours")
    )
    keys, columns = ["dataset", "attack"], {}
    for where, part in (("pixels", chosen[chosen.test.str.endswith(" · pixels")]), ("any features", chosen)):
        best = part.loc[part.groupby([*keys, "side"]).power.idxmax()].set_index([*keys, "side"])
        words = (best.power.map("{:.2f}".format) + " (" + best.test + ")").unstack()
        power = best.power.unstack()
        columns |= {f"{side}, {where}": words[side] for side in ("ours", "peers")}
        columns[f"lead, {where}"] = power.ours - power.peers
    order = chosen[keys].drop_duplicates().itertuples(index=False, name=None)
    return pandas.DataFrame(columns).loc[list(order)].reset_index()


def tally(won: pandas.DataFrame, margin: float = 0.05) -> pandas.DataFrame:
    """Count the attacks at which our best test, or the peers' best, is ahead by more than `margin`.

    Parameters
    ----------
    won : DataFrame
        From `winners`.
    margin : float
        Difference in power that counts as none.

    Returns
    -------
    DataFrame
        One row a data set and where was looked; columns "ours ahead", "equal", "peers ahead".
    """
    rows = []
    for dataset, part in won.groupby("dataset", sort=False):
        for where in ("pixels", "any features"):
            lead = part[f"lead, {where}"]
            counts = {"ours ahead": lead > margin, "equal": lead.abs() <= margin, "peers ahead": lead < -margin}
            rows.append({"dataset": dataset, "on": where} | {word: int(held.sum()) for word, held in counts.items()})
    return pandas.DataFrame(rows)


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
