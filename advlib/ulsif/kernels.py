"""Distances to the kernel centres and the kernels' values, each distance computed once for every σ."""

import math

import torch

from advlib.ulsif.settings import Settings

# Below exp(-175) ≈ 1e-76 a kernel value counts as 0. Products of four such values would be subnormal numbers, which
# cost a processor tens of times the time of others; a score's unit is 1, so nothing else is lost.
SMALLEST_EXPONENT = -175.0
_SMALLEST_KERNEL = math.exp(SMALLEST_EXPONENT) * (1 + 1e-12)
# ‖x‖² + ‖y‖² − 2xᵀy loses digits where ‖x − y‖² is this small against ‖x‖² + ‖y‖²; such pairs are subtracted first.
_NEAR = 1e-4
# Up to this many features the differences themselves are as cheap as the matrix product.
_FEW_FEATURES = 16
# Working memory of one chunk in bytes: near a core's cache, yet worth the calls.
CHUNK_BYTES = 16 * 2**20


def draw_exponents(
    numerators: torch.Tensor, denominators: torch.Tensor, settings: Settings
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
        squared_distances(samples, centers, own, out=exponents[start : start + step])
    # A centre is at infinity from itself so far, which keeps it out of the maxima; now its distance is exactly 0.
    to_exponents(exponents, settings.kernel)
    largest = torch.stack([exponents[:, :n_nu].amax((1, 2)), exponents[:, n_nu:].amax((1, 2))])
    exponents.view(draws, -1).index_fill_(1, own, 0.0)
    return exponents, largest


def squared_distances(
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
    for pairs in near.nonzero().split(max(1, CHUNK_BYTES // (8 * points.shape[2]))):
        draw, point, center = pairs.unbind(1)
        out[draw, point, center] = (points[draw, point] - centers[draw, center]).square_().sum(1)
    return out


def to_exponents(squared: torch.Tensor, kernel: str) -> torch.Tensor:
    """Turn squared distances into −½ of the squared or plain distance, in place."""
    if kernel == "unsquared":
        squared.sqrt_()
    return squared.mul_(-0.5)


def kernel_values(
    exponents: torch.Tensor, sigma: torch.Tensor | float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Kernels exp(e / σ²) from what `draw_exponents` returns, in `out` if that is given."""
    scaled = torch.mul(exponents, 1 / sigma**2, out=out)
    # exp(-inf) leaves the vectorised path, hence the zeros come after.
    return torch.nn.functional.threshold_(scaled.clamp_(min=SMALLEST_EXPONENT).exp_(), _SMALLEST_KERNEL, 0.0)


def gram_matrix(phi_de: torch.Tensor) -> torch.Tensor:
    """Ĥ = Φ_deᵀ Φ_de / n_de, (C, b, b), of kernel values (C, n_de, b)."""
    return torch.bmm(phi_de.mT, phi_de).div_(phi_de.shape[1])
