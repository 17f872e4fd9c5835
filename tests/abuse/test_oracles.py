"""Answers at the ends of the number range, against brute force in 80 bits, and streams against their definition."""

import warnings
from fractions import Fraction

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tally import case, times

from advlib.detectors import DensityTest, NearestBallTest, StreamTest
from advlib.detectors.sequential import e_value, evidence
from advlib.prdc import ReferenceManifold
from advlib.ulsif import ULSIF

SETTINGS = settings(suppress_health_check=list(HealthCheck), max_examples=times(60, 1500))
GRID = arrays(np.int64, st.tuples(st.integers(4, 12), st.integers(1, 4)), elements=st.integers(-7, 7))
EXPONENTS = st.sampled_from([-1060, -1022, -700, -149, -130, -60, -21, 0, 19, 60, 120, 500, 900, 1000])


def squares(queries, reference):
    """Exact squared distances of whole numbers."""
    return ((queries[:, None].astype(object) - reference[None].astype(object)) ** 2).sum(axis=2)


def brute(reference, queries, k):
    """Radii squared and ball counts, in whole numbers, strictly inside."""
    among = squares(reference, reference)
    radii = [sorted(np.delete(row, i))[k - 1] for i, row in enumerate(among)]
    return radii, [sum(bool(d < r) for d, r in zip(row, radii, strict=True)) for row in squares(queries, reference)]


@SETTINGS
@given(GRID, st.integers(1, 3), EXPONENTS, st.integers(0, 2**32 - 1))
def test_ball_counts_at_any_magnitude_equal_whole_numbers(grid, k, exponent, seed):
    """Subnormal to huge: a power of two changes no distance's order, and whole numbers have no rounding."""
    queries = np.random.default_rng(seed).integers(-8, 9, (5, grid.shape[1]))
    radii, counts = brute(grid, queries, k)
    unit = np.ldexp(1.0, exponent)
    case()
    if not any(radii):
        return  # nothing but copies, which `fit` refuses
    manifold = ReferenceManifold(k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # copies
        manifold.fit(grid * unit)
    assert manifold.ball_counts(queries * unit).tolist() == counts
    np.testing.assert_allclose(manifold.radii_, np.sqrt(np.array(radii, float)) * unit, rtol=1e-12)


@SETTINGS
@given(GRID, EXPONENTS, st.integers(0, 2**32 - 1))
def test_the_nearest_ball_at_any_magnitude_equals_brute_force(grid, exponent, seed):
    queries = np.random.default_rng(seed).integers(-8, 9, (5, grid.shape[1]))
    radii, _ = brute(grid, queries, 1)
    case()
    if not all(radii):
        return  # a ball of radius 0 has no inside
    least = [min(Fraction(int(d), int(r)) for d, r in zip(row, radii, strict=True)) for row in squares(queries, grid)]
    unit = np.ldexp(1.0, exponent)
    test = NearestBallTest(1, draws=1, check=False).fit(grid * unit, queries * unit)
    found = test.measure(queries * unit).parts[0][:, 0]
    # Radii are kept in the data's own unit, in steps of at least the smallest subnormal number; none is below the unit.
    step = np.ldexp(1.0, -1074 - exponent)
    np.testing.assert_allclose(found, np.sqrt(np.array([float(x) for x in least])), rtol=max(1e-6, step), atol=1e-9)


@SETTINGS
@given(st.lists(st.floats(1e-300, 1.0), min_size=1, max_size=30))
def test_evidence_equals_its_definition_summed_from_every_start(p):
    """E_t = Σ_s w_s Π_{i=s..t} e_i + Σ_{s>t} w_s, term by term in rational numbers."""
    e = [Fraction(float(each)) for each in np.atleast_1d(e_value(np.array(p)))]
    found = evidence(np.array(p))
    for t in range(1, len(p) + 1):
        total = Fraction(1, t + 1)
        for s in range(1, t + 1):
            product = Fraction(1, s * (s + 1))
            for i in range(s, t + 1):
                product *= e[i - 1]
            total += product
        try:
            expected = float(total)
        except OverflowError:
            expected = np.inf
        np.testing.assert_allclose(found[t - 1], expected, rtol=1e-9)
    case()


@SETTINGS
@given(st.integers(2, 8), st.integers(1, 8), st.integers(0, 2**32 - 1), st.sampled_from([-300, -20, 0, 20, 300]))
def test_ratios_do_not_depend_on_the_unit(n, m, seed, exponent):
    """Points and σ in other units, exactly: the same ratios, never negative, never NaN."""
    rng = np.random.default_rng(seed)
    numerator, denominator = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    unit = np.ldexp(1.0, exponent)
    one = ULSIF(sigmas=0.5, lambdas=0.1).fit(numerator, denominator)
    other = ULSIF(sigmas=0.5 * unit, lambdas=0.1).fit(numerator * unit, denominator * unit)
    a, b = one.predict(denominator), other.predict(denominator * unit)
    assert (a >= 0).all() and np.isfinite(a).all()
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    case()


RNG = np.random.default_rng(0)
FITTED = DensityTest(2, draws=19).fit(RNG.normal(size=(40, 2)), RNG.normal(size=(20, 2)))


class Stream(RuleBasedStateMachine):
    """A stream against the formula, after any order of good and bad batches."""

    @initialize(alpha=st.sampled_from([0.01, 0.05, 0.5]), most=st.integers(2, 60))
    def begin(self, alpha, most):
        self.alpha, self.p, self.alarms = alpha, [], []
        self.stream = StreamTest(FITTED, alpha=alpha, draws=19, max_samples=most)
        case()

    @rule(m=st.integers(1, 9), shift=st.sampled_from([0.0, 3.0]), seed=st.integers(0, 99))
    def good(self, m, shift, seed):
        step = self.stream.update(shift + np.random.default_rng(seed).normal(size=(m, 2)))
        self.p.append(step.p_value)
        assert step.number == len(self.p) and step.size == m and 0 < step.p_value <= 1

    @rule(batch=st.sampled_from([np.zeros((0, 2)), np.zeros((3, 3)), np.full((2, 2), np.nan), "word", None]))
    def bad(self, batch):
        before = (self.stream.evidence, self.stream.number, self.stream.first_alarm, len(self.stream._pool))
        try:
            self.stream.update(batch)
        except (ValueError, TypeError):
            pass
        else:
            raise AssertionError("taken")
        assert before == (self.stream.evidence, self.stream.number, self.stream.first_alarm, len(self.stream._pool))

    @invariant()
    def is_what_the_formula_says(self):
        if not getattr(self, "p", None):
            return
        steps = evidence(np.array(self.p))
        np.testing.assert_allclose(self.stream.evidence, steps[-1], rtol=1e-9)
        over = np.flatnonzero(steps >= 1 / self.alpha)
        assert self.stream.first_alarm == (over[0] + 1 if len(over) else None)
        assert len(self.stream._pool) <= max(self.stream.max_samples, len(FITTED.calibration_))


def test_a_stream_under_any_order_of_batches():
    run_state_machine_as_test(Stream, settings=settings(max_examples=times(15, 200), stateful_step_count=12))
