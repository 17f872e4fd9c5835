"""Balls around a reference set: density, coverage, precision and recall, exact and fast.

The reference manifold of Naeem et al. (2020) [1]_ puts around every reference point a ball that reaches to its k-th
nearest *other* reference point. Density counts in how many balls a query falls, coverage how many balls hold a query.

**What is exact.** One distance decides everything: ``sqrt(sum((a - b)**2))`` in float64, differences taken directly,
summed by NumPy along the features. Radii and queries go through the same arithmetic, so a query that equals the k-th
neighbour lies on the ball's edge, and under the strict ``<`` outside. Every count equals that of a brute force over
this distance.

**What makes it fast.** Nearly all pairs are far from any edge, and a coarse product proves it. Points are centred
and rounded to bfloat16, x ≈ x̂ with a measured residual e(x) = ‖x − x̂‖. The triangle inequality gives

    | ‖q − x‖ − ‖q̂ − x̂‖ | ≤ e(q) + e(x),

and products of bfloat16 numbers are exact in float32, so the matrix product of the x̂ is wrong by at most the rounding
of its sum, γ ‖q̂‖ ‖x̂‖ with γ ≈ d·2⁻²⁴ [2]_. Norms and radii ride along as six more columns, so that the sign of the
product answers "can q lie in the ball of x?" and one comparison is all that each pair costs. The few pairs
inside the proved band go on to the distance above. Where the bands are wide for many pairs at once (tight clusters far
apart) a float64 product of the tile narrows them first. Radii start from an upper bound that a sample of the columns
gives, so that fitting, too, asks one question per pair.

**What was tried** (timed in `benchmarks/manifold.py`; table in `results/reference/benchmarks.md`). bfloat16 products
against float32 ones, float64 tiles, and the coarse product as a whole earn their lines. faiss' flat search is slower
than this module: it multiplies in float32 and sorts neighbours that nobody asks for. An int8 grid is exact on
images of whole grey levels, but elsewhere one step for all numbers makes the bands far wider than bfloat16's (about ten
times for Gaussian data). Principal components rule out points early on images, yet leave several pairs a query
undecided, which costs what the shorter product saves until N is some ten thousand. Half of the symmetric product in
`fit` would need a second comparison of every pair, and comparing is what costs most beside the product.

References
----------
.. [1] M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi and J. Yoo, "Reliable fidelity and diversity metrics for generative
   models", ICML 2020, PMLR 119:7176-7185, eqs. 3-4.
.. [2] N. J. Higham, "Accuracy and stability of numerical algorithms", 2nd ed., SIAM 2002, §3.1 (γ_n bounds),
   doi:10.1137/1.9780898718027.
"""

import functools
import hashlib
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from advlib import paths
from advlib.checks import ArrayLike, as_matrix

_FOLDS = 6  # columns beside the features: a number in three bfloat16 pieces for the row, three for the column
_TINY = 1e-18  # in scaled units; above what float32 underflow can lose in a residual, below any radius that matters
_EDGE = 1e-12  # relative; far above the rounding of a float64 distance, far below that of the coarse product
_FORMAT = "advlib reference manifold 2"
_FIT_FLOAT32 = {"float16", "bfloat16", "float32", "uint8", "int8", "uint16", "int16", "bool"}


class DensityCoverage(NamedTuple):
    """Density and coverage of one batch."""

    density: float
    coverage: float


class ReferenceManifold(BaseEstimator):
    """Nearest-neighbour balls around a reference set, fitted once and asked about any number of batches.

    Parameters
    ----------
    k : int
        A ball reaches to its centre's k-th nearest other reference point; 1 ≤ k < N. VS22 use 5.
    memory_gb : float
        Working memory in GiB that `fit` and the queries may take beside the fitted state, which is N·d numbers of
        the reference's own dtype and N·(d + 6) of 2 bytes (4 where bfloat16 products are slow). No N×M array is
        ever made. `hits` returns what it finds, whatever its size.
    device : torch.device or str, optional
        Where the products run; by default where the reference lies (an array: the CPU). Results are the same.

    Attributes
    ----------
    radii_ : (N,) float64 array
        Distance of each reference point to its k-th nearest other reference point, in the reference's units.
    reference_ : (N, d) float32 or float64 array
        The reference's own numbers (a copy).
    n_features_in_ : int
        d.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(500, 8))
    >>> manifold = ReferenceManifold(k=5).fit(points[:400])
    >>> manifold.ball_counts(points[400:]).shape
    (100,)
    """

    def __init__(self, k: int = 5, *, memory_gb: float = 1.0, device: torch.device | str | None = None):
        self.k = k
        self.memory_gb = memory_gb
        self.device = device

    def fit(self, reference: ArrayLike, y: None = None) -> Self:
        """Measure the radius of every reference point.

        Parameters
        ----------
        reference : (N, d) array or tensor
            Real numbers, N > k. Integers are converted unscaled, with a warning.
        y : None
            Ignored; scikit-learn's convention.

        Returns
        -------
        ReferenceManifold
            Itself.

        Raises
        ------
        ValueError
            Where `reference`, `k` or `memory_gb` cannot be used, or every radius is zero because each point has k
            or more copies: strictly inside a ball of radius zero lies nothing, so all results would be zero.
        """
        self._fit(as_matrix(reference, "reference", dtype=_float_type(reference), device=self.device), "reference")
        empty = int((self.radii_ == 0).sum())
        if empty == len(self.radii_):
            raise ValueError(
                f"reference must have points with fewer than k = {self.k} exact copies, but each of its {empty} points "
                "has as many: every radius is 0 and no query can lie strictly inside a ball"
            )
        if empty:
            warnings.warn(_zero_radii("reference", empty, len(self.radii_), self.k), UserWarning, stacklevel=2)
        return self

    def ball_counts(self, queries: ArrayLike) -> np.ndarray:
        """Count the balls that hold each query.

        Parameters
        ----------
        queries : (M, d) array or tensor
            M ≥ 1, in the units of the reference.

        Returns
        -------
        (M,) int64 array
            #{i : ‖q − x_i‖ < r_i} for each query q.

        Raises
        ------
        ValueError
            Where `queries` is no finite (M, d) matrix with the reference's d.
        """
        return self._count(self._as_queries(queries))[0]

    def density(self, queries: ArrayLike) -> float:
        """Mean number of balls around a query over k ([1]_ of the module, eq. 3); 1 in expectation under the null.

        Parameters
        ----------
        queries : (M, d) array or tensor
            M ≥ 1, in the units of the reference.

        Returns
        -------
        float
            ≥ 0.
        """
        return self.density_coverage(queries).density

    def coverage(self, queries: ArrayLike) -> float:
        """Share of the balls that hold at least one query ([1]_ of the module, eq. 4); null: `expected_coverage`.

        Parameters
        ----------
        queries : (M, d) array or tensor
            M ≥ 1, in the units of the reference.

        Returns
        -------
        float
            In [0, 1].
        """
        return self.density_coverage(queries).coverage

    def density_coverage(self, queries: ArrayLike) -> DensityCoverage:
        """Both numbers from one pass.

        Parameters
        ----------
        queries : (M, d) array or tensor
            M ≥ 1, in the units of the reference.

        Returns
        -------
        DensityCoverage
            ``(density, coverage)``.
        """
        counts, covered = self._count(self._as_queries(queries))
        return DensityCoverage(_density(counts, self.k), float(covered.mean()))

    def hits(self, queries: ArrayLike) -> sparse.csr_array:
        """Which balls hold which query, for statistics of many sub-batches from one pass.

        Parameters
        ----------
        queries : (M, d) array or tensor
            M ≥ 1, in the units of the reference.

        Returns
        -------
        (M, N) bool sparse array
            True at (q, i) where ‖q − x_i‖ < r_i. About k entries a row where queries look like the reference.
        """
        matrix = self._as_queries(queries)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        self._score(matrix, lambda rows, columns: found.append((rows, columns)))
        rows, columns = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
        ones = np.ones(len(rows), dtype=bool)
        return sparse.csr_array((ones, (rows, columns)), shape=(len(matrix), len(self.radii_)))

    def subset_density_coverage(
        self, hits: sparse.csr_array, batches: Iterable[Sequence[int] | np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Density and coverage of many batches drawn from queries that were scored once.

        Parameters
        ----------
        hits : (M, N) sparse array
            What `hits` returned.
        batches : T sequences of int
            Query indices (rows of `hits`) of each batch; a (T, m) array will do. Sizes may differ.

        Returns
        -------
        density, coverage : (T,) float64 arrays
            As `density_coverage` of each batch.

        Raises
        ------
        ValueError
            Where `hits` does not belong to this manifold, or a batch is empty or points outside the rows.
        """
        check_is_fitted(self)
        if hits.shape[1] != len(self.radii_):
            raise ValueError(f"hits must have {len(self.radii_)} columns, one a ball, but has shape {hits.shape}")
        density, coverage = [], []
        for number, batch in enumerate(batches):
            index = np.asarray(batch)
            if index.ndim != 1 or not len(index) or index.dtype.kind not in "iu":
                raise ValueError(
                    f"batches must hold non-empty lists of row indices, but number {number} has shape {index.shape} "
                    f"and dtype {index.dtype}"
                )
            if index.min() < 0 or index.max() >= hits.shape[0]:
                raise ValueError(
                    f"batches must point to the {hits.shape[0]} rows of hits, but number {number} has indices from "
                    f"{index.min()} to {index.max()}"
                )
            chosen = hits[index]
            density.append(chosen.nnz / (len(index) * self.k))
            coverage.append(len(np.unique(chosen.indices)) / hits.shape[1])
        return np.array(density), np.array(coverage)

    def save(self, path: str | Path) -> None:
        """Write the fitted manifold to a safetensors file (no pickle), whole or not at all.

        Parameters
        ----------
        path : str or Path
            An existing file is replaced in one step.
        """
        check_is_fitted(self)
        tensors = {"reference": self.reference_, "radii": self.radii_}
        content = to_safetensors(tensors, metadata=_description(self.k, self.reference_, self.radii_))
        with paths.replacing(Path(path)) as temporary:
            temporary.write_bytes(content)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        k: int | None = None,
        reference: ArrayLike | None = None,
        memory_gb: float = 1.0,
        device: torch.device | str | None = None,
    ) -> Self:
        """Read a manifold that `save` wrote, and check that it is whole and the one that is meant.

        Parameters
        ----------
        path : str or Path
            The file.
        k : int, optional
            The k that the caller expects.
        reference : (N, d) array or tensor, optional
            The reference that the caller expects.
        memory_gb, device
            As in the constructor.

        Returns
        -------
        ReferenceManifold
            Fitted; no distance is computed again.

        Raises
        ------
        ValueError
            Naming the file and what does not match: not such a file, damaged, or another k or reference.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="numpy") as file:
                stated = file.metadata() or {}
                if stated.get("format") != _FORMAT:
                    raise ValueError(f"{path} is no saved reference manifold: its format is {stated.get('format')!r}")
                data, radii = file.get_tensor("reference"), file.get_tensor("radii")
        except SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file of a reference manifold: {error}") from error
        held_k = int(stated["k"]) if stated.get("k", "").isdigit() else 0
        for key, value in _description(held_k, data, radii).items():
            if stated.get(key) != value:
                raise ValueError(f"{path} is damaged: its {key} is {value}, but it says {stated.get(key)}")
        if k is not None and k != held_k:
            raise ValueError(f"{path} was fitted with k = {held_k}, but k = {k} was asked for")
        if reference is not None:
            wanted = as_matrix(reference, "reference", dtype=_float_type(reference)).cpu().numpy()
            if _digest(wanted) != stated["reference_sha256"]:
                raise ValueError(
                    f"{path} was fitted to another reference: it holds shape {data.shape}, dtype {data.dtype}, digest "
                    f"{stated['reference_sha256'][:12]}…, but the given one has shape {wanted.shape}, dtype "
                    f"{wanted.dtype}, digest {_digest(wanted)[:12]}…"
                )
        manifold = cls(held_k, memory_gb=memory_gb, device=device)
        manifold._hold(torch.from_numpy(data).to(device))
        manifold._set_radii(radii * manifold._scale)
        return manifold

    # ---------------------------------------------------------------- fitted state

    def _fit(self, points: torch.Tensor, name: str) -> Self:
        k = _whole("k", self.k, 1)
        if k >= len(points):
            raise ValueError(f"k must be smaller than the number of points in {name}, {len(points)}, but is {k}")
        self._hold(points)
        self._set_radii(self._fit_radii(k))
        return self

    def _hold(self, reference: torch.Tensor) -> None:
        """Copy the reference and round it to the coarse operand ``[x̂ | 1 1 1 | three pieces of the column's fold]``."""
        if not self.memory_gb > 0:
            raise ValueError(f"memory_gb must be a positive number of GiB, but is {self.memory_gb}")
        self._device = reference.device
        self._threads = 1 if reference.is_cuda else torch.get_num_threads()
        self._share = self.memory_gb * 2**30 / self._threads  # bytes a thread may use
        self._dtype = _product_type(reference.device)
        self.reference_ = reference.cpu().numpy().copy()
        n, d = self.reference_.shape
        self.n_features_in_ = d
        largest = float(np.abs(self.reference_).max())
        # A power of two changes no rounding; it is only needed where squares would leave float32's range.
        exponent = math.frexp(largest)[1] if largest else 0
        self._scale = 1.0 if abs(exponent) <= 20 else math.ldexp(1.0, int(np.clip(-exponent, -1000, 1000)))
        scaled = self.reference_ if self._scale == 1.0 else self.reference_ * self.reference_.dtype.type(self._scale)
        self._centre = torch.from_numpy(scaled.mean(axis=0, dtype=np.float64).astype(scaled.dtype)).to(self._device)
        # Each product of a row and a column sums `terms` exact products; see `_fold` for how gamma is used.
        self._terms = d + _FOLDS
        self._gamma = (4 * self._terms + 64) * 2.0**-24
        self._columns = torch.empty((n, self._terms), dtype=self._dtype, device=self._device)
        self._columns[:, d : d + 3] = 1
        self._square, self._residual = np.empty(n), np.empty(n)

        def hold(lo: int, hi: int) -> None:
            rounded, self._square[lo:hi], self._residual[lo:hi] = self._round(self.reference_[lo:hi])
            self._columns[lo:hi, :d] = rounded

        self._each_panel(hold, n, self._panel_rows())
        # Residuals up to `usual` are paid for by whoever owns the threshold, larger ones by their own point alone,
        # so that one outlier does not widen everybody's band.
        self._usual = 1.25 * float(np.quantile(self._residual, 0.95))
        self._excess = np.maximum(self._residual - self._usual, 0.0)

    def _set_radii(self, radii: np.ndarray) -> None:
        """Fold the radii (scaled units) into the columns, ready for queries."""
        self._radii = radii
        self.radii_ = radii / self._scale
        reach = radii + self._residual + self._usual
        self._widest = float(reach.max())
        self._farthest = float((np.sqrt(self._square) + reach).max()) * (1 + 1e-3)
        self._slack, self._threshold = self._fold_columns(reach**2)

    def _fold_columns(self, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fold, slack = self._fold(self._square, threshold)
        self._columns[:, self.n_features_in_ + 3 :] = self._pieces(fold)
        return slack, threshold

    def _fold(self, square: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r"""Half of the comparison ``‖q̂ − x̂‖² ≤ t_q + t_x`` that belongs to one side, and the slack added to it.

        With :math:`f = (t - ‖x̂‖²)/2 + s` on either side, the product :math:`h = q̂·x̂ + f_q + f_x` equals
        :math:`(t_q + t_x - ‖q̂ - x̂‖²)/2 + s_q + s_x`. Rounding of the sum, of the norms and of the three pieces is below
        :math:`1.5\,K u\,(‖x̂‖² + t)` a side (K terms, u = 2⁻²⁴, Higham (3.3) with ‖q̂‖‖x̂‖ ≤ (‖q̂‖² + ‖x̂‖²)/2); s is
        more than twice that. So h is wrong by less than (s_q + s_x)/2, and positive wherever the comparison holds.
        """
        slack = self._gamma * (square + threshold) + self._terms * 1e-36
        return (threshold - square) / 2 + slack, slack

    def _pieces(self, values: np.ndarray) -> torch.Tensor:
        rest = torch.from_numpy(values).to(self._device, torch.float32)
        pieces = []
        for _ in range(3):
            pieces.append(rest.bfloat16())
            rest = rest - pieces[-1]
        return torch.stack(pieces, dim=1).to(self._dtype)

    def _round(self, points: np.ndarray) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """Return x̂ (bfloat16), ‖x̂‖² and an upper bound of ‖x − c − x̂‖, all in scaled units."""
        values = torch.from_numpy(points).to(self._device)
        if self._scale != 1.0:
            values = values * self._scale
        values = (values - self._centre).float()
        rounded = values.bfloat16()
        norm = torch.linalg.vector_norm(rounded, dim=1, dtype=torch.float32).double()
        residual = torch.linalg.vector_norm(values - rounded, dim=1).double()
        # The float32 difference `values` is itself rounded, and so is the sum of squares.
        d = points.shape[1]
        residual = residual * (1 + d * 2.0**-23) + norm * 2.0**-23 + _TINY * math.sqrt(d)
        return rounded, norm.square().cpu().numpy(), residual.cpu().numpy()

    def _rows(self, rounded: torch.Tensor, fold: np.ndarray) -> torch.Tensor:
        """Row operand ``[x̂ | pieces of the row's fold | 1 1 1]``."""
        d = self.n_features_in_
        rows = torch.empty((len(rounded), self._terms), dtype=self._dtype, device=self._device)
        rows[:, :d] = rounded
        rows[:, d : d + 3] = self._pieces(fold)
        rows[:, d + 3 :] = 1
        return rows

    # ---------------------------------------------------------------- fit

    def _fit_radii(self, k: int) -> np.ndarray:
        """Radii in scaled units: first an upper bound from a sample of columns, then all columns below that bound."""
        n, d = self.reference_.shape
        groups = min(n, max(64, 8 * k))
        size = n if groups == n else min(n, groups * max(1, math.ceil(n / 8 / groups)))
        order = np.random.default_rng(0).permutation(n)
        sample = order[np.argsort(self._excess[order] > 0, kind="stable")][:size]
        farthest_residual = float(self._residual[sample].max())
        # Here the slack is subtracted: the product must not promise a neighbour nearer than it is.
        under = -self._square / 2 - self._gamma * self._square - self._terms * 1e-36
        of_sample = self._columns[torch.from_numpy(sample).to(self._device)]
        of_sample[:, d + 3 :] = self._pieces(under[sample])
        place = np.full(n, -1)
        place[sample] = np.arange(size)
        bound = np.empty(n)

        def sample_bound(lo: int, hi: int) -> None:
            rows = self._rows(self._columns[lo:hi, :d], under[lo:hi])
            nearness = torch.mm(rows, of_sample.T)
            own = np.flatnonzero(place[lo:hi] >= 0)
            nearness[own, place[lo:hi][own]] = -torch.inf
            if size > groups and size % groups == 0:
                # The best of each group are different points, so their k-th best is an upper bound, and cheap.
                nearness = nearness.view(hi - lo, -1, groups).amax(dim=1)
            kth = nearness.float().topk(k, dim=1).values[:, -1].double().cpu().numpy()
            coarse = np.sqrt(np.maximum(-2 * kth, 0) * (1 + 2.0**-7))
            bound[lo:hi] = (coarse + self._residual[lo:hi] + farthest_residual) * (1 + 1e-6)

        self._each_panel(sample_bound, n, self._panel_rows(size))
        reach = bound + self._residual + self._usual
        excess = self._excess
        column_slack, column_threshold = self._fold_columns(2 * float(reach.max()) * excess + excess**2)
        radii = np.empty(n)

        def kth_distance(lo: int, hi: int) -> None:
            left = self.reference_[lo:hi]
            fold, slack = self._fold(self._square[lo:hi], reach[lo:hi] ** 2)
            rows = self._rows(self._columns[lo:hi, :d], fold)
            found, total, most = [], 0, min(self._share / 256, len(left) * n / 8)
            for _, _, i, j, h in self._survivors(rows, 0, n):
                found.append((i, j, h))
                total += len(i)
                if total > max(most, 2**12):
                    radii[lo:hi] = self._fine_radii(lo, hi, k)
                    return
            i, j, h = (np.concatenate([part[axis] for part in found]) for axis in range(3))
            other = i + lo != j
            i, j, h = i[other], j[other], h[other]
            low, high = _bounds(
                h,
                reach[lo + i] ** 2 + column_threshold[j],
                slack[i] + column_slack[j],
                self._residual[lo + i] + self._residual[j],
            )
            starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=len(left)))])
            kth_low, kth_high = _kth(i, low, starts, k) * (1 - 1e-6), _kth(i, high, starts, k) * (1 + 1e-6)
            nearer = high < kth_low[i]
            open_ = ~nearer & (low <= kth_high[i])
            if open_.sum() > _worth_a_tile(len(left) * n):
                radii[lo:hi] = self._fine_radii(lo, hi, k)
                return
            rank = k - np.bincount(i[nearer], minlength=len(left))
            radii[lo:hi] = self._decide(left, i[open_], j[open_], rank)

        self._each_panel(kth_distance, n, self._panel_rows())
        return radii

    def _fine_radii(self, lo: int, hi: int, k: int) -> np.ndarray:
        """Radii of points lo … hi − 1 from whole rows of float64 squares, where the coarse product tells too little."""
        n = len(self.reference_)
        radii = np.empty(hi - lo)
        step = int(max(1, min(hi - lo, self._share / (64 * n))))
        for first in range(lo, hi, step):
            left = self.reference_[first : min(first + step, hi)]
            square, error = self._fine(left, 0, n)
            own = np.arange(len(left))
            square[own, first + own] = np.inf
            low, high = square - error, np.add(square, error, out=square)
            kth_low = np.partition(low, k - 1, axis=1)[:, k - 1, None]
            kth_high = np.partition(high, k - 1, axis=1)[:, k - 1, None]
            nearer = high < kth_low
            i, j = np.nonzero(~nearer & (low <= kth_high))
            radii[first - lo : first - lo + len(left)] = self._decide(left, i, j, k - nearer.sum(axis=1))
        return radii

    def _decide(self, left: np.ndarray, i: np.ndarray, j: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Return for each row of `left` the `rank`-th smallest distance among its pairs."""
        distance = self._distances(left, i, j)
        order = np.lexsort((distance, i))
        starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=len(left)))])
        return distance[order][starts[:-1] + rank - 1]

    # ---------------------------------------------------------------- queries

    def _as_queries(self, queries: ArrayLike, name: str = "queries") -> np.ndarray:
        check_is_fitted(self)
        matrix = as_matrix(queries, name, dtype=_float_type(queries)).cpu().numpy()
        if matrix.shape[1] != self.n_features_in_:
            raise ValueError(
                f"{name} must have the reference's {self.n_features_in_} features, but has shape {matrix.shape}"
            )
        return matrix

    def _count(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = np.zeros(len(queries), dtype=np.int64)
        covered = np.zeros(len(self.radii_), dtype=bool)

        turn = threading.Lock()

        def add(rows: np.ndarray, columns: np.ndarray) -> None:
            covered[columns] = True
            if len(rows):
                first = rows.min()
                partial = np.bincount(rows - first)
                with turn:  # threads may share rows
                    counts[first : first + len(partial)] += partial

        self._score(queries, add)
        return counts, covered

    def _score(self, queries: np.ndarray, found: Callable[[np.ndarray, np.ndarray], object]) -> None:
        """Call `found(rows, columns)` with every pair strictly inside, in no particular order."""
        n, m, panel = len(self.reference_), len(queries), self._panel_rows()
        # One small batch still gives every thread something to do.
        edges = np.linspace(0, n, (min(self._threads, n) if m <= panel else 1) + 1).astype(int)
        self._each(
            lambda *span: self._score_panel(queries, *span, found),
            [(lo, min(lo + panel, m), *edge) for lo in range(0, m, panel) for edge in pairwise(edges)],
        )

    def _score_panel(self, queries, lo, hi, first, last, found) -> None:
        left = queries[lo:hi]
        rounded, square, residual = self._round(left)
        with np.errstate(invalid="ignore"):
            # No ball reaches that far out; such numbers may not even be finite in float32.
            far = ~(np.sqrt(square) - residual <= self._farthest)
        if far.any():
            rounded[torch.from_numpy(far).to(self._device)] = 0
            square[far] = residual[far] = 0.0
        excess = np.maximum(residual - self._usual, 0.0)
        threshold = 2 * self._widest * excess + excess**2
        fold, slack = self._fold(square, threshold)
        fold[far] = -1e30
        for start, stop, i, j, h in self._survivors(self._rows(rounded, fold), first, last):
            pairs = len(left) * (stop - start)
            if len(i) <= pairs / 8:
                low, high = _bounds(
                    h, threshold[i] + self._threshold[j], slack[i] + self._slack[j], residual[i] + self._residual[j]
                )
                radius = self._radii[j]
                inside = high < radius * (1 - _EDGE)
                open_ = np.flatnonzero(~inside & (low <= radius * (1 + _EDGE)))
                if len(open_) <= _worth_a_tile(pairs):
                    inside[open_] = self._distances(left, i[open_], j[open_]) < radius[open_]
                    found(i[inside] + lo, j[inside])
                    continue
            square, error = self._fine(left, start, stop)
            radius = self._radii[start:stop]
            with np.errstate(invalid="ignore"):  # far queries again: infinity minus infinity is no neighbour
                inside = square + error < radius**2 * (1 - _EDGE)
                i, j = np.nonzero(~inside & (square - error <= radius**2 * (1 + _EDGE)))
            inside[i, j] = self._distances(left, i, j + start) < radius[j]
            i, j = np.nonzero(inside)
            found(i + lo, j + start)

    # ---------------------------------------------------------------- pairs

    def _survivors(self, rows: torch.Tensor, first: int, last: int):
        """Yield (start, stop, i, j, h), a tile of columns at a time: the pairs whose product h is positive."""
        width = max(1, self._tile() // len(rows))
        buffer = torch.empty(len(rows) * min(width, last - first), dtype=self._dtype, device=self._device)
        for start in range(first, last, width):
            stop = min(start + width, last)
            # The long side comes first: a quarter faster than the other way round.
            tile = buffer[: len(rows) * (stop - start)].view(stop - start, len(rows))
            torch.mm(self._columns[start:stop], rows.T, out=tile)
            flat = tile.view(-1)
            if flat.is_cuda:
                index = torch.nonzero(flat > 0).view(-1)
                h, index = flat[index].double().cpu().numpy(), index.cpu().numpy()
            else:
                # Read as integers, positive floats are the positive ones, and NumPy compares those fastest.
                as_integers = flat.view(torch.int16 if self._dtype is torch.bfloat16 else torch.int32).numpy()
                index = np.flatnonzero(as_integers > 0)
                h = flat[torch.from_numpy(index)].double().numpy()
            j, i = np.divmod(index, len(rows))
            yield start, stop, i, j + start, h

    def _distances(self, left: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the deciding distance of the pairs (left[i], reference[j]), in scaled units."""
        out = np.empty(len(i))
        step = max(1, 2**15 // left.shape[1])  # pairs at a time that stay in a core's cache
        for lo in range(0, len(i), step):
            difference = left.take(i[lo : lo + step], axis=0).astype(np.float64)
            other = self.reference_.take(j[lo : lo + step], axis=0).astype(np.float64)
            if self._scale != 1.0:
                difference *= self._scale
                other *= self._scale
            difference -= other
            difference *= difference
            out[lo : lo + step] = np.sqrt(difference.sum(axis=1))
        return out

    def _fine(self, left: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances to reference points first … last − 1 by a float64 product, and bounds on their errors."""
        a = self._centred(left)
        a_square = a.square().sum(dim=1, keepdim=True)
        square, error = np.empty((len(left), last - first)), np.empty((len(left), last - first))
        # The product's rounding as in `_fold`, and that of the differences from the centre.
        unit = (8 * self.n_features_in_ + 256) * 2.0**-53
        step = int(max(1, min(4096, self._share / (64 * self.n_features_in_))))
        for start in range(first, last, step):
            b = self._centred(self.reference_[start : min(start + step, last)])
            part = slice(start - first, start - first + len(b))
            norms = a_square + b.square().sum(dim=1)
            error[:, part] = (unit * norms).cpu().numpy()
            square[:, part] = torch.addmm(norms, a, b.T, alpha=-2).cpu().numpy()
        return square, error

    def _centred(self, points: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(points).to(self._device, torch.float64) * self._scale - self._centre

    # ---------------------------------------------------------------- budget and threads

    def _tile(self) -> int:
        """Pairs in one tile: a tile stays in a core's cache, and were all pairs survivors they would fit the budget."""
        best = 2**26 if self._device.type == "cuda" else 2**20
        return int(max(2**12, min(best, self._share / 256)))

    def _panel_rows(self, columns: int = 1) -> int:
        rows = 2**13 if self._device.type == "cuda" else 512
        by_budget = self._share / (8 * max(columns, 8 * self.n_features_in_))
        return int(max(1, min(rows, by_budget)))

    def _each_panel(self, task: Callable[[int, int], None], n: int, panel: int) -> None:
        self._each(task, [(lo, min(lo + panel, n)) for lo in range(0, n, panel)])

    def _each(self, task: Callable[..., None], spans: list[tuple[int, ...]]) -> None:
        """Run the task on every span, on as many threads as torch was given, each without inner parallelism.

        Tiles need no barrier between their steps, which inner parallelism would put after each.
        """
        threads = min(self._threads, torch.get_num_threads())
        if threads == 1:
            for span in spans:
                task(*span)
        else:
            running = [_pool(threads).submit(task, *span) for span in spans]
            try:
                for done in running:
                    done.result()
            finally:  # after an error or Ctrl-C, what has not begun need not begin
                for left_over in running:
                    left_over.cancel()


def prdc(
    reference: ArrayLike,
    queries: ArrayLike,
    k: int = 5,
    *,
    memory_gb: float = 1.0,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Precision, recall, density and coverage, as `prdc.compute_prdc` of the package `prdc` returns them.

    Precision is the share of queries in any ball of the reference, recall the share of reference points in any ball
    of the queries (Kynkäänniemi et al. 2019, NeurIPS 32, eq. 2); density and coverage as in the module's [1]_.
    The peer computes distances as sqrt(‖x‖² + ‖y‖² − 2x·y), in the arrays' own precision: give it float64, and the
    numbers are equal unless a pair lies within that rounding of a ball's edge.

    Parameters
    ----------
    reference : (N, d) array or tensor
        N > k.
    queries : (M, d) array or tensor
        M > k: recall needs balls around the queries.
    k : int
        Neighbour that sets a ball's radius.
    memory_gb, device
        As in `ReferenceManifold`.

    Returns
    -------
    dict
        Keys precision, recall, density, coverage; floats.

    Raises
    ------
    ValueError
        As `ReferenceManifold.fit` and `ReferenceManifold.ball_counts`.
    """
    real = ReferenceManifold(k, memory_gb=memory_gb, device=device).fit(reference)
    points = as_matrix(queries, "queries", dtype=_float_type(queries), device=device)
    matrix = real._as_queries(points)
    fake = ReferenceManifold(k, memory_gb=memory_gb, device=device)._fit(points, "queries")
    empty = int((fake.radii_ == 0).sum())
    if empty:
        warnings.warn(_zero_radii("queries", empty, len(matrix), k), UserWarning, stacklevel=2)
    counts, covered = real._count(matrix)
    return {
        "precision": float((counts > 0).mean()),
        "recall": float((fake._count(real.reference_)[0] > 0).mean()),
        "density": _density(counts, k),
        "coverage": float(covered.mean()),
    }


def expected_coverage(n_reference: int, n_queries: int, k: int) -> float:
    r"""Mean coverage where reference and queries are exchangeable (drawn alike, no ties).

    A ball is empty when the k points nearest to its centre, among the N − 1 other reference points and the m queries,
    are all reference points:

    .. math:: E[\text{coverage}] = 1 - \prod_{j=0}^{k-1} \frac{N - 1 - j}{N - 1 + m - j}

    It does not depend on the distribution. The mean density under the same null is 1.

    Parameters
    ----------
    n_reference : int
        N > k.
    n_queries : int
        m ≥ 1.
    k : int
        Neighbour that sets a ball's radius, k ≥ 1.

    Returns
    -------
    float
        In (0, 1).

    Raises
    ------
    ValueError
        Where the three do not fit together.
    """
    k = _whole("k", k, 1)
    others = _whole("n_reference", n_reference, k + 1) - 1
    m = _whole("n_queries", n_queries, 1)
    return 1.0 - math.prod((others - j) / (others + m - j) for j in range(k))


def _density(counts: np.ndarray, k: int) -> float:
    return float(1.0 / k * counts.mean())  # in the peer's order, so that the last bit agrees too


def _bounds(
    h: np.ndarray, threshold: np.ndarray, slack: np.ndarray, residual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the distance behind a product h (see `ReferenceManifold._fold`); sums of both sides."""
    rounding = np.abs(h) * 2.0**-8  # where the product is returned as bfloat16
    low = np.sqrt(np.maximum(threshold + slack - 2 * (h + rounding), 0.0)) - residual
    high = np.sqrt(np.maximum(threshold + 3 * slack - 2 * (h - rounding), 0.0)) + residual
    return np.maximum(low, 0.0), high


def _kth(i: np.ndarray, values: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """k-th smallest of the non-negative values in each row i, to float32 precision."""
    # The bits of non-negative floats sort like the floats; with the row above them, one sort serves all rows.
    keys = (i.astype(np.int64) << 32) | values.astype(np.float32).view(np.int32)
    keys.sort()
    return (keys[starts[:-1] + k - 1] & 0xFFFFFFFF).astype(np.int32).view(np.float32).astype(np.float64)


def _worth_a_tile(pairs: int) -> float:
    """More undecided pairs than this, and a float64 product of all is cheaper than distances one by one."""
    return pairs / 32


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch does not spread further, kept: setting this up anew costs milliseconds each time."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="advlib", initializer=torch.set_num_threads, initargs=(1,))
    together = threading.Barrier(threads)
    for started in [pool.submit(together.wait) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(threads)  # a thread sets its own number and the one that new threads start with
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has the pool, but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@functools.cache
def _product_type(device: torch.device) -> torch.dtype:
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


def _float_type(values: ArrayLike) -> torch.dtype:
    """Type that holds the values without loss: float32 where that is enough, else float64."""
    name = str(values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype).removeprefix("torch.")
    return torch.float32 if name in _FIT_FLOAT32 else torch.float64


def _whole(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, but is {value!r}")
    return int(value)


def _zero_radii(name: str, empty: int, n: int, k: int) -> str:
    return (
        f"{empty} of the {n} points in {name} have k = {k} or more exact copies: their radius is 0, and nothing lies "
        "strictly inside their balls"
    )


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _description(k: int, reference: np.ndarray, radii: np.ndarray) -> dict[str, str]:
    stated = {
        "format": _FORMAT,
        "k": str(k),
        "dtype": str(reference.dtype),
        "shape": "x".join(map(str, reference.shape)),
        "reference_sha256": _digest(reference),
        "radii_sha256": _digest(radii),
    }
    # The radii do not tell which k they were taken with, so that the words themselves need a seal.
    seal = hashlib.sha256("\n".join(f"{key} {value}" for key, value in stated.items()).encode()).hexdigest()
    return {**stated, "seal_sha256": seal}
