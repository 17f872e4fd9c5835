"""Do reference and calibration samples look drawn alike? The check in every test's `fit`.

The test itself is the judge: part of the reference is held out, the test is fitted to the rest, and the calibration
samples are put to it as a batch.
"""

import math
import warnings
from typing import Any

import numpy as np
from scipy import stats
from sklearn.base import clone

CHECK_LEVEL = 0.01
"""Below this p-value `fit` says that reference and calibration differ."""

_CHECK_SAMPLES = 1_000  # reference and calibration samples that the check in `fit` compares
_CHECK_REFERENCE = 5_000  # reference samples that it puts balls around


class ExchangeabilityWarning(UserWarning):
    """Reference and calibration samples do not look as if they were drawn alike."""


def compare(
    test: Any, reference: np.ndarray, calibration: np.ndarray, labels: np.ndarray | None, other: np.ndarray | None
) -> tuple[float, tuple[str, ...]]:
    """Test calibration samples against reference samples that were kept out of a smaller reference.

    Parameters
    ----------
    test : BatchTest
        Its parameters count, and `classes_`; it is not changed.
    reference, calibration : (N, …), (n, …) arrays
    labels, other : (N,), (n,) int64 arrays or None
        Classes of both.

    Returns
    -------
    p : float
        NaN where there were too few samples to compare.
    words : tuple of str
        What was found.

    Warns
    -----
    ExchangeabilityWarning
        Where p is at most `CHECK_LEVEL`.
    """
    rng = np.random.default_rng([0 if not isinstance(test.random_state, int) else test.random_state, 1])
    words = []
    copies = _copies(calibration, reference)
    if copies:
        words.append(f"{copies} of {len(calibration)} calibration samples are exact copies of reference samples.")
    if labels is not None:
        words += _compare_mix(test.classes_, labels, other)
    kept, held, chosen = _choose_rows(test, len(reference), len(calibration), labels, other, rng)
    if len(kept) < test._least_reference():
        return math.nan, (*words, "Reference and calibration were too few to be compared with each other.")
    again = clone(test).set_params(check=False, ties="random", alternative="two-sided")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if labels is None:
            again.fit(reference[kept], reference[held])
        else:
            again.fit(reference[kept], reference[held], reference_labels=labels[kept], calibration_labels=labels[held])
    p = float(again.test(calibration[chosen], None if labels is None else other[chosen]).p_value)
    if p > CHECK_LEVEL:
        return p, (*words, f"Reference and calibration look drawn alike (p = {p:.2g} for the same test between them).")
    words.append(
        f"Reference and calibration differ (p = {p:.2g} for the same test between them): the balls or ratios describe "
        "another population than the batches come from. The p-value compares with the calibration set and stays exact; "
        "expected values such as density 1 do not hold, and power may be lower."
    )
    warnings.warn(words[-1], ExchangeabilityWarning, stacklevel=3)
    return p, tuple(words)


def _choose_rows(
    test: Any, n: int, n_other: int, labels: np.ndarray | None, other: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reference's rows to fit to and to hold out, and the calibration's rows to test."""
    mine, theirs, least = np.arange(n), np.arange(n_other), test._least_reference()
    if labels is not None:
        # Classes with a handful of members stay out of the check, not out of the test.
        common = [c for c in test.classes_ if (labels == c).sum() >= 3 * least and (other == c).sum() > 0]
        mine, theirs = mine[np.isin(labels, common)], theirs[np.isin(other, common)]
    n_held = min(len(theirs), len(mine) // 3, _CHECK_SAMPLES)
    n_kept = min(len(mine) - n_held, _CHECK_REFERENCE)
    if n_held < 2:
        return mine[:0], mine[:0], theirs[:0]
    if labels is None:
        order = rng.permutation(mine)
        return order[n_held : n_held + n_kept], order[:n_held], rng.permutation(theirs)[:_CHECK_SAMPLES]
    held, kept = _class_split(mine, labels, n_held / len(mine), n_kept / len(mine), rng, least)
    chosen = rng.permutation(theirs)[:_CHECK_SAMPLES]
    return kept, held, chosen[np.isin(other[chosen], np.intersect1d(labels[held], labels[kept]))]


def _compare_mix(classes: np.ndarray, labels: np.ndarray, other: np.ndarray) -> list[str]:
    table = np.array([[(side == c).sum() for c in classes] for side in (labels, other)])
    if len(classes) < 2 or stats.chi2_contingency(table).pvalue > CHECK_LEVEL:
        return []
    return [
        "Reference and calibration have their classes in different shares; the test is class-conditional, which makes "
        "that harmless."
    ]


def _copies(samples: np.ndarray, others: np.ndarray) -> int:
    """Count the samples that are, byte for byte, among the others."""
    dtype = samples.dtype if samples.dtype == others.dtype else np.float64
    known = {hash(row.astype(dtype, copy=False).tobytes()) for row in others}  # a large reference is read row by row
    return sum(hash(row.astype(dtype, copy=False).tobytes()) in known for row in samples)


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
