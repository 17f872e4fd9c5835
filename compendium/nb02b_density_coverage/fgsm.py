"""VS22 §5.1, Fig. 3a: density and coverage of FGSM's images over ε, in both modes, and what a coin flip does."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from advlib import models
from advlib.attacks import AdversarialBatch
from advlib.prdc import ReferenceManifold
from compendium.common import vs22
from compendium.common.vs22 import EPSILONS, MODES, Curve, ImageSet, flat


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
        Mode's name → list of the root mean square distance of the attacked images from their mean, over that of the
        clean ones, an entry an ε.
    zero_gradient_share : dict
        Mode's name → share of pixels that the gradient does not move.
    read_after_tosses : list of float
        Share of images that the network reads rightly after coin flips, corrected, an entry an ε.
    """

    image_set: ImageSet
    curves: dict[str, Curve] = field(default_factory=dict)
    noise: dict[str, Curve] = field(default_factory=dict)
    spread: dict[str, list[float]] = field(default_factory=dict, repr=False)
    zero_gradient_share: dict[str, float] = field(default_factory=dict)
    read_after_tosses: list[float] = field(default_factory=list, repr=False)


def fgsm_experiment(
    chosen: ImageSet, *, queries: int, batch_size: int, rng: np.random.Generator, judged_only: bool = False
) -> FgsmResult:
    """Run §5.1 on one image set: density and coverage over the paper's ε, both modes, and noise.

    Parameters
    ----------
    chosen : ImageSet
    queries : int
        Images of the hold-out, 0 for all; references in the paper's proportion (`vs22.references_for`).
    batch_size : int
        Images in a sub-batch, for the bands.
    rng : numpy.random.Generator
        Of the subsets, the sub-batches and the noise.
    judged_only : bool
        Leave out what no number and no sentence needs: noise elsewhere than at the peak of density.
    """
    split = vs22.reference_and_holdout(chosen.name, None, queries, rng)
    images, labels, model = split.images, split.labels, vs22.network(chosen)
    manifold = ReferenceManifold(vs22.K).fit(flat(split.reference))
    batches = vs22.sub_batches(len(images), batch_size, rng)
    clean = vs22.score(manifold, images, batches)
    result = FgsmResult(chosen)

    def watched(mode: vs22.Mode) -> Iterator[AdversarialBatch]:
        for batch in vs22.fgsm_sweep(mode, chosen, model, images, labels):
            result.zero_gradient_share[mode.name] = batch.zero_gradient_share
            result.spread.setdefault(mode.name, []).append(_spread(batch.images) / _spread(images))
            yield batch

    def tossed(mode: vs22.Mode, epsilons: Sequence[float]) -> Iterator[np.ndarray]:
        for moved in vs22.noise_sweep(images, epsilons, rng, mode, chosen):
            if mode is vs22.CORRECTED and not judged_only:
                result.read_after_tosses.append(models.accuracy(model, moved, labels))
            yield moved

    def curve(what: str, sweep: Iterable[np.ndarray | AdversarialBatch], epsilons: Sequence[float]) -> Curve:
        title = f"{chosen.title}, {what}"
        return vs22.density_coverage_curve(
            manifold, images, sweep, epsilons, batches, title=title, clean_score=clean
        )  # fmt: skip

    for mode in MODES:
        attacked = result.curves[mode.name] = curve(f"FGSM {mode.name}", watched(mode), EPSILONS)
        sizes = [EPSILONS[1 + attacked.density[1:].argmax()]] if judged_only else EPSILONS
        result.noise[mode.name] = curve(f"noise {mode.name}", tossed(mode, sizes), sizes)
    return result


def judged(chosen: ImageSet, *, queries: int, batch_size: int, rng: np.random.Generator) -> FgsmResult:
    """Run what is judged of `fgsm_experiment`; where reference and hold-out are whole, once for each network.

    Then nothing but sub-batches and coin flips is drawn, so that seeds would repeat the same work.

    Parameters
    ----------
    chosen, queries, batch_size, rng
        As for `fgsm_experiment`.
    """
    if queries or chosen.references:
        return fgsm_experiment(chosen, queries=queries, batch_size=batch_size, rng=rng, judged_only=True)
    return _whole(chosen.name, models.card(chosen.network)["sha256"], batch_size)


@lru_cache(maxsize=1)
def _whole(name: str, weights: str, batch_size: int) -> FgsmResult:
    """Run one set whole; `weights`, the digest of its network's, tells networks apart."""
    rng = np.random.default_rng(0)
    return fgsm_experiment(vs22.SETS[name], queries=0, batch_size=batch_size, rng=rng, judged_only=True)


def _spread(images: np.ndarray) -> float:
    return float(np.sqrt(flat(images).var(0).sum()))
