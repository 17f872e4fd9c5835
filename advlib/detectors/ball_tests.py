"""Tests on balls around the reference: density, coverage, and how deep a sample lies in its nearest ball."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from advlib.checks import whole_number
from advlib.detectors.balls import Balls, unions
from advlib.detectors.feature_test import FeatureTest
from advlib.detectors.results import Scores


class BallTest(FeatureTest):
    """A test whose statistic comes from balls around the reference."""

    def __init__(
        self,
        k: int = 5,
        *,
        features: str | Callable = "pixels",
        per_channel: bool = False,
        draws: int = 999,
        alternative: str = "two-sided",
        ties: str = "random",
        check: bool = True,
        random_state: int | np.random.Generator | None = 0,
    ):
        self.k = k
        self.features = features
        self.per_channel = per_channel
        self.draws = draws
        self.alternative = alternative
        self.ties = ties
        self.check = check
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        whole_number(self.k, "k", 1)

    def _least_reference(self) -> int:
        return self.k + 1

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        key = ("balls", self._feature_key(), self.k)
        if key not in cache:
            cache[key] = [Balls(self.k).fit(matrix, labels) for matrix in self._matrices(reference, cache)]
        self.balls_ = cache[key]
        self.n_channels_ = len(self.balls_)

    def _state(self, tensors: dict[str, np.ndarray], known: dict[int, list[str]]) -> dict[str, Any]:
        if id(self.balls_) not in known:  # tests that share balls store them once
            names = known[id(self.balls_)] = [f"balls.{len(known)}.{channel}" for channel in range(len(self.balls_))]
            for name, balls in zip(names, self.balls_, strict=True):
                for number, manifold in enumerate(balls.manifolds.values()):
                    tensors[f"{name}.{number}.reference"] = manifold.reference_
                    tensors[f"{name}.{number}.radii"] = manifold.radii_
        return {**super()._state(tensors, known), "balls": known[id(self.balls_)]}

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray], known: dict[str, Any]) -> None:
        names = tuple(state["balls"])
        if names not in known:
            classes = [None] if self.classes_ is None else self.classes_.tolist()
            known[names] = [Balls(self.k).restore(classes, name, tensors) for name in names]
        self.balls_ = known[names]
        if any(balls.k != self.k for balls in self.balls_):
            raise ValueError("its balls belong to another k")
        self.n_channels_ = len(self.balls_)

    def _hits(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        """Return (n, N) sparse arrays, one a channel, found once for all tests that share these balls."""
        key = ("hits", id(self.balls_))
        if key not in cache:
            cache[key] = [
                balls.hits(matrix, labels)
                for balls, matrix in zip(self.balls_, self._matrices(samples, cache), strict=True)
            ]
        return cache[key]

    def _score_samples(
        self, batch: Scores, calibration: Scores, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._per_sample(batch.parts), self._per_sample(calibration.parts)

    def _per_sample(self, parts: Sequence[Any]) -> np.ndarray:
        return parts[0].astype(float)


class MeanScoreTest(BallTest):
    """A test whose statistic is the batch's mean of a score that each sample has by itself."""

    def _n_parts(self) -> int:
        return 1

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        (scores,) = parts
        # Whole numbers are added as such: sums that are equal must be seen to be.
        columns = [column[rows].sum(axis=1) for column in scores.T]
        return np.stack(columns, axis=1) / (rows.shape[1] * self._unit())

    def _unit(self) -> float:
        return 1.0


class DensityTest(MeanScoreTest):
    """Test of a batch's density: the mean number of reference balls around its samples, over k.

    Parameters
    ----------
    k : int
        A ball reaches to its centre's k-th nearest other reference point. VS22 use 5.
    features : str or callable
        What is looked at: a name known to `advlib.detectors.features`, or any callable from images (n, c, h, w) to
        vectors (n, d).
    per_channel : bool
        One statistic a colour channel, combined at a joint level.
    draws : int
        Permutations. A single image is compared with every calibration sample instead.
    alternative : {"two-sided", "less", "greater"}
        Which tail is evidence. One-sided tests are blind where the density crosses its expectation.
    ties : {"random", "conservative"}
        How draws with the batch's own statistic count (see the module).
    check : bool
        Whether `fit` compares reference and calibration.
    random_state : int, numpy.random.Generator or None
        Of the permutations and ties. With an int, the same batch gets the same p-value.

    Attributes
    ----------
    calibration_ : Scores
        Ball counts of the calibration samples.
    exchangeability_p_ : float
        p-value of reference against calibration; NaN if not checked.
    assumed_ : tuple of str
        What `fit` found, in words; verdicts repeat it.
    classes_ : array or None
        The classes of a class-conditional test.
    n_features_in_ : int
        Numbers in one sample.

    Notes
    -----
    `sample_scores` are ball counts over k: 1 is expected, 0 lies in no ball.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> test = DensityTest().fit(rng.normal(size=(500, 8)), rng.normal(size=(200, 8)))
    >>> bool(test.test(rng.normal(size=(50, 8))).reject()), bool(test.test(2 + rng.normal(size=(50, 8))).reject())
    (False, True)
    """

    _label = "density"

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        return [
            np.stack([np.diff(hits.indptr) for hits in self._hits(samples, labels, cache)], axis=1).astype(np.int64)
        ]

    def _unit(self) -> float:
        return float(self.k)

    def _per_sample(self, parts: Sequence[Any]) -> np.ndarray:
        return parts[0] / self.k


class NearestBallTest(MeanScoreTest):
    """Test of the batch's mean smallest d/r: how far samples lie from the ball that they are deepest in.

    Per sample the score is the minimum over the reference points of the distance over that point's radius: 0 at a
    reference point, 1 on the edge of a ball. Unlike a ball count it has no ties and does not stop at the edge, so that
    it says something about a single image.

    Parameters
    ----------
    k, features, per_channel, draws, alternative, ties, check, random_state
        As in `DensityTest`.

    Notes
    -----
    The nearest ball is found by a float32 product, its distance computed in float64. `sample_scores` are the smallest
    d/r. Attributes are those of `DensityTest`.
    """

    _label = "nearest ball"

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        matrices = self._matrices(samples, cache)
        columns = [balls.nearest(matrix, labels) for balls, matrix in zip(self.balls_, matrices, strict=True)]
        return [np.stack(columns, axis=1)]


class CoverageTest(BallTest):
    """Test of a batch's coverage: the share of reference balls that hold at least one of its samples.

    Parameters
    ----------
    k, features, per_channel, draws, alternative, ties, check, random_state
        As in `DensityTest`.

    Notes
    -----
    Of each sample the list of balls that hold it is kept; the union over a set of samples is a sparse product.
    `sample_scores` are ball counts over k. Attributes are those of `DensityTest`.
    """

    _label = "coverage"

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        return list(self._hits(samples, labels, cache))

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        return np.stack([unions(hits, rows) / hits.shape[1] for hits in parts], axis=1)

    def _per_sample(self, parts: Sequence[Any]) -> np.ndarray:
        return np.stack([np.diff(hits.indptr) for hits in parts], axis=1) / self.k
