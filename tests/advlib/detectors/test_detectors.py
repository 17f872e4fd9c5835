"""Batch tests: exact levels, statistics against brute force, what is assumed, bad input, files."""

import itertools
import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy import stats
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.utils.estimator_checks import check_estimator

from advlib import detectors
from advlib.detectors import (
    CombinedTest,
    CoverageTest,
    DensityRatioTest,
    DensityTest,
    ExchangeabilityWarning,
    HotellingTest,
    NearestBallTest,
    Scores,
    balls,
    contamination,
    features,
    hotelling_test,
    permutations,
    saving,
)
from advlib.prdc import ReferenceManifold
from advlib.ulsif import ULSIF, GridEdgeWarning

RNG = np.random.default_rng(7)
REFERENCE = RNG.normal(size=(400, 4)).astype(np.float32)
CLEAN = RNG.normal(size=(6000, 4)).astype(np.float32)
CALIBRATION, BATCH = CLEAN[:200], CLEAN[200:230]
FAST = {"draws": 199, "check": False}
RATIO = {"draws": 49, "check": False, "n_numerator": 20, "sigmas": [1.0, 3.0], "lambdas": [0.1, 1.0]}
KINDS = [
    DensityTest(**FAST),
    CoverageTest(**FAST),
    NearestBallTest(**FAST),
    HotellingTest(alternative="two-sided", **FAST),
    DensityRatioTest(**RATIO),
    CombinedTest(**FAST),
    # Two statistics have four most extreme draws between them: fewer than 80 could not reach 5 %.
    CombinedTest([DensityTest(), DensityRatioTest(n_numerator=20)], draws=99, check=False),
]
each_kind = pytest.mark.parametrize("test", KINDS, ids=lambda test: type(test).__name__)


def images(n, channels=1, seed=0, size=8):
    return np.random.default_rng(seed).random((n, channels, size, size), dtype=np.float32)


# ------------------------------------------------------------------ permutations and p-values


@pytest.mark.parametrize(("n", "m"), [(5, 1), (5, 2), (5, 3), (5, 4), (6, 3)])
def test_subsets_are_uniform(n, m):
    drawn = permutations.subsets(n, m, 20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000, m)
    found, counts = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    assert len(found) == len(list(itertools.combinations(range(n), m)))
    assert (np.diff(found, axis=1) > 0).all()
    assert stats.chisquare(counts).pvalue > 1e-3


def test_whole_set_as_subset():
    assert (np.sort(permutations.subsets(4, 4, 3, np.random.default_rng(0)), axis=1) == np.arange(4)).all()


def test_p_value_by_hand():
    values = np.array([[3.0], [1.0], [2.0], [2.5], [0.0]])
    p, each = permutations.p_values(values, "greater", "conservative", None)
    assert p == each[0] == 1 / 5
    assert permutations.p_values(values, "less", "conservative", None)[0] == 1.0
    assert permutations.p_values(values, "two-sided", "conservative", None)[0] == 2 / 5  # the lowest is as extreme
    tied = np.array([[1.0], [1.0], [0.0], [2.0]])
    assert permutations.p_values(tied, "greater", "conservative", None)[0] == 3 / 4


def test_joint_p_value_by_hand():
    # Row 0 is the largest of the first column only; so is row 1 of the second: both have the smallest tail.
    values = np.array([[9.0, 1.0], [1.0, 9.0], [2.0, 2.0], [3.0, 3.0]])
    assert permutations.p_values(values, "greater", "conservative", None)[0] == 2 / 4


def test_columns_that_say_nothing_do_not_dilute():
    rng = np.random.default_rng(0)
    values = np.column_stack([np.r_[9.0, rng.random(99)], np.ones(100)])
    p, each = permutations.p_values(values, "greater", "random", rng)
    assert p == each[0] == 0.01 and each[1] == 1
    assert permutations.p_values(np.ones((50, 1)), "two-sided", "random", rng) == (1.0, [1.0])


def test_few_choices_are_all_looked_at():
    test = DensityTest(k=2, draws=999, ties="conservative", alternative="less", check=False)
    test.fit(REFERENCE, CALIBRATION[:5])
    batch = BATCH[:3]
    counts = ReferenceManifold(2).fit(REFERENCE).ball_counts(np.concatenate([batch, CALIBRATION[:5]]))
    sums = [counts[list(rows)].sum() for rows in itertools.combinations(range(8), 3)]
    verdict = test.test(batch)
    assert verdict.draws == 55
    assert verdict.p_value == pytest.approx(np.mean(np.array(sums) <= counts[:3].sum()))
    assert any("Only 56 ways" in sentence for sentence in verdict.assumed) is False
    few = test.test(batch[:1])
    assert few.draws == 5 and any("Only 6 ways" in sentence for sentence in few.assumed)


def test_single_image_is_ranked_among_all_calibration_samples():
    test = NearestBallTest(ties="conservative", alternative="greater", check=False).fit(REFERENCE, CALIBRATION)
    scores = test.calibration_.parts[0][:, 0]
    verdict = test.test(BATCH[:1])
    assert verdict.p_value == pytest.approx((1 + (scores >= verdict.statistic).sum()) / 201)


@each_kind
def test_p_values_agree_with_test(test):
    test = clone(test).fit(REFERENCE, CALIBRATION)
    alone = test.test(BATCH)
    assert test.p_values(BATCH, [np.arange(30)])[0] == alone.p_value
    assert alone.p_value == test.test(BATCH).p_value == test.test(test.measure(BATCH)).p_value
    assert 0 < alone.p_value <= 1
    pool = Scores.stack([test.measure(BATCH), test.calibration_])
    other = test.p_values(pool, [np.arange(30)], [np.arange(30, 230)])
    assert other[0] == alone.p_value
    assert test.p_values(BATCH, [[0, 1], [2, 3, 4], [5]]).shape == (3,)


# ------------------------------------------------------------------ statistics against truth


def test_statistics_are_those_of_the_manifold():
    manifold = ReferenceManifold(5).fit(REFERENCE)
    density, coverage = (
        DensityTest(**FAST).fit(REFERENCE, CALIBRATION),
        CoverageTest(**FAST).fit(REFERENCE, CALIBRATION),
    )
    assert density.test(BATCH).statistic == pytest.approx(manifold.density(BATCH))
    assert coverage.test(BATCH).statistic == pytest.approx(manifold.coverage(BATCH))
    pool = coverage.measure(CLEAN[:300])
    rows = np.stack([np.random.default_rng(i).permutation(300)[:40] for i in range(20)])
    expected = [manifold.coverage(CLEAN[own]) for own in rows]
    assert coverage._statistics(pool.parts, rows)[:, 0] == pytest.approx(expected)
    np.testing.assert_array_equal(density.test(BATCH).sample_scores, manifold.ball_counts(BATCH) / 5)


def test_unions_in_chunks(monkeypatch):
    hits = ReferenceManifold(5).fit(REFERENCE).hits(CLEAN[:50]).astype(np.int32)
    rows = np.stack([np.random.default_rng(i).permutation(50)[:20] for i in range(30)])
    whole = balls.unions(hits, rows)
    brute = [(hits[own].sum(axis=0) > 0).sum() for own in rows]
    np.testing.assert_array_equal(whole, brute)


def test_nearest_ball_against_brute_force():
    reference = np.concatenate([REFERENCE, REFERENCE[:1].repeat(6, axis=0)])  # seven copies: balls of radius 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        test = NearestBallTest(**FAST).fit(reference, CALIBRATION)
    radii = test.balls_[0].manifolds[None].radii_
    assert (radii == 0).sum() == 7
    queries = np.concatenate([BATCH, reference[5:6]])
    distances = np.linalg.norm(queries[:, None].astype(float) - reference[None], axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(radii > 0, distances / radii, np.inf).min(axis=1)
    np.testing.assert_allclose(test.test(queries).sample_scores, expected, rtol=1e-6)
    assert expected[-1] == 0


def test_a_batch_too_far_for_float32_is_far_from_a_ball_with_an_inside():
    """A copy's ball has none: its distance is infinite, and no largest float."""
    tiny = np.concatenate([REFERENCE, REFERENCE[:1].repeat(6, axis=0)]).astype(float) * 1e-310
    with warnings.catch_warnings(), np.errstate(divide="raise", invalid="raise"):
        warnings.simplefilter("ignore", UserWarning)
        test = NearestBallTest(**{**FAST, "check": False}).fit(tiny, CALIBRATION)
        verdict = test.test(BATCH)
    assert np.isfinite(verdict.sample_scores).all() and verdict.sample_scores.min() > 1e60


def test_density_ratio_is_the_mean_over_the_numerator():
    test = DensityRatioTest(**RATIO).fit(REFERENCE, CALIBRATION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        alone = ULSIF(sigmas=RATIO["sigmas"], lambdas=RATIO["lambdas"]).fit(test.numerators_[0], BATCH)
    assert test.test(BATCH).statistic == pytest.approx(alone.mean_ratio_)


def test_hotelling_against_the_shrunk_covariance_of_scikit_learn():
    reference = (REFERENCE @ np.random.default_rng(0).normal(size=(4, 4)) + 3).astype(np.float32)
    reference[:, 2] = 0.7  # a feature that never moves, which float32 does not hold exactly
    test = HotellingTest(**FAST).fit(reference, CALIBRATION)
    spread = reference.std(axis=0, dtype=np.float64)
    spread[2] = np.abs(reference).max()  # counts in units of the largest number
    centred = (reference - reference.mean(axis=0, dtype=np.float64)) / spread
    covariance = LedoitWolf(assume_centered=True).fit(centred).covariance_ * np.outer(spread, spread)
    apart = BATCH.mean(axis=0, dtype=np.float64) - reference.mean(axis=0, dtype=np.float64)
    verdict = test.test(BATCH)
    assert verdict.statistic == pytest.approx(30 * apart @ np.linalg.solve(covariance, apart), rel=1e-5)
    each = BATCH - reference.mean(axis=0, dtype=np.float64)
    expected = np.einsum("nd,de,ne->n", each, np.linalg.inv(covariance), each)
    np.testing.assert_allclose(verdict.sample_scores, expected, rtol=1e-5)


def test_a_mean_within_classes():
    rng = np.random.default_rng(5)
    (reference, own), (calibration, other), (batch, labels) = (labelled(n, rng) for n in (600, 300, 40))
    test = HotellingTest(**FAST)
    test.fit(reference, calibration, reference_labels=own, calibration_labels=other)
    means, whitening = test.whitenings_[0]
    for c in (0, 1):
        np.testing.assert_allclose(means[c] * test.sizes_[0], reference[own == c].mean(axis=0), atol=1e-5)
    parts = (batch / test.sizes_[0] - means[labels]) @ whitening
    assert test.test(batch, labels).statistic == pytest.approx(40 * np.square(parts.mean(axis=0)).sum(), rel=1e-6)


def test_rows_in_blocks_have_the_same_mean_to_the_bit():
    rows, labels = CLEAN[:3000], np.zeros(3000, dtype=int)
    whole = hotelling_test._whitening([lambda: rows], 2.0, labels, 1)
    for cuts in ([1], [700, 701, 2500], [1024, 2048]):
        blocks = [lambda part=part: part for part in np.split(rows, cuts)]
        again = hotelling_test._whitening(blocks, 2.0, labels, 1)
        assert all((a == b).all() for a, b in zip(whole, again, strict=True))


def test_a_small_shift_that_all_share_is_seen_by_its_mean_only():
    def power(test):
        fitted = test.fit(REFERENCE, CALIBRATION)
        batches = np.random.default_rng(0).permutation(5000)[: 40 * 60].reshape(40, 60)
        return (fitted.p_values(CLEAN[500:5500] + np.float32(0.4), batches) <= 0.05).mean()

    assert power(HotellingTest(**FAST)) > 0.9
    assert power(NearestBallTest(**FAST)) < 0.5


@pytest.mark.parametrize("size", [1e-310, 1e-30, 1e30, 1e300])
def test_means_at_any_magnitude(size):
    test = HotellingTest(**FAST).fit(REFERENCE.astype(float) * size, CALIBRATION.astype(float) * size)
    usual = HotellingTest(**FAST).fit(REFERENCE, CALIBRATION).test(BATCH)
    verdict = test.test(BATCH.astype(float) * size)
    assert verdict.statistic == pytest.approx(usual.statistic, rel=1e-4) and verdict.p_value == usual.p_value
    with np.errstate(over="ignore"):
        far = test.test(np.full_like(BATCH, 1e300, dtype=float))
    assert np.isfinite(far.statistic) and (far.p_value == 1 / 200 or size == 1e300)


def test_means_where_nothing_moves_or_too_much_is_asked():
    same = HotellingTest(**FAST).fit(np.ones((50, 3)), np.ones((20, 3)))
    assert same.test(np.ones((5, 3))).p_value == 1 and same.test(np.full((5, 3), 1.5)).p_value == 1 / 200
    copied = HotellingTest(**FAST).fit(REFERENCE[:, [0, 0, 1]], CALIBRATION[:, [0, 0, 1]])  # a singular covariance
    assert np.isfinite(copied.test(BATCH[:, [0, 0, 1]]).statistic)
    with pytest.raises(ValueError, match="at most 4096 numbers a sample"):
        HotellingTest().fit(np.zeros((9, 5000)), np.zeros((9, 5000)))


def test_channels_are_tested_apart():
    reference, calibration, batch = images(300, 3), images(100, 3, 1), images(20, 3, 2)
    test = DensityTest(per_channel=True, **FAST).fit(reference, calibration)
    verdict = test.test(batch)
    assert [part.name for part in verdict.parts] == ["density 0", "density 1", "density 2"]
    manifold = ReferenceManifold(5).fit(reference[:, 1].reshape(300, -1))
    assert verdict.parts[1].statistic == pytest.approx(manifold.density(batch[:, 1].reshape(20, -1)))
    batch[:, 2] += 0.5
    alone = test.test(batch)
    assert alone.parts[0].p_value > 0.02 and alone.parts[2].p_value <= 0.02 and alone.reject()


# ------------------------------------------------------------------ calibrated


def clean_p_values(test, m, trials, n_calibration=100):
    """p-values of clean batches, with a calibration set drawn anew for each."""
    test = clone(test).fit(REFERENCE, CALIBRATION)
    pool, rng = test.measure(CLEAN), np.random.default_rng([m, 3])
    rows = [rng.choice(len(CLEAN), m + n_calibration, replace=False) for _ in range(trials)]
    return test.p_values(pool, [row[:m] for row in rows], [row[m:] for row in rows])


def assert_calibrated(p, grid):
    for alpha in (0.05, 0.01):
        low, high = stats.binom.interval(0.99, len(p), alpha)
        assert low <= (p <= alpha + 1e-9).sum() <= high, (alpha, (p <= alpha + 1e-9).sum(), low, high)
    # p is uniform on 1/n … 1: a uniform shift within a step makes it continuous.
    smooth = p - np.random.default_rng(0).random(len(p)) / grid
    assert stats.kstest(smooth, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("m", [1, 2, 5, 10, 25, 100, 500])
def test_density_is_calibrated(m):
    p = clean_p_values(DensityTest(draws=99, check=False), m, 1000)
    assert_calibrated(p, 101 if m == 1 else 100)


@pytest.mark.parametrize("m", [1, 2, 10, 100])
@pytest.mark.parametrize("kind", [CoverageTest, NearestBallTest, HotellingTest, CombinedTest])
def test_other_tests_are_calibrated(kind, m):
    p = clean_p_values(kind(draws=99, check=False), m, 1000)
    assert_calibrated(p, 101 if m == 1 else 100)


@pytest.mark.parametrize(("m", "trials"), [(1, 400), (10, 1000)])
def test_density_ratio_is_calibrated(m, trials):
    single = {**RATIO, "draws": 99, "n_numerator": 8, "sigmas": [1.0], "lambdas": [0.1]}
    p = clean_p_values(DensityRatioTest(**single), m, trials, n_calibration=120)
    assert_calibrated(p, 100)


def test_conservative_ties_reject_less():
    p = clean_p_values(DensityTest(draws=99, check=False, ties="conservative"), 1, 500)
    assert (p <= 0.05).mean() < 0.05
    assert (p[:, None] >= np.arange(1, 102) / 101 - 1e-9).any()


# ------------------------------------------------------------------ power, both sides


@each_kind
@pytest.mark.parametrize("shift", [2.0, None], ids=["out of the balls", "into the middle"])
def test_changed_batches_are_flagged(test, shift):
    test = clone(test).fit(REFERENCE, CALIBRATION)
    batch = BATCH + np.float32(shift) if shift else BATCH * np.float32(0.2)
    verdict = test.test(batch)
    if shift is None and isinstance(test, HotellingTest):  # a mean that stays where it is
        assert verdict.p_value > 0.05
        return
    assert verdict.p_value <= 0.05 and verdict.reject()
    assert not verdict.reject(1e-9)


def test_one_sided_is_blind_on_the_other_side():
    less = DensityTest(alternative="less", **FAST).fit(REFERENCE, CALIBRATION)
    assert less.test(BATCH * np.float32(0.2)).p_value > 0.9
    assert less.test(BATCH + np.float32(2)).p_value == 1 / 200


@pytest.mark.parametrize("shift", [1.0, 6.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_contamination_bound_keeps_its_level(share, shift):
    """Whatever the misfits are: far out, where the estimate is right, or hardly seen, where no interval could be."""
    test = NearestBallTest(**FAST).fit(REFERENCE, CLEAN[:500])
    rng, held, estimates, bounds = np.random.default_rng(0), 0, [], []
    pool = test.measure(np.concatenate([CLEAN[500:], shift + CLEAN[:100]]))
    calibration = test.calibration_
    for trial in range(150):
        bad = round(share * 60)
        rows = np.r_[rng.choice(5500, 60 - bad, replace=False), 5500 + rng.choice(100, bad, replace=False)]
        batch = pool[rows]
        _, smooth, n = permutations.sample_p_values(
            batch.parts[0], calibration.parts[0], None, None, np.random.default_rng(trial)
        )
        found = contamination.contamination(smooth, n)
        assert 0 <= found.low <= found.share <= 1
        held += found.low <= share + 1e-12
        estimates.append(found.share)
        bounds.append(found.low)
    assert held >= 0.95 * 150
    if shift == 6:
        assert abs(np.mean(estimates) - share) < 0.08  # cut off at 0, the mean is above 0 where nothing is wrong
        assert np.mean(bounds) > share - 0.25  # and the bound is no empty one


def test_ranking_puts_the_misfits_first():
    verdict = NearestBallTest(**FAST).fit(REFERENCE, CALIBRATION).test(np.concatenate([BATCH[:27], BATCH[27:] + 6]))
    assert set(np.argsort(verdict.sample_p_values)[:3]) == {27, 28, 29}
    assert verdict.sample_p_values.min() >= 1 / 201


# ------------------------------------------------------------------ exchangeability and classes


def labelled(n, rng, shares=(0.5, 0.5)):
    labels = rng.choice(2, n, p=shares)
    points = rng.normal(size=(n, 3)) * np.where(labels, 3.0, 1.0)[:, None] + 20 * labels[:, None]
    return points.astype(np.float32), labels


@pytest.mark.parametrize("kind", [DensityTest, CombinedTest])
def test_fit_says_when_reference_and_calibration_differ(kind):
    with pytest.warns(ExchangeabilityWarning, match="differ"):
        test = kind(draws=199).fit(REFERENCE, CALIBRATION + np.float32(1.5))
    assert test.exchangeability_p_ <= 0.01
    verdict = test.test(BATCH + np.float32(1.5))
    assert any("differ" in sentence for sentence in verdict.assumed)
    assert verdict.p_value > 0.01  # and is right all the same
    same = kind(draws=199).fit(REFERENCE, CALIBRATION)
    assert same.exchangeability_p_ > 0.01 and any("drawn alike" in sentence for sentence in same.assumed_)


def test_copies_of_the_reference_are_said():
    test = DensityTest(draws=99)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExchangeabilityWarning)
        test.fit(REFERENCE, np.concatenate([CALIBRATION, REFERENCE[:30]]))
    assert any("30 of 230 calibration samples are exact copies" in sentence for sentence in test.assumed_)


def test_another_mix_of_classes_is_no_reason_within_classes():
    rng = np.random.default_rng(5)
    reference, reference_labels = labelled(600, rng)
    calibration, calibration_labels = labelled(300, rng)
    batch, labels = labelled(80, rng, (0.95, 0.05))
    plain = NearestBallTest(**FAST).fit(reference[:, :], calibration)
    by_class = DensityTest(draws=199).fit(
        reference, calibration, reference_labels=reference_labels, calibration_labels=calibration_labels
    )
    assert by_class.test(batch, labels).p_value > 0.05
    assert any("class by class" in sentence for sentence in by_class.test(batch, labels).assumed)
    wrong = by_class.test(batch, 1 - labels)  # predicted as the other class: in none of its balls
    assert wrong.p_value <= 0.01 and wrong.sample_scores.max() == 0
    assert plain.test(batch).p_value <= 1


@pytest.mark.parametrize("kind", [DensityTest, CoverageTest, NearestBallTest, HotellingTest])
def test_class_conditional_levels_hold_under_imbalance(kind):
    rng = np.random.default_rng(6)
    (reference, own), (pool, labels) = labelled(300, rng), labelled(3000, rng)
    # Here classes differ in how dense they are, so that an imbalance alone would move the statistic.
    test = kind(draws=99, check=False).fit(reference, pool[:200], reference_labels=own, calibration_labels=labels[:200])
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    batches, calibrations = [], []
    for _ in range(1000):
        a, b = rng.permutation(ones), rng.permutation(zeros)
        batches.append(np.r_[a[:2], b[:12]])
        calibrations.append(np.r_[a[2:62], b[12:42]])
    p = test.p_values(pool, batches, calibrations, labels=labels)
    assert_calibrated(p, 100)


def test_a_mix_that_differs_is_said():
    rng = np.random.default_rng(5)
    reference, reference_labels = labelled(600, rng)
    calibration, calibration_labels = labelled(300, rng, (0.9, 0.1))
    test = DensityTest(draws=199).fit(
        reference, calibration, reference_labels=reference_labels, calibration_labels=calibration_labels
    )
    assert any("different shares" in sentence for sentence in test.assumed_)
    with pytest.warns(ExchangeabilityWarning):
        NearestBallTest(draws=199).fit(reference, np.where(calibration_labels[:, None], calibration, calibration + 9))


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("both be given", {"reference_labels": np.zeros(400, int)}),
        ("one whole number a sample", {"reference_labels": np.zeros(3, int), "calibration_labels": np.zeros(200, int)}),
        ("one whole number a sample", {"reference_labels": np.zeros(400), "calibration_labels": np.zeros(200, int)}),
        ("same classes", {"reference_labels": np.zeros(400, int), "calibration_labels": np.ones(200, int)}),
        (
            "at least 6 samples of each class",
            {"reference_labels": np.r_[0, 0, np.ones(398, int)], "calibration_labels": np.zeros(200, int)},
        ),
    ],
)
def test_labels_that_cannot_be_used(words, arguments):
    with pytest.raises(ValueError, match=words):
        DensityTest().fit(REFERENCE, CALIBRATION, **arguments)


def test_labels_are_asked_for_and_refused():
    with pytest.raises(ValueError, match="must be left out"):
        DensityTest(**FAST).fit(REFERENCE, CALIBRATION).test(BATCH, np.zeros(30, int))
    by_class = DensityTest(**FAST).fit(
        REFERENCE, CALIBRATION, reference_labels=np.zeros(400, int), calibration_labels=np.zeros(200, int)
    )
    with pytest.raises(ValueError, match="labels must be given"):
        by_class.test(BATCH)
    with pytest.raises(ValueError, match="among the fitted classes"):
        by_class.test(BATCH, np.full(30, 4))


# ------------------------------------------------------------------ ends of the ranges


@each_kind
@pytest.mark.parametrize("m", [1, 2, 3, 400])
def test_smallest_and_largest_batches(test, m):
    verdict = clone(test).fit(REFERENCE, CALIBRATION[:150]).test(CLEAN[500 : 500 + m])
    assert 0 < verdict.p_value <= 1
    assert verdict.sample_scores.shape == verdict.sample_p_values.shape == (m,)
    assert np.isfinite(verdict.sample_scores).all() and np.isfinite(verdict.statistic)
    assert any("larger than the calibration set" in sentence for sentence in verdict.assumed) == (m == 400)


def test_density_ratio_of_one_sample_says_what_was_fixed():
    test = DensityRatioTest(**RATIO).fit(REFERENCE, CALIBRATION)
    assert any("Leave-one-out needs two samples" in sentence for sentence in test.test(BATCH[:1]).assumed)
    assert not any("Leave-one-out" in sentence for sentence in test.test(BATCH[:2]).assumed)


def test_smallest_sets():
    test = DensityTest(k=1, draws=1).fit(REFERENCE[:2], CALIBRATION[:1])
    assert test.test(BATCH[:1]).p_value in (0.5, 1.0)
    assert any("too few" in sentence for sentence in test.assumed_)
    alone = DensityTest().fit(REFERENCE)
    assert len(alone.calibration_) == 80 and alone.n_reference_ == 320


def test_all_the_same_says_nothing():
    test = DensityTest(**FAST).fit(REFERENCE, CALIBRATION + np.float32(50))
    verdict = test.test(BATCH + np.float32(50))
    assert verdict.p_value == 1 and any("nothing can be told" in sentence for sentence in verdict.assumed)


def test_torch_and_seeds():
    test = DensityTest(**FAST).fit(torch.from_numpy(REFERENCE), torch.from_numpy(CALIBRATION))
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # noqa: NPY002
    expected = test.test(BATCH).p_value
    assert test.test(torch.from_numpy(BATCH)).p_value == expected
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002  # noqa: NPY002
    drawn = {
        clone(test).set_params(random_state=seed).fit(REFERENCE, CALIBRATION).test(BATCH).p_value for seed in range(8)
    }
    assert len(drawn) > 1
    loose = clone(test).set_params(random_state=None).fit(REFERENCE, CALIBRATION)
    assert len({loose.test(BATCH).p_value for _ in range(8)}) > 1


def test_tests_on_the_same_features_share_their_balls():
    test = CombinedTest(**FAST).fit(REFERENCE, CALIBRATION)
    assert len({id(part.balls_) for part in test.tests_}) == 1
    other = CombinedTest([DensityTest(k=3), DensityTest(k=5)], **FAST).fit(REFERENCE, CALIBRATION)
    assert len({id(part.balls_) for part in other.tests_}) == 2
    names = [part.name for part in other.test(BATCH).parts]
    assert len(names) == 2


def test_feature_maps():
    reference, calibration, batch = images(300), images(100, seed=1), images(20, seed=2)

    def middle(batch):
        return batch[:, 0, 3:5, 3:5].reshape(len(batch), -1)

    verdict = DensityTest(features=middle, **FAST).fit(reference, calibration).test(batch)
    manifold = ReferenceManifold(5).fit(middle(reference))
    assert verdict.statistic == pytest.approx(manifold.density(middle(batch)))
    both = (
        CombinedTest([DensityTest(features="residual"), DensityTest()], **FAST).fit(reference, calibration).test(batch)
    )
    assert [part.name for part in both.parts] == ["density of residual", "density of pixels"]
    with pytest.raises(ValueError, match="must be 'pixels' for samples that are vectors"):
        DensityTest(features="residual").fit(REFERENCE, CALIBRATION)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (images(5, 3), "3 colour channels in place of 1"),
        (images(5)[:, 0], "grey images need a channel"),
        (images(5).transpose(0, 2, 3, 1), "channels come first"),
        (images(5, size=9), r"reference's shape \(n, 1, 8, 8\)"),
        (images(5).reshape(5, -1), "unflatten"),
        (images(5) * 255, "look like bytes, divide by 255"),
        ((images(5) * 255).astype(np.uint8), "divide bytes by 255"),
        (images(5)[:0], "must not be empty"),
        (images(5) * np.nan, "320 of its 320 values are NaN"),
        (np.array([["a"]]), "real numbers"),
        (np.array([{}]), "real numbers"),
        (images(5).astype(complex), "real numbers"),
        ([[1.0], [1.0, 2.0]], "rows differ in length"),
        (np.float32(3), "has shape"),
        (None, "real numbers"),
    ],
)
def test_batches_that_cannot_be_used(batch, words):
    test = DensityTest(**FAST).fit(images(100), images(50, seed=1))
    with pytest.raises((ValueError, TypeError), match=words):
        test.test(batch)


def test_range_is_recognised_the_other_way_round():
    test = DensityTest(**FAST).fit(images(100) * 255, images(50, seed=1) * 255)
    with pytest.raises(ValueError, match="multiply by 255"):
        test.test(images(5))
    with pytest.raises(ValueError, match="look like bytes"):
        DensityTest().fit(images(100), images(50) * 255)
    # Unclipped attacks leave [0, 1] a little; that is no mistake of the caller's.
    DensityTest(**FAST).fit(images(100), images(50, seed=1)).test(images(5) * 1.5 - 0.3)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (DensityTest(k=0), "k must be at least 1"),
        (DensityTest(k=2.5), "k must be"),
        (DensityTest(draws=0), "draws must be"),
        (DensityTest(alternative="both"), "alternative must be one of"),
        (DensityTest(ties="average"), "ties must be one of"),
        (DensityTest(features="nothing"), "features must be"),
        (DensityRatioTest(n_numerator=1), "n_numerator must be"),
        (DensityRatioTest(kernel="cubic"), "kernel must be one of"),
        (CombinedTest([]), "tests must be a non-empty list"),
        (CombinedTest([3]), "tests must be a non-empty list"),
        (CombinedTest([DensityTest(k=0)]), "k must be"),
        (DensityTest(k=400), "at least 401 samples"),
    ],
)
def test_parameters_that_cannot_be_used(test, words):
    with pytest.raises(ValueError, match=words):
        test.fit(REFERENCE, CALIBRATION)


def test_references_that_cannot_be_used():
    with pytest.raises(ValueError, match="every radius is 0"):
        DensityTest().fit(np.ones((50, 3)), CALIBRATION[:, :3])
    with pytest.raises(ValueError, match="must have the reference's"):
        DensityTest().fit(REFERENCE, CALIBRATION[:, :3])
    with pytest.raises(ValueError, match="calibration_labels must come with calibration"):
        DensityTest().fit(REFERENCE, calibration_labels=[1])


@pytest.mark.parametrize(
    ("batches", "calibration", "words"),
    [
        ([[]], None, "non-empty"),
        ([[0, 900]], None, "point to the pool"),
        ([[0.5]], None, "dtype"),
        ([[0, 1]], [[1, 2]], "must not share rows"),
        ([[0, 1]], [[2], [3]], "one list of rows a batch"),
    ],
)
def test_index_sets_that_cannot_be_used(batches, calibration, words):
    test = DensityTest(**FAST).fit(REFERENCE, CALIBRATION)
    with pytest.raises(ValueError, match=words):
        test.p_values(BATCH, batches, calibration)


@pytest.mark.parametrize("alpha", [0, 1, -1, "5%", None, True])
def test_levels_that_cannot_be_used(alpha):
    verdict = DensityTest(**FAST).fit(REFERENCE, CALIBRATION).test(BATCH)
    with pytest.raises(ValueError, match="alpha must be a number between 0 and 1"):
        verdict.reject(alpha)


def test_scores_of_another_test_are_refused():
    density, coverage = (
        DensityTest(**FAST).fit(REFERENCE, CALIBRATION),
        CoverageTest(**FAST).fit(REFERENCE, CALIBRATION),
    )
    with pytest.raises(ValueError, match="must come from this test's own"):
        density.test(coverage.measure(BATCH))
    with pytest.raises(ValueError, match="is empty"):
        density.test(density.measure(BATCH)[np.array([], int)])


# ------------------------------------------------------------------ scikit-learn's conventions


def as_estimator(cls, **parameters):
    """Its `fit` takes (reference, calibration); scikit-learn's checks hand in (X, y), and y is no calibration set."""

    def fit(self, X, y=None):
        return cls.fit(self, X)

    return type(cls.__name__, (cls,), {"fit": fit})(**parameters)


@pytest.mark.parametrize(
    "estimator",
    [
        as_estimator(DensityTest, k=1, draws=9),  # five points must do in some checks
        as_estimator(CoverageTest, k=1, draws=9),
        as_estimator(NearestBallTest, k=1, draws=9),
        as_estimator(HotellingTest, draws=9),
        as_estimator(DensityRatioTest, draws=9),
        as_estimator(CombinedTest, tests=[DensityTest(k=1)], draws=9),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimator_checks(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None, on_skip=None)
    wrong = {r["check_name"]: str(r["exception"]) for r in results if r["status"] not in ("passed", "skipped")}
    # Pickling needs a class that can be imported, which this stand-in is not; the tests themselves are below.
    wrong = {name: words for name, words in wrong.items() if "pickle" not in words.lower()}
    assert not wrong
    assert sum(r["status"] == "passed" for r in results) >= 35


@each_kind
def test_parameters_survive_a_clone(test):
    assert clone(test).get_params(deep=False).keys() == test.get_params(deep=False).keys()
    assert repr(clone(test)) == repr(test)
    assert not [name for name in vars(test) if name.endswith("_")]


# ------------------------------------------------------------------ files


@each_kind
def test_saved_and_loaded(test, tmp_path):
    fitted = clone(test).fit(REFERENCE, CALIBRATION)
    fitted.save(tmp_path / "test.safetensors")
    again = detectors.load(tmp_path / "test.safetensors")
    assert type(again) is type(fitted)
    a, b = fitted.test(BATCH), again.test(BATCH)
    assert a.p_value == b.p_value and a.assumed == b.assumed and a.contamination == b.contamination
    np.testing.assert_array_equal(a.sample_scores, b.sample_scores)
    again.save(tmp_path / "again.safetensors")
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("test", "again"))
    assert first.keys() == second.keys() and all((first[key] == second[key]).all() for key in first)


def test_saved_by_class_with_features_and_channels(tmp_path):
    reference, calibration, batch = images(300, 3), images(100, 3, 1), images(20, 3, 2)
    labels = np.arange(300) % 2, np.arange(100) % 2, np.arange(20) % 2
    test = CombinedTest([DensityTest(features="residual", per_channel=True), CoverageTest()], draws=99).fit(
        reference, calibration, reference_labels=labels[0], calibration_labels=labels[1]
    )
    test.save(tmp_path / "t")
    again = detectors.load(tmp_path / "t")
    assert again.test(batch, labels[2]).p_value == test.test(batch, labels[2]).p_value
    assert again.exchangeability_p_ == test.exchangeability_p_


def test_what_has_no_name_is_not_saved(tmp_path):
    def mine(images):
        return images.reshape(len(images), -1)

    test = DensityTest(features=mine, **FAST).fit(images(100), images(50, seed=1))
    words = r"mine is not registered: give it one with advlib\.detectors\.features\.register"
    with pytest.raises(ValueError, match=words):
        test.save(tmp_path / "t")
    assert not list(tmp_path.iterdir())
    features.register("test-detectors-mine", mine)
    test.save(tmp_path / "t")
    assert detectors.load(tmp_path / "t").features == "test-detectors-mine"
    loose = DensityTest(random_state=np.random.default_rng(0), **FAST).fit(REFERENCE, CALIBRATION)
    with pytest.raises(ValueError, match="random_state must be a plain value"):
        loose.save(tmp_path / "u")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "test.safetensors"
    CombinedTest([DensityTest(), CoverageTest()], **FAST).fit(REFERENCE, CALIBRATION).save(path)
    return path


def test_every_changed_byte_is_noticed(saved, tmp_path):
    content = saved.read_bytes()
    damaged = tmp_path / "damaged"
    for at in [*range(0, 2000, 97), *np.linspace(2000, len(content) - 1, 40).astype(int)]:
        changed = bytearray(content)
        changed[at] ^= 0x41
        damaged.write_bytes(changed)
        with pytest.raises(ValueError, match="damaged"):
            detectors.load(damaged)
    for size in (0, 7, 100, len(content) - 1):
        damaged.write_bytes(content[:size])
        with pytest.raises(ValueError, match="safetensors file"):
            detectors.load(damaged)


def forged(saved, path, change=None, tensors=None):
    """The same file with other words or arrays, sealed again: what someone would write who means harm."""
    held = load_file(saved)
    with saving.safe_open(saved, framework="numpy") as file:
        told = json.loads(file.metadata()["detector"])
    if change:
        change(told)
    held = {**held, **(tensors or {})}
    words = json.dumps(told)
    seal = saving.seal(words, held)
    save_file(held, path, metadata={"format": saving.FORMAT, "detector": words, "seal_sha256": seal})
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["test"].update({"class": "Path"}),
        lambda told: told["test"].update({"class": "_BatchTest"}),
        lambda told: told["test"]["parameters"].update({"draws": "many"}),
        lambda told: told["test"]["parameters"].update({"harm": 1}),
        lambda told: told["test"]["tests"][0].update({"balls": ["elsewhere"]}),
        lambda told: told["test"].update({"tests": []}),
        lambda told: told["test"].update({"tests": [told["test"]["tests"][0]]}),
        lambda told: told["test"]["tests"][0]["parameters"].update({"k": 3}),
        lambda told: told["test"]["tests"][0]["parameters"].update({"features": "os.system"}),
        lambda told: told["calibration"][1].update({"sparse": [10, 10]}),
        lambda told: told["calibration"].pop(),
        lambda told: told.pop("classes"),
        lambda told: told.update({"classes": [0, 1]}),
        lambda told: told.update({"sample_shape": "wide"}),
        lambda told: told.update({"value_range": [0]}),
        lambda told: told.clear(),
    ],
)
def test_sealed_but_senseless_files_are_refused(saved, tmp_path, change):
    with pytest.raises(ValueError, match=r"cannot be used as a test"):
        detectors.load(forged(saved, tmp_path / "forged", change))


@pytest.mark.parametrize(
    "tensors",
    [
        {"calibration.1.indices": np.array([10**9], dtype=np.int64)},
        {"calibration.1.indptr": np.array([0, 5], dtype=np.int64)},
        {"calibration.0": np.full((200, 1), np.nan)},
        {"calibration.0": np.zeros((3, 1))},
        {"balls.0.0.0.radii": np.ones(3)},
        {"balls.0.0.0.radii": -np.ones(400)},
        {"balls.0.0.0.reference": np.full((400, 4), np.inf, dtype=np.float32)},
    ],
)
def test_sealed_but_wrong_arrays_are_refused(saved, tmp_path, tensors):
    with pytest.raises(ValueError, match=r"cannot be used as a test"):
        detectors.load(forged(saved, tmp_path / "forged", tensors=tensors))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        detectors.load(tmp_path / "none")
    manifold = tmp_path / "manifold"
    ReferenceManifold().fit(REFERENCE).save(manifold)
    with pytest.raises(ValueError, match="is no saved test: its format is 'advlib reference manifold"):
        detectors.load(manifold)
