"""Clusters' counts, maps, volumes and centres against closed forms, brute force and peers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

from advlib.prdc import ReferenceManifold
from compendium.nb10_metric_analysis import geometry


def blobs(rng, classes=3, each=40, d=5, far=20.0):
    middles = rng.normal(size=(classes, d)) * far
    labels = np.repeat(np.arange(classes), each)
    return middles[labels] + rng.normal(size=(classes * each, d)), labels


# ---------------------------------------------------------------- label counts


def test_label_counts_by_hand():
    counts = geometry.label_counts(np.array([[0, 2, 2], [1, 1, 1]]), 4)
    np.testing.assert_array_equal(counts, [[1, 0, 2, 0], [0, 3, 0, 0]])


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 30), st.integers(0, 99))
def test_every_image_is_counted_once(classes, e, n, seed):
    predictions = np.random.default_rng(seed).integers(0, classes, (e, n))
    counts = geometry.label_counts(predictions, classes)
    assert counts.shape == (e, classes) and (counts.sum(axis=1) == n).all()
    label, _, share = geometry.dominance(counts, np.arange(e))
    assert 1 / classes <= share <= 1 and (predictions[-1] == label).mean() == share


def test_dominance_begins_at_the_start_of_the_last_unbroken_reign():
    counts = np.array([[9, 1], [5, 5], [2, 8], [5, 5], [1, 9], [0, 10]])
    epsilons = [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert geometry.dominance(counts, epsilons) == (1, 0.4, 1.0)
    assert geometry.dominance(counts[[0, 0]], [0, 0.5]) == (0, 0.0, 0.9)
    # Most frequent throughout, but never more than half.
    assert geometry.dominance(np.array([[4, 3, 3], [5, 3, 2]]), [0, 0.5]) == (0, None, 0.5)


def test_far_radii_are_few_of_a_normal_distribution_and_outliers_are_found():
    radii = 10 + np.random.default_rng(0).normal(size=100_000)
    assert geometry.far_share(radii) == pytest.approx(0.0035, abs=0.001)
    assert geometry.far_share(np.r_[radii, np.full(5_000, 30)]) > 0.04


# ---------------------------------------------------------------- maps


def test_minimum_distortion_map_is_standardised_keeps_clusters_and_leaves_the_generators_alone():
    points, labels = blobs(np.random.default_rng(0))
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(1).item(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    placed = geometry.minimum_distortion_map(points, np.random.default_rng(1))
    assert (torch.rand(1).item(), np.random.rand()) == expected  # noqa: NPY002
    np.testing.assert_allclose(placed.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(placed.T @ placed / len(placed), np.eye(2), atol=1e-2)
    assert geometry.neighbour_agreement(placed, labels) > 0.95


def test_minimum_distortion_map_repeats_with_the_seed():
    points, _ = blobs(np.random.default_rng(0), each=15)
    maps = [geometry.minimum_distortion_map(points, np.random.default_rng(seed)) for seed in (3, 3)]
    np.testing.assert_array_equal(*maps)


@given(st.integers(0, 999), st.integers(1, 4))
@settings(max_examples=25)
def test_neighbour_agreement_equals_brute_force(seed, k):
    rng = np.random.default_rng(seed)
    points, labels = rng.normal(size=(15, 3)), rng.integers(0, 3, 15)
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    near = distances.argsort(axis=1)[:, :k]
    expected = (labels[near] == labels[:, None]).mean()
    assert geometry.neighbour_agreement(points, labels, k) == pytest.approx(expected)


def test_neighbour_agreement_with_copies_and_at_both_ends():
    copies = np.zeros((10, 2))
    assert geometry.neighbour_agreement(copies, np.zeros(10), k=3) == 1.0
    assert geometry.neighbour_agreement(np.arange(10.0)[:, None], np.arange(10), k=2) == 0.0


# ---------------------------------------------------------------- volumes


def test_ball_sums_equal_a_plain_loop_and_leave_classes_out():
    rng = np.random.default_rng(0)
    reference, points, labels = rng.normal(size=(50, 7)), rng.normal(size=(30, 7)), rng.integers(0, 4, 30)
    expected = np.zeros(3)
    for point, label in zip(points, labels, strict=True):
        if label < 3:
            radius = np.sort(np.linalg.norm(reference - point, axis=1))[24]
            expected[label] += 4 / 3 * math.pi * radius**3
    np.testing.assert_allclose(geometry.ball_sums(reference, points, labels, 3), expected)


def test_ball_sums_grow_with_the_count_alone():
    """Nothing widens, the same points come twice: the paper's volume doubles, the log volume stays."""
    rng = np.random.default_rng(0)
    reference, points = rng.normal(size=(60, 4)), rng.normal(size=(40, 4))
    once = geometry.ball_sums(reference, points, np.zeros(40, int), 1)
    twice = geometry.ball_sums(reference, np.tile(points, (2, 1)), np.zeros(80, int), 1)
    np.testing.assert_allclose(twice, 2 * once)
    assert geometry.ball_sums(reference, points, np.ones(40, int), 1) == 0


@pytest.mark.parametrize("shape", [(30, 6), (10, 60)], ids=["more points", "more dimensions"])
def test_log_volume_equals_scikit_learns_determinant(shape):
    points = np.random.default_rng(0).normal(size=shape) * np.linspace(0.5, 3, shape[1])
    covariance = LedoitWolf().fit(points).covariance_
    assert geometry.log_volume(points) == pytest.approx(np.linalg.slogdet(covariance)[1] / (2 * shape[1]))


def test_log_volume_of_a_normal_cloud_is_its_log_width():
    points = np.random.default_rng(0).normal(scale=2.5, size=(4000, 10))
    assert geometry.log_volume(points) == pytest.approx(math.log(2.5), abs=0.01)


@given(st.floats(0.01, 100), st.integers(0, 99))
@settings(max_examples=25)
def test_log_volume_scales_shifts_and_turns(scale, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(12, 20))
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    base = geometry.log_volume(points)
    assert geometry.log_volume(points * scale) == pytest.approx(base + math.log(scale), abs=1e-6)
    assert geometry.log_volume(points @ turn + 3) == pytest.approx(base, abs=1e-6)


def test_log_volumes_are_comparable_because_sizes_are_equal():
    """One cloud: 40 of its points give the same volume whatever the class's size, all of them another."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6050, 50)) * np.geomspace(0.1, 10, 50)
    labels = np.repeat([0, 1, 2], [6000, 45, 5])
    found = np.mean([geometry.log_volumes(points, labels, 4, 40, rng) for _ in range(20)], axis=0)
    assert abs(found[0] - found[1]) < 0.1
    assert abs(geometry.log_volume(points[:6000]) - found[0]) > 0.5
    assert np.isnan(found[2:]).all()


def test_log_volume_of_copies_is_not_a_number():
    assert np.isnan(geometry.log_volume(np.ones((5, 3))))


# ---------------------------------------------------------------- centres


def test_centres_by_hand():
    points = np.array([[0.0, 0.0], [2.0, 4.0], [7.0, 7.0]])
    found = geometry.centres(points, np.array([0, 0, 2]), 3)
    np.testing.assert_allclose(found, [[1, 2], [np.nan, np.nan], [7, 7]])


def test_scaled_centre_distances_in_the_plane_are_the_distances():
    rng = np.random.default_rng(0)
    clean, attacked = rng.normal(size=(2, 4, 2))
    results = [geometry.scaled_centre_distances(clean, attacked, seed) for seed in range(6)]
    best, stress = min(results, key=lambda result: result[1])
    np.testing.assert_allclose(best, cdist(clean, attacked), atol=0.02)
    assert stress < 0.01


def test_scaled_centre_distances_depend_on_the_start_and_skip_missing_classes():
    rng = np.random.default_rng(0)
    clean, attacked = rng.normal(size=(2, 6, 50))
    attacked[3] = np.nan
    first, stress = geometry.scaled_centre_distances(clean, attacked, 0)
    second, _ = geometry.scaled_centre_distances(clean, attacked, 1)
    assert np.isnan(first[:, 3]).all() and not np.isnan(np.delete(first, 3, axis=1)).any()
    assert stress > 0.1
    assert not np.allclose(np.delete(first, 3, axis=1), np.delete(second, 3, axis=1), atol=0.1)


def test_centre_shift_finds_a_known_shift_and_no_false_one():
    rng = np.random.default_rng(0)
    clean, labels = blobs(rng, each=200)
    moved = np.stack([clean, clean + 1.0, clean + rng.normal(scale=0.01, size=clean.shape)])
    shifts, threshold = geometry.centre_shift(clean, moved, labels, 3, rng)
    assert shifts[0] < threshold < shifts[1]
    assert shifts[1] == pytest.approx(math.sqrt(5), rel=0.02)
    assert shifts[2] < threshold


# ---------------------------------------------------------------- the balls


def test_position_among_balls_by_hand():
    hits = sparse.csr_array(np.array([[True, False, True], [False, False, False]]))
    found = geometry.position_among_balls(
        np.array([1.0, 2.0, 3.0]), hits, np.array([[3.0, 4.0], [0.0, 0.0]]), np.zeros(2)
    )
    assert found == {"inside": 0.5, "balls": 2.0, "radius_rank": pytest.approx((1 / 3 + 1) / 2), "to_middle": 2.5}


def test_density_is_inside_times_balls_over_k():
    rng = np.random.default_rng(0)
    manifold = ReferenceManifold(k=5).fit(rng.normal(size=(300, 6)))
    queries = rng.normal(size=(100, 6)) * 1.3
    found = geometry.position_among_balls(manifold.radii_, manifold.hits(queries), queries, np.zeros(6))
    assert found["inside"] * found["balls"] / 5 == pytest.approx(manifold.density(queries))


def test_an_empty_hit_list_is_no_division_by_zero():
    found = geometry.position_among_balls(
        np.ones(3), sparse.csr_array((2, 3), dtype=bool), np.ones((2, 2)), np.zeros(2)
    )
    assert found["inside"] == found["balls"] == found["radius_rank"] == 0
