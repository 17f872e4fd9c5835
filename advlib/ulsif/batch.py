"""Many density ratios at once: draws in chunks that fit the cache, one chunk a thread."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from advlib.checks import ArrayLike, as_matrix, finite, of_kind, plain_tensor, same_columns, whole_number
from advlib.ulsif import fitting, kernels
from advlib.ulsif.settings import DEFAULT_GRID, Settings, checked_settings, warn_at_edges

# Working memory of one chunk in bytes, enough to fill a GPU.
_GPU_CHUNK_BYTES = 2 * 2**30


@dataclass(frozen=True)
class BatchFit:
    """What `fit_batch` learned from T pairs of samples; NumPy or torch, as the numerators were.

    Attributes
    ----------
    mean_ratio_ : (T,) float64
        Mean estimated ratio over each numerator sample.
    sigma_, lambda_ : (T,) float64
        Chosen kernel width (in the unit of the data; its square root for the unsquared kernel) and regularisation.
    theta_ : (T, b) float64
        Kernel weights, non-negative.
    loocv_scores_ : (T, n_sigmas, n_lambdas) float64
        Leave-one-out errors, smaller is better; NaN where nothing had to be chosen.
    center_indices_ : (b,) int64
        Which rows of each draw's numerator are the kernel centres, the same for every draw.
    """

    mean_ratio_: ArrayLike
    sigma_: ArrayLike
    lambda_: ArrayLike
    theta_: ArrayLike
    loocv_scores_: ArrayLike
    center_indices_: ArrayLike


def fit_batch(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    sigmas: Sequence[float] | float = DEFAULT_GRID,
    lambdas: Sequence[float] | float = DEFAULT_GRID,
    n_kernels: int = 100,
    kernel: str = "gaussian",
    random_state: int | np.random.Generator | None = 0,
    chunk_draws: int | None = None,
) -> BatchFit:
    """Fit T density ratios at once: the same numbers as T calls of `ULSIF.fit`, much faster.

    Parameters
    ----------
    numerators : (T, n, d) array or tensor
        One numerator sample a draw, n ≥ 2.
    denominators : (T, m, d) array or tensor
        One denominator sample a draw, m ≥ 2, or m ≥ 1 if σ and λ are fixed.
    sigmas, lambdas, n_kernels, kernel, random_state
        As in `ULSIF`. The centres are the same rows of each draw's numerator, drawn once, so an int gives what
        the single fits with that int give.
    chunk_draws : int, optional
        Draws worked on at once by one thread; by default as many as keep its working memory near 16 MB (2 GB on a
        GPU), at least one. Memory beyond input and result grows with this and with the thread count, not with T: about
        8 (3 (n + m) b + 5 min(n, m) b + 4 b²) bytes a draw, and 8 (n + m) d bytes a thread. On a CPU chunks run in
        `torch.get_num_threads()` Python threads with one of torch and of NumPy's BLAS each, set back afterwards.

    Returns
    -------
    BatchFit
        `mean_ratio_`, `sigma_`, `lambda_`, `theta_`, `loocv_scores_`, `center_indices_`.

    Raises
    ------
    ValueError
        Naming the argument or hyperparameter that cannot be used.

    Warns
    -----
    GridEdgeWarning
        Once, with the count, if draws chose σ or λ at the edge of its grid.
    """
    options = {"dtype": _own_dtype(numerators), "ndim": 3, "check_finite": False}
    numerator_stack = as_matrix(numerators, "numerators", min_rows=2, **options)
    options |= {"dtype": _own_dtype(denominators), "device": numerator_stack.device}
    denominator_stack = as_matrix(denominators, "denominators", **options)
    same_columns(numerator_stack, "numerators", denominator_stack, "denominators")
    _same_draws(numerator_stack, "numerators", denominator_stack, "denominators")

    def take(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        # Checked here, where each thread reads its own part anyway.
        pair = numerator_stack[part], denominator_stack[part]
        if not all(rows.sum().isfinite() for rows in pair):
            finite(numerator_stack, "numerators"), finite(denominator_stack, "denominators")
        return pair

    shape = *numerator_stack.shape[:2], *denominator_stack.shape[1:]
    settings = checked_settings(*shape[1:3], "denominators", sigmas, lambdas, n_kernels, kernel, random_state)
    return _fit(take, shape, settings, chunk_draws, numerators, numerator_stack.device)


def fit_batch_indices(
    numerator_pool: ArrayLike,
    denominator_pool: ArrayLike,
    numerator_indices: ArrayLike,
    denominator_indices: ArrayLike,
    *,
    sigmas: Sequence[float] | float = DEFAULT_GRID,
    lambdas: Sequence[float] | float = DEFAULT_GRID,
    n_kernels: int = 100,
    kernel: str = "gaussian",
    random_state: int | np.random.Generator | None = 0,
    chunk_draws: int | None = None,
) -> BatchFit:
    """`fit_batch` on draws given as rows of two pools: rows are copied one chunk at a time, never all (T, n, d).

    Parameters
    ----------
    numerator_pool, denominator_pool : (N, d), (M, d) array or tensor
        What the draws are taken from.
    numerator_indices, denominator_indices : (T, n), (T, m) integer array or tensor
        Rows of the pools, one draw a row.
    sigmas, lambdas, n_kernels, kernel, random_state, chunk_draws
        As in `fit_batch`.

    Returns
    -------
    BatchFit
        Equal to `fit_batch(numerator_pool[numerator_indices], denominator_pool[denominator_indices])`.

    Raises
    ------
    ValueError
        Naming the argument or hyperparameter that cannot be used.

    Warns
    -----
    GridEdgeWarning
        As in `fit_batch`.
    """
    numerator_rows = as_matrix(numerator_pool, "numerator_pool", dtype=_own_dtype(numerator_pool))
    device, dtype = numerator_rows.device, _own_dtype(denominator_pool)
    denominator_rows = as_matrix(denominator_pool, "denominator_pool", dtype=dtype, device=device)
    same_columns(numerator_rows, "numerator_pool", denominator_rows, "denominator_pool")
    a = _as_indices(numerator_indices, "numerator_indices", len(numerator_rows), device, min_columns=2)
    b = _as_indices(denominator_indices, "denominator_indices", len(denominator_rows), device)
    _same_draws(a, "numerator_indices", b, "denominator_indices")
    shape = *a.shape, b.shape[1], numerator_rows.shape[1]
    settings = checked_settings(*shape[1:3], "denominator_indices", sigmas, lambdas, n_kernels, kernel, random_state)

    # One numerator for all draws is repeated without a copy, which `kernels.draw_exponents` sees.
    repeated = numerator_rows[a[0]] if (a == a[0]).all() else None

    def take(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        rows = b[part]
        numerators = numerator_rows[a[part]] if repeated is None else repeated.expand(len(rows), -1, -1)
        return numerators, denominator_rows[rows]

    return _fit(take, shape, settings, chunk_draws, numerator_pool, device)


def _as_indices(values: ArrayLike, name: str, n_rows: int, device, min_columns: int = 1) -> torch.Tensor:
    indices = plain_tensor(values, name)
    if indices.ndim != 2 or 0 in indices.shape or indices.shape[1] < min_columns:
        raise ValueError(
            f"{name} must be a non-empty (T, n) array with n of at least {min_columns}, "
            f"but has shape {tuple(indices.shape)}"
        )
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, but its dtype is {indices.dtype}")
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= n_rows:
        raise ValueError(f"{name} must lie in 0 … {n_rows - 1}, but ranges over {low} … {high}")
    return indices.to(device=device, dtype=torch.int64)


def _own_dtype(values: ArrayLike) -> torch.dtype:
    # A float32 stack is widened chunk by chunk, so that memory does not grow with the number of draws.
    return torch.float32 if str(getattr(values, "dtype", "")).endswith("float32") else torch.float64


def _same_draws(first: torch.Tensor, first_name: str, second: torch.Tensor, second_name: str) -> None:
    if len(first) != len(second):
        raise ValueError(
            f"{first_name} and {second_name} must hold the same number of draws, "
            f"but have shapes {tuple(first.shape)} and {tuple(second.shape)}"
        )


def _fit(
    take: Callable[[slice], tuple[torch.Tensor, torch.Tensor]],
    shape: tuple[int, int, int, int],
    settings: Settings,
    chunk_draws: int | None,
    kind: ArrayLike,
    device: torch.device,
) -> BatchFit:
    """Fit all draws, chunk by chunk; `take` gives numerators and denominators of some, `shape` is (T, n, m, d)."""

    def work(part: slice) -> dict[str, torch.Tensor]:
        return fitting.fit_chunk(*take(part), settings)

    draws, size = shape[0], _chunk_size(chunk_draws, shape, len(settings.center_indices), device)
    parts = [slice(start, min(start + size, draws)) for start in range(0, draws, size)]
    if device.type != "cpu" or len(parts) == 1:
        results = [work(part) for part in parts]
    else:
        # LAPACK on 100 × 100 matrices gains nothing from a second thread; whole chunks side by side do.
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(min(before, len(parts)), initializer=torch.set_num_threads, initargs=(1,))
        try:
            with kernels.one_blas_thread(), pool:
                results = list(pool.map(work, parts))
        finally:
            torch.set_num_threads(before)
    fields = {key: torch.cat([result[key] for result in results]) for key in results[0]}
    warn_at_edges(fields["sigma_"], fields["lambda_"], settings, stacklevel=3)
    fields["center_indices_"] = settings.center_indices
    return BatchFit(**{name: of_kind(kind, tensor) for name, tensor in fields.items()})


def _chunk_size(chunk_draws: int | None, shape: tuple[int, int, int, int], n_centers: int, device: torch.device) -> int:
    if chunk_draws is not None:
        return whole_number(chunk_draws, "chunk_draws", 1)
    draws, n_nu, n_de, n_features = shape
    values = 3 * (n_nu + n_de) * n_centers + 5 * min(n_nu, n_de) * n_centers + 4 * n_centers**2
    if device.type != "cpu":
        return max(1, min(draws, _GPU_CHUNK_BYTES // (8 * (values + (n_nu + n_de) * n_features))))
    size = max(1, kernels.CHUNK_BYTES // (8 * values))
    # As many chunks for each thread, so that none waits for the last.
    threads = torch.get_num_threads()
    return math.ceil(draws / (threads * math.ceil(draws / (threads * size))))
