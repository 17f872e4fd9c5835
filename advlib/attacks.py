"""Attacks on classifiers, over cleverhans, and one result type for all of them.

Images lie in [0, 1] and the model does its own normalisation, so ε is in pixels. A result has the kind of its input,
NumPy or torch, and says what an attack achieved: accuracy before and after, which images it turned, how far each moved.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from torch import nn

from advlib.checks import ArrayLike
from advlib.models import as_tensor, frozen, predict

Clip = tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class AdversarialBatch:
    """What an attack made of a batch of images; arrays are NumPy or torch, as the images were.

    Attributes
    ----------
    images : (n, c, h, w) float32
        After the attack, all of them, successful or not.
    labels : (n,) int64
        As given.
    success : (n,) bool
        Read rightly before and wrongly after. An image that was misread already is no adversarial example.
    clean_correct : (n,) bool
        Read rightly before.
    linf, l2 : (n,) float32
        Norms of what was added, in pixels of [0, 1], clipping included.
    clean_accuracy, adversarial_accuracy : float
        Share of all images that are read rightly before and after.
    zero_gradient_share : float or None
        Share of pixels whose gradient is exactly zero, for attacks by the gradient's sign: sign(0) = 0, so these
        do not move, whatever ε.
    """

    images: ArrayLike = field(repr=False)
    labels: ArrayLike = field(repr=False)
    success: ArrayLike = field(repr=False)
    clean_correct: ArrayLike = field(repr=False)
    linf: ArrayLike = field(repr=False)
    l2: ArrayLike = field(repr=False)
    clean_accuracy: float
    adversarial_accuracy: float
    zero_gradient_share: float | None = None

    def __len__(self) -> int:
        return len(self.images)


def fgsm(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    *,
    batch_size: int = 500,
) -> AdversarialBatch:
    """Fast gradient sign method, x + ε · sign(∇ₓ loss(x, y)); equal to `cleverhans`' fast_gradient_method.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits. Runs where it lives, in evaluation mode, and is left as it was.
    images : (n, c, h, w) float array or tensor
        Within `clip`, or within [0, 1] if there is no clipping.
    labels : (n,) integer array or tensor
        Whose cross-entropy is increased. CleverHans' tutorial of 2017 took the model's own predictions; for that,
        pass `predict(model, images)`. (Success then means "no longer says what it said".)
    epsilon : float
        L∞ size of the step, at least 0; in pixels.
    clip : (float, float) or None
        Range of valid images, into which the result is clipped. None leaves it unclipped, as G17 did: then the
        result need not be an image.
    batch_size : int
        Images at a time; bounds the memory.

    Returns
    -------
    AdversarialBatch

    Raises
    ------
    ValueError
        Naming the argument: images outside the stated range, not floating point, not finite or not (n, c, h, w);
        labels that are not one class an image; a negative ε; an empty range.

    Notes
    -----
    Everything is float32, as in cleverhans. Where the model is so sure that its softmax rounds to 1 (a logit gap
    above about 17), the true class's part of the gradient is rounded away and the sign is that of the rest.

    References
    ----------
    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
    arXiv:1412.6572; G17 eq. 2.
    """
    return next(fgsm_sweep(model, images, labels, [epsilon], clip, batch_size=batch_size))


def fgsm_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilons: Sequence[float],
    clip: Clip = (0.0, 1.0),
    *,
    batch_size: int = 500,
) -> Iterator[AdversarialBatch]:
    """FGSM at several ε for the price of one gradient: its direction does not depend on ε.

    Parameters and errors are those of `fgsm`. Arguments are checked and the gradient is computed at the call.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `epsilons`, each equal to `fgsm` at that ε to the bit; one at a time is held in memory.
    """
    epsilons = [_checked_epsilon(epsilon) for epsilon in epsilons]
    clean = _checked_images(images, clip)
    targets = _checked_labels(labels, clean)
    signs = _gradient_signs(model, clean, targets, batch_size)
    zero_share = float((signs == 0).double().mean())
    clean_correct = torch.as_tensor(predict(model, clean, batch_size)) == targets

    def attacked() -> Iterator[AdversarialBatch]:
        for epsilon in epsilons:
            moved = _moved(clean, epsilon, signs, clip)
            yield _result(model, clean, moved, targets, clean_correct, images, batch_size, zero_share)

    return attacked()


def gradient_signs(model: nn.Module, images: ArrayLike, labels: ArrayLike, *, batch_size: int = 500) -> ArrayLike:
    """Return sign(∇ₓ loss), FGSM's direction, (n, c, h, w) int8 of −1, 0 and 1.

    Parameters are those of `fgsm`, save that images may lie anywhere, so that attacks can be replayed which mixed up
    their ranges.
    """
    clean = _checked_images(images, (-np.inf, np.inf))
    return _like(images, _gradient_signs(model, clean, _checked_labels(labels, clean), batch_size))


def random_sign_noise(
    images: ArrayLike, epsilon: float, rng: np.random.Generator, clip: Clip = (0.0, 1.0)
) -> ArrayLike:
    """Return images with +ε or −ε added to every pixel by the toss of a coin: as large as FGSM's change, but harmless.

    A detector that flags these as well has found that something changed, not that it was attacked.

    Parameters
    ----------
    images, epsilon, clip
        As for `fgsm`.
    rng : numpy.random.Generator
        Source of the signs.

    Returns
    -------
    (n, c, h, w) float32
        Of the kind of `images`.
    """
    epsilon = _checked_epsilon(epsilon)
    clean = _checked_images(images, clip)
    signs = torch.from_numpy(rng.integers(0, 2, size=clean.shape, dtype=np.int8) * 2 - 1)
    return _like(images, _moved(clean, epsilon, signs, clip))


def _gradient_signs(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> torch.Tensor:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}")
    signs = []
    with frozen(model) as device, torch.enable_grad():

        def checked(part: torch.Tensor) -> torch.Tensor:
            logits = model(part)
            if logits.ndim != 2:
                raise ValueError(f"model must give (n, classes) logits, but gives shape {tuple(logits.shape)}")
            if int(labels.max()) >= logits.shape[1]:
                raise ValueError(
                    f"labels must be below the model's {logits.shape[1]} classes, but reach {int(labels.max())}"
                )
            if not logits.isfinite().all():  # torch's sign(NaN) is 0, which would pass for a zero gradient
                raise ValueError("model must give finite logits, but some are NaN or infinite")
            return logits

        for part, target in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            part, target = part.to(device), target.to(device)
            # A step of 1, unclipped; the difference gives its sign back exactly, whatever x + 1 was rounded to.
            step = fast_gradient_method(checked, part, 1.0, np.inf, y=target) - part
            signs.append(step.detach().sign().to("cpu", torch.int8))
    return torch.cat(signs)


def _moved(clean: torch.Tensor, epsilon: float, signs: torch.Tensor, clip: Clip) -> torch.Tensor:
    moved = clean + epsilon * signs.float()
    return moved if clip is None else moved.clamp(*clip)


def _result(
    model: nn.Module,
    clean: torch.Tensor,
    moved: torch.Tensor,
    labels: torch.Tensor,
    clean_correct: torch.Tensor,
    kind: ArrayLike,
    batch_size: int,
    zero_gradient_share: float | None = None,
) -> AdversarialBatch:
    """Measure an attack: all tensors on the CPU; arrays of the result are of `kind`'s kind."""
    correct = torch.as_tensor(predict(model, moved, batch_size)) == labels
    change = (moved - clean).flatten(1)
    arrays = {
        "images": moved,
        "labels": labels,
        "success": clean_correct & ~correct,
        "clean_correct": clean_correct,
        "linf": change.abs().amax(1),
        "l2": torch.linalg.vector_norm(change, dim=1),
    }
    return AdversarialBatch(
        **{name: _like(kind, tensor) for name, tensor in arrays.items()},
        clean_accuracy=float(clean_correct.double().mean()),
        adversarial_accuracy=float(correct.double().mean()),
        zero_gradient_share=zero_gradient_share,
    )


def _like(kind: ArrayLike, tensor: torch.Tensor) -> ArrayLike:
    return tensor.to(kind.device) if isinstance(kind, torch.Tensor) else tensor.numpy()


def _checked_epsilon(epsilon: float) -> float:
    epsilon = float(epsilon)
    if not (np.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon must be a finite number of at least 0, but is {epsilon}")
    return epsilon


def _checked_images(images: ArrayLike, clip: Clip) -> torch.Tensor:
    """Return images as a float32 tensor on the CPU, or raise."""
    low, high = (0.0, 1.0) if clip is None else clip
    if not low < high:
        raise ValueError(f"clip must be a range (low, high) with low < high, or None, but is {clip}")
    tensor = as_tensor(images).cpu()
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise ValueError(f"images must be a non-empty (n, c, h, w) array, but has shape {tuple(tensor.shape)}")
    least, most = tensor.min().item(), tensor.max().item()
    hint = "; divide by 255" if least >= 0 and 1 < most <= 255 and high == 1 else ""
    if not tensor.is_floating_point():
        raise ValueError(
            f"images must be floating point in [{low:g}, {high:g}], but is {tensor.dtype} "
            f"and reaches from {least} to {most}{hint}"
        )
    if not np.isfinite(least + most):
        raise ValueError(f"images must be finite, but {int((~tensor.isfinite()).sum())} values are NaN or infinite")
    if least < low or most > high:
        raise ValueError(f"images must lie in [{low:g}, {high:g}], but reach from {least:g} to {most:g}{hint}")
    return tensor.float()


def _checked_labels(labels: ArrayLike, images: torch.Tensor) -> torch.Tensor:
    tensor = as_tensor(labels).cpu()
    if tensor.shape != images.shape[:1]:
        raise ValueError(f"labels must be one an image, shape ({len(images)},), but has shape {tuple(tensor.shape)}")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"labels must be integers, but has dtype {tensor.dtype}")
    if int(tensor.min()) < 0:
        raise ValueError(f"labels must be at least 0, but has {int(tensor.min())}")
    return tensor.long()
