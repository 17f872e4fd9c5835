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
    walk = {}
    if boundary.on_gpu():  # with notebook 07's images and steps, so that one attack serves both
        walk = {"boundary_images": boundary.GPU_IMAGES, "boundary_steps": chosen["boundary_steps"]}
        walk |= {"boundary_last": True, "chunk": boundary.GPU_CHUNK}
    results = [
        experiment.experiment(
            image_set,
            epsilons=sizes[judge.looked_at(sizes)].tolist(),
            maps=maps,
            queries=chosen["queries"],
            rng=run.rng(image_set.name),
            **walk,
        )
        for image_set in (vs22.SETS["mnist"], vs22.SETS["organamnist"])
    ]
    for result in results:
        if result.boundary:
            judge.record_tables(run, result)
    judge.record_sentences(run, results)
