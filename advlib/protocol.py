"""The papers' experiments as functions of arrays: draws in, statistics out. All randomness from one generator.

References
----------
G17: L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017).
VS22: D. K. Venkatesh and P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from advlib.prdc import ReferenceManifold
from advlib.progress import track
from advlib.ulsif import ULSIF, GridEdgeWarning, fit_batch_indices


@dataclass(frozen=True)
class Summary:
    """Mean of repeated draws with its 95 % confidence interval (Student's t over the draws)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Summary":
        """Summarise `values` (t,), t ≥ 2 draws."""
        mean = float(np.mean(values))
        half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
        return cls(mean, mean - half, mean + half)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f}, {self.high:.2f})"


def departure(ratios: np.ndarray) -> np.ndarray:
    """How far a mean density ratio lies from 1, in either direction: |log R|.

    G17 decides by "far from 1"; the logarithm makes a half and a double equally far. R = 0 is infinitely far.
    """
    with np.errstate(divide="ignore"):
        return np.abs(np.log(ratios))


def auroc(null: np.ndarray, alternative: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a draw of `alternative` (n,) scores above one of `null` (m,).

    Ties count one half, infinite scores are allowed (Mann & Whitney 1947).
    """
    ranks = stats.rankdata(np.concatenate([null, alternative]))
    above = ranks[len(null) :].sum() - len(alternative) * (len(alternative) + 1) / 2
    return float(above / (len(null) * len(alternative)))


def tpr_at_fpr(null: np.ndarray, alternative: np.ndarray, fpr: float = 0.05) -> float:
    """Share of `alternative` (n,) above the threshold that at most `fpr` of `null` (m,) exceeds."""
    allowed = int(np.floor(fpr * len(null)))
    threshold = np.sort(null)[len(null) - 1 - allowed]
    return float(np.mean(alternative > threshold))


@dataclass(frozen=True)
class RatioComparison:
    """Algorithm 1's two statistics over the draws, for one channel or for the combined estimate.

    Attributes
    ----------
    r1 : (t,) float64
        Mean density ratio, real against adversarial.
    r2 : (t,) float64
        Mean density ratio, real against real, same indices.
    """

    r1: np.ndarray
    r2: np.ndarray

    @cached_property
    def r1_summary(self) -> Summary:
        """Mean and 95 % interval of R1."""
        return Summary.of(self.r1)

    @cached_property
    def r2_summary(self) -> Summary:
        """Mean and 95 % interval of R2."""
        return Summary.of(self.r2)

    @cached_property
    def auroc(self) -> float:
        """How well one draw of R1 is told from one draw of R2 by its distance from 1."""
        return auroc(departure(self.r2), departure(self.r1))

    @cached_property
    def tpr_at_5_fpr(self) -> float:
        """Share of R1 draws flagged at the threshold that 5 % of the R2 draws exceed."""
        return tpr_at_fpr(departure(self.r2), departure(self.r1))


def _pool(images: np.ndarray, name: str) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"{name} must be images of shape (n, c, h, w), but has shape {images.shape}")
    return images.reshape(len(images), images.shape[1], -1)


def draw_indices(n: int, draws: int, size: int, rng: np.random.Generator, name: str = "batch_size") -> np.ndarray:
    """Draw index sets of Algorithm 1: each without replacement, independent of each other.

    Parameters
    ----------
    n : int
        Images there are.
    draws, size : int
        Number of sets and images in each; `name` is what the caller calls the size.

    Returns
    -------
    (draws, size) int64 array

    Raises
    ------
    ValueError
        When size is below 1 or above n, or draws is below 2.
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2 (a confidence interval needs a spread), but is {draws}")
    if not 1 <= size <= n:
        raise ValueError(f"{name} must lie between 1 and the {n} images there are, but is {size}")
    return np.stack([rng.choice(n, size, replace=False) for _ in range(draws)])


def mean_ratios(
    numerators: np.ndarray,
    denominators: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    kernel: str = "gaussian",
    **estimator,
) -> np.ndarray:
    """Mean density ratio of each draw, numerators[a[t]] against denominators[b[t]], over the numerator.

    The papers' grid of σ and λ is part of their method, so that the best value lies at its edge is no warning here.

    Parameters
    ----------
    numerators, denominators : (n, d) float array
    a, b : (t, size) int array
        Rows of each draw.
    kernel : str
        "gaussian" or "unsquared".
    **estimator
        Passed to `advlib.ulsif.fit_batch_indices`.

    Returns
    -------
    (t,) float64 array
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        return fit_batch_indices(numerators, denominators, a, b, kernel=kernel, **estimator).mean_ratio_


def density_ratio_comparison(
    real: np.ndarray,
    adversarial: np.ndarray,
    *,
    draws: int = 100,
    batch_size: int = 100,
    denominator_size: int | None = None,
    numerators: np.ndarray | None = None,
    rng: np.random.Generator,
    **estimator,
) -> dict[str, RatioComparison]:
    """Run G17's Algorithm 1: density ratios of clean against suspect and of clean against clean batches.

    Each draw takes index sets a and b, fits p(real[a]) / p(adversarial[b]) and p(real[a]) / p(real[b]) by uLSIF and
    keeps the mean ratio over the numerator: R1 and R2. Colour images are fitted channel by channel; the combined
    estimate is the mean of the channels' (G17 eq. 4). Every channel sees the same draws.

    Parameters
    ----------
    real, adversarial : (n, c, h, w) float array
        adversarial[i] was made from real[i].
    draws : int
        t of the paper.
    batch_size : int
        m of the paper, for numerator and denominator.
    denominator_size : int, optional
        Size of b where it differs from that of a (G17 §4.5).
    numerators : (N, c, h, w) float array, optional
        Clean images that a is drawn from, where only some of them were attacked; `real` by default. The more there
        are, the fewer images do a and b share, and shared images pull R2 down.
    rng : numpy.random.Generator
        Source of all randomness: the index sets and the choice of kernel centres.
    **estimator
        Passed to `mean_ratios` (kernel, sigmas, lambdas, n_kernels …).

    Returns
    -------
    dict
        "channel 0", "channel 1", … and "combined" → RatioComparison; one channel has "combined" only.

    Raises
    ------
    ValueError
        When the two pools differ in shape, are not images, or sizes do not fit.
    """
    real, adversarial = _pool(real, "real"), _pool(adversarial, "adversarial")
    if real.shape != adversarial.shape:
        raise ValueError(
            f"real and adversarial must pair up, but have shapes {real.shape} and {adversarial.shape} (n, c, h·w)"
        )
    clean = real if numerators is None else _pool(numerators, "numerators")
    if clean.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"numerators must be images like real, but have shapes {clean.shape} and {real.shape} (n, c, h·w)"
        )
    # a and b of one draw may share images, as in the paper.
    a = draw_indices(len(clean), draws, batch_size, rng)
    b = draw_indices(len(real), draws, denominator_size or batch_size, rng, "denominator_size")
    estimator.setdefault("random_state", int(rng.integers(2**31)))

    ratios: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for channel in track(range(real.shape[1]), "density ratios, channel"):
        ratios[f"channel {channel}"] = tuple(
            mean_ratios(clean[:, channel], pool[:, channel], a, b, **estimator) for pool in (adversarial, real)
        )
    combined = tuple(np.mean([pair[side] for pair in ratios.values()], axis=0) for side in (0, 1))
    if len(ratios) == 1:
        ratios.clear()
    return {name: RatioComparison(*pair) for name, pair in {**ratios, "combined": combined}.items()}


def disjoint_mean_ratio(numerator: np.ndarray, sigma: float, lambda_: float, kernel: str = "gaussian") -> float:
    """Mean density ratio over the numerator when the denominator is out of every kernel's reach: ‖ĥ‖² / λ.

    With no kernel value left between the samples, Ĥ = 0, so θ = (Ĥ + λI)⁻¹ĥ = ĥ/λ, and the mean over the numerator of
    φ(x)·θ is ĥ·θ = ‖ĥ‖²/λ. All numerator points are centres. It depends on the numerator alone.

    Parameters
    ----------
    numerator : (n, d) float array
    sigma, lambda_ : float
        Kernel width and regularisation.
    kernel : str
        "gaussian" or "unsquared".
    """
    distance = cdist(numerator, numerator, "sqeuclidean" if kernel == "gaussian" else "euclidean")
    h = np.exp(-distance / (2 * sigma**2)).mean(axis=0)
    return float(h @ h / lambda_)


def joint_maps(
    batches: Mapping[str, Mapping[str, np.ndarray]], rng: np.random.Generator
) -> dict[str, dict[str, np.ndarray]]:
    """Embed clean and adversarial images on one t-SNE map of raw pixels, a map for each data set.

    G17's Fig. 2 draws two separate maps, whose axes have nothing to do with each other; one map can be compared.

    Parameters
    ----------
    batches : dict
        Title → dict with `real` and `adversarial` (n, c, h, w) of different images and the labels of both,
        `real_labels` and `adversarial_labels` (n,).

    Returns
    -------
    dict
        Title → the same keys, images replaced by (n, 2) unitless coordinates.
    """
    maps = {}
    for title, batch in track(batches.items(), "t-SNE", len(batches)):
        n = len(batch["real"])
        both = np.concatenate([batch["real"], batch["adversarial"]]).reshape(2 * n, -1)
        tsne = TSNE(init="pca", random_state=int(rng.integers(2**31)), perplexity=min(30, n // 2))
        embedded = tsne.fit_transform(both)
        maps[title] = {**batch, "real": embedded[:n], "adversarial": embedded[n:]}
    return maps


def clean_neighbour_share(real: np.ndarray, adversarial: np.ndarray) -> tuple[float, float]:
    """Share of clean and of adversarial images whose nearest other image, in pixel space, is a clean one.

    Two batches of one distribution give one half each; no embedding is involved.

    Parameters
    ----------
    real, adversarial : (n, c, h, w) float array
        Of different images: a twin would be its image's neighbour, and an independent batch has none.

    Returns
    -------
    of_real, of_adversarial : float
    """
    n = len(real)
    both = np.concatenate([real, adversarial]).reshape(2 * n, -1)
    _, neighbours = NearestNeighbors(n_neighbors=2).fit(both).kneighbors(both)
    own = np.arange(2 * n)
    nearest = np.where(neighbours[:, 0] == own, neighbours[:, 1], neighbours[:, 0])
    clean = nearest < n
    return float(clean[:n].mean()), float(clean[n:].mean())


def clean_distance_auroc(real: np.ndarray, adversarial: np.ndarray) -> float:
    """AUROC of the distance to the nearest other clean image, in pixel space: 1 where all adversarial lie further off.

    A question that noise cannot evade: two batches of one distribution give one half.

    Parameters
    ----------
    real, adversarial : (n, c, h, w) float array
        Of different images, as for `clean_neighbour_share`.
    """
    clean, suspect = (batch.reshape(len(batch), -1) for batch in (real, adversarial))
    tree = NearestNeighbors(n_neighbors=1).fit(clean)
    among_clean, _ = tree.kneighbors()  # without arguments a point is not its own neighbour
    return auroc(among_clean[:, 0], tree.kneighbors(suspect)[0][:, 0])


def ratio_in_one_dimension(samples: int, rng: np.random.Generator) -> dict[str, object]:
    """Fit uLSIF to two normal samples whose true density ratio is known.

    The numerator is N(0, 1), the denominator N(0.8, 1.3²): the wider density is below, so the ratio is bounded.

    Returns
    -------
    dict
        x (400,), p_numerator, p_denominator, true_ratio, estimate (400,), the samples numerator, denominator
        (samples,), sigma, lambda, mean_ratio (over the numerator), mean_true_ratio (likewise), and correlation of
        estimate and truth over the numerator.
    """
    numerator, denominator = rng.normal(0, 1, samples), rng.normal(0.8, 1.3, samples)
    x = np.linspace(-4, 5, 400)
    model = ULSIF(random_state=int(rng.integers(2**31))).fit(numerator[:, None], denominator[:, None])
    p_numerator, p_denominator = stats.norm.pdf(x), stats.norm.pdf(x, 0.8, 1.3)

    def truth(points: np.ndarray) -> np.ndarray:
        return stats.norm.pdf(points) / stats.norm.pdf(points, 0.8, 1.3)

    at_samples = model.predict(numerator[:, None])
    return {
        "x": x,
        "p_numerator": p_numerator,
        "p_denominator": p_denominator,
        "true_ratio": truth(x),
        "estimate": model.predict(x[:, None]),
        "numerator": numerator,
        "denominator": denominator,
        "sigma": model.sigma_,
        "lambda": model.lambda_,
        "mean_ratio": float(np.mean(at_samples)),
        "mean_true_ratio": float(np.mean(truth(numerator))),
        "correlation": float(np.corrcoef(at_samples, truth(numerator))[0, 1]),
    }


def points_through_balls(shifts: list[float], rng: np.random.Generator, k: int = 2) -> list[dict[str, object]]:
    """Move a batch through the k-nearest-neighbour balls of a reference in the plane (VS22 Fig. 5).

    The batch starts scattered as the reference is, is drawn in towards the middle, and leaves. In both, one point in
    four lies far out, as unusual images do: lonely points get large balls that reach over the middle.

    Parameters
    ----------
    shifts : list of float
        How far along the path each picture is taken; 0 is the untouched batch.
    rng : numpy.random.Generator
        Source of the points.
    k : int
        Number of neighbours; the paper's figure has 2.

    Returns
    -------
    list of dict
        shift, reference (40, 2), radii (40,), queries (25, 2), density, coverage.
    """

    def scattered(n: int) -> np.ndarray:
        return rng.normal(size=(n, 2)) * np.where(np.arange(n) % 4 == 0, 2.5, 0.8)[:, None]

    reference, start = scattered(40), scattered(25)
    manifold = ReferenceManifold(k=k).fit(reference)
    steps = []
    for shift in shifts:
        # Contraction towards the middle, then a drift away from it: FGSM's push seen in two dimensions.
        queries = start * np.exp(-2 * shift) + np.array([2.0, 1.2]) * shift**2
        density, coverage = manifold.density_coverage(queries)
        steps.append(
            {
                "shift": shift,
                "reference": reference,
                "radii": np.asarray(manifold.radii_),
                "queries": queries,
                "density": density,
                "coverage": coverage,
            }
        )
    return steps
