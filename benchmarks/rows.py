"""What all benchmarks write down, and the images that some of them share."""

import numpy as np
import torch

from advlib import datasets


def row(
    engine: str, peer: str, what: str, size: tuple[int, int, int, int], ours_s: float, peer_s: float, **more: float
) -> dict[str, object]:
    """One comparison in seconds; `size` is n, m, d and the number of draws T."""
    return {
        "engine": engine,
        "peer": peer,
        "what": what,
        **dict(zip("nmdT", size, strict=True)),
        "ours_s": ours_s,
        "peer_s": peer_s,
        "ratio": peer_s / ours_s,
        "threads": torch.get_num_threads(),
        **more,
    }


def mnist_rows(split: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Return the first `count` images as rows, or something as large where the data set is missing, and its name."""
    try:
        images = getattr(datasets.load("mnist"), f"{split}_images")
    except datasets.DataUnavailable:
        return rng.random((count, 784), dtype=np.float32), "uniform noise in place of MNIST"
    return images[:count].reshape(count, -1), "MNIST"
