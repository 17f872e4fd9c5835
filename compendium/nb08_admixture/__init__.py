"""Notebook 08_admixture: its experiment, what it records, its figures."""

from typing import Any

import numpy as np

from compendium.common import vs22
from compendium.nb08_admixture import experiment, judge


def replicate(run: Any) -> None:
    """Record what the notebook finds with FGSM. The boundary attack takes an hour a network and is left out."""
    sizes, chosen = np.linspace(0, 1, run.parameters["fgsm_sizes"]), run.parameters
    names = ("map_epsilons", "mixed_shares", "mixed_sizes")
    maps = experiment.Maps(*(tuple(chosen[name]) for name in names), chosen["mixed_draws"])
    results = [
        experiment.fgsm_alone(
            image_set,
            epsilons=sizes[judge.looked_at(sizes)].tolist(),
            maps=maps,
            queries=chosen["queries"],
            rng=run.rng(image_set.name),
        )
        for image_set in (vs22.SETS["mnist"], vs22.SETS["organamnist"])
    ]
    judge.record_sentences(run, results)
