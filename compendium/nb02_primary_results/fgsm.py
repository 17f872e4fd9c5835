"""VS22 §5.1, Fig. 3a: FGSM of notebook 02_primary_results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from advlib import models
from advlib.attacks import AdversarialBatch
from advlib.prdc import ReferenceManifold
from compendium.common.vs22 import (
    AS_PUBLISHED,
    EPSILONS,
    MODES,
    Curve,
    ImageSet,
    K,
    Mode,
    _stepped,
    density_coverage_curve,
    fgsm_sweep,
    flat,
    network,
    noise_sweep,
    reference_and_holdout,
    score,
    sub_batches,
)


@dataclass(frozen=True, eq=False)
class FgsmResult:
    """A column of Fig. 3a, in both modes, with a change of the same size and without an aim beside it.

    Attributes
    ----------
    image_set : ImageSet
    curves : dict
        Mode's name → Curve over ε.
    noise : dict
        Mode's name → Curve of the same steps with the gradient's sign replaced by the toss of a coin.
    spread : dict
        Mode's name → (n,) root mean square distance of the attacked images from their mean, over that of the clean.
    examples : dict
        Mode's name → (n_shown, c, h, w): one image, untouched and at each of `shown`.
    zero_gradient_share : dict
        Mode's name → share of pixels that the gradient does not move.
    pulled_density : float
        Density as published at the largest ε of images whose gradient is zero everywhere: only pulled into the bounds.
    holdout_accuracy : float
        Of the network on the whole hold-out, from its card.
    pooled, model_images, holdout_images, classes : int
        Of the image set, whatever part of it was run.
    """

    image_set: ImageSet
    curves: dict[str, Curve]
    noise: dict[str, Curve]
    spread: dict[str, np.ndarray] = field(repr=False)
    examples: dict[str, np.ndarray] = field(repr=False)
    zero_gradient_share: dict[str, float]
    pulled_density: float
    holdout_accuracy: float
    pooled: int
    model_images: int
    holdout_images: int
    classes: int


SHOWN = (0.3, 0.75, 1.0)
"""FGSM sizes of Fig. 2."""


def fgsm_experiment(
    chosen: ImageSet,
    *,
    epsilons: Sequence[float] = EPSILONS,
    queries: int = 0,
    batch_size: int = 100,
    k: int = K,
    rng: np.random.Generator,
) -> FgsmResult:
    """Run §5.1 on one image set: density and coverage over ε, both modes, and noise.

    Parameters
    ----------
    chosen : ImageSet
    epsilons : sequence of float
        Of the curves, rising.
    queries : int
        Images of the hold-out, 0 for all; references in the paper's proportion (`references_for`).
    batch_size : int
        Images in a sub-batch, for the bands.
    k : int
        Neighbour that sets a ball's radius.
    rng : numpy.random.Generator
        Of the subsets, the sub-batches and the noise.
    """
    split = reference_and_holdout(chosen.name, None, queries, rng)
    model = network(chosen)
    manifold = ReferenceManifold(k).fit(flat(split.reference))
    batches = sub_batches(len(split.images), batch_size, rng)
    clean = score(manifold, split.images, batches)
    curves, noise, spread, examples, zero = {}, {}, {}, {}, {}
    for mode in MODES:
        spread[mode.name] = []

        def attacked(mode: Mode = mode) -> Iterator[AdversarialBatch]:
            for batch in fgsm_sweep(mode, chosen, model, split.images, split.labels, epsilons):
                zero[mode.name] = batch.zero_gradient_share
                spread[mode.name].append(_spread(batch.images) / _spread(split.images))
                yield batch

        tosses = noise_sweep(split.images, epsilons, rng, mode, chosen)
        for found, sweep, what in ((curves, attacked(), "FGSM"), (noise, tosses, "noise")):
            found[mode.name] = density_coverage_curve(
                manifold,
                split.images,
                sweep,
                epsilons,
                batches,
                title=f"{chosen.title}, {what} {mode.name}",
                clean_score=clean,
            )
        one = fgsm_sweep(mode, chosen, model, split.images[:1], split.labels[:1], SHOWN)
        examples[mode.name] = np.concatenate([split.images[:1], *(batch.images for batch in one)])
    still = _stepped(AS_PUBLISHED.to_attack(chosen, split.images), np.zeros(split.images.shape, np.int8), max(epsilons))
    pulled = manifold.density(flat(AS_PUBLISHED.to_pixels(chosen, still)))
    card = models.card(chosen.network)
    sizes = card["split"]["train_size"], card["split"]["holdout_size"]
    classes = models.spec(chosen.network).classes
    spread = {name: np.array(values) for name, values in spread.items()}
    return FgsmResult(
        chosen, curves, noise, spread, examples, zero, pulled, float(card["accuracy"]), sum(sizes), *sizes, classes
    )


def _spread(images: np.ndarray) -> float:
    return float(np.sqrt(flat(images).var(0).sum()))
