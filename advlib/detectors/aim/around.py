"""What a network says around an image: its answers under harmless changes, and the pull of each scale on its answer.

An image that was pushed over a decision boundary is held there by a few directions. Blur, a shift by a pixel, a mirror
or a little noise turn these aside, and the answer falls back; an image that was merely disturbed keeps its answer, or
had an unsure one to begin with [1]_ [2]_. And what was added along the gradient of the answer still lies along it.

Everything here is differentiable, so that an attacker who knows the detector can be played in earnest [3]_.

References
----------
.. [1] W. Xu, D. Evans and Y. Qi, "Feature squeezing", NDSS 2018, arXiv:1704.01155.
.. [2] K. Roth, Y. Kilcher and T. Hofmann, "The odds are odd", ICML 2019, arXiv:1902.04818.
.. [3] N. Carlini and D. Wagner, "Adversarial examples are not easily detected", AISec 2017, arXiv:1705.07263.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from advlib.detectors.aim import changes

TOP = 5
"""Logits, in falling order, that are looked at."""

BANDS = 4
"""Scales of the image whose pull on the answer is measured."""

_LEAST = 1e-4  # below it a change of probabilities is no change


def _constant(images: torch.Tensor, value: float) -> torch.Tensor:
    return torch.full((len(images),), value, device=images.device)


def _blur(sigma: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: changes.blurred(images, _constant(images, sigma))


def _median(images: torch.Tensor) -> torch.Tensor:
    n, c, h, w = images.shape
    around = functional.unfold(functional.pad(images, (1,) * 4, mode="replicate"), 3)
    return around.reshape(n, c, 9, h * w).median(dim=2).values.reshape(n, c, h, w)


def _shift(dx: int, dy: int) -> Callable[[torch.Tensor], torch.Tensor]:
    pad = max(abs(dx), abs(dy))

    def moved(images: torch.Tensor) -> torch.Tensor:
        h, w = images.shape[2:]
        padded = functional.pad(images, (pad,) * 4, mode="replicate")
        return padded[..., pad + dy : pad + dy + h, pad + dx : pad + dx + w]

    return moved


def _turn(degrees: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda images: changes.turned(images, _constant(images, degrees))


def _noise(size: float, seed: int, sign: int = 1) -> Callable[[torch.Tensor], torch.Tensor]:
    def noisy(images: torch.Tensor) -> torch.Tensor:
        pattern = np.random.default_rng(seed).standard_normal(images.shape[1:], dtype=np.float32)
        return (images + sign * size * torch.from_numpy(pattern).to(images.device)).clamp(0, 1)

    return noisy


def _jpeg(images: torch.Tensor) -> torch.Tensor:
    return changes.jpeg(images, _constant(images, 1.0), gradient=True).clamp(0, 1)


def _bits(images: torch.Tensor) -> torch.Tensor:
    return images + ((images * 7).round() / 7 - images).detach()


HARMLESS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "blur 0.7": _blur(0.7),
    "blur 1.4": _blur(1.4),
    "median": _median,
    "left": _shift(1, 0),
    "right": _shift(-1, 0),
    "up": _shift(0, 1),
    "down": _shift(0, -1),
    "2 down right": _shift(-2, -2),
    "turn left": _turn(8.0),
    "turn right": _turn(-8.0),
    "noise 0.03": _noise(0.03, 0),
    "noise -0.03": _noise(0.03, 0, -1),
    "noise 0.1": _noise(0.1, 1),
    "JPEG": _jpeg,
    "3 bits": _bits,
    "mirror": lambda images: images.flip(3),
}
"""Changes that leave the label as it is; the mirror only where the network does not mind it."""


def look(
    model: nn.Module,
    images: torch.Tensor,
    *,
    mirror: bool,
    second: nn.Module | None = None,
    differentiable: bool = False,
) -> torch.Tensor:
    """Describe what the network does around each image.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images in [0, 1] → (n, classes) logits, on the device of `images`, in evaluation mode.
    images : (n, c, h, w) float32 tensor
    mirror : bool
        Whether the mirror image counts among the harmless changes.
    second : nn.Module, optional
        Another network for the same classes.
    differentiable : bool
        Keep the graph, for an attacker.

    Returns
    -------
    (n, f) float32 tensor
        See `names`.
    """
    with torch.enable_grad():
        images = images if differentiable else images.detach()
        x = images if images.requires_grad else images.clone().requires_grad_()
        logits = model(x)
        answer = logits.detach().argmax(1)
        margin = _margin(logits, answer)
        (gradient,) = torch.autograd.grad(margin.sum(), x, create_graph=differentiable, retain_graph=differentiable)
    with torch.set_grad_enabled(differentiable):
        probabilities = logits.softmax(1)
        columns = [*logits.topk(min(TOP, logits.shape[1]), dim=1).values.T, logits.mean(1), margin]
        columns += _pull(x, gradient, margin)
        columns += _under_changes(model, x, probabilities, answer, margin, mirror)
        if second is not None:
            other = second(x)
            columns += [_margin(other, answer), _moved(other.softmax(1), probabilities), other.softmax(1).amax(1)]
        found = torch.stack(columns, dim=1)
    return found if differentiable else found.detach()


def names(classes: int, mirror: bool, second: bool) -> list[str]:
    """Return the names of the columns of `look`."""
    each = [name for name in HARMLESS if mirror or name != "mirror"]
    return [
        *(f"logit {k + 1}" for k in range(min(TOP, classes))), "mean logit", "margin",
        *(f"{what} of band {b}" for b in range(BANDS) for what in ("pull", "angle")),
        "steepness", "distance",
        *(f"{what} under {name}" for name in each for what in ("margin", "move")),
        "mean margin", "least margin", "agreement", "runner-up", "entropy",
        *(["margin of the second", "difference to the second", "sureness of the second"] if second else []),
    ]  # fmt: skip


def _margin(logits: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    own = logits.gather(1, answer[:, None])[:, 0]
    return own - logits.scatter(1, answer[:, None], -math.inf).logsumexp(1)


def _moved(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    return torch.log10(_LEAST + (after - before).abs().sum(1) / 2)


def _pull(x: torch.Tensor, gradient: torch.Tensor, margin: torch.Tensor) -> list[torch.Tensor]:
    """How much each band of the image adds to the answer's margin, to first order, and at what angle it lies."""
    columns, finer = [], x
    steepness = gradient.flatten(1).norm(dim=1).clamp_min(1e-9)
    for band in range(BANDS):
        coarser = changes.blurred(x, _constant(x, 0.7 * 2**band)) if band < BANDS - 1 else x.mean((2, 3), keepdim=True)
        part, finer = finer - coarser, coarser
        pull = (part * gradient).flatten(1).sum(1)
        size = part.flatten(1).square().sum(1).add(1e-9).sqrt()
        columns += [pull, pull / (size * steepness)]
    return [*columns, steepness.log10(), (1e-3 + margin.abs() / steepness).log10()]


def _under_changes(
    model: nn.Module,
    x: torch.Tensor,
    probabilities: torch.Tensor,
    answer: torch.Tensor,
    margin: torch.Tensor,
    mirror: bool,
) -> list[torch.Tensor]:
    columns, margins, together = [], [], probabilities
    used = [change for name, change in HARMLESS.items() if mirror or name != "mirror"]
    for change in used:
        logits = model(change(x))
        after = logits.softmax(1)
        margins.append(_margin(logits, answer))
        columns += [margins[-1] - margin, _moved(after, probabilities)]
        together = together + after
    together = together / (1 + len(used))
    stacked = torch.stack(margins)
    own = together.gather(1, answer[:, None])[:, 0]
    rest = together.scatter(1, answer[:, None], 0.0)
    entropy = -(together * (together + 1e-6).log()).sum(1)
    return [*columns, stacked.mean(0), stacked.amin(0), own, rest.amax(1), entropy]
