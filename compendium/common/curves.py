"""Density and coverage of query sets, whole and in sub-batches: what VS22's curves are made of.

References
----------
VS22: D. K. Venkatesh and P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from advlib.attacks import AdversarialBatch
from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from compendium.common.protocol import auroc, power


def flat(images: np.ndarray) -> np.ndarray:
    """Return images (n, c, h, w) as points (n, c·h·w)."""
    return np.asarray(images).reshape(len(images), -1)


def sub_batches(n: int, size: int, rng: np.random.Generator, least: int = 40) -> np.ndarray:
    """Split n queries at random into disjoint batches, again and again until there are `least` of them.

    VS22 split once (§4). A small hold-out gives too few batches for quartiles that way; batches of one split are
    disjoint, batches of two splits overlap as chance has it.

    Parameters
    ----------
    n, size : int
        Queries there are and in each batch.
    rng : numpy.random.Generator
    least : int
        Batches wanted at least, ≥ 2.

    Returns
    -------
    (T, size) int64 array
        T ≥ `least`, a multiple of n // size; rows point to queries.

    Raises
    ------
    ValueError
        When size is below 1 or above n, or `least` below 2.
    """
    if least < 2:
        raise ValueError(f"least must be at least 2, but is {least}")
    each = n // size if 1 <= size <= n else 0
    if not each:
        raise ValueError(f"size must lie between 1 and the {n} queries there are, but is {size}")
    splits = -(-least // each)
    return np.concatenate([rng.permutation(n)[: each * size].reshape(each, size) for _ in range(splits)])


@dataclass(frozen=True, eq=False)
class Score:
    """Density and coverage of one query set, whole and in sub-batches.

    Attributes
    ----------
    density, coverage : float
        Of all queries in one batch.
    batch_density, batch_coverage : (T,) float64
        Of each sub-batch.
    density_error : float
        Standard error of `density` from the spread of the ball counts over the queries, the reference held fixed.
    accuracy, success : float or None
        Share of queries that the attacked network still reads rightly, and share that it read rightly before and no
        longer does: the adversarial examples among the queries.
    """

    density: float
    coverage: float
    batch_density: np.ndarray = field(repr=False)
    batch_coverage: np.ndarray = field(repr=False)
    density_error: float
    accuracy: float | None = None
    success: float | None = None


def score(
    manifold: ReferenceManifold, queries: np.ndarray | AdversarialBatch, batches: Iterable[Sequence[int] | np.ndarray]
) -> Score:
    """Score one query set whole and in sub-batches, from one pass over the reference.

    Parameters
    ----------
    manifold : ReferenceManifold
        Fitted to `flat` reference images (or features).
    queries : (m, c, h, w) or (m, d) array, or AdversarialBatch
        In the reference's units.
    batches : sequences of int
        Rows of each sub-batch, from `sub_batches`.
    """
    attacked = queries if isinstance(queries, AdversarialBatch) else None
    found = score_hits(manifold, manifold.hits(flat(queries if attacked is None else attacked.images)), batches)
    if attacked is None:
        return found
    return replace(found, accuracy=attacked.adversarial_accuracy, success=float(np.mean(attacked.success)))


def score_hits(
    manifold: ReferenceManifold, hits: sparse.csr_array, batches: Iterable[Sequence[int] | np.ndarray]
) -> Score:
    """Score a query set as `score` does, by the balls (m, N) that `manifold.hits` found for it."""
    everything = np.arange(hits.shape[0])
    (density,), (coverage,) = manifold.subset_density_coverage(hits, [everything])
    batch_density, batch_coverage = manifold.subset_density_coverage(hits, batches)
    counts = np.diff(hits.indptr) / manifold.k
    return Score(
        float(density),
        float(coverage),
        batch_density,
        batch_coverage,
        float(counts.std(ddof=1) / np.sqrt(len(counts))) if len(counts) > 1 else 0.0,
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """Density and coverage of several query sets against one reference: a column of VS22's Fig. 3.

    Attributes
    ----------
    title : str
        What was attacked and how, for the figure.
    x : (n,) float64
        What the query sets differ in: ε, batch size, share, steps.
    clean : Score
        Of the untouched queries: the *reference* density and coverage of the paper.
    scores : tuple of Score
        Of the n query sets.
    n_reference, n_queries, batch_size, k : int
        Sizes.
    """

    title: str
    x: np.ndarray = field(repr=False)
    clean: Score = field(repr=False)
    scores: tuple[Score, ...] = field(repr=False)
    n_reference: int
    n_queries: int
    batch_size: int
    k: int

    @property
    def density(self) -> np.ndarray:
        """Full-batch density, (n,)."""
        return np.array([score.density for score in self.scores])

    @property
    def coverage(self) -> np.ndarray:
        """Full-batch coverage, (n,)."""
        return np.array([score.coverage for score in self.scores])

    @property
    def accuracy(self) -> np.ndarray:
        """Robust accuracy, (n,); NaN where no network was asked."""
        return np.array([np.nan if score.accuracy is None else score.accuracy for score in self.scores])

    @property
    def expected_coverage(self) -> float:
        """Mean coverage of the whole batch if queries and reference were exchangeable; the mean density is 1."""
        return expected_coverage(self.n_reference, self.n_queries, self.k)

    @property
    def expected_batch_coverage(self) -> float:
        """The same for a sub-batch."""
        return expected_coverage(self.n_reference, self.batch_size, self.k)

    def decisions(self, statistic: str) -> tuple[np.ndarray, np.ndarray]:
        """Return AUROC and two-sided `power` of a decision about one sub-batch, (n,) each.

        The AUROC ranks by the distance from the clean sub-batches' median.

        Parameters
        ----------
        statistic : str
            "density" or "coverage".
        """
        clean = getattr(self.clean, f"batch_{statistic}")
        middle = np.median(clean)
        suspect = [getattr(score, f"batch_{statistic}") for score in self.scores]
        areas = [auroc(np.abs(clean - middle), np.abs(values - middle)) for values in suspect]
        return np.array(areas), np.array([power(clean, values, "two-sided") for values in suspect])


def density_coverage_curve(
    manifold: ReferenceManifold,
    clean: np.ndarray,
    attacked: Iterable[np.ndarray | AdversarialBatch],
    x: Sequence[float],
    batches: np.ndarray,
    *,
    title: str = "",
    clean_score: Score | None = None,
) -> Curve:
    """Score any list of query sets: full-batch density and coverage, quantiles over sub-batches, accuracy.

    Parameters
    ----------
    manifold : ReferenceManifold
        Fitted to the reference.
    clean : (m, …) array
        Untouched queries, in the reference's units.
    attacked : iterable of (m, …) arrays or AdversarialBatch
        Query sets, one for each entry of `x`; generated one at a time where the iterable does.
    x : sequence of float
        What they differ in.
    batches : (T, size) int array
        Rows of the sub-batches, the same for every set; from `sub_batches`.
    title : str
        For the figure and the progress line.
    clean_score : Score, optional
        Of `clean`, where it was scored before.

    Raises
    ------
    ValueError
        When there are not as many query sets as entries of `x`.
    """
    batches = np.asarray(batches)
    first = score(manifold, clean, batches) if clean_score is None else clean_score
    found = tuple(score(manifold, queries, batches) for queries in track(attacked, title or "query sets", len(x)))
    if len(found) != len(x):
        raise ValueError(
            f"attacked must hold one query set for each of the {len(x)} entries of x, but has {len(found)}"
        )
    return Curve(
        title, np.asarray(x, float), first, found, len(manifold.radii_), len(clean), batches.shape[1], manifold.k
    )
