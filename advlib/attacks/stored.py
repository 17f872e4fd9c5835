"""Attacked images, kept on disk by what they were made from: network, images, labels, attack and its version.

Attacks over thousands of images take minutes to hours, and several notebooks want the same ones. The name of a set is
a digest of all that, so that anything that changes gives a new one; that an attack changed is told by its version. A
set is computed and kept in chunks: what was finished before an interruption is not computed again.

The name covers the sha256 of the weights, of images and labels, the attack's name, version and parameters, seed and
chunk. Versions of libraries are not part of it, nor is the processor: clear `advlib.paths.CACHE` after a change of
either, if rounding matters. Every file holds a digest of its content, checked on load; a damaged one is computed again,
with a warning. Files appear whole or not at all. Two processes that ask for the same set do not compute it twice: the
second waits.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from filelock import FileLock
from safetensors.numpy import save_file
from torch import nn

from advlib import models, paths
from advlib.attacks import base
from advlib.attacks.base import AdversarialBatch
from advlib.checks import ArrayLike
from advlib.tasks import map_tasks


def stored_attack(
    attack: Callable[..., AdversarialBatch | Iterable[AdversarialBatch]],
    network: str,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int | None = None,
    chunk: int = 500,
    folder: Path | None = None,
    weights: Path | None = None,
    device: torch.device | str | None = None,
    **parameters: Any,
) -> AdversarialBatch | list[AdversarialBatch]:
    """Return what `attack` makes of the images, from disk where it was made before.

    Parameters
    ----------
    attack : callable
        Marked by `advlib.attacks.versioned`, called as attack(model, images, labels, **parameters) on one chunk after
        another; gives one `AdversarialBatch` or several. Each image must be attacked by itself, whatever else is in its
        chunk.
    network : str
        Name for `advlib.models.load_trained`; loaded only if there is something to compute.
    images, labels : (n, c, h, w) float array or tensor, (n,) integer array or tensor
    seed : int, optional
        For an attack that draws: chunk i is given the argument rng = numpy.random.default_rng([seed, i]).
    chunk : int
        Images that are attacked and kept at a time: no more than their work is lost by an interruption.
    folder, weights : path, optional
        Instead of `advlib.paths.CACHE`/attacked, and of the folder with the package's own weights.
    device : torch.device, optional
        Where to compute; not part of the name.
    **parameters
        For the attack: numbers, strings, lists, None, and arrays. An array with one entry an image along its first
        axis is split with the images.

    Returns
    -------
    AdversarialBatch or list of AdversarialBatch
        Over all images, NumPy arrays, in their order; a list if the attack gives several.

    Raises
    ------
    ValueError
        If there is not one label an image, no image, chunk is below 1, or a parameter cannot be written down; and as
        the attack.
    """
    parameters = {name: _array(x) if isinstance(x, torch.Tensor) else x for name, x in parameters.items()}
    wanted = _Set(attack, network, _array(images), _array(labels), parameters, seed, chunk)
    origin = wanted.origin(weights)
    key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    place = (paths.CACHE / "attacked" if folder is None else Path(folder)) / key[:32]
    chunks = _completed(wanted, origin, key, place, lambda: models.load_trained(network, device, weights))
    joined = [base.join(batches) for batches in zip(*(batches for _, batches in chunks), strict=True)]
    return joined if chunks[0][0] else joined[0]


@dataclass
class _Set:
    """Attacked images that are asked for."""

    attack: Callable[..., AdversarialBatch | Iterable[AdversarialBatch]]
    network: str
    images: np.ndarray
    labels: np.ndarray
    parameters: dict[str, Any]
    seed: int | None
    chunk: int

    def __post_init__(self):
        if len(self.images) == 0 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                "labels must be one an image and images not empty, "
                f"but have shapes {self.labels.shape} and {self.images.shape}"
            )
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, but is {self.chunk}")
        if not hasattr(self.attack, "version"):
            raise ValueError(f"{self.attack.__name__} has no version: mark it with @advlib.attacks.versioned(1)")

    def origin(self, weights: Path | None) -> dict[str, Any]:
        """All that the images follow from, as JSON has it."""
        return {
            "attack": self.attack.__name__,
            "version": self.attack.version,
            "network": self.network,
            "weights": models.card(self.network, weights)["sha256"],
            "images": _digest(self.images),
            "labels": _digest(self.labels),
            "parameters": {name: _written(name, value) for name, value in sorted(self.parameters.items())},
            "seed": self.seed,
            "chunk": self.chunk,
        }

    def part(self, file: Path, start: int) -> tuple[Path, np.ndarray, np.ndarray, dict[str, Any]]:
        """Return one chunk as a task of its own: its file, images, labels and parameters."""
        rows = slice(start, start + self.chunk)
        own = {name: value[rows] if _is_split(value, self.images) else value for name, value in self.parameters.items()}
        if self.seed is not None:
            own["rng"] = np.random.default_rng([self.seed, start // self.chunk])
        return file, self.images[rows], self.labels[rows], own


def _attacked(
    part: tuple[Path, np.ndarray, np.ndarray, dict[str, Any]], attack: Callable, model: nn.Module
) -> tuple[bool, list[AdversarialBatch]]:
    """Attack one chunk; say whether the attack gives several results, and give them."""
    _, images, labels, own = part
    result = attack(model, images, labels, **own)
    return (False, [result]) if isinstance(result, AdversarialBatch) else (True, list(result))


def _completed(
    wanted: _Set, origin: dict[str, Any], key: str, place: Path, load_model: Callable[[], nn.Module]
) -> list[tuple[bool, list[AdversarialBatch]]]:
    """Return all chunks in order, from their files in `place`, where those that are missing are made first."""
    place.mkdir(parents=True, exist_ok=True)
    files = {place / f"{start:08d}.safetensors": start for start in range(0, len(wanted.images), wanted.chunk)}
    with FileLock(place / ".lock"):
        for leftover in place.glob(".*.safetensors"):  # of a killed process: whoever writes holds the lock
            leftover.unlink()
        chunks = {file: _read(file, key) for file in files}
        missing = [file for file, batches in chunks.items() if batches is None]
        if missing:
            with paths.replacing(place / "origin.json") as temporary:
                temporary.write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
            parts = (wanted.part(file, files[file]) for file in missing)
            words, shared = f"{wanted.attack.__name__} on {wanted.network}", [wanted.attack, load_model()]
            for (file, *_), found in map_tasks(_attacked, parts, words, shared=shared, total=len(missing)):
                chunks[file] = found
                _write(file, key, *found)
    return list(chunks.values())


def _array(values: ArrayLike) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _is_split(value: Any, images: np.ndarray) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0 and len(value) == len(images)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()


def _written(name: str, value: Any) -> Any:
    """Return a parameter as JSON has it; an array by its digest."""
    if isinstance(value, np.ndarray) and value.ndim:
        return {"array": _digest(value)}
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item()
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise ValueError(
            f"{name} must be a number, a string, a list of these, an array or None, but is {type(value).__name__}"
            + ("; give a seed instead" if isinstance(value, np.random.Generator) else "")
        ) from None


def _write(file: Path, key: str, several: bool, batches: list[AdversarialBatch]) -> None:
    tensors = {
        f"{index}.{name}": np.ascontiguousarray(getattr(batch, name))
        for index, batch in enumerate(batches)
        for name in base.ARRAYS
        if getattr(batch, name) is not None
    }
    shares = [batch.zero_gradient_share for batch in batches]
    about = {"key": key, "several": several, "zero_gradient_shares": shares}
    # One entry, because safetensors writes several in an order that differs from run to run.
    metadata = {"about": json.dumps(about | {"sha256": _content(about, tensors)})}
    with paths.replacing(file) as temporary:
        save_file(tensors, temporary, metadata)


def _content(about: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    names = sorted(tensors)
    text = json.dumps([about, names], sort_keys=True) + _digest(*(tensors[name] for name in names))
    return hashlib.sha256(text.encode()).hexdigest()


def _read(file: Path, key: str) -> tuple[bool, list[AdversarialBatch]] | None:
    """Return what a file holds, or None if it is missing or, with a warning, damaged."""
    if not file.exists():
        return None
    try:
        with safetensors.safe_open(file, "numpy") as opened:
            about = json.loads((opened.metadata() or {}).get("about", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if about.pop("sha256", None) != _content(about, tensors):
            raise ValueError("its content does not have the digest that was written with it")
        if about["key"] != key:
            raise ValueError("it belongs to another set")
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        warnings.warn(f"{file} is damaged and is computed again: {error}", UserWarning, stacklevel=5)
        return None
    batches = []
    for index, share in enumerate(about["zero_gradient_shares"]):
        arrays = {name: torch.from_numpy(tensors[f"{index}.{name}"]) if f"{index}.{name}" in tensors else None
                  for name in base.ARRAYS}  # fmt: skip
        batches.append(base.summarised(arrays, np.empty(0), share))
    return about["several"], batches
