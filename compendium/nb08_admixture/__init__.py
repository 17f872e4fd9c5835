"""Notebook 08_admixture: its experiment, what it records, its figures."""

from typing import Any

import numpy as np

from compendium.common import boundary, vs22
from compendium.nb08_admixture import experiment, judge


def replicate(run: Any) -> None:
    """Record what the notebook finds with FGSM and, on a GPU, with the boundary attack, else an hour a network."""
    sizes, chosen = np.linspace(0, 1, run.parameters["fgsm_sizes"]), run.parameters
    names = ("map_epsilons", "mixed_shares", "mixed_sizes")
    maps = experiment.Maps(*(tuple(chosen[name]) for name in names), chosen["mixed_draws"])
    # With notebook 07's images and steps, so that one attack serves both.
    walk = {"boundary_steps": chosen["boundary_steps"], "boundary_last": True} if boundary.on_gpu() else {}
    results = [
        experiment.experiment(
            vs22.SETS[name],
            epsilons=sizes[judge.looked_at(sizes)].tolist(),
            maps=maps,
            queries=chosen["queries"],
            rng=run.rng(name),
            boundary_images=images,
            **walk,
        )
        for name, images in boundary.GPU_IMAGES.items()
    ]
    for result in results:
        if result.boundary:
            judge.record_tables(run, result)
    judge.record_sentences(run, results)
