"""Was this batch drawn as my clean images were? Permutation tests with calibrated p-values.

VS22 close by asking for "statistical hypothesis tests to differentiate provided samples from a known training set".
Here they are. A *reference* set gives the statistic its shape (balls around it, or the numerator of a density ratio), a
*calibration* set of other clean samples says what clean batches look like, and a *batch* is what one wants to know
about. The null hypothesis is that batch and calibration samples are exchangeable. Given the reference, whatever it is,
each choice of m among the n + m samples is then equally likely to be the batch, so that

    p = (1 + number of draws at least as extreme) / (1 + draws)

is exact for every sample size [1]_ [2]_, and never 0. Where the statistic of several draws is the same (ball counts are
whole numbers, most of all for a single image), their order is drawn at random, which makes p uniform instead of
cautious; with ``ties="conservative"`` all of them count against rejection.

Both tails count: density and coverage fall when samples leave the balls and rise when they crowd into the middle, and
cross their expectation in between. Several statistics (channels, or different tests) are combined by the smallest of
their tail ranks, whose own distribution comes from the same permutations [3]_: the joint level is exact, however they
depend on each other.

References
----------
.. [1] B. Phipson and G. K. Smyth, "Permutation P-values should never be zero", Stat. Appl. Genet. Mol. Biol. 9 (2010)
   39, doi:10.2202/1544-6115.1585.
.. [2] E. L. Lehmann and J. P. Romano, "Testing statistical hypotheses", 3rd ed., Springer 2005, §15.2,
   doi:10.1007/0-387-27605-X.
.. [3] P. H. Westfall and S. S. Young, "Resampling-based multiple testing", Wiley 1993, §2.3 (min-p).
.. [4] J. D. Storey, "A direct approach to false discovery rates", J. R. Stat. Soc. B 64 (2002) 479-498,
   doi:10.1111/1467-9868.00346.
.. [5] G. Blanchard, G. Lee and C. Scott, "Semi-supervised novelty detection", JMLR 11 (2010) 2973-3009.
"""

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from scipy import sparse, stats
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from advlib import features as feature_maps
from advlib import paths
from advlib.checks import ArrayLike
from advlib.prdc import ReferenceManifold
from advlib.ulsif import DEFAULT_GRID, ULSIF, GridEdgeWarning, fit_batch_indices

ALTERNATIVES = ("two-sided", "less", "greater")
TIES = ("random", "conservative")
CHECK_LEVEL = 0.01
"""Below this p-value `fit` says that reference and calibration differ."""

_FORMAT = "advlib detector 1"
_CHECK_SAMPLES = 1_000  # reference and calibration samples that the check in `fit` compares
_CHECK_REFERENCE = 5_000  # reference samples that it puts balls around
_BLOCK = 4_096  # images that a feature map gets at once
_LAMBDAS = (0.01, 0.05, 0.1, 0.2, 0.5)  # tail shares at which a lower bound of the contamination is sought


class ExchangeabilityWarning(UserWarning):
    """Reference and calibration samples do not look as if they were drawn alike."""


@dataclass(frozen=True)
class Contamination:
    """Share of a batch that does not fit.

    Attributes
    ----------
    share : float
        Storey's estimate [4]_: of clean samples half have a p-value above ½, so a lack of such samples is a surplus of
        others. It assumes that misfits are among the more unusual half; misfits that are not make it too small.
    low, high : float
        Interval at `level`, with the error of calibration counted in. The lower end assumes nothing about the misfits
        (the bound of [5]_ at five tail shares at once), the upper end what `share` does.
    level : float
    """

    share: float
    low: float
    high: float
    level: float = 0.95


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
        _level("alpha", alpha)
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


class _BatchTest(BaseEstimator):
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
        reference = _samples(reference, "reference")
        n_least = self._least_reference()
        labels = _labels(reference_labels, "reference_labels", len(reference))
        other_labels = None
        if calibration is None:
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
            calibration = _samples(calibration, "calibration")
            _same_shape(calibration, "calibration", reference.shape[1:], _range(reference))
            other_labels = _labels(calibration_labels, "calibration_labels", len(calibration))
            if (labels is None) != (other_labels is None):
                raise ValueError("reference_labels and calibration_labels must both be given or both be left out")
        if len(reference) < n_least:
            raise ValueError(f"reference must hold at least {n_least} samples, but has shape {reference.shape}")
        if labels is not None:
            labels, other_labels = self._with_classes(labels, other_labels, n_least)
        else:
            self.classes_ = None

        self.sample_shape_ = reference.shape[1:]
        self.value_range_ = _range(reference)
        self.n_features_in_ = math.prod(self.sample_shape_)
        self.n_reference_ = len(reference)
        self._learn(reference, labels, {})
        self.calibration_ = Scores(tuple(self._parts(calibration, other_labels, {})), other_labels)
        self._after(self.calibration_)
        self.exchangeability_p_, self.assumed_ = math.nan, ()
        if self.check:
            self._compare(reference, calibration, labels, other_labels)
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
        samples = _samples(samples, "batch")
        _same_shape(samples, "batch", self.sample_shape_, self.value_range_)
        classes = _labels(labels, "labels", len(samples))
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
        batches = [_rows(batch, "batches", number, len(scores)) for number, batch in enumerate(batches)]
        if calibration is None:
            joined, n = Scores.stack([scores, self.calibration_]), len(scores)
            others = itertools.repeat(np.arange(n, n + len(self.calibration_)), len(batches))
        else:
            joined = scores
            others = [_rows(rows, "calibration", number, len(scores)) for number, rows in enumerate(calibration)]
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
            p[number] = _p_values(values, self.alternative, self.ties, rng)[0]
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
                _pack(part, f"calibration.{number}", tensors) for number, part in enumerate(self.calibration_.parts)
            ],
        }
        if self.calibration_.labels is not None:
            tensors["calibration.labels"] = self.calibration_.labels
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        words = json.dumps(stated, ensure_ascii=False, sort_keys=True)
        metadata = {"format": _FORMAT, "detector": words, "seal_sha256": _seal(words, tensors)}
        with paths.replacing(Path(path)) as temporary:
            temporary.write_bytes(to_safetensors(tensors, metadata=metadata))

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
            "parameters": {name: _plain(name, value) for name, value in self._settings().items()},
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
            columns.append(rows[np.concatenate([first, _subsets(len(rows), len(mine), draws, rng)])])
        return np.concatenate(columns, axis=1)

    def _verdict(self, batch: Scores, calibration: Scores, rng: np.random.Generator) -> Verdict:
        m, n = len(batch), len(calibration)
        joined = Scores.stack([batch, calibration])
        values = self._permuted(joined, np.arange(m), np.arange(m, m + n), rng)
        p, each = _p_values(values, self.alternative, self.ties, rng)
        parts = tuple(
            Part(name, float(column[0]), float(alone), float(column[1:].mean()), column[1:].copy())
            for name, column, alone in zip(self._names(), values.T, each, strict=True)
        )
        mine, theirs = self._columns(batch, calibration, rng)
        labels = (None, None) if batch.labels is None else (batch.labels, calibration.labels)
        ranked, smoothed, n_ranked = _sample_p_values(mine, theirs, *labels, rng)
        return Verdict(
            statistic=parts[0].statistic if len(parts) == 1 else min(part.p_value for part in parts),
            p_value=p,
            sample_scores=self._sample_scores(mine, ranked),
            sample_p_values=ranked,
            contamination=_contamination(smoothed, n_ranked),
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

    def _compare(
        self, reference: np.ndarray, calibration: np.ndarray, labels: np.ndarray | None, other: np.ndarray | None
    ) -> None:
        """Test calibration samples against reference samples that were kept out of a smaller reference."""
        rng = np.random.default_rng([0 if not isinstance(self.random_state, int) else self.random_state, 1])
        words = []
        copies = _copies(calibration, reference)
        if copies:
            words.append(f"{copies} of {len(calibration)} calibration samples are exact copies of reference samples.")
        mine, theirs = np.arange(len(reference)), np.arange(len(calibration))
        if labels is not None:
            words += self._compare_mix(labels, other)
            # Classes with a handful of members stay out of the check, not out of the test.
            least = 3 * self._least_reference()
            common = [c for c in self.classes_ if (labels == c).sum() >= least and (other == c).sum() > 0]
            mine, theirs = mine[np.isin(labels, common)], theirs[np.isin(other, common)]
        held = min(len(theirs), len(mine) // 3, _CHECK_SAMPLES)
        kept = min(len(mine) - held, _CHECK_REFERENCE)
        if labels is None:
            order = rng.permutation(mine)
            held_rows, kept_rows = order[:held], order[held : held + kept]
        elif held:
            held_rows, kept_rows = _class_split(mine, labels, held / len(mine), kept / len(mine), rng, least // 3)
        if held < 2 or len(kept_rows) < self._least_reference():
            words.append("Reference and calibration were too few to be compared with each other.")
        else:
            chosen = rng.permutation(theirs)[:_CHECK_SAMPLES]
            again = clone(self).set_params(check=False, ties="random", alternative="two-sided")
            if labels is None:
                labelled, asked = {}, None
            else:
                chosen = chosen[np.isin(other[chosen], np.intersect1d(labels[held_rows], labels[kept_rows]))]
                labelled = {"reference_labels": labels[kept_rows], "calibration_labels": labels[held_rows]}
                asked = other[chosen]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                again.fit(reference[kept_rows], reference[held_rows], **labelled)
            self.exchangeability_p_ = float(again.test(calibration[chosen], asked).p_value)
            p = self.exchangeability_p_
            if p <= CHECK_LEVEL:
                words.append(
                    f"Reference and calibration differ (p = {p:.2g} for the same test between them): the balls or "
                    "ratios describe another population than the batches come from. The p-value compares with the "
                    "calibration set and stays exact; expected values such as density 1 do not hold, and power may be "
                    "lower."
                )
                warnings.warn(words[-1], ExchangeabilityWarning, stacklevel=3)
            else:
                words.append(
                    f"Reference and calibration look drawn alike (p = {p:.2g} for the same test between them)."
                )
        self.assumed_ = tuple(words)

    def _compare_mix(self, labels: np.ndarray, other: np.ndarray) -> list[str]:
        table = np.array([[(side == c).sum() for c in self.classes_] for side in (labels, other)])
        if len(self.classes_) < 2 or stats.chi2_contingency(table).pvalue > CHECK_LEVEL:
            return []
        return [
            "Reference and calibration have their classes in different shares; the test is class-conditional, which "
            "makes that harmless."
        ]

    # ------------------------------------------------------------------ checks

    def _check_parameters(self) -> None:
        _whole("draws", self.draws, 1)
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


class _FeatureTest(_BatchTest):
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
        feature_maps.resolve(self.features)

    def _n_parts(self) -> int:
        return self.n_channels_

    def _names(self) -> list[str]:
        return [self._word] if self.n_channels_ == 1 else [f"{self._word} {c}" for c in range(self.n_channels_)]


class _BallTest(_FeatureTest):
    """A test whose statistic comes from balls around the reference."""

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _whole("k", self.k, 1)

    def _least_reference(self) -> int:
        return self.k + 1

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        key = ("balls", self._feature_key(), self.k)
        if key not in cache:
            cache[key] = [_Balls(self.k).fit(matrix, labels) for matrix in self._matrices(reference, cache)]
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
            known[names] = [_Balls(self.k).restore(classes, name, tensors) for name in names]
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

    def _columns(self, batch: Scores, calibration: Scores, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._per_sample(batch.parts), self._per_sample(calibration.parts)

    def _per_sample(self, parts: Sequence[Any]) -> np.ndarray:
        return parts[0].astype(float)


class _MeanScoreTest(_BallTest):
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


class DensityTest(_MeanScoreTest):
    """Test of a batch's density: the mean number of reference balls around its samples, over k.

    Parameters
    ----------
    k : int
        A ball reaches to its centre's k-th nearest other reference point. VS22 use 5.
    features : str or callable
        What is looked at: a name known to `advlib.features`, or any callable from images (n, c, h, w) to vectors (n,
        d).
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

    _word = "density"

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

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        return [
            np.stack([np.diff(hits.indptr) for hits in self._hits(samples, labels, cache)], axis=1).astype(np.int64)
        ]

    def _unit(self) -> float:
        return float(self.k)

    def _per_sample(self, parts: Sequence[Any]) -> np.ndarray:
        return parts[0] / self.k


class NearestBallTest(_MeanScoreTest):
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

    _word = "nearest ball"

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

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        matrices = self._matrices(samples, cache)
        columns = [balls.nearest(matrix, labels) for balls, matrix in zip(self.balls_, matrices, strict=True)]
        return [np.stack(columns, axis=1)]


class CoverageTest(_BallTest):
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

    _word = "coverage"

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

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        return list(self._hits(samples, labels, cache))

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        return np.stack([_unions(hits, rows) / hits.shape[1] for hits in parts], axis=1)

    def _per_sample(self, parts: Sequence[Any]) -> np.ndarray:
        return np.stack([np.diff(hits.indptr) for hits in parts], axis=1) / self.k


class DensityRatioTest(_FeatureTest):
    """Test of G17's statistic: the mean density ratio p_clean / p_batch, fitted by uLSIF, over clean samples.

    The numerator is a fixed random choice of `n_numerator` reference samples; the denominator is the batch, or a
    permutation's choice. Each permutation is a full fit, with σ and λ chosen by leave-one-out.

    Parameters
    ----------
    n_numerator : int
        Clean samples above the line, and kernel centres. G17 use 100.
    sigmas, lambdas, kernel
        As in `ULSIF`.
    features : str or callable
        As in `DensityTest`.
    per_channel : bool
        One statistic a colour channel, as in G17, combined at a joint level.
    draws : int
        Permutations, one fit a channel each.
    alternative, ties, check, random_state
        As in `DensityTest`.

    Attributes
    ----------
    numerators_ : list of (n, d) float64 arrays
        One a channel.
    sigma_, lambda_ : list of float
        Medians of what is chosen on clean samples, one a channel: what a single image is judged by, since leave-one-out
        needs two samples.

    Notes
    -----
    `sample_scores` are the ratios p_clean / p_batch at each sample, low where samples like it are rare among clean
    ones; they come from fits on the other half of the batch, so that a sample is not judged by a fit to itself. The
    other attributes are those of `DensityTest`.
    """

    _word = "mean density ratio"
    _cheap = False

    def __init__(
        self,
        n_numerator: int = 100,
        *,
        sigmas: Sequence[float] | float = DEFAULT_GRID,
        lambdas: Sequence[float] | float = DEFAULT_GRID,
        kernel: str = "gaussian",
        features: str | Callable = "pixels",
        per_channel: bool = True,
        draws: int = 199,
        alternative: str = "two-sided",
        ties: str = "random",
        check: bool = True,
        random_state: int | np.random.Generator | None = 0,
    ):
        self.n_numerator = n_numerator
        self.sigmas = sigmas
        self.lambdas = lambdas
        self.kernel = kernel
        self.features = features
        self.per_channel = per_channel
        self.draws = draws
        self.alternative = alternative
        self.ties = ties
        self.check = check
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _whole("n_numerator", self.n_numerator, 2)

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        rng = np.random.default_rng(self.random_state if isinstance(self.random_state, int) else 0)
        chosen = np.sort(rng.choice(len(reference), min(self.n_numerator, len(reference)), replace=False))
        self.numerators_ = [matrix.astype(np.float64) for matrix in self._matrices(reference[chosen], {})]
        self.n_channels_ = len(self.numerators_)

    def _state(self, tensors: dict[str, np.ndarray], known: dict[int, list[str]]) -> dict[str, Any]:
        number = known.setdefault(id(self.numerators_), len(known))
        names = [f"numerators.{number}.{channel}" for channel in range(self.n_channels_)]
        tensors.update(zip(names, self.numerators_, strict=True))
        return {**super()._state(tensors, known), "numerators": names, "sigma": self.sigma_, "lambda": self.lambda_}

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray], known: dict[str, Any]) -> None:
        self.numerators_ = [_finite(tensors[name]) for name in state["numerators"]]
        self.sigma_, self.lambda_ = ([float(value) for value in state[key]] for key in ("sigma", "lambda"))
        self.n_channels_ = len(self.numerators_)

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        return list(self._matrices(samples, cache))

    def _after(self, calibration: Scores) -> None:
        """Choose the σ and λ that single images are judged by."""
        n = len(calibration)
        self.sigma_, self.lambda_ = [], []
        size = min(n, self.n_numerator)
        if size < 2:
            raise ValueError(f"calibration must hold at least 2 samples for a density ratio, but holds {n}")
        rows = _subsets(n, size, 9, np.random.default_rng(0))
        for numerator, matrix in zip(self.numerators_, calibration.parts, strict=True):
            fits = self._fits(numerator, matrix, rows)
            self.sigma_.append(float(np.median(fits.sigma_)))
            self.lambda_.append(float(np.median(fits.lambda_)))

    def _fits(self, numerator: np.ndarray, matrix: np.ndarray, rows: np.ndarray, **fixed: float):
        grid = {"sigmas": self.sigmas, "lambdas": self.lambdas, **fixed}
        own = np.broadcast_to(np.arange(len(numerator)), (len(rows), len(numerator)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GridEdgeWarning)
            return fit_batch_indices(numerator, matrix, own.copy(), rows, kernel=self.kernel, **grid)

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        used, places = np.unique(rows, return_inverse=True)
        places = places.reshape(rows.shape)
        columns = []
        for channel, matrix in enumerate(parts):
            fixed = {}
            if rows.shape[1] == 1:
                fixed = {"sigmas": self.sigma_[channel], "lambdas": self.lambda_[channel]}
            fits = self._fits(self.numerators_[channel], matrix[used], places, **fixed)
            columns.append(fits.mean_ratio_)
        return np.stack(columns, axis=1)

    def _columns(self, batch: Scores, calibration: Scores, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        m = len(batch)
        halves = np.array_split(rng.permutation(m), 2)
        mine, theirs = np.empty((m, self.n_channels_)), np.zeros((len(calibration), self.n_channels_))
        for channel, numerator in enumerate(self.numerators_):
            pair, other = batch.parts[channel].astype(np.float64), calibration.parts[channel].astype(np.float64)
            for side in (0, 1):
                trained, judged = halves[side], halves[1 - side]
                if not len(trained):
                    # A single sample has no other half; clean samples stand in for it.
                    denominator = other[rng.permutation(len(other))[: self.n_numerator]]
                else:
                    denominator = pair[trained]
                grid = {"sigmas": self.sigmas, "lambdas": self.lambdas}
                if len(denominator) < 2:
                    grid = {"sigmas": self.sigma_[channel], "lambdas": self.lambda_[channel]}
                model = ULSIF(kernel=self.kernel, random_state=0, **grid)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", GridEdgeWarning)
                    model.fit(numerator, denominator)
                if len(judged):
                    mine[judged, channel] = model.predict(pair[judged])
                theirs[:, channel] += model.predict(other) / 2
        return mine, theirs

    def _notes(self, m: int) -> list[str]:
        if m > 1:
            return []
        pairs = ", ".join(f"σ = {s:.3g}, λ = {lam:.3g}" for s, lam in zip(self.sigma_, self.lambda_, strict=True))
        return [f"Leave-one-out needs two samples: for a single one, {pairs} are those chosen on clean samples."]


class CombinedTest(_BatchTest):
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
        tests: Sequence[_BatchTest] | None = None,
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
            isinstance(self.tests, list | tuple) and self.tests and all(isinstance(t, _BatchTest) for t in self.tests)
        ):
            raise ValueError(f"tests must be a non-empty list of tests, but is {self.tests!r}")
        for test in self._chosen():
            test._check_parameters()

    def _chosen(self) -> list[_BatchTest]:
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
        self.tests_ = [_restored(part, self.classes_, tensors, known) for part in state["tests"]]
        self.tests = [clone(test) for test in self.tests_]

    def _after(self, calibration: Scores) -> None:
        for test, own in self._each(calibration):
            test._after(own)

    def _each(self, scores: Scores) -> Iterable[tuple[_BatchTest, Scores]]:
        for test, where in zip(self.tests_, self._slices, strict=True):
            yield test, Scores(scores.parts[where], scores.labels)

    def _names(self) -> list[str]:
        names = [name for test in self.tests_ for name in test._names()]
        if len(set(names)) < len(names):  # the same test on several feature maps
            names = [f"{name} of {_feature_word(test)}" for test in self.tests_ for name in test._names()]
        return names

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        each = zip(self.tests_, self._slices, strict=True)
        return np.concatenate([test._statistics(parts[where], rows) for test, where in each], axis=1)

    def _columns(self, batch: Scores, calibration: Scores, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        sides = []
        for (test, mine), (_, theirs) in zip(self._each(batch), self._each(calibration), strict=True):
            sides.append(test._columns(mine, theirs, rng))
        return tuple(np.concatenate(side, axis=1) for side in zip(*sides, strict=True))

    def _sample_scores(self, columns: np.ndarray, ranked: np.ndarray) -> np.ndarray:
        return ranked

    def _notes(self, m: int) -> list[str]:
        return list(dict.fromkeys(note for test in self.tests_ for note in test._notes(m)))


TESTS = {test.__name__: test for test in (DensityTest, CoverageTest, NearestBallTest, DensityRatioTest, CombinedTest)}
"""The tests by the names they are saved under."""


def load(path: str | Path) -> _BatchTest:
    """Read a test that its `save` wrote, and check that it is whole.

    Parameters
    ----------
    path : str or Path
        The file. Nothing in it is executed.

    Returns
    -------
    DensityTest, CoverageTest, NearestBallTest, DensityRatioTest or CombinedTest
        Fitted; no distance is computed again.

    Raises
    ------
    ValueError
        Naming the file: no such file, not a saved test, damaged, or with a feature map that is not known here.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            stated = file.metadata() or {}
            if stated.get("format") != _FORMAT:
                raise ValueError(f"{path} is no saved test: its format is {stated.get('format')!r}, not {_FORMAT!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file of a saved test: {error}") from None
    words = stated.get("detector", "")
    if _seal(words, tensors) != stated.get("seal_sha256"):
        raise ValueError(f"{path} is damaged: its content is not what it was sealed with")
    try:
        told = json.loads(words)
        classes = None if told["classes"] is None else np.array(told["classes"], dtype=np.int64)
        test = _restored(told["test"], classes, tensors, {})
        test.sample_shape_ = tuple(int(size) for size in told["sample_shape"])
        low, high = told["value_range"]
        test.value_range_ = float(low), float(high)
        test.n_features_in_ = math.prod(test.sample_shape_)
        test.n_reference_ = int(told["n_reference"])
        test.exchangeability_p_ = math.nan if told["exchangeability_p"] is None else float(told["exchangeability_p"])
        test.assumed_ = tuple(str(sentence) for sentence in told["assumed"])
        parts = tuple(
            _unpack(part, f"calibration.{number}", tensors) for number, part in enumerate(told["calibration"])
        )
        test.calibration_ = Scores(parts, None if classes is None else tensors["calibration.labels"])
        if len(parts) != test._n_parts() or len({part.shape[0] for part in parts}) != 1:
            raise ValueError("its calibration scores do not belong to it")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} cannot be used as a test: {reason}") from None
    return test


def _restored(
    state: dict[str, Any], classes: np.ndarray | None, tensors: dict[str, np.ndarray], known: dict[str, Any]
) -> _BatchTest:
    if state["class"] not in TESTS:
        raise ValueError(f"it holds a {state['class']!r}, which is none of {', '.join(TESTS)}")
    test = TESTS[state["class"]](**state["parameters"])
    test.classes_ = classes
    test._check_parameters()
    test._restore(state, tensors, known)
    return test


def _plain(name: str, value: Any) -> Any:
    """Return a parameter as JSON can hold it, or raise."""
    if name == "features":
        word = feature_maps.name_of(value)
        try:
            feature_maps.resolve(word)
        except ValueError:
            raise ValueError(
                f"features must have a name so that the test can be saved, but {word} is not registered: give it one "
                "with advlib.features.register"
            ) from None
        return word
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | tuple | list):
        return np.asarray(value).tolist()
    if value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"{name} must be a plain value so that the test can be saved, but is {value!r}")
    return value


def _pack(part: Any, name: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    if sparse.issparse(part):
        tensors[f"{name}.indices"] = part.indices.astype(np.int64)
        tensors[f"{name}.indptr"] = part.indptr.astype(np.int64)
        return {"sparse": [int(size) for size in part.shape]}
    tensors[name] = part
    return {}


def _unpack(told: dict[str, Any], name: str, tensors: dict[str, np.ndarray]) -> Any:
    if "sparse" not in told:
        return _finite(tensors[name])
    indices, indptr = tensors[f"{name}.indices"], tensors[f"{name}.indptr"]
    rows, columns = (int(size) for size in told["sparse"])
    array = sparse.csr_array((np.ones(len(indices), np.int32), indices, indptr), shape=(rows, columns))
    array.check_format(full_check=True)
    return array


def _finite(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.dtype.kind not in "fi" or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"it holds an array of shape {array.shape} and dtype {array.dtype} where finite numbers belong"
        )
    return array


def _seal(words: str, tensors: dict[str, np.ndarray]) -> str:
    """Digest of all that a file says: words, names, shapes, types, bytes."""
    digest = hashlib.sha256(words.encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"\n{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------- balls


class _Balls:
    """Balls around the reference, of each class apart if there are labels; columns are numbered class after class."""

    def __init__(self, k: int):
        self.k = k
        self.manifolds: dict[int | None, ReferenceManifold] = {}

    def fit(self, matrix: np.ndarray, labels: np.ndarray | None) -> Self:
        classes = [None] if labels is None else np.unique(labels).tolist()
        for c in classes:
            rows = matrix if c is None else matrix[labels == c]
            try:
                self.manifolds[c] = ReferenceManifold(self.k).fit(rows)
            except ValueError as error:
                raise ValueError(f"{error}{'' if c is None else f' (class {c})'}") from None
        self._number()
        return self

    def restore(self, classes: Sequence[int | None], name: str, tensors: dict[str, np.ndarray]) -> Self:
        """Take balls from saved arrays; no distance is computed again."""
        for number, c in enumerate(classes):
            reference, radii = _finite(tensors[f"{name}.{number}.reference"]), tensors[f"{name}.{number}.radii"]
            if radii.shape != (len(reference),) or radii.dtype != np.float64 or not (radii >= 0).all():
                raise ValueError(f"its radii have shape {radii.shape} and dtype {radii.dtype}, or are no distances")
            manifold = self.manifolds[c] = ReferenceManifold(self.k)
            manifold._hold(torch.from_numpy(reference))
            manifold._set_radii(radii * manifold._scale)
        self._number()
        return self

    def _number(self) -> None:
        sizes = [len(manifold.radii_) for manifold in self.manifolds.values()]
        self.starts = dict(zip(self.manifolds, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        self.size = sum(sizes)
        self._norms: dict[int | None, tuple[torch.Tensor, ...]] = {}

    def hits(self, matrix: np.ndarray, labels: np.ndarray | None) -> sparse.csr_array:
        """Return (n, N) ones where a sample lies strictly inside a ball (of its class)."""
        if labels is None:
            hits = self.manifolds[None].hits(matrix)
            hits.sort_indices()
            return sparse.csr_array((np.ones(hits.nnz, np.int32), hits.indices, hits.indptr), shape=hits.shape)
        rows, columns = [], []
        for c in np.unique(labels).tolist():
            own = np.flatnonzero(labels == c)
            found = self.manifolds[c].hits(matrix[own]).tocoo()
            rows.append(own[found.coords[0]])
            columns.append(found.coords[1] + self.starts[c])
        rows, columns = np.concatenate(rows), np.concatenate(columns)
        shape = (len(matrix), self.size)
        return sparse.csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)

    def nearest(self, matrix: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Return the smallest distance over radius of each sample, (n,)."""
        if labels is None:
            return self._nearest(None, matrix)
        out = np.empty(len(matrix))
        for c in np.unique(labels).tolist():
            out[labels == c] = self._nearest(c, matrix[labels == c])
        return out

    def _nearest(self, c: int | None, matrix: np.ndarray) -> np.ndarray:
        manifold = self.manifolds[c]
        if c not in self._norms:
            centre = manifold.reference_.mean(axis=0, dtype=np.float64)
            points = torch.from_numpy((manifold.reference_ - centre).astype(np.float32))
            radii = torch.from_numpy(manifold.radii_.astype(np.float32))
            # A ball of radius 0 has no inside, nor a distance in units of it.
            inverse = torch.where(radii > 0, radii.square().reciprocal(), torch.inf)
            self._norms[c] = torch.from_numpy(centre), points, points.square().sum(dim=1), inverse
        centre, points, norms, inverse = self._norms[c]
        best = np.empty(len(matrix), dtype=np.int64)
        for lo in range(0, len(matrix), 512):
            rows = torch.from_numpy((matrix[lo : lo + 512] - centre.numpy()).astype(np.float32))
            least = torch.full((len(rows),), torch.inf)
            at = torch.zeros(len(rows), dtype=torch.int64)
            square = rows.square().sum(dim=1)
            for first in range(0, len(points), 8192):
                part = slice(first, first + 8192)
                d = torch.addmm(norms[part], rows, points[part].T, alpha=-2).add_(square[:, None]).clamp_(min=0)
                d.mul_(inverse[part]).nan_to_num_(nan=torch.inf)
                value, place = d.min(dim=1)
                nearer = value < least
                at = torch.where(nearer, place + first, at)
                least = torch.minimum(least, value)
            best[lo : lo + 512] = at.numpy()
        out = np.empty(len(matrix))
        for lo in range(0, len(matrix), 512):
            rows = best[lo : lo + 512]
            difference = matrix[lo : lo + 512].astype(np.float64) - manifold.reference_[rows]
            out[lo : lo + 512] = np.sqrt(np.square(difference).sum(axis=1)) / manifold.radii_[rows]
        return out


def _unions(hits: sparse.csr_array, rows: np.ndarray) -> np.ndarray:
    """Return in how many columns each set of rows (B, m) has at least one entry: (B,) int64."""
    out = np.empty(len(rows), dtype=np.int64)
    lengths = np.diff(hits.indptr)
    ends = np.cumsum(lengths[rows].sum(axis=1, dtype=np.int64))
    m = rows.shape[1]
    start = 0
    while start < len(rows):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + 20_000_000, side="right")))
        index = rows[start:stop].ravel()
        ones = np.ones(len(index), dtype=np.int32)
        chosen = sparse.csr_array((ones, index, np.arange(0, len(index) + 1, m)), shape=(stop - start, hits.shape[0]))
        out[start:stop] = np.diff((chosen @ hits).indptr)
        start = stop
    return out


# ---------------------------------------------------------------------------------------------- p-values


def _subsets(n: int, m: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `draws` sets of m among n, uniformly: Floyd's algorithm for all sets at once."""
    if m > n - m:  # the fewer are drawn, and the others taken
        left_out = _subsets(n, n - m, draws, rng)
        kept = np.ones((draws, n), dtype=bool)
        np.put_along_axis(kept, left_out, False, axis=1)
        return np.nonzero(kept)[1].reshape(draws, m)
    out = np.empty((draws, m), dtype=np.int64)
    step = max(1, 2**26 // n)
    for lo in range(0, draws, step):
        part = out[lo : lo + step]
        taken = np.zeros((len(part), n), dtype=bool)
        each = np.arange(len(part))
        for column, last in enumerate(range(n - m, n)):
            pick = rng.integers(0, last + 1, size=len(part))
            pick = np.where(taken[each, pick], last, pick)
            taken[each, pick] = True
            part[:, column] = pick
    return out


def _p_values(values: np.ndarray, alternative: str, ties: str, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Return the joint p-value of row 0 and that of each column, from statistics (1 + draws, J), the batch's first."""
    n, columns = values.shape
    tails = np.empty((n, columns))
    for column in range(columns):
        left, right = _ranks(values[:, column], ties, rng)
        tails[:, column] = {"two-sided": np.minimum(left, right), "less": left, "greater": right}[alternative]
    flat = (values == values[0]).all(axis=0)
    each = np.array([1.0 if flat[j] else _rank_of_first(tails[:, j], ties, rng) for j in range(columns)])
    if flat.all():
        return 1.0, each
    if columns == 1:
        return float(each[0]), each
    return _rank_of_first(tails[:, ~flat].min(axis=1), ties, rng), each


def _ranks(values: np.ndarray, ties: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return how many values are at most, and at least, each value."""
    n = len(values)
    if ties == "random":
        left = np.empty(n, dtype=np.int64)
        left[np.lexsort((rng.random(n), values))] = np.arange(1, n + 1)
        return left, n + 1 - left
    order = np.sort(values)
    return np.searchsorted(order, values, side="right"), n - np.searchsorted(order, values, side="left")


def _rank_of_first(tails: np.ndarray, ties: str, rng: np.random.Generator) -> float:
    below, same = int((tails < tails[0]).sum()), int((tails == tails[0]).sum())
    return (below + (int(rng.integers(1, same + 1)) if ties == "random" else same)) / len(tails)


def _sample_p_values(
    mine: np.ndarray,
    theirs: np.ndarray,
    labels: np.ndarray | None,
    other: np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Rank each sample's scores (m, J) among the calibration's (n, J), class by class.

    Returns
    -------
    ranked, smoothed : (m,) float64 arrays
        Two-sided p-values, ties against rejection, and ties at random.
    n : int
        Calibration samples that a sample was ranked among, the fewest of all classes.
    """
    if labels is not None:
        ranked, smoothed, fewest = np.empty(len(mine)), np.empty(len(mine)), len(theirs)
        for c in np.unique(labels):
            own = labels == c
            ranked[own], smoothed[own], n = _sample_p_values(mine[own], theirs[other == c], None, None, rng)
            fewest = min(fewest, n)
        return ranked, smoothed, fewest
    n = len(theirs)
    order = np.sort(theirs, axis=0)

    def counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = list(zip(order.T, values.T, strict=True))
        below = np.stack([np.searchsorted(column, own, side="left") for column, own in pairs], axis=1)
        upto = np.stack([np.searchsorted(column, own, side="right") for column, own in pairs], axis=1)
        return below, upto

    below, upto = counts(mine)
    ranked = np.minimum(1 + upto, 1 + n - below)
    rank = 1 + below + np.floor(rng.random(mine.shape) * (upto - below + 1)).astype(np.int64)
    smoothed = np.minimum(rank, n + 2 - rank)
    if mine.shape[1] == 1:
        as_p = [np.minimum(1.0, 2 * tail[:, 0] / (n + 1)) for tail in (ranked, smoothed)]
        return as_p[0], as_p[1], n
    # Several scores: the smallest tail, ranked among the calibration samples' own smallest tails.
    below, upto = counts(theirs)
    own_ranked = np.minimum(upto, n - below).min(axis=1)
    rank = 1 + below + np.floor(rng.random(theirs.shape) * (upto - below)).astype(np.int64)
    own_smoothed = np.minimum(rank, n + 1 - rank).min(axis=1)
    out = []
    for tail, own in ((ranked, own_ranked), (smoothed, own_smoothed)):
        least, sorted_ = tail.min(axis=1), np.sort(own)
        low, high = (np.searchsorted(sorted_, least, side=side) for side in ("left", "right"))
        extra = (high - low) if tail is ranked else np.floor(rng.random(len(least)) * (high - low + 1))
        out.append((1 + low + extra) / (n + 1))
    return out[0], out[1], n


def _contamination(p: np.ndarray, n: int, level: float = 0.95) -> Contamination:
    """Estimate the share of misfits from sample p-values (m,) that were ranked among n calibration samples."""
    m = len(p)
    error = (1 - level) / 4  # two ends, and for each the batch's error and the calibration's
    low = 0.0
    for cut in _LAMBDAS:
        small = int((p <= cut + 1e-12).sum())
        if small:
            least = stats.beta.ppf(error / len(_LAMBDAS), small, m - small + 1)
            clean = _clean_share(cut, n, 1 - error / len(_LAMBDAS))
            if clean < 1:
                low = max(low, (least - clean) / (1 - clean))
    large = int((p > 0.5).sum())
    clean = 1 - _clean_share(0.5, n, error)
    least = stats.beta.ppf(error, large, m - large + 1) if large else 0.0
    high = max(low, 1 - least / clean)
    share = min(max(1 - 2 * large / m, low), high)
    return Contamination(float(share), float(low), float(high), level)


def _clean_share(cut: float, n: int, quantile: float) -> float:
    """Quantile of the share of clean samples with p ≤ cut, over calibration sets of n: a beta distribution."""
    a = cut * (n + 1)
    return float(stats.beta.ppf(quantile, max(a, 1e-9), n + 1 - a)) if a < n + 1 else 1.0


# ---------------------------------------------------------------------------------------------- input


def _samples(values: ArrayLike, name: str) -> np.ndarray:
    """Return samples as a finite float array (n, d) or (n, c, h, w), or raise a ValueError in one sentence."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if sparse.issparse(values):
        raise TypeError(f"{name} must be a dense array, but is a sparse {type(values).__name__}")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, but its rows differ in length") from error
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{name} must hold real numbers: {error}; argument must be a string or a number"
            ) from None
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must hold real numbers; Complex data not supported")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, but its dtype is {array.dtype}")
    if array.ndim == 1:
        raise ValueError(
            f"{name} must be an (n, c, h, w) or (n, d) array, but has shape {array.shape}. Reshape your data: a single "
            "sample is one row"
        )
    if array.ndim not in (2, 4):
        hint = "; grey images need a channel, images[:, None]" if array.ndim == 3 else ""
        raise ValueError(f"{name} must be an (n, c, h, w) or (n, d) array, but has shape {array.shape}{hint}")
    if 0 in array.shape:
        empty = "0 sample(s)" if not len(array) else "0 feature(s)"
        raise ValueError(
            f"{name} must not be empty, but holds {empty} (shape={array.shape}) while a minimum of 1 is required."
        )
    if array.ndim == 4 and array.dtype.kind != "f":
        raise ValueError(
            f"{name} must hold floating point images, but its dtype is {array.dtype}; divide bytes by 255 to get [0, 1]"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        array = array.astype(np.float64 if array.dtype.kind in "iu" and array.dtype.itemsize > 2 else np.float32)
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name} must be finite, but {bad} of its {array.size} values are NaN or infinity")
    return array


def _range(array: np.ndarray) -> tuple[float, float]:
    return float(array.min()), float(array.max())


def _same_shape(array: np.ndarray, name: str, shape: tuple[int, ...], value_range: tuple[float, float]) -> None:
    """Raise where samples cannot be compared with the reference: other shape, or images in another range."""
    got = array.shape[1:]
    if got != tuple(shape):
        hint = ""
        if len(got) == 3 == len(shape):
            if (got[2], *got[:2]) == tuple(shape):
                hint = "; channels come first here, images.transpose(0, 3, 1, 2)"
            elif got[0] != shape[0] and got[1:] == tuple(shape[1:]):
                hint = f": {got[0]} colour channels in place of {shape[0]}"
        elif len(got) == 1 and len(shape) == 1:
            raise ValueError(
                f"{name} must have the reference's {shape[0]} features, but X has {got[0]} features, "
                f"but this test is expecting {shape[0]} features as input"
            )
        elif len(got) == 1 and math.prod(shape) == got[0]:
            hint = f"; unflatten the images, batch.reshape(-1, {', '.join(map(str, shape))})"
        words = "(n, " + ", ".join(map(str, shape)) + ")"
        raise ValueError(f"{name} must have the reference's shape {words}, but has shape {array.shape}{hint}")
    if len(got) == 3:
        low, high = value_range
        mine = _range(array)
        if low >= 0 and high <= 1 and mine[1] > 2 and mine[1] <= 255 and mine[0] >= 0:
            raise ValueError(
                f"{name} must be in the reference's range, 0 to 1, but its values run to {mine[1]:g}: these look like "
                "bytes, divide by 255"
            )
        if high > 2 and mine[1] <= 1 and mine[0] >= 0:
            raise ValueError(
                f"{name} must be in the reference's range, {low:g} to {high:g}, but its values lie between {mine[0]:g} "
                f"and {mine[1]:g}: multiply by 255, or fit on images in [0, 1]"
            )


def _labels(values: ArrayLike | None, name: str, n: int) -> np.ndarray | None:
    if values is None:
        return None
    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) != n:
        raise ValueError(
            f"{name} must hold one whole number a sample, shape ({n},), but has shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    return array.astype(np.int64)


def _rows(values: Sequence[int], name: str, number: int, n: int) -> np.ndarray:
    rows = np.asarray(values)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must hold non-empty lists of rows, but number {number} has shape {rows.shape} and dtype "
            f"{rows.dtype}"
        )
    if rows.min() < 0 or rows.max() >= n:
        raise ValueError(
            f"{name} must point to the pool's {n} rows, but number {number} has {rows.min()} to {rows.max()}"
        )
    return rows.astype(np.int64)


def _mapped(features: str | Callable, images: np.ndarray) -> np.ndarray:
    """Return the feature vectors of images, a block at a time."""
    blocks = [feature_maps.apply(features, images[lo : lo + _BLOCK]) for lo in range(0, len(images), _BLOCK)]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _feature_word(test: _BatchTest) -> str:
    return feature_maps.name_of(test.features) if hasattr(test, "features") else "several maps"


def _copies(samples: np.ndarray, others: np.ndarray) -> int:
    """Count the samples that are, byte for byte, among the others."""
    if samples.dtype != others.dtype:
        samples, others = samples.astype(np.float64), others.astype(np.float64)
    known = {hash(row.tobytes()) for row in others}
    return sum(hash(row.tobytes()) in known for row in samples)


def _class_split(
    rows: np.ndarray, labels: np.ndarray, held: float, kept: float, rng: np.random.Generator, least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into held-out and kept ones, class by class, with at least `least` of each class kept."""
    first, second = [], []
    for c in np.unique(labels[rows]):
        own = rng.permutation(rows[labels[rows] == c])
        n_held = max(1, min(int(held * len(own)), len(own) - least))
        n_kept = min(len(own) - n_held, max(least, int(kept * len(own))))
        first.append(own[:n_held])
        second.append(own[n_held : n_held + n_kept])
    return np.concatenate(first), np.concatenate(second)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, but is {value!r}")
    return int(value)


def _level(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise ValueError(f"{name} must be a number between 0 and 1, but is {value!r}")
    return float(value)
