"""What uLSIF promises to its callers: scikit-learn, warnings, errors, kinds of arrays."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from ulsif_oracles import kernel_matrix, samples, stacks

from advlib.ulsif import (
    KERNELS,
    ULSIF,
    GridEdgeWarning,
    fit_batch,
    fit_batch_indices,
)

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


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
        (NU, DE, {"kernel": "linear"}, r"kernel must be one of gaussian, unsquared, but is 'linear'"),
        (NU, DE, {"sigmas": []}, r"sigmas must be a non-empty list of positive finite numbers, but is \[\]"),
        (NU, DE, {"sigmas": [1.0, 0.0]}, r"sigmas must be .*positive.*, but is \[1.0, 0.0\]"),
        (NU, DE, {"lambdas": -1}, r"lambdas must be .*positive.*, but is -1"),
        (NU, DE, {"lambdas": [np.nan]}, r"lambdas must be .*finite.*, but is \[nan\]"),
        (NU, DE, {"sigmas": "auto"}, r"sigmas must be positive numbers, but is 'auto'"),
        (NU, DE, {"n_kernels": 0}, r"n_kernels must be at least 1, but is 0"),
        (NU, DE, {"n_kernels": 2.5}, r"n_kernels must be a whole number of at least 1, but is 2.5"),
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
        ({"chunk_draws": 0}, r"chunk_draws must be at least 1, but is 0"),
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
