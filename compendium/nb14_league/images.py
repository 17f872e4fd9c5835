"""Image sets of the league: references, calibration and test images, the network under attack, and a second one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from advlib import datasets, models


@dataclass(frozen=True)
class Plan:
    """What is attacked, and by how much.

    Attributes
    ----------
    title : str
    network, second : str
        Of `advlib.models.SPECS`: under attack, and another for the same classes. A second of the same name is another
        training, from a folder.
    epsilons : tuple of float
        L∞ bounds of attacks that have one, in pixels of [0, 1].
    foreign : str
        A data set of other images.
    """

    title: str
    network: str
    second: str | None
    epsilons: tuple[float, ...]
    foreign: str


PLANS = {
    "mnist": Plan("MNIST", "mnist-vs22-official", "mnist-cleverhans", (0.15, 0.3), "organamnist"),
    "cifar10": Plan("CIFAR-10", "cifar10-airbench", "cifar10-resnet", (0.03, 0.05), "bloodmnist"),
    "organamnist": Plan("OrganAMNIST", "organamnist-vs22", "organamnist-vs22", (0.03, 0.05), "mnist"),
    "bloodmnist": Plan("BloodMNIST", "bloodmnist-vs22", None, (0.03, 0.05), "cifar10"),
}


@dataclass(frozen=True, eq=False)
class Images:
    """One image set on a device: float32 tensors in [0, 1], and labels."""

    reference: torch.Tensor
    reference_labels: torch.Tensor
    calibration: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor
    foreign: torch.Tensor


def drawn(name: str, *, references: int, images: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw a set's images, bytes: references from what the network was trained on, the others from what it never saw.

    Of what it never saw at most half are test images, and calibration images are as many at most.
    """
    plan, rng = PLANS[name], np.random.default_rng(seed)
    part = models.partition(plan.network)
    order = rng.permutation(len(part.holdout_images))
    count = min(images, len(order) // 2)
    test, calibration = order[:count], order[count : 2 * count]
    chosen = rng.permutation(len(part.train_images))[:references]
    foreign = resized(datasets.load(plan.foreign).test_images[:count], part.holdout_images.shape[1:])
    return {
        "reference": _bytes(part.train_images[chosen]), "reference_labels": part.train_labels[chosen],
        "calibration": _bytes(part.holdout_images[calibration]), "test": _bytes(part.holdout_images[test]),
        "test_labels": part.holdout_labels[test], "foreign": _bytes(foreign),
    }  # fmt: skip


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.round(images * 255).astype(np.uint8)


def resized(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring images of another data set to (c, h, w): mean of colours or copies of grey, cut or repeated at the edge."""
    if images.shape[1] != shape[0]:
        images = np.repeat(images.mean(axis=1, keepdims=True), shape[0], axis=1)
    missing = shape[1] - images.shape[2]
    if missing > 0:
        around = (missing // 2, missing - missing // 2)
        images = np.pad(images, [(0, 0), (0, 0), around, around], mode="edge")
    start = max(0, -missing // 2)
    return images[:, :, start : start + shape[1], start : start + shape[2]]


def prepare(folder: Path, *, references: int = 2000, images: int = 1500) -> None:
    """Write each set's drawn images to `folder/NAME.npz`, for a machine that has no data sets."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PLANS:
        np.savez_compressed(folder / f"{name}.npz", **drawn(name, references=references, images=images))


def placed(arrays: dict[str, np.ndarray], device: torch.device | str, images: int | None = None) -> Images:
    """Put drawn images onto a device, the first `images` of the test and calibration images."""

    def floats(name: str, count: int | None = None) -> torch.Tensor:
        return torch.from_numpy(arrays[name][:count].astype(np.float32) / 255).to(device)

    def whole(name: str, count: int | None = None) -> torch.Tensor:
        return torch.from_numpy(arrays[name][:count].astype(np.int64)).to(device)

    return Images(
        floats("reference"), whole("reference_labels"), floats("calibration", images), floats("test", images),
        whole("test_labels", images), floats("foreign", images),
    )  # fmt: skip


def networks(
    name: str, device: torch.device | str, folders: tuple[Path, ...] = ()
) -> tuple[nn.Module, nn.Module | None]:
    """Return the network under attack and the second one.

    Parameters
    ----------
    name : str
        Of the image set.
    device : torch.device
    folders : tuple of Path
        Where other trainings lie: the first that holds the second network's name is taken for it, where both networks
        have the same name.
    """
    plan = PLANS[name]
    model = models.load_trained(plan.network, device)
    if plan.second is None:
        return model, None
    if plan.second != plan.network:
        return model, models.load_trained(plan.second, device)
    found = [folder for folder in folders if models.files(plan.second, folder)[0].is_file()]
    return model, models.load_trained(plan.second, device, found[0]) if found else None
