"""VS22 §5.3 on one image set: FGSM and the boundary attack in both modes, mixed into clean batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas

from advlib import models
from advlib.attacks import AdversarialBatch
from advlib.prdc import ReferenceManifold
from compendium.common import boundary, vs22
from compendium.nb08_admixture.mixtures import Mixture, mixture
from compendium.nb08_admixture.power import clean_batches, power_map


@dataclass(frozen=True, eq=False)
class Admixture:
    """§5.3 on one image set.

    Attributes
    ----------
    image_set : vs22.ImageSet
    fgsm, boundary : dict
        Mode's name → Mixture; over ε, and after the boundary attack's last step.
    maps : dict
        Mode's name → attack's name → power map (see `power`): FGSM at some ε, then the boundary attack.
    boundary_counts : dict
        Mode's name → images that were attacked, are adversarial, and were scored.
    boundary_steps, boundary_references : int
        Steps that were taken, and reference images behind the density of `boundary`.
    """

    image_set: vs22.ImageSet
    fgsm: dict[str, Mixture]
    boundary: dict[str, Mixture]
    maps: dict[str, dict[str, pandas.DataFrame]]
    boundary_counts: dict[str, dict[str, int]]
    boundary_steps: int
    boundary_references: int


class _Images:
    """Queries and references of one image set, and the settings of its power maps."""

    def __init__(
        self, chosen: vs22.ImageSet, queries: int, boundary_references: int, shares: Sequence[float],
        sizes: Sequence[int], draws: int, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.shares, self.sizes, self.draws, self.rng = shares, sizes, draws, rng
        self.split = vs22.reference_and_holdout(chosen.name, 0, queries, rng)
        self.order = rng.permutation(len(self.split.reference))
        self.holdout = models.card(chosen.network)["split"]["holdout_size"]
        count = vs22.references_for(chosen, len(self.split.images), len(self.order), self.holdout)
        self.manifold = self.fitted(count)
        self.hits = self.manifold.hits(vs22.flat(self.split.images))
        self.null = clean_batches(self.manifold, self.hits, sizes, rng)
        self.dense_count = len(self.order[: boundary_references or None])
        self.dense = self.manifold if self.dense_count == count else self.fitted(self.dense_count)
        self.network = vs22.network(chosen)

    def fitted(self, count: int) -> ReferenceManifold:
        """Fit balls to the first references in random order."""
        return ReferenceManifold(vs22.K).fit(vs22.flat(self.split.reference[self.order[:count]]))

    def sweep(self, mode: vs22.Mode, epsilons: Sequence[float]) -> Iterator[AdversarialBatch]:
        """Attack all queries by FGSM."""
        return vs22.fgsm_sweep(mode, self.split.image_set, self.network, self.split.images, self.split.labels, epsilons)

    def power(self, rows: np.ndarray, moved: np.ndarray) -> pandas.DataFrame:
        """Map the power against attacked twins of some of the queries."""
        hits = self.manifold.hits(vs22.flat(moved))
        return power_map(self.manifold, self.hits, hits, rows, self.shares, self.sizes, self.null, self.draws, self.rng)

    def table_mixture(self, rows: np.ndarray, moved: np.ndarray, steps: int, *, twins: bool) -> Mixture:
        """Mix attacked twins of some of the queries as Tables 4 and 5 do.

        Coverage depends on the ratio of references to queries, density of moved images on the references alone: Table 5
        gets the ratio of whole model set to whole hold-out, Table 4 the references.
        """
        by_ratio = self.fitted(max(vs22.K + 1, round(len(self.order) * len(rows) / self.holdout)))
        seed = self.rng.integers(2**63)
        coverage, density = (
            mixture(balls, self.split.images[rows], [moved], [steps], np.random.default_rng(seed), twins=twins)
            for balls in (by_ratio, self.dense)
        )
        return replace(coverage, density=density.density, density_error=density.density_error)

    def boundary(
        self, mode: vs22.Mode, count: int, steps: Sequence[int], seed: int
    ) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Attack some of the queries by the boundary attack: rows and images that count, and how many there are."""
        n, split = len(self.split.images), self.split
        tried = np.arange(count) * n // count  # as `vs22.reference_and_holdout` takes a part
        part = replace(split, images=split.images[tried], labels=split.labels[tried], index=split.index[tried])
        state = boundary.attack(mode, part, steps, seed=seed)[-1]
        scored = boundary.scored_rows(mode, state)
        counts = {"attacked": count, "adversarial": int(state.success.sum()), "scored": len(scored)}
        return tried[scored], state.images[scored], counts


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
        References behind the density of boundary images, 0 for the whole model set, which is the paper's.
    shares, batch_sizes, draws
        Of the power maps, as for `power_map`.
    rng, seed
        Of subsets, mixtures and batches, and of the boundary attack.
    """
    images = _Images(chosen, queries, boundary_references, shares, batch_sizes, draws, rng)
    n, clean, last = len(images.split.images), images.split.images, int(boundary_steps[-1])
    found = Admixture(chosen, {}, {}, {}, {}, last, images.dense_count)
    for mode in vs22.MODES:
        twins, title, maps = not mode.normalised_twice, f"{chosen.title}, {mode.name}, FGSM", {}
        sweep = images.sweep(mode, epsilons)
        found.fgsm[mode.name] = mixture(images.manifold, clean, sweep, epsilons, rng, twins=twins, title=title)
        for epsilon, batch in zip(map_epsilons, images.sweep(mode, map_epsilons), strict=True):
            rows = boundary.scored_rows(mode, batch)
            if len(rows):
                maps[f"FGSM, ε = {epsilon:g}"] = images.power(rows, batch.images[rows])
        rows, moved, counts = images.boundary(mode, min(boundary_images or n, n), boundary_steps, seed)
        found.boundary[mode.name] = images.table_mixture(rows, moved, last, twins=twins)
        maps[f"boundary attack, {last} steps"] = images.power(rows, moved)
        found.maps[mode.name], found.boundary_counts[mode.name] = maps, counts
    return found
