"""Fitted tests as safetensors files: no pickle, and a digest over everything that a file says.

Words are JSON in the file's metadata, arrays are its tensors. A file is written whole or not at all, and one that was
damaged, cut or edited is refused when it is read.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from scipy import sparse

from advlib import paths
from advlib.detectors import features

FORMAT = "advlib detector 1"


def write(path: Path, stated: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write what a test has to say, JSON's types, and its arrays."""
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    words = json.dumps(stated, ensure_ascii=False, sort_keys=True)
    metadata = {"format": FORMAT, "detector": words, "seal_sha256": seal(words, tensors)}
    with paths.replacing(path) as temporary:
        temporary.write_bytes(to_safetensors(tensors, metadata=metadata))


def read(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Return the words, still JSON, and the arrays of a whole file.

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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file of a saved test: {error}") from None
    words = stated.get("detector", "")
    if seal(words, tensors) != stated.get("seal_sha256"):
        raise ValueError(f"{path} is damaged: its content is not what it was sealed with")
    return words, tensors


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


def seal(words: str, tensors: dict[str, np.ndarray]) -> str:
    """Digest of all that a file says: words, names, shapes, types, bytes."""
    digest = hashlib.sha256(words.encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"\n{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    return digest.hexdigest()
