"""Many fits at once: the same numbers as one by one, bounded memory, threads left as they were."""

import math

import numpy as np
import pytest
import torch
from ulsif_oracles import stacks

from advlib.ulsif import (
    KERNELS,
    ULSIF,
    fit_batch,
    fit_batch_indices,
    fitting,
    kernels,
    leave_one_out,
)

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("d", "b", "m"), [(30, 100, 7), (30, 6, 7), (3, 100, 1), (30, 100, 20)])
def test_one_numerator_for_all_draws_is_measured_once(kernel, d, b, m):
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(12, d)), rng.normal(size=(40, d))
    a, rows = np.tile(rng.permutation(12), (9, 1)), rng.integers(0, 40, (9, m))
    other[rows[4]] = real[a[4, :1]]  # copies of a numerator point, whose distances are taken by differences
    options = {"n_kernels": b, "kernel": kernel} | ({"sigmas": 1.0, "lambdas": 0.1} if m == 1 else {})
    found, wanted = fit_batch_indices(real, other, a, rows, **options), fit_batch(real[a], other[rows], **options)
    for name in ("mean_ratio_", "sigma_", "lambda_", "theta_", "loocv_scores_"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("decade", range(-40, 1, 2))
def test_the_short_series_equal_the_factorisation(decade):
    """Each tier of the leave-one-out scores gives what the eigendecomposition gives, wherever it is chosen."""
    rng = np.random.default_rng(-decade)
    phi_nu, phi_de = torch.from_numpy(rng.random((2, 4, 15, 12))).unbind(0)
    phi_de = phi_de * 10.0 ** (decade / 2)
    lambdas = torch.tensor([1e-3, 0.1, 10.0], dtype=torch.float64)
    delta = (phi_de.square().sum((1, 2)) / (14 * 1e-3)).max()
    given = phi_nu, phi_de, lambdas, torch.empty(0, dtype=torch.int64)
    wanted = leave_one_out.InEigenbasis(*given).scores()
    eps = np.finfo(float).eps
    shorter = (eps / 4, leave_one_out.scores_diagonal), (math.sqrt(eps / 4), leave_one_out.scores_two_terms)
    for limit, score in shorter:
        if delta <= limit:
            np.testing.assert_allclose(score(*given), wanted, rtol=1e-13, atol=0)
    beyond = leave_one_out.scores_two_terms(*given)
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
