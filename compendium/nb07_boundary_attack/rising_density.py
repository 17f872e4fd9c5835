"""Why density can rise under attack: images moved toward the mean of the reference, without any attack.

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

from collections.abc import Iterable, Sequence

import numpy as np
import pandas

from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium.common import vs22

SHRUNK, CLIPPED = "shrunk toward the mean", "clipped alone"

FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""By which images are shrunk: at 0 all of them are the mean."""


def normalised(pixels: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Images (n, c, h, w) in units of the channels' deviations `std` from their means `mean`, (c,) each; float32."""
    return ((pixels - mean[:, None, None]) / std[:, None, None]).astype(np.float32)


def clipped_alone(images: np.ndarray, epsilon: float) -> np.ndarray:
    """Return what VS22's program makes of normalised images at ε where no pixel has a gradient.

    Clipped to (0, 1), each pixel by at most ε.

    Parameters
    ----------
    images : (n, c, h, w) float32 array
        Normalised, so most of them lie outside (0, 1).
    epsilon : float
        At least 0, in units of the normalised images.
    """
    return images + np.clip(np.clip(images, 0, 1) - images, -np.float32(epsilon), np.float32(epsilon))


def scores(
    name: str, manifold: ReferenceManifold, mean: np.ndarray, x: Sequence[float], moved: Iterable[np.ndarray]
) -> pandas.DataFrame:
    """Score queries that are moved step by step, all in one batch.

    Parameters
    ----------
    name : str
        What moves them.
    manifold : ReferenceManifold
    mean : (c, h, w) array
        Of the reference.
    x : sequence of float
        ε, or the factor, of each step.
    moved : iterable of (n, c, h, w) arrays
        The queries after each step.

    Returns
    -------
    pandas.DataFrame
        A row a step: name, x, density, coverage, and distance, the median one from the mean in the reference's units.
    """
    rows = []
    for step, images in zip(x, track(moved, name, len(x)), strict=True):
        density, coverage = manifold.density_coverage(vs22.flat(images).astype(np.float32))
        distance = np.median(np.linalg.norm(vs22.flat(images - mean), axis=1))
        rows.append({"name": name, "x": step, "density": density, "coverage": coverage, "distance": distance})
    return pandas.DataFrame(rows)


def moved_without_attack(
    manifold: ReferenceManifold, mean: np.ndarray, images: np.ndarray, epsilons: Sequence[float] = vs22.EPSILONS
) -> pandas.DataFrame:
    """Clip images alone over ε, and shrink them toward the mean of the reference over `FACTORS`; see `scores`.

    Parameters
    ----------
    manifold : ReferenceManifold
    mean : (c, h, w) array
        Of the reference.
    images : (n, c, h, w) float32 array
        Normalised.
    epsilons : sequence of float
    """
    clipped = (clipped_alone(images, epsilon) for epsilon in epsilons)
    shrunk = (mean + np.float32(factor) * (images - mean) for factor in FACTORS)
    return pandas.concat([
        scores(CLIPPED, manifold, mean, epsilons, clipped), scores(SHRUNK, manifold, mean, FACTORS, shrunk)
    ])  # fmt: skip


def controls(name: str, references: int, queries: int, rng: np.random.Generator) -> pandas.DataFrame:
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

    Returns
    -------
    pandas.DataFrame
        As `scores`, with the image set, its number of references and gain, density over that of the untouched queries.
    """
    split = vs22.reference_and_holdout(name, references, queries, rng)
    mean, std = split.reference.mean((0, 2, 3)), split.reference.std((0, 2, 3))
    reference = normalised(split.reference, mean, std)
    manifold = ReferenceManifold(k=vs22.K).fit(vs22.flat(reference))
    found = moved_without_attack(manifold, reference.mean(0), normalised(split.images, mean, std))
    gain = found["density"] / found.groupby("name")["density"].transform("first")
    return found.assign(**{"image set": split.image_set.title, "references": len(reference), "gain": gain})
