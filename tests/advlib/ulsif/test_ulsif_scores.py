"""uLSIF against brute-force leave-one-out, the plain formula, the `densratio` package, and closed forms."""

import math

import numpy as np
import pytest
import torch
from densratio import densratio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from ulsif_oracles import GRID, assert_scores, brute_force_scores, kernel_matrix, plain_scores, samples

from advlib import datasets
from advlib.ulsif import (
    DEFAULT_GRID,
    KERNELS,
    ULSIF,
    fit_batch,
    kernels,
    leave_one_out,
)

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


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


@pytest.mark.parametrize("n_de", [1, 2, 20, 21, 40])
def test_few_samples_have_the_eigenvectors_of_the_whole_matrix(n_de):
    phi = torch.from_numpy(np.random.default_rng(0).random((3, n_de, 40)))
    phi[1] = 0  # no kernel reaches any sample
    phi[2, -1] = phi[2, 0]  # a sample twice
    eigenvalues, vectors = leave_one_out.eigen(phi)
    gram = kernels.gram_matrix(phi)
    torch.testing.assert_close(vectors @ torch.diag_embed(eigenvalues) @ vectors.mT, gram, atol=1e-12, rtol=0)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(40).double().expand(3, -1, -1), atol=1e-12, rtol=0)
    torch.testing.assert_close(eigenvalues, torch.linalg.eigvalsh(gram), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("n_nu", "n_de", "d", "b"),
    [
        (10, 10, 784, 100),
        (100, 100, 784, 100),
        (60, 150, 200, 40),
        (400, 90, 20, 100),
        (100, 5, 784, 100),
        (100, 50, 30, 100),
    ],
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


@pytest.mark.parametrize(("n_nu", "n_de", "b"), [(40, 40, 100), (30, 50, 12), (50, 30, 45)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_are_computed_only_where_one_may_be_negative(monkeypatch, kernel, n_nu, n_de, b):
    """With a bound that shows nothing all weights are: the same scores for more products."""
    numerator, denominator = samples(n_nu, n_de, 30, shift=0.1, spread=1.1)
    points = [rows * 10 / math.sqrt(60) for rows in (numerator, denominator)]
    least, products = min(n_nu, n_de), []
    multiply = leave_one_out.product

    def counted(left, right, out=None):
        products.append(left.shape[1] == least and right.shape[1] == right.shape[2])
        return multiply(left, right, out=out)

    monkeypatch.setattr(leave_one_out, "product", counted)
    quick = ULSIF(kernel=kernel, n_kernels=b).fit(*points)
    few = sum(products)
    products.clear()
    bound = leave_one_out.InEigenbasis._bound

    def useless(self):
        first, radius, width = bound(self)
        return first, torch.full_like(radius, math.inf), torch.ones_like(width)

    monkeypatch.setattr(leave_one_out.InEigenbasis, "_bound", useless)
    slow = ULSIF(kernel=kernel, n_kernels=b).fit(*points)
    assert 0 < few < sum(products)
    np.testing.assert_allclose(quick.loocv_scores_, slow.loocv_scores_, rtol=1e-10, atol=1e-12)


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


@settings(max_examples=30)
@given(shape=shapes, kernel=st.sampled_from(KERNELS))
def test_ratios_and_weights_are_not_negative(shape, kernel):
    numerator, denominator = samples(*shape)
    model = ULSIF(kernel=kernel).fit(numerator, denominator)
    assert (model.theta_ >= 0).all() and model.mean_ratio_ >= 0
    assert (model.predict(denominator) >= 0).all()


@settings(max_examples=30)
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


@settings(max_examples=30)
@given(shape=shapes, kernel=st.sampled_from(KERNELS), offset=st.sampled_from([-3.0, 64.0, 4096.0]))
def test_translation_does_not_matter(shape, kernel, offset):
    # Multiples of 2^-20 stay exact under these offsets, so that only the method can make a difference.
    numerator, denominator = (np.round(points * 2**20) / 2**20 for points in samples(*shape))
    here = ULSIF(kernel=kernel).fit(numerator, denominator)
    there = ULSIF(kernel=kernel).fit(numerator + offset, denominator + offset)
    np.testing.assert_array_equal(there.loocv_scores_, here.loocv_scores_)
    np.testing.assert_array_equal(there.theta_, here.theta_)


@settings(max_examples=20)
@given(shape=shapes, power=st.integers(-6, 6))
def test_scaling_points_and_sigma_together_does_not_matter(shape, power):
    numerator, denominator = samples(*shape)
    factor = 2.0**power
    here = ULSIF().fit(numerator, denominator)
    there = ULSIF(sigmas=GRID * factor).fit(numerator * factor, denominator * factor)
    np.testing.assert_allclose(there.loocv_scores_, here.loocv_scores_, rtol=1e-9, atol=1e-9)
