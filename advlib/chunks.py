"""Rows of a matrix in blocks that are read one at a time: Dask arrays, zarr and npy files, functions, plain arrays.

A block is read inside the task that needs it and let go of again, so that no process ever holds all rows. Nothing of
Dask is imported here: whoever hands over a Dask array has it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from advlib.tasks import map_tasks

ROWS = 16_384
"""Rows of a block where a file says nothing about its own."""


@dataclass(frozen=True)
class Block:
    """One block as it is sent to a task.

    Attributes
    ----------
    number, first : int
        Its place among the blocks, and its first row among all.
    rows : int
    read : callable
        () → (rows, d) array.
    dtype : str
        float32 or float64: what its numbers are turned into.
    """

    number: int
    first: int
    rows: int
    read: Callable[[], np.ndarray]
    dtype: str

    def values(self) -> np.ndarray:
        """Read the rows, (rows, d) of `dtype`, in C order; a copy where they are a view of what may not be written."""
        return np.require(self.read(), dtype=self.dtype, requirements="CW")


@dataclass(frozen=True)
class Rows:
    """All rows, looked at once.

    Attributes
    ----------
    blocks : tuple of Block
    width : int
        d.
    dtype : str
        Of the values, float32 or float64.
    largest : float
        Largest absolute value.
    digests : tuple of str
        sha256 of each block's values.
    converted : str
        The type that integers came in, which are taken unscaled; "" for floats.
    memory_gb : float or None
        A bound that whoever opened them set, for all that is done with them.
    """

    blocks: tuple[Block, ...]
    width: int
    dtype: str
    largest: float
    digests: tuple[str, ...]
    converted: str = ""
    memory_gb: float | None = None

    def __len__(self) -> int:
        return self.blocks[-1].first + self.blocks[-1].rows

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)."""
        return len(self), self.width


def inside(path: Path, offset: int, shape: tuple[int, int], dtype: str, rows: int) -> list[Callable[[], np.ndarray]]:
    """Return what reads an array (N, d) from the middle of a file, so many rows at a time, for `rows_of`."""
    size = shape[1] * np.dtype(dtype).itemsize
    return [
        partial(_of_map, path, offset + lo * size, dtype, (min(rows, shape[0] - lo), shape[1]))
        for lo in range(0, shape[0], rows)
    ]


def is_chunked(values: Any) -> bool:
    """Whether values are `Rows`, a Dask array or a zarr array: read by blocks, not at once."""
    return isinstance(values, Rows) or _of(values, "dask", "blocks") or _of(values, "zarr", "chunks")


def _of(values: Any, package: str, attribute: str) -> bool:
    return type(values).__module__.split(".")[0] == package and hasattr(values, attribute)


def rows_of(values: Any, name: str, rows: int | None = None, memory_gb: float | None = None) -> Rows:
    """Look at an array, block by block, and return how to read it.

    Parameters
    ----------
    values : (N, d) Dask array, zarr array, NumPy array or memmap, list of callables, path, or Rows
        Chunks of a Dask array along the rows are the blocks; those along the columns are joined. A zarr array comes in
        its own chunks, a path (.npy, .zarr) is opened, and each callable gives one block, (rows, d).
    name : str
        The caller's name, for messages.
    rows : int, optional
        Rows of a block, instead of a file's own or `ROWS`.
    memory_gb : float, optional
        GiB that whatever is done with the rows may take.

    Raises
    ------
    ValueError
        Naming block and row: NaN or infinity, blocks of different widths, no matrix, no numbers, no rows.
    """
    if isinstance(values, Rows):
        return values
    readers = _readers(values, name, rows)
    found = [None] * len(readers)
    for (number, _), seen in map_tasks(_look, list(enumerate(readers)), f"checking {name}"):
        found[number] = seen
    return replace(_joined(readers, found, name), memory_gb=memory_gb)


def open_array(path: Path) -> Any:
    """Open an .npy file or a zarr array without reading it, or raise a ValueError in one sentence."""
    if path.suffix == ".npy":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} must hold a plain array in NumPy's format, but {error}") from None
    if find_spec("zarr") is None:
        raise ValueError(f"{path} needs zarr to be read: pip install 'advlib[dask]'")
    import zarr

    try:
        return zarr.open_array(str(path), mode="r")
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a zarr array or an .npy file, but {error or 'is none'}") from None


# What reads one block: `partial` of these goes to a worker, and Dask does not look into it for arrays of its own.


def _of_dask(array: Any) -> np.ndarray:
    return np.asarray(array.compute(scheduler="synchronous"))


def _of_file(path: Path, first: int, stop: int) -> np.ndarray:
    return np.array(open_array(path)[first:stop])


def _of_map(path: Path, offset: int, dtype: str, shape: tuple[int, int]) -> np.ndarray:
    return np.array(np.memmap(path, dtype, "r", offset, shape))


def _of_array(array: Any, first: int, stop: int) -> np.ndarray:
    return np.asarray(array[first:stop])


def _readers(values: Any, name: str, rows: int | None) -> list[Callable[[], np.ndarray]]:
    if isinstance(values, str | Path):
        return _file_readers(Path(values), name, rows)
    if isinstance(values, np.ndarray):
        step = rows or ROWS
        return [partial(np.asarray, values[lo : lo + step]) for lo in range(0, max(len(values), 1), step)]
    if _of(values, "dask", "blocks"):
        if values.ndim != 2:
            raise ValueError(f"{name} must be an (n, d) array, but has shape {values.shape}")
        values = values.rechunk({1: -1}) if values.numblocks[1] > 1 else values
        for node in dict(values.__dask_graph__()).values():
            if isinstance(getattr(node, "value", node), np.memmap):
                raise ValueError(
                    f"{name} is a Dask array of a memory map, which Dask copies whole into every task: give the .npy "
                    "file's path instead"
                )
        return [partial(_of_dask, values.blocks[number]) for number in range(values.numblocks[0])]
    if _of(values, "zarr", "chunks"):
        step = rows or values.chunks[0]
        # An array of zarr has no length.
        return [partial(_of_array, values, lo, lo + step) for lo in range(0, values.shape[0], step)]
    if isinstance(values, Sequence) and values and all(callable(reader) for reader in values):
        return list(values)
    raise ValueError(f"{name} must be a Dask or zarr array, a path, or callables, but is {type(values).__name__}")


def _file_readers(path: Path, name: str, rows: int | None) -> list[Callable[[], np.ndarray]]:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    array = open_array(path)
    step = rows or (ROWS if path.suffix == ".npy" else array.chunks[0])
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be an (n, d) array, but {path} has shape {array.shape}")
    where = path.resolve()
    return [partial(_of_file, where, lo, lo + step) for lo in range(0, array.shape[0], step)]


def _look(numbered: tuple[int, Callable[[], np.ndarray]]) -> dict[str, Any]:
    """Read a block and say what it is; `bad` is its first row that is not finite."""
    values = np.asarray(numbered[1]())
    seen = {"shape": values.shape, "dtype": str(values.dtype), "kind": values.dtype.kind}
    if values.ndim != 2 or values.dtype.kind not in "fiub" or 0 in values.shape:
        return seen
    values = np.ascontiguousarray(values, dtype=_float_type(str(values.dtype)))
    finite = np.isfinite(values).all(axis=1)
    return seen | {
        "bad": None if finite.all() else int(np.argmin(finite)),
        "largest": float(max(values.max(), -values.min())),
        "digest": hashlib.sha256(values.data).hexdigest(),
    }


def _float_type(dtype: str) -> str:
    return "float32" if dtype in ("float16", "float32", "uint8", "int8", "uint16", "int16", "bool") else "float64"


def _joined(readers: Sequence[Callable[[], np.ndarray]], found: list[dict[str, Any]], name: str) -> Rows:
    """Put what was seen together, or say which chunk cannot be used."""
    blocks, first = [], 0
    for number, (reader, seen) in enumerate(zip(readers, found, strict=True)):
        shape = seen["shape"]
        if len(shape) != 2 or seen["kind"] not in "fiub":
            raise ValueError(
                f"{name} must be an (n, d) array of real numbers, but chunk {number} has shape {shape} and dtype "
                f"{seen['dtype']}"
            )
        if 0 in shape:
            raise ValueError(f"{name} must not be empty, but chunk {number} has shape {shape}")
        if shape[1] != found[0]["shape"][1] or seen["dtype"] != found[0]["dtype"]:
            raise ValueError(
                f"{name} must have chunks of one width and dtype, but chunk 0 has {found[0]['shape'][1]} columns of "
                f"{found[0]['dtype']} and chunk {number} has {shape[1]} of {seen['dtype']}"
            )
        if seen["bad"] is not None:
            raise ValueError(
                f"{name} must be finite, but row {seen['bad']} of chunk {number} (row {first + seen['bad']} of all) "
                "holds NaN or infinity"
            )
        dtype = _float_type(seen["dtype"])
        blocks.append(Block(number, first, shape[0], reader, dtype))
        first += shape[0]
    digests = tuple(seen["digest"] for seen in found)
    largest = max(seen["largest"] for seen in found)
    converted = "" if found[0]["kind"] == "f" else found[0]["dtype"]
    return Rows(tuple(blocks), found[0]["shape"][1], blocks[0].dtype, largest, digests, converted)
