"""The boundary attack on one of VS22's image sets, in both modes (§5.2 and §5.3)."""

import warnings
from collections.abc import Sequence

import numpy as np

from advlib import attacks
from advlib.attacks import AdversarialBatch
from advlib.attacks.stored import stored_attack
from advlib.checks import usual_device
from advlib.prdc import ReferenceManifold
from compendium.common import vs22

PAPER_SIZES = {"MNIST": (67_900, 2_100), "OrganMNIST": (54_142, 4_708), "PathMNIST": (30_547, 5_359)}
"""Reference images and queries behind the full-batch coverages of §5.2."""

PAPER_BATCHES = {
    "MNIST": (21, 42, 60, 84, 100, 120, 140),
    "OrganMNIST": (49, 100, 150, 200, 250, 300),
    "PathMNIST": (53, 100, 150, 200, 250, 300),
}
"""Images in the sub-batches of Fig. 3(b): the names of the authors' stored files, danushv07/n2gem, `bdy_attack`."""

CHUNK = 50
"""Images that are attacked together, with the same random directions, and kept on disk together."""

GPU_CHUNK = 5_000
"""Likewise on a GPU, where thousands of images take little longer than one: a whole hold-out."""

GPU_IMAGES = {"mnist": 0, "organamnist": 300}
"""Attacked images of each set where runs are repeated on a GPU, 0 for all; without one as many as notebooks attack."""


def on_gpu() -> bool:
    """Whether `ADVLIB_DEVICE` sends networks to a GPU."""
    return (usual_device() or "cpu").startswith("cuda")


def attack(
    mode: vs22.Mode, split: vs22.Split, steps: Sequence[int], *, seed: int = 0, chunk: int | None = None
) -> list[AdversarialBatch]:
    """Attack a split's queries in one of the modes and keep what was attacked; pixels in, pixels out.

    *As published* gives the attack normalised images with bounds (0, 1), which only its candidates keep: an image
    that is not attacked stays outside. *Corrected* attacks pixels.

    Parameters
    ----------
    mode : vs22.Mode
    split : vs22.Split
    steps : increasing sequence of int
        Numbers of steps after which the state is wanted; all are states of one run.
    seed : int
    chunk : int, optional
        Images attacked together; other random directions for another chunk. `CHUNK`, or `GPU_CHUNK` on a GPU.

    Returns
    -------
    list of AdversarialBatch
        One an entry of `steps`, over all queries. Images and norms are in pixels of [0, 1]. `success` says which
        are adversarial examples; `clean_correct` with `l2` = 0 says which found no start.
    """
    chunk = chunk or (GPU_CHUNK if on_gpu() else CHUNK)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no start was found")  # `l2` = 0 says which
        states = stored_attack(
            attacks.boundary_sweep,
            split.image_set.network,
            mode.to_attack(split.image_set, split.images),
            split.labels,
            seed=seed,
            chunk=chunk,
            **({} if chunk <= 100 else {"batch_size": chunk}),  # the attack's own default; part of a stored set's name
            steps=[int(count) for count in steps],
            outside=mode.normalised_twice,
        )
    if not mode.normalised_twice:
        return states
    pixels = []
    for state in states:
        # Images that were left alone come back to the bit, which the way there and back would not give.
        moved = (state.l2 > 0)[:, None, None, None]
        images = np.where(moved, mode.to_pixels(split.image_set, state.images), split.images)
        pixels.append(vs22.as_batch(split.images, images, split.labels, state.predictions, state.clean_correct))
    return pixels


def scored_rows(mode: vs22.Mode, attacked: AdversarialBatch) -> np.ndarray:
    """Which images of an attack count: as published all, corrected the adversarial examples only; (r,) int64."""
    return np.arange(len(attacked.images)) if mode.normalised_twice else np.flatnonzero(attacked.success)


def manifold_in_proportion(
    reference: np.ndarray, queries: int, per_query: float, rng: np.random.Generator
) -> ReferenceManifold:
    """Fit balls to a random part of the reference that is to the queries as the paper's reference to its hold-out.

    Coverage depends on that ratio. That of a few attacked images cannot be scaled up to the paper's numbers: the closed
    form holds for clean images only. So the reference is cut instead.

    Parameters
    ----------
    reference : (N, c, h, w) array
    queries : int
    per_query : float
        Reference images for each query.
    rng : numpy.random.Generator
    """
    count = min(len(reference), max(vs22.K + 1, round(per_query * queries)))
    return ReferenceManifold(vs22.K).fit(vs22.flat(reference[rng.permutation(len(reference))[:count]]))


def disjoint(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Split n images at random into batches that share none: (n // size, size) int64."""
    return rng.permutation(n)[: n // size * size].reshape(-1, size)


def p_value(null: np.ndarray, value: float) -> float:
    """Two-sided p-value of one batch among clean ones, `null` (m,): twice the smaller tail, itself counted."""
    tail = min(np.sum(null <= value), np.sum(null >= value))
    return float(min(1.0, 2 * (1 + tail) / (1 + len(null))))


def quartile_range(
    balls: np.ndarray, sizes: Sequence[int], rng: np.random.Generator, draws: int = 2000
) -> tuple[float, float]:
    """Smallest lower and largest upper quartile of batches' density over batch sizes, as §5.2 gives its ranges.

    The quartiles are those of batches drawn with replacement: so a few images spread like independent ones, whatever
    the size of the batches.

    Parameters
    ----------
    balls : (n,) float array
        For each image the balls that hold it over k; their mean is the density.
    sizes : sequence of int
    rng : numpy.random.Generator
    draws : int
        Batches of each size.
    """
    quartiles = [np.quantile(rng.choice(balls, (draws, size)).mean(axis=1), (0.25, 0.75)) for size in sizes]
    return float(np.min(quartiles)), float(np.max(quartiles))
