"""Points rounded to bfloat16: their coarse product with proved bounds, and the exact distances behind it."""

import functools
import math
import time
from collections.abc import Iterator

import numpy as np
import torch

from advlib.prdc.workers import Workers

_FOLDS = 6  # columns beside the features: a number in three bfloat16 pieces for the row, three for the column
_TINY = 1e-18  # in scaled units; above what float32 underflow can lose in a residual, below any radius that matters


class RoundedPoints:
    """The reference, x ≈ x̂ as the coarse operand ``[x̂ | 1 1 1 | three pieces of the column's fold]``.

    Parameters
    ----------
    reference : (N, d) float32 or float64 tensor
        Copied; products run where it lies.
    memory_gb : float
        Working memory in GiB.
    largest : float, optional
        Largest absolute value, where the reference is a part of something: parts must agree on the scale.

    Attributes
    ----------
    reference : (N, d) array
        The copy.
    scale : float
        A power of two; all lengths here are in scaled units, the reference's times this.
    square, residual : (N,) float64 array
        ‖x̂‖² and an upper bound of ‖x − x̂‖.
    threshold, slack : (N,) float64 array
        The columns' side of the comparison, once `fold_columns` was called; see `fold`.
    usual, excess : float, (N,) float64 array
        Residuals up to `usual` are paid for by whoever owns the threshold, larger ones (by `excess`) by their own point
        alone, so that one outlier does not widen everybody's band.
    """

    def __init__(self, reference: torch.Tensor, memory_gb: float, largest: float | None = None):
        self.device = reference.device
        n, d = reference.shape
        self.workers = Workers(self.device, d, memory_gb)
        self.dtype = product_type(self.device)
        self.reference = reference.cpu().numpy().copy()
        self.scale = scale_of(float(np.abs(self.reference).max()) if largest is None else largest)
        scaled = self.reference
        if self.scale != 1.0:  # a factor beyond float32's range, for subnormal numbers, still gives numbers within it
            scaled = (self.reference.astype(np.float64) * self.scale).astype(self.reference.dtype)
        self.centre = torch.from_numpy(scaled.mean(axis=0, dtype=np.float64).astype(scaled.dtype)).to(self.device)
        # Each product of a row and a column sums `terms` exact products; see `fold` for how gamma is used.
        self.terms = d + _FOLDS
        self.gamma = (4 * self.terms + 64) * 2.0**-24
        self.columns = torch.empty((n, self.terms), dtype=self.dtype, device=self.device)
        self.columns[:, d : d + 3] = 1
        self.square, self.residual = np.empty(n), np.empty(n)

        def hold(lo: int, hi: int) -> None:
            rounded, self.square[lo:hi], self.residual[lo:hi] = self.round(self.reference[lo:hi])
            self.columns[lo:hi, :d] = rounded

        self.workers.each_panel(hold, n, self.workers.panel_rows())
        self.usual = 1.25 * float(np.quantile(self.residual, 0.95))
        self.excess = np.maximum(self.residual - self.usual, 0.0)

    def fold_columns(self, threshold: np.ndarray) -> None:
        """Make `threshold` (N,), squared and scaled, the columns' side of the comparison, in place of any before."""
        fold, self.slack = self.fold(self.square, threshold)
        self.threshold = threshold
        self.columns[:, self.reference.shape[1] + 3 :] = self.pieces(fold)

    def fold(self, square: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""Half of the comparison ``‖q̂ − x̂‖² ≤ t_q + t_x`` that belongs to one side, and the slack added to it.

        With :math:`f = (t - ‖x̂‖²)/2 + s` on either side, the product :math:`h = q̂·x̂ + f_q + f_x` equals
        :math:`(t_q + t_x - ‖q̂ - x̂‖²)/2 + s_q + s_x`. Rounding of the sum, of the norms and of the three pieces is below
        :math:`1.5\,K u\,(‖x̂‖² + t)` a side (K terms, u = 2⁻²⁴, Higham (3.3) with ‖q̂‖‖x̂‖ ≤ (‖q̂‖² + ‖x̂‖²)/2); s is
        more than twice that. So h is wrong by less than (s_q + s_x)/2, and positive wherever the comparison holds.
        """
        slack = self.gamma * (square + threshold) + self.terms * 1e-36
        return (threshold - square) / 2 + slack, slack

    def pieces(self, values: np.ndarray) -> torch.Tensor:
        """Return numbers (n,) as sums of three of bfloat16, (n, 3)."""
        rest = torch.from_numpy(values).to(self.device, torch.float32)
        pieces = []
        for _ in range(3):
            pieces.append(rest.bfloat16())
            rest = rest - pieces[-1]
        return torch.stack(pieces, dim=1).to(self.dtype)

    def round(self, points: np.ndarray) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """Return x̂ (bfloat16), ‖x̂‖² and an upper bound of ‖x − c − x̂‖, all in scaled units."""
        values = torch.from_numpy(points).to(self.device)
        if self.scale != 1.0:
            values = (values.double() * self.scale).to(values.dtype)
        values = (values - self.centre).float()
        rounded = values.bfloat16()
        norm = torch.linalg.vector_norm(rounded, dim=1, dtype=torch.float32).double()
        residual = torch.linalg.vector_norm(values - rounded, dim=1).double()
        # The float32 difference `values` is itself rounded, and so is the sum of squares.
        d = points.shape[1]
        residual = residual * (1 + d * 2.0**-23) + norm * 2.0**-23 + _TINY * math.sqrt(d)
        return rounded, norm.square().cpu().numpy(), residual.cpu().numpy()

    def rows(self, rounded: torch.Tensor, fold: np.ndarray) -> torch.Tensor:
        """Row operand ``[x̂ | pieces of the row's fold | 1 1 1]``."""
        d = self.reference.shape[1]
        rows = torch.empty((len(rounded), self.terms), dtype=self.dtype, device=self.device)
        rows[:, :d] = rounded
        rows[:, d : d + 3] = self.pieces(fold)
        rows[:, d + 3 :] = 1
        return rows

    def survivors(
        self, rows: torch.Tensor, first: int, last: int
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (start, stop, i, j, h), a tile of columns at a time: the pairs whose product h is positive."""
        width = max(1, self.workers.tile_pairs() // len(rows))
        buffer = torch.empty(len(rows) * min(width, last - first), dtype=self.dtype, device=self.device)
        for start in range(first, last, width):
            stop = min(start + width, last)
            # The long side comes first: a quarter faster than the other way round.
            tile = buffer[: len(rows) * (stop - start)].view(stop - start, len(rows))
            torch.mm(self.columns[start:stop], rows.T, out=tile)
            flat = tile.view(-1)
            if flat.is_cuda:
                index = torch.nonzero(flat > 0).view(-1)
                h, index = flat[index].double().cpu().numpy(), index.cpu().numpy()
            else:
                # Read as integers, positive floats are the positive ones, and NumPy compares those fastest.
                as_integers = flat.view(torch.int16 if self.dtype is torch.bfloat16 else torch.int32).numpy()
                index = np.flatnonzero(as_integers > 0)
                h = flat[torch.from_numpy(index)].double().numpy()
            j, i = np.divmod(index, len(rows))
            yield start, stop, i, j + start, h

    def near_pairs(
        self, rounded: tuple[torch.Tensor, np.ndarray, np.ndarray], reach: np.ndarray, own: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Return the pairs that the coarse product leaves within `reach`, and bounds of their distances.

        Parameters
        ----------
        rounded
            The rows, as `round` gives them.
        reach : (n,) array
            Scaled distance, both residuals included, above which nothing is asked.
        own : int or None
            Where the rows are points of the reference: the first one's place. No point is its own neighbour.

        Returns
        -------
        i, j, low, high : arrays, or None
            None where these are more pairs than the coarse product is worth.
        """
        near, square, residual = rounded
        fold, slack = self.fold(square, reach**2)
        n, found, total = len(self.reference), [], 0
        most = max(min(self.workers.share / 256, len(square) * n / 8), 2**12)
        for _, _, *pairs in self.survivors(self.rows(near, fold), 0, n):
            found.append(pairs)
            total += len(pairs[0])
            if total > most:
                return None
        i, j, h = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if own is not None:
            other = i + own != j
            i, j, h = i[other], j[other], h[other]
        bounds = distance_bounds(
            h, reach[i] ** 2 + self.threshold[j], slack[i] + self.slack[j], residual[i] + self.residual[j]
        )
        return i, j, *bounds

    def fine_bounds(
        self, left: np.ndarray, own: int | None
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield some rows of `left` at a time: which, they, and bounds of their squared distances to all points.

        `own` as in `near_pairs`.
        """
        step = int(max(1, min(len(left), self.workers.share / (64 * len(self.reference)))))
        for lo in range(0, len(left), step):
            rows = left[lo : lo + step]
            square, error = self.fine_squares(rows, 0, len(self.reference))
            if own is not None:
                each = np.arange(len(rows))
                square[each, own + lo + each] = np.inf
            yield slice(lo, lo + len(rows)), rows, square - error, np.add(square, error, out=square)

    def distances(self, left: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the deciding distance of the pairs (left[i], reference[j]), in scaled units."""
        out = np.empty(len(i))
        step = max(1, 2**15 // left.shape[1])  # pairs at a time that stay in a core's cache
        for lo in range(0, len(i), step):
            difference = left.take(i[lo : lo + step], axis=0).astype(np.float64)
            other = self.reference.take(j[lo : lo + step], axis=0).astype(np.float64)
            if self.scale != 1.0:
                difference *= self.scale
                other *= self.scale
            difference -= other
            difference *= difference
            out[lo : lo + step] = np.sqrt(difference.sum(axis=1))
        return out

    def fine_squares(self, left: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances to reference points first … last − 1 by a float64 product, and bounds on their errors."""
        a = self._centred(left)
        a_square = a.square().sum(dim=1, keepdim=True)
        square, error = np.empty((len(left), last - first)), np.empty((len(left), last - first))
        # The product's rounding as in `fold`, and that of the differences from the centre.
        unit = (8 * self.reference.shape[1] + 256) * 2.0**-53
        step = int(max(1, min(4096, self.workers.share / (64 * self.reference.shape[1]))))
        for start in range(first, last, step):
            b = self._centred(self.reference[start : min(start + step, last)])
            part = slice(start - first, start - first + len(b))
            norms = a_square + b.square().sum(dim=1)
            error[:, part] = (unit * norms).cpu().numpy()
            square[:, part] = torch.addmm(norms, a, b.T, alpha=-2).cpu().numpy()
        return square, error

    def _centred(self, points: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(points).to(self.device, torch.float64) * self.scale - self.centre


def scale_of(largest: float) -> float:
    """Power of two that brings the largest absolute value near 1, where squares would leave float32's range; else 1."""
    # A power of two changes no rounding.
    exponent = math.frexp(largest)[1] if largest else 0
    return 1.0 if abs(exponent) <= 20 else math.ldexp(1.0, int(np.clip(-exponent, -1000, 1000)))


def distance_bounds(
    h: np.ndarray, threshold: np.ndarray, slack: np.ndarray, residual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the distance behind a product h (see `RoundedPoints.fold`); sums of both sides."""
    rounding = np.abs(h) * 2.0**-8  # where the product is returned as bfloat16
    low = np.sqrt(np.maximum(threshold + slack - 2 * (h + rounding), 0.0)) - residual
    high = np.sqrt(np.maximum(threshold + 3 * slack - 2 * (h - rounding), 0.0)) + residual
    return np.maximum(low, 0.0), high


def worth_a_tile(pairs: int) -> float:
    """More undecided pairs than this, and a float64 product of all is cheaper than distances one by one."""
    return pairs / 32


@functools.cache
def product_type(device: torch.device) -> torch.dtype:
    """Storage in which the product of bfloat16 numbers is fastest here: bfloat16 where the processor has it.

    Timed once per process on products of a few milliseconds: on smaller ones the cost of the call decides. The numbers
    are the same either way, and so are all results; float32 storage only doubles the bytes. On CUDA float32 is kept:
    its bfloat16 products may add up in bfloat16, which the bound does not allow.
    """
    if device.type != "cpu":
        return torch.float32
    seconds = {}
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.ones((1024, 512), dtype=dtype)
        runs = []
        for _ in range(5):
            start = time.perf_counter()
            torch.mm(a, a.T)
            runs.append(time.perf_counter() - start)
        seconds[dtype] = min(runs)
    return min(seconds, key=seconds.get)
