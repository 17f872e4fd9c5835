"""One chunk of draws: kernel values, the choice of σ and λ, and the weights."""

import math

import torch

from advlib.ulsif import leave_one_out
from advlib.ulsif.kernels import draw_exponents, gram_matrix, kernel_values
from advlib.ulsif.settings import Settings


def fit_chunk(numerators: torch.Tensor, denominators: torch.Tensor, settings: Settings) -> dict[str, torch.Tensor]:
    """Score the grid, choose, and fit `numerators` (C, n, d) against `denominators` (C, m, d).

    Returns the fields of `advlib.ulsif.BatchFit`, save the centres' indices.
    """
    draws, n_nu, _ = numerators.shape
    device = numerators.device
    exponents, largest = draw_exponents(numerators, denominators, settings)

    n_sigmas, n_lambdas = len(settings.sigmas), len(settings.lambdas)
    sigmas = torch.tensor(settings.sigmas, dtype=torch.float64, device=device)
    lambdas = torch.tensor(settings.lambdas, dtype=torch.float64, device=device)
    if settings.needs_selection:
        scores, weights, means = leave_one_out.loo_scores(exponents, largest, n_nu, settings)
        # Where λ is too small for float64 a score may be no number, which must not be the best one.
        best = scores.flatten(1).nan_to_num(nan=math.inf).argmin(1)
    else:
        scores = exponents.new_full((draws, n_sigmas, n_lambdas), math.nan)
        weights, means = exponents.new_full((draws, 1, exponents.shape[2]), math.nan), scores[:, :, 0].clone()
        best = torch.zeros(draws, dtype=torch.int64, device=device)
    sigma, lambda_ = sigmas[best // n_lambdas], lambdas[best % n_lambdas]

    at = torch.arange(draws, device=device), best // n_lambdas
    theta, mean = weights[at], means[at]
    open_ = mean.isnan()
    if open_.any():
        theta[open_], mean[open_] = _solved(exponents[open_], sigma[open_], lambda_[open_], n_nu)
    return {"mean_ratio_": mean, "sigma_": sigma, "lambda_": lambda_, "theta_": theta, "loocv_scores_": scores}


def _solved(
    exponents: torch.Tensor, sigma: torch.Tensor, lambda_: torch.Tensor, n_nu: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return θ (C, b) with σ and λ (C,), and the mean ratio over the numerator (C,)."""
    phi = kernel_values(exponents, sigma[:, None, None], out=exponents)
    h = phi[:, :n_nu].mean(1)
    gram = gram_matrix(phi[:, n_nu:])
    gram.diagonal(dim1=1, dim2=2).add_(lambda_[:, None])
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        raise ValueError(
            f"lambdas must be large enough for float64, but {float(lambda_[failed != 0].min())} "
            "leaves Ĥ + λI singular to rounding"
        )
    theta = torch.cholesky_solve(h[..., None], factor)[..., 0].clamp_(min=0)
    return theta, (h * theta).sum(1)
