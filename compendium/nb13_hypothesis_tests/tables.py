"""What a table of powers says: who wins where, attack against noise, the sentences of the papers."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas

from compendium.nb13_hypothesis_tests.calibration import outside_band
from compendium.nb13_hypothesis_tests.changes import ATTACK, TITLES


def at(
    table: pandas.DataFrame, test: str, change: str, size: float | None, m: int, share: float = 1.0
) -> dict[str, float]:
    """Return power by data set for one test, change, batch size and share."""
    chosen = table[(table.test == test) & (table.change == change) & (table.m == m) & np.isclose(table.share, share)]
    chosen = chosen[chosen["size"].isna() if size is None else np.isclose(chosen["size"], size)]
    return dict(zip(chosen.dataset, chosen.power, strict=True))


def lowest(table: pandas.DataFrame, test: str, change: str, size: float | None, m: int) -> float:
    """Return the lowest power over the data sets, whole batches changed."""
    return min(at(table, test, change, size, m).values())


def highest(table: pandas.DataFrame, test: str, change: str, size: float | None, m: int) -> float:
    """Return the highest power over the data sets, whole batches changed."""
    return max(at(table, test, change, size, m).values())


def pivot(table: pandas.DataFrame, dataset: str, m: int, tests: Iterable[str]) -> pandas.DataFrame:
    """Return power, one change a row and one test a column, for one data set and batch size, whole batches changed."""
    chosen = table[(table.dataset == dataset) & (table.m == m) & (table.share == 1)]
    return _wide(chosen, _labels(chosen), tests)


def details(table: pandas.DataFrame, dataset: str, m: int, tests: Iterable[str], change: str) -> pandas.DataFrame:
    """Return the same of one change, at the size for which shares were drawn: other batch sizes, then other shares."""
    chosen = table[(table.dataset == dataset) & (table.change == change)]
    partial = chosen[chosen.share < 1]
    chosen = chosen[chosen["size"].isin(partial["size"].unique()) & ~((chosen.m == m) & (chosen.share == 1))]
    chosen = chosen.sort_values(["share", "m"], ascending=[False, True], kind="stable")
    what = [f"of {row.m} image{'s' * (row.m > 1)}" if row.share == 1 else f"{row.share:.0%} of {row.m}"
            for row in chosen.itertuples()]  # fmt: skip
    return _wide(chosen, [f"{label}: {word}" for label, word in zip(_labels(chosen), what, strict=True)], tests)


def whole(table: pandas.DataFrame, tests: Sequence[str], m: int) -> pandas.DataFrame:
    """Return all powers of some tests in one table, and above them the time of a batch.

    Parameters
    ----------
    table : DataFrame
        From `power.study`.
    tests : sequence of str
        Columns.
    m : int
        Size of the batch whose time is given.

    Returns
    -------
    DataFrame
        One row a data set, change, batch size and share changed; one column a test, empty where a test cannot be asked
        (peers about a single image).
    """
    keys = ["data set", "change", "m", "share"]
    long = table.assign(**{"data set": table.dataset.map(TITLES), "change": _labels(table)})
    wide = long[long.test.isin(list(tests))].pivot(index=keys, columns="test", values="power")
    wide = wide.loc[list(dict.fromkeys(zip(*(long[key] for key in keys), strict=True))), list(tests)]
    spent = times(table, m)["together, ms"].reindex(tests)
    first = pandas.DataFrame(
        [spent], index=pandas.MultiIndex.from_tuples([("all", "CPU time, ms", m, 1.0)], names=keys)
    )
    return pandas.concat([first, wide]).rename_axis(columns=None)


def times(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Return CPU milliseconds of one batch of m, mean over data sets: looking at its images, the statistic, both."""
    chosen = table[(table.m == m) & (table.share == 1)]
    spent = chosen.groupby("test", sort=False)[["feature_ms", "ms"]].mean()
    spent["feature_ms"] *= m
    spent["together, ms"] = spent.sum(axis=1)
    return spent.rename(columns={"feature_ms": "images, ms", "ms": "statistic, ms"})


def _labels(table: pandas.DataFrame) -> list[str]:
    return [f"{row.change}, ε = {row.size:g}" if row.size == row.size else row.change for row in table.itertuples()]


def _wide(chosen: pandas.DataFrame, labels: list[str], tests: Iterable[str]) -> pandas.DataFrame:
    wide = chosen.assign(label=labels).pivot(index="label", columns="test", values="power")
    return wide.loc[list(dict.fromkeys(labels)), [test for test in tests if test in wide.columns]]


def attack_or_noise(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Set beside each other how often FGSM, PGD and random noise of the same size are flagged.

    Returns
    -------
    DataFrame
        dataset, test ("nearest ball · texture", "density · hidden", "density · stability"), size, FGSM, PGD, noise.
    """
    tests = ["nearest ball · texture", "density · hidden", "density · stability"]
    names = {"FGSM": "FGSM", "PGD": "PGD", "random noise": "noise"}
    chosen = table[(table.m == m) & (table.share == 1) & table.test.isin(tests) & table.change.isin(list(names))]
    wide = chosen.pivot(index=["dataset", "test", "size"], columns="change", values="power").rename(columns=names)
    return wide[list(names.values())].reset_index().rename_axis(columns=None)


def winners(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Name the best of our tests and of the peers on pixels and on any features, for each attack, with their powers.

    Returns
    -------
    DataFrame
        One row an attack and data set; columns "ours, pixels", "peers, pixels", "lead, pixels" (ours minus peers), and
        the same on any features.
    """
    chosen = table[(table.m == m) & (table.share == 1) & (table.kind == ATTACK)]
    word = chosen.test.str.split(" · ")
    peer, on_pixels = word.str[0].isin(["MMD", "energy", "classifier"]), word.str[1] == "pixels"
    rows = []
    for (dataset, change, size), part in chosen.groupby(["dataset", "change", "size"], sort=False, dropna=False):
        row = {"dataset": TITLES[dataset], "attack": change if size != size else f"{change}, ε = {size:g}"}
        for where, mask in (("pixels", on_pixels), ("any features", on_pixels | ~on_pixels)):
            best = []
            for who, side in (("ours", ~peer), ("peers", peer)):
                mine = part[(mask & side)[part.index]]
                top = mine.loc[mine.power.idxmax()]
                best.append(top.power)
                row[f"{who}, {where}"] = f"{top.power:.2f} ({top.test})"
            row[f"lead, {where}"] = best[0] - best[1]
        rows.append(row)
    return pandas.DataFrame(rows)


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
            ahead, behind = int((lead > margin).sum()), int((lead < -margin).sum())
            equal = len(lead) - ahead - behind
            rows.append({"dataset": dataset, "on": where, "ours ahead": ahead, "equal": equal, "peers ahead": behind})
    return pandas.DataFrame(rows)


def record_tables(run: Any, table: pandas.DataFrame, calibrated: pandas.DataFrame) -> None:
    """Keep both tables in the run's record: power as dataset → test → change → m (or m and share) → share flagged."""
    for (dataset, test), part in table.groupby(["dataset", "test"], sort=False):
        content: dict[str, dict[str, float]] = {}
        for row in part.itertuples():
            label = row.change if row.size != row.size or row.size is None else f"{row.change} {row.size:g}"
            key = f"{row.m}" if row.share == 1 else f"{row.m}, share {row.share:g}"
            content.setdefault(label, {})[key] = round(row.power, 4)
        run.metric(f"power.{dataset}.{test}", content)
    attacked = table[table.kind == ATTACK].drop_duplicates(["dataset", "change", "size"])
    run.metric(
        "success",
        {
            f"{row.dataset}, {row.change}" + ("" if row.size != row.size else f" {row.size:g}"): row.success
            for row in attacked.itertuples()
        },
    )
    times = table[table.share == 1].groupby(["test", "m"])[["ms", "feature_ms"]].mean().reset_index()
    for row in times.itertuples():
        run.metric(f"time.{row.test}.{row.m}", {"statistic_ms": row.ms, "feature_ms_an_image": row.feature_ms})
    for row in calibrated.itertuples():
        run.metric(
            f"calibration.{row.dataset}.{row.test}.{row.m}.{row.alpha:g}",
            {"rejected": row.rejected, "low": row.low, "high": row.high, "n": row.n, "uniform_p": row.uniform_p},
        )


def summary_metrics(run: Any, table: pandas.DataFrame) -> None:
    """Keep the numbers that a fresh run is held to: the goals of the texture map, and what pixels give instead."""
    for test in ("nearest ball · texture", "density · pixels"):
        for m, size in ((25, 0.05), (1, 0.1)):
            for dataset, value in at(table, test, "FGSM", size, m).items():
                run.metric(f"{dataset}.{test}.FGSM {size:g}.{m}", value)
    for change in ("FGSM", "random noise"):
        for dataset, value in at(table, "density · stability", change, 0.1, 25).items():
            run.metric(f"{dataset}.density · stability.{change} 0.1.25", value)


def claims(run: Any, table: pandas.DataFrame, calibrated: pandas.DataFrame) -> None:
    """Judge the sentences of VS22 that a test of one batch can answer."""
    m = int(table.m.max())
    whole = table[(table.share == 1) & (table.m == m)]
    attacks_only = whole[whole.kind == ATTACK]
    ours = attacks_only[attacks_only.test.isin(["density · pixels", "coverage · pixels"])]
    either = ours.groupby(["dataset", "change", "size"], dropna=False).power.max()
    texture = attacks_only[attacks_only.test == "nearest ball · texture"].power.min()
    weakest = either.idxmin()

    def add(row: str, corrected: str, verdict: str, cause: str) -> None:
        run.compare(
            {
                "paper": "vs22", "item": "claim", "row": row, "column": "", "as_published": None,
                "corrected": corrected, "verdict": verdict, "cause": cause,
            }
        )  # fmt: skip

    spread = f"power of the better of density and coverage on pixels, m = {m}: {either.min():.2f} to {either.max():.2f}"
    add(
        "independent-of-attack",
        f"{spread}; nearest ball on texture at least {texture:.2f}",
        "reproduced" if either.min() >= 0.5 else "not reproduced",
        "" if either.min() >= 0.5 else "how far and which way images move differs from attack to attack; least under "
        f"{weakest[1]} on {TITLES[weakest[0]]}",
    )  # fmt: skip
    small = ours[(ours.change == "FGSM") & (ours["size"] <= 8 / 255 + 1e-9)]
    seen = small.groupby("dataset", sort=False).power.max()
    add(
        "detects-imperceptible",
        f"FGSM at eps = {small['size'].max():g}, m = {m}, flagged at 5 %: "
        + ", ".join(f"{TITLES[name]} {value:.2f}" for name, value in seen.items()),
        "reproduced" if seen.min() >= 0.5 else "not reproduced",
        "" if seen.min() >= 0.5 else "on raw pixels a change that small hardly moves an image against its radius; the "
        "same balls on texture see it",
    )  # fmt: skip
    add(
        "model-agnostic",
        "density and coverage on pixels, residual and texture ask no network; hidden layer and stability do",
        "reproduced",
        "",
    )
    outside, cells, allowed = outside_band(calibrated)
    add(
        "hypothesis-tests-would-help",
        f"level kept: {outside} of {cells} rejection rates outside their 99 % band, chance allows {allowed}; a flag "
        "says changed, not attacked, unless stability is looked at",
        "reproduced" if outside <= allowed else "not reproduced",
        "" if outside <= allowed else "some level is not kept",
    )
