"""The balls around a reference, and which of them hold a query."""

import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from advlib.prdc import rounded
from advlib.prdc.rounded import RoundedPoints

_EDGE = 1e-12  # relative; far above the rounding of a float64 distance, far below that of the coarse product


class Balls:
    """A ball of its own radius around each point.

    Parameters
    ----------
    points : RoundedPoints
        Its columns are folded with the radii, ready for queries.
    radii : (N,) float64 array
        In the points' scaled units.
    """

    def __init__(self, points: RoundedPoints, radii: np.ndarray):
        self.points = points
        self.radii = radii
        reach = radii + points.residual + points.usual
        self.widest = float(reach.max())
        self.farthest = float((np.sqrt(points.square) + reach).max()) * (1 + 1e-3)
        points.fold_columns(reach**2)

    def count(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of balls around each query, (M,) int64, and which balls hold any, (N,) bool."""
        counts = np.zeros(len(queries), dtype=np.int64)
        covered = np.zeros(len(self.radii), dtype=bool)

        turn = threading.Lock()

        def add(rows: np.ndarray, columns: np.ndarray) -> None:
            covered[columns] = True
            if len(rows):
                first = rows.min()
                partial = np.bincount(rows - first)
                with turn:  # threads may share rows
                    counts[first : first + len(partial)] += partial

        self.score(queries, add)
        return counts, covered

    def score(self, queries: np.ndarray, found: Callable[[np.ndarray, np.ndarray], object]) -> None:
        """Call `found(rows, columns)` with every pair strictly inside, in no particular order."""
        points = self.points
        n, m, panel = len(points.reference), len(queries), points.workers.panel_rows()
        # One small batch still gives every thread something to do.
        edges = np.linspace(0, n, (min(points.workers.threads, n) if m <= panel else 1) + 1).astype(int)
        points.workers.each(
            lambda *span: self._score_panel(queries, *span, found),
            [(lo, min(lo + panel, m), *edge) for lo in range(0, m, panel) for edge in pairwise(edges)],
        )

    def _score_panel(self, queries, lo, hi, first, last, found) -> None:
        points, left = self.points, queries[lo:hi]
        near, square, residual = points.round(left)
        with np.errstate(invalid="ignore"):
            # No ball reaches that far out; such numbers may not even be finite in float32.
            far = ~(np.sqrt(square) - residual <= self.farthest)
        if far.any():
            near[torch.from_numpy(far).to(points.device)] = 0
            square[far] = residual[far] = 0.0
        excess = np.maximum(residual - points.usual, 0.0)
        threshold = 2 * self.widest * excess + excess**2
        fold, slack = points.fold(square, threshold)
        fold[far] = -1e30
        for start, stop, i, j, h in points.survivors(points.rows(near, fold), first, last):
            pairs = len(left) * (stop - start)
            if len(i) <= pairs / 8:
                low, high = rounded.distance_bounds(
                    h, threshold[i] + points.threshold[j], slack[i] + points.slack[j], residual[i] + points.residual[j]
                )
                radius = self.radii[j]
                inside = high < radius * (1 - _EDGE)
                open_ = np.flatnonzero(~inside & (low <= radius * (1 + _EDGE)))
                if len(open_) <= rounded.worth_a_tile(pairs):
                    inside[open_] = points.distances(left, i[open_], j[open_]) < radius[open_]
                    found(i[inside] + lo, j[inside])
                    continue
            square, error = points.fine_squares(left, start, stop)
            radius = self.radii[start:stop]
            with np.errstate(invalid="ignore"):  # far queries again: infinity minus infinity is no neighbour
                inside = square + error < radius**2 * (1 - _EDGE)
                i, j = np.nonzero(~inside & (square - error <= radius**2 * (1 + _EDGE)))
            inside[i, j] = points.distances(left, i, j + start) < radius[j]
            i, j = np.nonzero(inside)
            found(i + lo, j + start)
