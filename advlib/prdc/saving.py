"""A fitted manifold as a safetensors file (no pickle) whose words and arrays are checked on load."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from advlib import paths

_FORMAT = "advlib reference manifold 2"


def write(path: Path, k: int, reference: np.ndarray, radii: np.ndarray) -> None:
    """Write reference (N, d) and radii (N,), whole or not at all."""
    content = save({"reference": reference, "radii": radii}, metadata=_description(k, reference, radii))
    with paths.replacing(path) as temporary:
        temporary.write_bytes(content)


def read(path: Path, k: int | None, reference: np.ndarray | None) -> tuple[int, np.ndarray, np.ndarray]:
    """Return k, reference and radii of a file that `write` wrote, or raise a ValueError that says what is wrong.

    Where `k` or `reference` are given, those in the file must be the same.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} must be a file, but is a folder, a device or a pipe")
    try:
        with safe_open(path, framework="numpy") as file:
            stated = file.metadata() or {}
            if stated.get("format") != _FORMAT:
                raise ValueError(f"{path} is no saved reference manifold: its format is {stated.get('format')!r}")
            data, radii = file.get_tensor("reference"), file.get_tensor("radii")
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file of a reference manifold: {error}") from error
    held_k = int(stated["k"]) if stated.get("k", "").isdigit() else 0
    for key, value in _description(held_k, data, radii).items():
        if stated.get(key) != value:
            raise ValueError(f"{path} is damaged: its {key} is {value}, but it says {stated.get(key)}")
    if k is not None and k != held_k:
        raise ValueError(f"{path} was fitted with k = {held_k}, but k = {k} was asked for")
    if reference is not None and _digest(reference) != stated["reference_sha256"]:
        raise ValueError(
            f"{path} was fitted to another reference: it holds shape {data.shape}, dtype {data.dtype}, digest "
            f"{stated['reference_sha256'][:12]}…, but the given one has shape {reference.shape}, dtype "
            f"{reference.dtype}, digest {_digest(reference)[:12]}…"
        )
    return held_k, data, radii


def _description(k: int, reference: np.ndarray, radii: np.ndarray) -> dict[str, str]:
    stated = {
        "format": _FORMAT,
        "k": str(k),
        "dtype": str(reference.dtype),
        "shape": "x".join(map(str, reference.shape)),
        "reference_sha256": _digest(reference),
        "radii_sha256": _digest(radii),
    }
    # The radii do not tell which k they were taken with, so that the words themselves need a seal.
    seal = hashlib.sha256("\n".join(f"{key} {value}" for key, value in stated.items()).encode()).hexdigest()
    return {**stated, "seal_sha256": seal}


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
