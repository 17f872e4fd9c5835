"""Projected gradient descent against a classifier and the density-ratio test at once (an adaptive attack).

The mean uLSIF ratio has a gradient: with σ, λ and centres given it is ĥ·θ with θ = max(0, (Ĥ(y) + λI)⁻¹ĥ), and the
suspect images y enter through Ĥ alone (`differentiable_mean_ratio`). A detector is worth what it is worth against an
attacker who uses that.

References
----------
N. Carlini, D. Wagner, "Adversarial examples are not easily detected: bypassing ten detection methods", AISec 2017,
arXiv:1705.07263.
A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018, arXiv:1706.06083.
T. Kanamori, S. Hido, M. Sugiyama, JMLR 10 (2009) 1391–1445, section 3, for uLSIF.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from advlib.attacks.base import AdversarialBatch, Case, Clip, checked_size
from advlib.checks import ArrayLike, one_of, plain_tensor, whole_number
from advlib.models import frozen
from advlib.progress import track
from advlib.ulsif import KERNELS, GridEdgeWarning, fit_batch

# ‖x‖² + ‖y‖² − 2xᵀy loses digits where ‖x − y‖² is this small against ‖x‖² + ‖y‖²; such pairs are subtracted first.
_NEAR = 1e-4
# Images whose classification gradient is computed at once; bounds the memory.
_FORWARD_IMAGES = 500


def pgd_against_density_ratio(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    tolerance: float,
    weight: float = 1.0,
    epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    steps: int = 40,
    step: float | None = None,
    confidence: float = 1.0,
    references: ArrayLike | None = None,
    batch_size: int = 100,
    rng: np.random.Generator,
    **estimator: Any,
) -> AdversarialBatch:
    """Descend on mean max(0, z_label − largest other z + κ) + w/2 · max(0, |mean R1 − mean R2| − τ)² over all images.

    z are the logits, R1 and R2 the density ratios of clean against attacked and against clean batches. The first term
    is silent once an image is misread by a margin of κ, and from there on the image moves for the detector alone;
    cross-entropy would push on forever. Steps shrink to 0 and go along the gradient, not its sign: kernels see L2
    distances, and a sign makes every pixel pay for the few that matter.

    Parameters
    ----------
    model, images, labels, clip
        As for `attacks.fgsm`.
    tolerance, weight, confidence : float
        τ, w and κ (in logits), at least 0. w = 0 leaves the detector aside; with w = 1 a step removes the excess over τ
        to first order, and no image moves further for it than for the first term.
    epsilon : float
        L∞ bound of the change, above 0, pixels in [0, 1].
    steps, step : int, float
        Number of steps; L2 length of an image's first, ε · √d / 10 by default, d = c · h · w.
    references : (k, c, h, w) float array or tensor, optional
        Clean images that the detector's numerators are drawn from, k ≥ batch_size; `images` by default.
    batch_size : int
        Images in each batch that the detector sees.
    rng : numpy.random.Generator
        Deals new batches at each step; uLSIF chooses σ and λ for each as the detector would.
    **estimator
        For `advlib.ulsif.fit_batch`: kernel, sigmas, lambdas, n_kernels.
    """
    _check_sizes({"tolerance": tolerance, "weight": weight, "confidence": confidence}, epsilon, steps, step)
    case = Case(model, images, labels, clip, _FORWARD_IMAGES)
    with frozen(model) as device:
        drawn_from = case.clean if references is None else plain_tensor(references, "references").float()
        detector = _Detector(drawn_from.to(device), case.clean.to(device), tolerance, batch_size, rng, estimator)
        step = epsilon * math.sqrt(case.clean[0].numel()) / 10 if step is None else step
        moved = _descend(model, case.labels.to(device), detector, weight, epsilon, clip, steps, step, confidence)
    return next(case.measured([moved.cpu()]))


def _check_sizes(at_least_zero: dict[str, float], epsilon: float, steps: int, step: float | None) -> None:
    for name, value in at_least_zero.items():
        checked_size(value, name)
    for name, value in {"epsilon": epsilon, "step": 1.0 if step is None else step}.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number above 0, but is {value}")
    whole_number(steps, "steps", 1)


def _descend(
    model: nn.Module,
    labels: torch.Tensor,
    detector: "_Detector",
    weight: float,
    epsilon: float,
    clip: Clip,
    steps: int,
    step: float,
    confidence: float,
) -> torch.Tensor:
    clean = moved = detector.clean
    for k in track(range(steps), f"PGD, weight {weight:.3g}"):
        size = step * (1 - k / steps)
        change = size * _unit(_margin_gradient(model, moved, labels, confidence))
        if weight > 0:
            excess, slope = detector.excess(moved)
            # To first order a step of excess / ‖slope‖² along the slope removes the excess.
            repair = weight * excess * slope / slope.square().sum().clamp_min(torch.finfo(slope.dtype).tiny)
            length = torch.linalg.vector_norm(repair, dim=(1, 2, 3), keepdim=True)
            change = change + repair * (size / length.clamp_min(size))
        moved = clean + (moved - change - clean).clamp(-epsilon, epsilon)
        if clip is not None:
            moved = moved.clamp(*clip)
    return moved


def _margin_gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, confidence: float) -> torch.Tensor:
    """Gradient of each image's own max(0, z_label − largest other z + κ), (n, c, h, w)."""
    gradients = []
    for part, label in zip(images.split(_FORWARD_IMAGES), labels.split(_FORWARD_IMAGES), strict=True):
        part = part.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(part)
            own = logits.gather(1, label[:, None])[:, 0]
            other = logits.scatter(1, label[:, None], -math.inf).amax(1)
            loss = (own - other + confidence).clamp(min=0).sum()
        gradients.append(torch.autograd.grad(loss, part)[0])
    return torch.cat(gradients)


def _unit(gradient: torch.Tensor) -> torch.Tensor:
    """Scale each image's gradient to length 1; an image without any stays without."""
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    return gradient / length.clamp_min(torch.finfo(length.dtype).tiny)


@dataclass(frozen=True, eq=False)
class _Detector:
    """The density-ratio test as the attacker sees it."""

    references: torch.Tensor
    clean: torch.Tensor
    tolerance: float
    batch_size: int
    rng: np.random.Generator
    estimator: dict[str, Any]

    def __post_init__(self) -> None:
        if self.references.shape[1:] != self.clean.shape[1:] or len(self.references) < self.batch_size:
            raise ValueError(
                f"references must hold at least batch_size={self.batch_size} images of shape "
                f"{tuple(self.clean.shape[1:])}, but has shape {tuple(self.references.shape)}"
            )

    def excess(self, moved: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return max(0, |mean R1 − mean R2| − τ) on new draws and its gradient, (n, c, h, w); 0 for images left out."""
        n, size = len(self.clean), self.batch_size
        suspects = self.rng.permutation(n)[: n // size * size].reshape(-1, size)
        drawn = np.stack([self.rng.choice(len(self.references), size, replace=False) for _ in suspects])
        settings = {"random_state": int(self.rng.integers(2**31))} | self.estimator
        difference, slope = difference_gradient(self.references[drawn], self.clean[suspects], moved[suspects], settings)
        gradient = torch.zeros_like(self.clean)
        gradient[suspects.ravel()] = math.copysign(1.0, difference) * slope.flatten(0, 1)
        return max(0.0, abs(difference) - self.tolerance), gradient


def difference_gradient(
    numerators: torch.Tensor, clean: torch.Tensor, suspects: torch.Tensor, estimator: dict[str, Any]
) -> tuple[float, torch.Tensor]:
    """Return mean R1 − mean R2 over B batches (B, m, c, h, w) and its gradient with respect to the suspects.

    R1 compares numerators with suspects, R2 with clean images; channels are samples of their own, and averaged.
    """

    def samples(batches: torch.Tensor) -> torch.Tensor:
        return batches.transpose(1, 2).flatten(0, 1).flatten(2).double()  # (B · c, m, h · w)

    above = samples(numerators)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        chosen = fit_batch(above, samples(suspects), **estimator)
        r2 = fit_batch(above, samples(clean), **estimator).mean_ratio_
    suspects = suspects.detach().requires_grad_()
    with torch.enable_grad():
        kernel, centers = estimator.get("kernel", "gaussian"), chosen.center_indices_.to(above.device)
        r1 = differentiable_mean_ratio(
            above, samples(suspects), chosen.sigma_, chosen.lambda_, kernel, centers
        ).mean()  # fmt: skip
    return float(r1.detach() - r2.mean()), torch.autograd.grad(r1, suspects)[0]


def differentiable_mean_ratio(
    numerator: torch.Tensor,
    denominator: torch.Tensor,
    sigma: float | torch.Tensor,
    lambda_: float | torch.Tensor,
    kernel: str = "gaussian",
    center_indices: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean uLSIF ratio over the numerator at given σ and λ, with its gradient.

    Parameters
    ----------
    numerator : (..., n, d) tensor
        Sample above the line; its rows are the kernel centres.
    denominator : (..., m, d) tensor
        Sample below the line.
    sigma, lambda_ : float or (...) tensor
        Kernel width and regularisation, positive; in a search, those that `ULSIF` chose.
    kernel : {"gaussian", "unsquared"}
        As in `advlib.ulsif`.
    center_indices : (b,) integer tensor, optional
        Rows of the numerator that are centres, all by default.

    Returns
    -------
    (...) float64 tensor
        Equal to `ULSIF.mean_ratio_` at these values. Differentiable in both samples wherever no weight θ sits exactly
        on the edge of its cut at 0; there, and where unsquared kernel points coincide, a one-sided slope is taken as 0.

    Raises
    ------
    ValueError
        For an unknown kernel.
    """
    one_of(kernel, "kernel", KERNELS)
    numerator, denominator = numerator.double(), denominator.double()
    sigma = torch.as_tensor(sigma, dtype=torch.float64, device=numerator.device)
    lambda_ = torch.as_tensor(lambda_, dtype=torch.float64, device=numerator.device)
    centers = numerator if center_indices is None else numerator[..., center_indices, :]
    h = _kernel(numerator, centers, sigma, kernel).mean(-2)
    phi = _kernel(denominator, centers, sigma, kernel)
    identity = torch.eye(phi.shape[-1], dtype=torch.float64, device=phi.device)
    gram = phi.mT @ phi / phi.shape[-2] + lambda_[..., None, None] * identity
    theta = torch.cholesky_solve(h[..., None], torch.linalg.cholesky(gram))[..., 0].clamp(min=0)
    return (h * theta).sum(-1)


def _kernel(points: torch.Tensor, centers: torch.Tensor, sigma: torch.Tensor, kernel: str) -> torch.Tensor:
    scale = points.square().sum(-1)[..., :, None] + centers.square().sum(-1)[..., None, :]
    squared = scale - 2 * points @ centers.mT
    near = (squared.detach() < _NEAR * scale.detach()).nonzero(as_tuple=True)
    *draw, point, center = near
    differences = points[(*draw, point)] - centers[(*draw, center)]
    squared = squared.index_put(near, differences.square().sum(-1))
    if kernel == "gaussian":
        distance = squared
    else:
        apart = squared > 0  # the square root has no slope at 0, and 0 · ∞ would turn the gradient into NaN
        distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    return torch.exp(-distance / (2 * sigma[..., None, None] ** 2))
