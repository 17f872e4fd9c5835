"""Notebook 09_embedding_space: its experiment, what it records, its figures."""

from typing import Any

import numpy as np

from compendium.common import vs22
from compendium.nb09_embedding_space import judge, measure


def replicate(run: Any) -> None:
    """Record Fig. 12 and the sentences about it, from the logits alone."""
    epsilons = np.linspace(0, 1, run.parameters["fgsm_sizes"]).tolist()
    results = []
    for name in ("mnist", "organamnist"):
        rng = run.rng(vs22.SETS[name].title)
        split = vs22.reference_and_holdout(name, queries=run.parameters["images"], rng=rng)
        results.append(measure.logit_curves(split, epsilons, run.parameters["batch_size"], rng))
    judge.judge_curves(run, results)
