"""Several tests as one, at an exact joint level; and all tests by the names they are saved under."""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone

from advlib.detectors.ball_tests import CoverageTest, DensityTest, NearestBallTest
from advlib.detectors.base import BatchTest
from advlib.detectors.feature_test import feature_name
from advlib.detectors.hotelling_test import HotellingTest
from advlib.detectors.ratio_test import DensityRatioTest
from advlib.detectors.results import Scores


class CombinedTest(BatchTest):
    """Several tests as one, at an exact joint level: each permutation is put to all of them.

    Parameters
    ----------
    tests : list of tests, optional
        By default `DensityTest`, `CoverageTest` and `NearestBallTest` on pixels. Their own `draws`, `alternative`,
        `ties`, `check` and `random_state` are left alone: those of the combination hold.
    draws, alternative, ties, check, random_state
        As in `DensityTest`.

    Attributes
    ----------
    tests_ : list of fitted tests
        Tests with the same feature map and k share their balls.

    Notes
    -----
    `statistic` is the smallest single p-value, uncorrected; `p_value` is its rank among what the permutations give.
    `sample_scores` equal `sample_p_values`. The other attributes are those of `DensityTest`.
    """

    def __init__(
        self,
        tests: Sequence[BatchTest] | None = None,
        *,
        draws: int = 999,
        alternative: str = "two-sided",
        ties: str = "random",
        check: bool = True,
        random_state: int | np.random.Generator | None = 0,
    ):
        self.tests = tests
        self.draws = draws
        self.alternative = alternative
        self.ties = ties
        self.check = check
        self.random_state = random_state

    @property
    def _cheap(self) -> bool:
        return all(test._cheap for test in self.tests_)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.tests is not None and not (
            isinstance(self.tests, list | tuple) and self.tests and all(isinstance(t, BatchTest) for t in self.tests)
        ):
            raise ValueError(f"tests must be a non-empty list of tests, but is {self.tests!r}")
        for test in self._chosen():
            test._check_parameters()

    def _chosen(self) -> list[BatchTest]:
        return [DensityTest(), CoverageTest(), NearestBallTest()] if self.tests is None else list(self.tests)

    def _least_reference(self) -> int:
        return max(test._least_reference() for test in self._chosen())

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        self.tests_ = [clone(test) for test in self._chosen()]
        for test in self.tests_:
            test.classes_ = self.classes_
            test._learn(reference, labels, cache)

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        return [part for test in self.tests_ for part in test._parts(samples, labels, cache)]

    def _n_parts(self) -> int:
        return sum(test._n_parts() for test in self.tests_)

    @property
    def _slices(self) -> list[slice]:
        ends = np.cumsum([0, *(test._n_parts() for test in self.tests_)]).tolist()
        return [slice(*pair) for pair in itertools.pairwise(ends)]

    def _settings(self) -> dict[str, Any]:
        return {key: value for key, value in super()._settings().items() if key != "tests"}

    def _state(self, tensors: dict[str, np.ndarray], known: dict[int, list[str]]) -> dict[str, Any]:
        return {**super()._state(tensors, known), "tests": [test._state(tensors, known) for test in self.tests_]}

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray], known: dict[str, Any]) -> None:
        self.tests_ = [restored(part, self.classes_, tensors, known) for part in state["tests"]]
        self.tests = [clone(test) for test in self.tests_]

    def _calibrate(self, calibration: Scores) -> None:
        for test, own in self._each(calibration):
            test._calibrate(own)

    def _each(self, scores: Scores) -> Iterable[tuple[BatchTest, Scores]]:
        for test, where in zip(self.tests_, self._slices, strict=True):
            yield test, Scores(scores.parts[where], scores.labels)

    def statistic_names(self) -> list[str]:
        """Return the names of all tests' statistics, with their feature map where a name comes twice."""
        names = [name for test in self.tests_ for name in test.statistic_names()]
        if len(set(names)) < len(names):  # the same test on several feature maps
            names = [f"{name} of {feature_name(test)}" for test in self.tests_ for name in test.statistic_names()]
        return names

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        each = zip(self.tests_, self._slices, strict=True)
        return np.concatenate([test._statistics(parts[where], rows) for test, where in each], axis=1)

    def _score_samples(
        self, batch: Scores, calibration: Scores, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        sides = []
        for (test, mine), (_, theirs) in zip(self._each(batch), self._each(calibration), strict=True):
            sides.append(test._score_samples(mine, theirs, rng))
        return tuple(np.concatenate(side, axis=1) for side in zip(*sides, strict=True))

    def _reported_scores(self, columns: np.ndarray, ranked: np.ndarray) -> np.ndarray:
        return ranked

    def _notes(self, m: int) -> list[str]:
        return list(dict.fromkeys(note for test in self.tests_ for note in test._notes(m)))


_ALL = (DensityTest, CoverageTest, NearestBallTest, HotellingTest, DensityRatioTest, CombinedTest)
TESTS = {test.__name__: test for test in _ALL}
"""The tests by the names they are saved under."""


def restored(
    state: dict[str, Any], classes: np.ndarray | None, tensors: dict[str, np.ndarray], known: dict[str, Any]
) -> BatchTest:
    """Return the test whose `_state` is given, as a file holds it."""
    if state["class"] not in TESTS:
        raise ValueError(f"it holds a {state['class']!r}, which is none of {', '.join(TESTS)}")
    test = TESTS[state["class"]](**state["parameters"])
    test.classes_ = classes
    test._check_parameters()
    test._restore(state, tensors, known)
    return test
