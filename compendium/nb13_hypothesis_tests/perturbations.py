"""Clean images of one data set, and what becomes of them: five attacks, and perturbations that harm nobody."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from advlib import attacks, datasets, models
from advlib.attacks.stored import stored_attack
from advlib.detectors import features

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
class ImageSplit:
    """Images of one data set, disjoint: reference, calibration, and those to be tested.

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
    _known: dict[tuple[str, int], tuple[np.ndarray, np.ndarray, float]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is known by identity: another process has other identities."""
        return {**self.__dict__, "_known": {}}

    def features(self, name: str, images: np.ndarray) -> np.ndarray:
        """Return images of the split, perturbed or not, as a feature map sees them; each is looked at once.

        Parameters
        ----------
        name : str
            Of a feature map of `advlib.detectors.features`; "images" leaves them as they are.
        images : (n, c, h, w) array
            Known by identity: never changed in place.
        """
        return self._seen(name, images)[1]

    def feature_seconds(self, name: str) -> float:
        """CPU time that the feature map took for the clean images."""
        return self._seen(name, self.clean)[2]

    def _seen(self, name: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        key = name, id(images)
        if key not in self._known:  # the images are kept too, so that no others can get their id
            vectors, seconds = (images, 0.0) if name == "images" else timed(features.apply, name, images)
            self._known[key] = images, vectors, seconds
        return self._known[key]


def timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """Return the result and the CPU seconds it took: other programs on the machine do not count."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


@dataclass(frozen=True)
class Perturbation:
    """What a batch may have gone through.

    Attributes
    ----------
    name : str
        "FGSM", "random noise" …
    kind : {"attack", "control"}
    size : float or None
        ε where there is one, in pixels of [0, 1].
    images : (m, c, h, w) float32 array
        Image i was made from `ImageSplit.clean[i]`, but for another data set's. An attack may cover the first images
        only.
    success : float or None
        Share of the images read rightly before and wrongly after.
    weights : (m,) array or None
        Chance of each image to be drawn, where it is not the same for all.
    """

    name: str
    kind: str
    size: float | None
    images: np.ndarray
    success: float | None = None
    weights: np.ndarray | None = None

    @property
    def label(self) -> str:
        """Name and size."""
        return self.name if self.size is None else f"{self.name}, ε = {self.size:g}"


def split_images(name: str, *, references: int, images: int, calibration: int, rng: np.random.Generator) -> ImageSplit:
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
    return ImageSplit(
        name, NETWORKS[name], part.train_images[chosen], part.holdout_images[rest], part.holdout_images[test],
        part.holdout_labels[test], part.holdout_labels[rest],
    )  # fmt: skip


def perturb(
    split: ImageSplit,
    *,
    epsilons: Sequence[float],
    slow_images: int = 0,
    boundary_steps: int = 1000,
    rng: np.random.Generator,
    seed: int = 0,
) -> list[Perturbation]:
    """Attack the clean images, and perturb them without any network.

    FGSM, PGD (10 steps) and random ±ε noise at every ε; TGSM (5 steps of ε/5 towards the least likely class) at the
    largest ε; JSMA and the boundary attack on the first `slow_images`, if any. What an attack gives is rounded to 8
    bits, as a stored image is, so that no test lives on fractions of grey levels.
    """
    largest = max(epsilons)
    made = []

    def attack(name: str, function: Callable, size: float | None = None, count: int | None = None, **options: Any):
        batch = stored_attack(function, split.network, split.clean[:count], split.labels[:count], **options)
        success = np.asarray(batch.success).sum() / max(np.asarray(batch.clean_correct).sum(), 1)
        made.append(Perturbation(name, ATTACK, size, stored(batch.images), float(success)))

    for epsilon in epsilons:
        attack("FGSM", attacks.fgsm, epsilon, epsilon=epsilon)
    for epsilon in epsilons:
        attack("PGD", attacks.pgd, epsilon, epsilon=epsilon, steps=10)
    attack("TGSM", attacks.tgsm, largest, epsilon=largest / 5, steps=5)
    if slow_images:
        attack("JSMA", attacks.jsma, count=slow_images, gamma=0.1, chunk=100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # images without a start stay as they are and count as clean
            attack("boundary", attacks.boundary, count=slow_images, steps=boundary_steps, seed=seed, chunk=100)
    return made + controls(split, epsilons, rng)


def controls(split: ImageSplit, epsilons: Sequence[float], rng: np.random.Generator) -> list[Perturbation]:
    """Perturb the clean images without any network.

    Random ±ε noise at every ε, a shift by 1.5 pixels, a rotation by 10°, another data set, a batch that is half of one
    class, and nothing at all.
    """
    clean = split.clean
    noise = [
        Perturbation("random noise", CONTROL, epsilon, stored(attacks.random_sign_noise(clean, epsilon, rng)))
        for epsilon in epsilons
    ]
    shifted = attacks.shifted(clean, pixels=1.5, direction=rng.uniform(0, 360, len(clean)))
    rotated = attacks.rotated(clean, degrees=10.0 * rng.choice([-1, 1], len(clean)))
    foreign = datasets.load(_FOREIGN[split.name]).test_images
    foreign = foreign[np.sort(rng.choice(len(foreign), len(clean), replace=False))]
    frequent = split.labels == np.bincount(split.labels).argmax()
    weights = np.where(frequent, 0.5 / frequent.sum(), 0.5 / (~frequent).sum())
    return [
        *noise,
        Perturbation("shift by 1.5 pixels", CONTROL, None, stored(shifted)),
        Perturbation("rotation by 10°", CONTROL, None, stored(rotated)),
        Perturbation("another data set", CONTROL, None, resized(foreign, clean.shape[1:])),
        Perturbation("half of one class", CONTROL, None, clean, weights=weights),
        Perturbation("nothing", CONTROL, None, clean),
    ]


def stored(images: Any) -> np.ndarray:
    """Round to the 256 grey levels of a stored image."""
    return (np.round(np.asarray(images) * 255) / np.float32(255)).astype(np.float32)


def resized(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring images of another data set to (c, h, w): mean of colours or copies of grey, border cut or repeated."""
    if images.shape[1] != shape[0]:
        images = np.repeat(images.mean(axis=1, keepdims=True), shape[0], axis=1)
    for axis, size in enumerate(shape[1:], 2):
        missing = size - images.shape[axis]
        if missing > 0:
            pad = [(0, 0)] * 4
            pad[axis] = (missing // 2, missing - missing // 2)
            images = np.pad(images, pad, mode="edge")
        start = max(0, -missing // 2)
        images = np.take(images, range(start, start + size), axis=axis)
    return np.ascontiguousarray(images, dtype=np.float32)
