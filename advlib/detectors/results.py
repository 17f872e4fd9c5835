"""What tests take and give: the scores of samples, and the verdict on a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from advlib.detectors.contamination import Contamination
from advlib.detectors.samples import level


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
