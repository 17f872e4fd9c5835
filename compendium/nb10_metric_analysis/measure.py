"""VS22's metric analysis (appendix C, Fig. 6 to 11) on our data: one image set attacked, and everything measured on it.

The measures themselves are in `advlib.geometry`; here they are applied over ε in both modes, beside coin flips as
published, and compared with what the paper says.

References
----------
.. [1] D. K. Venkatesh, P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022), app. C;
   code: github.com/danushv07/n2gem, ad_attack/analysis.ipynb.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist

from advlib import models
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium.common import vs22
from compendium.common.protocol import clean_neighbour_share
from compendium.common.vs22 import ImageSet, Split
from compendium.nb10_metric_analysis.geometry import (
    ball_sums,
    centre_shift,
    centres,
    dominant,
    dominant_from,
    label_counts,
    log_volumes,
    minimum_distortion_map,
    neighbour_agreement,
    scaled_centre_distances,
    through_the_balls,
)

OLD, NEW, FLIPS = vs22.AS_PUBLISHED.name, vs22.CORRECTED.name, "coin flips"
"""What the images were moved by: FGSM in either mode, or, as published, by the toss of a coin for each sign."""

MAP_EPSILONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Columns of VS22's Fig. 9 to 11."""


@dataclass(frozen=True, eq=False)
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
    moved : dict
        Mode's name → (e, n, d) float32 pixels after the attack; "coin flips" likewise, with the attack as published
        and its signs from a coin.
    said : dict
        Mode's name → (e, n) int64, what the network says of these pixels when they are normalised once, as VS22's
        analysis.ipynb asks it.
    said_twice : (e, n) int64
        What the network says when it is fed as published, normalised twice, the network that was attacked.
    manifold : ReferenceManifold
        Of the reference images' pixels.
    middle : (d,) float32
        The reference's mean.
    """

    image_set: ImageSet
    classes: int
    epsilons: np.ndarray = field(repr=False)
    clean: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    moved: dict[str, np.ndarray] = field(repr=False)
    said: dict[str, np.ndarray] = field(repr=False)
    said_twice: np.ndarray = field(repr=False)
    manifold: ReferenceManifold = field(repr=False)
    middle: np.ndarray = field(repr=False)

    @property
    def truth(self) -> np.ndarray:
        """How often each class occurs, (classes,)."""
        return np.bincount(self.labels, minlength=self.classes)

    def at(self, epsilon: float) -> int:
        """Place of the ε that is nearest to the given one."""
        return int(np.abs(self.epsilons - epsilon).argmin())


def attacked_set(split: Split, epsilons: Sequence[float], rng: np.random.Generator) -> Attacked:
    """Attack one image set in both modes, and with coin flips as published, and ask the network.

    Parameters
    ----------
    split : vs22.Split
    epsilons : sequence of float
        In each mode's own units, see `vs22.fgsm_sweep`.
    rng : numpy.random.Generator
        Flips the coins.
    """
    chosen = split.image_set
    model = models.load_trained(chosen.network)
    moved, said = {}, {}
    for mode in vs22.MODES:
        batches = track(
            vs22.fgsm_sweep(mode, chosen, model, split.images, split.labels, epsilons),
            f"{chosen.title}, {mode.name}",
            len(epsilons),
        )
        points, once, twice = [], [], []
        for batch in batches:
            images = np.asarray(batch.images)
            points.append(vs22.flat(images))
            twice.append(np.asarray(batch.predictions))
            once.append(models.predict(model, images, 50) if mode.normalised_twice else twice[-1])
        moved[mode.name], said[mode.name] = np.stack(points), np.stack(once)
        if mode.normalised_twice:
            said_twice = np.stack(twice)
    flips = vs22.noise_sweep(split.images, epsilons, rng, vs22.AS_PUBLISHED, chosen)
    moved[FLIPS] = np.stack([vs22.flat(images) for images in flips])
    reference = vs22.flat(split.reference)
    return Attacked(
        chosen,
        models.spec(chosen.network).classes,
        np.asarray(epsilons, float),
        vs22.flat(split.images),
        split.labels,
        moved,
        said,
        said_twice,
        ReferenceManifold(vs22.K).fit(reference),
        reference.mean(axis=0),
    )


def maps(attacked: Attacked, rng: np.random.Generator, epsilons: Iterable[float] = MAP_EPSILONS) -> list[dict]:
    """Make VS22's Fig. 9 for one image set: a map for each ε, as published, with the network's word for each image.

    Returns
    -------
    list of dict
        epsilon, places (n, 2), said (n,), and the `neighbour_agreement` in pixel space of what the network says
        (agreement) and of the same words dealt at random (chance).
    """
    found = []
    for epsilon in track(list(epsilons), f"{attacked.image_set.title}, maps"):
        place = attacked.at(epsilon)
        points, said = attacked.moved[OLD][place], attacked.said[OLD][place]
        found.append(
            {
                "epsilon": float(attacked.epsilons[place]),
                "places": minimum_distortion_map(points, rng),
                "said": said,
                "agreement": neighbour_agreement(points, said),
                "chance": float(((np.bincount(said) / len(said)) ** 2).sum()),
            }
        )
    return found


def joint_map(attacked: Attacked, epsilon: float, rng: np.random.Generator) -> dict[str, Any]:
    """Put half of the clean images and the other half attacked on one map, corrected: only one map can be compared.

    Returns
    -------
    dict
        epsilon; real and adversarial (n/2, 2); real_labels and adversarial_labels (true classes); adversarial_said
        (what the network says); in_pixels and on_map: share of clean and share of attacked images whose nearest
        neighbour is a clean one, as `protocol.clean_neighbour_share`; inside: share of attacked images that lie in any
        ball of the reference.
    """
    place = attacked.at(epsilon)
    order = rng.permutation(len(attacked.clean))
    half = len(order) // 2
    real, adversarial = order[:half], order[half : 2 * half]
    points = attacked.clean[real], attacked.moved[NEW][place][adversarial]
    places = minimum_distortion_map(np.concatenate(points), rng)
    return {
        "epsilon": float(attacked.epsilons[place]),
        "real": places[:half],
        "adversarial": places[half:],
        "real_labels": attacked.labels[real],
        "adversarial_labels": attacked.labels[adversarial],
        "adversarial_said": attacked.said[NEW][place][adversarial],
        "in_pixels": clean_neighbour_share(*points),
        "on_map": clean_neighbour_share(places[:half], places[half:]),
        "inside": float((attacked.manifold.ball_counts(points[1]) > 0).mean()),
    }


@dataclass(frozen=True, eq=False)
class Volumes:
    """Class clusters' volumes over ε, in one mode.

    Attributes
    ----------
    sums : (e, classes) float64
        `ball_sums`, the paper's, of the predicted classes (all of them; the paper's loop ends before the last ones).
    counts : (e, classes) int64
        Images in each predicted class.
    by_truth, by_word : (e, classes) float64
        `log_volumes` of the true classes and of the predicted ones; NaN where there are too few images.
    size : int
        Images drawn from each cluster for them.
    """

    sums: np.ndarray = field(repr=False)
    counts: np.ndarray = field(repr=False)
    by_truth: np.ndarray = field(repr=False)
    by_word: np.ndarray = field(repr=False)
    size: int

    @property
    def count_correlation(self) -> float:
        """Correlation of log sum and log count over classes and ε: 1 would be a mere count."""
        there = self.counts > 0
        return float(np.corrcoef(np.log(self.sums[there]), np.log(self.counts[there]))[0, 1])

    @property
    def mean_change(self) -> np.ndarray:
        """Mean over the true classes of the log volume's change from the first ε, (e,)."""
        return np.nanmean(self.by_truth - self.by_truth[0], axis=1)


def volumes(attacked: Attacked, rng: np.random.Generator) -> dict[str, Volumes]:
    """Measure the class clusters' volumes over ε in both modes: the paper's number, and one that means something."""
    size = max(10, len(attacked.clean) // (4 * attacked.classes))
    seed = int(rng.integers(2**31))
    found = {}
    for mode in vs22.MODES:
        points, said = attacked.moved[mode.name], attacked.said[mode.name]
        sums, truth, word = [], [], []
        for moved, words in zip(points, said, strict=True):
            sums.append(ball_sums(attacked.clean, moved, words, attacked.classes))
            # The same draw at every ε: what changes is the cluster.
            draw = [np.random.default_rng([seed, kind]) for kind in (0, 1)]
            truth.append(log_volumes(moved, attacked.labels, attacked.classes, size, draw[0]))
            word.append(log_volumes(moved, words, attacked.classes, size, draw[1]))
        counts = label_counts(said, attacked.classes)
        found[mode.name] = Volumes(np.array(sums), counts, np.array(truth), np.array(word), size)
    return found


@dataclass(frozen=True, eq=False)
class CentreMoves:
    """Class centres over ε.

    Attributes
    ----------
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

    shifts: dict[str, np.ndarray] = field(repr=False)
    threshold: float
    spacing: float
    scaled: list[dict] = field(repr=False)

    def onset(self, mode: str, epsilons: np.ndarray) -> float | None:
        """Smallest ε from which on the shift stays above the threshold, or None."""
        below = np.flatnonzero(self.shifts[mode] <= self.threshold)
        start = below[-1] + 1 if len(below) else 0
        return float(epsilons[start]) if start < len(epsilons) else None

    @property
    def start_difference(self) -> float:
        """Mean relative difference that another random start of the scaling makes at the smallest ε."""
        return _difference(self.scaled[0]["distances"], self.scaled[0]["again"])

    @property
    def map_changes(self) -> np.ndarray:
        """Mean relative difference of each scaled matrix from that of the smallest ε."""
        return np.array([_difference(self.scaled[0]["distances"], step["distances"]) for step in self.scaled])


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    there = ~np.isnan(first) & ~np.isnan(second)
    return float(np.abs(first - second)[there].mean() / first[there].mean())


def centre_moves(attacked: Attacked, rng: np.random.Generator) -> CentreMoves:
    """Follow the class centres over ε: after scaling to the plane as in Fig. 11, and where they are."""
    shifts, threshold = {}, 0.0
    seed = int(rng.integers(2**31))
    for mode in vs22.MODES:
        halves = np.random.default_rng(seed)
        shifts[mode.name], threshold = centre_shift(
            attacked.clean, attacked.moved[mode.name], attacked.labels, attacked.classes, halves
        )
    clean = centres(attacked.clean, attacked.labels, attacked.classes)
    scaled = []
    for epsilon in MAP_EPSILONS:
        place = attacked.at(epsilon)
        name = OLD
        now = centres(attacked.moved[name][place], attacked.said[name][place], attacked.classes)
        (distances, stress), (again, _) = (scaled_centre_distances(clean, now, seed % 1000 + start) for start in (0, 1))
        scaled.append(
            {
                "epsilon": float(attacked.epsilons[place]),
                "distances": distances,
                "again": again,
                "stress": stress,
            }
        )
    there = ~np.isnan(clean).any(axis=1)
    return CentreMoves(shifts, threshold, float(pdist(clean[there]).mean()), scaled)


def among_the_balls(attacked: Attacked) -> dict[str, dict[str, np.ndarray]]:
    """Follow `through_the_balls` over ε, for both modes and for coin flips as published, with density and contrast.

    Returns
    -------
    dict
        Mode's name or "coin flips" → name → (e,) array: what `through_the_balls` gives, density, and contrast, the
        mean over images of the standard deviation of their pixels.
    """
    found = {}
    for name, steps in attacked.moved.items():
        lines: dict[str, list[float]] = {}
        for points in steps:
            hits = attacked.manifold.hits(points)
            there = through_the_balls(attacked.manifold.radii_, hits, points, attacked.middle)
            there["density"] = hits.nnz / (len(points) * attacked.manifold.k)
            there["contrast"] = float(points.std(axis=1).mean())
            for key, value in there.items():
                lines.setdefault(key, []).append(value)
        found[name] = {key: np.array(values) for key, values in lines.items()}
    return found


# ---------------------------------------------------------------- verdicts


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that notebook 10 measures on one image set."""

    attacked: Attacked
    volumes: dict[str, Volumes] = field(repr=False)
    centres: CentreMoves = field(repr=False)
    balls: dict[str, dict[str, np.ndarray]] = field(repr=False)

    def dominance(self, mode: str) -> tuple[int, float | None, float]:
        """Return the class most predicted at the largest ε, from which ε on it dominates, and its share there."""
        counts = label_counts(self.attacked.said[mode], self.attacked.classes)
        label, start = dominant_from(counts, self.attacked.truth, self.attacked.epsilons)
        return label, start, float(dominant(counts)[1][-1])


def analyse(split: Split, epsilons: Sequence[float], rng: np.random.Generator) -> Analysis:
    """Attack one image set and measure labels, volumes, centres and balls over ε."""
    attacked = attacked_set(split, epsilons, rng)
    return Analysis(attacked, volumes(attacked, rng), centre_moves(attacked, rng), among_the_balls(attacked))
