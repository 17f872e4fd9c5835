"""Fitted tests as safetensors files: no pickle, and a digest over everything that a file says.

Words are JSON in the file's metadata, arrays are its tensors. A file is written whole or not at all, and one that was
damaged, cut or edited is refused when it is read.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from scipy import sparse

from advlib import paths
from advlib.chunks import Rows, inside, rows_of
from advlib.detectors import features
from advlib.prdc.blocked import fitting_rows

FORMAT = "advlib detector 1"


def write(path: Path, stated: Mapping[str, Any], tensors: Mapping[str, np.ndarray | Rows]) -> None:
    """Write what a test has to say, JSON's types, and its arrays; rows in blocks are written block after block."""
    tensors = {
        name: tensor if isinstance(tensor, Rows) else np.ascontiguousarray(tensor) for name, tensor in tensors.items()
    }
    words = json.dumps(stated, ensure_ascii=False, sort_keys=True)
    metadata = {"format": FORMAT, "detector": words, "seal_sha256": seal(words, tensors)}
    with paths.replacing(path) as temporary:
        if any(isinstance(tensor, Rows) for tensor in tensors.values()):
            _write_by_blocks(temporary, metadata, tensors)
        else:
            temporary.write_bytes(to_safetensors(tensors, metadata=metadata))


_WORDS = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "bool": "BOOL", "uint8": "U8"}


def _write_by_blocks(path: Path, metadata: dict[str, str], tensors: Mapping[str, np.ndarray | Rows]) -> None:
    """Write a safetensors file without ever holding it: its header, then one array after another."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    order = sorted(tensors, key=lambda name: (-np.dtype(tensors[name].dtype).itemsize, name))  # so that all are aligned
    for name in order:
        dtype, shape = np.dtype(tensors[name].dtype), tensors[name].shape
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _WORDS[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            for part in _pieces(tensors[name]):
                file.write(part.data if part.size else b"")


def _pieces(tensor: np.ndarray | Rows) -> Iterator[np.ndarray]:
    if isinstance(tensor, Rows):
        yield from (block.values() for block in tensor.blocks)
    else:
        yield tensor


def _read_by_blocks(path: Path, memory_gb: float) -> tuple[str, dict[str, np.ndarray | Rows]]:
    """Read as `read` does, but leave references of balls on disk, as rows in blocks.

    Raises
    ------
    ValueError, FileNotFoundError
        As `read`.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    tensors: dict[str, np.ndarray | Rows] = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            about = header[name]
            shape = tuple(about["shape"])
            if not name.endswith(".reference") or len(shape) != 2 or 0 in shape:
                tensors[name] = file.get_tensor(name)
                continue
            dtype = {word: known for known, word in _WORDS.items()}[about["dtype"]]
            rows = fitting_rows(shape[1], dtype, memory_gb)
            where = 8 + length + about["data_offsets"][0]
            readers = inside(path.resolve(), where, shape, dtype, rows)
            tensors[name] = rows_of(readers, "its reference", memory_gb=memory_gb)
    return _checked_seal(path, header.get("__metadata__", {}), tensors), tensors


def _checked_seal(path: Path, stated: Mapping[str, str], tensors: Mapping[str, np.ndarray | Rows]) -> str:
    words = stated.get("detector", "")
    if seal(words, tensors) != stated.get("seal_sha256"):
        raise ValueError(f"{path} is damaged: its content is not what it was sealed with")
    return words


def read(path: Path, memory_gb: float | None = None) -> tuple[str, dict[str, np.ndarray | Rows]]:
    """Return the words, still JSON, and the arrays of a whole file.

    Where it is larger than a quarter of `memory_gb`, references of balls stay on disk.

    Raises
    ------
    ValueError
        Naming the file: not a saved test, or damaged.
    FileNotFoundError
        If there is no such file.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be a file, but is a folder, a device or a pipe")
    try:
        with safe_open(path, framework="numpy") as file:
            stated = file.metadata() or {}
            if stated.get("format") != FORMAT:
                raise ValueError(f"{path} is no saved test: its format is {stated.get('format')!r}, not {FORMAT!r}")
            large = memory_gb is not None and path.stat().st_size > memory_gb * 2**28
            tensors = {} if large else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file of a saved test: {error}") from None
    if large:
        return _read_by_blocks(path, memory_gb)
    return _checked_seal(path, stated, tensors), tensors


def plain(name: str, value: Any) -> Any:
    """Return a parameter as JSON can hold it, or raise."""
    if name == "features":
        word = features.name_of(value)
        try:
            features.resolve(word)
        except ValueError:
            raise ValueError(
                f"features must have a name so that the test can be saved, but {word} is not registered: give it one "
                "with advlib.detectors.features.register"
            ) from None
        return word
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | tuple | list):
        return np.asarray(value).tolist()
    if value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"{name} must be a plain value so that the test can be saved, but is {value!r}")
    return value


def pack(part: Any, name: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Put an array, or the places of a sparse array of ones, into `tensors`; return what `unpack` must be told."""
    if sparse.issparse(part):
        tensors[f"{name}.indices"] = part.indices.astype(np.int64)
        tensors[f"{name}.indptr"] = part.indptr.astype(np.int64)
        return {"sparse": [int(size) for size in part.shape]}
    tensors[name] = part
    return {}


def unpack(stated: dict[str, Any], name: str, tensors: dict[str, np.ndarray]) -> Any:
    """Take back what `pack` put away, checked."""
    if "sparse" not in stated:
        return finite(tensors[name])
    indices, indptr = tensors[f"{name}.indices"], tensors[f"{name}.indptr"]
    rows, columns = (int(size) for size in stated["sparse"])
    array = sparse.csr_array((np.ones(len(indices), np.int32), indices, indptr), shape=(rows, columns))
    array.check_format(full_check=True)
    return array


def finite(array: np.ndarray) -> np.ndarray:
    """Return the array if it is two-dimensional, not empty and finite, or raise."""
    if array.ndim != 2 or array.dtype.kind not in "fi" or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"it holds an array of shape {array.shape} and dtype {array.dtype} where finite numbers belong"
        )
    return array


def seal(words: str, tensors: Mapping[str, np.ndarray | Rows]) -> str:
    """Digest of all that a file says: words, names, shapes, types, bytes."""
    digest = hashlib.sha256(words.encode())
    for name in sorted(tensors):
        tensor = tensors[name] if isinstance(tensors[name], Rows) else np.ascontiguousarray(tensors[name])
        digest.update(f"\n{name} {tensor.dtype} {tensor.shape}\n".encode())
        for piece in _pieces(tensor):
            digest.update(piece.data)
    return digest.hexdigest()
