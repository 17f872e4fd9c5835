"""Density ratios by uLSIF: one fit, or many at once with the whole grid scored by exact leave-one-out.

The ratio p_numerator / p_denominator is modelled as a sum of kernels, φ(x)·θ, with b centres drawn from the
numerator. With Φ_nu (n_nu, b) and Φ_de (n_de, b) the kernel values of the two samples,

    Ĥ = Φ_deᵀ Φ_de / n_de,   ĥ = mean of the rows of Φ_nu,   θ = max(0, (Ĥ + λ I)⁻¹ ĥ),

and (σ, λ) minimise the leave-one-out error over the first n = min(n_nu, n_de) pairs, which has a closed form.

What makes it fast, all of it exact to rounding:

- one distance matrix a draw serves every σ and both kernels;
- with B = Ĥ + cλ I, c = (n_de − 1)/n_de, and z_i = Σ_{k≠i} φ(numerator_k), the left-out θ of pair i is the positive
  part of B⁻¹(z_i + s_i x_i) up to a constant, s_i = z_iᵀB⁻¹x_i / (n_de − x_iᵀB⁻¹x_i): one right-hand side a pair
  instead of three; an eigendecomposition of Ĥ turns all λ of one σ into one matrix product each;
- where Ĥ is so small that one or two terms of B⁻¹ = Σ_k (−Ĥ)ᵏ/(cλ)ᵏ⁺¹ are exact to machine precision, no matrix is
  factorised (proof at `_loo_scores`);
- draws are worked in chunks that fit the cache, one chunk a thread.

References
----------
T. Kanamori, S. Hido and M. Sugiyama, "A least-squares approach to direct importance estimation",
JMLR 10 (2009) 1391–1445, https://jmlr.org/papers/v10/kanamori09a.html, section 3 and figure 2.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from advlib.checks import ArrayLike, as_matrix, same_columns

DEFAULT_GRID = tuple(np.logspace(-3, 1, 9).tolist())
"""Nine values from 1e-3 to 10, two a decade: the grid of the `densratio` packages, for σ and for λ."""

KERNELS = ("gaussian", "unsquared")

# Below exp(-175) ≈ 1e-76 a kernel value counts as 0. Products of four such values would be subnormal numbers, which
# cost a processor tens of times the time of others; a score's unit is 1, so nothing else is lost.
_SMALLEST_EXPONENT = -175.0
_SMALLEST_KERNEL = math.exp(_SMALLEST_EXPONENT) * (1 + 1e-12)
# ‖x‖² + ‖y‖² − 2xᵀy loses digits where ‖x − y‖² is this small against ‖x‖² + ‖y‖²; such pairs are subtracted first.
_NEAR = 1e-4
# Up to this many features the differences themselves are as cheap as the matrix product.
_FEW_FEATURES = 16
# Working memory of one chunk in bytes: near a core's cache, yet worth the calls; or enough to fill a GPU.
_CHUNK_BYTES = 16 * 2**20
_GPU_CHUNK_BYTES = 2 * 2**30


class GridEdgeWarning(UserWarning):
    """The best σ or λ is the smallest or largest value of its grid, so a better one may lie outside."""


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


@dataclass(frozen=True)
class _Settings:
    """Checked hyperparameters of one call; `center_indices` are rows of the numerator."""

    sigmas: tuple[float, ...]
    lambdas: tuple[float, ...]
    kernel: str
    center_indices: torch.Tensor

    @property
    def needs_selection(self) -> bool:
        return len(self.sigmas) * len(self.lambdas) > 1


class ULSIF(BaseEstimator):
    """Density ratio of two samples by unconstrained least-squares importance fitting.

    Parameters
    ----------
    sigmas, lambdas : sequence of float or float
        Kernel widths and regularisation strengths to choose from, positive. Where both hold a single value nothing is
        chosen and no leave-one-out is computed; that is the way to fit a single denominator point (fix the values
        that were chosen on samples of usual size).
    n_kernels : int
        Number of kernel centres b, drawn without replacement from the numerator; all of it if that is smaller.
    kernel : {"gaussian", "unsquared"}
        exp(−‖x − c‖² / 2σ²), or exp(−‖x − c‖ / 2σ²) as the `densratio` packages computed until May 2019.
    random_state : int, numpy.random.Generator or None
        Draws the centres. An int gives the same rows at each fit.

    Attributes
    ----------
    centers_ : (b, d) float64
        Kernel centres, rows `center_indices_` (b,) of the numerator in ascending order.
    theta_ : (b,) float64
        Kernel weights, non-negative.
    sigma_, lambda_ : float
        Chosen pair: the smallest score, among equal scores the first in grid order (σ before λ).
    loocv_scores_ : (n_sigmas, n_lambdas) float64
        Leave-one-out error of each pair, up to a constant; NaN where both grids have a single value.
    mean_ratio_ : float
        Mean estimated ratio over the numerator.

    Notes
    -----
    Learned arrays are NumPy or torch (on its device) as the numerator was, float64 in either case. Kernel values
    below 1e-76 count as 0.

    References
    ----------
    Kanamori, Hido and Sugiyama, JMLR 10 (2009) 1391–1445.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> model = ULSIF().fit(rng.normal(0.0, 1.0, (500, 1)), rng.normal(0.0, 2.0, (500, 1)))
    >>> bool(model.predict(np.array([[0.0]]))[0] > model.predict(np.array([[3.0]]))[0])
    True
    """

    def __init__(
        self,
        sigmas: Sequence[float] | float = DEFAULT_GRID,
        lambdas: Sequence[float] | float = DEFAULT_GRID,
        n_kernels: int = 100,
        kernel: str = "gaussian",
        random_state: int | np.random.Generator | None = 0,
    ):
        self.sigmas = sigmas
        self.lambdas = lambdas
        self.n_kernels = n_kernels
        self.kernel = kernel
        self.random_state = random_state

    def fit(self, numerator: ArrayLike, denominator: ArrayLike) -> "ULSIF":
        """Choose (σ, λ) by leave-one-out and fit θ.

        Parameters
        ----------
        numerator : (n, d) array or tensor
            Sample of the density above the line, n ≥ 2.
        denominator : (m, d) array or tensor
            Sample of the density below the line, m ≥ 2, or m ≥ 1 if σ and λ are fixed.

        Returns
        -------
        ULSIF
            Itself, fitted.

        Raises
        ------
        ValueError
            Naming the argument or hyperparameter that cannot be used.

        Warns
        -----
        GridEdgeWarning
            If the best σ or λ lies at the edge of its grid.
        """
        numerator_matrix = as_matrix(numerator, "numerator", min_rows=2)
        denominator_matrix = as_matrix(denominator, "denominator", device=numerator_matrix.device)
        same_columns(numerator_matrix, "numerator", denominator_matrix, "denominator")
        settings = _settings(
            self.sigmas, self.lambdas, self.n_kernels, self.kernel, self.random_state, numerator_matrix.shape[0]
        )
        _check_denominator(denominator_matrix.shape[0], "denominator", settings)
        result = _fit_chunk(numerator_matrix[None], denominator_matrix[None], settings)
        _warn_at_edges(result["sigma"], result["lambda_"], settings)

        out = _like(numerator)
        self.center_indices_ = out(settings.center_indices)
        self.centers_ = out(numerator_matrix[settings.center_indices.to(numerator_matrix.device)])
        self.theta_ = out(result["theta"][0])
        self.loocv_scores_ = out(result["scores"][0])
        self.sigma_ = float(result["sigma"][0])
        self.lambda_ = float(result["lambda_"][0])
        self.mean_ratio_ = float(result["mean_ratio"][0])
        self.n_features_in_ = numerator_matrix.shape[1]
        return self

    def predict(self, points: ArrayLike) -> ArrayLike:
        """Estimate the ratio p_numerator / p_denominator at `points`.

        Parameters
        ----------
        points : (n, d) array or tensor
            Where to evaluate.

        Returns
        -------
        (n,) float64
            Ratios ≥ 0, NumPy or torch as `points` was.

        Raises
        ------
        ValueError
            If `points` is not a finite (n, d) matrix with the fitted d.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        matrix = as_matrix(points, "points")
        centers = torch.as_tensor(self.centers_, device=matrix.device)
        theta = torch.as_tensor(self.theta_, device=matrix.device)
        same_columns(matrix, "points", centers, "the fitted centers_")
        shift = centers[:1]
        centers = (centers - shift)[None]
        rows = max(1, _CHUNK_BYTES // (8 * (matrix.shape[1] + 3 * len(theta))))
        ratios = []
        for block in matrix.split(rows):
            exponents = _to_exponents(_squared_distances((block - shift)[None], centers), self.kernel)
            ratios.append(_kernel_values(exponents, self.sigma_)[0] @ theta)
        return _like(points)(torch.cat(ratios))


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
        8 (3 (n + m) b + 5 min(n, m) b + 4 b²) bytes a draw, and 8 (n + m) d bytes a thread.

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

    Notes
    -----
    On a CPU the chunks run in `torch.get_num_threads()` Python threads with one torch thread each, which is set
    back afterwards.
    """
    numerator_stack = as_matrix(numerators, "numerators", dtype=_own_dtype(numerators), ndim=3, min_rows=2)
    denominator_stack = as_matrix(
        denominators, "denominators", dtype=_own_dtype(denominators), device=numerator_stack.device, ndim=3
    )
    same_columns(numerator_stack, "numerators", denominator_stack, "denominators")
    draws, n_nu, n_features = numerator_stack.shape
    n_de = denominator_stack.shape[1]
    if len(denominator_stack) != draws:
        raise ValueError(
            f"numerators and denominators must hold the same number of draws, "
            f"but have shapes {tuple(numerator_stack.shape)} and {tuple(denominator_stack.shape)}"
        )
    settings = _settings(sigmas, lambdas, n_kernels, kernel, random_state, n_nu)
    _check_denominator(n_de, "denominators", settings)

    def chunk(part: slice) -> dict[str, torch.Tensor]:
        return _fit_chunk(numerator_stack[part], denominator_stack[part], settings)

    size = _chunk_size(chunk_draws, draws, n_nu, n_de, n_features, settings, numerator_stack.device)
    result = _in_chunks(chunk, draws, size, numerator_stack.device)
    _warn_at_edges(result["sigma"], result["lambda_"], settings)
    return _as_batch_fit(result, settings, _like(numerators))


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
    denominator_rows = as_matrix(
        denominator_pool, "denominator_pool", dtype=_own_dtype(denominator_pool), device=numerator_rows.device
    )
    same_columns(numerator_rows, "numerator_pool", denominator_rows, "denominator_pool")
    device = numerator_rows.device
    a = _as_indices(numerator_indices, "numerator_indices", len(numerator_rows), device, min_columns=2)
    b = _as_indices(denominator_indices, "denominator_indices", len(denominator_rows), device)
    if len(a) != len(b):
        raise ValueError(
            "numerator_indices and denominator_indices must hold the same number of draws, "
            f"but have shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    settings = _settings(sigmas, lambdas, n_kernels, kernel, random_state, a.shape[1])
    _check_denominator(b.shape[1], "denominator_indices", settings)

    def chunk(part: slice) -> dict[str, torch.Tensor]:
        return _fit_chunk(numerator_rows[a[part]], denominator_rows[b[part]], settings)

    size = _chunk_size(chunk_draws, len(a), a.shape[1], b.shape[1], numerator_rows.shape[1], settings, device)
    result = _in_chunks(chunk, len(a), size, device)
    _warn_at_edges(result["sigma"], result["lambda_"], settings)
    return _as_batch_fit(result, settings, _like(numerator_pool))


# ---------------------------------------------------------------------------------------------- arguments


def _grid(values: Sequence[float] | float, name: str) -> tuple[float, ...]:
    try:
        grid = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be positive numbers, but is {values!r}") from None
    if grid.ndim != 1 or grid.size == 0 or not np.all(np.isfinite(grid) & (grid > 0)):
        raise ValueError(f"{name} must be a non-empty list of positive finite numbers, but is {values!r}")
    if not np.all((grid > 1e-100) & (grid < 1e100)):
        raise ValueError(
            f"{name} must lie between 1e-100 and 1e100, whose squares are still numbers, but is {values!r}"
        )
    return tuple(grid.tolist())


def _settings(sigmas, lambdas, n_kernels, kernel, random_state, n_numerator: int) -> _Settings:
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(map(repr, KERNELS))}, but is {kernel!r}")
    if not isinstance(n_kernels, Integral) or isinstance(n_kernels, bool) or n_kernels < 1:
        raise ValueError(f"n_kernels must be an integer of at least 1, but is {n_kernels!r}")
    sigma_grid, lambda_grid = _grid(sigmas, "sigmas"), _grid(lambdas, "lambdas")
    if n_kernels >= n_numerator:
        indices = np.arange(n_numerator)
    else:
        indices = np.sort(np.random.default_rng(random_state).choice(n_numerator, int(n_kernels), replace=False))
    return _Settings(sigma_grid, lambda_grid, kernel, torch.as_tensor(indices))


def _check_denominator(n_denominator: int, name: str, settings: _Settings) -> None:
    if n_denominator < 2 and settings.needs_selection:
        raise ValueError(
            f"{name} must hold at least 2 samples for leave-one-out, but holds {n_denominator}: "
            "add samples, or fix one value each in sigmas and lambdas (nothing is left out then)"
        )


def _as_indices(values: ArrayLike, name: str, n_rows: int, device, min_columns: int = 1) -> torch.Tensor:
    indices = torch.as_tensor(values)
    if indices.ndim != 2 or 0 in indices.shape or indices.shape[1] < min_columns:
        raise ValueError(
            f"{name} must be a non-empty (T, n) array with n of at least {min_columns}, "
            f"but has shape {tuple(indices.shape)}"
        )
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, but its dtype is {indices.dtype}")
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= n_rows:
        raise ValueError(f"{name} must lie in 0 … {n_rows - 1}, but ranges over {low} … {high}")
    return indices.to(device=device, dtype=torch.int64)


def _own_dtype(values: ArrayLike) -> torch.dtype:
    # A float32 stack is widened chunk by chunk, so that memory does not grow with the number of draws.
    return torch.float32 if str(getattr(values, "dtype", "")).endswith("float32") else torch.float64


def _like(values: ArrayLike) -> Callable[[torch.Tensor], ArrayLike]:
    if isinstance(values, torch.Tensor):
        return lambda tensor: tensor.to(values.device)
    return lambda tensor: tensor.cpu().numpy()


def _as_batch_fit(result: dict[str, torch.Tensor], settings: _Settings, out: Callable) -> BatchFit:
    return BatchFit(
        mean_ratio_=out(result["mean_ratio"]),
        sigma_=out(result["sigma"]),
        lambda_=out(result["lambda_"]),
        theta_=out(result["theta"]),
        loocv_scores_=out(result["scores"]),
        center_indices_=out(settings.center_indices),
    )


def _warn_at_edges(sigma: torch.Tensor, lambda_: torch.Tensor, settings: _Settings) -> None:
    found = []
    for name, chosen, grid in (("sigma", sigma, settings.sigmas), ("lambda", lambda_, settings.lambdas)):
        at_edge = int(((chosen == min(grid)) | (chosen == max(grid))).sum())
        if len(grid) > 1 and at_edge:
            found.append(f"{name} in {at_edge}")
    if found:
        warnings.warn(
            f"the best value is at the edge of its grid for {' and '.join(found)} of {len(sigma)} fits; "
            "a wider grid may fit better",
            GridEdgeWarning,
            stacklevel=3,
        )


# ---------------------------------------------------------------------------------------------- chunks


def _chunk_size(
    chunk_draws: int | None,
    draws: int,
    n_nu: int,
    n_de: int,
    n_features: int,
    settings: _Settings,
    device: torch.device,
) -> int:
    if chunk_draws is not None:
        if not isinstance(chunk_draws, Integral) or isinstance(chunk_draws, bool) or chunk_draws < 1:
            raise ValueError(f"chunk_draws must be an integer of at least 1, but is {chunk_draws!r}")
        return int(chunk_draws)
    n_centers = len(settings.center_indices)
    values = 3 * (n_nu + n_de) * n_centers + 5 * min(n_nu, n_de) * n_centers + 4 * n_centers**2
    if device.type != "cpu":
        return max(1, min(draws, _GPU_CHUNK_BYTES // (8 * (values + (n_nu + n_de) * n_features))))
    size = max(1, _CHUNK_BYTES // (8 * values))
    # As many chunks for each thread, so that none waits for the last.
    threads = torch.get_num_threads()
    return math.ceil(draws / (threads * math.ceil(draws / (threads * size))))


def _in_chunks(
    work: Callable[[slice], dict[str, torch.Tensor]], draws: int, size: int, device: torch.device
) -> dict[str, torch.Tensor]:
    parts = [slice(start, min(start + size, draws)) for start in range(0, draws, size)]
    threads = min(torch.get_num_threads(), len(parts))
    if device.type != "cpu" or threads == 1:
        results = [work(part) for part in parts]
    else:
        # LAPACK on 100 × 100 matrices gains nothing from a second thread; whole chunks side by side do.
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                results = list(pool.map(work, parts))
        finally:
            torch.set_num_threads(before)
    return {key: torch.cat([result[key] for result in results]) for key in results[0]}


def _fit_chunk(numerators: torch.Tensor, denominators: torch.Tensor, settings: _Settings) -> dict[str, torch.Tensor]:
    """Score the grid, choose, and fit `numerators` (C, n, d) against `denominators` (C, m, d)."""
    draws, n_nu, _ = numerators.shape
    device = numerators.device
    exponents, largest = _draw_exponents(numerators, denominators, settings)

    n_sigmas, n_lambdas = len(settings.sigmas), len(settings.lambdas)
    sigmas = torch.tensor(settings.sigmas, dtype=torch.float64, device=device)
    lambdas = torch.tensor(settings.lambdas, dtype=torch.float64, device=device)
    if settings.needs_selection:
        scores = _loo_scores(exponents, largest, n_nu, settings)
        # Where λ is too small for float64 a score may be no number, which must not be the best one.
        best = scores.flatten(1).nan_to_num(nan=math.inf).argmin(1)
    else:
        scores = torch.full((draws, n_sigmas, n_lambdas), math.nan, dtype=torch.float64, device=device)
        best = torch.zeros(draws, dtype=torch.int64, device=device)
    sigma, lambda_ = sigmas[best // n_lambdas], lambdas[best % n_lambdas]

    phi = _kernel_values(exponents, sigma[:, None, None], out=exponents)
    h = phi[:, :n_nu].mean(1)
    gram = _gram(phi[:, n_nu:])
    gram.diagonal(dim1=1, dim2=2).add_(lambda_[:, None])
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        raise ValueError(
            f"lambdas must be large enough for float64, but {float(lambda_[failed != 0].min())} "
            "leaves Ĥ + λI singular to rounding"
        )
    theta = torch.cholesky_solve(h[..., None], factor)[..., 0].clamp_(min=0)
    return {
        "mean_ratio": (h * theta).sum(1),
        "sigma": sigma,
        "lambda_": lambda_,
        "theta": theta,
        "scores": scores,
    }


# ---------------------------------------------------------------------------------------------- mathematics


def _draw_exponents(
    numerators: torch.Tensor, denominators: torch.Tensor, settings: _Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return e (C, n + m, b) with kernel = exp(e / σ²) for both samples, numerator first, and its largest values.

    The second tensor (2, C) holds the largest e among numerator points, each centre's own left out, and among
    denominator points.
    """
    draws, n_nu, n_features = numerators.shape
    n_samples = n_nu + denominators.shape[1]
    n_centers = len(settings.center_indices)
    device = numerators.device
    centers_at = settings.center_indices.to(device)
    own = centers_at * n_centers + torch.arange(n_centers, device=device)
    exponents = torch.empty(draws, n_samples, n_centers, dtype=torch.float64, device=device)
    # One draw's samples stay in a core's cache between the passes over them; a GPU wants all at once.
    step = 1 if device.type == "cpu" else draws
    samples = torch.empty(step, n_samples, n_features, dtype=torch.float64, device=device)
    for start in range(0, draws, step):
        # Distances do not change under a shift; each draw's own first row keeps the norms near the distances' size.
        numerator, denominator = numerators[start : start + step], denominators[start : start + step]
        shift = numerator[:, :1].to(torch.float64)
        torch.sub(numerator, shift, out=samples[:, :n_nu])
        torch.sub(denominator, shift, out=samples[:, n_nu:])
        centers = samples[:, :n_nu] if n_centers == n_nu else samples[:, centers_at]
        _squared_distances(samples, centers, own, out=exponents[start : start + step])
    # A centre is at infinity from itself so far, which keeps it out of the maxima; now its distance is exactly 0.
    _to_exponents(exponents, settings.kernel)
    largest = torch.stack([exponents[:, :n_nu].amax((1, 2)), exponents[:, n_nu:].amax((1, 2))])
    exponents.view(draws, -1).index_fill_(1, own, 0.0)
    return exponents, largest


def _squared_distances(
    points: torch.Tensor, centers: torch.Tensor, own: torch.Tensor | None = None, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared distances (C, p, b) of `points` (C, p, d) to `centers` (C, b, d), infinite at flat positions `own`."""
    if out is None:
        out = points.new_empty(points.shape[0], points.shape[1], centers.shape[1])
    if points.shape[2] <= _FEW_FEATURES:
        torch.square(torch.cdist(points, centers, compute_mode="donot_use_mm_for_euclid_dist"), out=out)
        near = torch.zeros_like(out, dtype=torch.bool)
    else:
        norms, center_norms = (torch.linalg.vector_norm(rows, dim=2).square_() for rows in (points, centers))
        scale = norms[:, :, None] + center_norms[:, None, :]
        torch.add(scale, torch.bmm(points, centers.mT, out=out), alpha=-2, out=out)
        near = out < scale.mul_(_NEAR)
    if own is not None:
        out.view(len(out), -1).index_fill_(1, own, math.inf)
        near.view(len(out), -1).index_fill_(1, own, False)
    for pairs in near.nonzero().split(max(1, _CHUNK_BYTES // (8 * points.shape[2]))):
        draw, point, center = pairs.unbind(1)
        out[draw, point, center] = (points[draw, point] - centers[draw, center]).square_().sum(1)
    return out


def _to_exponents(squared: torch.Tensor, kernel: str) -> torch.Tensor:
    """Turn squared distances into −½ of the squared or plain distance, in place."""
    if kernel == "unsquared":
        squared.sqrt_()
    return squared.mul_(-0.5)


def _kernel_values(
    exponents: torch.Tensor, sigma: torch.Tensor | float, out: torch.Tensor | None = None
) -> torch.Tensor:
    scaled = torch.mul(exponents, 1 / sigma**2, out=out)
    # exp(-inf) leaves the vectorised path, hence the zeros come after.
    return torch.nn.functional.threshold_(scaled.clamp_(min=_SMALLEST_EXPONENT).exp_(), _SMALLEST_KERNEL, 0.0)


def _gram(phi_de: torch.Tensor) -> torch.Tensor:
    return torch.bmm(phi_de.mT, phi_de).div_(phi_de.shape[1])


def _loo_scores(exponents: torch.Tensor, largest: torch.Tensor, n_nu: int, settings: _Settings) -> torch.Tensor:
    """Leave-one-out error (C, n_sigmas, n_lambdas) of the whole grid, from what `_draw_exponents` returns."""
    draws, n_samples, _ = exponents.shape
    n_de = n_samples - n_nu
    lambdas = torch.tensor(settings.lambdas, dtype=torch.float64, device=exponents.device)
    scores = exponents.new_zeros(draws, len(settings.sigmas), len(settings.lambdas))
    largest_nu, largest_de = largest.tolist()
    buffer = torch.empty_like(exponents)

    # With δ = ‖Ĥ‖ / (cλ), B⁻¹ is the series Σ_k (−Ĥ)ᵏ / (cλ)ᵏ⁺¹, of which the terms after the k-th weigh a relative
    # δᵏ / (1 − δ). As ‖x_i‖² ≤ n_de ‖Ĥ‖, ‖s_i x_i‖ ≤ δ/(1 − δ) ‖z_i‖, so that one term keeps B⁻¹(z_i + s_i x_i) to a
    # relative 2δ/(1 − δ) and two terms keep it to 2δ²/(1 − δ). ‖Ĥ‖ ≤ ‖Φ_de‖²_F / n_de.
    smallest = (n_de - 1) / n_de * min(settings.lambdas)
    eps = torch.finfo(torch.float64).eps
    for k, sigma in enumerate(settings.sigmas):
        # Where each kernel is 0 outside its own centre, so is every left-out ratio, and the score is 0.
        alive = [t for t in range(draws) if max(largest_nu[t], largest_de[t]) / sigma**2 > _SMALLEST_EXPONENT]
        if not alive:
            continue
        phi = _kernel_values(exponents if len(alive) == draws else exponents[alive], sigma, out=buffer[: len(alive)])
        delta = torch.linalg.vector_norm(phi[:, n_nu:], dim=(1, 2)).square_() / (n_de * smallest)
        terms = 1 * (delta > eps / 4) + (delta > math.sqrt(eps / 4))
        for needed, score in enumerate((_scores_diagonal, _scores_two_terms, _scores_full)):
            members = (terms == needed).nonzero()[:, 0].tolist()
            if members:
                part = phi if len(members) == len(alive) else phi[members]
                scores[[alive[i] for i in members], k] = score(part[:, :n_nu], part[:, n_nu:], lambdas)
    return scores


def _scores_full(phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor) -> torch.Tensor:
    """Score (C, L) of all λ for one σ, from kernel values (C, n_nu, b) and (C, n_de, b)."""
    n_nu, n_de = phi_nu.shape[1], phi_de.shape[1]
    n = min(n_nu, n_de)
    x, x_nu = phi_de[:, :n], phi_nu[:, :n]
    z = phi_nu.sum(1, keepdim=True) - x_nu
    eigenvalues, vectors = torch.linalg.eigh(_gram(phi_de))
    p, q = torch.bmm(x, vectors), torch.bmm(z, vectors)
    inverse = 1 / (eigenvalues.clamp_(min=0)[:, None] + (n_de - 1) / n_de * lambdas[:, None])
    # Two buffers for all that follows: what stays in the cache costs a third.
    left_out, weights = z, torch.empty_like(z)
    s = torch.bmm(inverse, torch.mul(p, q, out=weights).mT)
    s /= n_de - torch.bmm(inverse, torch.square(p, out=weights).mT)
    ratio_de, mean_nu = [], []
    for k in range(len(lambdas)):
        torch.addcmul(q, p, s[:, k, :, None], out=left_out).mul_(inverse[:, k, None])
        torch.bmm(left_out, vectors.mT, out=weights).clamp_(min=0)
        mean_nu.append(torch.mul(weights, x_nu, out=left_out).sum((1, 2)) / n)
        ratio_de.append(weights.mul_(x).sum(2))
    scale = (n_de - 1) / (n_de * (n_nu - 1))
    quadratic = torch.stack(ratio_de, 1).square_().mean(2) / 2
    return scale**2 * quadratic - scale * torch.stack(mean_nu, 1)


def _scores_two_terms(phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor) -> torch.Tensor:
    """`_scores_full` where B⁻¹ = (I − Ĥ/(cλ)) / (cλ) to machine precision: no matrix is factorised."""
    n_nu, n_de = phi_nu.shape[1], phi_de.shape[1]
    n = min(n_nu, n_de)
    x, x_nu = phi_de[:, :n], phi_nu[:, :n]
    z = phi_nu.sum(1, keepdim=True) - x_nu
    gram = _gram(phi_de)
    hx, hz = torch.bmm(x, gram), torch.bmm(z, gram)
    zx, xx, zhx, xhx = (torch.linalg.vecdot(a, b) for a, b in ((z, x), (x, x), (z, hx), (x, hx)))
    scores = []
    for c_lambda in ((n_de - 1) / n_de * lambdas).tolist():
        s = (zx - zhx / c_lambda) / (n_de * c_lambda - (xx - xhx / c_lambda))
        weights = torch.addcmul(z, x, s[:, :, None]).sub_(torch.addcmul(hz, hx, s[:, :, None]).div_(c_lambda))
        scores.append(_scores_of(weights.clamp_(min=0), x, x_nu, (n_de - 1) / (n_de * (n_nu - 1)) / c_lambda))
    return torch.stack(scores, 1)


def _scores_of(weights: torch.Tensor, x: torch.Tensor, x_nu: torch.Tensor, scale: float) -> torch.Tensor:
    """Leave-one-out error (C,) of the left-out θ = `scale` · `weights`, both (C, n, b)."""
    quadratic = torch.linalg.vecdot(weights, x).square_().mean(1) / 2
    return scale**2 * quadratic - scale * torch.linalg.vecdot(weights, x_nu).mean(1)


def _scores_diagonal(phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor) -> torch.Tensor:
    """`_scores_full` where B = cλ I to machine precision: the left-out θ is z_i / (λ (n_nu − 1))."""
    n_nu, n_de = phi_nu.shape[1], phi_de.shape[1]
    n = min(n_nu, n_de)
    x, x_nu = phi_de[:, :n], phi_nu[:, :n]
    theta = (phi_nu.sum(1, keepdim=True) - x_nu).clamp_(min=0).div_(n_nu - 1)
    quadratic = torch.linalg.vecdot(x, theta).square_().mean(1) / 2
    linear = torch.linalg.vecdot(x_nu, theta).mean(1)
    return quadratic[:, None] / lambdas**2 - linear[:, None] / lambdas
