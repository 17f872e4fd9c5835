"""Why VS22's numbers are what they are: one cause at a time, each with its effect in numbers.

Normalisation done twice (`normalised_twice`) and by what (`normalisations`), its bounds without any gradient
(`bounds_alone`), coverage by closed form (`coverage_by_size`), what moves a clean hold-out off it (`shifts`,
`other_sources`), and printed numbers that do not go together (`printed_facts`, `admixture_lines`).

References
----------
D. K. Venkatesh, P. Steinbach, arXiv:2206.08738 (2022).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas

from advlib import datasets, models
from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from compendium.claims import published
from compendium.common import vs22
from compendium.common.kept import kept_manifold
from compendium.common.splits import held_out

TITLES = ("MNIST", "PathMNIST", "OrganMNIST")


def _printed(item: str) -> dict[tuple[str, str], float]:
    """Give the numbers of a section, or of the authors' stored results, by row and column."""
    return {(entry.row, entry.column): entry.value for entry in published.load("vs22", item)}


# ---------------------------------------------------------------------------------------------- normalised twice


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
        same from the authors' stored results at ε = 0, and the paper's accuracy, NaN where there is none.
    """
    stored, printed = _printed("stored results"), _printed("§5")
    rows = []
    for name in track(names, "normalised twice"):
        chosen = vs22.image_set(name)
        real, labels = held_out(chosen.network, images)
        model = vs22.network(chosen)
        again = vs22.AS_PUBLISHED.to_attack(chosen, real)
        ours = [models.accuracy(model, batch, labels) for batch in (real, again, again.clip(0, 1))]
        stored_share = stored.get((chosen.title, "robust accuracy (%) eps=0"), np.nan) / 100
        rows.append([chosen.title, *ours, stored_share, printed.get((chosen.title, "accuracy (%)"), np.nan) / 100])
    columns = ["image set", "once", "twice", "twice, cut to (0, 1)", "stored by the authors", "printed"]
    return pandas.DataFrame(rows, columns=columns).set_index("image set")


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
    chosen, mnist = vs22.image_set("organamnist"), vs22.image_set("mnist")
    densities = stored_densities(chosen.title)
    sizes, stored = np.array(list(densities)), np.array(list(densities.values()))
    split = vs22.reference_and_holdout(chosen.name)
    manifold = kept_manifold(vs22.flat(split.reference), vs22.K)
    seed = int(rng.integers(2**63))
    constants = {
        "0.5 and 0.5, as in MedMNIST's examples": ((0.5,), (0.5,)),
        "MNIST's, 0.1307 and 0.3081": (mnist.mean, mnist.std),
        f"its own, {chosen.mean[0]:g} and {chosen.std[0]:g}": (chosen.mean, chosen.std),
    }
    rows = []
    for name, (mean, std) in constants.items():
        coins = vs22.noise_sweep(
            split.images, list(densities), np.random.default_rng(seed), vs22.AS_PUBLISHED,
            replace(chosen, mean=mean, std=std),
        )  # fmt: skip
        density = np.array([manifold.density(vs22.flat(images)) for images in track(coins, name, len(sizes))])
        rows.append([name, *density, np.abs(density / stored - 1)[sizes < 1].max()])
    rows.append(["stored by the authors", *stored, np.nan])
    columns = ["normalised by", *(f"ε = {epsilon:.3f}" for epsilon in sizes), "off by up to"]
    return pandas.DataFrame(rows, columns=columns).set_index("normalised by")


def stored_densities(title: str) -> dict[float, float]:
    """Give the density that the authors stored for attacked images of a set, ε → density."""
    stored = _printed("stored results")
    keys = {epsilon: (title, f"adversarial density eps={round(epsilon, 3):g}") for epsilon in vs22.EPSILONS}
    return {epsilon: stored[key] for epsilon, key in keys.items() if key in stored}


# ---------------------------------------------------------------------------------------------- bounds

BOUNDS_ALONE, UNTOUCHED = "its bounds alone, no gradient", "untouched hold-out, in the mean"


def bounds_alone(
    name: str, epsilons: Sequence[float], *, references: int, queries: int, rng: np.random.Generator
) -> pandas.DataFrame:
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

    Returns
    -------
    pandas.DataFrame
        A row an attack ("as published", `BOUNDS_ALONE`, "corrected") and ε: density and coverage; and `UNTOUCHED`, what
        both are in the mean for exchangeable images.
    """
    chosen = vs22.image_set(name)
    split = vs22.reference_and_holdout(name, references, queries, rng)
    manifold = ReferenceManifold(vs22.K).fit(vs22.flat(split.reference))
    model = vs22.network(chosen)
    start = vs22.AS_PUBLISHED.to_attack(chosen, split.images)
    pushed = (vs22.clipped_step(start, np.zeros_like(start), epsilon) for epsilon in epsilons)
    published_attack, corrected_attack = (
        vs22.fgsm_images(mode, chosen, model, split.images, split.labels, epsilons) for mode in vs22.MODES
    )
    curves = {
        vs22.AS_PUBLISHED.name: published_attack,
        BOUNDS_ALONE: (vs22.AS_PUBLISHED.to_pixels(chosen, images) for images in pushed),
        vs22.CORRECTED.name: corrected_attack,
    }
    rows = []
    for title, moved in curves.items():
        for epsilon, images in zip(epsilons, track(moved, f"{chosen.title}, {title}", len(epsilons)), strict=True):
            rows.append((title, epsilon, *manifold.density_coverage(vs22.flat(images))))
    untouched = expected_coverage(len(split.reference), len(split.images), vs22.K)
    rows += [(UNTOUCHED, epsilon, 1.0, untouched) for epsilon in epsilons]
    return pandas.DataFrame(rows, columns=["attack", "ε", "density", "coverage"])


# ---------------------------------------------------------------------------------------------- coverage


def coverage_by_size() -> pandas.DataFrame:
    """Give the mean coverage of an exchangeable hold-out for the authors' sizes, beside what they print.

    Returns
    -------
    pandas.DataFrame
        Reference images, queries, expected coverage at k = 5, and printed coverage.
    """
    k = int(published.value("vs22", "setting", "metrics", "k"))
    rows = []
    for experiment, section in (("FGSM", "§5.1"), ("boundary attack", "§5.2")):
        for title in TITLES:
            references = int(published.value("vs22", "setting", title, f"references, {experiment}"))
            queries = int(published.value("vs22", "Table 3", title, "validation images"))
            printed = published.value("vs22", section, title, "reference coverage")
            expected = expected_coverage(references, queries, k)
            rows.append((experiment, title, references, queries, expected, printed))
    columns = ["experiment", "image set", "references", "queries", "expected", "printed"]
    return pandas.DataFrame(rows, columns=columns).set_index(columns[:2])


def printed_path_point() -> tuple[float, float]:
    """Give PathMNIST's printed reference density, and its printed reference coverage over the closed form."""
    row = coverage_by_size().loc[("FGSM", "PathMNIST")]
    return published.value("vs22", "§5.1", "PathMNIST", "reference density"), row["printed"] / row["expected"]


NOISE = "noise, all images"
CHANGES = {
    "more contrast, all images": (0.01, 0.02, 0.03),
    "less contrast, all images": (0.01, 0.02, 0.03),
    NOISE: (0.005, 0.01, 0.02),
}
"""What is done to every image of the hold-out, and how strongly: a factor 1 ± s on the contrast, or Gaussian noise of
standard deviation s, pixels in [0, 1]."""


def _changed(images: np.ndarray, change: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    if change == NOISE:
        return (images + strength * rng.standard_normal(images.shape)).astype(np.float32)
    middle, factor = images.mean(dtype=np.float64), 1 + strength if change.startswith("more") else 1 - strength
    return ((images - middle) * factor + middle).astype(np.float32)


THINNED, THINNED_SHARES = "half of the classes thinned in the reference", (0.5, 0.8, 0.95)
"""Share of the upper half of the classes that is taken out of the reference."""

PIXELS, INSIDE = "pixels", "last hidden layer"
_SHIFT_COLUMNS = ["change", "strength", "space", "density", "coverage"]


def shifts(name: str, *, references: int, queries: int, rng: np.random.Generator) -> pandas.DataFrame:
    """Move a hold-out off its reference in several ways, and see where density and coverage go, in pixels and inside.

    Parameters
    ----------
    name : str
        Key of `vs22.SETS`.
    references, queries : int
        Of the model set and the hold-out.
    rng : numpy.random.Generator
        Draws both, and the noise.

    Returns
    -------
    pandas.DataFrame
        A row a change, strength (0 for the untouched hold-out) and space, `PIXELS` or `INSIDE`: density, and coverage
        over its closed form. Both are 1 in the mean where hold-out and reference are exchangeable.
    """
    chosen = vs22.image_set(name)
    # Some more than are used, so that what thinning takes out can be replaced.
    split = vs22.reference_and_holdout(name, 2 * references, queries, rng)
    model = vs22.network(chosen)
    spaces = {PIXELS: vs22.flat, INSIDE: lambda images: models.embed(model, images)}
    pool = {space: points(split.reference) for space, points in spaces.items()}
    expected = expected_coverage(references, len(split.images), vs22.K)
    rows = []

    def score(change: str, strength: float, images: np.ndarray, reference: Mapping[str, ReferenceManifold]) -> None:
        for space, points in spaces.items():
            density, coverage = reference[space].density_coverage(points(images))
            rows.append((change, strength, space, density, coverage / expected))

    def fitted(kept: np.ndarray) -> dict[str, ReferenceManifold]:
        return {space: ReferenceManifold(vs22.K).fit(points[kept]) for space, points in pool.items()}

    whole = fitted(np.arange(references))
    score("untouched", 0.0, split.images, whole)
    untouched = rows.copy()
    for change, strengths in track(CHANGES.items(), f"{chosen.title}: changed hold-outs", len(CHANGES)):
        rows += [(change, *row[1:]) for row in untouched]
        for strength in strengths:
            score(change, strength, _changed(split.images, change, strength, rng), whole)
    upper = split.reference_labels >= (split.reference_labels.max() + 1) / 2
    chance = rng.random(len(upper))
    rows += [(THINNED, *row[1:]) for row in untouched]
    for share in track(THINNED_SHARES, f"{chosen.title}: thinned classes"):
        kept = np.flatnonzero(~upper | (chance >= share))[:references]
        if len(kept) < references:
            words = "references must leave enough images when classes are thinned"
            raise ValueError(f"{words}, at most {len(kept)}, but is {references}")
        score(THINNED, share, split.images, fitted(kept))
    return pandas.DataFrame(rows, columns=_SHIFT_COLUMNS)


def other_sources(names: Sequence[str], *, references: int, queries: int, rng: np.random.Generator) -> pandas.DataFrame:
    """Take reference and queries from a data set's official training and test part: other writers, other patients.

    Parameters
    ----------
    names : sequence of str
        Keys of `vs22.SETS`.
    references, queries, rng
        As for `shifts`; 0 queries for the whole test part.

    Returns
    -------
    pandas.DataFrame
        As from `shifts`, in pixels.
    """
    rows = []
    for name in track(names, "official parts"):
        data = datasets.load(name)
        reference = data.train_images[rng.permutation(len(data.train_images))[:references]]
        images = data.test_images[rng.permutation(len(data.test_images))[: queries or None]]
        density, coverage = ReferenceManifold(vs22.K).fit(vs22.flat(reference)).density_coverage(vs22.flat(images))
        expected = expected_coverage(len(reference), len(images), vs22.K)
        title = f"{vs22.image_set(name).title}: official test against official training part"
        rows.append((title, 0.0, PIXELS, density, coverage / expected))
    return pandas.DataFrame(rows, columns=_SHIFT_COLUMNS)


def first_and_last(shifted: pandas.DataFrame, change: str, space: str) -> pandas.DataFrame:
    """Give density and coverage of one change, untouched (row "first") and at its strongest (row "last")."""
    chosen = shifted[(shifted["change"] == change) & (shifted["space"] == space)]
    return chosen[["density", "coverage"]].iloc[[0, -1]].set_axis(["first", "last"])


# ---------------------------------------------------------------------------------------------- printed facts


def printed_facts() -> pandas.DataFrame:
    """Check counts of VS22 against each other or against the data sets as they are loaded today.

    Returns
    -------
    pandas.DataFrame
        What should be equal, the one and the other, and whether they are.
    """

    def printed(item: str, title: str, column: str) -> float:
        return published.value("vs22", item, title, column)

    (images, model, validation), (organ_images, organ_model, organ_validation) = (
        [printed("Table 3", title, name) for name in ("images", "model images", "validation images")]
        for title in ("MNIST", "OrganMNIST")
    )
    model_in_text, sizes = printed("§4.1", "MNIST", "model images"), printed("setting", "FGSM", "number of eps")
    steps = round(1 / printed("setting", "FGSM", "eps step"))
    today = len(datasets.pooled(datasets.load("organamnist"))[0])
    added = "images = model images + validation images (Table 3)"
    facts = [
        (f"MNIST: {added}", images, model + validation),
        ("MNIST: model images of §4.1 = model images of Table 3", model_in_text, model),
        (f"OrganMNIST: {added}", organ_images, organ_model + organ_validation),
        ("OrganMNIST: images (Table 3) = images in the file of today", organ_images, today),
        ("FGSM: number of ε = those from 0 to 1 in the printed steps", sizes, steps + 1),
    ]
    rows = [(statement, f"{one:g}", f"{other:g}", one == other) for statement, one, other in facts]
    return pandas.DataFrame(rows, columns=["should be equal", "left", "right", "equal"]).set_index("should be equal")


def admixture_lines() -> pandas.DataFrame:
    """Compare Table 4 with the straight line that density follows when shares of one batch are mixed.

    Density is a mean over queries, so that of a mixture is the mixture of the densities: with a share s of attacked
    images, (1 − s) · clean + s · attacked, up to which images the attacked ones replace. The line
    is drawn through the printed 0 % and the printed density of the whole attacked batch (§5.2), where §5.2 prints one
    number (PathMNIST); else through 0 and 75 %.

    Returns
    -------
    pandas.DataFrame
        Printed density, the line, and their ratio, for 25, 50 and 75 %.
    """
    rows = []
    for title in TITLES:
        clean, *mixed = (
            published.value("vs22", "Table 4", title, f"share={share:g}") for share in (0, 0.25, 0.5, 0.75)
        )
        slope = (mixed[-1] - clean) / 0.75
        if title == "PathMNIST":
            slope = published.value("vs22", "§5.2", title, "adversarial density") - clean
        for share, printed in zip((0.25, 0.5, 0.75), mixed, strict=True):
            line = clean + share * slope
            rows.append((title, share, printed, line, printed / line))
    columns = ["image set", "share", "printed", "line", "ratio"]
    return pandas.DataFrame(rows, columns=columns).set_index(columns[:2])


# ---------------------------------------------------------------------------------------------- causes and record


def numbers(
    twice: pandas.DataFrame,
    by_constants: pandas.DataFrame,
    bounds: pandas.DataFrame,
    moved: pandas.DataFrame,
    sources: pandas.DataFrame,
) -> dict[str, Any]:
    """Give what the texts of VS22's causes name in curly brackets.

    Parameters
    ----------
    twice, by_constants : pandas.DataFrame
        From `normalised_twice` and `normalisations`.
    bounds : pandas.DataFrame
        From `bounds_alone` on MNIST.
    moved, sources : pandas.DataFrame
        From `shifts` and `other_sources`.
    """
    kink = vs22.image_set("mnist").kink
    before = bounds[bounds["ε"] < kink].pivot(index="ε", columns="attack", values="density")
    facts = printed_facts()["equal"]
    off_line = (admixture_lines()["ratio"] - 1).abs().groupby("image set").max()
    coverages = [
        f"{title}, {experiment}: {row['expected']:.3f} (printed {row['printed']:g})"
        for (experiment, title), row in coverage_by_size().drop("PathMNIST", level="image set").iterrows()
    ]
    officially = [
        f"{row['change'].split(':')[0]}: density {row['density']:.2f}, coverage {row['coverage']:.2f}"
        for _, row in sources.iterrows()
    ]
    return {
        "organ": twice.loc["OrganMNIST"],
        "off": by_constants["off by up to"].tolist(),
        "peak": before[BOUNDS_ALONE].max(),
        "apart": (before[vs22.AS_PUBLISHED.name] - before[BOUNDS_ALONE]).abs().max(),
        "coverages": "; ".join(coverages),
        "path": printed_path_point(),
        "strength": CHANGES[NOISE][-1],
        "noise": first_and_last(moved, NOISE, PIXELS).loc["last"],
        "inside": first_and_last(moved, NOISE, INSIDE).loc["last"],
        "sources": "; ".join(officially),
        "broken": (~facts).sum(),
        "facts": len(facts),
        "off_line": off_line,
        "off_others": off_line.drop("PathMNIST").max(),
    }


def record_vs22(
    run: Any,
    twice: pandas.DataFrame,
    by_constants: pandas.DataFrame,
    bounds: pandas.DataFrame,
    moved: pandas.DataFrame,
    sources: pandas.DataFrame,
) -> None:
    """Put every number behind VS22's causes into a run's record.

    Parameters
    ----------
    run : record.Run
    twice, by_constants, bounds, moved, sources
        As for `numbers`.
    """
    in_pixels = pandas.concat([moved[moved["space"] == PIXELS], sources])
    attacked = bounds[bounds["attack"] != UNTOUCHED]
    for prefix, groups in (("bounds", attacked.groupby("attack")), ("shift", in_pixels.groupby("change"))):
        for title, rows in groups:
            for name in ("density", "coverage"):
                run.metric(f"{prefix}.{title}.{name}", rows[name].tolist())
    for name, row in by_constants.iloc[:3].iterrows():
        run.metric(f"normalised by {name}", row.tolist())
    for name in ("mnist", "organamnist"):
        chosen = vs22.image_set(name)
        for what, values in (("mean", chosen.mean), ("std", chosen.std)):
            run.metric(f"normaliser.{chosen.title}.{what}", values[0])
    for title, row in twice.iterrows():
        for column in ("once", "twice", "twice, cut to (0, 1)"):
            run.metric(f"normalised.{title}.{column}", row[column])
