"""Attacks that an aim detector is taught with: short, of many kinds, on the network it is to watch.

What is learned here only shapes the statistic. Its p-value comes from changes without an aim alone, and holds however
well or badly these attacks stand for others.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from advlib.detectors.aim import around, changes

Model = Callable[[torch.Tensor], torch.Tensor]

STEPS = 16

SIZES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.3)
"""Bounds of the attacks, drawn for each image. One that is not turned is attacked once more, with the largest."""


def rehearse(
    model: nn.Module, images: torch.Tensor, rng: np.random.Generator, *, mirror: bool
) -> dict[str, torch.Tensor]:
    """Attack images by every kind of `KINDS` and return those that were turned, rounded to 8 bits.

    Parameters
    ----------
    model : nn.Module
        As for `around.look`.
    images : (n, c, h, w) float32 tensor
    rng : numpy.random.Generator
        Sizes, targets and starts.
    mirror : bool
        As for `around.look`.

    Returns
    -------
    dict
        Kind → (k, c, h, w) tensor, k ≤ n, of the first attack or the second.
    """
    with torch.no_grad():
        labels = torch.cat([model(part).argmax(1) for part in images.split(500)])
    found = {}
    for kind, attack in KINDS.items():
        moved = []
        for part, own in zip(images.split(500), labels.split(500), strict=True):
            for sizes in (SIZES, (max(SIZES),)):
                drawn = torch.from_numpy(rng.choice(sizes, len(part)).astype(np.float32))
                bounds = drawn.to(part.device)[:, None, None, None]
                attacked = changes.rounded(attack(model, part, own, bounds, rng, mirror))
                with torch.no_grad():
                    turned = model(attacked).argmax(1) != own
                moved.append(attacked[turned])
                part, own = part[~turned], own[~turned]
                if not len(part):
                    break
        found[kind] = torch.cat(moved)
    return found


def ascend(
    loss: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    epsilon: torch.Tensor,
    *,
    steps: int = STEPS,
    smooth: int = 0,
    euclidean: bool = False,
    rng: np.random.Generator | None = None,
    stop: Callable[[torch.Tensor], torch.Tensor] | None = None,
    step: float | Callable[[int], float] | None = None,
    momentum: float = 0.0,
) -> torch.Tensor:
    """Raise a loss of the image within ε, by signed or Euclidean steps, in pixels or on a coarse grid.

    Parameters
    ----------
    loss : callable
        (n, c, h, w) → (n,).
    images : (n, c, h, w) tensor
    epsilon : (n, 1, 1, 1) tensor
        L∞ bound, or with `euclidean` the root mean square.
    steps : int
    smooth : int
        Knots a side of the grid on which the change lives, interpolated bilinearly; 0: every pixel is free.
    euclidean : bool
    rng : numpy.random.Generator, optional
        Draws a start within ε.
    stop : callable, optional
        (n, c, h, w) → (n,) bool: images that need not go on.
    step : float or callable, optional
        Share of ε of one step, or of step k from 0; 2.5 / steps by default.
    momentum : float
        Of the gradient's mean over the steps (Dong et al. 2018, arXiv:1710.06081).
    """
    shape = (*images.shape[:2], smooth, smooth) if smooth else tuple(images.shape)

    def spread(change: torch.Tensor) -> torch.Tensor:
        if not smooth:
            return change
        return functional.interpolate(change, images.shape[2:], mode="bilinear", align_corners=True)

    start = torch.zeros(shape) if rng is None else torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32)) / 2
    change = start.to(images.device) * epsilon
    memory = torch.zeros_like(change)
    done = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for k in range(steps):
        change.requires_grad_()
        with torch.enable_grad():
            moved = (images + spread(change)).clamp(0, 1)
            (slope,) = torch.autograd.grad(loss(moved).sum(), change)
        if stop is not None:
            done |= stop(moved.detach())
        if momentum:
            memory = momentum * memory + slope / slope.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            slope = memory
        length = epsilon * (step(k) if callable(step) else 2.5 / steps if step is None else step)
        further = _stepped(change.detach(), slope, length, epsilon, euclidean)
        change = torch.where(done[:, None, None, None], change.detach(), further)
    return (images + spread(change)).clamp(0, 1)


def _stepped(
    change: torch.Tensor, slope: torch.Tensor, length: torch.Tensor, epsilon: torch.Tensor, euclidean: bool
) -> torch.Tensor:
    """Go a step of a length along the slope, or its sign, and back into the ball of radius ε."""
    if not euclidean:
        return torch.minimum(torch.maximum(change + length * slope.sign(), -epsilon), epsilon)
    slope = slope / slope.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    further = change + length * slope
    size = further.square().mean((1, 2, 3), keepdim=True).sqrt()
    return further * (epsilon / size.clamp_min(1e-12)).clamp(max=1)


def _error(model: Model, labels: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: functional.cross_entropy(model(x), labels, reduction="none")


def against(model: Model, labels: torch.Tensor, confidence: float = 0.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the loss −max(z_label − largest other z, −κ): no further than a margin of κ."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        logits = model(x)
        own = logits.gather(1, labels[:, None])[:, 0]
        return -(own - logits.scatter(1, labels[:, None], -math.inf).amax(1)).clamp(min=-confidence)

    return loss


def through_changes(model: Model, rng: np.random.Generator, mirror: bool, draws: int = 3) -> Model:
    """Return the model's mean logits under a few harmless changes drawn at each call: an attacker who expects them."""
    known = [change for name, change in around.HARMLESS.items() if mirror or name != "mirror"]

    def mean(x: torch.Tensor) -> torch.Tensor:
        chosen = rng.choice(len(known), draws, replace=False)
        return torch.stack([model(x), *(model(known[int(k)](x)) for k in chosen)]).mean(0)

    return mean


def _pgd(model, images, labels, epsilon, rng, mirror):
    return ascend(_error(model, labels), images, epsilon, rng=rng)


def _fgsm(model, images, labels, epsilon, rng, mirror):
    return ascend(_error(model, labels), images, epsilon, steps=1, step=1.0)


def _momentum(model, images, labels, epsilon, rng, mirror):
    return ascend(_error(model, labels), images, epsilon, rng=rng, momentum=1.0, steps=24, step=0.25)


def _falling(model, images, labels, epsilon, rng, mirror):
    """Attack by steps that fall from twice the bound, where Auto-PGD begins: the answer at the end is a firm one."""
    return ascend(_error(model, labels), images, epsilon, rng=rng, steps=30, step=lambda k: 2 * 0.5 ** (k // 6))


def _targeted(model, images, labels, epsilon, rng, mirror):
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    other = torch.from_numpy(rng.integers(1, classes, len(images))).to(labels.device)
    error = _error(model, (labels + other) % classes)
    return ascend(lambda x: -error(x), images, epsilon)


def _smooth(model, images, labels, epsilon, rng, mirror):
    knots = int(rng.choice([4, 7, 10]))
    return ascend(_error(model, labels), images, epsilon, smooth=knots, rng=rng)


def _smooth_barely(model, images, labels, epsilon, rng, mirror):
    knots, kept = int(rng.choice([4, 7, 10])), float(rng.choice([1.0, 4.0]))
    loss = against(model, labels, kept)
    return ascend(loss, images, epsilon, smooth=knots, stop=lambda x: loss(x) >= kept)


def _barely(model, images, labels, epsilon, rng, mirror):
    kept = float(rng.choice([0.1, 0.5, 2.0, 5.0]))
    loss = against(model, labels, kept)
    return ascend(loss, images, epsilon, euclidean=True, stop=lambda x: loss(x) >= kept, step=0.1, steps=30)


def _expecting(model, images, labels, epsilon, rng, mirror):
    return ascend(_error(through_changes(model, rng, mirror), labels), images, epsilon)


KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "PGD": _pgd,
    "FGSM": _fgsm,
    "momentum": _momentum,
    "PGD, falling steps": _falling,
    "targeted PGD": _targeted,
    "smooth PGD": _smooth,
    "smooth, as far as it takes": _smooth_barely,
    "as far as it takes": _barely,
    "PGD that expects harmless changes": _expecting,
}
"""Attacks to learn from, by name."""
