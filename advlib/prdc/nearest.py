"""The k smallest distances from points to one block of a reference, by the same proved filter as radii.

A radius is the k-th smallest distance to all other points, and the k smallest of all blocks' k smallest are the k
smallest of all: blocks can be looked at in any order, by anyone, and merged. What is known so far bounds the radius, so
that a block looked at later leaves few pairs.
"""

import numpy as np

from advlib.prdc import rounded
from advlib.prdc.radii import upper_bounds
from advlib.prdc.rounded import RoundedPoints


def within(points: RoundedPoints, k: int) -> np.ndarray:
    """Return the k smallest distances from each point of a block to the others of it, (n, k), rising; see `between`."""
    n = len(points.reference)
    bound = upper_bounds(points, k) if n > k else np.full(n, np.inf)
    return between(points, points.reference, bound, k, own=0)


def between(points: RoundedPoints, left: np.ndarray, bound: np.ndarray, k: int, own: int | None = None) -> np.ndarray:
    """Return the k smallest distances from each row of `left` to the points of a block, up to a bound.

    Parameters
    ----------
    points : RoundedPoints
        The block (n_B, d). The folds of its columns are overwritten.
    left : (n, d) float32 or float64 array
    bound : (n,) float64 array
        Distances above it need not be found; infinity where nothing is known. In scaled units.
    k : int
    own : int, optional
        Where `left` are points of the block themselves: the first one's place. No point is its own neighbour.

    Returns
    -------
    (n, k) float64 array
        Each row rising, in scaled units; infinity where the block has no k points within the bound.
    """
    found = np.empty((len(left), k))
    known = np.isfinite(bound)
    widest = float(bound[known].max()) if known.any() else 0.0
    panel = points.workers.panel_rows()
    farthest = max(float(points.round(left[lo : lo + panel])[2].max()) for lo in range(0, len(left), panel))
    points.fold_columns(2 * (widest + farthest + points.usual) * points.excess + points.excess**2)

    def look(lo: int, hi: int) -> None:
        at = None if own is None else own + lo
        near = _coarse(points, left[lo:hi], bound[lo:hi], k, at) if known[lo:hi].all() else None
        found[lo:hi] = _fine(points, left[lo:hi], bound[lo:hi], k, at) if near is None else near

    points.workers.each_panel(look, len(left), panel)
    return found


def _coarse(points: RoundedPoints, left: np.ndarray, bound: np.ndarray, k: int, own: int | None) -> np.ndarray | None:
    """`between` from the pairs that the coarse product leaves; None where these are too many."""
    rows = points.round(left)
    pairs = points.near_pairs(rows, bound + rows[2] + points.usual, own)
    if pairs is None:
        return None
    i, j, low, high = pairs
    most_far = np.minimum(bound, _smallest(i, high, len(left), k)[:, -1]) * (1 + 1e-6)
    open_ = np.flatnonzero(low <= most_far[i])
    if len(open_) > rounded.worth_a_tile(len(left) * len(points.reference)) and len(open_) > 2**12:
        return None
    return _smallest(i[open_], points.distances(left, i[open_], j[open_]), len(left), k)


def _fine(points: RoundedPoints, left: np.ndarray, bound: np.ndarray, k: int, own: int | None) -> np.ndarray:
    """`between` from whole rows of float64 squares."""
    out = np.empty((len(left), k))
    for rows, part, low, high in points.fine_bounds(left, own):
        most = (bound[rows, None] * (1 + 1e-9)) ** 2
        if len(points.reference) >= k:
            most = np.minimum(most, np.partition(high, k - 1, axis=1)[:, k - 1, None])
        i, j = np.nonzero((low <= most) & np.isfinite(low))
        out[rows] = _smallest(i, points.distances(part, i, j), len(part), k)
    return out


def _smallest(i: np.ndarray, values: np.ndarray, n: int, k: int) -> np.ndarray:
    """Return the k smallest values of each row i, (n, k), rising; infinity where a row has fewer."""
    order = np.lexsort((values, i))
    i, values = i[order], values[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=n))])
    rank = np.arange(len(i)) - starts[i]
    out = np.full((n, k), np.inf)
    first = rank < k
    out[i[first], rank[first]] = values[first]
    return out


def merged(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the k smallest of each row of two (n, k) arrays, rising."""
    k = first.shape[1]
    return np.sort(np.concatenate([first, second], axis=1), axis=1)[:, :k]
