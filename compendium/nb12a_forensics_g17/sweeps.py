"""How far G17's numbers depend on settings that the paper fixes without a reason, one setting at a time.

These are the grids of σ and of λ and the number of kernel centres.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas

from advlib import attacks, models
from advlib.progress import track
from advlib.ulsif import DEFAULT_GRID
from compendium.common import g17, protocol
from compendium.nb12a_forensics_g17.figures import WORDS
from compendium.nb12a_forensics_g17.g17_causes import lambda_grid

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


def ranges(ratios: pandas.DataFrame) -> pandas.DataFrame:
    """Show how far R1 goes in the sweep, and with what setting; a row a mode and ε.

    Parameters
    ----------
    ratios : pandas.DataFrame
        From `ratio_sweep`.
    """

    def said(r1: pandas.Series, setting: str) -> str:
        return f"{float(f'{r1[setting]:.2g}'):g} ({setting.split(':')[0]})"

    rows = {}
    for (mode, epsilon), mine in ratios.groupby(["mode", "ε"], sort=False):
        r1 = mine.set_index("setting")["R1"]
        places = {"R1": r1.index[0], "smallest": r1.idxmin(), "largest": r1.idxmax()}
        rows[f"{WORDS[mode]}, ε = {epsilon:g}"] = {name: said(r1, setting) for name, setting in places.items()}
    return pandas.DataFrame.from_dict(rows, orient="index")


def record_ratios(run: Any, ratios: pandas.DataFrame) -> None:
    """Put the sweep into a run's record.

    Parameters
    ----------
    run : record.Run
    ratios : pandas.DataFrame
        From `ratio_sweep`.
    """
    for row in ratios.to_dict("records"):
        for name in ("R1", "R2", "AUROC"):
            run.metric(f"ratios.{row['mode']}.eps={row['ε']:g}.{row['setting']}.{name}", row[name])
