"""Radii: each reference point's distance to its k-th nearest other one, in scaled units."""

import math

import numpy as np
import torch

from advlib.prdc import rounded
from advlib.prdc.rounded import RoundedPoints


def fit_radii(points: RoundedPoints, k: int) -> np.ndarray:
    """Radii (N,), float64: first an upper bound from a sample of columns, then all columns below that bound."""
    n = len(points.reference)
    reach = upper_bounds(points, k) + points.residual + points.usual
    points.fold_columns(2 * float(reach.max()) * points.excess + points.excess**2)
    radii = np.empty(n)

    def panel(lo: int, hi: int) -> None:
        found = _coarse_radii(points, lo, hi, k, reach)
        radii[lo:hi] = fine_radii(points, lo, hi, k) if found is None else found

    points.workers.each_panel(panel, n, points.workers.panel_rows())
    return radii


def upper_bounds(points: RoundedPoints, k: int) -> np.ndarray:
    """Upper bounds (N,) of the radii from the coarse product with a sample of the columns."""
    n, d = points.reference.shape
    groups = min(n, max(64, 8 * k))
    size = n if groups == n else min(n, groups * max(1, math.ceil(n / 8 / groups)))
    order = np.random.default_rng(0).permutation(n)
    sample = order[np.argsort(points.excess[order] > 0, kind="stable")][:size]
    farthest_residual = float(points.residual[sample].max())
    # Here the slack is subtracted: the product must not promise a neighbour nearer than it is.
    under = -points.square / 2 - points.gamma * points.square - points.terms * 1e-36
    of_sample = points.columns[torch.from_numpy(sample).to(points.device)]
    of_sample[:, d + 3 :] = points.pieces(under[sample])
    place = np.full(n, -1)
    place[sample] = np.arange(size)
    bounds = np.empty(n)

    def panel(lo: int, hi: int) -> None:
        rows = points.rows(points.columns[lo:hi, :d], under[lo:hi])
        nearness = torch.mm(rows, of_sample.T)
        own = np.flatnonzero(place[lo:hi] >= 0)
        nearness[own, place[lo:hi][own]] = -torch.inf
        if size > groups and size % groups == 0:
            # The best of each group are different points, so their k-th best is an upper bound, and cheap.
            nearness = nearness.view(hi - lo, -1, groups).amax(dim=1)
        kth = nearness.float().topk(k, dim=1).values[:, -1].double().cpu().numpy()
        coarse = np.sqrt(np.maximum(-2 * kth, 0) * (1 + 2.0**-7))
        bounds[lo:hi] = (coarse + points.residual[lo:hi] + farthest_residual) * (1 + 1e-6)

    points.workers.each_panel(panel, n, points.workers.panel_rows(size))
    return bounds


def _coarse_radii(points: RoundedPoints, lo: int, hi: int, k: int, reach: np.ndarray) -> np.ndarray | None:
    """Radii of points lo … hi − 1 from the pairs that the coarse product leaves; None where these are too many."""
    left = points.reference[lo:hi]
    own = points.columns[lo:hi, : left.shape[1]], points.square[lo:hi], points.residual[lo:hi]
    pairs = points.near_pairs(own, reach[lo:hi], lo)
    if pairs is None:
        return None
    i, j, low, high = pairs
    starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=len(left)))])
    kth_low, kth_high = _kth(i, low, starts, k) * (1 - 1e-6), _kth(i, high, starts, k) * (1 + 1e-6)
    nearer = high < kth_low[i]
    open_ = ~nearer & (low <= kth_high[i])
    if open_.sum() > rounded.worth_a_tile(len(left) * len(points.reference)):
        return None
    rank = k - np.bincount(i[nearer], minlength=len(left))
    return _decide(points, left, i[open_], j[open_], rank)


def fine_radii(points: RoundedPoints, lo: int, hi: int, k: int) -> np.ndarray:
    """Radii of points lo … hi − 1 from whole rows of float64 squares, where the coarse product tells too little."""
    radii = np.empty(hi - lo)
    for rows, left, low, high in points.fine_bounds(points.reference[lo:hi], lo):
        kth_low = np.partition(low, k - 1, axis=1)[:, k - 1, None]
        kth_high = np.partition(high, k - 1, axis=1)[:, k - 1, None]
        nearer = high < kth_low
        i, j = np.nonzero(~nearer & (low <= kth_high))
        radii[rows] = _decide(points, left, i, j, k - nearer.sum(axis=1))
    return radii


def _decide(points: RoundedPoints, left: np.ndarray, i: np.ndarray, j: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return for each row of `left` the `rank`-th smallest distance among its pairs."""
    distance = points.distances(left, i, j)
    order = np.lexsort((distance, i))
    starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=len(left)))])
    return distance[order][starts[:-1] + rank - 1]


def _kth(i: np.ndarray, values: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """k-th smallest of the non-negative values in each row i, to float32 precision."""
    # The bits of non-negative floats sort like the floats; with the row above them, one sort serves all rows.
    keys = (i.astype(np.int64) << 32) | values.astype(np.float32).view(np.int32)
    keys.sort()
    return (keys[starts[:-1] + k - 1] & 0xFFFFFFFF).astype(np.int32).view(np.float32).astype(np.float64)
