"""Samples that stay on disk: a folder of pictures, an .npy file or a zarr array larger than memory, read by blocks.

What `advlib.datasets.files` does to a whole file is done here to a block: bytes become numbers in [0, 1], channels come
first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from advlib.chunks import open_array
from advlib.datasets import files


@dataclass(frozen=True)
class LargeSamples:
    """Samples by their rows in a source; indexing with a slice or rows reads them, (n, c, h, w) or (n, d) floats.

    Attributes
    ----------
    read : callable
        Rows, an int64 array, → the samples. Of module level, so that it can be sent to a worker.
    rows : (n,) int64 array
    shape : tuple of int
        (n, c, h, w) or (n, d).
    dtype : numpy.dtype
    source : str
        Where they come from, in words.
    memory_gb : float
        How much may be read at a time is a small part of it.
    scratch : Path
        An existing folder for what is derived from them, such as feature vectors.
    """

    read: Callable[[np.ndarray], np.ndarray]
    rows: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype
    source: str
    memory_gb: float
    scratch: Path

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ndim(self) -> int:
        """Number of axes, 2 or 4."""
        return len(self.shape)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(index, int | np.integer):
            return self.read(self.rows[[index]])[0]
        return self.read(self.rows[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks():
            yield from block()

    def take(self, rows: np.ndarray) -> "LargeSamples":
        """Return some of the samples, unread."""
        return replace(self, rows=self.rows[rows], shape=(len(rows), *self.shape[1:]))

    def blocks(self) -> list[Callable[[], np.ndarray]]:
        """Return functions that each read some of the samples, in their order."""
        size = math.prod(self.shape[1:]) * 8
        step = int(max(1, min(4096, self.memory_gb * 2**30 / 16 / size)))
        return [partial(self.read, self.rows[lo : lo + step]) for lo in range(0, len(self), step)]

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest value; reading them raises a ValueError where one is NaN or infinite."""
        low, high = math.inf, -math.inf
        for number, block in enumerate(self.blocks()):
            values = block()
            if not np.isfinite(values).all():
                row = int(np.argmin(np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
                raise ValueError(
                    f"{self.source} must be finite, but sample {row} of block {number} holds NaN or infinity"
                )
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        return low, high

    def in_memory(self) -> np.ndarray:
        """Read all samples at once, or raise a ValueError where they take more than half of `memory_gb`."""
        needed = math.prod(self.shape) * self.dtype.itemsize / 2**30
        if needed > self.memory_gb / 2:
            raise ValueError(
                f"{len(self):,} samples of {self.source} would take {needed:.2g} GiB at once, more than half of "
                f"memory_gb = {self.memory_gb:g}: give fewer, such as calibration samples in a file of their own"
            )
        return self[:]


def is_large(path: Path, memory_gb: float | None) -> bool:
    """Whether a path is to be read by blocks: a zarr array always, other files where a bound of memory is given."""
    path = Path(path)
    return path.suffix == ".zarr" or (memory_gb is not None and (path.is_dir() or path.suffix == ".npy"))


def open_large(
    path: Path, scratch: Path, memory_gb: float = 2.0, shape: Sequence[int] | None = None
) -> tuple[LargeSamples, list[str]]:
    """Open a folder of pictures, an .npy file or a zarr array without reading it.

    Parameters
    ----------
    path : Path
    scratch : Path
        An existing folder.
    memory_gb : float
    shape : (c, h, w), optional
        What images should look like, as for `advlib.datasets.files.read`.

    Returns
    -------
    samples : LargeSamples
    names : list of str
        What a person calls each sample.

    Raises
    ------
    ValueError
        In one sentence, if the path holds no samples.
    FileNotFoundError
        If there is nothing.
    """
    path = Path(path)
    if not memory_gb > 0:
        raise ValueError(f"memory_gb must be a positive number of GiB, but is {memory_gb}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    shape = None if shape is None or len(shape) != 3 else tuple(shape)
    if path.suffix in (".npy", ".zarr"):
        array = open_array(path)
        n, read = array.shape[0] if array.ndim else 0, partial(_rows_of_array, path, shape)
        names = [str(number) for number in range(n)]
    else:
        names = files.pictures_in(path)
        n, read = len(names), partial(_pictures, path, names, files.any_colour(path, names))
    if n == 0:
        raise ValueError(f"{path} must hold at least one sample, but is empty")
    first = read(np.arange(1))
    large = LargeSamples(
        read, np.arange(n), (n, *first.shape[1:]), first.dtype, f"{n:,} samples in {path}", memory_gb, Path(scratch)
    )
    return large, names


def _rows_of_array(path: Path, shape: tuple[int, ...] | None, rows: np.ndarray) -> np.ndarray:
    array = open_array(path)
    consecutive = len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()
    if consecutive:
        values = np.asarray(array[int(rows[0]) : int(rows[-1]) + 1])
    else:
        values = np.asarray(array[rows] if path.suffix == ".npy" else array.oindex[rows])
    return files._as_images(values, str(path), shape)


def _pictures(path: Path, names: list[str], colour: bool, rows: np.ndarray) -> np.ndarray:
    return files.stacked(path, [names[row] for row in rows], names[0], colour)
