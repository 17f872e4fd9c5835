"""Images of one data set, and what becomes of them: five attacks, and changes that harm nobody."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from advlib import attacks, datasets, models
from advlib.attacks.stored import stored_attack

NETWORKS = {
    "mnist": "mnist-vs22",
    "cifar10": "cifar10-resnet",
    "organamnist": "organamnist-vs22",
    "bloodmnist": "bloodmnist-vs22",
}
"""Data sets of the study and the networks under attack. Batches come from images that the network has never seen."""

TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "organamnist": "OrganAMNIST", "bloodmnist": "BloodMNIST"}
ATTACK, CONTROL = "attack", "control"

_FOREIGN = {"mnist": "organamnist", "cifar10": "bloodmnist", "organamnist": "mnist", "bloodmnist": "cifar10"}


@dataclass(frozen=True, eq=False)
class Bench:
    """Clean images of one data set, and what became of some of them.

    Attributes
    ----------
    name, network : str
    reference : (N, c, h, w) float32 array
        Images the network was trained on.
    calibration : (n, c, h, w) float32 array
        Images it has not seen; disjoint from `clean`.
    clean : (m, c, h, w) float32 array
        Further images that it has not seen.
    labels, calibration_labels : (m,), (n,) int64 arrays
    """

    name: str
    network: str
    reference: np.ndarray
    calibration: np.ndarray
    clean: np.ndarray
    labels: np.ndarray
    calibration_labels: np.ndarray


@dataclass(frozen=True)
class Change:
    """What a batch may have gone through.

    Attributes
    ----------
    name : str
        "FGSM", "random noise" …
    kind : {"attack", "control"}
    size : float or None
        ε where there is one, in pixels of [0, 1].
    images : (m, c, h, w) float32 array
        Changed images: image i from `Bench.clean[i]`, unless `paired` is False. An attack may cover the first images
        only.
    success : float or None
        Share of the images read rightly before and wrongly after.
    weights : (m,) array or None
        Chance of each image to be drawn, where it is not the same for all.
    paired : bool
    """

    name: str
    kind: str
    size: float | None
    images: np.ndarray
    success: float | None = None
    weights: np.ndarray | None = None
    paired: bool = True

    @property
    def label(self) -> str:
        """Name and size."""
        return self.name if self.size is None else f"{self.name}, ε = {self.size:g}"


def bench(name: str, *, references: int, images: int, calibration: int, rng: np.random.Generator) -> Bench:
    """Draw reference, calibration and test images of a data set, disjoint.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.
    references, images, calibration : int
        Numbers of each; of what the network has not seen, test images take at most half and calibration what is left.
    rng : numpy.random.Generator
    """
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, but is {name!r}")
    part = models.partition(NETWORKS[name])
    order = rng.permutation(len(part.holdout_images))
    images = min(images, len(order) // 2)
    test, rest = order[:images], order[images : images + calibration]
    chosen = rng.permutation(len(part.train_images))[:references]
    return Bench(
        name,
        NETWORKS[name],
        part.train_images[chosen],
        part.holdout_images[rest],
        part.holdout_images[test],
        part.holdout_labels[test],
        part.holdout_labels[rest],
    )


def changes(
    subject: Bench,
    *,
    epsilons: Sequence[float],
    slow_images: int = 0,
    jsma_gamma: float = 0.1,
    boundary_steps: int = 1000,
    rng: np.random.Generator,
    seed: int = 0,
) -> list[Change]:
    """Attack the clean images, and change them without any network.

    FGSM, PGD (10 steps) and random ±ε noise at every ε; TGSM (5 steps of ε/5 towards the least likely class) at the
    largest ε; JSMA and the boundary attack on the first `slow_images`, if any. Controls beside noise: a shift by 1.5
    pixels, a rotation by 10°, another data set, and a batch that is half of one class. What an attack gives is rounded
    to 8 bits, as a stored image is, so that no test lives on fractions of grey levels.

    Returns
    -------
    list of Change
    """
    clean, labels, largest = subject.clean, subject.labels, max(epsilons)
    made = []

    def attack(
        name: str, function: Any, count: int | None = None, size: float | None = None, **parameters: Any
    ) -> None:
        batch = stored_attack(function, subject.network, clean[:count], labels[:count], **parameters)
        right = np.asarray(batch.clean_correct).sum()
        success = float(np.asarray(batch.success).sum() / max(right, 1))
        made.append(Change(name, ATTACK, size, stored(batch.images), success))

    for epsilon in epsilons:
        attack("FGSM", attacks.fgsm, size=epsilon, epsilon=epsilon)
    for epsilon in epsilons:
        attack("PGD", attacks.pgd, size=epsilon, epsilon=epsilon, steps=10)
    attack("TGSM", attacks.tgsm, size=largest, epsilon=largest / 5, steps=5)
    if slow_images:
        attack("JSMA", attacks.jsma, slow_images, gamma=jsma_gamma, chunk=100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # images without a start stay as they are and count as clean
            attack("boundary", attacks.boundary, slow_images, steps=boundary_steps, seed=seed, chunk=100)
    for epsilon in epsilons:
        noisy = attacks.random_sign_noise(clean, epsilon, rng)
        made.append(Change("random noise", CONTROL, epsilon, stored(noisy)))
    angles = rng.uniform(0, 360, len(clean))
    made.append(
        Change("shift by 1.5 pixels", CONTROL, None, stored(attacks.shifted(clean, pixels=1.5, direction=angles)))
    )
    turn = 10.0 * rng.choice([-1, 1], len(clean))
    made.append(Change("rotation by 10°", CONTROL, None, stored(attacks.rotated(clean, degrees=turn))))
    other = datasets.load(_FOREIGN[subject.name]).test_images
    other = other[np.sort(rng.choice(len(other), len(clean), replace=False))]
    made.append(Change("another data set", CONTROL, None, _cast(other, clean.shape[1:]), paired=False))
    counts = np.bincount(labels)
    frequent = counts.argmax()
    mine = labels == frequent
    weights = np.where(mine, 0.5 / mine.sum(), 0.5 / (~mine).sum())
    made.append(Change("half of one class", CONTROL, None, clean, weights=weights))
    made.append(Change("nothing", CONTROL, None, clean))
    return made


def stored(images: Any) -> np.ndarray:
    """Round to the 256 grey levels of a stored image."""
    return (np.round(np.asarray(images) * 255) / np.float32(255)).astype(np.float32)


def _cast(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring images of another data set to (c, h, w): mean of colours or copies of grey, border cut or repeated."""
    channels, height, width = shape
    if images.shape[1] != channels:
        images = np.repeat(images.mean(axis=1, keepdims=True), channels, axis=1)
    for axis, size in ((2, height), (3, width)):
        missing = size - images.shape[axis]
        if missing > 0:
            pad = [(0, 0)] * 4
            pad[axis] = (missing // 2, missing - missing // 2)
            images = np.pad(images, pad, mode="edge")
        else:
            start = -missing // 2
            images = np.take(images, range(start, start + size), axis=axis)
    return np.ascontiguousarray(images, dtype=np.float32)
