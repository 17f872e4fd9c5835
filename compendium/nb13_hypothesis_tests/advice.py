"""Which test to use: what each looks at, what it needs, what it guarantees and what it misses."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas

from compendium.nb13_hypothesis_tests import tables
from compendium.nb13_hypothesis_tests.peers import Peer
from compendium.nb13_hypothesis_tests.perturbations import ATTACK, TITLES, ImageSplit, Perturbation
from compendium.nb13_hypothesis_tests.power import index_sets, on_vectors, suite

TESTS = (
    "nearest ball · texture", "mean · multiscale", "density · stability", "density · hidden", "density · pixels",
    "advlib fit · four maps", "density ratio · pixels", "MMD · texture",
)  # fmt: skip
"""The rows of the page."""

ENOUGH = 0.8
"""Power that is asked for, as in the criteria of the papers' sentences."""

LEVEL = 0.05

BATCH = 25
"""Images in a batch where nothing else is said."""

REFERENCES = (30, 100, 300, 1000, 3000)
CALIBRATIONS = (10, 20, 40, 100, 300)


def smallest_sets(
    splits: Mapping[str, ImageSplit],
    made: Mapping[str, Sequence[Perturbation]],
    *,
    batches: int,
    rng: np.random.Generator,
    tests: Sequence[str] = TESTS,
) -> pandas.DataFrame:
    """Find how few reference and calibration images do: power `ENOUGH` on every image set, `BATCH` images a batch.

    The attack is FGSM, the largest that was made up to ε = 0.1; a batch is flagged where p ≤ 0.05. References are
    varied with all calibration images there are, and calibration images with all references. Power need not grow with
    either, so that a number counts if it and all larger ones that were tried do.

    Parameters
    ----------
    splits, made : mapping
        Image set → images, and → what was made of them.
    batches : int
        Attacked batches behind each power.
    rng : numpy.random.Generator
    tests : sequence of str
        Names in `power.suite`. Not measured: tests on several maps, the density ratio, whose p-values take hundreds of
        fits a batch, and peers, which have none here.

    Returns
    -------
    DataFrame
        Index: test. references, calibration: the smallest number; NaN where none that was tried does.
    """
    found = pandas.DataFrame(np.nan, index=list(tests), columns=["references", "calibration"])
    for test in found.index:
        least: dict[str, dict[int, float]] = {"references": {}, "calibration": {}}
        for name, split in splits.items():
            small = [one for one in made[name] if one.name == "FGSM" and one.size <= 0.1 + 1e-9]
            for what, count, power in _powers(split, test, max(small, key=lambda one: one.size), batches, rng):
                least[what][count] = min(power, least[what].get(count, 1.0))
        for what, powers in least.items():
            found.loc[test, what] = _enough_from(powers)
    return found


def _enough_from(powers: Mapping[int, float]) -> float:
    """Return the smallest count from which on every power is `ENOUGH`, NaN if there is none."""
    smallest = np.nan
    for count in sorted(powers, reverse=True):
        if powers[count] < ENOUGH:
            break
        smallest = count
    return smallest


def _powers(
    split: ImageSplit, name: str, attack: Perturbation, batches: int, rng: np.random.Generator
) -> Iterator[tuple[str, int, float]]:
    """Give ("references" or "calibration", how many, share of attacked batches with p ≤ 0.05) for one test and set."""
    seen, test = on_vectors(suite(split.network, len(split.reference))[name])
    if isinstance(test, Peer) or seen == "images":
        return
    reference, known, moved = (
        split.features(seen, images) for images in (split.reference, split.calibration, attack.images)
    )
    rows = index_sets(len(moved), batches, BATCH, rng)
    for count in (count for count in REFERENCES if count <= len(reference)):
        _, cut = on_vectors(suite(split.network, count)[name])
        p = cut.fit(reference[:count], known).p_values(moved, rows)
        yield "references", count, float(np.mean(p <= LEVEL))
    test = test.fit(reference, known)
    pool = test.measure(np.concatenate([moved, known]))
    for count in (count for count in CALIBRATIONS if count <= len(known)):
        p = test.p_values(pool, rows, len(moved) + index_sets(len(known), batches, count, rng))
        yield "calibration", count, float(np.mean(p <= LEVEL))


def page(metrics: Mapping[str, Any], smallest: pandas.DataFrame) -> pandas.DataFrame:
    """Write the page: a test a row, in words and numbers that a reader can choose by.

    Parameters
    ----------
    metrics : dict
        Of the stored run at paper scale, from `common.tables.at_paper_scale`. A test that came after it has no row.
    smallest : DataFrame
        From `smallest_sets`; it is all there is where no run at paper scale is stored.

    Returns
    -------
    DataFrame
        Index: test. Smallest batch (FGSM of ε = 0.05 is flagged with power `ENOUGH` on every image set), guarantee,
        what it misses most (of all attacks), how often it flags noise of ε = 0.05 (least and most over image sets),
        smallest reference and calibration, milliseconds of CPU a batch.
    """
    if not metrics:
        return smallest
    table = tables.recorded(metrics)
    rows = {}
    for test in smallest.index[smallest.index.isin(table.test)]:
        mine = table[(table.test == test) & (table.share == 1)]
        mine = mine.assign(label=tables.labels(mine))
        missed = mine[(mine.m == BATCH) & (mine.kind == ATTACK)].sort_values("power", kind="stable").iloc[0]
        noise = tables.at(table, test, "random noise", 0.05, BATCH)
        sizes = sorted(mine.m.unique())
        enough = [m for m in sizes if tables.at(table, test, "FGSM", 0.05, m).min() >= ENOUGH]
        spent = metrics[f"time.{test}.{BATCH}"]
        ms = BATCH * spent["feature_ms_an_image"] + spent["statistic_ms"]
        rows[test] = {
            "smallest batch, ε = 0.05": f"{enough[0]}" if enough else f"over {sizes[-1]}",
            "guarantee": _guarantee(test),
            "misses most": f"{missed.label} on {TITLES[missed.dataset]}: power {missed.power:.2g}",
            "flags noise, ε = 0.05": f"{noise.min():.0%} to {noise.max():.0%}",
            "smallest reference": _count(smallest.references[test]),
            "smallest calibration": _count(smallest.calibration[test]),
            "ms a batch": f"{float(f'{ms:.2g}'):g}",
        }
    return pandas.DataFrame.from_dict(rows, orient="index")


def _guarantee(test: str) -> str:
    if test.startswith("MMD"):
        return "none of its own here"
    return "exact level" + ("; asks the network" if test.split(" · ")[1] in ("hidden", "stability") else "")


def _count(value: float) -> str:
    return "–" if pandas.isna(value) else f"{value:.0f}"
