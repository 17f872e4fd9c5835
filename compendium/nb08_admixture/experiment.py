"""VS22 §5.3 on one image set: FGSM and the boundary attack in both modes, mixed into clean batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas
from scipy import sparse

from advlib import models
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium.common import boundary, vs22
from compendium.common.splits import evenly, kept_by_split
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
    boundary_steps : int
        Steps that were taken.
    """

    image_set: vs22.ImageSet
    fgsm: dict[str, Mixture]
    maps: dict[str, dict[str, pandas.DataFrame]]
    boundary: dict[str, Mixture] = field(default_factory=dict)
    clean: tuple[float, float] = (1.0, 1.0)
    boundary_steps: int = 0


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
    sweep = track(sweep, f"{split.image_set.title}, {mode.name}, FGSM", len(epsilons))
    return [(boundary.scored_rows(mode, batch), manifold.hits(vs22.flat(batch.images))) for batch in sweep]


class _Images:
    """Queries and references of one image set."""

    def __init__(self, chosen: vs22.ImageSet, queries: int, maps: Maps, rng: np.random.Generator) -> None:
        self.maps, self.rng = maps, rng
        self.whole = vs22.reference_and_holdout(chosen.name, 0, queries, rng)
        n, available = len(self.whole.images), len(self.whole.reference)
        holdout = models.card(chosen.network)["split"]["holdout_size"]
        self.per_query = available / holdout
        self.order = rng.permutation(available)
        self.split = self.cut(vs22.references_for(chosen, n, available, holdout))
        self.manifold, self.hits = _balls(self.split)
        self.null = clean_batches(self.manifold, self.hits, maps.sizes, rng)

    def cut(self, count: int) -> vs22.Split:
        """Keep the first references in random order; whole, the set is as it was, so that its balls are fitted once."""
        if count == 0 or count >= len(self.order):
            return self.whole
        kept = np.sort(self.order[:count])
        names = ("reference", "reference_labels", "reference_index")
        return replace(self.whole, **{name: getattr(self.whole, name)[kept] for name in names})

    def fgsm(self, mode: vs22.Mode, epsilons: Sequence[float]) -> Mixture:
        """Mix what FGSM makes of the queries at each ε into them."""
        attacked = [hits for _, hits in _fgsm_balls(self.split, mode, tuple(epsilons))]
        return mixture(self.manifold, self.hits, attacked, epsilons, self.rng, twins=not mode.normalised_twice)

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


def _walk(
    images: _Images, mode: vs22.Mode, dense: ReferenceManifold, count: int, steps: Sequence[int], seed: int
) -> tuple[Mixture, pandas.DataFrame]:
    """Attack some queries by the boundary attack, mix their twins as Tables 4 and 5 do, and map the power.

    Coverage depends on the ratio of references to queries, density of moved images on the references alone: Table 5
    gets the ratio of whole model set to whole hold-out, Table 4 the references, `dense`.
    """
    whole, rng, n = images.whole, images.rng, len(images.whole.images)
    tried = evenly(n, min(count or n, n))  # as `reference_and_holdout` takes a part
    part = replace(whole, images=whole.images[tried], labels=whole.labels[tried], index=whole.index[tried])
    state = boundary.attack(mode, part, steps, seed=seed)[-1]
    scored = boundary.scored_rows(mode, state)
    rows, moved, twins = tried[scored], state.images[scored], not mode.normalised_twice
    by_ratio = boundary.manifold_in_proportion(whole.reference, len(rows), images.per_query, rng)
    drawn = rng.integers(2**63)
    coverage, density = (
        mixture(balls, whole.images[rows], [moved], [steps[-1]], np.random.default_rng(drawn), twins=twins)
        for balls in (by_ratio, dense)
    )
    mixed = replace(coverage, density=density.density)
    return mixed, images.power(rows, images.manifold.hits(vs22.flat(moved)))


def experiment(
    chosen: vs22.ImageSet,
    *,
    epsilons: Sequence[float],
    maps: Maps,
    queries: int,
    rng: np.random.Generator,
    boundary_images: int = 0,
    boundary_steps: Sequence[int] = (),
    boundary_references: int = 0,
    seed: int = 0,
    boundary_last: bool = False,
) -> Admixture:
    """Run §5.3 on one image set, in both modes; FGSM on the same images is kept for the next call.

    Parameters
    ----------
    chosen : vs22.ImageSet
    epsilons : sequence of float
        FGSM sizes of Fig. 4.
    maps : Maps
    queries : int
        Images of the hold-out, 0 for all; references in the paper's proportion.
    rng : numpy.random.Generator
        Of subsets, mixtures and batches.
    boundary_images : int
        Queries for the boundary attack, at even steps; 0 for all.
    boundary_steps : increasing sequence of int
        Of the boundary attack, which is left out without any; the last state counts. With notebook 07's images and
        steps its images are used again.
    boundary_references : int
        References behind the density of boundary images, 0 for the whole model set, which is the paper's.
    seed : int
        Of the boundary attack, see `boundary.attack`.
    boundary_last : bool
        Whether `rng` draws for it after FGSM in both modes, as in the stored repetitions, or mode by mode.
    """
    images = _Images(chosen, queries, maps, rng)
    found = Admixture(chosen, {}, {}, {}, boundary_steps=int(boundary_steps[-1]) if boundary_steps else 0)
    dense = _balls(images.cut(boundary_references))[0] if boundary_steps else None
    walked: dict[str, pandas.DataFrame] = {}

    def walk(mode: vs22.Mode) -> None:
        found.boundary[mode.name], walked[mode.name] = _walk(images, mode, dense, boundary_images, boundary_steps, seed)

    for mode in vs22.MODES:
        found.fgsm[mode.name] = images.fgsm(mode, epsilons)
        if boundary_steps and not boundary_last:
            walk(mode)
        found.maps[mode.name] = images.fgsm_maps(mode)
    for mode in vs22.MODES if boundary_steps and boundary_last else ():
        walk(mode)
    for name, power in walked.items():
        found.maps[name][f"boundary attack, {found.boundary_steps} steps"] = power
    if dense is None:
        return found
    clean = images.whole.images[: round(len(dense.radii_) / images.per_query)]  # in the paper's proportion
    return replace(found, clean=tuple(map(float, dense.density_coverage(vs22.flat(clean)))))
