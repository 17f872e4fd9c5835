"""VS22's metric analysis (appendix C, Fig. 6 to 11) on our data: one image set attacked, and everything measured on it.

The measures themselves are in `geometry`; here they are applied over ε in both modes, beside coin flips as published.

References
----------
.. [1] D. K. Venkatesh, P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022), app. C;
   code: github.com/danushv07/n2gem, ad_attack/analysis.ipynb.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas
from scipy.spatial.distance import pdist

from advlib import models
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED
from compendium.common import vs22
from compendium.common.protocol import clean_neighbour_share
from compendium.common.splits import kept_by_split
from compendium.nb10_metric_analysis import geometry

COIN_FLIPS = "coin flips"
"""The attack as published with its signs from the toss of a coin; beside it stand FGSM as published and corrected."""

MAP_EPSILONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Columns of VS22's Fig. 9 to 11."""


@dataclass(frozen=True, eq=False, repr=False)
class Attacked:
    """One image set under FGSM in both modes, as points.

    Attributes
    ----------
    image_set : ImageSet
    classes : int
    epsilons : (e,) float64
        In each mode's own units.
    clean : (n, d) float32
        The untouched hold-out.
    labels : (n,) int64
        Its true classes.
    points : dict
        Mode's name or "coin flips" → (e, n, d) float32 pixels after the attack.
    predicted : dict
        Mode's name → (e, n) int64, what the network says of these pixels when they are normalised once, as VS22's
        analysis.ipynb asks it.
    manifold : ReferenceManifold or None
        Of the reference images' pixels; None where they are not looked at.
    middle : (d,) float32 or None
        The reference's mean.
    """

    image_set: vs22.ImageSet
    classes: int
    epsilons: np.ndarray
    clean: np.ndarray
    labels: np.ndarray
    points: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    manifold: ReferenceManifold | None = None
    middle: np.ndarray | None = None

    @property
    def class_counts(self) -> np.ndarray:
        """How often each class truly occurs, (classes,)."""
        return np.bincount(self.labels, minlength=self.classes)

    def at(self, epsilon: float) -> int:
        """Place of the ε that is nearest to the given one."""
        return int(np.abs(self.epsilons - epsilon).argmin())


@kept_by_split(4)
def attacked_alone(split: vs22.Split, epsilons: tuple[float, ...]) -> Attacked:
    """Attack one image set in both modes, and ask the network; references are not looked at.

    Parameters
    ----------
    split : vs22.Split
    epsilons : tuple of float
        In each mode's own units, see `vs22.fgsm_sweep`.
    """
    chosen, points, predicted = split.image_set, {}, {}
    model = models.load_trained(chosen.network)
    for mode in vs22.MODES:
        sweep = vs22.fgsm_images(mode, chosen, model, split.images, split.labels, epsilons)
        moved = list(track(sweep, f"{chosen.title}, {mode.name}", len(epsilons)))
        points[mode.name] = np.stack([vs22.flat(images) for images in moved])
        predicted[mode.name] = np.stack([models.predict(model, images, 50) for images in moved])
    classes, x = models.spec(chosen.network).classes, np.asarray(epsilons, float)
    return Attacked(chosen, classes, x, vs22.flat(split.images), split.labels, points, predicted)


def attacked_set(split: vs22.Split, epsilons: Sequence[float], rng: np.random.Generator) -> Attacked:
    """Do what `attacked_alone` does, attack with coin flips as published as well, and fit the references' balls.

    Parameters
    ----------
    split, epsilons
        As for `attacked_alone`.
    rng : numpy.random.Generator
        Flips the coins.
    """
    found = attacked_alone.__wrapped__(split, tuple(epsilons))
    flips = vs22.noise_sweep(split.images, epsilons, rng, vs22.AS_PUBLISHED, split.image_set)
    points = found.points | {COIN_FLIPS: np.stack([vs22.flat(images) for images in flips])}
    reference = vs22.flat(split.reference)
    manifold = ReferenceManifold(vs22.K).fit(reference)
    return replace(found, points=points, manifold=manifold, middle=reference.mean(axis=0))


def maps(attacked: Attacked, rng: np.random.Generator, epsilons: Iterable[float] = MAP_EPSILONS) -> list[dict]:
    """Make VS22's Fig. 9 for one image set: a map for each ε, as published, with the network's word for each image.

    Returns
    -------
    list of dict
        epsilon, places (n, 2), predicted (n,), and the `geometry.neighbour_agreement` in pixel space of what the
        network says (agreement) and of the same words dealt at random (chance).
    """
    found = []
    for epsilon in track(list(epsilons), f"{attacked.image_set.title}, maps"):
        at = attacked.at(epsilon)
        points, predicted = attacked.points[AS_PUBLISHED][at], attacked.predicted[AS_PUBLISHED][at]
        found.append(
            {
                "epsilon": float(attacked.epsilons[at]),
                "places": geometry.minimum_distortion_map(points, rng),
                "predicted": predicted,
                "agreement": geometry.neighbour_agreement(points, predicted),
                "chance": float(((np.bincount(predicted) / len(predicted)) ** 2).sum()),
            }
        )
    return found


def joint_map(attacked: Attacked, epsilon: float, rng: np.random.Generator) -> dict[str, Any]:
    """Put half of the clean images and the other half attacked on one map, corrected: only one map can be compared.

    Returns
    -------
    dict
        epsilon; real and adversarial (n/2, 2); real_labels (true classes); adversarial_predicted;
        nearest_is_clean: share of clean and share of attacked images whose nearest neighbour in pixel space is a clean
        one, as `protocol.clean_neighbour_share`; inside: share of attacked images that lie in any ball of the
        reference.
    """
    at = attacked.at(epsilon)
    order = rng.permutation(len(attacked.clean))
    half = len(order) // 2
    real, adversarial = order[:half], order[half : 2 * half]
    points = attacked.clean[real], attacked.points[CORRECTED][at][adversarial]
    places = geometry.minimum_distortion_map(np.concatenate(points), rng)
    return {
        "epsilon": float(attacked.epsilons[at]),
        "real": places[:half],
        "adversarial": places[half:],
        "real_labels": attacked.labels[real],
        "adversarial_predicted": attacked.predicted[CORRECTED][at][adversarial],
        "nearest_is_clean": clean_neighbour_share(*points),
        "inside": float((attacked.manifold.ball_counts(points[1]) > 0).mean()),
    }


@dataclass(frozen=True, eq=False, repr=False)
class Volumes:
    """Class clusters' volumes over ε, in one mode.

    Attributes
    ----------
    sums : (e, classes) float64
        `geometry.ball_sums`, the paper's, of the predicted classes (all of them; the paper's loop ends before the last
        ones).
    counts : (e, classes) int64
        Images in each predicted class.
    by_class, by_prediction : (e, classes) float64
        `geometry.log_volumes` of the true classes and of the predicted ones; NaN where there are too few images.
    """

    sums: np.ndarray
    counts: np.ndarray
    by_class: np.ndarray
    by_prediction: np.ndarray

    @property
    def count_correlation(self) -> float:
        """Correlation of log sum and log count over classes and ε: 1 would be a mere count."""
        there = self.counts > 0
        return float(np.corrcoef(np.log(self.sums[there]), np.log(self.counts[there]))[0, 1])

    @property
    def mean_change(self) -> np.ndarray:
        """Mean over the true classes of the log volume's change from the first ε, (e,)."""
        return np.nanmean(self.by_class - self.by_class[0], axis=1)


def volumes(attacked: Attacked, rng: np.random.Generator) -> dict[str, Volumes]:
    """Measure the class clusters' volumes over ε in both modes: the paper's number, and one that means something."""
    classes = attacked.classes
    size = max(10, len(attacked.clean) // (4 * classes))
    seed = int(rng.integers(2**31))

    def log_volumes(points: np.ndarray, labels: np.ndarray, stream: int) -> np.ndarray:
        # The same draw at every ε: what changes is the cluster.
        return geometry.log_volumes(points, labels, classes, size, np.random.default_rng([seed, stream]))

    found = {}
    for mode, predicted in attacked.predicted.items():
        steps = list(zip(attacked.points[mode], predicted, strict=True))
        found[mode] = Volumes(
            np.array([geometry.ball_sums(attacked.clean, *step, classes) for step in steps]),
            geometry.label_counts(predicted, classes),
            np.array([log_volumes(points, attacked.labels, 0) for points, _ in steps]),
            np.array([log_volumes(*step, 1) for step in steps]),
        )
    return found


@dataclass(frozen=True, eq=False, repr=False)
class CentreMoves:
    """Class centres over ε.

    Attributes
    ----------
    epsilons : (e,) float64
    shifts : dict
        Mode's name → (e,) mean distance by which the centres of the true classes are off, in pixels' units.
    threshold : float
        95 % quantile of the same between two clean halves.
    spacing : float
        Mean distance between two clean centres.
    scaled : list of dict
        As in Fig. 11: epsilon, distances (classes, classes) after scaling to the plane, again (from another random
        start), stress.
    """

    epsilons: np.ndarray
    shifts: dict[str, np.ndarray]
    threshold: float
    spacing: float
    scaled: list[dict]

    def onset(self, mode: str) -> float | None:
        """Smallest ε from which on the shift stays above the threshold, or None."""
        return geometry.start_of_last_run(self.shifts[mode] > self.threshold, self.epsilons)

    def beyond_chance(self, mode: str, epsilons: Iterable[float]) -> float:
        """Smallest shift over `threshold` at the sizes nearest to some ε."""
        at = [int(np.abs(self.epsilons - epsilon).argmin()) for epsilon in epsilons]
        return float((self.shifts[mode][at] / self.threshold).min())

    @property
    def start_difference(self) -> float:
        """Mean relative difference that another random start of the scaling makes at the smallest ε."""
        first, again = self.scaled[0]["distances"], self.scaled[0]["again"]
        there = ~np.isnan(first)
        return float(np.abs(first - again)[there].mean() / first[there].mean())


def centre_moves(attacked: Attacked, rng: np.random.Generator, *, scale: bool = True) -> CentreMoves:
    """Follow the class centres over ε: where they are, and after scaling to the plane as in Fig. 11, if asked for."""
    shifts, threshold = {}, 0.0
    seed = int(rng.integers(2**31))
    for mode in attacked.predicted:
        halves = np.random.default_rng(seed)
        shifts[mode], threshold = geometry.centre_shift(
            attacked.clean, attacked.points[mode], attacked.labels, attacked.classes, halves
        )
    clean = geometry.centres(attacked.clean, attacked.labels, attacked.classes)
    scaled = []
    for at in map(attacked.at, MAP_EPSILONS if scale else ()):
        points, predicted = attacked.points[AS_PUBLISHED][at], attacked.predicted[AS_PUBLISHED][at]
        now = geometry.centres(points, predicted, attacked.classes)
        (distances, stress), (again, _) = (
            geometry.scaled_centre_distances(clean, now, seed % 1000 + start) for start in (0, 1)
        )
        scaled.append(
            {"epsilon": float(attacked.epsilons[at]), "distances": distances, "again": again, "stress": stress}
        )
    spacing = float(pdist(clean[~np.isnan(clean).any(axis=1)]).mean())
    return CentreMoves(attacked.epsilons, shifts, threshold, spacing, scaled)


def density_parts(attacked: Attacked) -> dict[str, pandas.DataFrame]:
    """Follow density, and what it is made of, over ε: for both modes and for coin flips as published.

    Returns
    -------
    dict
        Mode's name or "coin flips" → a row an ε: what `geometry.position_among_balls` gives, and density.
    """
    manifold, found = attacked.manifold, {}
    for name, steps in attacked.points.items():
        rows = []
        for points in steps:
            hits = manifold.hits(points)
            position = geometry.position_among_balls(manifold.radii_, hits, points, attacked.middle)
            rows.append(position | {"density": hits.nnz / (len(points) * manifold.k)})
        found[name] = pandas.DataFrame(rows)
    return found


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """Everything that notebook 10 measures on one image set."""

    attacked: Attacked
    volumes: dict[str, Volumes]
    centres: CentreMoves
    balls: dict[str, pandas.DataFrame]

    def dominance(self, mode: str) -> tuple[int, float | None, float]:
        """Return the class most predicted at the largest ε, from which ε on it dominates, and its share there."""
        counts = geometry.label_counts(self.attacked.predicted[mode], self.attacked.classes)
        return geometry.dominance(counts, self.attacked.epsilons)

    def share(self, mode: str, label: int, beyond: float) -> float:
        """Smallest share of the predictions that a class has at the sizes above some ε."""
        late = self.attacked.epsilons > beyond + 1e-9
        return float((self.attacked.predicted[mode][late] == label).mean(axis=1).min())


def analyse(split: vs22.Split, epsilons: Sequence[float], rng: np.random.Generator) -> Analysis:
    """Attack one image set and measure labels, volumes, centres and balls over ε."""
    attacked = attacked_set(split, epsilons, rng)
    return Analysis(attacked, volumes(attacked, rng), centre_moves(attacked, rng), density_parts(attacked))
