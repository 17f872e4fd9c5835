"""Venkatesh & Steinbach 2022's experiments as functions: splits, the two modes, curves of density and coverage.

Two modes run everywhere. *As published* is what the authors' code does [1]_: images are normalised on load, then
attacked with bounds (0, 1) by a library that normalises them once more. *Corrected* attacks pixels in [0, 1] and lets
the network normalise. What the published program does is easiest seen in pixels. With x = (p − μ)/σ the bounds
0 ≤ x ≤ 1 are

    μ ≤ p ≤ μ + σ,

and a step ε is one of σε. foolbox clips its result to the bounds and then, in the images it returns second ("clipped"),
shortens every pixel's way to at most ε. So a pixel that starts outside the bounds, such as MNIST's whole background,
goes towards them by σε whatever the gradient says, until it reaches them at ε = μ/σ (0.42 for MNIST). Up to there most
of the "attack" is a loss of contrast. Every mode here takes pixels and gives pixels. With the same σ for all channels
x and p differ by a scale and a shift, which move queries and reference alike: density and coverage are the same
whether computed on x or on p, and one manifold, fitted to pixels, serves both modes. (Where the σ of colours differ it
serves them too, but then p weighs the channels otherwise than x does; `nb07_boundary_attack.rising_density` takes x.)

References
----------
.. [1] D. K. Venkatesh and P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022); code:
   github.com/danushv07/n2gem, state of 2022-03-21.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from advlib import attacks, models
from advlib.attacks import AdversarialBatch
from advlib.models import as_tensor, frozen
from compendium.common.curves import Curve, Score, density_coverage_curve, flat, score, sub_batches
from compendium.common.splits import (
    SETS,
    ImageSet,
    Split,
    image_set,
    image_sets,
    network,
    reference_and_holdout,
    references_for,
    with_network,
)

# Notebooks take what stands in these two modules from here as well.
__all__ = [
    "AS_PUBLISHED", "CORRECTED", "EPSILONS", "IMPERCEPTIBLE", "MODES", "SETS", "Curve", "ImageSet", "K",
    "Mode", "Score", "Split", "as_batch", "clipped_step", "density_coverage_curve", "fgsm_images", "fgsm_sweep", "flat",
    "image_set", "image_sets", "margin_signs", "network", "noise_sweep", "reference_and_holdout", "references_for",
    "score", "sub_batches", "with_network",
]  # fmt: skip

K = 5
"""Neighbours that set a ball's radius (VS22 §4)."""

EPSILONS = tuple(np.linspace(0, 1, 20).tolist())
"""FGSM sizes of the authors' code, in steps of 1/19; the text says steps of 0.05."""

IMPERCEPTIBLE = 8 / 255
"""L∞ size in pixels up to which a change of a natural image is commonly taken as imperceptible, the usual budget for
CIFAR-10 (Madry et al. 2018, arXiv:1706.06083). A convention, marked in the figures."""


@dataclass(frozen=True)
class Mode:
    """How images reach attack and network.

    Attributes
    ----------
    name : str
    normalised_twice : bool
        Whether images are normalised on load, and by the attacked network again.
    """

    name: str
    normalised_twice: bool

    def to_attack(self, image_set: ImageSet, images: np.ndarray) -> np.ndarray:
        """Turn pixels (n, c, h, w) into what the attack is given, with bounds (0, 1)."""
        if not self.normalised_twice:
            return images
        return (images - _channels(image_set.mean)) / _channels(image_set.std)

    def to_pixels(self, image_set: ImageSet, attacked: np.ndarray) -> np.ndarray:
        """Turn what the attack gives, (n, c, h, w), back into pixels."""
        if not self.normalised_twice:
            return attacked
        return attacked * _channels(image_set.std) + _channels(image_set.mean)

    def pixel_size(self, image_set: ImageSet, epsilon: float) -> float:
        """L∞ size in pixels of a step that the attack takes for ε, clipping apart; of colours the largest."""
        return epsilon * max(image_set.std) if self.normalised_twice else epsilon


def _channels(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


AS_PUBLISHED = Mode("as published", normalised_twice=True)
CORRECTED = Mode("corrected", normalised_twice=False)
MODES = (AS_PUBLISHED, CORRECTED)


def margin_signs(model: nn.Module, images: np.ndarray, labels: np.ndarray, *, batch_size: int = 500) -> np.ndarray:
    r"""Return FGSM's direction, the sign of the cross-entropy's gradient, also where the softmax is saturated.

    With logits z and :math:`u = \log \sum_{j \ne y} e^{z_j} - z_y` the cross-entropy is log(1 + eᵘ), which rises with
    u, so both gradients have the same sign in every pixel. The cross-entropy's own gradient carries the factor
    1 − softmax(z)_y, which float32 rounds to 0 for the true class once z_y leads by about 17: `attacks.gradient_signs`
    then follows the other classes alone, and beyond a lead of about 100 nothing at all.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits, at least two classes.
    images : (n, c, h, w) float32 array
        Anywhere.
    labels : (n,) int64 array
    batch_size : int
        Images at a time; bounds the memory.

    Returns
    -------
    (n, c, h, w) int8 array
        −1, 0 and 1.
    """
    signs = []
    truth = as_tensor(labels)
    with frozen(model) as device, torch.enable_grad():
        for part, target in zip(as_tensor(images).split(batch_size), truth.split(batch_size), strict=True):
            part = part.to(device, torch.float32).requires_grad_()
            logits, target = model(part), target.to(device)[:, None]
            others = logits.scatter(1, target, -torch.inf)
            lead = others.logsumexp(1) - logits.gather(1, target)[:, 0]
            (gradient,) = torch.autograd.grad(lead.sum(), part)
            signs.append(gradient.sign().to("cpu", torch.int8))
    return torch.cat(signs).numpy()


_AT_A_TIME = 50  # images: few fit into a CPU's cache and go twice as fast as hundreds


def fgsm_sweep(
    mode: Mode,
    image_set: ImageSet,
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    epsilons: Sequence[float] = EPSILONS,
) -> Iterator[AdversarialBatch]:
    """FGSM at several ε in one of the modes; pixels in, pixels out.

    *As published* takes the direction from the float32 cross-entropy, as foolbox does, at the unclipped normalised
    image, clips to (0, 1) and then each pixel's way to ε, which leaves the image alone at ε = 0. *Corrected* takes the
    direction from `margin_signs` and clips once: its images never were outside.

    Parameters
    ----------
    mode : Mode
    image_set : ImageSet
        For its normalisation.
    model : nn.Module
        The network, its own normalisation included.
    images : (n, c, h, w) float32 array
        Pixels in [0, 1].
    labels : (n,) int64 array
    epsilons : sequence of float
        L∞ sizes in the attack's own units: pixels when corrected, multiples of σ as published.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `epsilons`. Images and norms are in pixels of [0, 1]; predictions and accuracies are those of
        the network as the mode feeds it.

    Raises
    ------
    ValueError
        For an ε outside [0, 1] or images outside [0, 1].
    """
    for epsilon in epsilons:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilons must lie in [0, 1], but has {epsilon}")
    images = np.asarray(images, np.float32)
    if images.min() < 0 or images.max() > 1:
        raise ValueError(f"images must lie in [0, 1], but reach from {images.min():g} to {images.max():g}")
    start = mode.to_attack(image_set, images)
    signs = _directions(mode, model, start, labels)
    clean_correct = models.predict(model, start, _AT_A_TIME) == labels

    def attacked() -> Iterator[AdversarialBatch]:
        for epsilon in epsilons:
            moved = clipped_step(start, signs, epsilon)
            said = models.predict(model, moved, _AT_A_TIME)
            yield as_batch(images, mode.to_pixels(image_set, moved), labels, said, clean_correct, signs)

    return attacked()


def fgsm_images(
    mode: Mode,
    image_set: ImageSet,
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    epsilons: Sequence[float] = EPSILONS,
) -> Iterator[np.ndarray]:
    """Give the images of `fgsm_sweep`, (n, c, h, w) float32 pixels, without asking the attacked network about them."""
    start = mode.to_attack(image_set, np.asarray(images, np.float32))
    signs = _directions(mode, model, start, labels)
    for epsilon in epsilons:
        yield mode.to_pixels(image_set, clipped_step(start, signs, epsilon))


def _directions(mode: Mode, model: nn.Module, start: np.ndarray, labels: np.ndarray) -> np.ndarray:
    find = attacks.gradient_signs if mode.normalised_twice else margin_signs
    return find(model, start, labels, batch_size=_AT_A_TIME)


def as_batch(
    images: np.ndarray,
    moved: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    clean_correct: np.ndarray,
    signs: np.ndarray | None = None,
) -> AdversarialBatch:
    """Put an attack's result, all in pixels, into the package's one result type.

    Parameters
    ----------
    images, moved : (n, c, h, w) float32 array
        Before and after.
    labels, predictions : (n,) int64 array
        True classes, and what the network said of `moved`.
    clean_correct : (n,) bool array
        Whether it was right before.
    signs : (n, c, h, w) int8 array, optional
        FGSM's direction.
    """
    change = torch.from_numpy(moved - images).flatten(1)
    arrays = {
        "images": torch.from_numpy(np.ascontiguousarray(moved)),
        "labels": torch.from_numpy(np.asarray(labels)),
        "clean_correct": torch.from_numpy(clean_correct),
        "predictions": torch.from_numpy(predictions),
        "linf": change.abs().amax(1),
        "l2": torch.linalg.vector_norm(change, dim=1),
        "l0": change.count_nonzero(1),
        "targets": None,
    }
    return attacks.summarised(arrays, images, None if signs is None else float((signs == 0).mean()))


def noise_sweep(
    images: np.ndarray,
    epsilons: Sequence[float],
    rng: np.random.Generator,
    mode: Mode = CORRECTED,
    image_set: ImageSet | None = None,
) -> Iterator[np.ndarray]:
    """Change images as much as FGSM does, without its aim: the sign by the toss of a coin, one a pixel for all ε.

    Parameters
    ----------
    images : (n, c, h, w) float32 array
        Pixels in [0, 1].
    epsilons : sequence of float
        L∞ sizes, in the mode's units.
    rng : numpy.random.Generator
        Source of the signs.
    mode : Mode
        In pixels, or in the range that the published program attacked; the latter needs `image_set`.
    """
    signs = rng.integers(0, 2, size=images.shape, dtype=np.int8) * 2 - 1
    start = mode.to_attack(image_set, images)
    for epsilon in epsilons:
        yield mode.to_pixels(image_set, clipped_step(start, signs, epsilon))


def clipped_step(start: np.ndarray, signs: np.ndarray, epsilon: float) -> np.ndarray:
    """Take a step ε along the signs as foolbox does: clip to (0, 1), then each pixel's way to ε."""
    step = np.float32(epsilon)
    return start + np.clip(np.clip(start + step * signs, 0, 1) - start, -step, step)
