"""Density and coverage of query sets, whole and in sub-batches, against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from advlib.prdc import ReferenceManifold, expected_coverage
from compendium.common import curves

RNG = np.random.default_rng(0)


@given(st.integers(2, 60), st.integers(1, 60), st.integers(2, 50))
@settings(max_examples=60)
def test_sub_batches_are_disjoint_within_a_split(n, size, least):
    if size > n:
        with pytest.raises(ValueError, match="size must lie between 1"):
            curves.sub_batches(n, size, np.random.default_rng(0), least)
        return
    batches = curves.sub_batches(n, size, np.random.default_rng(0), least)
    each = n // size
    assert batches.shape[1] == size and len(batches) >= least and len(batches) % each == 0
    for split in batches.reshape(-1, each * size):
        assert len(set(split.tolist())) == each * size and split.min() >= 0 and split.max() < n


def test_sub_batches_need_two():
    with pytest.raises(ValueError, match="least must be at least 2"):
        curves.sub_batches(10, 5, RNG, 1)


def brute(reference, queries, k):
    radii = np.sort(cdist(reference, reference), axis=1)[:, k]
    inside = cdist(queries, reference) < radii
    return inside.sum() / (k * len(queries)), inside.any(0).mean()


def test_a_curve_equals_brute_force():
    reference, clean = RNG.random((80, 1, 3, 3)), RNG.random((40, 1, 3, 3))
    moved = [clean + shift for shift in (0.0, 0.1, 0.6)]
    manifold = ReferenceManifold(4).fit(curves.flat(reference))
    batches = curves.sub_batches(40, 10, RNG)
    curve = curves.density_coverage_curve(manifold, clean, iter(moved), [0, 0.1, 0.6], batches, title="toy")
    for queries, found in zip([clean, *moved], [curve.clean, *curve.scores], strict=True):
        assert (found.density, found.coverage) == pytest.approx(brute(curves.flat(reference), curves.flat(queries), 4))
        parts = np.array([brute(curves.flat(reference), curves.flat(queries[rows]), 4) for rows in batches])
        np.testing.assert_allclose(found.batch_density, parts[:, 0])
        np.testing.assert_allclose(found.batch_coverage, parts[:, 1])
    assert curve.n_reference == 80 and curve.n_queries == 40 and curve.batch_size == 10 and curve.k == 4
    assert np.isnan(curve.accuracy).all()
    assert curve.expected_coverage == expected_coverage(80, 40, 4)
    assert curve.expected_batch_coverage == expected_coverage(80, 10, 4)
    area, power = curve.decisions("density")
    assert area[0] == 0.5 and power[0] <= 0.05 and area[2] == power[2] == 1


def test_a_decision_is_two_sided():
    """Density far above the clean one's is as suspect as far below."""

    def of(values):
        return curves.Score(0, 0, np.array(values, float), np.zeros(len(values)), 0)

    clean = of(np.linspace(0.9, 1.1, 41))
    curve = curves.Curve("", np.arange(3.0), clean, (of([2.0] * 4), of([0.1] * 4), of([1.0] * 4)), 10, 10, 2, 5)
    area, power = curve.decisions("density")
    np.testing.assert_array_equal(power, [1, 1, 0])
    assert area[0] == area[1] == 1 and area[2] < 0.1


def test_density_error_is_the_standard_error_of_the_ball_counts():
    reference, clean = RNG.random((60, 5)), RNG.random((30, 5))
    manifold = ReferenceManifold(3).fit(reference)
    found = curves.score(manifold, clean, [[0, 1]])
    counts = manifold.ball_counts(clean) / 3
    assert found.density_error == pytest.approx(counts.std(ddof=1) / np.sqrt(30))
    assert curves.score(manifold, clean[:1], [[0]]).density_error == 0


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_sets_as_values(count):
    reference = RNG.random((30, 4))
    manifold = ReferenceManifold(2).fit(reference)
    with pytest.raises(ValueError, match="one query set for each of the 2 entries"):
        curves.density_coverage_curve(manifold, reference, [reference] * count, [0, 1], [[0, 1]])
