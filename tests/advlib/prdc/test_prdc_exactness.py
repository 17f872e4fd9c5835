"""advlib.prdc against brute force, the prdc package and its own bounds."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from prdc_oracles import (
    FAMILIES,
    assert_exact,
    brute_inside,
    brute_radii,
    compute_peer,
    distances,
    gaussian,
    grid,
    heavy_tailed,
    offset,
    tight_clusters,
)

from advlib import datasets
from advlib.prdc import ReferenceManifold, prdc, rounded
from advlib.prdc.rounded import RoundedPoints

BOTH_STORAGES = pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32])


@pytest.fixture
def storage_type(storage, monkeypatch):
    """Force the coarse product into one storage type, whatever this processor prefers."""
    monkeypatch.setattr(rounded, "product_type", lambda device: storage)


@BOTH_STORAGES
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:.*exact copies")
def test_equals_brute_force_on_every_query(family, dtype, storage, storage_type):
    for seed, (n, m, d, k) in enumerate([(300, 200, 5, 5), (700, 60, 40, 5), (530, 3, 300, 1), (40, 50, 2, 39)]):
        rng = np.random.default_rng(seed)
        # One pool: with `duplicated`, many queries are copies of reference points.
        pool = family(rng, n + m, d).astype(dtype)
        assert_exact(pool[:n], pool[n:], k)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*exact copies")
def test_equals_the_prdc_package(family):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n, m, d, k = [(200, 150, 7, 5), (400, 300, 30, 3), (150, 220, 120, 10), (90, 30, 3, 1)][seed % 4]
        pool = family(rng, n + m, d)
        if family in (offset, tight_clusters, heavy_tailed):
            # The peer's ‖x‖² + ‖y‖² − 2x·y loses small distances between large numbers, unless all sums are exact.
            pool = np.round(np.clip(pool - pool.mean() * (family is offset), -1000, 1000) * 4096) / 4096
        reference, queries = pool[:n], pool[n:]
        ours, theirs = prdc(reference, queries, k), compute_peer(reference, queries, k)
        assert ours == theirs, (family.__name__, seed)


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "organamnist", "bloodmnist", "cifar10"])
def test_real_images_equal_brute_force_and_the_package(name):
    try:
        data = datasets.load(name)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    rng = np.random.default_rng(0)
    images = data.train_images.reshape(len(data.train_images), -1)
    images = images[rng.choice(len(images), 400, replace=False)]
    reference, clean = images[:300], images[300:]
    shifted = np.clip(clean + 0.07 * rng.choice([-1, 1], size=clean.shape), 0, 1).astype(np.float32)
    for queries in (clean, shifted):
        assert_exact(reference, queries, 5)
        assert prdc(reference, queries) == compute_peer(reference, queries, 5)


@BOTH_STORAGES
def test_queries_a_rounding_error_from_the_edge(storage, storage_type):
    rng = np.random.default_rng(3)
    reference = rng.random((300, 50))
    manifold = ReferenceManifold(5).fit(reference)
    towards = rng.normal(size=reference.shape)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    for relative in (-1e-7, -1e-12, -(2.0**-52), 0.0, 2.0**-52, 1e-12, 1e-7):
        queries = reference + towards * manifold.radii_[:, None] * (1 + relative)
        np.testing.assert_array_equal(manifold.ball_counts(queries), brute_inside(reference, queries, 5).sum(axis=1))


def test_the_kth_neighbour_itself_lies_outside_and_the_centre_inside():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(200, 33))
    between = distances(reference, reference)
    np.fill_diagonal(between, np.inf)
    manifold = ReferenceManifold(4).fit(reference)
    order = np.argsort(between, axis=1)
    hits = manifold.hits(reference).toarray()  # row: query, column: ball
    balls = np.arange(200)
    assert hits[balls, balls].all()
    assert hits[order[:, 2], balls].all()
    assert not hits[order[:, 3], balls].any()


def test_line_of_integers_by_hand():
    reference = np.arange(6.0)[:, None]
    manifold = ReferenceManifold(2).fit(reference)
    np.testing.assert_array_equal(manifold.radii_, [2, 1, 1, 1, 1, 2])
    np.testing.assert_array_equal(manifold.ball_counts(np.array([[0.0], [1.0], [2.5], [-2.0], [9.0]])), [1, 2, 2, 0, 0])


def test_one_query():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(5000, 20)).astype(np.float32)
    manifold = ReferenceManifold(5).fit(reference)
    for query in (reference[7:8], rng.normal(size=(1, 20)), np.full((1, 20), 50.0)):
        inside = (distances(query, reference) < manifold.radii_)[0]
        assert manifold.ball_counts(query).tolist() == [inside.sum()]
        assert manifold.density(query) == 1 / 5 * inside.sum()
        assert manifold.coverage(query) == inside.mean()


@pytest.mark.parametrize("n", [2, 3, 65, 513])
def test_every_other_point_as_neighbour(n):
    rng = np.random.default_rng(n)
    points = rng.normal(size=(n + 4, 6))
    assert_exact(points[:n], points[n:], n - 1)


def test_outliers_and_far_queries_change_nothing_else():
    rng = np.random.default_rng(5)
    reference, queries = rng.normal(size=(600, 30)), rng.normal(size=(100, 30))
    reference[17] *= 1e6
    queries[3] = 1e300
    queries[4] = -1e-300
    queries[5] *= 1e3
    assert_exact(reference, queries[4:], 5)
    with np.errstate(over="ignore"):
        assert_exact(reference, queries, 5)


@pytest.mark.parametrize("exponent", [-300, -60, 60, 300])
def test_extreme_units(exponent):
    """A power of two changes no digit: counts stay, radii scale, even where a square would leave float64."""
    rng = np.random.default_rng(1)
    reference, queries = rng.normal(size=(300, 10)), rng.normal(size=(50, 10))
    plain = ReferenceManifold(5).fit(reference)
    scaled = ReferenceManifold(5).fit(np.ldexp(reference, 2 * exponent))
    np.testing.assert_array_equal(scaled.radii_, np.ldexp(plain.radii_, 2 * exponent))
    np.testing.assert_array_equal(scaled.ball_counts(np.ldexp(queries, 2 * exponent)), plain.ball_counts(queries))


def test_a_distance_does_not_depend_on_its_company():
    """Radii and queries are compared bit for bit, so a pair must give the same bits alone and among others."""
    rng = np.random.default_rng(0)
    for d in (1, 2, 7, 8, 9, 127, 128, 129, 784, 3000):
        points = rng.normal(size=(50, d))
        held = RoundedPoints(torch.from_numpy(points), memory_gb=1.0)
        i, j = rng.integers(0, 50, size=(2, 400))
        together = held.distances(points, i, j)
        np.testing.assert_array_equal(together, distances(points, points)[i, j])
        for pair in range(5):
            assert held.distances(points, i[pair : pair + 1], j[pair : pair + 1])[0] == together[pair]
        np.testing.assert_array_equal(held.distances(points, j, i), together)


@BOTH_STORAGES
def test_the_bounds_hold_the_true_distance(storage, storage_type):
    """The proof in `_fold`, checked on every pair: thresholds so wide that all pairs survive."""
    for family in FAMILIES:
        rng = np.random.default_rng(2)
        points = family(rng, 400, 90).astype(np.float32)
        held = RoundedPoints(torch.from_numpy(points), memory_gb=1.0)
        threshold = np.full(400, 4.0 * float(held.square.max()) + 1.0)
        held.fold_columns(threshold)
        fold, slack = held.fold(held.square, threshold)
        rows = held.rows(held.columns[:, :90], fold)
        tiles = list(held.survivors(rows, 0, 400))
        i, j, h = (np.concatenate([tile[part] for tile in tiles]) for part in (2, 3, 4))
        assert len(i) == 400 * 400
        low, high = rounded.distance_bounds(
            h, threshold[i] + threshold[j], slack[i] + held.slack[j], held.residual[i] + held.residual[j]
        )
        exact = held.distances(points, i, j)
        assert (low <= exact).all() and (exact <= high).all(), family.__name__
        square, error = held.fine_squares(points, 0, 400)
        assert (np.abs(square[i, j] - exact**2) <= error[i, j]).all(), family.__name__


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing_and_are_left_as_they_were(threads):
    rng = np.random.default_rng(0)
    reference, queries = rng.normal(size=(1500, 12)), rng.normal(size=(900, 12))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_exact(reference, queries, 5)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_works_in_a_forked_process():
    """The threads stay behind in the parent; a child that waited for them would hang."""
    code = """
import os, warnings
import numpy as np, torch
from advlib.prdc import ReferenceManifold

torch.set_num_threads(2)
points = np.random.default_rng(0).normal(size=(1200, 8))
radii = ReferenceManifold(5).fit(points).radii_
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    os._exit(int(not np.array_equal(ReferenceManifold(5).fit(points).radii_, radii)))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_the_reference_scored_against_itself_has_density_one():
    """Each ball holds its centre and its k − 1 nearest others, so the counts sum to N·k, on any data without ties."""
    points = np.random.default_rng(0).normal(size=(3000, 10)).astype(np.float32)
    assert ReferenceManifold(5).fit(points).density_coverage(points) == (1.0, 1.0)


@pytest.mark.parametrize("memory_gb", [1e-5, 1e-3, 0.1])
@pytest.mark.filterwarnings("ignore:.*exact copies")
def test_a_small_budget_changes_nothing(memory_gb):
    rng = np.random.default_rng(0)
    for family in (gaussian, tight_clusters, grid):
        pool = family(rng, 900, 25)
        assert_exact(pool[:700], pool[700:], 5, memory_gb=memory_gb)


def test_user_precision_settings_change_nothing():
    rng = np.random.default_rng(0)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert_exact(rng.normal(size=(600, 200)).astype(np.float32), rng.normal(size=(99, 200)), 5)
    finally:
        torch.set_float32_matmul_precision(before)


def test_inputs_may_be_tensors_and_of_any_real_type():
    rng = np.random.default_rng(0)
    reference, queries = rng.integers(0, 256, size=(2, 80, 30), dtype=np.uint8)
    expected = assert_exact(reference.astype(float), queries.astype(float), 5).ball_counts(queries.astype(float))
    tensor = torch.from_numpy(reference)
    for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        given_ = tensor.to(kind).requires_grad_()
        np.testing.assert_array_equal(ReferenceManifold(5).fit(given_).ball_counts(queries.astype(float)), expected)
    for kind in (np.uint8, np.int32, np.int64):
        with pytest.warns(UserWarning, match=r"reference has dtype .*int.* converted"):
            manifold = ReferenceManifold(5).fit(reference.astype(kind))
        with pytest.warns(UserWarning, match=r"queries has dtype .*int.* converted"):
            np.testing.assert_array_equal(manifold.ball_counts(queries.astype(kind)), expected)
    strided = np.asfortranarray(reference.astype(float))[::-1]
    np.testing.assert_array_equal(ReferenceManifold(5).fit(strided).ball_counts(queries.astype(float)), expected)


def test_the_fitted_manifold_owns_its_numbers():
    rng = np.random.default_rng(0)
    reference, queries = rng.normal(size=(300, 8)), rng.normal(size=(40, 8))
    manifold = ReferenceManifold(5).fit(reference)
    before = manifold.ball_counts(queries)
    reference[:] = 0
    np.testing.assert_array_equal(manifold.ball_counts(queries), before)


matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(8, 40), st.integers(1, 6)),
    # Squares stay clear of float64's subnormal numbers, where a power of two does change digits.
    elements=st.floats(-100, 100).map(lambda x: x if abs(x) > 1e-60 else 0.0) | st.sampled_from([0.0, 1.0, 0.1]),
    fill=st.nothing(),
)
hypothesis_settings = settings(max_examples=50)
some_duplicates = pytest.mark.filterwarnings("ignore:.*exact copies")


def split(points):
    reference, queries = points[2:], points[:2]
    assume(brute_radii(reference, 3).any())
    return reference, queries


@some_duplicates
@hypothesis_settings
@given(matrices)
def test_any_small_matrix_equals_brute_force(points):
    reference, queries = split(points)
    assert_exact(reference, queries, 3)


@some_duplicates
@hypothesis_settings
@given(matrices, st.randoms(use_true_random=False))
def test_order_does_not_matter(points, random):
    reference, queries = split(points)
    order = np.array(random.sample(range(len(reference)), len(reference)))
    manifold, shuffled = ReferenceManifold(3).fit(reference), ReferenceManifold(3).fit(reference[order])
    np.testing.assert_array_equal(shuffled.radii_, manifold.radii_[order])
    np.testing.assert_array_equal(shuffled.ball_counts(queries[::-1]), manifold.ball_counts(queries)[::-1])
    assert shuffled.density_coverage(queries) == manifold.density_coverage(queries)


@some_duplicates
@hypothesis_settings
@given(matrices, st.integers(-40, 40))
def test_powers_of_two_scale_the_radii_and_nothing_else(points, exponent):
    reference, queries = split(points)
    manifold, scaled = ReferenceManifold(3).fit(reference), ReferenceManifold(3).fit(np.ldexp(reference, exponent))
    np.testing.assert_array_equal(scaled.radii_, np.ldexp(manifold.radii_, exponent))
    np.testing.assert_array_equal(scaled.ball_counts(np.ldexp(queries, exponent)), manifold.ball_counts(queries))


@some_duplicates
@hypothesis_settings
@given(matrices, st.floats(1e4, 1e200))
def test_a_far_query_adds_nothing(points, far):
    reference, queries = split(points)
    manifold = ReferenceManifold(3).fit(reference)
    more = np.vstack([queries, np.full((1, points.shape[1]), far)])
    np.testing.assert_array_equal(manifold.ball_counts(more), [*manifold.ball_counts(queries), 0])
    assert manifold.coverage(more) == manifold.coverage(queries)
