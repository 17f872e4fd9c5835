"""Streams: the evidence is a martingale, clean streams hardly ever alarm, changes are found."""

import numpy as np
import pytest
from scipy import integrate, stats

from advlib.detectors import CombinedTest, DensityTest, NearestBallTest, sequential
from advlib.detectors.permutations import p_values
from advlib.detectors.sequential import StreamTest

RNG = np.random.default_rng(3)
REFERENCE = RNG.normal(size=(200, 2)).astype(np.float32)
CALIBRATION = RNG.normal(size=(60, 2)).astype(np.float32)
TEST = DensityTest(draws=99, check=False).fit(REFERENCE, CALIBRATION)


def batch(rng, m=5, shift=0.0):
    return (rng.normal(size=(m, 2)) + shift).astype(np.float32)


def test_e_value_is_the_mixture_of_power_calibrators():
    for p in (1e-6, 0.001, 0.2, 0.9, 0.99995, 0.99999, 1.0):
        expected = integrate.quad(lambda k, p=p: k * p ** (k - 1), 0, 1)[0]
        assert sequential.e_value(p) == pytest.approx(expected, rel=1e-6)
    p = np.linspace(1e-4, 1, 1000)
    assert (np.diff(sequential.e_value(p)) < 0).all()


@pytest.mark.parametrize("n", [2, 20, 100, 1000, 10_000])
def test_e_values_of_permutation_p_values_have_mean_at_most_one(n):
    mean = sequential.e_value(np.arange(1, n + 1) / n).mean()
    assert 0.4 < mean <= 1


def test_e_values_of_subnormal_p_values_are_finite():
    with np.errstate(all="raise"):
        e = sequential.e_value([5e-324, 2.5e-321, np.finfo(float).tiny])
    assert np.isfinite(e).all() and e[0] == e[1] == e[2] > 1e300


def test_e_values_outside_the_range():
    for p in (0.0, -0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="must lie in"):
            sequential.e_value([0.5, p])


def test_evidence_is_what_the_formula_says():
    p = np.random.default_rng(0).random(30)
    e = sequential.e_value(p)
    weights = 1 / (np.arange(1, 31) * np.arange(2, 32))
    for t in (1, 2, 17, 30):
        direct = sum(weights[s] * np.prod(e[s:t]) for s in range(t)) + 1 - weights[:t].sum()
        assert sequential.evidence(p)[t - 1] == pytest.approx(direct)


def test_ville_on_uniformp_values():
    p = np.random.default_rng(1).random((5_000, 1_000))
    alarms = (sequential.evidence(p).max(axis=1) >= 20).sum()
    assert alarms <= stats.binom.ppf(0.999, 5_000, 0.05)


def test_class_and_function_agree():
    stream, rng = StreamTest(TEST), np.random.default_rng(0)
    steps = [stream.update(batch(rng)) for _ in range(20)]
    expected = sequential.evidence(np.array([step.p_value for step in steps]))
    np.testing.assert_allclose([step.evidence for step in steps], expected)
    assert [step.number for step in steps] == list(range(1, 21)) and stream.number == 20


@pytest.mark.parametrize("m", [1, 4])
def test_clean_streams_of_a_thousand_batches_hardly_ever_alarm(m):
    """Each stream has its own small calibration set, shared by all of its batches."""
    streams, alarms, p = 25, 0, []
    for number in range(streams):
        rng = np.random.default_rng([number, m])
        test = NearestBallTest(draws=49, check=False).fit(REFERENCE, batch(rng, 40))
        pool = test.measure(batch(rng, 1000 * m))
        stream = StreamTest(test, draws=49, max_samples=400, random_state=number)
        for lo in range(0, 1000 * m, m):
            step = stream.update(pool[lo : lo + m])
            p.append(step.p_value)
        alarms += step.alarm
    assert alarms <= stats.binom.ppf(0.999, streams, 0.05)
    # The argument rests on independent uniform p-values: uniform here, independence by their products below.
    p = np.array(p).reshape(streams, 1000)
    assert 0.09 < (p <= 0.1 + 1e-9).mean() < 0.11  # a step of the 50 ranks there are, unlike 0.05
    follow = np.corrcoef(p[:, :-1].ravel(), p[:, 1:].ravel())[0, 1]
    assert abs(follow) < 4 / np.sqrt(p.size)
    # The mean over a stream must not wander either: that is what one fixed calibration set does.
    assert p.mean(axis=1).std() < 1.5 * np.sqrt(1 / 12 / 1000)


def test_p_values_against_one_fixed_calibration_set_depend_on_each_other():
    """Why batches join the pool: against one set, the p-values of a whole stream are shifted together."""
    means = []
    for number in range(20):
        rng = np.random.default_rng([number, 9])
        test = NearestBallTest(draws=49, check=False).fit(REFERENCE, batch(rng, 40))
        pool = test.measure(batch(rng, 200 * 20))
        means.append(test.p_values(pool, np.arange(200 * 20).reshape(200, 20)).mean())
    assert np.std(means) > 3 * np.sqrt(1 / 12 / 200)


@pytest.mark.parametrize("begin", [0, 50])
@pytest.mark.parametrize("test", [TEST, CombinedTest(draws=199, check=False).fit(REFERENCE, CALIBRATION)])
def test_changes_are_found_soon(test, begin):
    stream, rng = StreamTest(test, draws=999), np.random.default_rng(4)
    for _ in range(begin):
        assert not stream.update(batch(rng, 20)).alarm
    alarms = [stream.update(batch(rng, 20, shift=2.5)).alarm for _ in range(8)]
    assert alarms[-1] and stream.first_alarm == begin + 1 + alarms.index(True)
    assert stream.update(batch(rng, 20)).alarm  # an alarm stays


def test_pool_is_thinned_and_sizes_may_differ():
    stream, rng = StreamTest(TEST, max_samples=70), np.random.default_rng(0)
    for m in (1, 7, 30, 100, 2):
        stream.update(batch(rng, m))
        assert len(stream._pool) <= 70
    assert len(TEST.calibration_) == 60  # the test itself is as it was


def test_class_conditional_streams():
    labels = np.arange(200) % 2, np.arange(60) % 2
    test = DensityTest(draws=99, check=False).fit(
        REFERENCE, CALIBRATION, reference_labels=labels[0], calibration_labels=labels[1]
    )
    stream, rng = StreamTest(test), np.random.default_rng(0)
    assert 0 < stream.update(batch(rng), np.array([0, 0, 1, 1, 1])).p_value <= 1
    with pytest.raises(ValueError, match="labels must be given"):
        stream.update(batch(rng))


def test_a_refused_batch_leaves_the_stream_as_it_was():
    stream, rng = StreamTest(TEST), np.random.default_rng(0)
    stream.update(batch(rng))
    before = stream.evidence, stream.number, len(stream._pool)
    for bad in (np.zeros((3, 5)), np.full((3, 2), np.nan), np.zeros((0, 2))):
        with pytest.raises(ValueError):
            stream.update(bad)
    assert (stream.evidence, stream.number, len(stream._pool)) == before


@pytest.mark.parametrize(
    ("words", "arguments"),
    [("alpha must be", {"alpha": 1.5}), ("draws must be", {"draws": 0}), ("max_samples must be", {"max_samples": 1})],
)
def test_parameters_that_cannot_be_used(words, arguments):
    with pytest.raises(ValueError, match=words):
        StreamTest(TEST, **arguments)


def test_first_p_value_is_that_of_a_permutation_test():
    """The first batch meets the calibration set alone: its rank is that of `_p_values` on the same draws."""
    test = NearestBallTest(check=False, ties="conservative").fit(REFERENCE, CALIBRATION)
    one = batch(np.random.default_rng(0), 1)
    scores = np.concatenate([test.measure(one).parts[0], test.calibration_.parts[0]])
    assert StreamTest(test).update(one).p_value == p_values(scores, "two-sided", "conservative", None)[0]
