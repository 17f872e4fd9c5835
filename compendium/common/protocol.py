"""The papers' experiments as functions of arrays: draws in, statistics out. All randomness from one generator.

References
----------
G17: L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017).
VS22: D. K. Venkatesh and P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022).
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from advlib.checks import one_of
from advlib.tasks import map_tasks
from advlib.ulsif import BatchFit, GridEdgeWarning, fit_batch_indices

LEVEL = 0.05
"""Rate of false alarms at which `power` is given."""


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


def power(clean: np.ndarray, suspect: np.ndarray, side: str = "high", level: float = LEVEL) -> float:
    """Share of suspect batches that a test calibrated on B clean batches flags at 5 % false alarms.

    A suspect batch with statistic s is ranked among the B clean ones. Its p-value is (1 + number of clean batches at
    least as extreme) / (B + 1), and it is flagged where p ≤ `level`. The rank of a further clean batch is uniform on
    1, …, B + 1, so that the rate of false alarms is at most `level` at any B, whatever the distribution; it is `level`
    where `level` (B + 1), or half of that if two-sided, is whole. Fewer clean batches than make the smallest p-value
    reach `level` (19 for 5 %, 39 if two-sided) flag nothing.

    Ties are broken at random, and what is returned is the mean over all ways to break them, so that nothing is drawn.

    Parameters
    ----------
    clean, suspect : (B,), (n,) float arrays
        One statistic of clean and of suspect batches. It may be infinite.
    side : {"high", "low", "two-sided"}
        Which values are evidence. Two-sided spends half of `level` on each side: tails of equal rate, not of equal
        distance from the middle, behind which a short tail would be hidden by a long one.
    level : float
        Rate of false alarms.

    Raises
    ------
    ValueError
        For another `side`.
    """
    clean = np.sort(clean)
    below, up_to = (np.searchsorted(clean, suspect, edge) for edge in ("left", "right"))
    most = np.floor(level / (2 if side == "two-sided" else 1) * (len(clean) + 1) + 1e-9)
    places = up_to - below + 1
    high, low = (np.clip((most - beyond) / places, 0, 1) for beyond in (len(clean) - up_to, below))
    chances = {"high": high, "low": low, "two-sided": np.minimum(high + low, 1)}
    one_of(side, "side", chances)
    return float(np.mean(chances[side]))


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
        """`power` of one draw's distance from 1, with the R2 draws as the clean batches."""
        return power(departure(self.r2), departure(self.r1))


def _channels(images: np.ndarray, name: str) -> np.ndarray:
    """Return images (n, c, h, w) as (n, c, h·w)."""
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


def fit_indices(
    numerators: np.ndarray,
    denominators: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    kernel: str = "gaussian",
    **estimator,
) -> BatchFit:
    """Fit each draw, numerators[a[t]] against denominators[b[t]].

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
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        return fit_batch_indices(numerators, denominators, a, b, kernel=kernel, **estimator)


def mean_ratios(
    numerators: np.ndarray,
    denominators: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    kernel: str = "gaussian",
    **estimator,
) -> np.ndarray:
    """Mean density ratio of each draw over the numerator, (t,) float64; arguments as for `fit_indices`."""
    return fit_indices(numerators, denominators, a, b, kernel, **estimator).mean_ratio_


def channel_ratios(
    numerators: np.ndarray, suspects: np.ndarray, a: np.ndarray, b: np.ndarray, **estimator: Any
) -> np.ndarray:
    """Mean density ratios of images (n, c, h, w), each channel by itself: (t, c); arguments as for `fit_indices`."""
    clean, suspects = (images.reshape(*images.shape[:2], -1) for images in (numerators, suspects))
    found = [mean_ratios(clean[:, c], suspects[:, c], a, b, **estimator) for c in range(suspects.shape[1])]
    return np.stack(found, axis=1)


def _side_ratios(step: tuple[int, int], clean: np.ndarray, pools: list[np.ndarray], draws: Any, fit: Any) -> np.ndarray:
    """Fit all draws of one channel and one side: R1 is side 0, R2 side 1."""
    channel, side = step
    return mean_ratios(clean[:, channel], pools[side][:, channel], *draws, **fit)


def density_ratio_comparison(
    real: np.ndarray,
    adversarial: np.ndarray,
    *,
    draws: int = 100,
    batch_size: int = 100,
    numerators: np.ndarray | None = None,
    rng: np.random.Generator,
    **estimator,
) -> dict[str, RatioComparison]:
    """Run G17's Algorithm 1: density ratios of clean against suspect and of clean against clean batches.

    Each draw takes index sets a and b, fits p(real[a]) / p(adversarial[b]) and p(real[a]) / p(real[b]) by uLSIF and
    keeps the mean ratio over the numerator: R1 and R2. Colour images are fitted channel by channel; the combined
    estimate is the mean of the channels' (G17 eq. 4). Every channel sees the same draws, and a and b of one draw may
    share images, as in the paper.

    Parameters
    ----------
    real, adversarial : (n, c, h, w) float array
        adversarial[i] was made from real[i].
    draws, batch_size : int
        t and m of the paper.
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
        When the pools differ in shape, are not images, or sizes do not fit.
    """
    real, adversarial = _channels(real, "real"), _channels(adversarial, "adversarial")
    clean = real if numerators is None else _channels(numerators, "numerators")
    if real.shape != adversarial.shape:
        shapes = f"{real.shape} and {adversarial.shape} (n, c, h·w)"
        raise ValueError(f"real and adversarial must pair up, but have shapes {shapes}")
    if clean.shape[1:] != real.shape[1:]:
        shapes = f"{clean.shape} and {real.shape} (n, c, h·w)"
        raise ValueError(f"numerators must be images like real, but have shapes {shapes}")
    a, b = (draw_indices(len(pool), draws, batch_size, rng) for pool in (clean, real))
    estimator.setdefault("random_state", int(rng.integers(2**31)))
    ratios = np.empty((real.shape[1], 2, draws))
    shared = [clean, [adversarial, real], [a, b], estimator]
    for step, found in map_tasks(_side_ratios, list(np.ndindex(len(ratios), 2)), "channel and side", shared=shared):
        ratios[step] = found
    found = {f"channel {channel}": RatioComparison(*pair) for channel, pair in enumerate(ratios)}
    return (found if len(ratios) > 1 else {}) | {"combined": RatioComparison(*ratios.mean(axis=0))}


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
    nearest = NearestNeighbors(n_neighbors=1).fit(both).kneighbors(return_distance=False)[:, 0]  # no image is its own
    return float((nearest[:n] < n).mean()), float((nearest[n:] < n).mean())
