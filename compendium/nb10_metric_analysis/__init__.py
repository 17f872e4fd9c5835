"""Notebook 10_metric_analysis: its experiment, what it records, its figures."""

from typing import Any

import numpy as np

from compendium.common import vs22
from compendium.nb10_metric_analysis import judge, measure


def replicate(run: Any) -> None:
    """Record what appendix C says of labels, volumes and centres; no maps, and nothing that no network enters."""
    epsilons = tuple(np.linspace(0, 1, run.parameters["fgsm_sizes"]).tolist())
    results = []
    for name in ("mnist", "organamnist"):
        split, rng = vs22.reference_and_holdout(name, 1, run.parameters["images"]), run.rng(vs22.SETS[name].title)
        attacked = measure.attacked_alone(split, epsilons)
        volumes = measure.volumes(attacked, rng) if name == "mnist" else {}  # of OrganMNIST none is judged
        results.append(measure.Analysis(attacked, volumes, measure.centre_moves(attacked, rng, scale=False), {}))
    judge.judge(run, results)
