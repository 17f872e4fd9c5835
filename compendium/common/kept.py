"""Radii of large references, kept between runs: they follow from the reference and k alone, whatever the seed."""

import hashlib
from pathlib import Path

import numpy as np

from advlib import paths
from advlib.prdc import ReferenceManifold


def kept_manifold(reference: np.ndarray, k: int, folder: Path | None = None) -> ReferenceManifold:
    """Return the manifold of a reference, its radii from disk where an earlier run has left them.

    Parameters
    ----------
    reference : (N, d) float32 or float64 array
    k : int
    folder : path, optional
        Instead of `results/cache/radii`. A file is 8 N bytes and a seal; a damaged one is written anew.

    Returns
    -------
    ReferenceManifold
        As `fit` gives it, to the bit.
    """
    reference = np.ascontiguousarray(reference)
    digest = hashlib.sha256(f"advlib radii 1 k={k} {reference.dtype.str}{reference.shape}".encode())
    digest.update(reference.data)
    file = (paths.CACHE / "radii" if folder is None else Path(folder)) / f"{digest.hexdigest()[:32]}.bin"
    content = file.read_bytes() if file.is_file() else b""
    radii, seal = content[: 8 * len(reference)], content[8 * len(reference) :]
    if hashlib.sha256(radii).digest() == seal:
        return ReferenceManifold.from_radii(k, reference, np.frombuffer(radii))
    manifold = ReferenceManifold(k).fit(reference)
    radii = manifold.radii_.tobytes()
    with paths.replacing(file) as temporary:
        temporary.write_bytes(radii + hashlib.sha256(radii).digest())
    return manifold
