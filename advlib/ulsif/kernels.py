"""Distances to the kernel centres and the kernels' values, each distance computed once for every σ."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

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
# Entries of a matrix up to which NumPy's BLAS, with one thread, computes it.
_SMALL = 2**16


def draw_exponents(
    numerators: torch.Tensor, denominators: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return e (C, n + m, b) with kernel = exp(e / σ²) for both samples, numerator first, and its largest values.

    The second tensor (2, C) holds the largest e among numerator points, each centre's own left out, and among
    denominator points.
    """
    draws, n_nu, n_features = numerators.shape
    n_samples = n_nu + denominators.shape[1]
    device = numerators.device
    own = settings.center_indices.to(device)
    columns = torch.arange(len(own), device=device)
    exponents = torch.empty(draws, n_samples, len(own), dtype=torch.float64, device=device)
    # One draw's samples stay in a core's cache between the passes over them; a GPU wants all at once.
    step = 1 if device.type == "cpu" else draws
    samples = torch.empty(step, n_samples, n_features, dtype=torch.float64, device=device)
    repeated = draws > 1 and numerators.stride(0) == 0
    for start in range(0, draws, step):
        part = slice(start, start + step)
        samples[:, n_nu:] = denominators[part]
        if start == 0 or not repeated:
            # Distances do not change under a shift; each draw's own first row keeps the norms near the distances' size.
            samples[:, :n_nu] = numerators[part]
            origin = samples[:, :1].clone()
            samples -= origin
            centers = samples[:, :n_nu] if len(own) == n_nu else samples[:, own]
            squared_distances(samples, centers, out=exponents[part])
        else:  # the same numerator again: its half is there, in `samples` and in `exponents`
            samples[:, n_nu:] -= origin
            squared_distances(samples[:, n_nu:], centers, out=exponents[part, n_nu:])
            exponents[part, :n_nu] = exponents[:1, :n_nu]
    # A centre is at infinity from itself, which keeps it out of the maxima, until its distance becomes exactly 0.
    exponents[:, own, columns] = math.inf
    to_exponents(exponents, settings.kernel)
    largest = torch.stack([exponents[:, :n_nu].amax((1, 2)), exponents[:, n_nu:].amax((1, 2))])
    exponents[:, own, columns] = 0.0
    return exponents, largest


def squared_distances(points: torch.Tensor, centers: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Squared distances (C, p, b) of `points` (C, p, d) to `centers` (C, b, d), which may be the first points."""
    n_centers = centers.shape[1]
    if out is None:
        out = points.new_empty(*points.shape[:2], n_centers)
    if points.shape[2] <= _FEW_FEATURES:
        return torch.square(torch.cdist(points, centers, compute_mode="donot_use_mm_for_euclid_dist"), out=out)
    norms = row_dots(points, points)
    same = n_centers if centers.data_ptr() == points.data_ptr() else 0
    center_norms = norms[:, :same] if same else row_dots(centers, centers)
    if same:
        # BLAS computes one half where both factors are the same matrix.
        product(centers, centers.mT, out=out[:, :same])
    product(points[:, same:], centers.mT, out=out[:, same:])
    torch.add(norms[:, :, None], out, alpha=-2, out=out).add_(center_norms[:, None, :])
    if same:
        out[:, :same].diagonal(dim1=1, dim2=2).fill_(math.inf)
    if out.amin() < _NEAR * (norms.amax() + center_norms.amax()):
        near = out < _NEAR * (norms[:, :, None] + center_norms[:, None, :])
        for pairs in near.nonzero().split(max(1, CHUNK_BYTES // (8 * points.shape[2]))):
            draw, point, center = pairs.unbind(1)
            out[draw, point, center] = (points[draw, point] - centers[draw, center]).square_().sum(1)
    if same:
        out[:, :same].diagonal(dim1=1, dim2=2).fill_(0.0)
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
    return product(phi_de.mT, phi_de).div_(phi_de.shape[1])


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold NumPy's BLAS to one thread: on matrices of 100 × 100 the wait for a second one costs more than it does."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    # Looking for the libraries that are loaded takes milliseconds.
    return ThreadpoolController()


def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the matrix products (C, i, k) of (C, i, j) and (C, j, k), float64.

    Small ones on a CPU by NumPy's BLAS: for matrices of 100 × 100 it takes two thirds of the time of torch's on an AMD
    EPYC, and computes half of the product of a matrix with its own transpose.
    """
    if a.device.type != "cpu" or a.shape[1] * b.shape[2] > _SMALL:
        return torch.bmm(a, b, out=out)
    found = np.matmul(a.numpy(), b.numpy(), out=None if out is None else out.numpy())
    return torch.from_numpy(found) if out is None else out


def row_dots(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the inner products (C, n) of rows of (C, n, b), on a CPU without an array of all products."""
    return torch.linalg.vecdot(a, b) if a.device.type != "cpu" else torch.from_numpy(np.vecdot(a.numpy(), b.numpy()))
