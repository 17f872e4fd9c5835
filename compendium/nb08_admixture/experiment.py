"""VS22 §5.3 on one image set: FGSM and the boundary attack in both modes, mixed into clean batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas
from scipy import sparse

from advlib import models
from advlib.prdc import ReferenceManifold
from compendium.common import boundary, vs22
from compendium.common.splits import kept_by_split
from compendium.nb08_admixture.mixtures import Mixture, mixture
from compendium.nb08_admixture.power import clean_batches, power_map


@dataclass(frozen=True, eq=False)
class Admixture:
    """§5.3 on one image set.

    Attributes
    ----------
    image_set : vs22.ImageSet
    fgsm, boundary : dict
        Mode's name → Mixture; over ε, and after the boundary attack's last step. No `boundary` where it was not run.
    maps : dict
        Mode's name → attack's name → power map (see `power`): FGSM at rising ε, then the boundary attack.
    clean : tuple of float
        Density and coverage of untouched queries that are to the references as in the paper's boundary experiment.
    boundary_counts : dict
        Mode's name → images that were attacked, are adversarial, and were scored.
    boundary_steps, boundary_references : int
        Steps that were taken, and reference images behind the density of `boundary`.
    """

    image_set: vs22.ImageSet
    fgsm: dict[str, Mixture]
    maps: dict[str, dict[str, pandas.DataFrame]]
    boundary: dict[str, Mixture] = field(default_factory=dict)
    clean: tuple[float, float] = (1.0, 1.0)
    boundary_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    boundary_steps: int = 0
    boundary_references: int = 0


@dataclass(frozen=True)
class Maps:
    """Settings of the power maps: FGSM's sizes, attacked shares, batch sizes and draws; see `power.power_map`."""

    epsilons: tuple[float, ...]
    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    draws: int


@kept_by_split(4)
def _balls(split: vs22.Split) -> tuple[ReferenceManifold, sparse.csr_array]:
    """Fit the reference's balls, and find those around the queries."""
    manifold = ReferenceManifold(vs22.K).fit(vs22.flat(split.reference))
    return manifold, manifold.hits(vs22.flat(split.images))


@kept_by_split(8)
def _fgsm_balls(
    split: vs22.Split, mode: vs22.Mode, epsilons: tuple[float, ...]
) -> list[tuple[np.ndarray, sparse.csr_array]]:
    """Attack the queries by FGSM, and find for each ε which of them count and the balls around all."""
    manifold, network = _balls(split)[0], vs22.network(split.image_set)
    sweep = vs22.fgsm_sweep(mode, split.image_set, network, split.images, split.labels, epsilons)
    return [(boundary.scored_rows(mode, batch), manifold.hits(vs22.flat(batch.images))) for batch in sweep]


class _Images:
    """Queries and references of one image set."""

    def __init__(self, chosen: vs22.ImageSet, queries: int, maps: Maps, rng: np.random.Generator) -> None:
        self.maps, self.rng = maps, rng
        self.whole = vs22.reference_and_holdout(chosen.name, 0, queries, rng)
        n, available = len(self.whole.images), len(self.whole.reference)
        self.holdout = models.card(chosen.network)["split"]["holdout_size"]
        self.order = rng.permutation(available)
        self.split = self._cut(vs22.references_for(chosen, n, available, self.holdout))
        self.manifold, self.hits = _balls(self.split)
        self.null = clean_batches(self.manifold, self.hits, maps.sizes, rng)

    def _cut(self, count: int) -> vs22.Split:
        """Keep the first references in random order; whole, the set is as it was, so that its balls are fitted once."""
        if count in (0, len(self.order)):
            return self.whole
        kept = np.sort(self.order[:count])
        names = ("reference", "reference_labels", "reference_index")
        return replace(self.whole, **{name: getattr(self.whole, name)[kept] for name in names})

    def power(self, rows: np.ndarray, hits: sparse.csr_array) -> pandas.DataFrame:
        """Map the power against attacked twins of some of the queries, given the balls around them."""
        maps = self.maps
        return power_map(
            self.manifold, self.hits, hits, rows, maps.shares, maps.sizes, self.null, maps.draws, self.rng
        )  # fmt: skip

    def fgsm_maps(self, mode: vs22.Mode) -> dict[str, pandas.DataFrame]:
        """Map the power against FGSM at each ε of the settings that has images to count."""
        sweep = zip(self.maps.epsilons, _fgsm_balls(self.split, mode, self.maps.epsilons), strict=True)
        return {f"FGSM, ε = {eps:g}": self.power(rows, hits[rows]) for eps, (rows, hits) in sweep if len(rows)}


class _Boundary:
    """The boundary attack on some of an image set's queries."""

    def __init__(
        self, images: _Images, count: int, steps: Sequence[int], references: int, seed: int, chunk: int = boundary.CHUNK
    ) -> None:
        self.images, self.steps, self.seed, self.chunk = images, steps, seed, chunk
        n = len(images.whole.images)
        self.tried = np.arange(min(count or n, n)) * n // min(count or n, n)  # as `reference_and_holdout` takes a part
        self.split = images._cut(min(references, len(images.order)))
        self.per_query = len(images.order) / images.holdout

    @cached_property
    def dense(self) -> ReferenceManifold:
        """Balls behind the density."""
        return _balls(self.split)[0]

    def clean(self) -> tuple[float, float]:
        """Score untouched queries in the paper's proportion to the references."""
        queries = vs22.flat(self.split.images[: round(len(self.split.reference) / self.per_query)])
        return tuple(map(float, self.dense.density_coverage(queries)))

    def run(self, mode: vs22.Mode) -> tuple[Mixture, pandas.DataFrame, dict[str, int]]:
        """Attack, mix the attacked twins as Tables 4 and 5 do, and map the power; with the counts of images.

        Coverage depends on the ratio of references to queries, density of moved images on the references alone: Table 5
        gets the ratio of whole model set to whole hold-out, Table 4 the references.
        """
        whole, tried, rng = self.images.whole, self.tried, self.images.rng
        part = replace(whole, images=whole.images[tried], labels=whole.labels[tried], index=whole.index[tried])
        state = boundary.attack(mode, part, self.steps, seed=self.seed, chunk=self.chunk)[-1]
        scored = boundary.scored_rows(mode, state)
        rows, moved, twins = tried[scored], state.images[scored], not mode.normalised_twice
        by_ratio = boundary.manifold_in_proportion(whole.reference, len(rows), self.per_query, rng)
        seed = rng.integers(2**63)
        coverage, density = (
            mixture(balls, whole.images[rows], [moved], [self.steps[-1]], np.random.default_rng(seed), twins=twins)
            for balls in (by_ratio, self.dense)
        )
        counts = {"attacked": len(tried), "adversarial": int(state.success.sum()), "scored": len(scored)}
        mixed = replace(coverage, density=density.density, density_error=density.density_error)
        return mixed, self.images.power(rows, self.images.manifold.hits(vs22.flat(moved))), counts


def experiment(
    chosen: vs22.ImageSet,
    *,
    epsilons: Sequence[float],
    maps: Maps,
    queries: int,
    boundary_images: int,
    boundary_steps: Sequence[int],
    boundary_references: int,
    rng: np.random.Generator,
    seed: int = 0,
) -> Admixture:
    """Run §5.3 on one image set, in both modes.

    Parameters
    ----------
    chosen : vs22.ImageSet
    epsilons : sequence of float
        FGSM sizes of Fig. 4.
    maps : Maps
    queries : int
        Images of the hold-out, 0 for all; references in the paper's proportion.
    boundary_images : int
        Queries for the boundary attack, at even steps; 0 for all.
    boundary_steps : increasing sequence of int
        Of the boundary attack; the last state counts. With notebook 07's images and steps its images are used again.
    boundary_references : int
        References behind the density of boundary images, 0 for the whole model set, which is the paper's.
    rng, seed
        Of subsets, mixtures and batches, and of the boundary attack.
    """
    images = _Images(chosen, queries, maps, rng)
    walk = _Boundary(images, boundary_images, boundary_steps, boundary_references, seed)
    fgsm, mixed, powers, counts, split = {}, {}, {}, {}, images.split
    network = vs22.network(chosen)
    for mode in vs22.MODES:
        name, title = mode.name, f"{chosen.title}, {mode.name}, FGSM"
        sweep = vs22.fgsm_sweep(mode, chosen, network, split.images, split.labels, epsilons)
        twins = not mode.normalised_twice
        fgsm[name] = mixture(images.manifold, images.hits, sweep, epsilons, rng, twins=twins, title=title)
        mixed[name], power, counts[name] = walk.run(mode)
        powers[name] = images.fgsm_maps(mode) | {f"boundary attack, {boundary_steps[-1]} steps": power}
    sizes = int(boundary_steps[-1]), len(walk.split.reference)
    return Admixture(chosen, fgsm, powers, mixed, walk.clean(), counts, *sizes)


@dataclass(frozen=True)
class Walk:
    """Settings of the boundary attack: images (0: all), steps, the attack's seed and `boundary.attack`'s chunk."""

    images: int
    steps: Sequence[int]
    seed: int
    chunk: int


def replicated(
    chosen: vs22.ImageSet,
    *,
    epsilons: Sequence[float],
    maps: Maps,
    queries: int,
    rng: np.random.Generator,
    walk: Walk | None = None,
) -> Admixture:
    """Run what `experiment` does with FGSM and, if asked, with the boundary attack against the whole model set.

    What the seed does not change is kept for the next call.
    """
    images, fgsm, powers = _Images(chosen, queries, maps, rng), {}, {}
    for mode in vs22.MODES:
        attacked = [hits for _, hits in _fgsm_balls(images.split, mode, tuple(epsilons))]
        twins = not mode.normalised_twice
        fgsm[mode.name] = mixture(images.manifold, images.hits, attacked, epsilons, rng, twins=twins)
        powers[mode.name] = images.fgsm_maps(mode)
    if walk is None:
        return Admixture(chosen, fgsm, powers)
    attack = _Boundary(images, walk.images, walk.steps, 0, walk.seed, walk.chunk)
    mixed, counts = {}, {}
    for mode in vs22.MODES:
        mixed[mode.name], power, counts[mode.name] = attack.run(mode)
        powers[mode.name][f"boundary attack, {walk.steps[-1]} steps"] = power
    sizes = int(walk.steps[-1]), len(attack.split.reference)
    return Admixture(chosen, fgsm, powers, mixed, attack.clean(), counts, *sizes)
