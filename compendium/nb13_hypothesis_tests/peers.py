"""The usual two-sample tests, to be measured against.

Maximum mean discrepancy with a Gaussian kernel [1]_, used for adversarial examples by [2]_; energy distance [3]_; a
classifier two-sample test [4]_. Each is a few lines here, checked against brute force, SciPy and scikit-learn: `dcor`
and `hyppo` bring a compiler (Numba) along and have no state to keep, so that the reference's own N × N term would be
computed for every batch anew; `alibi-detect`'s permutation test takes seconds a batch and can say p = 0.

References
----------
.. [1] A. Gretton et al., "A kernel two-sample test", JMLR 13 (2012) 723-773, eq. 5.
.. [2] K. Grosse et al., "On the (statistical) detection of adversarial examples", arXiv:1702.06280 (2017).
.. [3] G. J. Székely and M. L. Rizzo, "Energy statistics", J. Stat. Plan. Inference 143 (2013) 1249-1272,
   doi:10.1016/j.jspi.2013.03.018.
.. [4] D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017, arXiv:1610.06545.
"""

from collections.abc import Callable, Iterator

import numpy as np

from advlib.detectors import Scores

N_REFERENCE = 500
"""Reference images that a batch is compared with: the first ones."""


class Peer:
    """A two-sample test against the reference; one row of features an image, one number a set of rows.

    Parameters
    ----------
    features : str
        Name of a feature map.
    """

    two_sided = False
    least = 2  # samples in a batch

    def __init__(self, features: str = "pixels"):
        self.features = features

    def fit(self, reference: np.ndarray, calibration: np.ndarray | None = None) -> "Peer":
        """Take the first `N_REFERENCE` reference vectors (N, d); calibration is not needed."""
        self.reference_ = reference[:N_REFERENCE].astype(np.float64)
        return self

    def measure(self, vectors: np.ndarray) -> Scores:
        """Return what `statistics` needs of each vector (n, d)."""
        return Scores((vectors.astype(np.float64),))


class KernelTest(Peer):
    """Mean of a kernel within the batch, minus twice that across, plus that within the reference; see `Peer`."""

    sign = 1

    def fit(self, reference: np.ndarray, calibration: np.ndarray | None = None) -> "KernelTest":
        """Do what `Peer.fit` does, and take the kernel's mean and width, the median distance, within the reference."""
        super().fit(reference)
        squared = _within(self.reference_)
        self.width_ = float(np.median(squared[np.triu_indices(len(squared), 1)])) or 1.0
        self.own_ = float(self._kernel(squared).mean())
        return self

    def _kernel(self, squared: np.ndarray) -> np.ndarray:
        """Return the kernel of squared distances."""
        raise NotImplementedError

    def measure(self, vectors: np.ndarray) -> Scores:
        """Return what `statistics` needs of each vector (n, d): itself, and its kernel's mean over the reference."""
        matrix = vectors.astype(np.float64)
        return Scores((matrix, self._kernel(_squared(matrix, self.reference_)).mean(axis=1)))

    def statistics(self, scores: Scores, rows: np.ndarray) -> np.ndarray:
        """Return the statistic (B, 1) of the sample sets `rows` (B, m), as `advlib.detectors` do."""
        matrix, cross = scores.parts
        grams = zip(_grams(matrix, rows, self._kernel), rows, strict=True)
        return self.sign * np.array([[own.mean() - 2 * cross[batch].mean() + self.own_] for own, batch in grams])


class MMDTest(KernelTest):
    """Squared maximum mean discrepancy, Gaussian kernel, biased estimate (Gretton et al. 2012, eq. 5).

    The kernel's width is the median distance within the reference, as is customary. See `Peer`.
    """

    def _kernel(self, squared: np.ndarray) -> np.ndarray:
        return np.exp(-squared / self.width_)


class EnergyTest(KernelTest):
    """Energy distance 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ (Székely & Rizzo 2013, eq. 5). See `Peer`."""

    sign = -1

    def _kernel(self, squared: np.ndarray) -> np.ndarray:
        return np.sqrt(squared)


class ClassifierTest(Peer):
    """Leave-one-out accuracy of a linear classifier that tells the batch from as many reference images.

    Ridge regression of ±1 on standardised features, penalty d: what a handful of images can train. Its n leave-one-out
    predictions come from one inverse, y_i − [C⁻¹y]_i / [C⁻¹]_ii with C = XXᵀ + d·I, which is why scikit-learn's
    RidgeClassifier, with the same answers, is the judge in the tests and not called here. Successive batches meet other
    parts of the reference. See `Peer`.
    """

    def statistics(self, scores: Scores, rows: np.ndarray) -> np.ndarray:
        """Return the statistic (B, 1) of the sample sets `rows` (B, m), as `advlib.detectors` do."""
        m = rows.shape[1]
        centre, spread = self.reference_.mean(axis=0), self.reference_.std(axis=0) + 1e-3
        clean, changed = (
            np.column_stack([(matrix - centre) / spread, np.ones(len(matrix))])
            for matrix in (self.reference_, scores.parts[0])
        )
        target = np.repeat([-1.0, 1.0], m)
        out = []
        for number, batch in enumerate(rows):
            start = number * m % max(1, len(clean) - m)
            right = target * leave_one_out(np.concatenate([clean[start : start + m], changed[batch]]), target)
            # Accuracy alone has few values; the mean margin breaks its ties.
            out.append([(right > 0).mean() + 1e-6 * np.tanh(right.mean())])
        return np.array(out)


def leave_one_out(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return ridge regression's prediction of each target (n,) from all other rows of features (n, d), penalty d."""
    inverse = np.linalg.inv(features @ features.T + features.shape[1] * np.eye(len(features)))
    return target - inverse @ target / np.diag(inverse)


def _squared(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) of (n, d) and (m, d), float64, by a matrix product; never below 0."""
    squared = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
    return np.maximum(squared, 0, out=squared)


def _grams(matrix: np.ndarray, rows: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    """Give function(squared distances) within each set of rows (B, m): from one matrix where sets overlap much."""
    used, places = np.unique(rows, return_inverse=True)
    places = places.reshape(rows.shape)
    if len(used) ** 2 <= rows.size * rows.shape[1]:
        whole = function(_within(matrix[used]))
        yield from (whole[np.ix_(place, place)] for place in places)
    else:
        yield from (function(_within(matrix[batch])) for batch in rows)


def _within(matrix: np.ndarray) -> np.ndarray:
    squared = _squared(matrix, matrix)
    np.fill_diagonal(squared, 0)  # rounding would leave a small distance of an image to itself
    return squared
