"""The result type of all attacks, and what they share: checked input, gradient steps, norms."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from torch import nn

from advlib import models
from advlib.checks import ArrayLike, class_labels, finite_number, image_tensor, listed, of_kind, whole_number
from advlib.models import as_tensor, frozen, predict
from advlib.progress import track

Clip = tuple[float, float] | None
Targets = int | str | ArrayLike


def versioned(version: int) -> Callable[[Callable], Callable]:
    """Give an attack the version by which `advlib.attacks.stored` keeps its images.

    Raise it by hand whenever the attack gives other images for the same input: what was stored before is then made
    anew. Where the code stands, and how it is written, does not matter. `tests/advlib/attacks/test_versions.py` notices
    images that changed without it.
    """

    def mark(attack: Callable) -> Callable:
        attack.version = version
        return attack

    return mark


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
    predictions : (n,) int64
        Class with the largest logit after the attack.
    linf, l2 : (n,) float32
        Norms of what was added, in pixels of [0, 1], clipping included.
    l0 : (n,) int64
        Number of features changed; a colour pixel has three.
    clean_accuracy, adversarial_accuracy : float
        Share of all images that are read rightly before and after.
    zero_gradient_share : float or None
        Share of pixels whose gradient is exactly zero, for attacks in one step by the gradient's sign: sign(0) = 0, so
        these do not move, whatever ε.
    targets : (n,) int64 or None
        Classes aimed at, for targeted attacks.
    targeted_success : float or None
        Share read as their target afterwards, among the images whose target is not their label (NaN if none is).
    """

    images: ArrayLike = field(repr=False)
    labels: ArrayLike = field(repr=False)
    success: ArrayLike = field(repr=False)
    clean_correct: ArrayLike = field(repr=False)
    predictions: ArrayLike = field(repr=False)
    linf: ArrayLike = field(repr=False)
    l2: ArrayLike = field(repr=False)
    l0: ArrayLike = field(repr=False)
    clean_accuracy: float
    adversarial_accuracy: float
    zero_gradient_share: float | None = None
    targets: ArrayLike | None = field(default=None, repr=False)
    targeted_success: float | None = None

    def __len__(self) -> int:
        return len(self.images)


class Case:
    """What is attacked: a network and images with their classes, checked.

    Parameters
    ----------
    model, images, labels, clip, batch_size
        As for `advlib.attacks.fgsm`.

    Attributes
    ----------
    clean, labels : (n, c, h, w) float32, (n,) int64 tensor
        On the CPU.
    """

    def __init__(self, model: nn.Module, images: ArrayLike, labels: ArrayLike, clip: Clip, batch_size: int):
        self.model, self.images, self.clip = model, images, clip
        self.batch_size = whole_number(batch_size, "batch_size", 1)
        self.clean = checked_images(images, clip)
        self.labels = class_labels(labels, len(self.clean)).cpu()

    def gradient_signs(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Sign of the gradient of the cross-entropy, (n, c, h, w) int8 on the CPU."""
        signs = []
        with frozen(self.model) as device, torch.enable_grad():
            for part, aim in zip(images.split(self.batch_size), classes.split(self.batch_size), strict=True):
                part, aim = part.to(device), aim.to(device)
                # A step of 1, unclipped; the difference gives its sign back exactly, whatever x + 1 was rounded to.
                step = fast_gradient_method(lambda x: checked_logits(self.model, x, classes), part, 1.0, np.inf, y=aim)
                signs.append((step - part).detach().sign().to("cpu", torch.int8))
        return torch.cat(signs)

    def sign_steps(
        self,
        start: torch.Tensor,
        classes: torch.Tensor,
        step: float,
        counts: Sequence[int],
        ball: float | None,
        name: str,
    ) -> Iterator[torch.Tensor]:
        """Walk along the sign of the gradient of the loss of `classes` (against it for step < 0); give where it is."""
        moved, clean = start.clone(), self.clean
        if 0 in counts:
            yield moved
        for done in track(range(1, max(counts, default=0) + 1), f"{name}, {len(clean)} images"):
            moved = clipped_step(moved, step, self.gradient_signs(moved, classes), self.clip)
            if ball is not None:
                moved = clipped_step(clean, 1.0, (moved - clean).clamp(-ball, ball), self.clip)
            if done in counts:
                yield moved

    def target_classes(self, targets: Targets, rng: np.random.Generator | None) -> torch.Tensor:
        """Return the class that each image is to be read as, (n,) int64."""
        with frozen(self.model) as device, torch.inference_mode():
            classes = checked_logits(self.model, self.clean[:1].to(device), self.labels).shape[1]
        if isinstance(targets, str):
            if targets == "least_likely":
                return torch.from_numpy(models.logits(self.model, self.clean, self.batch_size).argmin(1))
            if targets != "random":
                raise ValueError(
                    f"targets must be 'least_likely', 'random', a class or one an image, but is {targets!r}"
                )
            if rng is None:
                raise ValueError("rng must be a numpy.random.Generator for random targets, but is None")
            return (self.labels + torch.from_numpy(rng.integers(1, classes, len(self.labels)))) % classes
        aims, shape = as_tensor(targets, "targets").cpu(), self.labels.shape
        if aims.is_floating_point() or aims.dtype == torch.bool:
            raise ValueError(f"targets must be integers, but has dtype {aims.dtype}")
        if aims.ndim and aims.shape != shape:
            raise ValueError(f"targets must be one class or one an image, {tuple(shape)}, but has {tuple(aims.shape)}")
        if int(aims.min()) < 0 or int(aims.max()) >= classes:
            raise ValueError(
                f"targets must be classes 0 to {classes - 1}, but reach from {int(aims.min())} to {int(aims.max())}"
            )
        return aims.long().expand(shape).contiguous()

    def measured(
        self,
        walk: Iterable[torch.Tensor],
        zero_gradient_share: float | None = None,
        targets: torch.Tensor | None = None,
    ) -> Iterator[AdversarialBatch]:
        """Measure the images that an attack is at, one result a state of `walk`, tensors on the CPU."""
        clean_correct = torch.as_tensor(predict(self.model, self.clean, self.batch_size)) == self.labels
        for moved in walk:
            change = (moved - self.clean).flatten(1)
            arrays = {
                "images": moved,
                "labels": self.labels,
                "clean_correct": clean_correct,
                "predictions": torch.as_tensor(predict(self.model, moved, self.batch_size)),
                "linf": change.abs().amax(1),
                "l2": torch.linalg.vector_norm(change, dim=1),
                "l0": change.count_nonzero(1),
                "targets": targets,
            }
            yield summarised(arrays, self.images, zero_gradient_share)


def checked_logits(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the model's logits, or raise where they are none or `labels` go beyond them."""
    with models.fitting("images", images):
        logits = model(images)
    if logits.ndim != 2:
        raise ValueError(f"model must give (n, classes) logits, but gives shape {tuple(logits.shape)}")
    if int(labels.max()) >= logits.shape[1]:
        raise ValueError(f"labels must be below the model's {logits.shape[1]} classes, but reach {int(labels.max())}")
    if not logits.isfinite().all():  # torch's sign(NaN) is 0, which would pass for a zero gradient
        raise ValueError("model must give finite logits, but some are NaN or infinite")
    return logits


def clipped_step(clean: torch.Tensor, epsilon: float, signs: torch.Tensor, clip: Clip) -> torch.Tensor:
    """Images plus ε times directions, clipped."""
    moved = clean + epsilon * signs.float()
    return moved if clip is None else moved.clamp(*clip)


def summarised(
    arrays: dict[str, torch.Tensor | None], kind: ArrayLike, zero_gradient_share: float | None = None
) -> AdversarialBatch:
    """Complete a result: success and shares follow from the fields named in `ARRAYS`.

    Parameters
    ----------
    arrays : dict
        Those fields, tensors on the CPU; `targets` may be None.
    kind : array or tensor
        Whose kind, NumPy or torch, and device the result's arrays get.
    zero_gradient_share : float, optional
        As measured.
    """
    labels, targets, predictions = arrays["labels"], arrays["targets"], arrays["predictions"]
    correct = predictions == labels
    aimed = None if targets is None else targets != labels
    arrays = arrays | {"success": arrays["clean_correct"] & ~correct}
    return AdversarialBatch(
        **{name: None if tensor is None else of_kind(kind, tensor) for name, tensor in arrays.items()},
        clean_accuracy=float(arrays["clean_correct"].double().mean()),
        adversarial_accuracy=float(correct.double().mean()),
        zero_gradient_share=zero_gradient_share,
        targeted_success=None if aimed is None else float((predictions == targets)[aimed].double().mean()),
    )


def join(batches: Sequence[AdversarialBatch]) -> AdversarialBatch:
    """Put the results of one attack on several batches together, in order, as if it had been one batch.

    Raises
    ------
    ValueError
        If there are none, or some are targeted and some are not.
    """
    if not batches:
        raise ValueError("batches must hold at least one, but is empty")
    if len({batch.targets is None for batch in batches}) > 1:
        raise ValueError("batches must come from one attack, but some are targeted and some are not")

    def joined(name: str) -> torch.Tensor:
        return torch.cat([as_tensor(getattr(batch, name), name).cpu() for batch in batches])

    arrays = {name: None if getattr(batches[0], name) is None else joined(name) for name in ARRAYS}
    shares = [batch.zero_gradient_share for batch in batches]
    share = None if None in shares else float(np.average(shares, weights=[len(batch) for batch in batches]))
    return summarised(arrays, batches[0].images, share)


ARRAYS = ("images", "labels", "clean_correct", "predictions", "linf", "l2", "l0", "targets")
"""Fields of an `AdversarialBatch` from which all others follow, save the share of zero gradients."""


def checked_steps(steps: Sequence[int]) -> list[int]:
    """Return numbers of steps as integers, or raise unless they are at least 0 and increase."""
    steps = [whole_number(count, "steps") for count in listed(steps, "steps")]
    if min(steps, default=0) < 0 or any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(f"steps must be at least 0 and, if several, increase, but is {steps}")
    return steps


def checked_size(size: float, name: str) -> float:
    """Return a size as a float, or raise unless it is finite and at least 0."""
    number = finite_number(size, name)
    if number < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, but is {size}")
    if number > torch.finfo(torch.float32).max:
        raise ValueError(f"{name} must fit into float32, but is {size}")
    return number


def checked_rng(rng: np.random.Generator | None, *, needed: bool = True) -> None:
    """Raise a ValueError unless `rng` is a NumPy generator, or None where none is needed."""
    if not isinstance(rng, np.random.Generator) and (needed or rng is not None):
        raise ValueError(f"rng must be a numpy.random.Generator, but is {rng!r}")


def checked_range(clip: Clip) -> tuple[float, float]:
    """Return the range of a clip, [0, 1] for None, or raise unless it is two numbers, the smaller first."""
    try:
        low, high = (0.0, 1.0) if clip is None else (float(end) for end in clip)
    except (TypeError, ValueError, OverflowError):
        low = high = 0.0
    if not low < high:
        raise ValueError(f"clip must be a range (low, high) with low < high, or None, but is {clip!r}")
    return low, high


def checked_images(images: ArrayLike, clip: Clip, name: str = "images") -> torch.Tensor:
    """Return images as a float32 tensor on the CPU, or raise."""
    low, high = checked_range(clip)
    tensor = image_tensor(images, name).cpu()
    least, most = tensor.min().item(), tensor.max().item()
    hint = "; divide by 255" if least >= 0 and 1 < most <= 255 and high == 1 else ""
    if not tensor.is_floating_point():
        raise ValueError(
            f"{name} must be floating point in [{low:g}, {high:g}], but is {tensor.dtype} "
            f"and reaches from {least} to {most}{hint}"
        )
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError(f"{name} must be finite, but {int((~tensor.isfinite()).sum())} values are NaN or infinite")
    if least < low or most > high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], but reach from {least:g} to {most:g}{hint}")
    if max(-least, most) > torch.finfo(torch.float32).max:
        raise ValueError(f"{name} must fit into float32, but reach from {least:g} to {most:g}")
    return tensor.float().contiguous()
