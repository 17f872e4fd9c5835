"""How often a batch with a share of adversarial images is told from clean ones (VS22 §5.3, §6).

A power map is a DataFrame: a row a share of attacked images, a column a statistic ("density", "coverage") and number of
images in the batch; entries are the rates at which such batches are flagged at 5 % false alarms, NaN where there were
not enough attacked images.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas
from scipy import sparse

from advlib.prdc import ReferenceManifold
from compendium.common.curves import sub_batches
from compendium.common.protocol import power
from compendium.nb08_admixture.mixtures import TABLES

FLAGGED = 0.8
"""Power from which on a batch counts as detected; the usual choice of study designs (Cohen 1988)."""

CLEAN_BATCHES = 2_000
"""Clean batches of each size that set the threshold. 5 % of a few dozen would be a handful of batches: the rate of
false alarms that such a threshold has is anywhere between 2 and 20 %."""

CLAIMED = 0.25
"""Share from which on VS22's §6 calls batches flagged."""


def clean_batches(
    manifold: ReferenceManifold,
    clean_hits: sparse.csr_array,
    sizes: Sequence[int],
    rng: np.random.Generator,
    draws: int = CLEAN_BATCHES,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Draw clean batches of each size: density and coverage, (draws,) each; none for sizes above the images there are.

    Parameters
    ----------
    manifold : ReferenceManifold
    clean_hits : (M, N) sparse array
        `manifold.hits` of the clean images.
    sizes : sequence of int
    rng : numpy.random.Generator
    draws : int
    """
    m = clean_hits.shape[0]
    return {
        size: manifold.subset_density_coverage(clean_hits, [rng.permutation(m)[:size] for _ in range(draws)])
        for size in sizes
        if size <= m
    }


def power_map(
    manifold: ReferenceManifold,
    clean_hits: sparse.csr_array,
    attacked_hits: sparse.csr_array,
    attacked_rows: np.ndarray,
    shares: Sequence[float],
    sizes: Sequence[int],
    null: Mapping[int, tuple[np.ndarray, np.ndarray]],
    draws: int,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """Draw batches of each size and share, and measure the two-sided `power` against each.

    Attacked images are split at random into parts that share none, again and again until there are as many as draws: a
    power is that of batches of these images, and no more certain than the number of parts in one split makes it.

    Parameters
    ----------
    manifold : ReferenceManifold
    clean_hits, attacked_hits : (M, N), (A, N) sparse arrays
        `manifold.hits` of clean and of attacked images.
    attacked_rows : (A,) int array
        Which clean image each attacked one was made from; an image is never in a batch both clean and attacked.
    shares : sequence of float
        Attacked shares, 0 to 1; at least one image where above 0.
    sizes : sequence of int
        Images a batch.
    null : mapping
        From `clean_batches` with these sizes; shared by every attack on the same images.
    draws : int
        Batches of each share and size, at least 20.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        For too few draws: 5 % of fewer than 20 batches is none.
    """
    if draws < 20:
        raise ValueError(f"draws must be at least 20, so that 5 % of them are a batch, but is {draws}")
    m, available = clean_hits.shape[0], attacked_hits.shape[0]
    both = sparse.vstack([clean_hits, attacked_hits], format="csr")
    columns = pandas.MultiIndex.from_product([TABLES, sizes], names=["statistic", "size"])
    found = pandas.DataFrame(np.nan, pandas.Index(shares, name="share", dtype=float), columns)
    for size, share in itertools.product(null, shares):
        count = max(1, round(share * size)) if share else 0
        if count > available:
            continue
        parts = sub_batches(available, count, rng, draws)[:draws] if count else np.empty((draws, 0), np.int64)
        batches = []
        for moved in parts:
            free = np.ones(m, dtype=bool)
            free[attacked_rows[moved]] = False
            untouched = np.flatnonzero(free)
            batches.append(np.concatenate([rng.permutation(untouched)[: size - count], m + moved]))
        scores = manifold.subset_density_coverage(both, batches)
        for statistic, expected, suspect in zip(TABLES, null[size], scores, strict=True):
            found.loc[share, (statistic, size)] = power(expected, suspect, "two-sided")
    return found


def smallest_share(power: pandas.Series, level: float = FLAGGED) -> float | None:
    """Return the smallest share from which on power stays at `level` or above, None if there is none.

    Parameters
    ----------
    power : pandas.Series
        A column of a power map; where it is NaN, nothing is known that speaks against.
    level : float
    """
    stays = np.logical_and.accumulate(power.fillna(1).to_numpy()[::-1] >= level)[::-1]
    found = power[stays & power.notna() & (power.index > 0)]
    return float(found.index[0]) if len(found) else None


def by_the_better(power: pandas.DataFrame) -> pandas.DataFrame:
    """Power by density or by coverage, whichever is higher: share × size."""
    return np.maximum(power["density"], power["coverage"])


def nearest_share(power: pandas.DataFrame, share: float = CLAIMED) -> float:
    """Return the share of a power map's rows that is nearest to one that is asked about."""
    return float(power.index[np.argmin(np.abs(power.index - share))])
