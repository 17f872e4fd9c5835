"""VS22 §5.2: the boundary attack's images in both modes, and density and coverage of batches of them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from advlib import attacks, models
from advlib.attacks import AdversarialBatch
from advlib.attacks.stored import stored_attack
from advlib.prdc import ReferenceManifold
from compendium.common import vs22

PAPER_STEPS = 25_000
"""foolbox's default, which VS22 took."""


CLEAN = 800
"""Untouched images of the hold-out behind the clean curves over batch sizes."""

CHUNK = 50
"""Images that are attacked together, with the same random directions, and kept on disk together."""


def attack(
    mode: vs22.Mode,
    split: vs22.Split,
    steps: Sequence[int],
    *,
    seed: int = 0,
) -> list[AdversarialBatch]:
    """Attack a split's queries in one of the modes and keep what was attacked; pixels in, pixels out.

    *As published* gives the attack normalised images with bounds (0, 1), which only its candidates keep: an image
    that is not attacked stays outside. *Corrected* attacks pixels.

    Parameters
    ----------
    mode : vs22.Mode
    split : vs22.Split
    steps : increasing sequence of int
        Numbers of steps after which the state is wanted; all are states of one run.
    seed : int

    Returns
    -------
    list of AdversarialBatch
        One an entry of `steps`, over all queries. Images and norms are in pixels of [0, 1]. `success` says which
        are adversarial examples; `clean_correct` with `l2` = 0 says which found no start.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no start was found")  # `counts` says how many
        states = stored_attack(
            attacks.boundary_sweep,
            split.image_set.network,
            mode.to_attack(split.image_set, split.images),
            split.labels,
            seed=seed,
            chunk=CHUNK,
            steps=[int(count) for count in steps],
            outside=mode.normalised_twice,
        )
    if not mode.normalised_twice:
        return states
    return [
        vs22.as_batch(
            split.images,
            # Images that were left alone come back to the bit, which the way there and back would not give.
            np.where((state.l2 > 0)[:, None, None, None], mode.to_pixels(split.image_set, state.images), split.images),
            split.labels,
            state.predictions,
            state.clean_correct,
        )
        for state in states
    ]


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
    linf : float
        Median L∞ distance after the last step.
    by_steps : vs22.Curve
        Density and coverage over the steps; `clean` are the scored images before the attack.
    batch_sizes : tuple of int
    clean, attacked : tuple of vs22.Score
        In sub-batches of each size: untouched images of the hold-out, `CLEAN` of them; attacked ones after the last
        step.
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
    linf: float
    by_steps: vs22.Curve = field(repr=False)
    batch_sizes: tuple[int, ...]
    clean: tuple[vs22.Score, ...] = field(repr=False)
    attacked: tuple[vs22.Score, ...] = field(repr=False)
    noise: vs22.Score | None = field(repr=False)
    examples: np.ndarray = field(repr=False)

    @property
    def title(self) -> str:
        """Name of the image set."""
        return self.image_set.title

    def medians(self, statistic: str, which: str = "attacked") -> np.ndarray:
        """Return the median over sub-batches for each batch size.

        Parameters
        ----------
        statistic : str
            "density" or "coverage".
        which : str
            "attacked" or "clean".
        """
        return np.array([getattr(score, f"{statistic}_quantiles")[1] for score in getattr(self, which)])


def outcome(
    mode: vs22.Mode,
    split: vs22.Split,
    manifold: ReferenceManifold,
    clean_scores: Mapping[int, vs22.Score],
    steps: Sequence[int],
    batch_sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    seed: int = 0,
) -> Outcome:
    """Attack a split's queries and score them.

    *As published* scores all images, those that were misread before or found no start included, as they are.
    *Corrected* scores adversarial examples only, and beside them the same images before the attack.

    Parameters
    ----------
    mode : vs22.Mode
    split : vs22.Split
    manifold : ReferenceManifold
        Fitted to `vs22.flat(split.reference)`.
    clean_scores : mapping
        Batch size → score of untouched images.
    steps : increasing sequence of int
    batch_sizes : sequence of int
        Images a sub-batch; those above the number of scored images are left out.
    rng : numpy.random.Generator
        Draws sub-batches and noise.
    seed : int
        Of the attack.

    Raises
    ------
    ValueError
        If no batch size is left.
    """
    states = attack(mode, split, steps, seed=seed)
    last = states[-1]
    moved = last.l2 > 0
    rows = np.arange(len(split.images)) if mode.normalised_twice else np.flatnonzero(last.success)
    sizes = tuple(size for size in batch_sizes if size <= len(rows))
    if not sizes:
        raise ValueError(f"batch_sizes must have one of at most {len(rows)}, the scored images, but is {batch_sizes}")
    clean = split.images[rows]
    batches = [vs22.sub_batches(len(rows), size, rng) for size in sizes]
    by_steps = vs22.density_coverage_curve(
        manifold,
        vs22.flat(clean),
        [vs22.flat(state.images[rows]) for state in states],
        steps,
        batches[-1],
        title=f"{split.image_set.title}, {mode.name}",
    )
    noise = None
    if not mode.normalised_twice:
        noise = vs22.score(manifold, attacks.gaussian_noise(clean, rng, l2=last.l2[rows]), batches[-1])
    shown = int(rows[0])
    if moved[rows].any():  # the scored image whose distance is the median one
        nearest_first = rows[moved[rows]][np.argsort(last.l2[rows[moved[rows]]], kind="stable")]
        shown = int(nearest_first[len(nearest_first) // 2])
    return Outcome(
        split.image_set,
        mode,
        {
            "attacked": len(split.images),
            "misread before": int((~last.clean_correct).sum()),
            "without a start": int((last.clean_correct & ~moved).sum()),
            "adversarial": int(last.success.sum()),
            "scored": len(rows),
        },
        tuple(int(count) for count in steps),
        np.array([np.median(state.l2[moved]) if moved.any() else 0.0 for state in states]),
        float(np.median(last.linf[moved])) if moved.any() else 0.0,
        by_steps,
        sizes,
        tuple(clean_scores[size] for size in sizes),
        tuple(vs22.score(manifold, last.images[rows], rows_of) for rows_of in batches),
        noise,
        np.stack([split.images[shown], states[0].images[shown], last.images[shown]]),
    )


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
    batch_sizes, rng, seed
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
        found += [outcome(mode, split, manifold, clean, counts, batch_sizes, rng, seed=seed) for mode in vs22.MODES]
    return found


@dataclass(frozen=True)
class WorthOfFgsm:
    """FGSM at the smallest ε of the paper's grid that turns half of the rightly read images.

    Attributes
    ----------
    title, mode : str
    epsilon : float or None
        In the attack's units; None where no ε of the grid does it.
    density, clean_density : float
    """

    title: str
    mode: str
    epsilon: float | None
    density: float
    clean_density: float


def fgsm_for_comparison(image_set: vs22.ImageSet, images: int, references: int) -> list[WorthOfFgsm]:
    """Attack the same images as `outcomes` by FGSM, in both modes.

    Parameters
    ----------
    image_set, images, references
        As for `outcomes`.
    """
    split = vs22.reference_and_holdout(image_set.name, references, images)
    manifold = ReferenceManifold(k=vs22.K).fit(vs22.flat(split.reference))
    model = models.load_trained(image_set.network)
    clean = manifold.density(vs22.flat(split.images))
    found = []
    for mode in vs22.MODES:
        reached = None
        for epsilon, batch in zip(
            vs22.EPSILONS, vs22.fgsm_sweep(mode, image_set, model, split.images, split.labels), strict=True
        ):
            density = manifold.density(vs22.flat(batch.images))
            if batch.success.sum() >= batch.clean_correct.sum() / 2:
                reached = epsilon
                break
        found.append(WorthOfFgsm(image_set.title, mode.name, reached, density, clean))
    return found


PAPER_SIZES = {"MNIST": (67_900, 2_100), "OrganMNIST": (54_142, 4_708), "PathMNIST": (30_547, 5_359)}
"""Reference images and queries behind the full-batch coverages of §5.2."""
