"""Do the tests keep their level? Rejections of clean batches, against the band that exact tests stay in."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from scipy import stats

from advlib import attacks
from advlib.detectors import DensityTest, Scores
from advlib.tasks import map_tasks
from compendium.common.protocol import LEVEL
from compendium.nb13_hypothesis_tests.peers import Peer
from compendium.nb13_hypothesis_tests.perturbations import TITLES, ImageSplit
from compendium.nb13_hypothesis_tests.power import index_sets, on_vectors, suite

ALPHAS = (0.05, 0.01)
"""Levels at which clean batches are tested."""


def binomial_band(draws: int, alpha: float) -> tuple[float, float]:
    """Return the interval of rejection rates that `draws` independent tests of level `alpha` stay in, by 99 %."""
    low, high = stats.binom.interval(0.99, draws, alpha)
    return float(low / draws), float(high / draws)


def uniformity(p: np.ndarray, permutations: int, smoothing: np.ndarray) -> float:
    """p-value of the hypothesis that p is uniform on 1/(1 + permutations), …, 1 (Kolmogorov-Smirnov).

    The steps are smoothed over: minus a uniform part of a step each (`smoothing`, uniform on (0, 1), one a p-value),
    such p-values are uniform on (0, 1).
    """
    return float(stats.kstest(p - smoothing / (1 + permutations), "uniform").pvalue)


def calibration(
    split: ImageSplit,
    tests: Mapping[str, Any],
    *,
    batch_sizes: Sequence[int],
    batches: int,
    n_calibration: int = 500,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """Test clean batches, each against a calibration set drawn anew, and count the rejections.

    The pool is all images of `split` that the network has not seen. Batch and calibration set are drawn from it at
    random and disjoint, so that given the pool every one of the T tests is independent of the others and has exactly
    its level: the binomial band for T tests is the right yardstick. (Against *one* calibration set all batches would
    share its luck; `one_calibration_set` shows it.)

    Parameters
    ----------
    split : ImageSplit
    tests : dict
        Name → unfitted test of `advlib.detectors`. (1 + draws)·α must be whole for each of `ALPHAS`; else the level is
        lower.
    batch_sizes : sequence of int
    batches : int
        T.
    n_calibration : int
        Calibration images, or what the pool leaves, at least 50.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        dataset, test, m, n (calibration images), alpha, rejected, low, high (99 % band), inside, uniform_p,
        too_small (p-values below 1/(1 + permutations), which no permutation test can give).
    """
    size = len(split.clean) + len(split.calibration)
    planned = []
    for name, test in tests.items():
        counts = {m: min(n_calibration, size - m) for m in batch_sizes}
        # One stream for all tests, so it is drawn from here, in their order; the tests themselves can be done anywhere.
        drawn = [(m, n, index_sets(size, batches, m + n, rng), rng.random(batches))
                 for m, n in counts.items() if n >= 50]  # fmt: skip
        planned.append((name, test, drawn))
    done = map_tasks(_calibrated, planned, f"calibration, {TITLES[split.name]}", shared=[split])
    by_test = {plan[0]: rows for plan, rows in done}
    return pandas.DataFrame([row for name in tests for row in by_test[name]])


def _calibrated(plan: tuple[str, Any, list[tuple]], split: ImageSplit) -> list[dict[str, Any]]:
    """Return the rows of one test.

    Its plan holds name, test, and for each batch size m: calibration images n, rows (T, m + n) of batches and
    calibration sets, uniform numbers (T,) that smooth the p-values.
    """
    name, test, drawn = plan
    fitted, scores = _fitted(split, test)
    rows = []
    for m, n, sets, smoothing in drawn:
        p = fitted.p_values(scores, sets[:, :m], sets[:, m:])
        permutations = n if m == 1 else fitted.draws
        uniform = uniformity(p, permutations, smoothing)
        for alpha in ALPHAS:
            low, high = binomial_band(len(p), alpha)
            rejected = float(np.mean(p <= alpha + 1e-12))
            rows.append(
                {
                    "dataset": split.name, "test": name, "m": m, "n": n, "alpha": alpha, "rejected": rejected,
                    "low": low, "high": high, "inside": low <= rejected <= high, "uniform_p": uniform,
                    "too_small": int((p < (1 - 1e-9) / (1 + permutations)).sum()),
                }
            )  # fmt: skip
    return rows


def calibration_table(
    splits: Mapping[str, ImageSplit], names: Sequence[str], *, rng: np.random.Generator, **options: Any
) -> pandas.DataFrame:
    """Run `calibration` on several data sets, with tests of `suite` chosen by name; other arguments are passed on.

    Raises
    ------
    ValueError
        For a test that `suite` does not have, or a peer, which has no p-value here.
    """
    frames = []
    for split in splits.values():
        tests = suite(split.network, len(split.reference))
        tests = {name: test for name, test in tests.items() if not isinstance(test, Peer)}
        if unknown := set(names) - set(tests):
            raise ValueError(f"calibrated_tests must be among {', '.join(tests)}, but hold {', '.join(unknown)}")
        frames.append(calibration(split, {name: tests[name] for name in names}, rng=rng, **options))
    return pandas.concat(frames, ignore_index=True)


def _fitted(split: ImageSplit, test: Any) -> tuple[Any, Scores]:
    """Return the fitted test and the scores of all images that the network has not seen."""
    seen, test = on_vectors(test)
    pool = np.concatenate([split.features(seen, images) for images in (split.clean, split.calibration)])
    fitted = test.fit(split.features(seen, split.reference), pool[:50])
    return fitted, fitted.measure(pool)


def one_calibration_set(
    split: ImageSplit, test: Any, *, batch_size: int, batches: int, sets: int, rng: np.random.Generator
) -> np.ndarray:
    """Rejection rate at 5 % of clean batches that share one calibration set, for several such sets.

    The mean over the sets is 5 %; a single set may be luckier or less lucky, the more so the larger the batches are.

    Returns
    -------
    (sets,) float64 array
    """
    fitted, scores = _fitted(split, test)
    rates = []
    for _ in range(sets):
        order = rng.permutation(len(scores))
        half = len(order) // 2
        drawn = order[half:][index_sets(len(order) - half, batches, batch_size, rng)]
        p = fitted.p_values(scores, drawn, [order[:half]] * batches)
        rates.append(np.mean(p <= LEVEL))
    return np.array(rates)


def mismatches(split: ImageSplit, *, rng: np.random.Generator) -> pandas.DataFrame:
    """Ask the check in `fit` about calibration sets that were drawn as the reference was, and about some that were not.

    Reference and calibration images are two halves of images that the network has not seen; density on pixels.

    Returns
    -------
    DataFrame
        calibration ("drawn alike", "half of one class", "rotated by 10°"), p (of the check), p_by_class (of the
        class-conditional test, which is given the labels).
    """
    half = len(split.calibration) // 2
    (reference, labels), (rest, other) = (
        (split.calibration[rows], split.calibration_labels[rows]) for rows in (slice(half), slice(half, 2 * half))
    )
    frequent = other == np.bincount(other).argmax()
    mine, others = np.flatnonzero(frequent), np.flatnonzero(~frequent)
    tilted = np.concatenate([mine, rng.choice(others, min(len(mine), len(others)), replace=False)])
    rotated = attacks.rotated(rest, degrees=10.0 * rng.choice([-1, 1], len(rest)))
    cases = {
        "drawn alike": (rest, other),
        "half of one class": (rest[tilted], other[tilted]),
        "rotated by 10°": (np.asarray(rotated, dtype=np.float32), other),
    }
    rows = []
    for name, (images, classes) in cases.items():
        given = {"reference_labels": labels, "calibration_labels": classes}
        p, by_class = (_exchangeability(reference, images, **labelled) for labelled in ({}, given))
        rows.append({"calibration": name, "p": p, "p_by_class": by_class})
    return pandas.DataFrame(rows)


def _exchangeability(reference: np.ndarray, calibration: np.ndarray, **labels: np.ndarray) -> float:
    """p-value of the check in `fit` of a density test, without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return DensityTest().fit(reference, calibration, **labels).exchangeability_p_


def seen_by_the_network(
    split: ImageSplit, *, batch_sizes: Sequence[int], batches: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """Rejection at 5 % of clean, unseen images when calibration images are some that the network was trained on.

    Nobody tampered with anything; a network just treats images that it has learned unlike others. Half of the split's
    reference is the reference, the other half the pool that calibration sets are drawn from anew.

    Returns
    -------
    DataFrame
        features ("pixels", "hidden"), m, rejected, low, high (99 % band), and fit_p: what the check in
        `fit` says of reference and calibration if that is the unseen images, as it should be.
    """
    half = len(split.reference) // 2
    rows = []
    for name in ("pixels", f"hidden:{split.network}"):
        reference, learned = np.split(split.features(name, split.reference), [half])
        unseen = np.concatenate([split.features(name, images) for images in (split.clean, split.calibration)])
        test = DensityTest(draws=99, check=False).fit(reference, learned)
        scores = Scores.stack([test.calibration_, test.measure(unseen)])
        fit_p = _exchangeability(reference, unseen)
        for m in batch_sizes:
            drawn = len(learned) + index_sets(len(unseen), batches, m, rng)
            known = index_sets(len(learned), batches, min(500, len(learned) // 2), rng)
            low, high = binomial_band(batches, LEVEL)
            rejected = float(np.mean(test.p_values(scores, drawn, known) <= LEVEL))
            rows.append((name.split(":")[0], m, rejected, low, high, fit_p))
    return pandas.DataFrame(rows, columns=["features", "m", "rejected", "low", "high", "fit_p"])


def outside_band(calibrated: pandas.DataFrame) -> tuple[int, int, int]:
    """Return how many rejection rates lie outside their 99 % band, of how many, and how many chance allows (99.9 %)."""
    cells = len(calibrated)
    return int((~calibrated.inside).sum()), cells, int(stats.binom.ppf(0.999, cells, 0.01))
