"""What an attack does to the classes' clusters: label counts, maps, volumes and distances of centres (VS22 appendix C).

Everything takes arrays: points (n, d) in the units of their pixels or features, labels (n,), seeds by generator.

Where VS22's own code (GitHub danushv07/n2gem, ad_attack/analysis.ipynb) and its text differ from what the words
"volume" and "distance" mean, both are here, the paper's under the names `ball_sums` and `scaled_centre_distances`.

References
----------
.. [1] D. K. Venkatesh, P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022), app. C.
.. [2] A. Agrawal, A. Ali, S. Boyd, "Minimum-distortion embedding", Foundations and Trends in Machine Learning 14
   (2021), doi:10.1561/2200000090.
.. [3] O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
   Multivariate Analysis 88 (2004), doi:10.1016/S0047-259X(03)00096-4.
"""

import numpy as np
import torch
from scipy import sparse, stats
from scipy.spatial.distance import cdist, pdist, squareform
from sklearn.decomposition import PCA
from sklearn.manifold import MDS
from sklearn.neighbors import NearestNeighbors

# ---------------------------------------------------------------- label counts (Fig. 6–8)


def label_counts(predictions: np.ndarray, classes: int) -> np.ndarray:
    """Count the predictions of each class, the bars of [1]_ Fig. 6–8.

    Parameters
    ----------
    predictions : (e, n) int array
        What the network says about n images at each of e attack sizes.
    classes : int
        Number of classes.

    Returns
    -------
    (e, classes) int64 array
    """
    return (np.asarray(predictions)[:, :, None] == np.arange(classes)).sum(axis=1)


def dominance(counts: np.ndarray, epsilons: np.ndarray) -> tuple[int, float | None, float]:
    """Return the class most predicted at the largest ε, the ε from which on it dominates, and its share at the end.

    It dominates where it is predicted more often than all other classes together: some class is always the most
    frequent one.

    Parameters
    ----------
    counts : (e, classes) int array
        From `label_counts`, one row for each of the ascending `epsilons` (e,).

    Returns
    -------
    label : int
        Of equally frequent classes the first.
    epsilon : float or None
        None if it does not even dominate at the largest ε.
    share : float
        Of the predictions at the largest ε.
    """
    label = counts[-1].argmax()
    shares = counts[:, label] / counts.sum(axis=1)
    return int(label), start_of_last_run(shares > 0.5, epsilons), float(shares[-1])


def start_of_last_run(holds: np.ndarray, epsilons: np.ndarray) -> float | None:
    """Return the ε from which on something holds up to the last ε, or None; both arrays (e,)."""
    fails = np.flatnonzero(~holds)
    start = fails[-1] + 1 if len(fails) else 0
    return float(epsilons[start]) if start < len(epsilons) else None


# ---------------------------------------------------------------- maps (Fig. 9)


def minimum_distortion_map(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Embed points in the plane so that neighbours stay neighbours, as [1]_ does: pymde, standardised ([2]_).

    The same problem as VS22's, `pymde.preserve_neighbors(…, constraint=pymde.Standardized())`. Theirs starts from a
    spectral map whose eigenvectors are found from an unseeded start; ours from the first two principal components, so
    that the same seed gives the same map and maps of like data lie alike. pymde draws from torch's and NumPy's global
    generators; both are put back afterwards.

    Parameters
    ----------
    points : (n, d) float array
        n ≥ 20.
    rng : numpy.random.Generator
        Gives pymde's seed.

    Returns
    -------
    (n, 2) float64 array
        Unitless: mean 0, covariance the identity, orientation arbitrary. Distances between far clusters, and areas,
        mean nothing; on separate maps not even places do.
    """
    import pymde  # heavy, and used here alone

    tensor = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))
    start = torch.tensor(PCA(2, svd_solver="full", whiten=True).fit_transform(tensor.numpy()).tolist())
    state = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            pymde.seed(int(rng.integers(2**31)))
            problem = pymde.preserve_neighbors(tensor, embedding_dim=2, constraint=pymde.Standardized(), init="random")
            # Copies lie on one place, where the distortion has no derivative; pymde helps its own start likewise.
            placed = problem.embed(X=start + 1e-4 * torch.randn(start.shape))
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return placed.detach().cpu().numpy().astype(np.float64)


def neighbour_agreement(points: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Share of the k nearest other points that carry the point's own label: how far a colouring is no accident.

    A picture's colours look like clusters where this is near 1; labels dealt at random give the sum of the squared
    label shares. Measured where the points lie, so no embedding is involved.

    Parameters
    ----------
    points : (n, d) float array
        n > k.
    labels : (n,) int array
    k : int
        Neighbours looked at, at least 1.
    """
    _, near = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()  # without arguments a point is not its own
    return float((labels[near] == labels[:, None]).mean())


# ---------------------------------------------------------------- volumes (Fig. 10)


def ball_sums(
    reference: np.ndarray, points: np.ndarray, labels: np.ndarray, classes: int, neighbours: int = 25
) -> np.ndarray:
    """Return what VS22's code calls the volume of a class's cluster ([1]_ Fig. 10, analysis.ipynb).

    For every point of the class, r is its distance to the `neighbours`-th nearest point of `reference` (the clean
    hold-out), and the points' 4/3·π·r³ are *summed*: a ball's volume in three dimensions, for images of d = 784 pixels.
    So it counts the points of the class, and r measures how far they lie from clean images, not how far from each
    other.

    Parameters
    ----------
    reference : (N, d) float array
        N ≥ `neighbours`.
    points : (n, d) float array
    labels : (n,) int array
        Class predicted for each point.
    classes : int
        Classes looked at are 0 … classes − 1; the paper's loop stops at 9 on data of ten or eleven classes, and
        points of other classes are left out, as there.
    neighbours : int
        25 in VS22's code.

    Returns
    -------
    (classes,) float64 array
        0 for a class without points.
    """
    distances, _ = NearestNeighbors(n_neighbors=neighbours).fit(reference).kneighbors(points)
    cubes = 4 / 3 * np.pi * distances[:, -1].astype(np.float64) ** 3
    return np.array([cubes[labels == label].sum() for label in range(classes)])


def log_volumes(
    points: np.ndarray, labels: np.ndarray, classes: int, size: int, rng: np.random.Generator
) -> np.ndarray:
    r"""Logarithm of each class's volume: of the ellipsoid that its shrunk covariance spans, a dimension.

    .. math:: \tfrac{1}{2d} \log \det \hat Σ

    with Ledoit and Wolf's \hat Σ ([3]_), which is regular even where points are fewer than dimensions. A difference of
    log 2 between two clusters says that one is twice as wide in the geometric mean over all directions. The constant
    log-volume of the unit ball is left out: it cancels in differences.

    Parameters
    ----------
    points : (n, d) float array
    labels : (n,) int array
        In 0 … classes − 1.
    classes : int
    size : int
        Points drawn from each class, without replacement, at least 2: shrinkage depends on the number of points, so
        clusters are only comparable at the same number.
    rng : numpy.random.Generator
        Draws them.

    Returns
    -------
    (classes,) float64 array
        Natural logarithm of a length, in the units of the points; NaN for a class with fewer than `size` points, or
        whose points are all the same.
    """
    found = np.full(classes, np.nan)
    for label in range(classes):
        mine = np.flatnonzero(labels == label)
        if len(mine) >= size:
            found[label] = log_volume(points[rng.choice(mine, size, replace=False)])
    return found


def log_volume(points: np.ndarray) -> float:
    r"""½ log det of the Ledoit–Wolf covariance over d, as in `log_volumes`, of one cluster (n, d), n ≥ 2.

    With S the covariance, μ = tr S / d and G the Gram matrix of the centred points, shrinkage towards μI is by

    .. math:: \frac{\min(β, δ)}{δ}, \quad δ = \lVert S - μI \rVert_F^2, \quad
        β = \tfrac{1}{n} \left(\tfrac{1}{n} \sum_k G_{kk}^2 - \lVert S \rVert_F^2\right)

    ([3]_, eq. 14), and all of it follows from G: no d × d matrix is made where n < d.
    NaN where all points are the same.
    """
    points = points.astype(np.float64)
    n, d = points.shape
    centred = points - points.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    if not squares.any():
        return float("nan")
    product = centred @ centred.T if n < d else centred.T @ centred
    spectrum = np.zeros(d)
    spectrum[: min(n, d)] = np.clip(np.linalg.eigvalsh(product / n), 0, None)
    mean = spectrum.mean()
    norm = (product**2).sum() / n**2
    spread = norm - d * mean**2
    error = min((squares**2).sum() / n**2 - norm / n, spread)
    shrinkage = error / spread if error > 0 else 0.0
    with np.errstate(divide="ignore"):
        return float(np.log((1 - shrinkage) * spectrum + shrinkage * mean).mean() / 2)


# ---------------------------------------------------------------- centres (Fig. 11)


def centres(points: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Mean of each class's points, (classes, d) float64; a row of NaN for a class without points."""
    found = np.full((classes, points.shape[1]), np.nan)
    for label in np.unique(labels):
        found[label] = points[labels == label].mean(axis=0, dtype=np.float64)
    return found


def scaled_centre_distances(clean: np.ndarray, attacked: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Distances of clean to attacked centres after multidimensional scaling to the plane, as in [1]_ Fig. 11.

    All centres' pairwise distances go into scikit-learn's iterative scaling (SMACOF) from a random start, and the
    distances are measured on the map it gives. No code of this figure is published; this follows the text.

    Parameters
    ----------
    clean, attacked : (k, d) float array
        Class centres; attacked rows may be NaN (no such prediction).
    seed : int
        Of the random start. Another start can end in another map.

    Returns
    -------
    distances : (k, k) float64 array
        Row: clean class, column: attacked class; NaN where there is no centre.
    stress : float
        Kruskal's stress-1 of the map: 0 is a perfect map, above 0.2 a poor one.
    """
    both = np.concatenate([clean, attacked])
    there = ~np.isnan(both).any(axis=1)
    wanted = squareform(pdist(both[there]))
    scaling = MDS(2, metric="precomputed", init="random", n_init=1, normalized_stress=False, random_state=seed)
    places = np.full((len(both), 2), np.nan)
    places[there] = scaling.fit_transform(wanted)
    mapped = squareform(pdist(places[there]))
    stress = np.sqrt(((mapped - wanted) ** 2).sum() / (wanted**2).sum())
    return cdist(places[: len(clean)], places[len(clean) :]), float(stress)


def centre_shift(
    clean: np.ndarray,
    attacked: np.ndarray,
    labels: np.ndarray,
    classes: int,
    rng: np.random.Generator,
    draws: int = 100,
) -> tuple[np.ndarray, float]:
    """How far the class centres move, against how far they seem to move when nothing happens.

    Each class's images are cut into two halves at random; the distance between the halves' centres, clean against
    clean, is the null, clean against attacked the shift. Both have the same noise, so they can be compared.

    Parameters
    ----------
    clean : (n, d) float array
    attacked : (e, n, d) float array
        The same images at e attack sizes.
    labels : (n,) int array
        True classes: a centre moves because images move, not because they are read as something else.
    classes : int
    rng : numpy.random.Generator
        Cuts the halves.
    draws : int
        Number of random cuts, at least 20.

    Returns
    -------
    shifts : (e,) float64 array
        Mean over classes and draws of the distance between the centre of one clean half and the centre of the other
        half attacked, in the units of the points.
    threshold : float
        The 95 % quantile over draws of the same mean with both halves clean.
    """
    groups = [np.flatnonzero(labels == label) for label in range(classes) if (labels == label).sum() >= 2]
    # A centre is a weighted mean of points, so all draws are one matrix product.
    first, second = np.zeros((2, draws * len(groups), len(clean)), dtype=np.float32)
    for line, group in enumerate(groups * draws):
        mixed = rng.permutation(group)
        half = len(mixed) // 2
        first[line, mixed[:half]] = 1 / half
        second[line, mixed[half:]] = 1 / (len(mixed) - half)
    origin = first @ clean
    null = np.linalg.norm(second @ clean - origin, axis=1).reshape(draws, -1).mean(axis=1)
    shifts = [float(np.linalg.norm(second @ moved - origin, axis=1).mean()) for moved in attacked]
    return np.array(shifts), float(np.quantile(null, 0.95))


# ---------------------------------------------------------------- why the curves bend


def far_share(radii: np.ndarray) -> float:
    """Share of radii (N,) beyond Tukey's fence, the upper quartile and one and a half times the quartiles' distance."""
    low, high = np.quantile(radii, (0.25, 0.75))
    return float(np.mean(radii > high + 1.5 * (high - low)))


def position_among_balls(
    radii: np.ndarray, hits: sparse.csr_array, points: np.ndarray, middle: np.ndarray
) -> dict[str, float]:
    """Say where a batch lies among reference balls, in numbers that explain density.

    Parameters
    ----------
    radii : (N,) float array
        Of the balls.
    hits : (n, N) bool sparse array
        From `advlib.prdc.ReferenceManifold.hits`.
    points : (n, d) float array
        The batch.
    middle : (d,) float array
        Mean of the reference.

    Returns
    -------
    dict
        inside: share of images in at least one ball. balls: mean number of balls around an image that is inside (0 if
        none is). radius_rank: mean rank, in (0, 1], of the radii of the balls that are hit (0 if none is); 0.5 would be
        balls of all sizes alike. to_middle: mean distance to the reference's mean.
    """
    counts, per_ball = (np.asarray(hits.sum(axis=axis)).ravel() for axis in (1, 0))
    ranks = stats.rankdata(radii, method="ordinal") / len(radii)
    inside = counts > 0
    return {
        "inside": float(inside.mean()),
        "balls": float(counts[inside].mean()) if inside.any() else 0.0,
        "radius_rank": float(np.average(ranks, weights=per_ball)) if inside.any() else 0.0,
        "to_middle": float(np.linalg.norm(points - middle, axis=1).mean()),
    }
