"""uLSIF against brute-force leave-one-out, the plain formula, the `densratio` package, and closed forms."""

import math
import warnings

import numpy as np
import pytest
import torch
from densratio import densratio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_limits

from advlib import datasets
from advlib.ulsif import (
    DEFAULT_GRID,
    KERNELS,
    ULSIF,
    GridEdgeWarning,
    fit_batch,
    fit_batch_indices,
    fitting,
    kernels,
    leave_one_out,
)

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")

GRID = np.array(DEFAULT_GRID)


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small get nothing from a second thread but the wait for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):
        yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------ oracles


def kernel_matrix(points, centers, sigma, kernel):
    distances = np.linalg.norm(points[:, None] - centers[None], axis=2)
    return np.exp(-(distances**2 if kernel == "gaussian" else distances) / (2 * sigma**2))


def brute_force_scores(numerator, denominator, centers, kernel, sigmas=GRID, lambdas=GRID):
    """Leave out pair i, refit θ on the rest with the centres fixed, test on pair i. Also Σ of absolute terms."""
    n_nu, n_de = len(numerator), len(denominator)
    n = min(n_nu, n_de)
    scores, scale = np.zeros((2, len(sigmas), len(lambdas)))
    for a, sigma in enumerate(sigmas):
        nu, de = (kernel_matrix(points, centers, sigma, kernel) for points in (numerator, denominator))
        for b, lambda_ in enumerate(lambdas):
            for i in range(n):
                rest = np.delete(de, i, axis=0)
                gram = rest.T @ rest / (n_de - 1) + lambda_ * np.eye(len(centers))
                theta = np.maximum(0, np.linalg.solve(gram, np.delete(nu, i, axis=0).mean(axis=0)))
                terms = (de[i] @ theta) ** 2 / 2, nu[i] @ theta
                scores[a, b] += (terms[0] - terms[1]) / n
                scale[a, b] += (terms[0] + terms[1]) / n
    return scores, scale


def plain_scores(numerator, denominator, centers, kernel, sigmas=GRID, lambdas=GRID):
    """Kanamori et al. 2009, figure 2, written down as it stands. Also the sum of the absolute terms."""
    n_nu, n_de = len(numerator), len(denominator)
    n = min(n_nu, n_de)
    scores, scale = np.zeros((2, len(sigmas), len(lambdas)))
    for a, sigma in enumerate(sigmas):
        nu, de = (kernel_matrix(points, centers, sigma, kernel) for points in (numerator, denominator))
        gram, h = de.T @ de / n_de, nu.mean(axis=0)[:, None]
        x, x_nu = de[:n].T, nu[:n].T
        for b, lambda_ in enumerate(lambdas):
            matrix = gram + lambda_ * (n_de - 1) / n_de * np.eye(len(centers))
            inverse_x = np.linalg.solve(matrix, x)
            d = n_de - (x * inverse_x).sum(axis=0)
            b0 = np.linalg.solve(matrix, h @ np.ones((1, n))) + inverse_x * ((h.T @ inverse_x) / d)
            b1 = np.linalg.solve(matrix, x_nu) + inverse_x * ((x_nu * inverse_x).sum(axis=0) / d)
            b2 = np.maximum(0, (n_de - 1) / (n_de * (n_nu - 1)) * (n_nu * b0 - b1))
            w_de, w_nu = (x * b2).sum(axis=0), (x_nu * b2).sum(axis=0)
            scores[a, b] = (w_de**2).mean() / 2 - w_nu.mean()
            scale[a, b] = (w_de**2).mean() / 2 + w_nu.mean()
    return scores, scale


def assert_scores(actual, expected_and_scale, rtol=1e-8):
    """Relative to the size of the two terms whose difference the score is: the score itself may be 0.

    The unit of the score is that of a ratio (-1/2 for equal densities), so the absolute 1e-12 only covers rounding
    in scores that are nothing beside the others.
    """
    expected, scale = expected_and_scale
    assert actual.shape == expected.shape
    excess = np.abs(actual - expected) - rtol * scale
    assert excess.max() <= 1e-12, f"off by {np.abs(actual - expected).max()} where terms are {scale.max()}"


def samples(n_nu, n_de, d, seed=0, shift=0.4, spread=1.3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_nu, d)), rng.normal(shift, spread, size=(n_de, d))


# ------------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("n_nu", "n_de", "d", "b"),
    [
        (2, 2, 1, 100),
        (3, 12, 1, 100),
        (12, 3, 2, 100),
        (20, 20, 3, 7),
        (25, 14, 40, 100),
        (14, 25, 40, 5),
        (6, 6, 300, 1),
    ],
)
def test_scores_equal_brute_force_leave_one_out(kernel, n_nu, n_de, d, b):
    numerator, denominator = samples(n_nu, n_de, d)
    model = ULSIF(kernel=kernel, n_kernels=b).fit(numerator, denominator)
    assert model.centers_.shape == (min(b, n_nu), d)
    assert_scores(model.loocv_scores_, brute_force_scores(numerator, denominator, model.centers_, kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_plain_formula_is_brute_force(kernel):
    """The oracle of the larger tests is itself checked."""
    numerator, denominator = samples(13, 9, 4)
    plain, scale = plain_scores(numerator, denominator, numerator[:8], kernel)
    assert_scores(plain, brute_force_scores(numerator, denominator, numerator[:8], kernel))
    assert scale.min() >= 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("n_nu", "n_de", "d", "b"), [(10, 10, 784, 100), (100, 100, 784, 100), (60, 150, 200, 40), (400, 90, 20, 100)]
)
def test_scores_and_choice_equal_plain_formula(kernel, n_nu, n_de, d, b):
    # Distances near 10 and 15, as between digits: the widest σ overlap, the narrowest underflow, some lie between.
    numerator, denominator = samples(n_nu, n_de, d, shift=0.1, spread=1.1)
    numerator, denominator = (points * 10 / math.sqrt(2 * d) for points in (numerator, denominator))
    model = ULSIF(kernel=kernel, n_kernels=b).fit(numerator, denominator)
    expected, scale = plain_scores(numerator, denominator, model.centers_, kernel)
    assert_scores(model.loocv_scores_, (expected, scale))
    best = np.unravel_index(expected.argmin(), expected.shape)
    assert (model.sigma_, model.lambda_) == (GRID[best[0]], GRID[best[1]])


@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_where_the_closed_form_takes_over(kernel):
    """A grid of σ so fine that some lie on either side of every switch between the ways to compute a score."""
    numerator, denominator = samples(15, 11, 30)
    sigmas = np.geomspace(0.05, 3.0, 120)
    model = ULSIF(sigmas=sigmas, lambdas=[1e-3, 1.0], kernel=kernel).fit(numerator, denominator)
    expected, scale = plain_scores(numerator, denominator, model.centers_, kernel, sigmas, [1e-3, 1.0])
    assert_scores(model.loocv_scores_, (expected, scale), rtol=1e-10)
    assert (model.loocv_scores_ == 0).any() and (np.abs(model.loocv_scores_) > 0.1).any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_with_duplicates_and_shared_points(kernel):
    rng = np.random.default_rng(3)
    numerator = rng.normal(size=(14, 50))
    numerator[5] = numerator[2]
    denominator = np.concatenate([numerator[:6], rng.normal(size=(4, 50)), numerator[:1] + 1e-5])
    model = ULSIF(kernel=kernel).fit(numerator, denominator)
    assert_scores(model.loocv_scores_, brute_force_scores(numerator, denominator, model.centers_, kernel))


@pytest.mark.data
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("moved", [0.0, 0.05, 0.3])
def test_digits(kernel, moved):
    """Real images, against other ones and against their own moved by ±ε: scores and choice of the plain formula."""
    try:
        images = datasets.load("mnist", download=False).test_images[:120].reshape(120, -1).astype(np.float64)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    rng = np.random.default_rng(0)
    numerators = np.stack([images[:60], images[60:]])
    denominators = (
        np.clip(numerators + moved * rng.integers(-1, 2, numerators.shape), 0, 1) if moved else numerators[::-1]
    )
    batch = fit_batch(numerators, denominators, kernel=kernel)
    for t in range(2):
        expected, scale = plain_scores(numerators[t], denominators[t], numerators[t], kernel)
        assert_scores(batch.loocv_scores_[t], (expected, scale))
        best = np.unravel_index(expected.argmin(), expected.shape)
        assert (batch.sigma_[t], batch.lambda_[t]) == (GRID[best[0]], GRID[best[1]])


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_thousand_samples(kernel):
    """The upper end of the sizes the engine is made for (2,000), with coarse grids."""
    numerator, denominator = samples(2000, 1500, 20, shift=0.1, spread=1.1)
    grid = {"sigmas": [1.0, 3.0], "lambdas": [0.01, 1.0]}
    model = ULSIF(n_kernels=300, kernel=kernel, **grid).fit(numerator, denominator)
    expected = plain_scores(numerator, denominator, model.centers_, kernel, *grid.values())
    assert_scores(model.loocv_scores_, expected)


def test_equal_scores_choose_the_first_in_grid_order():
    """Points so far apart that each kernel is 0 elsewhere: all scores are 0."""
    points = np.arange(8.0)[:, None] * 1e6
    model = ULSIF(sigmas=[0.5, 0.1], lambdas=[3.0, 2.0]).fit(points, points + 3e5)
    assert (model.loocv_scores_ == 0).all()
    assert (model.sigma_, model.lambda_) == (0.5, 3.0)


# ------------------------------------------------------------------------------------------------ weights and ratios


@pytest.mark.parametrize(("sigma", "lambda_"), [(0.5, 0.01), (2.0, 0.1), (10.0, 1e-3)])
def test_weights_equal_densratio(sigma, lambda_):
    numerator, denominator = samples(40, 30, 3)
    peer = densratio(numerator, denominator, sigma_range=[sigma], lambda_range=[lambda_], verbose=False)
    ours = ULSIF(sigmas=sigma, lambdas=lambda_).fit(numerator, denominator)
    peer_centers = np.asarray(peer.kernel_info.centers)
    order = [int(np.flatnonzero((peer_centers == center).all(axis=1))[0]) for center in ours.centers_]
    np.testing.assert_allclose(ours.theta_, peer.theta[order], rtol=1e-8, atol=1e-10)
    points = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_allclose(ours.predict(points), peer.compute_density_ratio(points), rtol=1e-8)


def test_densratio_score_forgets_a_division():
    """Why the package is no reference for the score: its B1 lacks `/ d` (FINDINGS: it is still so in 0.4.0)."""
    from densratio.RuLSIF import search_sigma_and_lambda

    numerator, denominator = samples(12, 12, 1)
    grid = [0.3], [0.01, 0.1]
    chosen = search_sigma_and_lambda(numerator, denominator, 0, numerator, *grid, False)
    assert chosen["lambda"] in grid[1]
    expected, _ = brute_force_scores(numerator, denominator, numerator, "gaussian", *grid)
    ours = ULSIF(*grid).fit(numerator, denominator)
    np.testing.assert_allclose(ours.loocv_scores_, expected, rtol=1e-9)


def test_known_ratio_of_gaussians():
    """N(0, 1) against N(0.5, 1.5²): the squared error falls with n and is small beside the ratio's own variance."""
    rng = np.random.default_rng(0)
    at = rng.normal(0.5, 1.5, (4000, 1))
    truth = stats.norm.pdf(at[:, 0], 0, 1) / stats.norm.pdf(at[:, 0], 0.5, 1.5)
    errors = {}
    for n in (50, 1000):
        models = [ULSIF().fit(rng.normal(0, 1, (n, 1)), rng.normal(0.5, 1.5, (n, 1))) for _ in range(5)]
        errors[n] = np.mean([(model.predict(at) - truth) ** 2 for model in models])
    # The best constant, 1, has the variance as its error; 20 effective kernels at n = 1000 explain 2 % of it.
    assert errors[1000] < 0.06 * truth.var()
    assert errors[1000] < errors[50] / 3


def test_same_distribution_gives_ratio_one():
    rng = np.random.default_rng(0)
    model = ULSIF().fit(rng.normal(size=(500, 2)), rng.normal(size=(500, 2)))
    assert model.mean_ratio_ == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_plateau_without_overlap(kernel):
    """No denominator point within any kernel's reach: θ = ĥ/λ, mean ratio ‖ĥ‖²/λ, λ the smallest of the grid."""
    rng = np.random.default_rng(0)
    numerator = rng.normal(size=(30, 5))
    denominator = numerator + 1e7
    model = ULSIF(kernel=kernel).fit(numerator, denominator)
    assert model.lambda_ == min(DEFAULT_GRID)
    h = kernel_matrix(numerator, model.centers_, model.sigma_, kernel).mean(axis=0)
    np.testing.assert_allclose(model.theta_, h / model.lambda_, rtol=1e-12)
    assert model.mean_ratio_ == pytest.approx(h @ h / model.lambda_, rel=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_mean_ratio_is_the_mean_prediction(kernel):
    numerator, denominator = samples(30, 20, 4)
    model = ULSIF(kernel=kernel, n_kernels=9).fit(numerator, denominator)
    assert model.mean_ratio_ == pytest.approx(model.predict(numerator).mean(), rel=1e-12)


def test_predict_works_in_blocks(monkeypatch):
    numerator, denominator = samples(30, 20, 4)
    model = ULSIF().fit(numerator, denominator)
    whole = model.predict(numerator)
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 1)
    np.testing.assert_allclose(model.predict(numerator), whole, rtol=1e-13)


# ------------------------------------------------------------------------------------------------ properties

shapes = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(1, 20), st.integers(0, 2**31))


@settings(max_examples=30, deadline=None)
@given(shape=shapes, kernel=st.sampled_from(KERNELS))
def test_ratios_and_weights_are_not_negative(shape, kernel):
    numerator, denominator = samples(*shape)
    model = ULSIF(kernel=kernel).fit(numerator, denominator)
    assert (model.theta_ >= 0).all() and model.mean_ratio_ >= 0
    assert (model.predict(denominator) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(shape=shapes, kernel=st.sampled_from(KERNELS))
def test_order_of_pairs_does_not_matter(shape, kernel):
    """With all numerator points as centres, moving the left-out pairs together changes no score."""
    n = min(shape[:2])
    numerator, denominator = samples(n, n, *shape[2:])
    order = np.random.default_rng(0).permutation(n)
    first = ULSIF(kernel=kernel).fit(numerator, denominator)
    second = ULSIF(kernel=kernel).fit(numerator[order], denominator[order])
    scale = plain_scores(numerator, denominator, numerator, kernel)[1]
    assert_scores(second.loocv_scores_, (first.loocv_scores_, scale))


@settings(max_examples=30, deadline=None)
@given(shape=shapes, kernel=st.sampled_from(KERNELS), offset=st.sampled_from([-3.0, 64.0, 4096.0]))
def test_translation_does_not_matter(shape, kernel, offset):
    # Multiples of 2^-20 stay exact under these offsets, so that only the method can make a difference.
    numerator, denominator = (np.round(points * 2**20) / 2**20 for points in samples(*shape))
    here = ULSIF(kernel=kernel).fit(numerator, denominator)
    there = ULSIF(kernel=kernel).fit(numerator + offset, denominator + offset)
    np.testing.assert_array_equal(there.loocv_scores_, here.loocv_scores_)
    np.testing.assert_array_equal(there.theta_, here.theta_)


@settings(max_examples=20, deadline=None)
@given(shape=shapes, power=st.integers(-6, 6))
def test_scaling_points_and_sigma_together_does_not_matter(shape, power):
    numerator, denominator = samples(*shape)
    factor = 2.0**power
    here = ULSIF().fit(numerator, denominator)
    there = ULSIF(sigmas=GRID * factor).fit(numerator * factor, denominator * factor)
    np.testing.assert_allclose(there.loocv_scores_, here.loocv_scores_, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------ batches


def stacks(draws, n, m, d, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    # Every third draw lies far away, so that the draws of a chunk take different ways through the σ.
    shift = np.where(np.arange(draws) % 3 == 0, 5.0, 0.1)[:, None, None]
    return rng.normal(size=(draws, n, d)).astype(dtype), rng.normal(shift, 1.2, size=(draws, m, d)).astype(dtype)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("n", "m", "d", "b", "chunk_draws"),
    [(10, 10, 30, 100, 3), (20, 8, 3, 7, None), (8, 20, 100, 100, 1), (5, 2, 1, 5, 50)],
)
def test_batch_equals_single_fits(kernel, n, m, d, b, chunk_draws):
    numerators, denominators = stacks(11, n, m, d)
    options = {"kernel": kernel, "n_kernels": b, "random_state": 4}
    batch = fit_batch(numerators, denominators, chunk_draws=chunk_draws, **options)
    for t, (numerator, denominator) in enumerate(zip(numerators, denominators, strict=True)):
        single = ULSIF(**options).fit(numerator, denominator)
        np.testing.assert_array_equal(batch.center_indices_, single.center_indices_)
        np.testing.assert_array_equal(numerators[t, batch.center_indices_], single.centers_)
        assert (batch.sigma_[t], batch.lambda_[t]) == (single.sigma_, single.lambda_)
        np.testing.assert_allclose(batch.loocv_scores_[t], single.loocv_scores_, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(batch.theta_[t], single.theta_, rtol=1e-8, atol=1e-12)
        assert batch.mean_ratio_[t] == pytest.approx(single.mean_ratio_, rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_indices_equal_stacks(dtype):
    rng = np.random.default_rng(0)
    real, other = (rng.normal(size=(40, 30)).astype(dtype) for _ in range(2))
    a, b = rng.integers(0, 40, (9, 12)), rng.integers(0, 40, (9, 7))
    by_index = fit_batch_indices(real, other, a, b, n_kernels=6)
    by_stack = fit_batch(real[a], other[b], n_kernels=6)
    for name in ("mean_ratio_", "sigma_", "lambda_", "theta_", "loocv_scores_", "center_indices_"):
        first, second = getattr(by_index, name), getattr(by_stack, name)
        assert isinstance(first, np.ndarray)
        np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-14)
    by_torch = fit_batch_indices(*map(torch.as_tensor, (real, other, a, b)), n_kernels=6)
    assert isinstance(by_torch.theta_, torch.Tensor)
    np.testing.assert_allclose(by_torch.theta_.numpy(), by_stack.theta_, rtol=1e-12)


@pytest.mark.parametrize("decade", range(-40, 1, 2))
def test_the_short_series_equal_the_factorisation(decade):
    """Each tier of the leave-one-out scores gives what the eigendecomposition gives, wherever it is chosen."""
    rng = np.random.default_rng(-decade)
    phi_nu, phi_de = torch.from_numpy(rng.random((2, 4, 15, 12))).unbind(0)
    phi_de = phi_de * 10.0 ** (decade / 2)
    lambdas = torch.tensor([1e-3, 0.1, 10.0], dtype=torch.float64)
    delta = (phi_de.square().sum((1, 2)) / (14 * 1e-3)).max()
    wanted = leave_one_out.scores_full(phi_nu, phi_de, lambdas)
    eps = np.finfo(float).eps
    shorter = (eps / 4, leave_one_out.scores_diagonal), (math.sqrt(eps / 4), leave_one_out.scores_two_terms)
    for limit, score in shorter:
        if delta <= limit:
            np.testing.assert_allclose(score(phi_nu, phi_de, lambdas), wanted, rtol=1e-13, atol=0)
    beyond = leave_one_out.scores_two_terms(phi_nu, phi_de, lambdas)
    assert delta < 1e-3 or not np.allclose(beyond, wanted, rtol=1e-13, atol=0)  # the limit is needed


def test_batch_leaves_thread_count_alone(monkeypatch):
    torch.set_num_threads(2)
    fit_batch(*stacks(6, 5, 5, 3), chunk_draws=1)
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(leave_one_out, "loo_scores", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit_batch(*stacks(6, 5, 5, 3), chunk_draws=1)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("budget", "largest"), [(1, 1), (5 * 12_000, 5), (2**30, 20)])
def test_memory_is_bounded_by_the_chunk(monkeypatch, budget, largest):
    seen = []
    work = fitting.fit_chunk

    def spy(numerators, *rest):
        seen.append(len(numerators))
        return work(numerators, *rest)

    monkeypatch.setattr(fitting, "fit_chunk", spy)
    monkeypatch.setattr(kernels, "CHUNK_BYTES", budget)
    numerators, denominators = stacks(20, 10, 10, 3)
    fit_batch(numerators, denominators)
    # 8 (3 · 20 · 10 + 5 · 10 · 10 + 4 · 10²) = 12,000 bytes a draw; chunks are made even.
    assert sum(seen) == 20 and max(seen) <= max(1, budget // 12_000) and max(seen) == largest


def test_batch_does_not_depend_on_chunks_or_threads():
    numerators, denominators = stacks(7, 12, 9, 20)
    alone = fit_batch(numerators, denominators, chunk_draws=7)
    torch.set_num_threads(3)
    for chunk_draws in (2, None):
        threaded = fit_batch(numerators, denominators, chunk_draws=chunk_draws)
        np.testing.assert_array_equal(threaded.sigma_, alone.sigma_)
        np.testing.assert_allclose(threaded.mean_ratio_, alone.mean_ratio_, rtol=1e-10)


# ------------------------------------------------------------------------------------------------ interface


def test_type_out_matches_type_in():
    numerator, denominator = samples(10, 8, 3)
    from_numpy = ULSIF().fit(numerator, denominator)
    from_torch = ULSIF().fit(torch.as_tensor(numerator), torch.as_tensor(denominator))
    for name in ("centers_", "theta_", "loocv_scores_", "center_indices_"):
        assert isinstance(getattr(from_numpy, name), np.ndarray)
        assert isinstance(getattr(from_torch, name), torch.Tensor)
        np.testing.assert_array_equal(getattr(from_numpy, name), getattr(from_torch, name).numpy())
    assert isinstance(from_torch.predict(numerator), np.ndarray)
    assert isinstance(from_numpy.predict(torch.as_tensor(numerator)), torch.Tensor)
    assert isinstance(from_numpy.sigma_, float) and isinstance(from_numpy.lambda_, float)
    assert fit_batch(torch.as_tensor(numerator)[None], denominator[None]).mean_ratio_.dtype == torch.float64


def test_float32_input_is_computed_in_float64():
    numerator, denominator = (points.astype(np.float32) for points in samples(20, 20, 30))
    model = ULSIF().fit(numerator, denominator)
    assert model.theta_.dtype == np.float64
    wide = ULSIF().fit(numerator.astype(np.float64), denominator.astype(np.float64))
    np.testing.assert_array_equal(model.loocv_scores_, wide.loocv_scores_)


def test_input_is_not_changed():
    numerator, denominator = samples(10, 8, 30)
    copies = numerator.copy(), denominator.copy()
    ULSIF().fit(numerator, denominator).predict(numerator)
    fit_batch(numerator[None], denominator[None])
    np.testing.assert_array_equal(numerator, copies[0])
    np.testing.assert_array_equal(denominator, copies[1])


def test_scikit_learn_conventions():
    model = ULSIF(n_kernels=5, kernel="unsquared")
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert twin.set_params(sigmas=[1.0]).sigmas == [1.0]
    with pytest.raises(NotFittedError):
        twin.predict(np.zeros((1, 2)))
    assert not hasattr(model, "theta_")


def test_centers_depend_on_random_state_only():
    numerator, denominator = samples(50, 50, 2)
    first, again, other = (
        ULSIF(n_kernels=10, random_state=seed).fit(numerator, denominator).center_indices_ for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(set(first)) == 10
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    ULSIF(n_kernels=10, random_state=None).fit(numerator, denominator)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_fixed_pair_needs_no_selection():
    numerator, denominator = samples(20, 1, 3)
    model = ULSIF(sigmas=2.0, lambdas=0.1).fit(numerator, denominator)
    assert np.isnan(model.loocv_scores_).all() and model.loocv_scores_.shape == (1, 1)
    phi_nu, phi_de = (kernel_matrix(points, numerator, 2.0, "gaussian") for points in (numerator, denominator))
    gram = phi_de.T @ phi_de + 0.1 * np.eye(20)
    np.testing.assert_allclose(model.theta_, np.maximum(0, np.linalg.solve(gram, phi_nu.mean(axis=0))), rtol=1e-9)
    batch = fit_batch(numerator[None], denominator[None], sigmas=[2.0], lambdas=[0.1])
    np.testing.assert_allclose(batch.theta_[0], model.theta_, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ warnings and errors


@pytest.mark.filterwarnings("default::advlib.ulsif.GridEdgeWarning")
def test_warns_at_the_edge_of_the_grid_once_and_where_called():
    numerator, denominator = samples(30, 30, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = ULSIF().fit(numerator, denominator)
        ULSIF(sigmas=inside.sigma_, lambdas=inside.lambda_).fit(numerator, denominator)
    with pytest.warns(GridEdgeWarning, match="sigma in 1 of 1 fits") as caught:
        ULSIF(sigmas=[inside.sigma_, 100.0]).fit(numerator, denominator)
    assert len(caught) == 1 and caught[0].filename == __file__
    # Both ends of each axis count, in whatever order the grid is given.
    with pytest.warns(GridEdgeWarning, match="lambda in 1 of 1 fits"):
        ULSIF(lambdas=[50.0, inside.lambda_, 100.0]).fit(numerator, denominator)
    with pytest.warns(GridEdgeWarning, match="sigma in 4 and lambda in 4 of 4 fits") as caught:
        fit_batch(*stacks(4, 5, 5, 2), sigmas=[1.0, 2.0], lambdas=[1.0, 2.0], chunk_draws=1)
    assert len(caught) == 1 and caught[0].filename == __file__
    with pytest.warns(GridEdgeWarning) as caught:
        fit_batch_indices(numerator, denominator, [[0, 1]], [[2, 3]], sigmas=[1.0, 2.0])
    assert caught[0].filename == __file__


def bad(values, at=(0, 0), value=np.nan):
    changed = values.copy()
    changed[at] = value
    return changed


NU, DE = samples(6, 5, 3)


@pytest.mark.parametrize(
    ("numerator", "denominator", "options", "message"),
    [
        (NU, DE[:1], {}, r"denominator must hold at least 2 samples for leave-one-out, but holds 1"),
        (NU[:1], DE, {}, r"numerator needs at least 2 samples, but has shape \(1, 3\)"),
        (NU[:1], DE, {"sigmas": 1.0, "lambdas": 1.0}, r"numerator needs at least 2"),
        (bad(NU), DE, {}, r"numerator must be finite, but 1 of its 18"),
        (NU, bad(DE, value=np.inf), {}, r"denominator must be finite, but 1 of its 15"),
        (NU, DE[:, :2], {}, r"numerator and denominator must have the same number of features.*\(6, 3\) and \(5, 2\)"),
        (NU[:0], DE, {}, r"numerator must not be empty, but has shape \(0, 3\)"),
        (NU, DE[:0], {}, r"denominator must not be empty, but has shape \(0, 3\)"),
        (NU[0], DE, {}, r"numerator must be a \(n, d\) array, but has shape \(3,\)"),
        (NU, DE, {"kernel": "linear"}, r"kernel must be one of 'gaussian', 'unsquared', but is 'linear'"),
        (NU, DE, {"sigmas": []}, r"sigmas must be a non-empty list of positive finite numbers, but is \[\]"),
        (NU, DE, {"sigmas": [1.0, 0.0]}, r"sigmas must be .*positive.*, but is \[1.0, 0.0\]"),
        (NU, DE, {"lambdas": -1}, r"lambdas must be .*positive.*, but is -1"),
        (NU, DE, {"lambdas": [np.nan]}, r"lambdas must be .*finite.*, but is \[nan\]"),
        (NU, DE, {"sigmas": "auto"}, r"sigmas must be positive numbers, but is 'auto'"),
        (NU, DE, {"n_kernels": 0}, r"n_kernels must be an integer of at least 1, but is 0"),
        (NU, DE, {"n_kernels": 2.5}, r"n_kernels must be an integer of at least 1, but is 2.5"),
    ],
)
def test_errors_name_the_argument(numerator, denominator, options, message):
    with pytest.raises(ValueError, match=message):
        ULSIF(**options).fit(numerator, denominator)
    if numerator.ndim == 2 and 0 not in numerator.shape + denominator.shape:
        with pytest.raises(ValueError):
            fit_batch(numerator[None], denominator[None], **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denominators": np.zeros((2, 4, 3))}, r"same number of draws.*\(3, 5, 3\) and \(2, 4, 3\)"),
        ({"denominators": np.zeros((3, 4, 2))}, r"numerators and denominators must have the same number of features"),
        ({"denominators": np.zeros((3, 1, 3))}, r"denominators must hold at least 2 samples .* but holds 1"),
        ({"numerators": np.zeros((3, 1, 3))}, r"numerators needs at least 2 samples"),
        ({"numerators": np.zeros((5, 3))}, r"numerators must be a \(T, n, d\) array"),
        ({"numerators": np.zeros((0, 5, 3))}, r"numerators must not be empty"),
        ({"chunk_draws": 0}, r"chunk_draws must be an integer of at least 1, but is 0"),
    ],
)
def test_batch_errors_name_the_argument(change, message):
    arguments = {"numerators": np.zeros((3, 5, 3)), "denominators": np.ones((3, 4, 3))} | change
    with pytest.raises(ValueError, match=message):
        fit_batch(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numerator_indices": [[0, 6]]}, r"numerator_indices must lie in 0 … 5, but ranges over 0 … 6"),
        ({"denominator_indices": [[-1, 0]]}, r"denominator_indices must lie in 0 … 4, but ranges over -1 … 0"),
        ({"numerator_indices": [[0.0, 1.0]]}, r"numerator_indices must hold integers"),
        ({"numerator_indices": [[0]]}, r"numerator_indices must be a non-empty \(T, n\) array with n of at least 2"),
        ({"numerator_indices": [0, 1]}, r"numerator_indices must be a non-empty \(T, n\) array"),
        ({"denominator_indices": [[0, 1]] * 2}, r"same number of draws.*\(1, 2\) and \(2, 2\)"),
        ({"denominator_indices": [[0]]}, r"denominator_indices must hold at least 2 samples"),
        ({"denominator_pool": DE[:, :1]}, r"numerator_pool and denominator_pool must have the same number of features"),
    ],
)
def test_index_errors_name_the_argument(change, message):
    arguments = {
        "numerator_pool": NU,
        "denominator_pool": DE,
        "numerator_indices": [[0, 1]],
        "denominator_indices": [[0, 1]],
    } | change
    with pytest.raises(ValueError, match=message):
        fit_batch_indices(**arguments)


def test_extreme_grids_are_refused_or_survived():
    close = np.linspace(0, 1, 50)[:, None]
    with pytest.raises(ValueError, match="lambdas must be large enough for float64, but 1e-20"):
        ULSIF(sigmas=10.0, lambdas=1e-20).fit(close, close)
    with pytest.raises(ValueError, match="sigmas must lie between 1e-100 and 1e100"):
        ULSIF(sigmas=[1e-200, 1.0]).fit(close, close)
    with pytest.raises(ValueError, match="lambdas must lie between 1e-100 and 1e100"):
        ULSIF(lambdas=[1e200, 1.0]).fit(close, close)
    model = ULSIF(sigmas=[1e-99, 1.0, 1e99], lambdas=[1e-99, 0.1, 1e99]).fit(close, close)
    assert model.sigma_ >= 1.0 and model.lambda_ == 0.1
    assert model.mean_ratio_ == pytest.approx(1, abs=0.15)


def test_points_to_predict_are_checked():
    model = ULSIF().fit(NU, DE)
    with pytest.raises(ValueError, match=r"points and the fitted centers_ must have the same number of features"):
        model.predict(NU[:, :2])
    with pytest.raises(ValueError, match=r"points must be finite"):
        model.predict(bad(NU))


# ------------------------------------------------------------------------------------------------ GPU


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernel", KERNELS)
def test_cuda_equals_cpu(kernel):
    numerators, denominators = (torch.as_tensor(stack) for stack in stacks(9, 30, 20, 50))
    cpu = fit_batch(numerators, denominators, kernel=kernel, n_kernels=25)
    gpu = fit_batch(numerators.cuda(), denominators.cuda(), kernel=kernel, n_kernels=25)
    assert gpu.mean_ratio_.is_cuda
    torch.testing.assert_close(gpu.sigma_.cpu(), cpu.sigma_, rtol=0, atol=0)
    torch.testing.assert_close(gpu.loocv_scores_.cpu(), cpu.loocv_scores_, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gpu.mean_ratio_.cpu(), cpu.mean_ratio_, rtol=1e-8, atol=0)
