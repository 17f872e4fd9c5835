"""Tests of one batch against doing the same without what they keep: distances, hits, one engine for many fits.

All contenders of a case run in turns in one process, and medians count. Ours is timed from the batch's raw images to
the verdict: p-value, each sample's p-value and the contamination included. The naive ways stop at the p-value, and
what they repeat for every permutation is timed on a few permutations and multiplied; the case says how many.

- prdc's own formulas on distances computed anew for each permutation, as a test around `compute_prdc` would do it.
  The reference's radii, which `compute_prdc` computes anew as well (28 GB of distances for 60,000 images), are given.
- Distances once, and for each permutation a pass over the dense table of hits: ours without its sparse product.
- One fit of `densratio` a permutation, and one `ULSIF` fit a permutation in place of the batched engine.
"""

import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from densratio import densratio
from prdc.prdc import compute_pairwise_distance

from advlib.detectors import CombinedTest, CoverageTest, DensityRatioTest, DensityTest
from advlib.ulsif import ULSIF, GridEdgeWarning
from benchmarks.rows import mnist_rows, row
from compendium.nb11_runtime import in_turns

REFERENCES, CALIBRATION, BATCH = 60_000, 2_000, 100
DRAWS, REFITS = 1_000, 200


def each(work: Callable[[np.ndarray], object], sets: np.ndarray) -> Callable[[], object]:
    """Do the work for each set, one after another."""

    def run() -> None:
        for chosen in sets:
            work(chosen)

    return run


def density_and_coverage(rounds: int, rng: np.random.Generator) -> list[dict]:
    """Time the joint permutation test of density and coverage, and two naive ways to the same p-values."""
    reference, name = mnist_rows("train", REFERENCES, rng)
    rest, _ = mnist_rows("test", CALIBRATION + BATCH, rng)
    calibration, batch = rest[BATCH:], rest[:BATCH]
    tests = [DensityTest(), CoverageTest()]
    test = CombinedTest(tests, draws=DRAWS, check=False).fit(reference, calibration)
    (manifold,) = test.tests_[0].balls_[0].manifolds.values()
    radii = manifold.radii_[:, None]
    pool = np.concatenate([batch, calibration])
    sets = np.stack([rng.permutation(len(pool))[:BATCH] for _ in range(DRAWS)])
    few = 3

    def with_distances(chosen: np.ndarray) -> None:
        inside = compute_pairwise_distance(reference, pool[chosen]) < radii
        inside.sum(axis=0).mean(), inside.any(axis=1).mean()

    def with_hits() -> None:
        hits = compute_pairwise_distance(batch, reference) < radii.T
        table = np.concatenate([hits, known])
        counts = table.sum(axis=1)
        for chosen in sets:
            counts[chosen].mean(), table[chosen].any(axis=0).mean()

    known = compute_pairwise_distance(calibration, reference) < radii.T
    fast = in_turns(rounds, ours=lambda: test.test(batch), hits=with_hits)
    slow = in_turns(1, distances=each(with_distances, sets[:few]))
    what = f"density and coverage test, {name}, {DRAWS:,} permutations"
    size = (len(reference), len(batch), reference.shape[1], DRAWS)
    engine = "advlib.detectors.CombinedTest"
    distances = slow["distances"] * DRAWS / few
    peer = f"prdc {version('prdc')}'s formulas, distances anew ({few} of {DRAWS:,} timed)"
    return [
        row(engine, peer, what, size, fast["ours"], distances),
        row(engine, "hits once, a dense pass a permutation", what, size, fast["ours"], fast["hits"]),
    ]


def density_ratio(rounds: int, rng: np.random.Generator) -> list[dict]:
    """Time the density-ratio test with 200 re-fits, and as many fits one by one."""
    reference, name = mnist_rows("train", REFERENCES, rng)
    rest, _ = mnist_rows("test", CALIBRATION + BATCH, rng)
    calibration, batch = rest[BATCH:], rest[:BATCH]
    test = DensityRatioTest(draws=REFITS, check=False).fit(reference, calibration)
    numerator = test.numerators_[0]
    pool = np.concatenate([batch, calibration]).astype(np.float64)
    sets = np.stack([rng.permutation(len(pool))[:BATCH] for _ in range(REFITS)])
    few_ours, few_peer = 20, 3

    def with_ulsif(chosen: np.ndarray) -> None:
        ULSIF(random_state=0).fit(numerator, pool[chosen]).predict(numerator).mean()

    def with_densratio(chosen: np.ndarray) -> None:
        densratio(numerator, pool[chosen], verbose=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        times = in_turns(
            rounds,
            ours=lambda: test.test(batch),
            ulsif=each(with_ulsif, sets[:few_ours]),
            densratio=each(with_densratio, sets[:few_peer]),
        )
    what = f"density-ratio test, {name}, {REFITS} re-fits"
    size = (len(numerator), len(batch), numerator.shape[1], REFITS)
    engine = "advlib.detectors.DensityRatioTest"
    peer = f"densratio {version('densratio')}, one fit each ({few_peer} of {REFITS} timed)"
    alone = f"ours, one ULSIF fit each ({few_ours} of {REFITS} timed)"
    return [
        row(engine, peer, what, size, times["ours"], times["densratio"] * REFITS / few_peer),
        row(engine, alone, what, size, times["ours"], times["ulsif"] * REFITS / few_ours),
    ]


def measure(quick: bool = True) -> list[dict]:
    """Return one row a comparison; `ours_s` and `peer_s` are seconds for one test of one batch."""
    rng = np.random.default_rng(0)
    rounds = 5 if quick else 15
    return [*density_and_coverage(rounds, rng), *density_ratio(3 if quick else 9, rng)]


if __name__ == "__main__":
    start = time.perf_counter()
    for result in measure():
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()})
    print(f"{time.perf_counter() - start:.0f} s")
