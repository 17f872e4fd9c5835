"""Changes without an aim, measured, as a null hypothesis of many parts; exact p-values over all parts that fit.

A *cell* is a family of changes at one size. Given the cell, a batch and the calibration images changed alike are
exchangeable, so that permutations give an exact p-value. Which cell it is, if any, is not known: it is a nuisance, and
is treated as Berger and Boos do [1]_. Cells whose size and spectrum (`score.signature`) the batch contradicts at level
β, by the T² of its mean (`HotellingTest`), are set aside; p is the largest over the others, plus β. So the level holds
for each cell, and power is not lost to changes that the batch does not look like.

References
----------
.. [1] R. L. Berger and D. D. Boos, "P values maximized over a confidence set for the nuisance parameter", J. Am. Stat.
   Assoc. 89 (1994) 1012-1016, doi:10.1080/01621459.1994.10476836.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from sklearn.covariance import LedoitWolf

BETA = 0.01
"""Level at which a cell is set aside; added to the p-value."""

NEAREST = 3
"""Cells that are never set aside: those that the batch looks most like."""

_CHUNK = 40  # batches at a time; bounds the memory


class Ranked(NamedTuple):
    """p-values of B batches over C cells.

    Attributes
    ----------
    p : (B,) float64 array
        Of the hypothesis that one of the cells holds.
    each : (B, C) float64 array
        Of each cell.
    fits : (B, C) bool array
        Whether a cell was not set aside.
    contradicted : (B, C) bool array
        Whether size and spectrum contradict a cell at level β.
    apart : (B, C) float32 array
        How far the means of size and spectrum are from those of the cell: T², up to a factor of the batch size.
    """

    p: np.ndarray
    each: np.ndarray
    fits: np.ndarray
    contradicted: np.ndarray
    apart: np.ndarray

    def among(self, kept: np.ndarray) -> "Ranked":
        """Return what some cells (C,) bool alone say."""
        return _largest(self.each[:, kept], self.contradicted[:, kept], self.apart[:, kept])


def _largest(each: np.ndarray, contradicted: np.ndarray, apart: np.ndarray) -> Ranked:
    fits = ~contradicted
    np.put_along_axis(fits, apart.argsort(axis=1)[:, :NEAREST], True, axis=1)
    return Ranked(np.minimum(1, np.where(fits, each, 0).max(axis=1) + BETA), each, fits, contradicted, apart)


@dataclass(frozen=True, eq=False)
class Bank:
    """Calibration images in each cell.

    Attributes
    ----------
    cells : tuple of (str, float)
        Family and size; ("nothing", 0) are the images as they are.
    scores : (C, n) float64 tensor
    signatures : (C, n, q) float64 tensor
    """

    cells: tuple[tuple[str, float], ...]
    scores: torch.Tensor
    signatures: torch.Tensor

    @cached_property
    def whitening(self) -> torch.Tensor:
        """What brings signatures to unit covariance within the cells, (q, q); all cells together say what that is."""
        rows = (self.signatures - self.signatures.mean(1, keepdim=True)).flatten(0, 1).cpu().numpy()
        spread = np.maximum(rows.std(axis=0), 1e-4)
        covariance = LedoitWolf(assume_centered=True).fit(rows / spread).covariance_
        # Where no cell moves at all, each direction counts as it is.
        root = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(spread)))
        return torch.from_numpy(np.linalg.solve(root, np.diag(1 / spread)).T).to(self.signatures)

    def of(self, left_out: Sequence[str]) -> np.ndarray:
        """Return which cells (C,) are not of these families."""
        return np.array([family not in left_out for family, _ in self.cells])

    def p_values(self, scores: torch.Tensor, signatures: torch.Tensor, draws: int, rng: np.random.Generator) -> Ranked:
        """Rank batches among the calibration images of each cell, permuted with theirs.

        Parameters
        ----------
        scores : (B, m) tensor
        signatures : (B, m, q) tensor
        draws : int
            Permutations; a single image is ranked among all n instead.
        rng : numpy.random.Generator
            All batches and cells share the permutations, each p-value is exact by itself.
        """
        device, (n, m) = self.scores.device, (self.scores.shape[1], scores.shape[1])
        mine, theirs = _memberships(n, m, draws, rng, device)
        known = self.signatures @ self.whitening
        parts = []
        for rows in torch.arange(len(scores)).split(_CHUNK):
            s, g = scores[rows].to(device).double(), signatures[rows].to(device).double() @ self.whitening
            drawn = (theirs @ self.scores.T)[:, :, None] + (mine @ s.T)[:, None, :]  # (draws, C, B)
            each = (1 + (drawn >= s.sum(1) - 1e-9).sum(0)) / (1 + len(drawn))
            unlike, own = 0.0, 0.0
            for j in range(g.shape[2]):
                total = (known[:, :, j].sum(1)[:, None] + g[:, :, j].sum(1)) / n
                inside = (theirs @ known[:, :, j].T)[:, :, None] + (mine @ g[:, :, j].T)[:, None, :]
                unlike = unlike + (inside / m * (1 + m / n) - total).float().square()
                own = own + (g[:, :, j].mean(1) * (1 + m / n) - total).float().square()
            contradicted = (1 + (unlike >= own * (1 - 1e-5) - 1e-5).sum(0)) / (1 + len(unlike)) <= BETA
            parts.append((each.T.cpu(), contradicted.T.cpu(), own.T.cpu()))
        return _largest(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


def _memberships(
    n: int, m: int, draws: int, rng: np.random.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw which of m + n images make up a permuted batch: (draws, m) and (draws, n) of 0 and 1, float64."""
    if m == 1:
        return torch.zeros(n, 1, dtype=torch.float64, device=device), torch.eye(n, dtype=torch.float64, device=device)
    chosen = np.zeros((draws, m + n))
    order = rng.random((draws, m + n)).argpartition(m, axis=1)[:, :m]
    np.put_along_axis(chosen, order, 1.0, axis=1)
    both = torch.from_numpy(chosen).to(device)
    return both[:, :m], both[:, m:]
