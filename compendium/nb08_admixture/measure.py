r"""Batches in which only a share of the images is adversarial: VS22 §5.3, Fig. 4, Tables 4 and 5, and their power.

Density is a mean over the images of a batch, so a batch in which a share s of the images was replaced by attacked ones
has, in the mean over which images those are,

.. math:: D(s) = (1 - s) D_0 + s D_1,

with D₀ and D₁ the densities of the untouched and of the attacked batch: a straight line, whatever the attack and the
reference. Coverage counts balls that *anything* hits and has no such line. A table of densities over s therefore holds
two numbers, and each further entry is a check of the table. What the table does not hold is the spread: whether one
batch of m images with a share s is told from clean ones. `power_map` asks that.

VS22's stored files draw the two parts of a batch independently of each other, so that an image can be in it twice,
clean and attacked: already at ε = 0, where the two are equal, a batch "with 50 %" holds a quarter of its images twice
and covers fewer balls. *Corrected* replaces images by their attacked twins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas
from scipy import sparse

from advlib import models
from advlib.attacks import AdversarialBatch
from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from compendium.claims import published
from compendium.common import vs22
from compendium.nb07_boundary_attack import measure

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Adversarial shares of Fig. 4 and Tables 4 and 5, with the untouched and the attacked batch."""

FLAGGED = 0.8
"""Power from which on a batch counts as detected; the usual choice of study designs (Cohen 1988)."""

TABLES = {"density": "Table 4", "coverage": "Table 5"}

CLEAN_BATCHES = 2_000
"""Clean batches of each size that set the threshold. 5 % of a few dozen would be a handful of batches: the rate of
false alarms that such a threshold has is anywhere between 2 and 20 %."""

FALSE_ALARMS = 0.05
"""Rate of false alarms, half of it on either side."""

CLAIMED = 0.25
"""Share from which on VS22's §6 calls batches flagged."""


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
    title : str
    x : (n,) float64
        What the attacks differ in.
    shares : (s,) float64
    density, coverage : (n, s) float64
    clean_density, clean_coverage : float
        Of the untouched batch.
    attacked_density, attacked_coverage : (n,) float64
        Of the batch with every image attacked.
    density_error : float
        Standard error of the untouched batch's density.
    n_reference, n_queries, k : int
    twins : bool
        As for `mixed_rows`.
    """

    title: str
    x: np.ndarray = field(repr=False)
    shares: np.ndarray
    density: np.ndarray = field(repr=False)
    coverage: np.ndarray = field(repr=False)
    clean_density: float
    clean_coverage: float
    attacked_density: np.ndarray = field(repr=False)
    attacked_coverage: np.ndarray = field(repr=False)
    density_error: float
    n_reference: int
    n_queries: int
    k: int
    twins: bool

    @property
    def line(self) -> np.ndarray:
        """Density expected from the two ends, (n, s)."""
        return (1 - self.shares) * self.clean_density + self.shares * self.attacked_density[:, None]

    @property
    def expected_coverage(self) -> np.ndarray:
        """Mean coverage if every image were clean, (s,): below the batch's own where images are drawn twice."""
        distinct = np.ones_like(self.shares) if self.twins else 1 - self.shares * (1 - self.shares)
        return np.array([
            expected_coverage(self.n_reference, max(1, round(part * self.n_queries)), self.k) for part in distinct
        ])  # fmt: skip


def mixture(
    manifold: ReferenceManifold,
    clean: np.ndarray,
    attacked: Iterable[np.ndarray | AdversarialBatch],
    x: Sequence[float],
    shares: Sequence[float],
    rng: np.random.Generator,
    *,
    twins: bool = True,
    title: str = "",
) -> Mixture:
    """Mix attacked images into a clean batch in several shares and score each mixture.

    Parameters
    ----------
    manifold : ReferenceManifold
        Fitted to `advlib.vs22.flat` reference images.
    clean : (m, …) array
        Untouched images.
    attacked : iterable of (m, …) arrays or AdversarialBatch
        Their attacked twins, one set for each entry of `x`.
    x : sequence of float
        What the sets differ in, such as ε.
    shares : sequence of float
        Attacked shares, 0 to 1.
    rng : numpy.random.Generator
        Draws which images are attacked, for each share once: the same for every set.
    twins : bool
        As for `mixed_rows`.
    title : str
    """
    m = len(clean)
    rows = [mixed_rows(m, share, rng, twins=twins) for share in shares]
    batches = [np.concatenate([untouched, m + moved]) for untouched, moved in rows]
    batches += [np.arange(m), m + np.arange(m)]
    clean_hits = manifold.hits(vs22.flat(clean))
    counts = np.diff(clean_hits.indptr) / manifold.k
    density, coverage = [], []
    for images in track(attacked, title or "mixtures", len(x)):
        hits = manifold.hits(vs22.flat(images.images if isinstance(images, AdversarialBatch) else images))
        both = sparse.vstack([clean_hits, hits], format="csr")
        found = manifold.subset_density_coverage(both, batches)
        density.append(found[0])
        coverage.append(found[1])
    d, c = np.array(density), np.array(coverage)
    return Mixture(
        title, np.asarray(x, float), np.asarray(shares, float), d[:, :-2], c[:, :-2], float(d[0, -2]),
        float(c[0, -2]), d[:, -1], c[:, -1], float(counts.std(ddof=1) / np.sqrt(m)), len(manifold.radii_), m,
        manifold.k, twins,
    )  # fmt: skip


# ---------------------------------------------------------------- power


@dataclass(frozen=True, eq=False)
class PowerMap:
    """How often a batch is flagged at 5 % false alarms, over the attacked share and the batch size.

    Attributes
    ----------
    title : str
        The attack.
    shares : (s,) float64
        0 first: there, power is the rate of false alarms that was reached.
    sizes : (b,) int64
        Images a batch.
    power : dict
        "density" and "coverage" → (s, b) float64; NaN where there were not enough attacked images.
    """

    title: str
    shares: np.ndarray
    sizes: np.ndarray
    power: dict[str, np.ndarray] = field(repr=False)

    def column(self, statistic: str, size: int) -> np.ndarray:
        """Return the power at one batch size, (s,)."""
        return self.power[statistic][:, list(self.sizes).index(size)]

    def smallest_share(self, statistic: str, size: int, level: float = FLAGGED) -> float | None:
        """Return the smallest share from which on power stays at `level` or above, None if there is none."""
        column = self.column(statistic, size)
        good = np.where(np.isnan(column), True, column >= level)
        known = ~np.isnan(column) & (self.shares > 0)
        for i in np.flatnonzero(known):
            if good[i:].all():
                return float(self.shares[i])
        return None


def outside(null: np.ndarray, suspect: np.ndarray, rate: float = FALSE_ALARMS) -> float:
    """Share of `suspect` (n,) below or above all but the rate's half of `null` (m,) on either side.

    Tails of equal *rate*, not of equal distance from the median: density of clean batches has a long tail upwards,
    behind which a batch of density 0 would be within the distance that 5 % of the clean ones have.
    """
    ordered = np.sort(null)
    allowed = int(np.floor(rate / 2 * len(ordered)))
    return float(np.mean((suspect < ordered[allowed]) | (suspect > ordered[len(ordered) - 1 - allowed])))


def clean_batches(
    manifold: ReferenceManifold,
    clean_hits: sparse.csr_array,
    sizes: Sequence[int],
    rng: np.random.Generator,
    draws: int = CLEAN_BATCHES,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Draw clean batches of each size: density and coverage, (draws,) each; sizes above the images there are left out.

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
    draws: int,
    rng: np.random.Generator,
    *,
    null: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None,
    title: str = "",
) -> PowerMap:
    """Draw batches of each size and share, and count how many lie beyond what 95 % of the clean ones keep to.

    The test is two-sided with equal tails, see `outside`.

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
        Images a batch, at most M.
    draws : int
        Batches of each share and size, at least 20.
    rng : numpy.random.Generator
    null : mapping, optional
        From `clean_batches`, which every attack on the same images can share; drawn here if not given.
    title : str

    Raises
    ------
    ValueError
        For too few draws: 5 % of fewer than 20 batches is none.
    """
    if draws < 20:
        raise ValueError(f"draws must be at least 20, so that 5 % of them are a batch, but is {draws}")
    null = clean_batches(manifold, clean_hits, sizes, rng) if null is None else null
    m, available = clean_hits.shape[0], attacked_hits.shape[0]
    both = sparse.vstack([clean_hits, attacked_hits], format="csr")
    power = {statistic: np.full((len(shares), len(sizes)), np.nan) for statistic in TABLES}
    for b, size in enumerate(sizes):
        if size > m:
            continue
        for s, share in enumerate(shares):
            count = max(1, round(share * size)) if share else 0
            if count > available:
                continue
            batches = []
            for _ in range(draws):
                moved = rng.permutation(available)[:count]
                untouched = np.setdiff1d(np.arange(m), attacked_rows[moved])
                batches.append(np.concatenate([rng.permutation(untouched)[: size - count], m + moved]))
            for statistic, clean, suspect in zip(
                TABLES, null[size], manifold.subset_density_coverage(both, batches), strict=True
            ):
                power[statistic][s, b] = outside(clean, suspect)
    return PowerMap(title, np.asarray(shares, float), np.asarray(sizes), power)


# ---------------------------------------------------------------- §5.3


@dataclass(frozen=True, eq=False)
class Admixture:
    """§5.3 on one image set.

    Attributes
    ----------
    image_set : vs22.ImageSet
    fgsm, boundary : dict
        Mode's name → Mixture; over ε, and after the boundary attack's last step.
    maps : dict
        Mode's name → list of PowerMap: FGSM at some ε, then the boundary attack.
    boundary_counts : dict
        Mode's name → images that were attacked, are adversarial, and were scored.
    boundary_steps, boundary_references : int
        Steps that were taken, and reference images behind the density of `boundary`.
    """

    image_set: vs22.ImageSet
    fgsm: dict[str, Mixture]
    boundary: dict[str, Mixture]
    maps: dict[str, list[PowerMap]]
    boundary_counts: dict[str, dict[str, int]]
    boundary_steps: int
    boundary_references: int


def experiment(
    chosen: vs22.ImageSet,
    *,
    epsilons: Sequence[float],
    map_epsilons: Sequence[float],
    queries: int,
    boundary_images: int,
    boundary_steps: Sequence[int],
    boundary_references: int,
    shares: Sequence[float],
    batch_sizes: Sequence[int],
    draws: int,
    rng: np.random.Generator,
    seed: int = 0,
    k: int = vs22.K,
) -> Admixture:
    """Run §5.3 on one image set, in both modes.

    Parameters
    ----------
    chosen : vs22.ImageSet
    epsilons, map_epsilons : sequence of float
        FGSM sizes of Fig. 4, and of the power maps.
    queries : int
        Images of the hold-out, 0 for all; references in the paper's proportion.
    boundary_images : int
        Queries for the boundary attack, at even steps; 0 for all.
    boundary_steps : increasing sequence of int
        Of the boundary attack; the last state counts. With notebook 07's images and steps its images are used again.
    boundary_references : int
        References behind the density of boundary images, 0 for the whole model set, which is the paper's: the density
        of moved images depends on how dense the reference is.
    shares, batch_sizes, draws
        Of the power maps, as for `power_map`.
    rng : numpy.random.Generator
        Subsets, mixtures and batches.
    seed : int
        Of the boundary attack.
    k : int
        Neighbour that sets a ball's radius.
    """
    split = vs22.reference_and_holdout(chosen.name, 0, queries, rng)
    order = rng.permutation(len(split.reference))
    holdout = models.card(chosen.network)["split"]["holdout_size"]
    n = len(split.images)
    fgsm_reference = order[: vs22.references_for(chosen, n, len(order), holdout)]
    manifold = ReferenceManifold(k).fit(vs22.flat(split.reference[fgsm_reference]))
    clean_hits = manifold.hits(vs22.flat(split.images))
    null = clean_batches(manifold, clean_hits, batch_sizes, rng)

    dense_reference = order[: boundary_references or None]
    dense = (
        manifold
        if np.array_equal(dense_reference, fgsm_reference)
        else ReferenceManifold(k).fit(vs22.flat(split.reference[dense_reference]))
    )
    few, last_step = min(boundary_images or n, n), int(boundary_steps[-1])
    tried = np.arange(few) * n // few  # as `vs22.reference_and_holdout` takes a part
    attacked_split = replace(split, images=split.images[tried], labels=split.labels[tried], index=split.index[tried])
    model = vs22.network(chosen)
    fgsm, boundary, maps, counts = {}, {}, {}, {}
    for mode in vs22.MODES:
        twins, title = not mode.normalised_twice, f"{chosen.title}, {mode.name}"
        sweep = vs22.fgsm_sweep(mode, chosen, model, split.images, split.labels, epsilons)
        fgsm[mode.name] = mixture(
            manifold, split.images, sweep, epsilons, SHARES, rng, twins=twins, title=f"{title}, FGSM"
        )
        maps[mode.name] = []
        for epsilon, batch in zip(
            map_epsilons,
            vs22.fgsm_sweep(mode, chosen, model, split.images, split.labels, map_epsilons),
            strict=True,
        ):
            # As published every image is scored; otherwise only adversarial examples, and what is not stays clean.
            rows = np.arange(n) if mode.normalised_twice else np.flatnonzero(batch.success)
            if len(rows):
                hits = manifold.hits(vs22.flat(batch.images[rows]))
                maps[mode.name].append(
                    power_map(
                        manifold,
                        clean_hits,
                        hits,
                        rows,
                        shares,
                        batch_sizes,
                        draws,
                        rng,
                        null=null,
                        title=f"FGSM, ε = {epsilon:g}",
                    )
                )
        state = measure.attack(mode, attacked_split, boundary_steps, seed=seed)[-1]
        scored = np.arange(few) if mode.normalised_twice else np.flatnonzero(state.success)
        rows, images = tried[scored], state.images[scored]
        counts[mode.name] = {"attacked": few, "adversarial": int(state.success.sum()), "scored": len(rows)}
        # Coverage depends on the ratio of references to queries, density of moved images on the references alone:
        # Table 5 gets the ratio of whole model set to whole hold-out, Table 4 the references.
        table_reference = order[: max(k + 1, round(len(order) * len(rows) / holdout))]
        table_manifold = ReferenceManifold(k).fit(vs22.flat(split.reference[table_reference]))
        seeds = rng.integers(2**63)
        by_ratio, by_reference = (
            mixture(
                balls, split.images[rows], [images], [last_step], SHARES, np.random.default_rng(seeds), twins=twins,
                title=f"{title}, boundary attack",
            )
            for balls in (table_manifold, dense)
        )  # fmt: skip
        boundary[mode.name] = replace(
            by_ratio,
            density=by_reference.density,
            clean_density=by_reference.clean_density,
            attacked_density=by_reference.attacked_density,
            density_error=by_reference.density_error,
        )
        maps[mode.name].append(
            power_map(
                manifold, clean_hits, manifold.hits(vs22.flat(images)), rows, shares, batch_sizes, draws,
                rng, null=null, title=f"boundary attack, {last_step} steps",
            )
        )  # fmt: skip
    return Admixture(chosen, fgsm, boundary, maps, counts, last_step, len(dense_reference))


def printed_shares() -> pandas.DataFrame:
    """Read the attacked share off every density of Table 4, by the straight line that it must lie on.

    The line runs from the printed density at 0 % to where the one at 75 % puts 100 %, and for PathMNIST also to the
    density of its attacked batch in §5.2.

    Returns
    -------
    DataFrame
        One row an image set and stated share: printed density, share by the 75 % entry, share by §5.2's value where
        it prints one.
    """
    lines = []
    for title in ("MNIST", "PathMNIST", "OrganMNIST"):
        printed = {s: published.value("vs22", "Table 4", title, f"share={s:g}") for s in SHARES[:-1]}
        ends = {"by its 75 % entry": printed[0] + (printed[0.75] - printed[0]) / 0.75}
        if title == "PathMNIST":
            ends["by §5.2"] = published.value("vs22", "§5.2", title, "adversarial density")
        for s, density in printed.items():
            row = {"image set": title, "stated share": s, "printed density": density}
            row |= {name: round((density - printed[0]) / (end - printed[0]), 3) for name, end in ends.items()}
            lines.append(row)
    return pandas.DataFrame(lines).set_index(["image set", "stated share"]).astype(object).fillna("")


def detectable(results: Sequence[Admixture], mode: vs22.Mode = vs22.CORRECTED) -> pandas.DataFrame:
    """Show from which share on a batch is detected, for each attack, statistic and batch size.

    Returns
    -------
    DataFrame
        Entries are shares, or "never"; "> 10%" where no larger share could be drawn for want of attacked images, "–"
        where none could.
    """

    def word(found: PowerMap, statistic: str, size: int) -> str:
        share = found.smallest_share(statistic, size)
        if share is not None:
            return f"{share:.0%}"
        drawn = found.shares[~np.isnan(found.column(statistic, size)) & (found.shares > 0)]
        if not len(drawn):
            return "–"
        return "never" if drawn.max() == found.shares.max() else f"> {drawn.max():.0%}"

    lines = []
    for result in results:
        for found in result.maps[mode.name]:
            for statistic in TABLES:
                lines.append(
                    {"image set": result.image_set.title, "attack": found.title, "statistic": statistic}
                    | {f"m = {size}": word(found, statistic, size) for size in found.sizes}
                )
    return pandas.DataFrame(lines).set_index(["image set", "attack", "statistic"])


def worst_share(results: Sequence[Admixture], mode: vs22.Mode) -> tuple[list[str], float]:
    """Return which attacks are missed at a share of 25 % in the largest batches, and the least power there."""
    missed, powers = [], []
    for result in results:
        for found in result.maps[mode.name]:
            at = int(np.argmin(np.abs(found.shares - CLAIMED)))
            pair = []
            for statistic in TABLES:
                row = found.power[statistic][at]
                known = row[~np.isnan(row)]
                if len(known):
                    pair.append(float(known[-1]))
            if pair:
                powers.append(max(pair))
                if max(pair) < FLAGGED:
                    missed.append(f"{result.image_set.title} {found.title}")
    return missed, min(powers)
