"""VS22 §5.2: density and coverage of batches under the boundary attack, in both modes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import eagerpy
import numpy as np
import torch
from foolbox.attacks.boundary_attack import draw_proposals
from scipy import sparse

from advlib import attacks
from advlib.prdc import ReferenceManifold
from compendium.common import boundary, vs22
from compendium.common.curves import score_hits
from compendium.common.protocol import power
from compendium.common.splits import evenly

CLEAN_BATCHES = 1000
"""Clean batches of each size, at least, by which attacked ones are judged."""

STATISTICS = ("density", "coverage")


@dataclass(frozen=True, eq=False)
class Clean:
    """The untouched hold-out of one image set.

    Attributes
    ----------
    manifold : ReferenceManifold
        Of the reference.
    hits : (n, N) sparse array
        Which balls hold which image.
    by_size : dict
        Batch size → vs22.Score in sub-batches of that size.
    whole, under_fgsm : tuple of float
        Density and coverage in one batch that is to the reference as the paper's is in its boundary experiment, and of
        the same batch with as many references as in the paper's FGSM experiment.
    """

    manifold: ReferenceManifold = field(repr=False)
    hits: sparse.csr_array = field(repr=False)
    by_size: dict[int, vs22.Score] = field(repr=False)
    whole: tuple[float, float]
    under_fgsm: tuple[float, float]

    @property
    def balls(self) -> np.ndarray:
        """Balls that hold each image over k, (n,)."""
        return np.diff(self.hits.indptr) / vs22.K

    def batches(self, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw `CLEAN_BATCHES` batches: density and coverage, (t,) each."""
        n = self.hits.shape[0]
        drawn = [rng.permutation(n)[:size] for _ in range(CLEAN_BATCHES)]
        return dict(zip(STATISTICS, self.manifold.subset_density_coverage(self.hits, drawn), strict=True))


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
    clean : Clean
    attacked : dict
        Batch size → vs22.Score in batches of that size that share no image, after the last step.
    balls : (s,) float64
        Balls that hold each scored image after the last step, over k.
    coverage : float
        Of the scored images, which are to the reference (a part of it) as the paper's hold-out.
    p : dict
        "density" and "coverage" → p-value of all scored images, as one batch, among clean batches of as many.
    fgsm_density : float or None
        Of the same images under FGSM at the smallest ε of the paper that turns half of the rightly read ones, at its
        largest where none does; None for a set that is not the paper's.
    noise : vs22.Score or None
        Of Gaussian noise as far from each image, in L2, as the attack went, in the largest batches.
    examples : list of (image, class, distance)
        The scored image of median distance before, at the start and after the last step: (c, h, w) float32, what the
        network reads in it, and how far it is from the first, L2 in pixels of [0, 1].
    """

    image_set: vs22.ImageSet
    mode: vs22.Mode
    counts: dict[str, int]
    steps: tuple[int, ...]
    l2: np.ndarray = field(repr=False)
    by_steps: vs22.Curve = field(repr=False)
    clean: Clean = field(repr=False)
    attacked: dict[int, vs22.Score] = field(repr=False)
    balls: np.ndarray = field(repr=False)
    coverage: float
    p: dict[str, float]
    fgsm_density: float | None
    noise: vs22.Score | None = field(repr=False)
    examples: list[tuple[np.ndarray, int, float]] = field(repr=False)

    @property
    def title(self) -> str:
        """Name of the image set."""
        return self.image_set.title

    def medians(self, statistic: str, which: str = "attacked") -> np.ndarray:
        """Median of "density" or "coverage" over the "attacked" or "clean" batches, one entry a size of `attacked`."""
        scores = self.attacked if which == "attacked" else self.clean.by_size
        return np.array([np.median(getattr(scores[size], f"batch_{statistic}")) for size in self.attacked])

    def flagged(self, statistic: str, size: int) -> float:
        """Two-sided `power` of a statistic against attacked batches of a size."""
        batches = (getattr(scores[size], f"batch_{statistic}") for scores in (self.clean.by_size, self.attacked))
        return power(*batches, "two-sided")


def outcome(
    mode: vs22.Mode,
    split: vs22.Split,
    clean: Clean,
    steps: Sequence[int],
    rng: np.random.Generator,
    seed: int = 0,
) -> Outcome:
    """Attack a split's queries and score them.

    *As published* scores all images, those that were misread before or found no start included, as they are.
    *Corrected* scores adversarial examples only, and beside them the same images before the attack.

    Parameters
    ----------
    mode, split, steps, seed
        As for `boundary.attack`.
    clean : Clean
        Batch sizes above the number of scored images are left out.
    rng : numpy.random.Generator
        Draws batches, references and noise.

    Raises
    ------
    ValueError
        If no batch size is left.
    """
    states = boundary.attack(mode, split, steps, seed=seed)
    last, moved = states[-1], states[-1].l2 > 0  # misread images, and those without a start, stay where they are
    rows = boundary.scored_rows(mode, last)
    sizes = [size for size in clean.by_size if size <= len(rows)]
    if not sizes:
        raise ValueError(
            f"a batch size must be at most {len(rows)}, the scored images, but they are {[*clean.by_size]}"
        )
    before, after = split.images[rows], [vs22.flat(state.images[rows]) for state in states]
    batches = {size: boundary.disjoint(len(rows), size, rng) for size in sizes}
    title = f"{split.image_set.title}, {mode.name}"
    curve = vs22.density_coverage_curve(
        clean.manifold, vs22.flat(before), after, steps, batches[sizes[-1]], title=title
    )
    # Not as published, where images stay outside the pixels' range.
    as_far = None if mode.normalised_twice else attacks.gaussian_noise(before, rng, l2=last.l2[rows])
    drawn, hits = clean.batches(len(rows), rng), clean.manifold.hits(after[-1])
    return Outcome(
        split.image_set,
        mode,
        _counts(last, rows),
        tuple(steps),
        np.array([np.median(state.l2[moved]) if moved.any() else 0.0 for state in states]),
        curve,
        clean,
        {size: score_hits(clean.manifold, hits, rows_of) for size, rows_of in batches.items()},
        np.diff(hits.indptr) / vs22.K,
        _coverage_in_proportion(split, after[-1], rng),
        {name: boundary.p_value(drawn[name], getattr(curve.scores[-1], name)) for name in STATISTICS},
        _fgsm_density(mode, split, clean.manifold) if split.image_set.in_paper else None,
        None if as_far is None else vs22.score(clean.manifold, as_far, batches[sizes[-1]]),
        _examples(split, states, rows),
    )


def _counts(last: attacks.AdversarialBatch, rows: np.ndarray) -> dict[str, int]:
    return {
        "attacked": len(last.images),
        "misread before": int((~last.clean_correct).sum()),
        "without a start": int((last.clean_correct & (last.l2 == 0)).sum()),
        "adversarial": int(last.success.sum()),
        "scored": len(rows),
    }


def _examples(
    split: vs22.Split, states: Sequence[attacks.AdversarialBatch], rows: np.ndarray
) -> list[tuple[np.ndarray, int, float]]:
    """Return the scored image of median distance before the attack, at its start and at its end."""
    last = states[-1]
    by_distance = sorted(rows[last.l2[rows] > 0], key=lambda row: last.l2[row])
    shown = by_distance[len(by_distance) // 2] if by_distance else rows[0]
    # An image that was misread before is left alone by the attack.
    read_before = split.labels[shown] if last.clean_correct[shown] else states[0].predictions[shown]
    ends = [(state.images[shown], state.predictions[shown], state.l2[shown]) for state in (states[0], last)]
    return [(split.images[shown], read_before, 0.0), *ends]


def _coverage_in_proportion(split: vs22.Split, moved: np.ndarray, rng: np.random.Generator) -> float:
    references, queries = boundary.PAPER_SIZES.get(split.image_set.title, (len(split.reference), len(moved)))
    manifold = boundary.manifold_in_proportion(split.reference, len(moved), references / queries, rng)
    return float(manifold.coverage(moved))


def _fgsm_density(mode: vs22.Mode, split: vs22.Split, manifold: ReferenceManifold) -> float:
    model = vs22.network(split.image_set)
    for batch in vs22.fgsm_sweep(mode, split.image_set, model, split.images, split.labels):
        images = batch.images
        if batch.success.sum() >= batch.clean_correct.sum() / 2:
            break
    return float(manifold.density(vs22.flat(images)))


def clean_holdout(split: vs22.Split, batch_sizes: Sequence[int], rng: np.random.Generator) -> Clean:
    """Score the untouched hold-out, in sub-batches and whole.

    Parameters
    ----------
    split : vs22.Split
        With the whole hold-out.
    batch_sizes : sequence of int
        Those above the number of images are left out.
    rng : numpy.random.Generator
        Draws the sub-batches.
    """
    reference, images = vs22.flat(split.reference), vs22.flat(split.images)
    available, holdout = boundary.PAPER_SIZES.get(split.image_set.title, (len(reference), len(images)))
    whole = images[evenly(len(images), min(len(images), round(len(reference) * holdout / available)))]
    fewer = round(len(reference) * (split.image_set.references or available) / available)
    manifold = ReferenceManifold(k=vs22.K).fit(reference)
    hits = manifold.hits(images)
    by_size = {
        size: score_hits(manifold, hits, vs22.sub_batches(len(images), size, rng, CLEAN_BATCHES))
        for size in batch_sizes
        if size <= len(images)
    }
    values = tuple(map(float, manifold.density_coverage(whole)))
    if fewer == len(reference):
        return Clean(manifold, hits, by_size, values, values)
    smaller = ReferenceManifold(k=vs22.K).fit(reference[evenly(len(reference), fewer)])
    return Clean(manifold, hits, by_size, values, tuple(map(float, smaller.density_coverage(whole))))


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
        clean = clean_holdout(vs22.reference_and_holdout(image_set.name, references), batch_sizes, rng)
        found += [outcome(mode, split, clean, counts, rng, seed) for mode in vs22.MODES]
    return found


def foolbox_candidate(
    original: np.ndarray, current: np.ndarray, sideways: float, towards: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one candidate of the boundary attack as foolbox does, for comparison with a step by hand.

    Parameters
    ----------
    original, current : (d,) float arrays
        The image and where the attack stands, both in [0, 1].
    sideways, towards : float
        Lengths of the two parts of a step, as shares of the distance between the images.
    seed : int
        Of the direction; torch's own global generator is left as it was.

    Returns
    -------
    noise, candidate : (d,) float64
        The normal vector that the direction was made of, and the candidate.
    """
    here, there = (torch.as_tensor(image, dtype=torch.float64)[None] for image in (original, current))
    way = here - there
    distance, ones = way.norm(dim=1), torch.ones(1, dtype=torch.float64)
    given = (here, there, way, way / distance, distance, sideways * ones, towards * ones)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        noise = torch.randn(len(original), dtype=torch.float64)
        torch.manual_seed(seed)  # foolbox draws the same
        candidate, _ = draw_proposals((0, 1), *map(eagerpy.astensor, given))
    return noise.numpy(), candidate.raw[0].numpy()
