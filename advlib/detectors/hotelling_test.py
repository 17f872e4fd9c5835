"""Hotelling's test of the batch's mean: small shifts that all samples share add up, where balls see none of them."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import linalg, sparse

from advlib.chunks import Rows
from advlib.detectors.feature_test import FeatureTest
from advlib.detectors.results import Scores
from advlib.detectors.saving import finite

_WIDEST = 4096  # numbers in a feature vector: the covariance of more takes minutes and gigabytes
_STEP = 1024  # rows that are added up at a time
_FARTHEST = 1e15  # in units of the reference's size; the square of what lies beyond leaves float64 soon


class HotellingTest(FeatureTest):
    """Test of the batch's mean by Hotelling's T² [1]_: its squared distance from the reference's, in units of spread.

    T² = m (x̄ − μ)ᵀ Σ⁻¹ (x̄ − μ), with x̄ the mean feature vector of the m samples, and μ and Σ mean and covariance of
    the reference, Σ shrunk towards equal variances as Ledoit and Wolf do [2]_, of features in units of their standard
    deviations. Where each sample stays inside the balls but all move the same way, as smooth perturbations move the
    fine scales of every image, the mean still shows it.

    Parameters
    ----------
    features : str or callable
        As in `DensityTest`; vectors of at most 4,096 numbers.
    per_channel, draws, ties, check, random_state
        As in `DensityTest`.
    alternative : {"greater", "less", "two-sided"}
        Which tail is evidence: a mean that lies far off. In a `CombinedTest` that of the combination holds.

    Attributes
    ----------
    whitenings_ : list of (c, d) and (d, d) float64 arrays
        Of each channel: the reference's mean (that of each class) and what brings a difference from it to unit
        covariance, both in units of `sizes_`, the largest absolute value.

    Notes
    -----
    `sample_scores` are squared Mahalanobis distances, which T² is for one sample; of clean ones they are about d. With
    labels each sample is compared with its own class's mean. The other attributes are those of `DensityTest`.

    References
    ----------
    .. [1] H. Hotelling, "The generalization of Student's ratio", Ann. Math. Statist. 2 (1931) 360-378,
       doi:10.1214/aoms/1177732979.
    .. [2] O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
       J. Multivariate Anal. 88 (2004) 365-411, doi:10.1016/S0047-259X(03)00096-4.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> test = HotellingTest().fit(rng.normal(size=(500, 8)), rng.normal(size=(200, 8)))
    >>> bool(test.test(rng.normal(size=(50, 8))).reject()), bool(test.test(0.5 + rng.normal(size=(50, 8))).reject())
    (False, True)
    """

    _label = "mean (Hotelling's T²)"

    def __init__(
        self,
        *,
        features: str | Callable = "pixels",
        per_channel: bool = False,
        draws: int = 999,
        alternative: str = "greater",
        ties: str = "random",
        check: bool = True,
        random_state: int | np.random.Generator | None = 0,
    ):
        self.features = features
        self.per_channel = per_channel
        self.draws = draws
        self.alternative = alternative
        self.ties = ties
        self.check = check
        self.random_state = random_state

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        own = np.zeros(len(reference), dtype=int) if labels is None else np.searchsorted(self.classes_, labels)
        self.sizes_, self.whitenings_ = [], []
        for matrix in self._matrices(reference, cache):
            if matrix.shape[1] > _WIDEST:
                raise ValueError(
                    f"features must give at most {_WIDEST} numbers a sample for T², but {self.features!r} gives "
                    f"{matrix.shape[1]}: take a map that gives fewer, such as 'multiscale'"
                )
            blocks = [block.values for block in matrix.blocks] if isinstance(matrix, Rows) else [lambda m=matrix: m]
            self.sizes_.append(max(float(np.abs(block()).max()) for block in blocks) or 1.0)
            self.whitenings_.append(_whitening(blocks, self.sizes_[-1], own, own.max() + 1))
        self.n_channels_ = len(self.sizes_)

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        own = 0 if labels is None else np.searchsorted(self.classes_, labels)
        parts = []
        for matrix, size, (means, whitening) in zip(
            self._matrices(samples, cache), self.sizes_, self.whitenings_, strict=True
        ):
            vectors = np.concatenate([b.values() for b in matrix.blocks]) if isinstance(matrix, Rows) else matrix
            parts.append((_scaled(vectors, size) - means[own]) @ whitening)
        return parts

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        sets, m = rows.shape
        indices = (np.full(rows.size, 1 / np.sqrt(m)), rows.ravel(), np.arange(0, rows.size + 1, m))
        return np.stack(
            [np.square(sparse.csr_array(indices, shape=(sets, len(part))) @ part).sum(axis=1) for part in parts], axis=1
        )

    def _score_samples(
        self, batch: Scores, calibration: Scores, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return tuple(
            np.stack([np.square(part).sum(axis=1) for part in scores.parts], axis=1) for scores in (batch, calibration)
        )

    def _state(self, tensors: dict[str, np.ndarray], known: dict[int, list[str]]) -> dict[str, Any]:
        number = known.setdefault(id(self.whitenings_), len(known))
        names = [f"mean.{number}.{channel}" for channel in range(self.n_channels_)]
        for name, (means, whitening) in zip(names, self.whitenings_, strict=True):
            tensors |= {f"{name}.means": means, f"{name}.whitening": whitening}
        return {**super()._state(tensors, known), "means": names, "sizes": self.sizes_}

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray], known: dict[str, Any]) -> None:
        self.sizes_ = [float(size) for size in state["sizes"]]
        self.whitenings_ = [tuple(finite(tensors[f"{n}.{w}"]) for w in ("means", "whitening")) for n in state["means"]]
        classes = 1 if self.classes_ is None else len(self.classes_)
        if any(m.shape != (classes, len(w)) or w.shape != (len(w), len(w)) for m, w in self.whitenings_):
            raise ValueError("its means and covariances do not belong together")
        self.n_channels_ = len(self.sizes_)


def _scaled(vectors: np.ndarray, size: float) -> np.ndarray:
    """Return vectors as float64 in units of the reference's size."""
    with np.errstate(over="ignore"):
        return np.clip(vectors / np.float64(size), -_FARTHEST, _FARTHEST)


def _steps(blocks: Sequence[Callable[[], np.ndarray]], size: float) -> Iterator[np.ndarray]:
    """Yield scaled rows, always as many at a time, so that their sums are the same to the bit however they are kept."""
    left = None
    for block in blocks:
        left = block() if left is None else np.concatenate([left, block()])
        while len(left) >= _STEP:
            yield _scaled(left[:_STEP], size)
            left = left[_STEP:]
    if len(left):
        yield _scaled(left, size)


def _whitening(
    blocks: Sequence[Callable[[], np.ndarray]], size: float, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return means (classes, d) and W (d, d), so that (x − mean) W has unit covariance, of rows that come in blocks."""
    n = len(labels)
    parts = np.split(labels, range(_STEP, n, _STEP))
    members = [(own == np.arange(classes)[:, None]).astype(float) for own in parts]
    sums = sum(member @ rows for member, rows in zip(members, _steps(blocks, size), strict=True))
    means = sums / np.bincount(labels, minlength=classes)[:, None]

    def centred() -> Iterator[np.ndarray]:
        return (rows - means[own] for own, rows in zip(parts, _steps(blocks, size), strict=True))

    spread = np.sqrt(sum(np.square(rows).sum(axis=0) for rows in centred()) / n)
    spread[spread <= 1e-7 * np.abs(means).max(axis=0)] = 1.0  # a feature that no clean sample moves, but for rounding
    covariance = sum((rows / spread).T @ (rows / spread) for rows in centred()) / n
    fourth = sum(np.square(np.square(rows / spread).sum(axis=1)).sum() for rows in centred()) / n
    equal = (np.trace(covariance) / len(spread) or 1.0) * np.eye(len(spread))
    distance, noise = np.square(covariance - equal).sum(), (fourth - np.square(covariance).sum()) / n
    # Never none at all: features that depend on each other, or on nothing, have a direction without spread.
    shrinkage = 1.0 if distance <= 0 else np.clip(noise / distance, 1e-6, 1.0)
    root = linalg.cholesky((1 - shrinkage) * covariance + shrinkage * equal, lower=True)
    return means, linalg.solve_triangular(root, np.diag(1 / spread), lower=True).T
