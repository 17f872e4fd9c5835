"""Density and coverage in a network's embeddings, beside pixel space (VS22 appendix C, Fig. 12).

The paper's text says "the embeddings from the last layer"; its code [1]_ takes the output of the last dense layer, the
logits. So both are here, the last hidden layer and the logits, and beside them pixel space.

References
----------
.. [1] D. K. Venkatesh, P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022); code:
   github.com/danushv07/n2gem, classes FXMNIST and FXMed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from advlib import models
from advlib.attacks import AdversarialBatch
from advlib.models import Classifier
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium.common import vs22
from compendium.common.curves import score_hits
from compendium.common.splits import kept_by_split
from compendium.common.vs22 import Curve, ImageSet, Score, Split

PIXELS, HIDDEN, LOGITS = "pixels", "last hidden layer", "logits"

STATISTICS = ("density", "coverage")


def embeddings(model: Classifier, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images as points of every space, by its name; the network runs once for both of its layers.

    Parameters
    ----------
    model : Classifier
    images : (n, c, h, w) float32 array
        In [0, 1].

    Returns
    -------
    dict
        Space → (n, d) float32: the pixels, the last hidden layer (d = 64), the logits (d = classes).
    """
    hidden = models.embed(model, images, batch_size=50)  # few images fit into a CPU's cache: twice as fast
    with torch.inference_mode():
        device = next(model.parameters()).device
        logits = model.head(torch.from_numpy(hidden).to(device)).cpu().numpy()
    return {PIXELS: vs22.flat(images), HIDDEN: hidden, LOGITS: logits}


# ---------------------------------------------------------------- curves


@dataclass(frozen=True, eq=False)
class SpaceCurves:
    """One image set's curves in every space.

    Attributes
    ----------
    image_set : ImageSet
    as_published, corrected : dict
        Space → `vs22.Curve` over ε under FGSM, in the mode of that name.
    noise : dict
        Space → `vs22.Curve` over ε under random ±ε, a change without an aim, as large as corrected FGSM's.
    shared : float
        Share of neighbours that pixels and logits have in common, see `shared_neighbours`.
    """

    image_set: ImageSet
    as_published: dict[str, Curve] = field(repr=False)
    corrected: dict[str, Curve] = field(repr=False)
    noise: dict[str, Curve] = field(repr=False)
    shared: float = 1.0

    def by_mode(self) -> dict[str, dict[str, Curve]]:
        """Return mode → space → curve, the attack's modes alone."""
        return {vs22.AS_PUBLISHED.name: self.as_published, vs22.CORRECTED.name: self.corrected}


def space_curves(split: Split, epsilons: Sequence[float], batch_size: int, rng: np.random.Generator) -> SpaceCurves:
    """Attack one image set by FGSM and score the images in every space.

    The attack is the same for all spaces, and so are the sub-batches: what differs is where the balls are.

    Parameters
    ----------
    split : vs22.Split
        Reference and queries.
    epsilons : sequence of float
        FGSM sizes in the mode's own units, see `vs22.fgsm_sweep`.
    batch_size : int
        Images in a sub-batch.
    rng : numpy.random.Generator
        Draws sub-batches and noise.
    """
    chosen = split.image_set
    model = models.load_trained(chosen.network)
    batches = vs22.sub_batches(len(split.images), batch_size, rng)
    clean, references = embeddings(model, split.images), embeddings(model, split.reference)
    manifolds = {space: ReferenceManifold(vs22.K).fit(points) for space, points in references.items()}
    clean_scores = {space: vs22.score(manifold, clean[space], batches) for space, manifold in manifolds.items()}

    def curves(name: str, queries: Iterable[AdversarialBatch | np.ndarray]) -> dict[str, Curve]:
        scores: dict[str, list[Score]] = {space: [] for space in manifolds}
        for query in track(queries, f"{chosen.title}, {name}", len(epsilons)):
            points = embeddings(model, getattr(query, "images", query))
            answers = _answers(query, points[LOGITS], split.labels)
            for space, manifold in manifolds.items():
                scores[space].append(replace(vs22.score(manifold, points[space], batches), **answers))
        sizes = len(split.reference), len(split.images), batch_size, vs22.K
        x = np.asarray(epsilons, float)
        return {
            space: Curve(f"{chosen.title}, {space}, {name}", x, clean_scores[space], tuple(found), *sizes)
            for space, found in scores.items()
        }

    by_mode = (
        curves(mode.name, vs22.fgsm_sweep(mode, chosen, model, split.images, split.labels, epsilons))
        for mode in vs22.MODES
    )
    noise = vs22.noise_sweep(split.images, epsilons, rng)
    shared = shared_neighbours(*((found[PIXELS], found[LOGITS]) for found in (clean, references)))
    return SpaceCurves(chosen, *by_mode, curves("±ε noise", noise), shared)


def shared_neighbours(
    queries: tuple[np.ndarray, np.ndarray], references: tuple[np.ndarray, np.ndarray], k: int = vs22.K, most: int = 500
) -> float:
    """Share of its k nearest references that a query has in common in two spaces, mean over queries.

    Parameters
    ----------
    queries, references : two (m, d) and two (N, d) arrays
        The same images in either space.
    k : int
    most : int
        Queries looked at, at even steps.
    """
    near = []
    for points, others in zip(queries, references, strict=True):
        chosen = points[np.arange(min(most, len(points))) * len(points) // min(most, len(points))]
        near.append(NearestNeighbors(n_neighbors=k, algorithm="brute").fit(others).kneighbors(chosen)[1])
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(*near, strict=True)]))


# ---------------------------------------------------------------- the logits alone, for runs that differ in their seed


@kept_by_split(2)
def _clean_logits(split: Split) -> tuple[ReferenceManifold, sparse.csr_array, float]:
    """Fit the references' balls in the logits, find those around the queries; and `SpaceCurves.shared`."""
    model = models.load_trained(split.image_set.network)
    references, queries = (models.logits(model, images, 50) for images in (split.reference, split.images))
    manifold = ReferenceManifold(vs22.K).fit(references)
    shared = shared_neighbours((vs22.flat(split.images), queries), (vs22.flat(split.reference), references))
    return manifold, manifold.hits(queries), shared


@kept_by_split(4)
def _attacked_logits(
    queries: Split, mode: vs22.Mode, epsilons: tuple[float, ...]
) -> list[tuple[np.ndarray, dict[str, float]]]:
    """Attack queries, whatever the reference is: logits, and what the network says, at each ε."""
    model, found = models.load_trained(queries.image_set.network), []
    for batch in vs22.fgsm_sweep(mode, queries.image_set, model, queries.images, queries.labels, epsilons):
        logits = models.logits(model, batch.images, 50)
        found.append((logits, _answers(batch, logits, queries.labels)))
    return found


def logit_curves(split: Split, epsilons: Sequence[float], batch_size: int, rng: np.random.Generator) -> SpaceCurves:
    """Do what `space_curves` does in the logits, without noise; what the seed does not change is kept.

    Parameters
    ----------
    split, epsilons, batch_size, rng
        As for `space_curves`.
    """
    batches = vs22.sub_batches(len(split.images), batch_size, rng)
    manifold, clean, shared = _clean_logits(split)
    sizes = len(split.reference), len(split.images), batch_size, vs22.K
    none = split.reference_index[:0]
    queries = replace(split, reference=split.reference[:0], reference_labels=none, reference_index=none)
    found = []
    for mode in vs22.MODES:
        attacked = _attacked_logits(queries, mode, tuple(epsilons))
        scores = tuple(
            replace(score_hits(manifold, manifold.hits(logits), batches), **answers) for logits, answers in attacked
        )
        x, before = np.asarray(epsilons, float), score_hits(manifold, clean, batches)
        found.append({LOGITS: Curve(f"{split.image_set.title}, {mode.name}", x, before, scores, *sizes)})
    return SpaceCurves(split.image_set, *found, {}, shared)


def _answers(query: AdversarialBatch | np.ndarray, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Say how many images the network reads rightly, and where it was attacked how many were turned."""
    if isinstance(query, AdversarialBatch):
        return {"accuracy": query.adversarial_accuracy, "success": float(np.mean(query.success))}
    return {"accuracy": float(np.mean(logits.argmax(axis=1) == labels))}


# ---------------------------------------------------------------- what a decision gets, and verdicts


def power(curve: Curve) -> np.ndarray:
    """Power at 5 % false alarms of the better of density and coverage, two-sided, for one sub-batch at each ε, (e,).

    The better of two is chosen with hindsight; a test that combines them pays for that (notebook 13).
    """
    return np.maximum(*(curve.decisions(statistic)[1] for statistic in STATISTICS))


def attack_beyond_noise(curves: SpaceCurves, largest: float = 0.35) -> dict[str, float]:
    """Return how well each space tells FGSM from aimless noise of the same size, where it does so best.

    Parameters
    ----------
    curves : SpaceCurves
    largest : float
        ε up to which it is looked for; beyond, everything is flagged.

    Returns
    -------
    dict
        Space → power on FGSM minus power on ±ε noise, of the same statistic, the larger of density's and coverage's.
    """
    found = {}
    for space, attack in curves.corrected.items():
        gaps = [attack.decisions(name)[1] - curves.noise[space].decisions(name)[1] for name in STATISTICS]
        found[space] = float(np.max(gaps, axis=0)[attack.x <= largest].max())
    return found


def power_where_it_works(curve: Curve, share: float = 0.5) -> float | None:
    """Smallest `power` over the ε at which the attack turned at least `share` of all images; None if it never did."""
    works = np.array([score.success is not None and score.success >= share for score in curve.scores])
    return float(power(curve)[works].min()) if works.any() else None
