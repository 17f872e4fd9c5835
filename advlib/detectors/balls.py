"""Balls around a reference set, of each class apart if there are labels: which hold a sample, and which is nearest."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy import sparse

from advlib.chunks import Block, Rows, rows_of
from advlib.detectors.saving import finite
from advlib.prdc import ReferenceManifold
from advlib.tasks import map_tasks


class Balls:
    """Balls around the reference, of each class apart if there are labels; columns are numbered class after class."""

    def __init__(self, k: int):
        self.k = k
        self.manifolds: dict[int | None, ReferenceManifold] = {}

    def fit(self, matrix: np.ndarray | Rows, labels: np.ndarray | None) -> Self:
        """Put balls around the rows of a matrix (N, d); labels need one in memory."""
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
            reference, radii = tensors[f"{name}.{number}.reference"], tensors[f"{name}.{number}.radii"]
            if not isinstance(reference, Rows):  # rows in blocks were checked as they were opened
                finite(reference)
            if radii.shape != (len(reference),) or radii.dtype != np.float64 or not (radii >= 0).all():
                raise ValueError(f"its radii have shape {radii.shape} and dtype {radii.dtype}, or are no distances")
            self.manifolds[c] = ReferenceManifold.from_radii(self.k, reference, radii)
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

    def nearest(self, matrix: np.ndarray | Rows, labels: np.ndarray | None) -> np.ndarray:
        """Return the smallest distance over radius of each sample, (n,)."""
        if labels is None:
            if isinstance(matrix, Rows) or isinstance(self.manifolds[None].reference_, Rows):
                return _nearest_by_blocks(self.manifolds[None], matrix)
            return self._nearest(None, matrix)
        out = np.empty(len(matrix))
        for c in np.unique(labels).tolist():
            out[labels == c] = self._nearest(c, matrix[labels == c])
        return out

    def _nearest(self, c: int | None, matrix: np.ndarray) -> np.ndarray:
        manifold = self.manifolds[c]
        if c not in self._norms:
            centre = manifold.reference_.mean(axis=0, dtype=np.float64)
            points = _as_float32(manifold.reference_, centre, manifold.scale)
            radii = torch.from_numpy(np.minimum(manifold.radii_ * manifold.scale, _FARTHEST).astype(np.float32))
            # A ball of radius 0 has no inside, nor a distance in units of it.
            inverse = torch.where(radii > 0, radii.square().reciprocal(), torch.inf)
            self._norms[c] = torch.from_numpy(centre), points, points.square().sum(dim=1), inverse
        centre, points, norms, inverse = self._norms[c]
        best = np.empty(len(matrix), dtype=np.int64)
        for lo in range(0, len(matrix), 512):
            rows = _as_float32(matrix[lo : lo + 512], centre.numpy(), manifold.scale)
            least = torch.full((len(rows),), torch.inf)
            at = torch.full((len(rows),), int(inverse.argmin()))  # the widest ball, where all are too far for float32
            square = rows.square().sum(dim=1)
            for first in range(0, len(points), 8192):
                part = slice(first, first + 8192)
                d = torch.addmm(norms[part], rows, points[part].T, alpha=-2).add_(square[:, None]).clamp_(min=0)
                d.mul_(inverse[part]).nan_to_num_(nan=torch.inf, posinf=torch.inf)
                value, place = d.min(dim=1)
                nearer = value < least
                at = torch.where(nearer, place + first, at)
                least = torch.minimum(least, value)
            best[lo : lo + 512] = at.numpy()
        out = np.empty(len(matrix))
        for lo in range(0, len(matrix), 512):
            rows = best[lo : lo + 512]
            scaled = matrix[lo : lo + 512] * np.float64(manifold.scale)
            left = np.clip(scaled, -(_FARTHEST**4), _FARTHEST**4)
            difference = left - manifold.reference_[rows].astype(np.float64) * manifold.scale
            out[lo : lo + 512] = np.sqrt(np.square(difference).sum(axis=1)) / (manifold.radii_[rows] * manifold.scale)
        return out


# In units of the reference's size; beyond, the squares of float32 numbers overflow, and all points are equally far.
_FARTHEST = 1e15


def _as_float32(points: np.ndarray, centre: np.ndarray, scale: float) -> torch.Tensor:
    """Return points as float32 numbers about the centre, in units of the reference's own size."""
    centred = points * np.float64(scale) - centre * scale
    return torch.from_numpy(np.clip(centred, -_FARTHEST, _FARTHEST).astype(np.float32))


class _Part(NamedTuple):
    """A part of a reference with its radii, as `Balls._nearest` asks a manifold for them."""

    reference_: np.ndarray
    radii_: np.ndarray
    scale: float


def _nearest_by_blocks(manifold: ReferenceManifold, matrix: np.ndarray | Rows) -> np.ndarray:
    """`Balls.nearest` where reference or samples are in blocks: the smallest of what each block of balls gives."""
    reference = manifold.reference_
    if not isinstance(reference, Rows):
        reference = rows_of(reference, "reference")
    samples = matrix if isinstance(matrix, Rows) else rows_of(matrix, "batch", 8192)
    out = np.full(len(samples), np.inf)
    asked = [
        (left, right, manifold.radii_[right.first : right.first + right.rows], manifold.scale)
        for left, right in itertools.product(samples.blocks, reference.blocks)
    ]
    for (left, *_), found in map_tasks(_nearest_in, asked, "finding the nearest ball"):
        part = slice(left.first, left.first + left.rows)
        out[part] = np.fmin(out[part], found)  # a ball of radius 0 around a sample itself gives 0/0
    return out


def _nearest_in(asked: tuple[Block, Block, np.ndarray, float]) -> np.ndarray:
    left, right, radii, scale = asked
    balls = Balls(1)
    balls.manifolds[None] = _Part(right.values(), radii, scale)
    balls._number()
    with np.errstate(divide="ignore", invalid="ignore"):
        return balls._nearest(None, left.values())


def unions(hits: sparse.csr_array, rows: np.ndarray) -> np.ndarray:
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
