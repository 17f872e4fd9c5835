"""The small league of the notebook: both questions, by the library's public tests, on a few attacks and changes."""

from dataclasses import dataclass

import numpy as np
import pandas
import torch

from advlib import models
from advlib.cli.detection import make_test
from advlib.detectors import AimTest, BatchTest
from advlib.detectors.aim import changes
from compendium.nb14_league.attacks import Effort, catalogue, craft
from compendium.nb14_league.images import PLANS

LEVEL = 0.05
KNOWN = ("white noise", "smooth noise", "blur", "shift")
"""Families of the small calibration; JPEG and rotation are tried and are not among them."""
SIZES = (0.04, 0.08, 0.16)


@dataclass(frozen=True, eq=False)
class Bench:
    """Digits, and both questions fitted to them.

    Attributes
    ----------
    test : (n, 1, 28, 28) float32 tensor
        Unseen by the network, with their `labels`.
    changed : BatchTest
        What `advlib fit` makes.
    aim : AimTest
    """

    test: torch.Tensor
    labels: torch.Tensor
    changed: BatchTest
    aim: AimTest


def bench(references: int, images: int, rng: np.random.Generator) -> Bench:
    """Fit both questions to MNIST: references the network was trained on, as many calibration images as test images."""
    network = PLANS["mnist"].network
    part = models.partition(network)
    order = rng.permutation(len(part.holdout_images))
    test, calibration = order[:images], order[images : 2 * images]
    reference = part.train_images[rng.permutation(len(part.train_images))[:references]]
    changed = make_test("combined", reference.shape[1:], draws=199, seed=0)
    changed.check = False
    changed.fit(reference, part.holdout_images[calibration])
    aim = AimTest(network, families=KNOWN, sizes=SIZES, learned=60, calibrated=images, draws=199)
    aim.fit(reference, part.holdout_images[calibration])
    return Bench(torch.from_numpy(part.holdout_images[test]), torch.from_numpy(part.holdout_labels[test]), changed, aim)


def pools(known: Bench, epsilon: float, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Return what batches are drawn from: clean images, successful attacks within ε, changes as large as PGD's."""
    listed = catalogue(Effort(steps=20))
    crafted = {
        name: craft(listed[name][0], known.aim.model_, known.test, known.labels, epsilon, rng)
        for name in ("PGD-20", "APGD, cross-entropy", "low-frequency 14")
    }
    found = {"nothing": known.test} | {f"{name}, ε = {epsilon:g}": made.images for name, made in crafted.items()}
    size = crafted["PGD-20"].rms
    for family in ("white noise", "blur", "JPEG", "rotation"):
        found[f"{family} as large"] = changes.make(known.test, family, size, rng)
    return found


def table(
    known: Bench, found: dict[str, torch.Tensor], batch_size: int, batches: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """Return a row a pool: its size, and the shares of batches that are called changed and aimed at p ≤ 0.05."""
    rows = []
    for name, pool in found.items():
        m = min(batch_size, len(pool) // 2)
        drawn = np.stack([rng.choice(len(pool), m, replace=False) for _ in range(batches)]) if m else None
        if drawn is None:
            continue
        changed = known.changed.p_values(pool.numpy(), drawn) <= LEVEL
        aimed = known.aim.p_values(known.aim.measure_tensor(pool), drawn).p <= LEVEL
        rows.append({"pool": name, "images": len(pool), "m": m, "changed": changed.mean(), "aimed": aimed.mean()})
    return pandas.DataFrame(rows)
