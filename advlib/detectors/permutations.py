"""p-values from permutations: sets drawn without replacement, ranks of a statistic among them, ties.

Exact for every sample size, and never 0; `advlib.detectors` says why.
"""

import itertools
import math

import numpy as np

ALTERNATIVES = ("two-sided", "less", "greater")
TIES = ("random", "conservative")


def subsets(n: int, m: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `draws` sets of m among n, uniformly.

    Few of many: Floyd's algorithm for all sets at once. Else the places of the m smallest of n random numbers.
    """
    out = np.empty((draws, m), dtype=np.int64)
    step = max(1, 2**23 // n)
    for lo in range(0, draws, step):
        part = out[lo : lo + step]
        if 40 * m > n:
            part[:] = np.argpartition(rng.random((len(part), n)), m - 1, axis=1)[:, :m]
            continue
        taken = np.zeros((len(part), n), dtype=bool)
        each = np.arange(len(part))
        for column, last in enumerate(range(n - m, n)):
            pick = rng.integers(0, last + 1, size=len(part))
            pick = np.where(taken[each, pick], last, pick)
            taken[each, pick] = True
            part[:, column] = pick
    return out


def permuted_rows(
    batch: np.ndarray,
    calibration: np.ndarray,
    labels: np.ndarray | None,
    draws: int,
    rng: np.random.Generator,
    all_singles: bool,
) -> np.ndarray:
    """Return the rows of the batch, then those of its permutations with the calibration samples, class by class.

    Parameters
    ----------
    batch, calibration : (m,), (n,) int arrays
        Rows of one pool.
    labels : int array or None
        Classes of the pool's samples; a sample is exchanged only with samples of its own class.
    draws : int
        Permutations, unless there are so few that each is looked at once.
    all_singles : bool
        Whether a batch of one is exchanged with each calibration sample, however many there are.

    Returns
    -------
    (1 + draws, m) int64 array
    """
    strata = [(batch, calibration)]
    if labels is not None:
        strata = [(batch[labels[batch] == c], calibration[labels[calibration] == c]) for c in np.unique(labels[batch])]
    if len(strata) == 1:
        rows = np.concatenate(strata[0])
        m, n = len(batch), len(rows)
        if m == 1 and (all_singles or n <= draws + 1):
            return rows[:, None]
        if n <= 64 and math.comb(n, m) <= draws + 1:  # the first combination is the batch itself
            return rows[np.array(list(itertools.combinations(range(n), m)))]
    columns = []
    for mine, theirs in strata:
        rows = np.concatenate([mine, theirs])
        first = np.arange(len(mine))[None]
        columns.append(rows[np.concatenate([first, subsets(len(rows), len(mine), draws, rng)])])
    return np.concatenate(columns, axis=1)


def p_values(values: np.ndarray, alternative: str, ties: str, rng: np.random.Generator) -> tuple[float, np.ndarray]:
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


def sample_p_values(
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
            ranked[own], smoothed[own], n = sample_p_values(mine[own], theirs[other == c], None, None, rng)
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
