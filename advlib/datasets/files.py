"""Images from a reader's own files: npz, npy, a folder of pictures. Bytes become numbers in [0, 1].

Every file that cannot be used gives one ValueError in one sentence that names it. Pickled objects are never loaded.
"""

import io
import os
import re
import time
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test", "all")
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".ppm"})
SUFFIXES = frozenset({".npz", ".npy"})

_IMAGE_KEYS = ("images", "x", "X", "batch", "data", "arr_0")
_LABEL_KEYS = ("labels", "label", "y", "Y")
_MANY_BYTES, _MOST_TIMES = 2**26, 100  # beyond, an archive that shrank so much is a bomb
_GREY = ("L", "1", "LA")
_MOST_BYTES = 2**34  # unpacked; more than any batch needs, less than what fills a machine


@dataclass(frozen=True)
class Samples:
    """What a file holds.

    Attributes
    ----------
    values : (n, c, h, w) or (n, d) array
        Floating point; images that were bytes are in [0, 1].
    labels : (n,) int64 array or None
        Classes, where the file has them.
    names : list of str
        What a person calls each sample: a file name, or its number.
    source : str
        Where they come from, in words.
    """

    values: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    source: str


def read(
    path: str | os.PathLike,
    *,
    split: str | None = None,
    usual_split: str = "test",
    key: str | None = None,
    shape: Sequence[int] | None = None,
) -> Samples:
    """Read samples from a file or folder.

    Parameters
    ----------
    path : path
        - a folder: its pictures, in the order of their names, all of one size;
        - npy: one array;
        - npz: the array under `key`, or else `train_images` / `val_images` / `test_images` (MedMNIST's schema),
          `images`, `x`, `batch`, `data`, `arr_0`, or the only array in it; labels beside them as `labels` or `y`.

        Arrays are (n, h, w), (n, c, h, w), (n, h, w, c) with 1 or 3 channels, or (n, d) vectors.
    split : {"train", "val", "test", "all"}, optional
        Part of an npz file in MedMNIST's schema.
    usual_split : str
        The part of such a file where none is named.
    key : str, optional
        Name of the array in an npz file.
    shape : (c, h, w), optional
        What images should look like, to tell (n, c, h, w) from (n, h, w, c) where both are possible.

    Returns
    -------
    Samples

    Raises
    ------
    ValueError
        If the file cannot be read as samples, or a part is named of a file that has none; the sentence names it.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    shape = shape if shape is None or len(shape) == 3 else None
    _check_request(path, split, key)
    if path.is_dir():
        names = pictures_in(path)
        return Samples(stacked(path, names), None, names, f"{len(names)} pictures in {path}")
    if not path.is_file():
        raise ValueError(f"{path} must be a file or a folder, but is a device or a pipe")
    if path.suffix == ".npy":
        values, labels, source = _npy(path), None, str(path)
    elif path.suffix == ".npz":
        values, labels, source = _npz(path, split or usual_split, key)
    elif path.suffix.lower() in PICTURES:
        return Samples(_as_images(_picture(path)[None], str(path), shape), None, [path.name], str(path))
    else:
        raise ValueError(f"{path} must be an .npz or .npy file, a picture, or a folder of pictures")
    values = _as_images(values, source, shape)
    return Samples(values, _as_labels(labels, len(values), source), [str(i) for i in range(len(values))], source)


def _check_request(path: Path, split: str | None, key: str | None) -> None:
    if split is not None and split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, but is {split!r}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    for name, part in (("split", split), ("key", key)):
        if part is not None and path.suffix != ".npz":
            raise ValueError(f"--{name} picks a part of an .npz file, but {path} is none; leave it out")


def _as_images(values: np.ndarray, source: str, shape: Sequence[int] | None) -> np.ndarray:
    """Turn bytes into [0, 1] and put channels first."""
    if values.dtype.hasobject or values.dtype.kind not in "fiub":
        raise ValueError(f"{source} must hold plain real numbers, but its dtype is {values.dtype}")
    if not values.size:
        raise ValueError(f"{source} must hold at least one sample, but its shape is {values.shape}")
    if values.ndim not in (2, 3, 4):
        raise ValueError(
            f"{source} must hold images (n, h, w), (n, c, h, w), (n, h, w, c) or vectors (n, d), but its shape is "
            f"{values.shape}"
        )
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4:
        first, last = values.shape[1] in (1, 3), values.shape[3] in (1, 3)
        if first and last and shape is not None:
            first = values.shape[1:] == tuple(shape)
        if not first and last:
            values = values.transpose(0, 3, 1, 2)
        elif not first:
            raise ValueError(f"{source} must hold images with 1 or 3 channels, but its shape is {values.shape}")
    if values.ndim == 2:
        return values.astype(np.float64) if values.dtype.kind in "iub" else np.ascontiguousarray(values)
    if values.dtype == np.uint8:
        return np.divide(values, np.float32(255), order="C")
    if values.dtype.kind in "iub":
        raise ValueError(
            f"{source} must hold bytes (uint8, 0 to 255) or floating point images in [0, 1], but its dtype is "
            f"{values.dtype}"
        )
    return np.ascontiguousarray(values, dtype=np.float32 if values.dtype.itemsize <= 4 else np.float64)


def _as_labels(labels: np.ndarray | None, n: int, source: str) -> np.ndarray | None:
    if labels is None:
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != n:
        raise ValueError(
            f"the labels in {source} must be one whole number for each of its {n} samples, but have shape "
            f"{labels.shape} and dtype {labels.dtype}"
        )
    return labels.astype(np.int64)


def _array(stream: io.IOBase, where: str, size: int) -> np.ndarray:
    """Read one array in NumPy's format; `size` is how many bytes there are."""
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ValueError(f"format version {version} is not known")
        shape, fortran, dtype = header[version](stream)
        if dtype.hasobject:
            raise ValueError("it holds pickled objects, which could run code when loaded")
        wanted = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
        if wanted > size:
            raise ValueError(f"its header promises {wanted} bytes, but there are at most {size}")
        if wanted > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES / 2**30:.0f} GiB")
        content = stream.read(wanted)
        if len(content) != wanted:
            raise ValueError(f"it ends after {len(content)} of {wanted} bytes")
        # A copy, because bytes are read-only.
        return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C").copy()
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{where} must hold a plain array of numbers in NumPy's format, but {_words(error)}") from None
    except (MemoryError, OSError, SyntaxError, tokenize.TokenError, OverflowError, TypeError, RecursionError) as error:
        raise ValueError(f"{where} cannot be read: {_words(error)}") from None


def _npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as stream:
            return _array(stream, str(path), path.stat().st_size)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    """Read one array of an npz file, or raise a ValueError; what its headers promise decides before it is unpacked."""
    if info.file_size > _MANY_BYTES and info.file_size > _MOST_TIMES * max(info.compress_size, 1):
        raise ValueError(
            f"{where} must hold images or numbers, but would grow from {info.compress_size} to {info.file_size} bytes, "
            "as only constants do"
        )
    try:
        stream = archive.open(info)  # a ValueError where the directory points before the file's first byte
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"{where} cannot be read: {_words(error)}") from None
    with stream:
        return _array(stream, where, info.file_size)


@contextmanager
def open_npz(file: Path | io.BytesIO, where: str) -> Iterator[tuple[list[str], Callable[[str], np.ndarray]]]:
    """Give the names of the arrays in an npz file, and what reads one by its name.

    Every fault is a ValueError in one sentence that names the array and `where`.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        raise ValueError(f"{where} must be an npz file, but is not a complete zip archive") from None
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror}") from None
    with archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()}

        def get(name: str) -> np.ndarray:
            return _member(archive, members[name], f"{name} in {where}")

        yield list(members), get


def _npz(path: Path, split: str, key: str | None) -> tuple[np.ndarray, np.ndarray | None, str]:
    with open_npz(path, str(path)) as (members, get):
        found = ", ".join(sorted(members)[:12]) or "nothing"
        if key is None and ("train_images" in members or "test_images" in members):
            return _medmnist(path, members, get, split, found)
        if key is not None and key not in members:
            raise ValueError(f"{path} must hold an array {key!r}, but holds {found}")
        one = members if len(members) == 1 else []
        images = key or next((name for name in (*_IMAGE_KEYS, *one) if name in members), None)
        if images is None:
            raise ValueError(
                f"{path} must hold one array, or name its images 'images', but holds {found}; --key picks one"
            )
        beside = (key.replace("images", "labels"), *_LABEL_KEYS) if key else _LABEL_KEYS
        labels = next((name for name in beside if name in members), None)
        return get(images), get(labels) if labels and labels != images else None, f"{images} in {path}"


def _medmnist(
    path: Path, members: Container[str], get: Callable[[str], np.ndarray], split: str, found: str
) -> tuple[np.ndarray, np.ndarray | None, str]:
    splits = [name for name in ("train", "val", "test") if f"{name}_images" in members]
    chosen = splits if split == "all" else [split]
    if not set(chosen) <= set(splits):
        raise ValueError(f"{path} must hold {split}_images, but holds {found}; --split picks another part")
    images = [get(f"{name}_images") for name in chosen]
    if len({part.shape[1:] for part in images}) > 1:
        raise ValueError(f"the parts of {path} must have images of one shape, but have {[a.shape for a in images]}")
    labels = None
    if all(f"{name}_labels" in members for name in chosen):
        parts = [get(f"{name}_labels") for name in chosen]
        if len({part.shape[1:] for part in parts}) == 1:
            labels = np.concatenate(parts)
    return np.concatenate(images), labels, f"{' + '.join(chosen)} images in {path}"


def pictures_in(path: Path) -> list[str]:
    """Return the names of the pictures in a folder, in the order of the numbers in them; raise where there are none."""
    try:
        names = sorted(
            (file.name for file in path.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")),
            key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)],
        )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if not names:
        raise ValueError(f"{path} must hold pictures ({', '.join(sorted(PICTURES))}), but holds none")
    return names


def stacked(path: Path, names: list[str], like: str | None = None, colour: bool = False) -> np.ndarray:
    """Read pictures of one folder and one size (that of `like`, by default the first) as images (n, c, h, w).

    They have three channels where one of them has, or `colour` is asked for.
    """
    pictures = [_picture(path / name) for name in names]
    like = like or names[0]
    size = (pictures[0] if like == names[0] else _picture(path / like)).shape[:2]
    for name, picture in zip(names, pictures, strict=True):
        if picture.shape[:2] != size:
            raise ValueError(
                f"the pictures in {path} must have one size, but {like} has {size[1]} × {size[0]} and "
                f"{name} {picture.shape[1]} × {picture.shape[0]} pixels"
            )
    if colour or any(picture.ndim == 3 for picture in pictures):
        pictures = [np.repeat(p[..., None], 3, axis=2) if p.ndim == 2 else p for p in pictures]
    return _as_images(np.stack(pictures), str(path), None)


def any_colour(path: Path, names: list[str]) -> bool:
    """Whether one of the pictures in a folder has colours; only their first bytes are read."""
    from PIL import Image  # here, because commands that read no picture should start at once

    for name in names:
        try:
            with Image.open(path / name) as picture:
                if picture.mode not in _GREY:
                    return True
        except (OSError, SyntaxError, Image.DecompressionBombError):
            continue  # said when it is read
    return False


def _picture(path: Path) -> np.ndarray:
    """Return (h, w) or (h, w, 3) bytes."""
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise ValueError(f"{path} must be a picture, but is a folder, a pipe or a link to nothing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
                    raise ValueError(f"{path} must hold 8 bits a pixel and channel, but its mode is {picture.mode}")
                grey = picture.mode in _GREY
                return np.asarray(picture.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} is no picture that can be read: {_words(error)}") from None
    except (OSError, SyntaxError, EOFError, MemoryError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged picture: {getattr(error, 'strerror', None) or _words(error)}") from None


def _words(error: BaseException) -> str:
    """First line of an error, without the full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def arriving(folder: str | os.PathLike, *, interval: float = 1.0, idle: float | None = None) -> Iterator[Path]:
    """Yield the files of a folder in the order in which they came, and wait for more.

    A file is taken once its size and time have stood still between two looks, so that one still being written is left
    until it is whole; a name that begins with a dot is never taken.

    Parameters
    ----------
    folder : path
        Looked at every `interval` seconds.
    interval : float
        Seconds.
    idle : float, optional
        Seconds without anything new after which to stop; for ever by default.

    Raises
    ------
    ValueError
        If the folder cannot be read.
    """
    folder = Path(folder)
    taken: set[str] = set()
    before: dict[str, tuple[int, int]] = {}
    quiet = time.monotonic()
    while True:
        now = {}
        try:
            for entry in os.scandir(folder):
                if not entry.name.startswith(".") and entry.name not in taken and _is_batch(entry):
                    status = entry.stat()
                    now[entry.name] = status.st_mtime_ns, status.st_size
        except FileNotFoundError:
            if not folder.is_dir():
                raise ValueError(f"there is no folder {folder}") from None
        except OSError as error:
            raise ValueError(f"{folder} cannot be read: {error.strerror}") from None
        ready = sorted((name for name in now if before.get(name) == now[name]), key=lambda name: (now[name][0], name))
        for name in ready:
            taken.add(name)
            yield folder / name
        if ready or now != before:
            quiet = time.monotonic()
        before = now
        if idle is not None and time.monotonic() - quiet >= idle:
            return
        time.sleep(interval)


def _is_batch(entry: os.DirEntry) -> bool:
    suffix = Path(entry.name).suffix.lower()
    return entry.is_file() and (suffix in SUFFIXES or suffix in PICTURES)
