"""Why density can rise under attack: controls without any attack, and VS22's PathMNIST curves on a file of one's own.

VS22's strangest result is PathMNIST's density, which rises from 0.83 to 4.56 under FGSM and to 10.1 under the boundary
attack. Density counts balls, and in many dimensions most balls of a reference set overlap near its mean, where no
image lies: the distance of two images is about √2 times their distance from the mean, so the mean is nearer to each
image than its neighbours are (hubs; Radovanović et al. 2010 [1]_). Whatever moves images toward the mean therefore
raises density, attack or not. Two such movements are made here without any network:

- *shrinking*: mean + s · (image − mean), s from 1 to 0;
- *clipping alone*: FGSM's program without its step. On images that were normalised, x = (p − μ)/σ, the clip to (0, 1)
  is a clip of pixels to [μ, μ + σ], one-sided and narrow where μ and σ are the data's own: half of all pixels go to
  the mean. The program allows each pixel a way of ε, so this is a curve over ε, like the paper's.

References
----------
.. [1] M. Radovanović, A. Nanopoulos, M. Ivanović, "Hubs in space: popular nearest neighbors in high-dimensional data",
   JMLR 11, 2487-2531 (2010).
"""

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from advlib import attacks, datasets, models, training
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium import paths as places
from compendium.common import vs22

SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Factors by which images are shrunk toward the mean."""


@dataclass(frozen=True, eq=False)
class Movement:
    """What becomes of queries that are moved step by step.

    Attributes
    ----------
    name : str
        What moves them.
    x : (n,) float64
        ε, or the shrinking factor.
    density, coverage, error : (n,) float64
        Of all queries in one batch; standard error of density over the queries, the reference held fixed.
    distance : (n,) float64
        Median distance from the mean of the reference, in its units.
    accuracy : (n,) float64 or None
        Share read rightly, where a network was attacked.
    largest_class : (n,) float64 or None
        Share read as the most frequent class.
    """

    name: str
    x: np.ndarray = field(repr=False)
    density: np.ndarray = field(repr=False)
    coverage: np.ndarray = field(repr=False)
    error: np.ndarray = field(repr=False)
    distance: np.ndarray = field(repr=False)
    accuracy: np.ndarray | None = field(default=None, repr=False)
    largest_class: np.ndarray | None = field(default=None, repr=False)

    @property
    def gain(self) -> np.ndarray:
        """Density over the density of the untouched queries."""
        return self.density / self.density[0]


def clipped_alone(images: np.ndarray, epsilon: float) -> np.ndarray:
    """Return what VS22's program makes of normalised images at ε where no pixel has a gradient.

    Clipped to (0, 1), each pixel by at most ε.

    Parameters
    ----------
    images : (n, c, h, w) float32 array
        Normalised.
    epsilon : float
        At least 0, in units of the normalised images.
    """
    return stepped(images, np.zeros(1, np.float32), epsilon)


def stepped(images: np.ndarray, signs: np.ndarray, epsilon: float) -> np.ndarray:
    """Return FGSM's result as VS22's program gives it: step, clip to (0, 1), and back to within ε of the image.

    Parameters
    ----------
    images : (n, c, h, w) float32 array
        Normalised, so most of them lie outside (0, 1).
    signs : (n, c, h, w) array
        Direction of the step, −1, 0 and 1.
    epsilon : float
        At least 0, in units of the normalised images.
    """
    epsilon = np.float32(epsilon)
    return images + np.clip(np.clip(images + epsilon * signs, 0, 1) - images, -epsilon, epsilon)


def shrinking(
    manifold: ReferenceManifold, mean: np.ndarray, images: np.ndarray, factors: Sequence[float] = SHRINKS
) -> Movement:
    """Shrink images toward the mean of the reference, without any attack.

    Parameters
    ----------
    manifold : ReferenceManifold
    mean : (c, h, w) array
        Of the reference.
    images : (n, c, h, w) array
    factors : sequence of float
        From 1, the images themselves, to 0, the mean.
    """
    moved = [mean + np.float32(factor) * (images - mean) for factor in factors]
    return _movement("shrunk toward the mean", manifold, mean, moved, factors)


def clipping(
    manifold: ReferenceManifold, mean: np.ndarray, images: np.ndarray, epsilons: Sequence[float] = vs22.EPSILONS
) -> Movement:
    """Clip normalised images to (0, 1), each pixel by at most ε; see `clipped_alone`. All in normalised units."""
    return _movement("clipped alone", manifold, mean, [clipped_alone(images, e) for e in epsilons], epsilons)


def _movement(
    name: str,
    manifold: ReferenceManifold,
    mean: np.ndarray,
    moved: Sequence[np.ndarray],
    x: Sequence[float],
    said: Sequence[np.ndarray] | None = None,
    labels: np.ndarray | None = None,
) -> Movement:
    everything = [np.arange(len(moved[0]))]
    scores = [vs22.score(manifold, images.astype(np.float32), everything) for images in track(moved, name)]
    return Movement(
        name,
        np.asarray(x, float),
        np.array([score.density for score in scores]),
        np.array([score.coverage for score in scores]),
        np.array([score.density_error for score in scores]),
        np.array([np.median(np.linalg.norm(vs22.flat(images - mean), axis=1)) for images in moved]),
        None if said is None else np.array([np.mean(classes == labels) for classes in said]),
        None if said is None else np.array([np.bincount(classes).max() / len(classes) for classes in said]),
    )


@dataclass(frozen=True, eq=False)
class Controls:
    """One image set moved without an attack.

    Attributes
    ----------
    title : str
    n_reference, n_queries : int
    mean_in_balls : float
        Density of the reference's mean as a query: in how many balls it lies, over k.
    shrunk, clipped : Movement
    """

    title: str
    n_reference: int
    n_queries: int
    mean_in_balls: float
    shrunk: Movement
    clipped: Movement


def controls(name: str, references: int, queries: int, rng: np.random.Generator) -> Controls:
    """Shrink and clip the hold-out of one of `vs22.SETS`; no network and no attack is in it.

    Images are normalised by the reference's own mean and standard deviation, channel by channel.

    Parameters
    ----------
    name : str
        Key of `vs22.SETS`.
    references, queries : int
        Images of the model set and of the hold-out.
    rng : numpy.random.Generator
        Draws them.
    """
    split = vs22.reference_and_holdout(name, references, queries, rng)
    centre, scale = split.reference.mean((0, 2, 3)), split.reference.std((0, 2, 3))
    return _controls(
        split.image_set.title, _normalised(split.reference, centre, scale), _normalised(split.images, centre, scale)
    )


def _normalised(pixels: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return ((pixels - centre[:, None, None]) / scale[:, None, None]).astype(np.float32)


def _controls(title: str, reference: np.ndarray, images: np.ndarray) -> Controls:
    manifold = ReferenceManifold(k=vs22.K).fit(vs22.flat(reference))
    mean = reference.mean(0)
    return Controls(
        title,
        len(reference),
        len(images),
        float(manifold.density(vs22.flat(mean[None]))),
        shrinking(manifold, mean, images),
        clipping(manifold, mean, images),
    )


# ---------------------------------------------------------------- a file of one's own

NORMALISATIONS = ("own statistics", "one half")
"""What images are normalised by: the mean and standard deviation of the file's channels, or 0.5 and 0.5."""


@dataclass(frozen=True, eq=False)
class OwnFile:
    """VS22's PathMNIST experiment on the images of a file.

    Attributes
    ----------
    counts : dict
        Of images: in the file, labelled, reference, queries.
    accuracy : dict
        Normalisation → share of the queries that the network trained here reads rightly when it is fed as trained.
    mean, std : list of float
        Of the channels, in pixels of [0, 1].
    mean_in_balls : dict
        Normalisation → see `Controls`.
    movements : dict
        Normalisation, or "corrected", → list of Movement.
    boundary : dict
        Normalisation → density, coverage and counts of the boundary attack.
    """

    counts: dict[str, int]
    accuracy: dict[str, float]
    mean: list[float]
    std: list[float]
    mean_in_balls: dict[str, float]
    movements: dict[str, list[Movement]] = field(repr=False)
    boundary: dict[str, dict[str, float]] = field(repr=False)


def own_file_curves(
    path: str | os.PathLike,
    *,
    holdout: float = 0.225,
    epochs: int = 25,
    epsilons: Sequence[float] = vs22.EPSILONS,
    boundary_images: int = 100,
    boundary_steps: int = 1000,
    seed: int = 0,
) -> OwnFile:
    """Run FGSM as published and corrected, its controls and a short boundary attack on a file in MedMNIST's format.

    The labelled images are split; a network of VS22's Table 2 is trained on one part and the other part is attacked.
    Reference are that first part and all unlabelled images. What VS22 normalised PathMNIST with is not printed, so
    the published program is run with both `NORMALISATIONS`, each with a network of its own; density and coverage are
    those of normalised images, as in the paper.

    Parameters
    ----------
    path : path
        For `advlib.datasets.load_npz`.
    holdout : float
        Share of the labelled images that is attacked.
    epochs : int
        Of the training.
    epsilons : sequence of float
    boundary_images, boundary_steps : int
        Of the boundary attack.
    seed : int

    Raises
    ------
    ValueError, FileNotFoundError
        As `advlib.datasets.load_npz`.
    """
    data = datasets.load_npz(path)
    train, held = datasets.stratified_holdout(data.train_labels, holdout, seed=models.SPLIT_SEED)
    images, labels = data.train_images[held], data.train_labels[held]
    reference = data.train_images[train]
    if data.unlabelled_images is not None:
        reference = np.concatenate([reference, data.unlabelled_images])
    channels, classes = images.shape[1], len(data.class_names)
    mean, std = reference.mean((0, 2, 3)), reference.std((0, 2, 3))
    constants = {"own statistics": (mean, std), "one half": (np.full(channels, 0.5), np.full(channels, 0.5))}

    accuracy, hubs, movements, boundary = {}, {}, {}, {}
    for normalisation, (centre, scale) in constants.items():
        network = _network(data.train_images[train], data.train_labels[train], centre, scale, classes, epochs, seed)
        accuracy[normalisation] = models.accuracy(network, images, labels)
        points, queries = _normalised(reference, centre, scale), _normalised(images, centre, scale)
        bare = _controls(data.title, points, queries)
        hubs[normalisation] = bare.mean_in_balls
        manifold = ReferenceManifold(k=vs22.K).fit(vs22.flat(points))
        # The network normalises once more: that is the published program.
        signs = attacks.gradient_signs(network, queries, labels)
        attacked = [stepped(queries, signs, epsilon) for epsilon in epsilons]
        said = [models.predict(network, moved) for moved in attacked]
        fgsm = _movement("FGSM as published", manifold, points.mean(0), attacked, epsilons, said, labels)
        movements[normalisation] = [fgsm, bare.clipped, bare.shrunk]
        boundary[normalisation] = _boundary(
            manifold, network, queries[:boundary_images], labels[:boundary_images], boundary_steps, seed
        )
        if normalisation == "own statistics":
            moves = [attacks.fgsm(network, images, labels, epsilon).images for epsilon in epsilons]
            said = [models.predict(network, moved) for moved in moves]
            moves = [_normalised(moved, centre, scale) for moved in moves]
            correct = _movement("FGSM corrected", manifold, points.mean(0), moves, epsilons, said, labels)
            movements["corrected"] = [correct]
    counts = {
        "labelled": len(data.train_images),
        "unlabelled": 0 if data.unlabelled_images is None else len(data.unlabelled_images),
        "reference": len(reference),
        "queries": len(images),
    }
    return OwnFile(counts, accuracy, mean.tolist(), std.tolist(), hubs, movements, boundary)


def as_plain(found: OwnFile, title: str) -> dict[str, Any]:
    """Return a study as what JSON can hold, under a title that says what the file was.

    Parameters
    ----------
    found : OwnFile
    title : str
        For instance "PathMNIST, 4,495 train tiles".
    """
    return {
        "title": title,
        "counts": found.counts,
        "accuracy": found.accuracy,
        "mean": found.mean,
        "std": found.std,
        "mean_in_balls": found.mean_in_balls,
        "movements": {
            key: [
                {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(move).items()}
                for move in moves
            ]
            for key, moves in found.movements.items()
        },
        "boundary": found.boundary,
    }


STORED = "pathmnist_tiles.json"
"""File under `results/reference/` that holds the study of the PathMNIST tiles that could be had."""


def stored() -> dict[str, Any]:
    """Read the committed study of the PathMNIST tiles, as `as_plain` gives it."""
    return json.loads((places.REFERENCE / STORED).read_text(encoding="utf-8"))


def _network(
    images: np.ndarray, labels: np.ndarray, centre: np.ndarray, scale: np.ndarray, classes: int, epochs: int, seed: int
) -> models.Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden, head = models.vs22_medmnist(images.shape[1], classes)
    network = models.Classifier(models.Normalize(tuple(map(float, centre)), tuple(map(float, scale))), hidden, head)
    recipe = training.Recipe(epochs=epochs, max_lr=3e-3, batch_size=64, flip=True)
    training.fit(network, images, labels, recipe, seed=seed, progress=False)
    return network.eval().requires_grad_(False)


def _boundary(
    manifold: ReferenceManifold,
    network: models.Classifier,
    queries: np.ndarray,
    labels: np.ndarray,
    steps: int,
    seed: int,
) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no start was found")  # counted below
        batch = attacks.boundary(
            network, queries, labels, steps, rng=np.random.default_rng(seed), directions=50, outside=True
        )
    clean, attacked = (manifold.density_coverage(vs22.flat(x)) for x in (queries, batch.images))
    clipped = manifold.density_coverage(vs22.flat(clipped_alone(queries, 1e3)))
    found = manifold.ball_counts(vs22.flat(batch.images[batch.success])) if batch.success.any() else np.zeros(1)
    return {
        "images": len(queries),
        "steps": steps,
        "misread_before": int((~batch.clean_correct).sum()),
        "without_start": int((batch.clean_correct & (batch.l2 == 0)).sum()),
        "adversarial": int(batch.success.sum()),
        "clean_density": clean.density,
        "clean_coverage": clean.coverage,
        "density": attacked.density,
        "coverage": attacked.coverage,
        "density_of_adversarial": float(found.mean()) / manifold.k,
        "clipped_density": clipped.density,
        "clipped_coverage": clipped.coverage,
    }
