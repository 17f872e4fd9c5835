r"""Batches in which only a share of the images is adversarial: VS22 §5.3, Fig. 4, Tables 4 and 5, and their power.

Density is a mean over the images of a batch, so a batch in which a share s of the images was replaced by attacked ones
has, in the mean over which images those are,

.. math:: D(s) = (1 - s) D_0 + s D_1,

with D₀ and D₁ the densities of the untouched and of the attacked batch: a straight line, whatever the attack and the
reference. Coverage counts balls that *anything* hits and has no such line. A table of densities over s therefore holds
two numbers, and each further entry is a check of the table. What the table does not hold is the spread: whether one
batch of m images with a share s is told from clean ones. `power.power_map` asks that.

VS22's stored files draw the two parts of a batch independently of each other, so that an image can be in it twice,
clean and attacked: already at ε = 0, where the two are equal, a batch "with 50 %" holds a quarter of its images twice
and covers fewer balls. *Corrected* replaces images by their attacked twins.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas
from scipy import sparse

from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium.claims import published
from compendium.common import vs22

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Adversarial shares of Fig. 4 and Tables 4 and 5, with the untouched and the attacked batch."""

TABLES = {"density": "Table 4", "coverage": "Table 5"}


def mixed_rows(n: int, share: float, rng: np.random.Generator, *, twins: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Choose which images of a batch are clean and which attacked.

    Parameters
    ----------
    n : int
        Images there are, and in the batch.
    share : float
        Attacked share, 0 to 1; rounded to whole images.
    rng : numpy.random.Generator
    twins : bool
        Whether attacked images replace their own originals, so that every image is there once. Otherwise both parts are
        drawn independently, as in VS22's stored files.

    Returns
    -------
    clean, attacked : int64 arrays
        Rows; together n of them.

    Raises
    ------
    ValueError
        For a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], but is {share}")
    count = round(share * n)
    order = rng.permutation(n)
    return order[count:], order[:count] if twins else rng.permutation(n)[:count]


@dataclass(frozen=True, eq=False)
class Mixture:
    """Density and coverage over the attacked share, for several attacks: a column of Fig. 4 or a row of its tables.

    Attributes
    ----------
    x : (n,) float64
        What the attacks differ in.
    density, coverage : (n, 5) float64
        At each of `SHARES`, the untouched batch first, the batch with every image attacked last.
    n_reference, n_queries : int
    """

    x: np.ndarray = field(repr=False)
    density: np.ndarray = field(repr=False)
    coverage: np.ndarray = field(repr=False)
    n_reference: int
    n_queries: int

    @property
    def line(self) -> np.ndarray:
        """Density expected from the two ends, (n, 5)."""
        shares = np.array(SHARES)
        return (1 - shares) * self.density[0, 0] + shares * self.density[:, -1:]

    def frame(self) -> pandas.DataFrame:
        """One row an attack and share: x, share, density, coverage, line."""
        grid = pandas.MultiIndex.from_product([self.x, SHARES], names=["x", "share"])
        values = {"density": self.density, "coverage": self.coverage, "line": self.line}
        return pandas.DataFrame({name: array.ravel() for name, array in values.items()}, grid).reset_index()


def mixture(
    manifold: ReferenceManifold,
    clean: np.ndarray | sparse.csr_array,
    attacked: Iterable[np.ndarray | sparse.csr_array],
    x: Sequence[float],
    rng: np.random.Generator,
    *,
    twins: bool = True,
) -> Mixture:
    """Mix attacked images into a clean batch in all `SHARES` and score each mixture.

    Parameters
    ----------
    manifold : ReferenceManifold
        Fitted to `vs22.flat` reference images.
    clean : (m, …) array
        Untouched images; or the balls (m, N) that `manifold.hits` found for them.
    attacked : iterable of (m, …) arrays
        Their attacked twins, one set for each entry of `x`; or balls likewise.
    x : sequence of float
        What the sets differ in, such as ε.
    rng : numpy.random.Generator
        Draws which images are attacked, for each share once: the same for every set.
    twins : bool
        As for `mixed_rows`.
    """

    def around(points: np.ndarray | sparse.csr_array) -> sparse.csr_array:
        return points if sparse.issparse(points) else manifold.hits(vs22.flat(points))

    m = clean.shape[0]
    rows = [mixed_rows(m, share, rng, twins=twins) for share in SHARES]
    batches = [np.concatenate([untouched, m + moved]) for untouched, moved in rows]
    before = around(clean)
    found = [
        manifold.subset_density_coverage(sparse.vstack([before, around(points)], format="csr"), batches)
        for points in track(attacked, "mixtures", len(x))
    ]
    density, coverage = np.swapaxes(found, 0, 1)
    return Mixture(np.asarray(x, float), density, coverage, len(manifold.radii_), m)


def printed_shares() -> pandas.DataFrame:
    """Read the attacked share off every density of Table 4, by the straight line that it must lie on.

    The line runs from the printed density at 0 % to where the one at 75 % puts 100 %.

    Returns
    -------
    DataFrame
        One row an image set and stated share: the share by the 75 % entry.
    """
    lines = {}
    for title in ("MNIST", "PathMNIST", "OrganMNIST"):
        printed = {share: published.value("vs22", "Table 4", title, f"share={share:g}") for share in SHARES[:-1]}
        whole = (printed[0.75] - printed[0]) / 0.75
        lines |= {(title, share): round((density - printed[0]) / whole, 3) for share, density in printed.items()}
    return pandas.Series(lines).rename_axis(["image set", "stated share"]).to_frame("by its 75 % entry")
