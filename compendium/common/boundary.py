"""The boundary attack on one of VS22's image sets, in both modes (§5.2 and §5.3)."""

import warnings
from collections.abc import Sequence

import numpy as np

from advlib import attacks
from advlib.attacks import AdversarialBatch
from advlib.attacks.stored import stored_attack
from compendium.common import vs22

PAPER_STEPS = 25_000
"""foolbox's default, which VS22 took."""

PAPER_SIZES = {"MNIST": (67_900, 2_100), "OrganMNIST": (54_142, 4_708), "PathMNIST": (30_547, 5_359)}
"""Reference images and queries behind the full-batch coverages of §5.2."""

CHUNK = 50
"""Images that are attacked together, with the same random directions, and kept on disk together."""


def attack(mode: vs22.Mode, split: vs22.Split, steps: Sequence[int], *, seed: int = 0) -> list[AdversarialBatch]:
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

    Returns
    -------
    list of AdversarialBatch
        One an entry of `steps`, over all queries. Images and norms are in pixels of [0, 1]. `success` says which
        are adversarial examples; `clean_correct` with `l2` = 0 says which found no start.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no start was found")  # `l2` = 0 says which
        states = stored_attack(
            attacks.boundary_sweep,
            split.image_set.network,
            mode.to_attack(split.image_set, split.images),
            split.labels,
            seed=seed,
            chunk=CHUNK,
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
