"""From the bytes of official files, and of any npz in MedMNIST's schema, to arrays: images in [0, 1], labels int64."""

import io
import os
from pathlib import Path

import numpy as np

from advlib.datasets.catalogue import source
from advlib.datasets.dataset import Dataset
from advlib.datasets.files import open_npz


def load_npz(path: str | os.PathLike) -> Dataset:
    """Return the data of any file in MedMNIST's npz schema, the reader's own included.

    Parameters
    ----------
    path : path
        An npz file with uint8 images (n, h, w) or (n, h, w, 3) and integer labels (n,) or (n, 1), either as
        `train_images`, `train_labels`, and the same for `val` and `test` if there is such a split; or as one
        `images`, `labels`, which become the train part. Optional: `class_names`, `unlabelled_images`. Other keys
        are left alone. Pickled objects are refused.

    Returns
    -------
    Dataset
        Named after the file. Without a test split, test images are (0, c, h, w) and test labels (0,); without
        `class_names`, each label is its own name.

    Raises
    ------
    ValueError
        If the file is not such an npz; the sentence names file and key.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be an npz file, but is a folder, a device or a pipe")
    arrays = _npz_arrays(path.read_bytes(), str(path))
    for part in ("images", "labels"):
        if part in arrays:
            arrays.setdefault(f"train_{part}", arrays[part])
    parts = _npz_parts(arrays, str(path))
    n_classes = 1 + max(int(labels.max()) for key, labels in parts.items() if key.endswith("labels") and labels.size)
    class_names = tuple(arrays.get("class_names", np.arange(n_classes)).astype(str).ravel().tolist())
    if len(class_names) < n_classes:
        raise ValueError(
            f"class_names in {path} must name each label, but holds {len(class_names)} names for labels up to "
            f"{n_classes - 1}"
        )
    return Dataset(
        name=path.stem,
        title=path.stem,
        class_names=class_names,
        licence="not stated in the file",
        citation="not stated in the file",
        **parts,
    )


def decode(name: str, contents: list[bytes]) -> Dataset:
    """Return a data set from the bytes of its files, in the order of its entry in the catalogue."""
    entry = source(name)
    if name == "mnist":
        arrays = _decode_mnist(contents)
    elif name == "cifar10":
        arrays = _decode_cifar10(contents)
    else:
        arrays = _npz_parts(_npz_arrays(contents[0], entry.files[0].name), entry.files[0].name)
    return Dataset(
        name=name,
        title=entry.title,
        class_names=entry.class_names,
        licence=entry.licence,
        citation=entry.citation,
        doi=entry.doi,
        **arrays,
    )


def scale(pixels: np.ndarray) -> np.ndarray:
    """Bytes to float32 in [0, 1]: divided, as torchvision's ToTensor does, so that 255 gives exactly 1."""
    return np.divide(pixels, np.float32(255), order="C")


def _decode_mnist(contents: list[bytes]) -> dict[str, np.ndarray]:
    arrays = {}
    for split, (images, labels) in (("train", contents[:2]), ("test", contents[2:])):
        arrays[f"{split}_images"] = scale(np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28))
        arrays[f"{split}_labels"] = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    return arrays


def _decode_cifar10(contents: list[bytes]) -> dict[str, np.ndarray]:
    arrays = {}
    for split, batches in (("train", contents[:5]), ("test", contents[5:])):
        # One record is a label byte and 1,024 red, green and blue bytes.
        records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, 3073)
        arrays[f"{split}_images"] = scale(records[:, 1:]).reshape(-1, 3, 32, 32)
        arrays[f"{split}_labels"] = records[:, 0].astype(np.int64)
    return arrays


_NPZ_KEYS = {f"{split}_{part}" for split in ("train", "val", "test") for part in ("images", "labels")}
_NPZ_KEYS |= {"images", "labels", "class_names", "unlabelled_images"}


def _npz_arrays(content: bytes, where: str) -> dict[str, np.ndarray]:
    """Return the known arrays of an npz file, or raise a ValueError that names the file."""
    with open_npz(io.BytesIO(content), where) as (names, get):
        return {name: get(name) for name in names if name in _NPZ_KEYS}


def _npz_parts(arrays: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Return arrays in MedMNIST's schema as fields of Dataset; train is needed, the others may be absent."""
    parts: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        images_key, labels_key = f"{split}_images", f"{split}_labels"
        if images_key not in arrays and labels_key not in arrays and split != "train":
            continue
        for key in (images_key, labels_key):
            if key not in arrays:
                found = ", ".join(sorted(arrays)) or "none of the known keys"
                raise ValueError(f"{where} must hold {key} (MedMNIST's npz schema), but holds {found}")
        images = _npz_images(arrays[images_key], f"{images_key} in {where}")
        labels = arrays[labels_key]
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "ui" or (labels.size and labels.min() < 0):
            raise ValueError(
                f"{labels_key} in {where} must hold one class index a sample, integers ≥ 0 of shape (n,) or (n, 1), "
                f"but has dtype {labels.dtype} and shape {arrays[labels_key].shape}"
                + (f" and minimum {labels.min()}" if labels.dtype.kind == "i" and labels.size else "")
            )
        if len(labels) != len(images):
            raise ValueError(
                f"{images_key} and {labels_key} in {where} must be equally many, but are {len(images)} and "
                f"{len(labels)}"
            )
        parts |= {images_key: images, labels_key: labels.astype(np.int64)}
    if "unlabelled_images" in arrays:
        parts["unlabelled_images"] = _npz_images(arrays["unlabelled_images"], f"unlabelled_images in {where}")
    shape = parts["train_images"].shape[1:]
    if not len(parts["train_images"]):
        raise ValueError(f"train_images in {where} must not be empty, but has shape {parts['train_images'].shape}")
    for key, value in parts.items():
        if key.endswith("images") and value.shape[1:] != shape:
            raise ValueError(
                f"{key} in {where} must have the shape of train_images, (n, c, h, w) = "
                f"(n, {', '.join(map(str, shape))}), but has shape {value.shape}"
            )
    parts.setdefault("test_images", np.empty((0, *shape), np.float32))
    parts.setdefault("test_labels", np.empty(0, np.int64))
    return parts


def _npz_images(images: np.ndarray, where: str) -> np.ndarray:
    """Turn stored (n, h, w) or (n, h, w, 1 or 3) bytes into (n, c, h, w) float32 in [0, 1]."""
    if images.dtype != np.uint8:
        raise ValueError(f"{where} must be uint8, 0 to 255, but has dtype {images.dtype}")
    if images.ndim == 3:
        return scale(images[:, None])
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return scale(images.transpose(0, 3, 1, 2))
    raise ValueError(f"{where} must have shape (n, h, w) or (n, h, w, 3), but has shape {images.shape}")
