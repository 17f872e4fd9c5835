"""The one interface of all tests of a batch: fit, measure, test, p_values, save.

A test says what it learns from the reference, what it keeps of each sample, and what its statistics are for many sets
of samples; permutations, p-values, contamination and checks are here, for all of them.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from advlib.checks import ArrayLike, checked_seed, listed, one_of, plain_array, whole_number
from advlib.datasets.large import LargeSamples
from advlib.detectors import saving
from advlib.detectors.aim import AimTest
from advlib.detectors.contamination import contamination
from advlib.detectors.exchangeability import compare
from advlib.detectors.permutations import ALTERNATIVES, TIES, p_values, permuted_rows, sample_p_values
from advlib.detectors.results import Part, Scores, Verdict
from advlib.detectors.samples import (
    as_labels,
    as_rows,
    as_samples,
    check_shape,
    common_classes,
    extremes,
    hold_out,
)

_MOST_DRAWS = 10**8  # more do not fit into memory, and no p-value needs them


class BatchTest(BaseEstimator):
    """What all tests share: checks of the input, the permutations, p-values, contamination.

    A test says what it learns from the reference (`_learn`), what it keeps of each sample (`_parts`) and what its
    statistics are for many sets of samples (`_statistics`).
    """

    aim_: AimTest | None = None
    """The second question, whether a change aims at a network: an `AimTest` to be asked and saved beside this test."""

    _cheap = True  # a statistic more or less costs nothing: a single image is compared with every calibration sample

    def fit(
        self,
        reference: ArrayLike,
        calibration: ArrayLike | None = None,
        *,
        reference_labels: ArrayLike | None = None,
        calibration_labels: ArrayLike | None = None,
    ) -> Self:
        """Learn the statistic from `reference` and keep what clean samples score from `calibration`.

        Parameters
        ----------
        reference : (N, c, h, w) or (N, d) array or tensor
            Clean images, or vectors. Floating point; images are usually in [0, 1].
        calibration : (n, c, h, w) or (n, d) array or tensor, optional
            Other clean samples, from where the batches come from. Without it a random fifth of the reference is held
            out.
        reference_labels, calibration_labels : (N,), (n,) integer arrays, optional
            Classes, both or neither. With them the test is class-conditional: a sample meets the balls of its own
            class, and is exchanged only with samples of its own class, so that another mix of classes is no reason to
            reject. Give what the batch will have: if that is a classifier's predictions, predictions.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Naming the argument that cannot be used.

        Warns
        -----
        ExchangeabilityWarning
            Where reference and calibration do not look drawn alike. The p-value stays exact as long as the batch is
            drawn as the calibration set is.
        """
        self._check_parameters()
        reference, calibration, labels, other_labels = self._check_sets(
            reference, calibration, reference_labels, calibration_labels
        )
        self.sample_shape_ = reference.shape[1:]
        self.value_range_ = extremes(reference)
        self.n_features_in_ = math.prod(self.sample_shape_)
        self.n_reference_ = len(reference)
        self._learn(reference, labels, {})
        self.calibration_ = Scores(tuple(self._parts(calibration, other_labels, {})), other_labels)
        self._calibrate(self.calibration_)
        self.exchangeability_p_, self.assumed_ = math.nan, ()
        if self.check:
            self.exchangeability_p_, self.assumed_ = compare(self, reference, calibration, labels, other_labels)
        return self

    def measure(self, samples: ArrayLike, labels: ArrayLike | None = None) -> Scores:
        """Look at samples once, for any number of tests that draw from them.

        Parameters
        ----------
        samples : (n, c, h, w) or (n, d) array or tensor
            As the reference.
        labels : (n,) integer array, optional
            Needed if, and only if, the test was fitted with labels.

        Returns
        -------
        Scores
            One row a sample; `Scores.stack` joins pools, indexing picks samples.
        """
        check_is_fitted(self)
        samples = as_samples(samples, "batch")
        check_shape(samples, "batch", self.sample_shape_, self.value_range_)
        classes = as_labels(labels, "labels", len(samples))
        if (classes is None) != (self.classes_ is None):
            raise ValueError(
                "labels must be given: the test was fitted with labels"
                if classes is None
                else "labels must be left out: the test was fitted without labels"
            )
        if classes is not None:
            unknown = np.setdiff1d(classes, self.classes_)
            if len(unknown):
                raise ValueError(
                    f"labels must be among the fitted classes {self.classes_.tolist()}, but hold {unknown.tolist()}"
                )
        return Scores(tuple(self._parts(samples, classes, {})), classes)

    def test(self, batch: ArrayLike | Scores, labels: ArrayLike | None = None) -> Verdict:
        """Test whether the batch was drawn as the calibration samples were.

        Parameters
        ----------
        batch : (m, c, h, w) or (m, d) array or tensor, or Scores
            m ≥ 1. Images, vectors, or what `measure` returned for them.
        labels : (m,) integer array, optional
            Classes, if the test was fitted with labels.

        Returns
        -------
        Verdict

        Raises
        ------
        ValueError
            Naming what is wrong with the batch: shape, range, type, NaN, no samples.
        """
        check_is_fitted(self)
        scores = batch if isinstance(batch, Scores) else self.measure(batch, labels)
        self._check_scores(scores)
        if not len(scores):
            raise ValueError("batch must hold at least one sample, but is empty")
        return self._verdict(scores, self.calibration_, self._generator(0))

    def p_values(
        self,
        pool: ArrayLike | Scores,
        batches: Iterable[Sequence[int]],
        calibration: Iterable[Sequence[int]] | None = None,
        *,
        labels: ArrayLike | None = None,
    ) -> np.ndarray:
        """Test many batches drawn from one pool of samples that is looked at once.

        Parameters
        ----------
        pool : samples or Scores
            As `measure` takes or returns.
        batches : T sequences of int
            Rows of the pool, one batch each; a (T, m) array will do. Sizes may differ.
        calibration : T sequences of int, optional
            Rows of the pool that serve batch t as calibration set, in place of the fitted one. How often clean
            batches are rejected is a statement about calibration sets drawn anew: one fixed set shifts all p-values of
            large batches together.
        labels : (n,) integer array, optional
            Classes of the pool, if the test was fitted with labels and `pool` are samples.

        Returns
        -------
        (T,) float64 array
            As `test(...).p_value` of each batch. Batch t has its own permutations, drawn from (`random_state`, t).
        """
        check_is_fitted(self)
        scores = pool if isinstance(pool, Scores) else self.measure(pool, labels)
        self._check_scores(scores)
        batches = [
            as_rows(batch, "batches", number, len(scores)) for number, batch in enumerate(listed(batches, "batches"))
        ]
        if calibration is None:
            joined, n = Scores.stack([scores, self.calibration_]), len(scores)
            others = itertools.repeat(np.arange(n, n + len(self.calibration_)), len(batches))
        else:
            joined = scores
            sets = listed(calibration, "calibration")
            others = [as_rows(rows, "calibration", number, len(scores)) for number, rows in enumerate(sets)]
            if len(others) != len(batches):
                raise ValueError(
                    f"calibration must hold one list of rows a batch, as many as batches, {len(batches)}, but holds "
                    f"{len(others)}"
                )
        p = np.empty(len(batches))
        for number, (batch, other) in enumerate(zip(batches, others, strict=True)):
            if np.intersect1d(batch, other).size:
                raise ValueError(f"calibration must not share rows with its batch, but number {number} does")
            rng = self._generator(number)
            values = self._permuted(joined, batch, other, rng)
            p[number] = p_values(values, self.alternative, self.ties, rng)[0]
        return p

    def save(self, path: str | Path) -> None:
        """Write the fitted test to a safetensors file (no pickle), whole or not at all.

        Parameters
        ----------
        path : str or Path
            An existing file is replaced in one step.

        Raises
        ------
        ValueError
            Where a parameter has no name to be saved by: a feature map that was never registered, a generator.
        """
        check_is_fitted(self)
        tensors: dict[str, np.ndarray] = {}
        stated = {
            "test": self._state(tensors, {}),
            "sample_shape": list(self.sample_shape_),
            "value_range": list(self.value_range_),
            "n_reference": self.n_reference_,
            "classes": None if self.classes_ is None else self.classes_.tolist(),
            "exchangeability_p": None if math.isnan(self.exchangeability_p_) else self.exchangeability_p_,
            "assumed": list(self.assumed_),
            "calibration": [
                saving.pack(part, f"calibration.{number}", tensors)
                for number, part in enumerate(self.calibration_.parts)
            ],
        }
        if self.calibration_.labels is not None:
            tensors["calibration.labels"] = self.calibration_.labels
        if self.aim_ is not None:
            stated["aim"] = self.aim_.state(tensors)
        saving.write(Path(path), stated, tensors)

    def statistic_names(self) -> list[str]:
        """Return the names of the J statistics of a fitted test, in the order of `statistics` and `Verdict.parts`."""
        raise NotImplementedError

    def statistics(self, scores: Scores, rows: np.ndarray) -> np.ndarray:
        """Compute the test's statistics on many sets of measured samples, without p-values.

        Parameters
        ----------
        scores : Scores
            Of a pool of samples, from `measure`.
        rows : (B, m) int array
            B sets of m rows of the pool.

        Returns
        -------
        (B, J) float64 array
        """
        check_is_fitted(self)
        self._check_scores(scores)
        sets = plain_array(rows, "rows")
        if sets.ndim != 2 or not sets.size or sets.dtype.kind != "i":
            raise ValueError(f"rows must be a (B, m) integer array, but has shape {sets.shape} and dtype {sets.dtype}")
        if sets.min() < 0 or sets.max() >= len(scores):
            raise ValueError(f"rows must lie in 0 … {len(scores) - 1}, but reach from {sets.min()} to {sets.max()}")
        return self._statistics(scores.parts, sets)

    # ------------------------------------------------------------------ to be filled in

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        """Learn from the reference; `cache` holds what tests that are combined share: features, balls."""
        raise NotImplementedError

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        """Return `Scores.parts` of samples; `cache` as in `_learn`."""
        raise NotImplementedError

    def _n_parts(self) -> int:
        """How many parts `_parts` returns."""
        return 1

    def _state(self, tensors: dict[str, np.ndarray], known: dict[int, list[str]]) -> dict[str, Any]:
        """Return what was learned in JSON's types, and put arrays into `tensors`."""
        return {
            "class": type(self).__name__,
            "parameters": {name: saving.plain(name, value) for name, value in self._settings().items()},
        }

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray], known: dict[str, Any]) -> None:
        """Take back what `_state` returned."""

    def _settings(self) -> dict[str, Any]:
        """Return the parameters to save."""
        return self.get_params(deep=False)

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        """Return the statistics (B, J) of the sample sets `rows` (B, m)."""
        raise NotImplementedError

    def _score_samples(
        self, batch: Scores, calibration: Scores, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return per-sample scores, (m, J) and (n, J), exchangeable under the null."""
        raise NotImplementedError

    def _calibrate(self, calibration: Scores) -> None:
        """Learn what takes the calibration's scores."""

    def _least_reference(self) -> int:
        """Return how many reference samples (of each class) there must be."""
        return 2

    def _notes(self, m: int) -> list[str]:
        """Return sentences for `Verdict.assumed` about a batch of m."""
        return []

    # ------------------------------------------------------------------ permutations

    def _generator(self, number: int) -> np.random.Generator:
        if isinstance(self.random_state, np.random.Generator):
            return self.random_state
        return np.random.default_rng(None if self.random_state is None else [self.random_state, number])

    def _permuted(self, pool: Scores, batch: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return statistics (1 + draws, J): of the batch first, then of sets drawn from both, class by class."""
        return self._statistics(pool.parts, permuted_rows(batch, other, pool.labels, self.draws, rng, self._cheap))

    def _verdict(self, batch: Scores, calibration: Scores, rng: np.random.Generator) -> Verdict:
        m, n = len(batch), len(calibration)
        joined = Scores.stack([batch, calibration])
        values = self._permuted(joined, np.arange(m), np.arange(m, m + n), rng)
        p, each = p_values(values, self.alternative, self.ties, rng)
        parts = tuple(
            Part(name, float(column[0]), float(alone), float(column[1:].mean()), column[1:].copy())
            for name, column, alone in zip(self.statistic_names(), values.T, each, strict=True)
        )
        mine, theirs = self._score_samples(batch, calibration, rng)
        labels = (None, None) if batch.labels is None else (batch.labels, calibration.labels)
        ranked, smoothed, n_ranked = sample_p_values(mine, theirs, *labels, rng)
        return Verdict(
            statistic=parts[0].statistic if len(parts) == 1 else min(part.p_value for part in parts),
            p_value=p,
            sample_scores=self._reported_scores(mine, ranked),
            sample_p_values=ranked,
            contamination=contamination(smoothed, n_ranked),
            parts=parts,
            draws=len(values) - 1,
            assumed=(*self._assumed(batch, calibration, values), *self.assumed_),
        )

    def _reported_scores(self, columns: np.ndarray, ranked: np.ndarray) -> np.ndarray:
        """Return `Verdict.sample_scores` from `_score_samples` (m, J) and the samples' p-values (m,)."""
        return columns.mean(axis=1)

    # ------------------------------------------------------------------ words

    def _assumed(self, batch: Scores, calibration: Scores, values: np.ndarray) -> list[str]:
        m, n = len(batch), len(calibration)
        within = "" if batch.labels is None else ", class by class,"
        words = [
            f"The samples of the batch were drawn{within} as the {n} calibration samples were, independently of each "
            "other; then the p-value is exact. A flag says that they were not, not that someone attacked."
        ]
        if len(values) < 1 / 0.05:
            words.append(
                f"Only {len(values)} ways to choose the batch exist, so that no p-value is below {1 / len(values):.2g}."
            )
        elif m == 1 and len(values) == n + 1:
            words.append(f"A single sample is compared with all {n}: no p-value is below {1 / len(values):.2g}.")
        if m > n:
            words.append(
                f"The batch ({m}) is larger than the calibration set ({n}): the p-value stays exact, but the power is "
                "limited by the calibration set; more calibration samples help."
            )
        columns = zip(self.statistic_names(), values.T, strict=True)
        flat = [name for name, column in columns if (column == column[0]).all()]
        if flat:
            words.append(f"Every permutation has the same {' and '.join(flat)}: nothing can be told from that.")
        return words + self._notes(m)

    # ------------------------------------------------------------------ checks

    def _check_parameters(self) -> None:
        if whole_number(self.draws, "draws", 1) > _MOST_DRAWS:
            raise ValueError(f"draws must be at most {_MOST_DRAWS}, but is {self.draws}")
        one_of(self.alternative, "alternative", ALTERNATIVES)
        one_of(self.ties, "ties", TIES)
        checked_seed(self.random_state)

    def _check_sets(
        self,
        reference: ArrayLike,
        calibration: ArrayLike | None,
        reference_labels: ArrayLike | None,
        calibration_labels: ArrayLike | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return reference, calibration and the labels of both, checked and, if need be, split; set `classes_`."""
        reference = as_samples(reference, "reference")
        labels = as_labels(reference_labels, "reference_labels", len(reference))
        least, besides = self._least_reference(), ""
        if calibration is None:
            if calibration_labels is not None:
                raise ValueError("calibration_labels must come with calibration, but calibration is not given")
            keep, held = hold_out(len(reference), np.random.default_rng(self.random_state))
            if isinstance(reference, LargeSamples):
                reference, calibration = reference.take(keep), reference.take(held).in_memory()
            else:
                reference, calibration = reference[keep], reference[held]
            labels, other_labels = (None, None) if labels is None else (labels[keep], labels[held])
            besides = " besides those held out for calibration"
        else:
            calibration = as_samples(calibration, "calibration")
            if isinstance(calibration, LargeSamples):
                calibration = calibration.in_memory()
            check_shape(calibration, "calibration", reference.shape[1:], extremes(reference))
            other_labels = as_labels(calibration_labels, "calibration_labels", len(calibration))
            if (labels is None) != (other_labels is None):
                raise ValueError("reference_labels and calibration_labels must both be given or both be left out")
        if len(reference) < least:
            raise ValueError(f"reference must hold at least {least} samples{besides}, but has shape {reference.shape}")
        self.classes_ = None if labels is None else common_classes(labels, other_labels, least)
        return reference, calibration, labels, other_labels

    def _check_scores(self, scores: Scores) -> None:
        mine = self.calibration_.parts
        same = len(mine) == len(scores.parts) and all(
            a.shape[1:] == b.shape[1:] for a, b in zip(mine, scores.parts, strict=True)
        )
        if not same or (scores.labels is None) != (self.calibration_.labels is None):
            raise ValueError("scores must come from this test's own `measure`, but have other columns")
