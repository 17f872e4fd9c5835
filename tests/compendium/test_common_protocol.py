"""Algorithm 1 and its statistics, against definitions, counts by hand and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from advlib.ulsif import ULSIF
from compendium.common import protocol

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


def images(rng, n=40, channels=1, size=4):
    return rng.random((n, channels, size, size)).astype(np.float32)


def test_summary_is_student_t():
    summary = protocol.Summary.of(np.array([1.0, 2.0, 3.0, 4.0]))
    # t(0.975, 3 degrees of freedom) = 3.18245 (tables); s/√n = 1.290994/2.
    assert summary.mean == 2.5
    assert summary.high - summary.mean == pytest.approx(3.18245 * 1.290994 / 2, rel=1e-5)
    assert summary.mean - summary.low == pytest.approx(summary.high - summary.mean)


def test_summary_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    summaries = [protocol.Summary.of(rng.normal(7, 2, 10)) for _ in range(2000)]
    covered = np.mean([s.low <= 7 <= s.high for s in summaries])
    # Binomial 99.9 % band at 2,000 repetitions: 0.95 ± 3.29 · √(0.95 · 0.05 / 2000).
    assert abs(covered - 0.95) < 3.29 * np.sqrt(0.95 * 0.05 / 2000)


def test_departure_is_symmetric_in_the_ratio():
    np.testing.assert_allclose(protocol.departure(np.array([0.5, 1.0, 2.0])), [np.log(2), 0, np.log(2)])
    assert protocol.departure(np.array([0.0]))[0] == np.inf


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
)
def test_auroc_equals_scikit_learn_with_ties(null, alternative):
    truth = [0] * len(null) + [1] * len(alternative)
    expected = roc_auc_score(truth, null + alternative)
    assert protocol.auroc(np.array(null, float), np.array(alternative, float)) == pytest.approx(expected)


def test_auroc_takes_infinite_scores():
    assert protocol.auroc(np.array([0.0, 1.0]), np.array([np.inf, np.inf])) == 1.0


@pytest.mark.parametrize("side", ["high", "low", "two-sided"])
@given(st.lists(st.integers(0, 5), min_size=2, max_size=90), st.sampled_from([0.05, 0.2, 0.5]))
def test_power_against_further_clean_batches_is_the_level_at_any_number_with_any_ties(side, values, level):
    """Each of n exchangeable batches is as likely to be the suspect one: the mean over them is exact."""
    values = np.array(values, float)
    sides, n = (2 if side == "two-sided" else 1), len(values)
    rates = [protocol.power(np.delete(values, i), values[i : i + 1], side, level) for i in range(n)]
    assert np.mean(rates) == pytest.approx(sides * np.floor(level / sides * n + 1e-9) / n)


def test_power_counts_batches_beyond_the_clean_ones():
    clean = np.arange(99.0)  # p ≤ 0.05 from rank 5 of 100 on: 4 clean batches above
    assert protocol.power(clean, np.array([94.5, 93.5, 200.0, -1.0])) == 0.5
    assert protocol.power(clean, np.array([3.5, 4.5, 200.0, -1.0]), "low") == 0.5
    assert protocol.power(clean, np.array([97.5, 96.5, 1.5, 0.5, -np.inf, np.inf]), "two-sided") == 4 / 6
    assert protocol.power(clean, np.array([94.0])) == 0.5  # rank 5 or 6, beside its equal
    assert protocol.power(np.zeros(99), np.zeros(7)) == pytest.approx(0.05)


def test_power_needs_as_many_clean_batches_as_the_level_asks_for():
    far = np.array([100.0])
    assert [protocol.power(np.arange(n), far) for n in (18, 19)] == [0, 1]
    assert [protocol.power(np.arange(n), far, "two-sided") for n in (38, 39)] == [0, 1]


def test_power_finds_a_fall_beside_a_long_tail_upwards():
    """Tails of equal rate find 0, which lies no further from the median than 5 % of the clean values do."""
    clean = np.random.default_rng(0).lognormal(0, 1, 2000)
    assert np.median(clean) < np.quantile(np.abs(clean - np.median(clean)), 0.95)
    assert protocol.power(clean, np.array([0.0, 100.0]), "two-sided") == 1


def test_power_names_a_side_that_it_does_not_know():
    with pytest.raises(ValueError, match="side must be one of high, low, two-sided, but is 'both'"):
        protocol.power(np.zeros(3), np.zeros(3), "both")


def test_draws_are_without_replacement_and_independent_sets():
    rng = np.random.default_rng(0)
    a, b = protocol.draw_indices(30, 200, 20, rng), protocol.draw_indices(30, 200, 5, rng)
    assert a.shape == (200, 20) and b.shape == (200, 5)
    assert all(len(set(row)) == 20 for row in a) and all(len(set(row)) == 5 for row in b)
    # Independent draws of 20 and 5 from 30 share 20 · 5 / 30 images on average.
    shared = np.mean([len(set(x) & set(y)) for x, y in zip(a, b, strict=True)])
    assert shared == pytest.approx(20 * 5 / 30, abs=0.35)


@pytest.mark.parametrize(("draws", "size", "word"), [(1, 5, "draws"), (3, 0, "batch_size"), (3, 11, "batch_size")])
def test_impossible_draws_are_named(draws, size, word):
    with pytest.raises(ValueError, match=word):
        protocol.draw_indices(10, draws, size, np.random.default_rng(0))


def test_numerators_may_come_from_a_larger_pool():
    rng = np.random.default_rng(0)
    everything = images(rng, 80)
    settings = {"draws": 3, "batch_size": 10, "random_state": 0}
    found = protocol.density_ratio_comparison(
        everything[:20], everything[:20], numerators=everything, rng=np.random.default_rng(1), **settings
    )["combined"]
    again = np.random.default_rng(1)
    a, b = protocol.draw_indices(80, 3, 10, again), protocol.draw_indices(20, 3, 10, again)
    flat = everything.reshape(80, -1)
    single = [np.mean(ULSIF(random_state=0).fit(flat[i], flat[j]).predict(flat[i])) for i, j in zip(a, b, strict=True)]
    np.testing.assert_allclose(found.r2, single, rtol=1e-9)
    with pytest.raises(ValueError, match="numerators must be images like real"):
        protocol.density_ratio_comparison(everything, everything, numerators=images(rng, size=5), rng=rng, **settings)


def test_comparison_equals_single_fits_written_out():
    rng = np.random.default_rng(3)
    real = images(rng, channels=3)
    adversarial = real + rng.choice([-0.2, 0.2], real.shape).astype(np.float32)
    settings = {"sigmas": [0.3, 1.0, 3.0], "lambdas": [0.01, 0.1], "random_state": 5}
    found = protocol.density_ratio_comparison(
        real, adversarial, draws=3, batch_size=12, rng=np.random.default_rng(8), **settings
    )
    again = np.random.default_rng(8)
    a, b = (protocol.draw_indices(len(real), 3, 12, again) for _ in range(2))
    for channel in range(3):
        for t in range(3):
            x, y, z = (
                pool[i, channel].reshape(12, -1) for pool, i in ((real, a[t]), (adversarial, b[t]), (real, b[t]))
            )
            result = found[f"channel {channel}"]
            assert result.r1[t] == pytest.approx(np.mean(ULSIF(**settings).fit(x, y).predict(x)), rel=1e-9)
            assert result.r2[t] == pytest.approx(np.mean(ULSIF(**settings).fit(x, z).predict(x)), rel=1e-9)
    expected = np.mean([found[f"channel {c}"].r1 for c in range(3)], axis=0)
    np.testing.assert_allclose(found["combined"].r1, expected)


def test_one_channel_has_only_the_combined_result():
    rng = np.random.default_rng(0)
    real = images(rng)
    found = protocol.density_ratio_comparison(real, real, draws=2, batch_size=10, rng=rng)
    assert list(found) == ["combined"]
    # Nothing was attacked: adversarial and real are the same images, so R1 and R2 are the same fits.
    np.testing.assert_array_equal(found["combined"].r1, found["combined"].r2)


def test_same_generator_same_numbers():
    real = images(np.random.default_rng(0))
    runs = [
        protocol.density_ratio_comparison(real, real[::-1], draws=2, batch_size=10, rng=np.random.default_rng(4))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0]["combined"].r1, runs[1]["combined"].r1)


def test_pools_must_pair_up_and_be_images():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="pair up"):
        protocol.density_ratio_comparison(images(rng, 20), images(rng, 21), draws=2, batch_size=5, rng=rng)
    with pytest.raises(ValueError, match=r"real must be images of shape \(n, c, h, w\)"):
        protocol.density_ratio_comparison(np.zeros((20, 9)), np.zeros((20, 9)), draws=2, batch_size=5, rng=rng)


def test_clean_neighbours_at_both_ends():
    rng = np.random.default_rng(0)
    real = images(rng, 200)
    assert protocol.clean_neighbour_share(real, real + 10) == (1.0, 0.0)
    mixed = protocol.clean_neighbour_share(real, images(rng, 200))
    # Binomial 99.9 % band around one half for 200 images, widened by √2: neighbours come in mutual pairs.
    assert np.abs(np.array(mixed) - 0.5).max() < 3.29 * np.sqrt(0.25 / 200 * 2)


def test_noisy_images_have_clean_neighbours():
    """Noise lies twice between two noisy images and once between a noisy and a clean one."""
    rng = np.random.default_rng(0)
    real, other = images(rng, 100, size=16), images(rng, 100, size=16)
    of_real, of_noisy = protocol.clean_neighbour_share(real, other + rng.choice([-0.5, 0.5], other.shape))
    assert of_real == 1.0 and of_noisy > 0.95


@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
def test_disjoint_limit_is_what_ulsif_gives_out_of_reach(kernel):
    rng = np.random.default_rng(2)
    numerator = rng.normal(size=(30, 5))
    fit = ULSIF([1.5], [0.01], kernel=kernel).fit(numerator, rng.normal(size=(30, 5)) + 1e5)
    expected = protocol.disjoint_mean_ratio(numerator, 1.5, 0.01, kernel)
    assert np.mean(fit.predict(numerator)) == pytest.approx(expected, rel=1e-10)
