"""What a data set is, and what is made of one without looking at its source: pools, splits, grey images."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels in their official order, with where they come from.

    Attributes
    ----------
    name, title : str
        The key of `load`, and the name to print.
    train_images, test_images : (n, c, h, w) float32 array
        Official split, pixels in [0, 1] (byte / 255), channels red, green, blue or grey alone.
    train_labels, test_labels : (n,) int64 array
        Index into `class_names`.
    val_images, val_labels : array or None
        The official validation split, where there is one (MedMNIST).
    class_names : tuple of str
        Name of each label.
    licence, citation : str
        Terms of the data and whom to cite.
    doi : str or None
        Of the citation.
    unlabelled_images : (n, c, h, w) float32 array or None
        Further images without a label, in the files that have them.
    """

    name: str
    title: str
    train_images: np.ndarray = field(repr=False)
    train_labels: np.ndarray = field(repr=False)
    test_images: np.ndarray = field(repr=False)
    test_labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...]
    licence: str
    citation: str = field(repr=False)
    doi: str | None = None
    val_images: np.ndarray | None = field(default=None, repr=False)
    val_labels: np.ndarray | None = field(default=None, repr=False)
    unlabelled_images: np.ndarray | None = field(default=None, repr=False)


def pooled(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return all labelled images and labels in one: train, then validation, then test, as VS22 pool them.

    Returns
    -------
    images : (n, c, h, w) float32 array
    labels : (n,) int64 array
    """
    parts = [
        (getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")) for split in ("train", "val", "test")
    ]
    images, labels = zip(*[part for part in parts if part[0] is not None], strict=True)
    return np.concatenate(images), np.concatenate(labels)


def stratified_holdout(labels: np.ndarray, fraction: float, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into a model set and a hold-out set with the same class mix, as VS22 do (§4, their code).

    VS22 hold out 3 % of MNIST (2,100 of 70,000), 5 % of PathMNIST (5,359 of 107,180) and 8 % of OrganMNIST (4,708 of
    58,850). The hold-out has ⌈fraction · n⌉ members. MedMNIST's present OrganAMNIST file holds 58,830 images, 20 fewer
    than the release the paper used, and gives 4,707.

    Parameters
    ----------
    labels : (n,) integer array
        Of the pooled data set.
    fraction : float
        Share held out, in (0, 1).
    seed : int
        Of the shuffle; VS22 use 42.

    Returns
    -------
    model_indices, holdout_indices : int64 arrays
        Disjoint, shuffled, together 0 … n−1.
    """
    from sklearn.model_selection import train_test_split

    from advlib.checks import as_number, plain_array, whole_number  # takes torch

    if not 0 < as_number(fraction, "fraction") < 1:
        raise ValueError(f"fraction must lie strictly between 0 and 1, but is {fraction}")
    seed = whole_number(seed, "seed", 0)
    labels = plain_array(labels, "labels")
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels must be a vector of one label a sample, but has shape {labels.shape}")
    if labels.dtype.kind not in "ui":
        raise ValueError(f"labels must be integers, but has dtype {labels.dtype}")
    try:
        model, holdout = train_test_split(
            np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:  # classes too small for both sides
        raise ValueError(f"labels cannot be split with fraction {fraction} and seed {seed}: {error}") from None
    return model, holdout


def grey(images: np.ndarray) -> np.ndarray:
    """Return colour images as grey ones, luma Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Parameters
    ----------
    images : (n, 3, h, w) float array
        Red, green, blue in [0, 1].

    Returns
    -------
    (n, 1, h, w) array
        Of the same dtype, in [0, 1]. G17 does not say how it made CIFAR-10 grey; these are the weights that Pillow,
        torchvision and OpenCV use.
    """
    from advlib.checks import plain_array  # takes torch

    images = plain_array(images, "images")
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be colour images of shape (n, 3, h, w), but has shape {images.shape}")
    if images.dtype.kind != "f":
        raise ValueError(f"images must be floating point in [0, 1], but has dtype {images.dtype}")
    if not np.isfinite(images).all():
        raise ValueError(f"images must be finite, but {int((~np.isfinite(images)).sum())} values are NaN or infinite")
    weights = np.array([0.299, 0.587, 0.114], dtype=images.dtype)
    luma = np.einsum("nchw,c->nhw", images, weights)[:, None]
    # The weights sum to 1 only up to rounding; white must not exceed 1, or bounds checks would refuse it.
    return np.minimum(luma, 1, out=luma)
