"""Notebook 05_real_life_m: its experiment, what it records, its figures."""

from typing import Any

from compendium.common import g17
from compendium.common.size_sweeps import REPLICATED_IMAGES, size_sweep
from compendium.nb05_real_life_m import judge


def replicate(run: Any) -> None:
    """Record Table 3 and the sentences again with other networks and draws, without the control.

    On CIFAR-10 every fourth number of suspects is run, and `REPLICATED_IMAGES` are attacked.
    """
    given = run.parameters
    shared = {"numerator_size": given["batch_size"], "epsilon": given["epsilon"], "attack_only": True}
    mnist, cifar = [], []
    for mode in g17.MODES:
        mnist += size_sweep(
            mode, given["suspect_sizes"], image_sets=["mnist"], images=given["images"], draws=given["draws"],
            rng=run.rng(f"MNIST, {mode.name}"), **shared,
        )  # fmt: skip
        cifar += size_sweep(
            mode, given["cifar_sizes"][::4], image_sets=["cifar10"], images=REPLICATED_IMAGES,
            draws=given["cifar_draws"], rng=run.rng(f"CIFAR-10, {mode.name}"), **shared,
        )  # fmt: skip
    judge.record_table3(run, mnist)
    judge.record_claims(run, mnist, cifar)
