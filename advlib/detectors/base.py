"""The one interface of all tests of a batch: fit, measure, test, p_values, save.

A test says what it learns from the reference, what it keeps of each sample, and what its statistics are for many sets
of samples; permutations, p-values, contamination and checks are here, for all of them.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from advlib.checks import ArrayLike
from advlib.detectors import features, saving
from advlib.detectors.contamination import Contamination, contamination
from advlib.detectors.exchangeability import compare
from advlib.detectors.permutations import ALTERNATIVES, TIES, p_values, sample_p_values, subsets
from advlib.detectors.samples import as_labels, as_rows, as_samples, check_shape, extremes, level, whole

_BLOCK = 4_096  # images that a feature map gets at once


@dataclass(frozen=True)
class Part:
    """One statistic of a test.

    Attributes
    ----------
    name : str
    statistic : float
        Of the batch.
    p_value : float
        Of this statistic alone.
    expected : float
        Mean over the permutations.
    null : (draws,) float64 array
        The statistic of each permutation.
    """

    name: str
    statistic: float
    p_value: float
    expected: float
    null: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """What a test says about one batch.

    Attributes
    ----------
    statistic : float
        Of the batch; where there are several, the smallest of their p-values.
    p_value : float
        (1 + count)/(1 + draws), of all statistics jointly.
    sample_scores : (m,) float64 array
        How each sample fits, in the test's own unit (see the test's class).
    sample_p_values : (m,) float64 array
        Rank of each sample's score among the calibration samples', two-sided, ties against rejection: sort by it.
    contamination : Contamination
    parts : tuple of Part
        Each statistic alone.
    draws : int
        Permutations, the batch itself not counted.
    assumed : tuple of str
        What the p-value relies on, and what `fit` found about it.
    """

    statistic: float
    p_value: float
    sample_scores: np.ndarray
    sample_p_values: np.ndarray
    contamination: Contamination
    parts: tuple[Part, ...]
    draws: int
    assumed: tuple[str, ...]

    def reject(self, alpha: float = 0.05) -> bool:
        """Return whether the batch is flagged at level `alpha`, in (0, 1)."""
        level("alpha", alpha)
        return self.p_value <= alpha


@dataclass(frozen=True)
class Scores:
    """What a test needs to know of samples, computed once and drawn from many times.

    Attributes
    ----------
    parts : tuple
        Arrays or sparse arrays with one row a sample.
    labels : (n,) array or None
        Their classes, for a class-conditional test.
    """

    parts: tuple
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return self.parts[0].shape[0]

    def __getitem__(self, rows: Any) -> "Scores":
        """Return the scores of some samples."""
        return Scores(
            tuple(part[rows] for part in self.parts),
            None if self.labels is None else self.labels[rows],
        )

    @staticmethod
    def stack(several: Sequence["Scores"]) -> "Scores":
        """Return the samples of several pools, in order, as one pool."""
        parts = tuple(
            sparse.vstack(column, format="csr") if sparse.issparse(column[0]) else np.concatenate(column)
            for column in zip(*(scores.parts for scores in several), strict=True)
        )
        labelled = all(scores.labels is not None for scores in several)
        return Scores(parts, np.concatenate([scores.labels for scores in several]) if labelled else None)


class BatchTest(BaseEstimator):
    """What all tests share: checks of the input, the permutations, p-values, contamination.

    A test says what it learns from the reference (`_learn`), what it keeps of each sample (`_parts`) and what its
    statistics are for many sets of samples (`_statistics`).
    """

    _cheap = True  # a statistic more or less costs nothing: a single image is compared with every calibration sample

    # ------------------------------------------------------------------ public

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
        reference = as_samples(reference, "reference")
        n_least = self._least_reference()
        labels = as_labels(reference_labels, "reference_labels", len(reference))
        other_labels, held_out = None, calibration is None
        if held_out:
            if calibration_labels is not None:
                raise ValueError("calibration_labels must come with calibration, but calibration is not given")
            if len(reference) < 2:
                raise ValueError(
                    "reference must hold at least 2 samples so that one can be held out, but n_samples = "
                    f"{len(reference)}"
                )
            order = np.random.default_rng(self.random_state).permutation(len(reference))
            held = max(min(2, len(reference) - 1), len(reference) // 5)
            keep, out = np.sort(order[held:]), np.sort(order[:held])
            reference, calibration = reference[keep], reference[out]
            if labels is not None:
                labels, other_labels = labels[keep], labels[out]
        else:
            calibration = as_samples(calibration, "calibration")
            check_shape(calibration, "calibration", reference.shape[1:], extremes(reference))
            other_labels = as_labels(calibration_labels, "calibration_labels", len(calibration))
            if (labels is None) != (other_labels is None):
                raise ValueError("reference_labels and calibration_labels must both be given or both be left out")
        if len(reference) < n_least:
            besides = " besides those held out for calibration" if held_out else ""
            raise ValueError(
                f"reference must hold at least {n_least} samples{besides}, but has shape {reference.shape}"
            )
        if labels is not None:
            labels, other_labels = self._with_classes(labels, other_labels, n_least)
        else:
            self.classes_ = None

        self.sample_shape_ = reference.shape[1:]
        self.value_range_ = extremes(reference)
        self.n_features_in_ = math.prod(self.sample_shape_)
        self.n_reference_ = len(reference)
        self._learn(reference, labels, {})
        self.calibration_ = Scores(tuple(self._parts(calibration, other_labels, {})), other_labels)
        self._after(self.calibration_)
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
        self._belongs(scores)
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
        self._belongs(scores)
        batches = [as_rows(batch, "batches", number, len(scores)) for number, batch in enumerate(batches)]
        if calibration is None:
            joined, n = Scores.stack([scores, self.calibration_]), len(scores)
            others = itertools.repeat(np.arange(n, n + len(self.calibration_)), len(batches))
        else:
            joined = scores
            others = [as_rows(rows, "calibration", number, len(scores)) for number, rows in enumerate(calibration)]
            if len(others) != len(batches):
                raise ValueError(
                    f"calibration must hold one list of rows a batch, {len(batches)}, but holds {len(others)}"
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
        saving.write(Path(path), stated, tensors)

    # ------------------------------------------------------------------ to be filled in

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        raise NotImplementedError

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        raise NotImplementedError

    def _names(self) -> list[str]:
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
        return self.get_params(deep=False)

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        """Return the statistics (B, J) of the sample sets `rows` (B, m)."""
        raise NotImplementedError

    def _columns(self, batch: Scores, calibration: Scores, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return per-sample scores, (m, J) and (n, J), exchangeable under the null."""
        raise NotImplementedError

    def _after(self, calibration: Scores) -> None:
        """Learn what takes the calibration's scores."""

    def _least_reference(self) -> int:
        return 2

    def _notes(self, m: int) -> list[str]:
        return []

    # ------------------------------------------------------------------ permutations

    def _generator(self, number: int) -> np.random.Generator:
        if isinstance(self.random_state, np.random.Generator):
            return self.random_state
        return np.random.default_rng(None if self.random_state is None else [self.random_state, number])

    def _permuted(self, pool: Scores, batch: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return statistics (1 + draws, J): of the batch first, then of sets drawn from both, class by class."""
        return self._statistics(pool.parts, self._sets(pool.labels, batch, other, rng))

    def _sets(
        self,
        labels: np.ndarray | None,
        batch: np.ndarray,
        other: np.ndarray,
        rng: np.random.Generator,
        draws: int | None = None,
    ) -> np.ndarray:
        """Return the rows of the batch, then those of its permutations, (1 + draws, m)."""
        if labels is None:
            strata = [(batch, other)]
        else:
            strata = [(batch[labels[batch] == c], other[labels[other] == c]) for c in np.unique(labels[batch])]
        draws = self.draws if draws is None else draws
        if len(strata) == 1:
            rows = np.concatenate(strata[0])
            m, n = len(batch), len(rows)
            if (m == 1 and (self._cheap or n <= draws + 1)) or (n <= 64 and math.comb(n, m) <= draws + 1):
                # So few choices that each is looked at once; the first is the batch itself.
                if m == 1:
                    return rows[:, None]
                return rows[np.array(list(itertools.combinations(range(n), m)))]
        columns = []
        for mine, theirs in strata:
            rows = np.concatenate([mine, theirs])
            first = np.arange(len(mine))[None]
            columns.append(rows[np.concatenate([first, subsets(len(rows), len(mine), draws, rng)])])
        return np.concatenate(columns, axis=1)

    def _verdict(self, batch: Scores, calibration: Scores, rng: np.random.Generator) -> Verdict:
        m, n = len(batch), len(calibration)
        joined = Scores.stack([batch, calibration])
        values = self._permuted(joined, np.arange(m), np.arange(m, m + n), rng)
        p, each = p_values(values, self.alternative, self.ties, rng)
        parts = tuple(
            Part(name, float(column[0]), float(alone), float(column[1:].mean()), column[1:].copy())
            for name, column, alone in zip(self._names(), values.T, each, strict=True)
        )
        mine, theirs = self._columns(batch, calibration, rng)
        labels = (None, None) if batch.labels is None else (batch.labels, calibration.labels)
        ranked, smoothed, n_ranked = sample_p_values(mine, theirs, *labels, rng)
        return Verdict(
            statistic=parts[0].statistic if len(parts) == 1 else min(part.p_value for part in parts),
            p_value=p,
            sample_scores=self._sample_scores(mine, ranked),
            sample_p_values=ranked,
            contamination=contamination(smoothed, n_ranked),
            parts=parts,
            draws=len(values) - 1,
            assumed=(*self._assumed(batch, calibration, values), *self.assumed_),
        )

    def _sample_scores(self, columns: np.ndarray, ranked: np.ndarray) -> np.ndarray:
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
        flat = [name for name, column in zip(self._names(), values.T, strict=True) if (column == column[0]).all()]
        if flat:
            words.append(f"Every permutation has the same {' and '.join(flat)}: nothing can be told from that.")
        return words + self._notes(m)

    # ------------------------------------------------------------------ checks

    def _check_parameters(self) -> None:
        whole("draws", self.draws, 1)
        if self.alternative not in ALTERNATIVES:
            raise ValueError(f"alternative must be one of {', '.join(ALTERNATIVES)}, but is {self.alternative!r}")
        if self.ties not in TIES:
            raise ValueError(f"ties must be one of {', '.join(TIES)}, but is {self.ties!r}")

    def _with_classes(
        self, labels: np.ndarray, other_labels: np.ndarray, n_least: int
    ) -> tuple[np.ndarray, np.ndarray]:
        self.classes_, sizes = np.unique(labels, return_counts=True)
        if sizes.min() < n_least:
            raise ValueError(
                f"reference_labels must name at least {n_least} samples of each class, but class "
                f"{self.classes_[sizes.argmin()]} has {sizes.min()}"
            )
        missing = np.setdiff1d(self.classes_, other_labels)
        unknown = np.setdiff1d(other_labels, self.classes_)
        if len(missing) or len(unknown):
            raise ValueError(
                "reference_labels and calibration_labels must hold the same classes, but "
                + (f"{missing.tolist()} are only in the first" if len(missing) else "")
                + (" and " if len(missing) and len(unknown) else "")
                + (f"{unknown.tolist()} only in the second" if len(unknown) else "")
            )
        return labels, other_labels

    def _belongs(self, scores: Scores) -> None:
        mine = self.calibration_.parts
        same = len(mine) == len(scores.parts) and all(
            a.shape[1:] == b.shape[1:] for a, b in zip(mine, scores.parts, strict=True)
        )
        if not same or (scores.labels is None) != (self.calibration_.labels is None):
            raise ValueError("scores must come from this test's own `measure`, but have other columns")


class FeatureTest(BatchTest):
    """A test on one feature map, channel by channel if asked."""

    def _matrices(self, samples: np.ndarray, cache: dict[Hashable, Any]) -> list[np.ndarray]:
        """Return one (n, d) matrix, or one a channel."""
        key = ("features", self._feature_key())
        if key not in cache:
            if samples.ndim == 2:
                if self._feature_key()[0] != "pixels":
                    raise ValueError(
                        f"features must be 'pixels' for samples that are vectors, but is {self.features!r} and the "
                        f"samples have shape {samples.shape}"
                    )
                cache[key] = [samples]
            else:
                views = [samples]
                if self.per_channel:
                    views = [samples[:, channel : channel + 1] for channel in range(samples.shape[1])]
                cache[key] = [_mapped(self.features, view) for view in views]
        return cache[key]

    def _feature_key(self) -> tuple[str | Callable, bool]:
        return (self.features if callable(self.features) else str(self.features)), bool(self.per_channel)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        features.resolve(self.features)

    def _n_parts(self) -> int:
        return self.n_channels_

    def _names(self) -> list[str]:
        return [self._word] if self.n_channels_ == 1 else [f"{self._word} {c}" for c in range(self.n_channels_)]


def _mapped(feature_map: str | Callable, images: np.ndarray) -> np.ndarray:
    """Return the feature vectors of images, a block at a time."""
    blocks = [features.apply(feature_map, images[lo : lo + _BLOCK]) for lo in range(0, len(images), _BLOCK)]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def feature_word(test: BatchTest) -> str:
    """Return the name of what a test looks at."""
    return features.name_of(test.features) if hasattr(test, "features") else "several maps"
