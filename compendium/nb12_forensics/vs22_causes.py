"""Why VS22's published numbers are what they are: one cause at a time, each with its effect in numbers.

Normalisation done twice (`normalised_twice`) and by what (`normalisations`), its bounds without any gradient
(`bounds_alone`), coverage by closed form (`coverage_by_size`), and what moves a clean hold-out off it (`shifts`,
`other_sources`).

References
----------
VS22: D. K. Venkatesh, P. Steinbach, arXiv:2206.08738 (2022).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas

from advlib import datasets, models
from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from compendium.claims import published
from compendium.common import vs22
from compendium.nb12_forensics.g17_causes import CERTAIN, LIKELY, OPEN, Cause, evenly

# ---------------------------------------------------------------------------------------------- VS22: normalised twice


def normalised_twice(names: Sequence[str], *, images: int) -> pandas.DataFrame:
    """Accuracy of our networks on hold-outs that are normalised on load and once more by the network; no attack.

    Parameters
    ----------
    names : sequence of str
        Keys of `vs22.SETS`.
    images : int
        Held-out images, 0 for all.

    Returns
    -------
    pandas.DataFrame
        Shares from 0 to 1: read rightly when normalised once, twice, and twice with the bounds (0, 1) between; the
        same from the authors' stored results at ε = 0 where there are any, and the paper's accuracy.
    """
    lines = []
    for name in track(names, "normalised twice"):
        chosen = vs22.image_set(name)
        held = models.partition(chosen.network)
        part = evenly(len(held.holdout_images), images)
        real, labels = held.holdout_images[part], held.holdout_labels[part]
        model = vs22.network(chosen)
        again = vs22.AS_PUBLISHED.to_attack(chosen, real)
        lines.append({
            "image set": chosen.title,
            "once": models.accuracy(model, real, labels),
            "twice": models.accuracy(model, again, labels),
            "twice, cut to (0, 1)": models.accuracy(model, again.clip(0, 1), labels),
            "stored by the authors": _stored_accuracy(chosen.title),
            "printed": published.value("vs22", "§5", chosen.title, "accuracy (%)") / 100 if chosen.in_paper else None,
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index("image set")


def normalisations(rng: np.random.Generator) -> pandas.DataFrame:
    """Ask what OrganMNIST was normalised by: the published program without its gradient, against its stored densities.

    The sign of each pixel's step is a coin flip, so no network is in it. The bounds (0, 1) of normalised images are
    pixels from μ to μ + σ, so the curve over ε depends on μ and σ alone. References and hold-out are whole, because
    the density of moved images depends on how dense the reference is.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of the coins, the same for every normalisation.

    Returns
    -------
    pandas.DataFrame
        Density at each ε that is stored, for three normalisations and as stored, and the largest deviation from the
        stored densities up to where the steps are those of noise (ε < 1), as a share of them.
    """
    chosen = vs22.image_set("organamnist")
    sizes = [epsilon for epsilon in vs22.EPSILONS if _stored_density(chosen.title, epsilon) is not None]
    stored = np.array([_stored_density(chosen.title, epsilon) for epsilon in sizes])
    split = vs22.reference_and_holdout(chosen.name)
    manifold = ReferenceManifold(vs22.K).fit(vs22.flat(split.reference))
    seed = int(rng.integers(2**63))
    constants = {
        "0.5 and 0.5, as in MedMNIST's examples": ((0.5,), (0.5,)),
        "MNIST's, 0.1307 and 0.3081": (vs22.image_set("mnist").mean, vs22.image_set("mnist").std),
        f"its own, {chosen.mean[0]:g} and {chosen.std[0]:g}": (chosen.mean, chosen.std),
    }
    lines = []
    for name, (mean, std) in constants.items():
        coins = vs22.noise_sweep(
            split.images, sizes, np.random.default_rng(seed), vs22.AS_PUBLISHED, replace(chosen, mean=mean, std=std)
        )
        density = np.array([manifold.density(vs22.flat(images)) for images in track(coins, name, len(sizes))])
        below = np.array(sizes) < 1
        lines.append([name, *density, np.abs(density / stored - 1)[below].max()])
    lines.append(["stored by the authors", *stored, np.nan])
    columns = ["normalised by", *(f"ε = {epsilon:.3f}" for epsilon in sizes), "off by up to"]
    return pandas.DataFrame(lines, columns=columns).set_index("normalised by")


def _stored_density(title: str, epsilon: float) -> float | None:
    try:
        return published.value("vs22", "stored results", title, f"adversarial density eps={round(epsilon, 3):g}")
    except published.NotPublishedError:
        return None


def _stored_accuracy(title: str) -> float | None:
    try:
        return published.value("vs22", "stored results", title, "robust accuracy (%) eps=0") / 100
    except published.NotPublishedError:
        return None


@dataclass(frozen=True)
class BoundsCurve:
    """Density and coverage over ε, with and without an attack.

    Attributes
    ----------
    epsilons : (n,) float64
    density, coverage : dict
        What was done → (n,) float64.
    expected : float
        Coverage of the untouched hold-out in the mean.
    kink : float
        μ/σ: the ε at which a black pixel has reached the lower bound.
    """

    epsilons: np.ndarray
    density: dict[str, np.ndarray]
    coverage: dict[str, np.ndarray]
    expected: float
    kink: float


def bounds_alone(
    name: str, epsilons: Sequence[float], *, references: int, queries: int, rng: np.random.Generator
) -> BoundsCurve:
    """Take the attack out of the published attack, and leave its misplaced bounds.

    A pixel that starts outside the bounds is pushed towards them by up to ε whatever the gradient says. Here it is set
    to zero, so no network is asked.

    Parameters
    ----------
    name : str
        Key of `vs22.SETS`.
    epsilons : sequence of float
        In the published attack's units, multiples of σ.
    references, queries : int
    rng : numpy.random.Generator
        Draws both.
    """
    chosen = vs22.image_set(name)
    split = vs22.reference_and_holdout(name, references, queries, rng)
    manifold = ReferenceManifold(vs22.K).fit(vs22.flat(split.reference))
    model = vs22.network(chosen)
    start = vs22.AS_PUBLISHED.to_attack(chosen, split.images)

    def bounds(epsilon: float) -> np.ndarray:
        step = np.float32(epsilon)
        return vs22.AS_PUBLISHED.to_pixels(chosen, start + np.clip(np.clip(start, 0, 1) - start, -step, step))

    curves = {
        "as published": [
            batch.images
            for batch in vs22.fgsm_sweep(vs22.AS_PUBLISHED, chosen, model, split.images, split.labels, epsilons)
        ],
        "its bounds alone, no gradient": [bounds(epsilon) for epsilon in epsilons],
        "corrected": [
            batch.images
            for batch in vs22.fgsm_sweep(vs22.CORRECTED, chosen, model, split.images, split.labels, epsilons)
        ],
    }
    scores = {
        title: np.array(
            [manifold.density_coverage(vs22.flat(images)) for images in track(moved, f"{chosen.title}, {title}")]
        )
        for title, moved in curves.items()
    }
    return BoundsCurve(
        np.array(epsilons, float),
        {title: score[:, 0] for title, score in scores.items()},
        {title: score[:, 1] for title, score in scores.items()},
        expected_coverage(len(split.reference), len(split.images), vs22.K),
        chosen.kink,
    )


# ---------------------------------------------------------------------------------------------- VS22: coverage


def coverage_by_size() -> pandas.DataFrame:
    """Give the mean coverage of an exchangeable hold-out for the authors' sizes, beside what they print.

    Returns
    -------
    pandas.DataFrame
        Reference images, queries, expected coverage at k = 5, printed coverage and density.
    """
    k = int(published.value("vs22", "setting", "metrics", "k"))
    lines = []
    for experiment, section in (("FGSM", "§5.1"), ("boundary attack", "§5.2")):
        for title in ("MNIST", "PathMNIST", "OrganMNIST"):
            references = int(published.value("vs22", "setting", title, f"references, {experiment}"))
            queries = int(published.value("vs22", "Table 3", title, "validation images"))
            lines.append({
                "experiment": experiment,
                "image set": title,
                "references": references,
                "queries": queries,
                "expected": expected_coverage(references, queries, k),
                "printed": published.value("vs22", section, title, "reference coverage"),
            })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["experiment", "image set"])


@dataclass(frozen=True)
class Shift:
    """A hold-out that is changed or chosen more and more unlike the reference.

    Attributes
    ----------
    title : str
    strengths : (n,) float64
    density : (n,) float64
        1 in the mean where hold-out and reference are exchangeable.
    coverage : (n,) float64
        Over its closed-form mean, so likewise 1.
    embedded_density, embedded_coverage : (n,) float64 or None
        The same in the network's last hidden layer.
    """

    title: str
    strengths: np.ndarray
    density: np.ndarray
    coverage: np.ndarray
    embedded_density: np.ndarray | None = None
    embedded_coverage: np.ndarray | None = None


def _more_contrast(images: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    middle = images.mean(dtype=np.float64)
    return ((images - middle) * (1 + strength) + middle).astype(np.float32)


def _noise(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return (images + strength * rng.standard_normal(images.shape)).astype(np.float32)


def _less_contrast(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return _more_contrast(images, -strength, rng)


CHANGES: dict[str, tuple[Callable[[np.ndarray, float, np.random.Generator], np.ndarray], tuple[float, ...]]] = {
    "more contrast": (_more_contrast, (0.01, 0.02, 0.03)),
    "less contrast": (_less_contrast, (0.01, 0.02, 0.03)),
    "noise": (_noise, (0.005, 0.01, 0.02)),
}
"""What is done to every image of the hold-out, and how strongly: a factor 1 ± s on the contrast, or Gaussian noise of
standard deviation s, pixels in [0, 1]."""

THINNED = (0.5, 0.8, 0.95)
"""Share of the upper half of the classes that is taken out of the reference."""


def shifts(name: str, *, references: int, queries: int, rng: np.random.Generator) -> list[Shift]:
    """Move a hold-out off its reference in several ways, and see where density and coverage go, in pixels and inside.

    Parameters
    ----------
    name : str
        Key of `vs22.SETS`.
    references, queries : int
        Of the model set and the hold-out.
    rng : numpy.random.Generator
        Draws both, and the noise.
    """
    chosen = vs22.image_set(name)
    # Some more than are used, so that what thinning takes out can be replaced.
    split = vs22.reference_and_holdout(name, 2 * references, queries, rng)
    model = vs22.network(chosen)
    pool = {"pixels": vs22.flat(split.reference), "inside": models.embed(model, split.reference)}
    first = np.arange(references)
    fitted = {space: ReferenceManifold(vs22.K).fit(points[first]) for space, points in pool.items()}
    expected = expected_coverage(references, len(split.images), vs22.K)

    def scored(manifolds: Mapping[str, ReferenceManifold], images: np.ndarray) -> list[float]:
        pixels = manifolds["pixels"].density_coverage(vs22.flat(images))
        inside = manifolds["inside"].density_coverage(models.embed(model, images))
        return [pixels[0], pixels[1] / expected, inside[0], inside[1] / expected]

    def shift(title: str, strengths: Sequence[float], values: list[list[float]]) -> Shift:
        return Shift(title, np.array(strengths, float), *np.array(values).T)

    untouched = scored(fitted, split.images)
    found = [shift("untouched", [0.0], [untouched])]
    for title, (change, strengths) in track(CHANGES.items(), f"{chosen.title}: changed hold-outs", len(CHANGES)):
        values = [scored(fitted, change(split.images, strength, rng)) for strength in strengths]
        found.append(shift(f"{title}, all images", [0.0, *strengths], [untouched, *values]))
    upper = split.reference_labels >= (split.reference_labels.max() + 1) / 2
    chance = rng.random(len(upper))
    values = []
    for share in track(THINNED, f"{chosen.title}: thinned classes"):
        kept = np.flatnonzero(~upper | (chance >= share))[:references]
        if len(kept) < references:
            raise ValueError(
                f"references must leave enough images when classes are thinned, at most {len(kept)}, "
                f"but is {references}"
            )
        thinned = {space: ReferenceManifold(vs22.K).fit(points[kept]) for space, points in pool.items()}
        values.append(scored(thinned, split.images))
    found.append(shift("half of the classes thinned in the reference", [0.0, *THINNED], [untouched, *values]))
    return found


def other_sources(names: Sequence[str], *, references: int, queries: int, rng: np.random.Generator) -> list[Shift]:
    """Take reference and queries from a data set's official training and test part: other writers, other patients.

    Parameters
    ----------
    names : sequence of str
        Keys of `vs22.SETS`.
    references, queries, rng
        As for `shifts`; 0 queries for the whole test part.
    """
    found = []
    for name in track(names, "official parts"):
        data = datasets.load(name)
        reference = data.train_images[rng.permutation(len(data.train_images))[:references]]
        images = data.test_images[rng.permutation(len(data.test_images))[: queries or None]]
        density, coverage = ReferenceManifold(vs22.K).fit(vs22.flat(reference)).density_coverage(vs22.flat(images))
        expected = expected_coverage(len(reference), len(images), vs22.K)
        title = f"{vs22.image_set(name).title}: official test against official training part"
        found.append(Shift(title, np.zeros(1), np.array([density]), np.array([coverage / expected])))
    return found


def printed_path_point(item: str = "§5.1") -> tuple[float, float]:
    """Give PathMNIST's reference density, and its reference coverage over the closed form.

    Parameters
    ----------
    item : str
        "§5.1", printed, in pixels, or "Figure 12", stored by the authors, in the network's embedding.
    """
    expected = coverage_by_size().loc[("FGSM", "PathMNIST"), "expected"]
    density, coverage = (
        published.value("vs22", item, "PathMNIST", f"reference {name}") for name in ("density", "coverage")
    )
    return density, coverage / expected


# ---------------------------------------------------------------------------------------------- VS22: printed facts


@dataclass(frozen=True)
class PrintedFact:
    """Two things that a paper prints and that do not go together, or do.

    Attributes
    ----------
    statement : str
        What should be equal.
    one, other : float
        The two sides.
    """

    statement: str
    one: float
    other: float

    @property
    def agrees(self) -> bool:
        """Whether the two sides are equal, to 1 % for measured values."""
        return abs(self.one - self.other) <= 0.01 * max(abs(self.one), abs(self.other))

    @property
    def exact(self) -> bool:
        """Whether they are equal to the digit."""
        return self.one == self.other


def printed_facts() -> list[PrintedFact]:
    """List counts of VS22 that can be checked against each other or against the data sets as they are loaded today."""

    def table3(title: str, column: str) -> float:
        return published.value("vs22", "Table 3", title, column)

    organ = len(datasets.pooled(datasets.load("organamnist"))[0])
    step = published.value("vs22", "setting", "FGSM", "eps step")
    return [
        PrintedFact(
            "MNIST: images = model images + validation images (Table 3)",
            table3("MNIST", "images"),
            table3("MNIST", "model images") + table3("MNIST", "validation images"),
        ),
        PrintedFact(
            "MNIST: model images of §4.1 = model images of Table 3",
            published.value("vs22", "§4.1", "MNIST", "model images"),
            table3("MNIST", "model images"),
        ),
        PrintedFact(
            "OrganMNIST: images = model images + validation images (Table 3)",
            table3("OrganMNIST", "images"),
            table3("OrganMNIST", "model images") + table3("OrganMNIST", "validation images"),
        ),
        PrintedFact(
            "OrganMNIST: images (Table 3) = images in the file of today", table3("OrganMNIST", "images"), organ
        ),
        PrintedFact(
            "FGSM: number of ε = those from 0 to 1 in the printed steps",
            published.value("vs22", "setting", "FGSM", "number of eps"),
            round(1 / step) + 1,
        ),
    ]


def facts_frame(facts: Sequence[PrintedFact]) -> pandas.DataFrame:
    """Show printed facts as a table."""
    return pandas.DataFrame([
        {"should be equal": fact.statement, "one": f"{fact.one:g}", "other": f"{fact.other:g}", "equal": fact.exact}
        for fact in facts
    ]).set_index("should be equal")  # fmt: skip


def admixture_lines() -> pandas.DataFrame:
    """Compare Table 4 with the straight line that density follows when shares of one batch are mixed.

    Density is a mean over queries, so that of a mixture is the mixture of the densities: with a share s of attacked
    images, (1 − s) · clean + s · attacked, up to which images the attacked ones replace. The line
    is drawn through the printed 0 % and the printed density of the whole attacked batch (§5.2), where §5.2 prints one
    number; else through 0 and 75 %.

    Returns
    -------
    pandas.DataFrame
        Printed density, the line, and their ratio, for 25, 50 and 75 %.
    """
    lines = []
    whole = {"PathMNIST": published.value("vs22", "§5.2", "PathMNIST", "adversarial density")}
    for title in ("MNIST", "PathMNIST", "OrganMNIST"):
        clean = published.value("vs22", "Table 4", title, "share=0")
        slope = (
            whole[title] - clean
            if title in whole
            else (published.value("vs22", "Table 4", title, "share=0.75") - clean) / 0.75
        )
        for share in (0.25, 0.5, 0.75):
            printed = published.value("vs22", "Table 4", title, f"share={share:g}")
            line = clean + share * slope
            lines.append(
                {"image set": title, "share": share, "printed": printed, "line": line, "ratio": printed / line}
            )
    return pandas.DataFrame(lines).set_index(["image set", "share"])


def vs22_causes(
    twice: pandas.DataFrame,
    by_constants: pandas.DataFrame,
    bounds: BoundsCurve,
    moved: Sequence[Shift],
    sources: Sequence[Shift],
) -> list[Cause]:
    """Put VS22's causes into words, each with its effect as measured.

    Parameters
    ----------
    twice, by_constants : pandas.DataFrame
        From `normalised_twice` and `normalisations`.
    bounds : BoundsCurve
        From `bounds_alone` on MNIST.
    moved, sources : sequence of Shift
        From `shifts` and `other_sources`.
    """
    before = bounds.epsilons < bounds.kink
    apart = np.abs(bounds.density["as published"] - bounds.density["its bounds alone, no gradient"])[before].max()
    peak = bounds.density["its bounds alone, no gradient"][before].max()
    sizes = coverage_by_size()
    organ, off = twice.loc["OrganMNIST"], by_constants["off by up to"]
    path = printed_path_point()
    noise = next(shift for shift in moved if shift.title.startswith("noise"))
    lines = admixture_lines()["ratio"]
    return [
        Cause(
            "VS22",
            "images normalised twice",
            "normalise once more",
            f"OrganMNIST accuracy {organ['once']:.3f} → {organ['twice']:.3f}; stored by the authors "
            f"{organ['stored by the authors']:.3f}, printed {organ['printed']:.3f}",
            "our own network of the same architecture, without any attack",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "images normalised by their own mean and deviation",
            "0.5 and 0.5, or MNIST's",
            f"OrganMNIST's stored densities are met to {off.iloc[2]:.0%}; otherwise to {off.iloc[0]:.0%} and "
            f"{off.iloc[1]:.0%}",
            "no network is asked; MNIST's constants in the authors' code are its own, and PathMNIST's tiles rise by "
            "their own only (notebook 07)",
            LIKELY,
        ),
        Cause(
            "VS22",
            "bounds (0, 1) on normalised pixels make the hump in density",
            "bounds without any gradient",
            f"density up to {peak:.2f} with no attack at all; up to the kink the published attack differs by "
            f"{apart:.3f} at most",
            "no network is asked; the same curve comes out",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "kink at ε = μ/σ",
            "where black pixels reach the bound",
            f"μ/σ = {bounds.kink:.3f}",
            "from there on, and not before, the gradient can move the background",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "reference sets of different sizes",
            "closed form of coverage for each size",
            "; ".join(
                f"{title}, {experiment}: {row['expected']:.3f} (printed {row['printed']:g})"
                for (experiment, title), row in sizes.iterrows()
                if title != "PathMNIST"
            ),
            "exchangeability alone gives the printed coverage",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "PathMNIST's reference and hold-out are not exchangeable in pixels",
            "clean hold-outs moved off the reference",
            f"printed: density {path[0]:g}, coverage {path[1]:.2f} of its closed form; noise of "
            f"{noise.strengths[-1]:g}: {noise.density[-1]:.2f} and {noise.coverage[-1]:.2f}, inside the network "
            f"{noise.embedded_density[-1]:.2f} and {noise.embedded_coverage[-1]:.2f}",
            "the authors' values inside the network are those of exchangeable sets, so the same images were meant: "
            "a small difference in how pixels were prepared",
            LIKELY,
        ),
        Cause(
            "VS22",
            "another source would do it as well",
            "official test against official training part",
            "; ".join(
                f"{shift.title.split(':')[0]}: density {shift.density[0]:.2f}, coverage {shift.coverage[0]:.2f}"
                for shift in sources
            ),
            "but pooled and stratified, as the paper says, parts cannot differ",
            OPEN,
        ),
        Cause(
            "VS22",
            "counts that do not add up",
            "arithmetic on the printed counts",
            f"{sum(not fact.exact for fact in printed_facts())} of {len(printed_facts())} equalities broken",
            "whole numbers",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "PathMNIST's row of Table 4 was not mixed from one batch",
            "arithmetic on the printed densities",
            f"off its straight line by up to {(lines.loc['PathMNIST'] - 1).abs().max():.0%}; the other two sets by "
            f"{(lines.drop('PathMNIST', level=0) - 1).abs().max():.0%} at most",
            "density of a mixture is the mixture of densities, up to which images were replaced: other subsets with "
            "very uneven densities, or other batches",
            LIKELY,
        ),
    ]


def record_vs22(
    run: Any,
    twice: pandas.DataFrame,
    by_constants: pandas.DataFrame,
    bounds: BoundsCurve,
    moved: Sequence[Shift],
    sources: Sequence[Shift],
) -> None:
    """Put every number behind VS22's causes into a run's record, and the stored accuracies as comparisons.

    Parameters
    ----------
    run : advlib.record.Run
    twice, by_constants, bounds, moved, sources
        As for `vs22_causes`.
    """
    for title in bounds.density:
        run.metric(f"bounds.{title}.density", bounds.density[title])
        run.metric(f"bounds.{title}.coverage", bounds.coverage[title])
    for shift in (*moved, *sources):
        run.metric(f"shift.{shift.title}.density", shift.density)
        run.metric(f"shift.{shift.title}.coverage", shift.coverage)
    for name, row in by_constants.iloc[:3].iterrows():
        run.metric(f"normalised by {name}", row.tolist())
    for title, row in twice.iterrows():
        for column in ("once", "twice", "twice, cut to (0, 1)"):
            run.metric(f"normalised.{title}.{column}", row[column])
        stored = row["stored by the authors"]
        if stored is None or np.isnan(stored):
            continue
        same, once = (abs(row[column] - stored) <= STORED_WITHIN for column in ("twice", "once"))
        run.compare({
            "paper": "vs22",
            "item": "stored results",
            "row": title,
            "column": "robust accuracy (%) eps=0",
            "as_published": round(100 * row["twice"], 1),
            "corrected": round(100 * row["once"], 1),
            "verdict": "reproduced" if once else "reproduced as published only" if same else "not reproduced",
            "cause": ""
            if once
            else "images normalised on load and by the attacked network again; no attack is needed"
            if same
            else "our network reads twice normalised images differently from theirs",
        })  # fmt: skip


STORED_WITHIN = 0.05
"""Accuracies of two networks of one architecture on images that neither was trained for may differ by so much."""
