"""Notebook 07_boundary_attack: its experiment, its verdicts, its figures."""

from typing import Any

from compendium.common import boundary, vs22
from compendium.nb07_boundary_attack import judge, measure, pathmnist_tiles


def replicate(run: Any) -> None:
    """Record §5.2 and its sentences on MNIST and OrganMNIST; an hour a run without a GPU.

    With one there is one attack a network, which takes minutes; seeds draw batches, references and noise.
    """
    chosen, gpu = run.parameters, boundary.on_gpu()
    found = measure.outcomes(
        [vs22.SETS[name] for name in boundary.GPU_IMAGES],
        [*boundary.GPU_IMAGES.values()] if gpu else [chosen["boundary_images"], chosen["medical_images"]],
        chosen["boundary_references"],
        [chosen["boundary_steps"], chosen["medical_steps"]],
        chosen["boundary_batch_sizes"],
        run.rng("sub-batches"),
        seed=0 if gpu else chosen["seed"],
    )
    judge.record(run, found, pathmnist_tiles.stored())
