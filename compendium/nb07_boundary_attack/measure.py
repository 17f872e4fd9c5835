"""VS22 §5.2: density and coverage of batches under the boundary attack, in both modes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from advlib import attacks, models
from advlib.prdc import ReferenceManifold
from compendium.common import boundary, vs22

CLEAN = 800
"""Untouched images of the hold-out behind the clean curves over batch sizes."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One image set under the boundary attack in one of the modes.

    Attributes
    ----------
    image_set : vs22.ImageSet
    mode : vs22.Mode
    counts : dict
        Of images: attacked, misread before, without a start, adversarial, scored.
    steps : tuple of int
    l2 : (n,) float64
        Median distance of the attacked images from the originals after each of `steps`, in pixels of [0, 1].
    by_steps : vs22.Curve
        Density and coverage over the steps; `clean` are the scored images before the attack.
    clean, attacked : dict
        Batch size → vs22.Score in sub-batches of that size: of `CLEAN` untouched images of the hold-out, and of the
        attacked ones after the last step.
    noise : vs22.Score or None
        Of Gaussian noise as far from each image, in L2, as the attack went, in the largest sub-batches.
    examples : (3, c, h, w) float32
        The scored image of median distance: before, at the start and after the last step.
    """

    image_set: vs22.ImageSet
    mode: vs22.Mode
    counts: dict[str, int]
    steps: tuple[int, ...]
    l2: np.ndarray = field(repr=False)
    by_steps: vs22.Curve = field(repr=False)
    clean: dict[int, vs22.Score] = field(repr=False)
    attacked: dict[int, vs22.Score] = field(repr=False)
    noise: vs22.Score | None = field(repr=False)
    examples: np.ndarray = field(repr=False)

    @property
    def title(self) -> str:
        """Name of the image set."""
        return self.image_set.title

    def medians(self, statistic: str, which: str = "attacked") -> np.ndarray:
        """Median of "density" or "coverage" over the "attacked" or "clean" sub-batches, one entry a batch size."""
        scores = getattr(self, which).values()
        return np.array([np.median(getattr(score, f"batch_{statistic}")) for score in scores])


def outcome(
    mode: vs22.Mode,
    split: vs22.Split,
    manifold: ReferenceManifold,
    clean_scores: Mapping[int, vs22.Score],
    steps: Sequence[int],
    rng: np.random.Generator,
    seed: int = 0,
) -> Outcome:
    """Attack a split's queries and score them.

    *As published* scores all images, those that were misread before or found no start included, as they are.
    *Corrected* scores adversarial examples only, and beside them the same images before the attack.

    Parameters
    ----------
    mode, split
        As for `boundary.attack`.
    manifold : ReferenceManifold
        Fitted to the split's reference.
    clean_scores : mapping
        Images a sub-batch → score of untouched images; sizes above the number of scored images are left out.
    steps : increasing sequence of int
    rng : numpy.random.Generator
        Draws sub-batches and noise.
    seed : int
        Of the attack.

    Raises
    ------
    ValueError
        If no batch size is left.
    """
    states = boundary.attack(mode, split, steps, seed=seed)
    last, moved = states[-1], states[-1].l2 > 0
    rows = boundary.scored_rows(mode, last)
    clean = {size: score for size, score in clean_scores.items() if size <= len(rows)}
    if not clean:
        raise ValueError(f"a batch size must be at most {len(rows)}, the scored images, but they are {[*clean_scores]}")
    before = split.images[rows]
    batches = {size: vs22.sub_batches(len(rows), size, rng) for size in clean}
    largest = list(batches.values())[-1]
    after = [vs22.flat(state.images[rows]) for state in states]
    title = f"{split.image_set.title}, {mode.name}"
    by_steps = vs22.density_coverage_curve(manifold, vs22.flat(before), after, steps, largest, title=title)
    noise = None
    if not mode.normalised_twice:  # where no image stays outside the pixels' range
        noise = vs22.score(manifold, attacks.gaussian_noise(before, rng, l2=last.l2[rows]), largest)
    shown = _median_row(last.l2, rows[moved[rows]]) if moved[rows].any() else rows[0]
    counts = {
        "attacked": len(split.images),
        "misread before": int((~last.clean_correct).sum()),
        "without a start": int((last.clean_correct & ~moved).sum()),
        "adversarial": int(last.success.sum()),
        "scored": len(rows),
    }
    l2 = np.array([np.median(state.l2[moved]) if moved.any() else 0.0 for state in states])
    attacked = {size: vs22.score(manifold, after[-1], rows_of) for size, rows_of in batches.items()}
    examples = np.stack([split.images[shown], states[0].images[shown], last.images[shown]])
    return Outcome(split.image_set, mode, counts, tuple(steps), l2, by_steps, clean, attacked, noise, examples)


def _median_row(distance: np.ndarray, rows: np.ndarray) -> int:
    return int(rows[np.argsort(distance[rows], kind="stable")][len(rows) // 2])


def outcomes(
    image_sets: Sequence[vs22.ImageSet],
    images: Sequence[int],
    references: int,
    steps: Sequence[Sequence[int]],
    batch_sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    seed: int = 0,
) -> list[Outcome]:
    """Run `outcome` for several image sets in both modes.

    Parameters
    ----------
    image_sets : sequence of vs22.ImageSet
    images : sequence of int
        Attacked images of each hold-out, at even steps; 0 for all.
    references : int
        Reference images, 0 for the whole model set.
    steps : sequence of increasing sequences of int
        For each image set.
    batch_sizes : sequence of int
        Images a sub-batch.
    rng, seed
        As for `outcome`.

    Returns
    -------
    list of Outcome
        For each image set as published, then corrected.
    """
    found = []
    for image_set, count, counts in zip(image_sets, images, steps, strict=True):
        split = vs22.reference_and_holdout(image_set.name, references, count)
        manifold = ReferenceManifold(k=vs22.K).fit(vs22.flat(split.reference))
        holdout = vs22.reference_and_holdout(image_set.name, references).images
        holdout = holdout[np.linspace(0, len(holdout) - 1, min(CLEAN, len(holdout))).astype(int)]
        clean = {size: vs22.score(manifold, holdout, vs22.sub_batches(len(holdout), size, rng)) for size in batch_sizes}
        found += [outcome(mode, split, manifold, clean, counts, rng, seed) for mode in vs22.MODES]
    return found


def fgsm_for_comparison(image_set: vs22.ImageSet, images: int, references: int) -> tuple[float, dict[str, float]]:
    """Attack the same images as `outcomes` by FGSM at the smallest ε that turns half of the rightly read ones.

    Parameters
    ----------
    image_set, images, references
        As for `outcomes`.

    Returns
    -------
    before : float
        Density of the untouched images.
    under_fgsm : dict
        Mode's name → density of all images at that ε of the paper's grid, at its last where none turns half of them.
    """
    split = vs22.reference_and_holdout(image_set.name, references, images)
    manifold = ReferenceManifold(k=vs22.K).fit(vs22.flat(split.reference))
    model = models.load_trained(image_set.network)
    found = {}
    for mode in vs22.MODES:
        for batch in vs22.fgsm_sweep(mode, image_set, model, split.images, split.labels):
            found[mode.name] = batch.images
            if batch.success.sum() >= batch.clean_correct.sum() / 2:
                break
    under = {name: manifold.density(vs22.flat(attacked)) for name, attacked in found.items()}
    return manifold.density(vs22.flat(split.images)), under
