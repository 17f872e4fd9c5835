"""Leave-one-out scores of the whole grid, in closed form (derived at the top of the package)."""

import math

import torch

from advlib.ulsif.kernels import SMALLEST_EXPONENT, gram_matrix, kernel_values
from advlib.ulsif.settings import Settings


def loo_scores(exponents: torch.Tensor, largest: torch.Tensor, n_nu: int, settings: Settings) -> torch.Tensor:
    """Leave-one-out error (C, n_sigmas, n_lambdas) of the whole grid, from what `draw_exponents` returns."""
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
        alive = [t for t in range(draws) if max(largest_nu[t], largest_de[t]) / sigma**2 > SMALLEST_EXPONENT]
        if not alive:
            continue
        phi = kernel_values(exponents if len(alive) == draws else exponents[alive], sigma, out=buffer[: len(alive)])
        delta = torch.linalg.vector_norm(phi[:, n_nu:], dim=(1, 2)).square_() / (n_de * smallest)
        terms = 1 * (delta > eps / 4) + (delta > math.sqrt(eps / 4))
        for needed, score in enumerate((scores_diagonal, scores_two_terms, scores_full)):
            members = (terms == needed).nonzero()[:, 0].tolist()
            if members:
                part = phi if len(members) == len(alive) else phi[members]
                scores[[alive[i] for i in members], k] = score(part[:, :n_nu], part[:, n_nu:], lambdas)
    return scores


def _pairs(phi_nu: torch.Tensor, phi_de: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kernel values of the pairs left out in turn, denominator and numerator, and the others' sums z; all (C, n, b)."""
    n = min(phi_nu.shape[1], phi_de.shape[1])
    return phi_de[:, :n], phi_nu[:, :n], phi_nu.sum(1, keepdim=True) - phi_nu[:, :n]


def scores_full(phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor) -> torch.Tensor:
    """Score (C, L) of all λ for one σ, from kernel values (C, n_nu, b) and (C, n_de, b)."""
    n_nu, n_de = phi_nu.shape[1], phi_de.shape[1]
    x, x_nu, z = _pairs(phi_nu, phi_de)
    eigenvalues, vectors = torch.linalg.eigh(gram_matrix(phi_de))
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
        mean_nu.append(torch.mul(weights, x_nu, out=left_out).sum((1, 2)) / x.shape[1])
        ratio_de.append(weights.mul_(x).sum(2))
    scale = (n_de - 1) / (n_de * (n_nu - 1))
    quadratic = torch.stack(ratio_de, 1).square_().mean(2) / 2
    return scale**2 * quadratic - scale * torch.stack(mean_nu, 1)


def scores_two_terms(phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor) -> torch.Tensor:
    """`scores_full` where B⁻¹ = (I − Ĥ/(cλ)) / (cλ) to machine precision: no matrix is factorised."""
    n_nu, n_de = phi_nu.shape[1], phi_de.shape[1]
    x, x_nu, z = _pairs(phi_nu, phi_de)
    gram = gram_matrix(phi_de)
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


def scores_diagonal(phi_nu: torch.Tensor, phi_de: torch.Tensor, lambdas: torch.Tensor) -> torch.Tensor:
    """`scores_full` where B = cλ I to machine precision: the left-out θ is z_i / (λ (n_nu − 1))."""
    x, x_nu, z = _pairs(phi_nu, phi_de)
    theta = z.clamp_(min=0).div_(phi_nu.shape[1] - 1)
    quadratic = torch.linalg.vecdot(x, theta).square_().mean(1) / 2
    linear = torch.linalg.vecdot(x_nu, theta).mean(1)
    return quadratic[:, None] / lambdas**2 - linear[:, None] / lambdas
