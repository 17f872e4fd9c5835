"""`ReferenceManifold`: balls around a reference set, fitted once and asked about any number of batches."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from advlib.checks import ArrayLike, as_matrix, listed, plain_array, usual_device, whole_number
from advlib.chunks import Rows, is_chunked, rows_of
from advlib.prdc import blocked, saving
from advlib.prdc.balls import Balls
from advlib.prdc.radii import fit_radii
from advlib.prdc.rounded import RoundedPoints, scale_of

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
        Where the products run; by default where `ADVLIB_DEVICE` says, or else where the reference lies (an array: the
        CPU). Results are the same.
    partial : str or Path, optional
        Folder in which a fit by blocks keeps what its tasks found, under a name that follows from the data and k; a
        later fit of the same goes on there.

    Attributes
    ----------
    radii_ : (N,) float64 array
        Distance of each reference point to its k-th nearest other reference point, in the reference's units.
    reference_ : (N, d) float32 or float64 array
        The reference's own numbers (a copy); where it came in chunks, `advlib.chunks.Rows`, which stays where it lies.
    n_features_in_ : int
        d.

    Notes
    -----
    Reference and queries may be larger than memory: Dask arrays with chunks along the rows, zarr arrays, or what
    `advlib.chunks.rows_of` returned (files, functions that give chunks). Results are the same to the bit. The work goes
    to a Dask cluster where there is one (`advlib.tasks`), else block after block; `memory_gb` then bounds each task,
    its blocks included.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(500, 8))
    >>> manifold = ReferenceManifold(k=5).fit(points[:400])
    >>> manifold.ball_counts(points[400:]).shape
    (100,)
    """

    def __init__(
        self,
        k: int = 5,
        *,
        memory_gb: float = 1.0,
        device: torch.device | str | None = None,
        partial: str | Path | None = None,
    ):
        self.k = k
        self.memory_gb = memory_gb
        self.device = device
        self.partial = partial

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
        if is_chunked(reference):
            self._fit_rows(rows_of(reference, "reference"))
        else:
            device = self.device or usual_device()
            matrix = as_matrix(reference, "reference", dtype=float_type(reference), device=device)
            self._fit_points(matrix, "reference")
        empty = int((self.radii_ == 0).sum())
        if empty == len(self.radii_):
            raise ValueError(
                f"reference must have points with fewer than k = {self.k} exact copies, but each of its {empty} points "
                "has as many: every radius is 0 and no query can lie strictly inside a ball"
            )
        if empty:
            warnings.warn(zero_radii_words("reference", empty, len(self.radii_), self.k), UserWarning, stacklevel=2)
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
        """Mean number of balls around a query over k ([1]_ of the package, eq. 3); 1 in expectation under the null.

        Parameters
        ----------
        queries : (M, d) array or tensor
            As in `ball_counts`.

        Returns
        -------
        float
            ≥ 0.
        """
        return self.density_coverage(queries).density

    def coverage(self, queries: ArrayLike) -> float:
        """Share of the balls that hold at least one query ([1]_ of the package, eq. 4); null: `expected_coverage`.

        Parameters
        ----------
        queries : (M, d) array or tensor
            As in `ball_counts`.

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
            As in `ball_counts`.

        Returns
        -------
        DensityCoverage
            ``(density, coverage)``.
        """
        counts, covered = self._count(self._as_queries(queries))
        return DensityCoverage(density_of(counts, self.k), float(covered.mean()))

    def hits(self, queries: ArrayLike) -> sparse.csr_array:
        """Which balls hold which query, for statistics of many sub-batches from one pass.

        Parameters
        ----------
        queries : (M, d) array or tensor
            As in `ball_counts`.

        Returns
        -------
        (M, N) bool sparse array
            True at (q, i) where ‖q − x_i‖ < r_i. About k entries a row where queries look like the reference.
        """
        matrix = self._as_queries(queries)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        self._asked(matrix).score(matrix, lambda rows, columns: found.append((rows, columns)))
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
        chosen: list[np.ndarray] = []
        for number, batch in enumerate(listed(batches, "batches")):
            index = plain_array(batch, "batches")
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
            chosen.append(index)
        sizes = np.array([len(index) for index in chosen], dtype=np.int64)
        rows, ends = np.concatenate([*chosen, np.empty(0, np.int64)]), np.concatenate([[0], sizes.cumsum()])
        drawn = sparse.csr_array((np.ones(len(rows), np.int32), rows, ends), shape=(len(sizes), hits.shape[0]))
        counts = drawn @ hits.astype(np.int32)  # of each batch and ball: queries in it
        return counts.sum(axis=1) / (sizes * self.k), np.diff(counts.indptr) / hits.shape[1]

    def save(self, path: str | Path) -> None:
        """Write the fitted manifold to a safetensors file (no pickle), whole or not at all.

        Parameters
        ----------
        path : str or Path
            An existing file is replaced in one step.
        """
        check_is_fitted(self)
        if isinstance(self.reference_, Rows):
            raise ValueError(
                "a manifold of a reference in chunks must be saved by its radii_, which `from_radii` takes with the "
                "chunks again: the reference stays where it lies"
            )
        saving.write(Path(path), self.k, self.reference_, self.radii_)

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
        if reference is not None:
            reference = as_matrix(reference, "reference", dtype=float_type(reference)).cpu().numpy()
        return cls.from_radii(*saving.read(Path(path), k, reference), memory_gb=memory_gb, device=device)

    @classmethod
    def from_radii(
        cls,
        k: int,
        reference: np.ndarray,
        radii: np.ndarray,
        *,
        memory_gb: float = 1.0,
        device: torch.device | str | None = None,
    ) -> Self:
        """Return the manifold fitted before, from its `reference_` and `radii_`; no distance is computed again.

        Parameters
        ----------
        k : int
        reference : (N, d) float32 or float64 array, or in chunks
        radii : (N,) float64 array
        memory_gb, device
            As in the constructor.
        """
        manifold = cls(k, memory_gb=memory_gb, device=device)
        if is_chunked(reference):
            manifold._hold_rows(rows_of(reference, "reference"), radii)
            return manifold
        points = RoundedPoints(torch.from_numpy(reference).to(device or usual_device()), memory_gb)
        manifold._hold(Balls(points, radii * points.scale))
        return manifold

    @property
    def scale(self) -> float:
        """The power of two by which the reference's numbers are neither huge nor tiny; nearly always 1."""
        return scale_of(self.reference_.largest) if is_chunked(self.reference_) else self._balls.points.scale

    def _hold(self, balls: Balls) -> None:
        self._balls = balls
        self.reference_ = balls.points.reference
        self.radii_ = balls.radii / balls.points.scale
        self.n_features_in_ = self.reference_.shape[1]

    def _fit_points(self, points: torch.Tensor, name: str) -> Self:
        """`fit` on checked points (N, d), without a word about radii of zero; `name` is for messages."""
        k = whole_number(self.k, "k", 1)
        if k >= len(points):
            raise ValueError(f"k must be smaller than the number of points in {name}, {len(points)}, but is {k}")
        rounded = RoundedPoints(points, self.memory_gb)
        self._hold(Balls(rounded, fit_radii(rounded, k)))
        return self

    def _fit_rows(self, rows: Rows) -> None:
        """`fit` on rows in blocks."""
        k = whole_number(self.k, "k", 1)
        if k >= len(rows):
            raise ValueError(f"k must be smaller than the number of points in reference, {len(rows)}, but is {k}")
        _warn_of_integers(rows, "reference")
        device = None if self.device is None else str(self.device)
        folder = None if self.partial is None else Path(self.partial)
        self._hold_rows(rows, blocked.fit_radii(rows, k, self._memory(rows), device, folder))

    def _memory(self, rows: Rows) -> float:
        return self.memory_gb if rows.memory_gb is None else min(self.memory_gb, rows.memory_gb)

    def _hold_rows(self, rows: Rows, radii: np.ndarray) -> None:
        device = None if self.device is None else str(self.device)
        self._balls = blocked.BlockedBalls(rows, radii, self._memory(rows), device)
        self.reference_, self.radii_, self.n_features_in_ = rows, radii, rows.width

    def _as_queries(self, queries: ArrayLike | Rows) -> np.ndarray | Rows:
        """Return queries as a finite (M, d) float array, or rows in blocks, or raise a ValueError."""
        check_is_fitted(self)
        if is_chunked(queries):
            matrix = rows_of(queries, "queries")
            _warn_of_integers(matrix, "queries")
        else:
            matrix = as_matrix(queries, "queries", dtype=float_type(queries)).cpu().numpy()
        if matrix.shape[1] != self.n_features_in_:
            raise ValueError(
                f"queries must have the reference's {self.n_features_in_} features, but has shape {matrix.shape}"
            )
        return matrix

    def _count(self, queries: np.ndarray | Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of balls around each checked query, (M,), and whether each ball holds any, (N,) bool."""
        return self._asked(queries).count(queries)

    def _asked(self, queries: np.ndarray | Rows) -> Balls | blocked.BlockedBalls:
        """Return the balls that can take the queries: by blocks where either side is in blocks."""
        if isinstance(queries, Rows) and isinstance(self._balls, Balls):
            rows = rows_of(self.reference_, "reference")
            device = None if self.device is None else str(self.device)
            return blocked.BlockedBalls(rows, self.radii_, self.memory_gb, device)
        return self._balls


def _warn_of_integers(rows: Rows, name: str) -> None:
    if rows.converted:
        warnings.warn(
            f"{name} has dtype {rows.converted} and was converted to {rows.dtype} unscaled: make sure every argument "
            "uses the same range ([0, 1] or 0 to 255)",
            UserWarning,
            stacklevel=4,
        )


def density_of(counts: np.ndarray, k: int) -> float:
    """Mean number of balls around a query over k."""
    return float(1.0 / k * counts.mean())  # in the peer's order, so that the last bit agrees too


def float_type(values: ArrayLike) -> torch.dtype:
    """Type that holds the values without loss: float32 where that is enough, else float64."""
    try:
        name = str(values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype).removeprefix("torch.")
    except (ValueError, TypeError, RuntimeError):
        return torch.float64  # no array: `as_matrix` says so
    return torch.float32 if name in _FIT_FLOAT32 else torch.float64


def zero_radii_words(name: str, empty: int, n: int, k: int) -> str:
    """Words of the warning that `empty` of n balls hold nothing."""
    return (
        f"{empty} of the {n} points in {name} have k = {k} or more exact copies: their radius is 0, and nothing lies "
        "strictly inside their balls"
    )
