"""advlib.prdc against brute force, the prdc package, closed forms and its own guarantees."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import prdc as peer
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from advlib import datasets
from advlib.prdc import ReferenceManifold, expected_coverage, prdc, rounded
from advlib.prdc.rounded import RoundedPoints

BOTH_STORAGES = pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32])


@pytest.fixture
def storage_type(storage, monkeypatch):
    """Force the coarse product into one storage type, whatever this processor prefers."""
    monkeypatch.setattr(rounded, "product_type", lambda device: storage)


def distances(points, others):
    """The module's distance, written as anybody would: float64, direct differences."""
    points, others = np.asarray(points, float), np.asarray(others, float)
    return np.stack([np.sqrt(((point - others) ** 2).sum(axis=-1)) for point in points])


def brute_radii(reference, k):
    between = distances(reference, reference)
    np.fill_diagonal(between, np.inf)
    return np.sort(between, axis=1)[:, k - 1]


def brute_inside(reference, queries, k):
    """(M, N) bool: query strictly inside ball."""
    return distances(queries, reference) < brute_radii(reference, k)


def assert_exact(reference, queries, k, **settings):
    manifold = ReferenceManifold(k, **settings).fit(reference)
    inside = brute_inside(reference, queries, k)
    np.testing.assert_array_equal(manifold.radii_, brute_radii(reference, k))
    np.testing.assert_array_equal(manifold.ball_counts(queries), inside.sum(axis=1))
    np.testing.assert_array_equal(manifold.hits(queries).toarray(), inside)
    density, coverage = manifold.density_coverage(queries)
    assert density == 1 / k * inside.sum(axis=1).mean()
    assert coverage == inside.any(axis=0).mean()
    return manifold


def compute_peer(reference, queries, k):
    with contextlib.redirect_stdout(io.StringIO()):
        return peer.compute_prdc(np.asarray(reference, float), np.asarray(queries, float), k)


def gaussian(rng, n, d):
    return rng.normal(size=(n, d))


def offset(rng, n, d):
    """Far from the origin: ‖x‖² + ‖y‖² − 2x·y would lose its digits here."""
    return 1e4 + rng.normal(size=(n, d))


def tight_clusters(rng, n, d):
    """Every pair within a cluster is closer than the coarse rounding."""
    return 100.0 * rng.integers(0, 4, size=(n, 1)) + 1e-3 * rng.normal(size=(n, d))


def duplicated(rng, n, d):
    """Most points exist two to four times."""
    return rng.normal(size=(max(n // 3, 4), d))[rng.integers(0, max(n // 3, 4), size=n)]


def grid(rng, n, d):
    """Few distinct distances: ties at the radius everywhere."""
    return rng.integers(0, 3, size=(n, d)) / 4


def heavy_tailed(rng, n, d):
    return rng.standard_cauchy(size=(n, d)) ** 3


def pixels(rng, n, d):
    """Multiples of 1/255 with a spread like that of images, and off that grid for half of the points."""
    images = np.clip(rng.normal(0.2, 0.4, size=(n, d)), 0, 1)
    images[::2] = np.round(images[::2] * 255) / 255
    return images


FAMILIES = [gaussian, offset, tight_clusters, duplicated, grid, heavy_tailed, pixels]


# -------------------------------------------------------------------------- exactness


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
        column_slack, _ = held.fold_columns(threshold)
        fold, slack = held.fold(held.square, threshold)
        rows = held.rows(held.columns[:, :90], fold)
        tiles = list(held.survivors(rows, 0, 400))
        i, j, h = (np.concatenate([tile[part] for tile in tiles]) for part in (2, 3, 4))
        assert len(i) == 400 * 400
        low, high = rounded.distance_bounds(
            h, threshold[i] + threshold[j], slack[i] + column_slack[j], held.residual[i] + held.residual[j]
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


# -------------------------------------------------------------------------- properties

matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(8, 40), st.integers(1, 6)),
    # Squares stay clear of float64's subnormal numbers, where a power of two does change digits.
    elements=st.floats(-100, 100).map(lambda x: x if abs(x) > 1e-60 else 0.0) | st.sampled_from([0.0, 1.0, 0.1]),
    fill=st.nothing(),
)
hypothesis_settings = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


# -------------------------------------------------------------------------- many batches


def test_batches_from_one_pass_equal_single_calls():
    rng = np.random.default_rng(0)
    manifold = ReferenceManifold(5).fit(rng.normal(size=(400, 6)))
    queries = rng.normal(size=(300, 6))
    hits = manifold.hits(queries)
    same_size = rng.integers(0, 300, size=(20, 42))
    ragged = [[0], np.arange(300), [5, 5, 5], rng.choice(300, 100, replace=False)]
    for batches in (same_size, ragged):
        density, coverage = manifold.subset_density_coverage(hits, batches)
        each = [manifold.density_coverage(queries[batch]) for batch in batches]
        np.testing.assert_allclose(density, [one.density for one in each], rtol=1e-14)
        np.testing.assert_array_equal(coverage, [one.coverage for one in each])


def test_hits_of_queries_that_hit_nothing():
    manifold = ReferenceManifold(2).fit(np.arange(12.0).reshape(6, 2))
    hits = manifold.hits(np.full((3, 2), 1e3))
    assert hits.shape == (3, 6) and hits.nnz == 0
    assert [values.tolist() for values in manifold.subset_density_coverage(hits, [[0], [1, 2]])] == [[0, 0], [0, 0]]


# -------------------------------------------------------------------------- closed form


@pytest.mark.parametrize(
    ("n", "m", "k", "published"),
    [(20000, 2100, 5, 0.39), (67900, 2100, 5, 0.14), (54142, 4708, 5, 0.34), (30547, 5359, 5, None)],
)
def test_expected_coverage_of_the_papers_settings(n, m, k, published):
    value = expected_coverage(n, m, k)
    assert value == pytest.approx({0.39: 0.393, 0.14: 0.141, 0.34: 0.341, None: 0.554}[published], abs=5e-4)
    if published is not None:
        assert round(value, 2) == published


@pytest.mark.parametrize(("n", "m", "k"), [(60, 10, 1), (40, 40, 5), (12, 1, 11)])
def test_expected_coverage_by_simulation(n, m, k):
    """Uniform points in a square (no ties); the band is four standard errors of the simulated mean."""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        points = rng.random((n + m, 2))
        draws.append(ReferenceManifold(k).fit(points[:n]).density_coverage(points[n:]))
    error = 4 * np.std(draws, axis=0) / np.sqrt(len(draws))
    density, coverage = np.mean(draws, axis=0)
    assert abs(coverage - expected_coverage(n, m, k)) < error[1]
    assert abs(density - 1) < error[0]


def test_expected_coverage_at_its_ends():
    assert expected_coverage(2, 1, 1) == pytest.approx(0.5)
    assert expected_coverage(10, 10**9, 1) == pytest.approx(1.0, abs=1e-7)
    for wrong in ((5, 10, 5), (5, 0, 2), (5, 1, 0), (5.5, 1, 1), (5, 1, True)):
        with pytest.raises(ValueError, match=r"(n_reference|n_queries|k) must be a whole number of at least \d+, but"):
            expected_coverage(*wrong)


# -------------------------------------------------------------------------- scikit-learn, errors


def test_scikit_learn_conventions():
    manifold = ReferenceManifold(7, memory_gb=0.5)
    assert manifold.get_params() == {"k": 7, "memory_gb": 0.5, "device": None}
    assert clone(manifold).set_params(k=3).k == 3
    with pytest.raises(NotFittedError):
        manifold.ball_counts(np.zeros((1, 2)))
    points = np.random.default_rng(0).normal(size=(50, 4))
    assert manifold.fit(points) is manifold
    assert manifold.n_features_in_ == 4
    assert not hasattr(clone(manifold), "radii_")
    refitted = manifold.set_params(k=2).fit(points[:30])
    np.testing.assert_array_equal(refitted.radii_, brute_radii(points[:30], 2))


GOOD = np.random.default_rng(0).normal(size=(20, 3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(5), r"must be a \(n, d\) array, but has shape \(5,\)"),
        (np.zeros((5, 2, 2)), r"must be a \(n, d\) array, but has shape \(5, 2, 2\)"),
        (np.zeros((0, 3)), "must not be empty"),
        (np.full((20, 3), np.nan), "must be finite, but 60 of its 60"),
        (np.full((20, 3), np.inf), "must be finite"),
        (np.zeros((20, 3), complex), "must hold real numbers"),
        (np.array([["a", "b"]]), "must hold real numbers"),
    ],
)
def test_bad_matrices_are_named(values, message):
    with pytest.raises(ValueError, match="reference " + message):
        ReferenceManifold(2).fit(values)
    manifold = ReferenceManifold(2).fit(GOOD)
    for ask in (manifold.ball_counts, manifold.density, manifold.coverage, manifold.density_coverage, manifold.hits):
        with pytest.raises(ValueError, match="queries " + message):
            ask(values)
    with pytest.raises(ValueError, match="queries " + message):
        prdc(GOOD, values, 2)


def test_bad_parameters_are_named():
    for k in (0, -1, 2.5, "5", None, True):
        with pytest.raises(ValueError, match="k must be a whole number of at least 1, but is"):
            ReferenceManifold(k).fit(GOOD)
    for k in (20, 21):
        with pytest.raises(ValueError, match=f"k must be smaller .* points in reference, 20, but is {k}"):
            ReferenceManifold(k).fit(GOOD)
    with pytest.raises(ValueError, match="number of points in queries, 4, but is 4"):
        prdc(GOOD, GOOD[:4], 4)
    for memory in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="memory_gb must be a positive number"):
            ReferenceManifold(2, memory_gb=memory).fit(GOOD)
    manifold = ReferenceManifold(2).fit(GOOD)
    with pytest.raises(ValueError, match=r"queries .*3 features, but .*\(7, 4\)"):
        manifold.ball_counts(np.zeros((7, 4)))
    hits = manifold.hits(GOOD)
    with pytest.raises(ValueError, match="hits must have 20 columns"):
        manifold.subset_density_coverage(hits[:, :5], [[0]])
    for batch in ([], [0.5], [[0]], [True]):
        with pytest.raises(ValueError, match="batches must hold non-empty lists of row indices, but number 1"):
            manifold.subset_density_coverage(hits, [[0], batch])
    for batch in ([-1], [20]):
        with pytest.raises(ValueError, match="batches must point to the 20 rows of hits, but number 0"):
            manifold.subset_density_coverage(hits, [batch])


def test_duplicates_are_never_a_silent_zero():
    with pytest.raises(ValueError, match="reference must have points with fewer than k = 2 exact copies"):
        ReferenceManifold(2).fit(np.ones((10, 3)))
    with pytest.raises(ValueError, match="every radius is 0"):
        ReferenceManifold(1).fit(np.repeat(GOOD, 2, axis=0))
    ReferenceManifold(2).fit(np.repeat(GOOD, 2, axis=0))  # one copy each: the second neighbour is another point
    some = np.vstack([GOOD, np.zeros((4, 3))])
    with pytest.warns(UserWarning, match="4 of the 24 points in reference have k = 3 or more exact copies"):
        manifold = ReferenceManifold(3).fit(some)
    assert (manifold.radii_ == 0).sum() == 4
    assert manifold.hits(np.zeros((1, 3))).toarray()[0, 20:].sum() == 0
    with pytest.warns(UserWarning, match="6 of the 6 points in queries"):
        assert prdc(GOOD, np.zeros((6, 3)), 3)["recall"] == 0


# -------------------------------------------------------------------------- files


def test_save_and_load(tmp_path):
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        reference, queries = rng.normal(size=(200, 9)).astype(dtype), rng.normal(size=(30, 9))
        manifold = ReferenceManifold(4).fit(reference)
        path = tmp_path / "balls.safetensors"
        manifold.save(path)
        again = ReferenceManifold.load(path, k=4, reference=reference, memory_gb=0.2)
        assert (again.k, again.memory_gb, again.n_features_in_) == (4, 0.2, 9)
        assert again.reference_.dtype == dtype
        np.testing.assert_array_equal(again.radii_, manifold.radii_)
        np.testing.assert_array_equal(again.hits(queries).toarray(), manifold.hits(queries).toarray())
    assert os.listdir(tmp_path) == ["balls.safetensors"]


def test_files_that_do_not_match_are_refused_by_name(tmp_path):
    path = tmp_path / "balls.safetensors"
    manifold = ReferenceManifold(4).fit(GOOD)
    manifold.save(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"balls\.safetensors was fitted with k = 4, but k = 5 was asked for"):
        ReferenceManifold.load(path, k=5)
    for other in (GOOD + 1, GOOD[:-1], GOOD.astype(np.float32)):
        with pytest.raises(ValueError, match=r"balls\.safetensors was fitted to another reference: .*\(20, 3\)"):
            ReferenceManifold.load(path, reference=other)
    # Every byte matters: one flipped bit anywhere, or a cut anywhere, and the file is refused. The header's keys have
    # another order in each process, so all of its bytes are tried.
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(header), *range(header), *rng.integers(header, len(content), 150), len(content) - 1]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            again = ReferenceManifold.load(path)
        except ValueError as error:
            assert "balls.safetensors" in str(error)
        else:  # a changed blank or the order of keys in the header: nothing that was saved
            np.testing.assert_array_equal(again.radii_, manifold.radii_)
            np.testing.assert_array_equal(again.reference_, manifold.reference_)
            assert again.k == 4
    for length in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"balls\.safetensors"):
            ReferenceManifold.load(path)
    save_file({"weights": GOOD}, path)
    with pytest.raises(ValueError, match=r"balls\.safetensors is no saved reference manifold"):
        ReferenceManifold.load(path)
    with pytest.raises(FileNotFoundError):
        ReferenceManifold.load(tmp_path / "absent.safetensors")


def test_an_interrupted_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "balls.safetensors"
    ReferenceManifold(4).fit(GOOD).save(path)
    before = path.read_bytes()

    def fail(self, content):
        self.touch()
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        ReferenceManifold(3).fit(GOOD).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["balls.safetensors"]


# -------------------------------------------------------------------------- memory, GPU


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("family", ["gaussian", "one_cluster"])
def test_memory_stays_within_the_budget(family):
    """Peak memory of a process of its own: 8,000 × 8,000 pairs in 32 MiB, where one bool each would take 61."""
    code = f"""
import numpy as np
from advlib.prdc import ReferenceManifold

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

rng = np.random.default_rng(0)
make = {{"gaussian": lambda n: rng.normal(size=(n, 24)),
        "one_cluster": lambda n: np.r_[[np.full(24, 1e3)], rng.normal(size=(n - 1, 24)) * 1e-3]}}["{family}"]
ReferenceManifold(5).fit(make(3000)).density_coverage(make(3000))  # loads what is loaded once
reference, queries = make(8000).astype("f4"), make(8000).astype("f4")
before = peak()
manifold = ReferenceManifold(5, memory_gb=32 / 1024).fit(reference)
manifold.density_coverage(queries)
state = sum(x.nbytes for x in vars(manifold).values() if hasattr(x, "nbytes")) / 2**20
print(peak() - before, state)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, state = map(float, run.stdout.split())
    assert state < 10
    assert grown < 32 + state


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*exact copies")
def test_a_gpu_gives_the_same_results(family):
    rng = np.random.default_rng(0)
    pool = family(rng, 3000, 100).astype(np.float32)
    on_cpu = ReferenceManifold(5).fit(pool[:2000])
    on_gpu = ReferenceManifold(5).fit(torch.from_numpy(pool[:2000]).cuda())
    np.testing.assert_array_equal(on_gpu.radii_, on_cpu.radii_)
    for queries in (pool[2000:], torch.from_numpy(pool[2000:]).cuda()):
        np.testing.assert_array_equal(on_gpu.ball_counts(queries), on_cpu.ball_counts(pool[2000:]))
        assert on_gpu.density_coverage(queries) == on_cpu.density_coverage(pool[2000:])
    assert_exact(pool[:400], pool[2000:2100], 5, device="cuda")
