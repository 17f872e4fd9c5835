"""How far both papers' numbers depend on settings that the papers fix without a reason: one setting at a time.

For VS22 the neighbours k and the number of reference images (`ball_sweep`); for G17 the grids of σ and of λ and the
number of kernel centres (`ratio_sweep`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas

from advlib import attacks, models
from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from advlib.ulsif import DEFAULT_GRID
from compendium.claims import verdicts
from compendium.common import g17, protocol, vs22
from compendium.nb12_forensics.g17_causes import lambda_grid

NEIGHBOURS = (1, 2, 5, 10, 20)
REFERENCE_SHARES = (0.125, 0.25, 0.5, 1.0)
BALL_EPSILONS = (0.0, 0.1, 0.2)
"""FGSM sizes of `ball_sweep`, in pixels: none, and two at which density is neither the clean one's nor 0."""


def ball_sweep(*, references: int, queries: int, rng: np.random.Generator) -> pandas.DataFrame:
    """Density and coverage of MNIST, clean and under FGSM in pixels, for several k and numbers of references.

    Parameters
    ----------
    references, queries : int
        Most reference images, and hold-out images (0 for all).
    rng : numpy.random.Generator
        Draws both. A smaller reference is a part of the larger.

    Returns
    -------
    pandas.DataFrame
        A row a setting and ε: k, references, ε, density, coverage, and the closed form of clean coverage.
    """
    chosen = vs22.image_set("mnist")
    split = vs22.reference_and_holdout("mnist", references, queries, rng)
    sweep = vs22.fgsm_sweep(vs22.CORRECTED, chosen, vs22.network(chosen), split.images, split.labels, BALL_EPSILONS)
    attacked = [vs22.flat(batch.images) for batch in sweep]
    pool = rng.permutation(vs22.flat(split.reference))
    settings = dict.fromkeys(
        [(k, len(pool)) for k in NEIGHBOURS] + [(vs22.K, round(share * len(pool))) for share in REFERENCE_SHARES]
    )
    rows = []
    for k, size in track(settings, "k and references", len(settings)):
        manifold = ReferenceManifold(k).fit(pool[:size])
        expected = expected_coverage(size, len(split.images), k)
        for epsilon, images in zip(BALL_EPSILONS, attacked, strict=True):
            rows.append((k, size, epsilon, *manifold.density_coverage(images), expected))
    return pandas.DataFrame(rows, columns=["k", "references", "ε", "density", "coverage", "expected coverage"])


FINE = tuple(np.logspace(-3, 1, 17).tolist())
ESTIMATORS: dict[str, dict[str, Any]] = {
    "as it is: 9 σ, 9 λ, 100 centres": {},
    "σ twice as fine": {"sigmas": FINE},
    "σ up to 100": {"sigmas": (*DEFAULT_GRID, 10**1.5, 100.0)},
    "σ from 0.1": {"sigmas": DEFAULT_GRID[4:]},
    "λ twice as fine": {"lambdas": FINE},
    "λ from 0.0001": {"lambdas": lambda_grid(1e-4)},
    "λ from 0.01": {"lambdas": lambda_grid(1e-2)},
    "50 centres": {"n_kernels": 50},
    "10 centres": {"n_kernels": 10},
}
"""What is changed → arguments of `protocol.density_ratio_comparison`."""


def ratio_sweep(
    epsilons: Sequence[float], *, images: int, draws: int, batch_size: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """R1, R2 and power on MNIST under FGSM, both modes, for several grids and numbers of kernel centres.

    Parameters
    ----------
    epsilons : sequence of float
        L∞, pixels in [0, 1].
    images : int
        Test images attacked, 0 for all.
    draws, batch_size : int
        t and m of Algorithm 1; the same draws in every setting.
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        A row a mode, ε and setting of `ESTIMATORS`: mean R1, mean R2, AUROC of one batch.
    """
    everything, real, labels = g17.all_and_attacked("mnist", images)
    seed = int(rng.integers(2**63))
    rows = []
    for mode in g17.MODES:
        signs = attacks.gradient_signs(models.load_trained(mode.networks["mnist"]), real, labels)
        for epsilon in epsilons:
            moved = real + np.float32(epsilon) * signs
            moved = moved if mode.clip is None else moved.clip(*mode.clip)
            for name, options in track(ESTIMATORS.items(), f"{mode.name}, ε = {epsilon:g}", len(ESTIMATORS)):
                found = protocol.density_ratio_comparison(
                    real, moved, numerators=everything, draws=draws, batch_size=batch_size,
                    rng=np.random.default_rng(seed), kernel=mode.kernel, **options,
                )["combined"]  # fmt: skip
                rows.append((mode.name, epsilon, name, found.r1.mean(), found.r2.mean(), found.auroc))
    return pandas.DataFrame(rows, columns=["mode", "ε", "setting", "R1", "R2", "AUROC"])


def coverage_sensitivity(balls: pandas.DataFrame) -> dict[str, float]:
    """By which factor clean coverage changes with twice the neighbours, and with half of the references.

    Parameters
    ----------
    balls : pandas.DataFrame
        From `ball_sweep`.
    """
    clean = balls[balls["ε"] == 0].set_index(["k", "references"])["coverage"]
    whole = balls["references"].max()
    factors = {
        "factor of clean coverage between k = 5 and k = 10": clean[2 * vs22.K, whole] / clean[vs22.K, whole],
        "factor of clean coverage between the references and half of them": (
            clean[vs22.K, round(whole / 2)] / clean[vs22.K, whole]
        ),
    }
    return {name: float(max(factor, 1 / factor)) for name, factor in factors.items()}


def record_sweeps(run: Any, balls: pandas.DataFrame, ratios: pandas.DataFrame) -> None:
    """Put both sweeps into a run's record, and VS22's sentence about k beside them.

    Parameters
    ----------
    run : record.Run
    balls, ratios : pandas.DataFrame
        From `ball_sweep` and `ratio_sweep`.
    """
    for row in balls.to_dict("records"):
        for name in ("density", "coverage"):
            run.metric(f"balls.k={row['k']}.references={row['references']}.eps={row['ε']:g}.{name}", row[name])
    for row in ratios.to_dict("records"):
        for name in ("R1", "R2", "AUROC"):
            run.metric(f"ratios.{row['mode']}.eps={row['ε']:g}.{row['setting']}.{name}", row[name])
    verdicts.sentence(run, "vs22", "sensitivity-to-k", {verdicts.CORRECTED: coverage_sensitivity(balls)})
