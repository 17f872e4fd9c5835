"""VS22 §5.2: the boundary attack's images in both modes, and density and coverage of batches of them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from advlib import attacks, models, published, vs22
from advlib.attacks import AdversarialBatch
from advlib.crafted import crafted
from advlib.prdc import ReferenceManifold, expected_coverage

PAPER_STEPS = 25_000
"""foolbox's default, which VS22 took."""

PAPER_BATCH_SIZES = {"mnist": (21, 42, 60, 84, 100, 120, 140), "organamnist": (49, 100, 150, 200, 250, 300)}
"""Images a batch behind the bands of Fig. 3b, as the file names of the authors' stored results say."""

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
    """Attack a split's queries in one of the modes and keep what was crafted; pixels in, pixels out.

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
        states = crafted(
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


def scaled_coverage(result: Outcome, score: vs22.Score) -> float:
    """Return full-batch coverage scaled to the paper's numbers of references and queries by the closed form.

    Exact in the mean for untouched queries, an approximation for attacked ones.

    Parameters
    ----------
    result : Outcome
        Of one of the paper's image sets.
    score : vs22.Score
    """
    return score.coverage / result.by_steps.expected_coverage * expected_coverage(*PAPER_SIZES[result.title], vs22.K)


def record(run: Any, found: Sequence[Outcome], fgsm: Sequence[WorthOfFgsm], own: Mapping[str, Any]) -> None:
    """Keep the numbers of §5.2 and set them and its sentences beside the printed ones.

    Parameters
    ----------
    run : advlib.record.Run
    found : sequence of Outcome
        From `outcomes`.
    fgsm : sequence of WorthOfFgsm
        From `fgsm_for_comparison`, for MNIST.
    own : mapping
        From `rising_density.stored`.
    """
    for result in found:
        name = f"{result.title}.{result.mode.name}"
        for key, count in result.counts.items():
            run.metric(f"{name}.images.{key}", count)
        for steps, l2, density in zip(result.steps, result.l2, result.by_steps.density, strict=True):
            run.metric(f"{name}.l2.{steps}", l2)
            run.metric(f"{name}.density.{steps}", density)
        run.metric(f"{name}.coverage", result.by_steps.coverage[-1])
        run.metric(f"{name}.clean_density", result.by_steps.clean.density)
        run.metric(f"{name}.clean_coverage", result.by_steps.clean.coverage)
        auroc, power = result.by_steps.decisions("density")
        run.metric(f"{name}.auroc", auroc[-1])
        run.metric(f"{name}.power_at_5_percent", power[-1])
        if result.noise is not None:
            run.metric(f"{name}.noise_density", result.noise.density)
    pairs = {first.title: (first, second) for first, second in zip(found[::2], found[1::2], strict=True)}
    for title, (as_published, corrected) in pairs.items():
        if as_published.image_set.in_paper:
            _compare_numbers(run, title, as_published, corrected)
    _compare_claims(run, pairs, fgsm, own)


def _compare_numbers(run: Any, title: str, as_published: Outcome, corrected: Outcome) -> None:
    both = (as_published, corrected)
    steps, images = as_published.steps[-1], as_published.counts["attacked"]
    references = f"{as_published.by_steps.n_reference} references"
    where = f"{images} images, {references}"
    wanted = {entry.column for entry in published.load("vs22", "§5.2") if entry.row == title}

    def compare(column: str, values: Sequence[float], errors: Sequence[float], cause: str) -> None:
        if column not in wanted:
            return
        printed = published.value("vs22", "§5.2", title, column)
        # Few images give wide intervals, in which everything would lie: at most half of the printed value is allowed.
        near = [
            abs(value - printed) <= min(3 * error + 0.1 * printed, 0.5 * printed)
            for value, error in zip(values, errors, strict=True)
        ]
        verdict = "reproduced" if all(near) else "reproduced as published only" if near[0] else "not reproduced"
        run.compare(
            {
                "paper": "vs22", "item": "§5.2", "row": title, "column": column, "as_published": values[0],
                "corrected": values[1], "verdict": verdict, "cause": cause,
            }
        )  # fmt: skip

    for edge, pick in (("smallest", np.min), ("largest", np.max)):
        cleans = [pick(result.medians("density", "clean")) for result in both]
        errors = [result.clean[-1].density_error for result in both]
        compare(
            f"reference density {edge}",
            cleans,
            errors,
            f"medians over batches of {CLEAN} untouched images; {references}",
        )
        hits = [pick(result.medians("density")) for result in both]
        errors = [result.attacked[-1].density_error for result in both]
        start = as_published.by_steps.density[0]
        compare(
            f"adversarial density {edge}",
            hits,
            errors,
            f"{where}, after {steps} steps; the starts alone have {start:.2f} as published: density follows the steps",
        )
    clean = [scaled_coverage(result, result.by_steps.clean) for result in both]
    hit = [scaled_coverage(result, result.by_steps.scores[-1]) for result in both]
    spread = [value * result.by_steps.clean.density_error for value, result in zip(clean, both, strict=True)]
    note = f"{where}, scaled to the paper's numbers by the closed form"
    compare("reference density", [r.by_steps.clean.density for r in both],
            [r.by_steps.clean.density_error for r in both], where)  # fmt: skip
    compare("adversarial density", [r.by_steps.density[-1] for r in both],
            [r.attacked[-1].density_error for r in both], f"after {steps} steps")  # fmt: skip
    compare("reference coverage", clean, spread, note)
    spread = [value * result.attacked[-1].density_error for value, result in zip(hit, both, strict=True)]
    compare("adversarial coverage", hit, spread, f"{note}; after {steps} steps")


def _compare_claims(
    run: Any,
    pairs: Mapping[str, tuple[Outcome, Outcome]],
    fgsm: Sequence[WorthOfFgsm],
    own: Mapping[str, Any],
) -> None:
    def claim(name: str, as_published: str, corrected: str, verdict: str, cause: str) -> None:
        run.compare(
            {
                "paper": "vs22", "item": "claim", "row": name, "column": "", "as_published": as_published,
                "corrected": corrected, "verdict": verdict, "cause": cause,
            }
        )  # fmt: skip

    everything = [result for pair in pairs.values() for result in pair]
    grows = all(np.all(np.diff(r.medians("coverage", which)) > 0) for r in everything for which in ("clean", "attacked")
                if r.counts["adversarial"])  # fmt: skip
    claim(
        "boundary-coverage-grows-with-batch",
        f"grows: {grows}",
        f"grows: {grows}",
        "reproduced" if grows else "not reproduced",
        "true of any sample, attacked or not: coverage counts balls that hold at least one query",
    )
    first, second = (published.value("vs22", item, "MNIST", "reference coverage") for item in ("§5.1", "§5.2"))
    claim(
        "boundary-references-unchanged",
        f"MNIST coverage {expected_coverage(20_000, 2_100, vs22.K):.2f} and "
        f"{expected_coverage(*PAPER_SIZES['MNIST'], vs22.K):.2f}",
        "density unchanged, coverage only at the same number of references",
        "not reproduced",
        f"the paper prints {first:g} and {second:g} for MNIST: its reference sets differ; the closed form gives both",
    )
    as_published, corrected = pairs["MNIST"]
    aurocs = [result.by_steps.decisions("density")[0][-1] for result in (as_published, corrected)]
    stored = own["boundary"]["own statistics"]
    falls = max(own["movements"]["corrected"][0]["density"][1:])
    claim(
        "boundary-mnist-path-discernible",
        f"MNIST AUROC {aurocs[0]:.2f}",
        f"MNIST AUROC {aurocs[1]:.2f}",
        "reproduced" if min(aurocs) > 0.9 else "reproduced as published only" if aurocs[0] > 0.9 else "not reproduced",
        f"MNIST, batches of {as_published.batch_sizes[-1]} after {as_published.steps[-1]} steps: the nearer the attack "
        "gets, the less there is to discern; PathMNIST not run whole",
    )
    claim(
        "path-boundary-density-opposite",
        f"tiles clipped alone: density {stored['clipped_density']:.1f} instead of {stored['clean_density']:.1f}",
        f"tiles, FGSM in pixels: density at most {falls:.2f}",
        "reproduced as published only",
        "PathMNIST, 4,495 train tiles: clipping normalised images to (0, 1) moves them toward the mean, attack or not",
    )
    movements = own["movements"]
    old, alone = movements["own statistics"][:2]
    halves, new = movements["one half"][0], movements["corrected"][0]
    rises = [max(m["density"]) > 2 * m["density"][0] for m in (old, new)]
    tiles = f"{own['title']}, FGSM"
    claim(
        "path-density-not-like-mnist",
        f"tiles: density from {old['density'][0]:.1f} to {old['density'][-1]:.1f}",
        f"tiles: density from {new['density'][0]:.1f} to {new['density'][-1]:.2f}",
        "reproduced" if rises[1] else "reproduced as published only" if rises[0] else "not reproduced",
        f"{tiles}: clipping images that were normalised by the data's own mean and deviation moves them toward "
        "the mean; in pixels density falls as on MNIST",
    )
    confined = max(m["density"][-1] for m in (halves, new)) > 1 and max(alone["density"]) < 2 * alone["density"][0]
    claim(
        "path-density-rise-is-confinement",
        f"tiles: largest class {old['largest_class'][-1]:.0%} and density {old['density'][-1]:.1f}; normalised by 0.5 "
        f"and 0.5, {halves['largest_class'][-1]:.0%} and {halves['density'][-1]:.1f}",
        f"tiles: largest class {new['largest_class'][-1]:.0%} and density {new['density'][-1]:.1f}",
        "reproduced" if confined else "not reproduced",
        f"{tiles} at eps = 1: density does not follow the largest class's share; clipped alone, without a network, "
        f"it reaches {max(alone['density']):.1f}",
    )
    away = [abs(np.log(max(r.by_steps.density[-1], 1e-3) / r.by_steps.clean.density)) for r in pairs["MNIST"]]
    fgsm_away = [abs(np.log(max(f.density, 1e-3) / f.clean_density)) for f in fgsm]
    worse = [a > b for a, b in zip(away, fgsm_away, strict=True)]
    claim(
        "boundary-worse-than-fgsm",
        f"MNIST: boundary further from clean: {worse[0]}",
        f"MNIST: boundary further from clean: {worse[1]}",
        "reproduced" if all(worse) else "reproduced as published only" if worse[0] else "not reproduced",
        f"beside FGSM at the smallest ε that turns half of the images, after {as_published.steps[-1]} steps",
    )
