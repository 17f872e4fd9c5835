"""What VS22 says of FGSM (§5.1, stored results), number by number and sentence by sentence, beside our curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advlib import models
from compendium.claims import published, verdicts
from compendium.claims.published import Published
from compendium.common.vs22 import AS_PUBLISHED, CORRECTED, MODES, RELATIVE, SETS, Curve, K
from compendium.nb02_primary_results.fgsm import FgsmResult

Curves = Mapping[str, Curve]
"""Title of an image set → its curve over ε, in one mode."""


def crossing(x: np.ndarray, y: np.ndarray, level: float) -> float | None:
    """Return where y (n,), having been above `level`, first falls below it, interpolated on x (n,); None if nowhere."""
    below = np.flatnonzero((y < level) & np.maximum.accumulate(y > level))
    if not len(below):
        return None
    j = below[0]
    share = (y[j - 1] - level) / (y[j - 1] - y[j])
    return float(x[j - 1] + share * (x[j] - x[j - 1]))


GRID_STEP = 1 / 19
"""Distance of two ε of the paper's grid: nothing read off its curves in ε is known better."""

_STORED = ("eps=0.158", "eps=0.316", "eps=0.526", "eps=1", "crossing eps")
"""Ends of the columns of the authors' stored curves that are compared."""


def read_off(column: str, curve: Curve) -> float | None:
    """Return a number of §5.1, or a point of a stored curve, named as in `data/published/vs22.csv`."""
    statistic = "coverage" if "coverage" in column else "density"
    values, clean = getattr(curve, statistic), getattr(curve.clean, statistic)
    if column.startswith("reference"):
        return clean
    if column.endswith(("crossing eps", "raised up to eps")):
        return crossing(curve.x, values, clean)
    if column.endswith("smallest"):
        return float(values.min())
    if column.endswith("peak"):
        return float(values[1:].max())
    if column.endswith("peak eps"):
        return float(curve.x[1:][values[1:].argmax()])
    return float(values[np.abs(curve.x - float(column.partition("eps=")[2])).argmin()])


def tolerance(column: str, printed: float, curve: Curve) -> float:
    """Return how far a rerun number of §5.1 may lie from the printed one, by what limits the knowledge of either.

    Reference density and coverage: three standard errors of the difference of two runs, ours and one of the paper's
    size (coverage varies with density, in proportion), and half a unit of the second decimal. An ε: one step of the
    paper's grid. The smallest coverage: 0.01, as it is compared with 0. Others: `RELATIVE`, at
    least 0.01.
    """
    if column.startswith("reference"):
        error = curve.clean.density_error
        paper = error * np.sqrt(curve.n_queries / max(curve.n_queries, 2100))
        both = 3 * float(np.hypot(error, paper)) + 0.005
        return both if column == "reference density" else both * curve.clean.coverage / curve.clean.density
    if column.endswith("eps"):
        return GRID_STEP
    return 0.01 if column.endswith("smallest") else max(RELATIVE * printed, 0.01)


def _shown(value: float | None) -> float | str:
    return "none" if value is None else round(value, 3)


def record_fgsm(run: Any, results: Sequence[FgsmResult]) -> None:
    """Put §5.1 into a run's record: curves as metrics, every printed number and sentence as a comparison.

    Parameters
    ----------
    run : record.Run
    results : sequence of FgsmResult
    """
    for result in results:
        either = result.curves[CORRECTED.name]
        metrics = {"reference_density": either.clean.density, "reference_coverage": either.clean.coverage}
        metrics["expected_coverage"] = either.expected_coverage
        for name, curve in result.curves.items():
            (area, power), (_, coverage_power) = curve.decisions("density"), curve.decisions("coverage")
            of_mode = {"density": curve.density, "coverage": curve.coverage, "accuracy": curve.accuracy}
            of_mode |= {"density_power": power, "density_auroc": area, "coverage_power": coverage_power}
            of_mode["zero_gradient_share"] = result.zero_gradient_share[name]
            metrics |= {f"{name}.{key}": values for key, values in of_mode.items()}
        for key, values in metrics.items():
            run.metric(f"fgsm.{result.image_set.title}.{key}", values)
        if result.image_set.in_paper:
            _compare_numbers(run, result)
    judge_fgsm(run, {result.image_set.title: result for result in results})


# ---------------------------------------------------------------- numbers


def _compare_numbers(run: Any, result: FgsmResult) -> None:
    for entry in published.load("vs22"):
        if entry.row != result.image_set.title:
            continue
        if entry.item in ("§4.1", "Table 3"):
            run.compare(_count(entry, result))
        elif entry.item == "§5":
            run.compare(_accuracy(entry, result))
        elif entry.item == "§5.1" or (entry.item == "stored results" and entry.column.endswith(_STORED)):
            run.compare(_point(entry, result))


def _count(entry: Published, result: FgsmResult) -> dict[str, Any]:
    """Compare a size of an image set."""
    network = result.image_set.network
    split = models.card(network)["split"]
    train, held = split["train_size"], split["holdout_size"]
    classes = models.spec(network).classes
    counted = {"images": train + held, "classes": classes, "model images": train, "validation images": held}
    ours = counted[entry.column]
    # MedMNIST's present OrganAMNIST file holds 20 images fewer than the release that the paper used.
    same = abs(ours - entry.value) <= 0.001 * entry.value
    cause = "" if ours == entry.value else "the present file of the data set holds other images"
    if not same:
        in_text = published.value("vs22", "§4.1", entry.row, entry.column)
        cause = f"§4.1 says {in_text:.0f}: a misprint of the table"
    return verdicts.compare(entry.key, {CORRECTED.name: ours}, {mode.name: same for mode in MODES}, cause)


def _accuracy(entry: Published, result: FgsmResult) -> dict[str, Any]:
    """Compare the network's accuracy on the hold-out, in per cent."""
    fed_twice = 100 * float(result.curves[AS_PUBLISHED.name].accuracy[0])
    whole = 100 * float(models.card(result.image_set.network)["accuracy"])
    ours = {AS_PUBLISHED.name: fed_twice, CORRECTED.name: whole}
    return verdicts.compare(
        entry.key,
        {mode: round(value, 1) for mode, value in ours.items()},
        {mode: abs(value - entry.value) <= 0.6 for mode, value in ours.items()},
        f"the attacked network, fed images normalised twice, reads {fed_twice:.1f} % of them rightly",
    )


def _point(entry: Published, result: FgsmResult) -> dict[str, Any]:
    """Compare a point of a curve."""
    ours = {mode: read_off(entry.column, curve) for mode, curve in result.curves.items()}
    band = tolerance(entry.column, entry.value, result.curves[CORRECTED.name])
    near = {mode: value is not None and abs(value - entry.value) <= band for mode, value in ours.items()}
    because = _number_cause(verdicts.verdict(near), entry.column, result, entry.value)
    shown = {mode: _shown(value) for mode, value in ours.items()}
    return verdicts.compare(entry.key, shown, near, f"band ± {band:.2g}{because}{_against_stored(entry)}")


def _against_stored(entry: Published) -> str:
    """Say where a printed crossing or end differs from that of the authors' own stored curve."""
    column = "density crossing eps" if entry.column == "density raised up to eps" else entry.column
    if entry.item != "§5.1" or not column.endswith("crossing eps"):
        return ""
    stored = published.value("vs22", "stored results", entry.row, column)
    if abs(stored - entry.value) < 0.01:
        return ""
    return (
        f"; the authors' own stored curve crosses its reference at ε = {stored:g}, not at the printed {entry.value:g}"
    )


def _number_cause(word: str, column: str, result: FgsmResult, printed: float) -> str:
    """Say why a number of §5.1 comes out only as published, or not at all."""
    if column.startswith("reference"):
        return "" if word == "reproduced" else "; a batch and a reference of other images"
    corrected = result.curves[CORRECTED.name]
    tossed = _shown(read_off(column, result.noise[AS_PUBLISHED.name]))
    same = f"; as published with coin flips for the gradient's sign: {tossed}"
    if word == "reproduced as published only":
        return f"; images normalised twice and pulled into (0, 1) of normalised values{same}"
    if word == "not reproduced":
        whole = result.image_set.references or models.card(result.image_set.network)["split"]["train_size"]
        if corrected.n_reference < 0.9 * whole:
            few = f"; {corrected.n_reference} reference images instead of {whole}"
            return f"{few}: what moved images give depends on their number{same}"
        extra = ""
        if column in ("adversarial density at eps=1", "adversarial density eps=1"):
            share = printed / result.pulled_density
            extra = f"; it would come out if {share:.1%} of the images had no gradient at all (saturated softmax)"
        return f"; other network and other reference images than ours{same}{extra}"
    if column.endswith("smallest"):
        no_hit = "; by chance: corrected, no ball is hit any more at large ε"
        return "" if read_off(column, corrected) else no_hit
    statistic = "coverage" if "coverage" in column else "density"
    return "" if rises_then_falls(corrected, statistic) else "; by chance: the corrected curve falls from the start"


# ---------------------------------------------------------------- sentences


def rises_then_falls(curve: Curve, statistic: str = "density") -> bool:
    """Whether a curve climbs over the clean level by more than 5 % of it and ends at less than half of it.

    Both come from the same images and the same balls, so a few per cent are no matter of chance.
    """
    return _course(curve, statistic) == "rises and falls"


def _course(curve: Curve, statistic: str) -> str:
    """Say in a word how a curve goes."""
    values, clean = getattr(curve, statistic), getattr(curve.clean, statistic)
    if values[1:].max() <= 1.05 * clean:
        return "falls"
    return "rises and falls" if values[-1] < clean / 2 else "rises, and ends at more than half"


def _apart(curve: Curve, statistic: str) -> tuple[bool, float]:
    """Whether a statistic differs from the clean one at every ε > 0 by three standard errors, and the least power."""
    clean = getattr(curve.clean, statistic)
    moved = curve.x > 0
    errors = np.hypot([score.density_error for score in curve.scores], curve.clean.density_error)
    gaps = np.abs(getattr(curve, statistic) - clean) > 3 * clean / curve.clean.density * errors
    return bool(gaps[moved].all()), float(curve.decisions(statistic)[1][moved].min())


def density_differs_on_mnist(curves: Curves) -> tuple[bool, str]:
    """On MNIST density differs from the clean batch's at every ε > 0."""
    apart, power = _apart(curves["MNIST"], "density")
    return apart, f"least power of one sub-batch over ε > 0: {power:.2f}"


def both_differ_on_every_set(curves: Curves) -> tuple[bool, str]:
    """Density and coverage differ from the clean batch's at every ε > 0 on every set."""
    found = [_apart(curve, statistic) for curve in curves.values() for statistic in ("density", "coverage")]
    return all(apart for apart, _ in found), f"least power of one sub-batch: {min(power for _, power in found):.2f}"


def organ_density_goes_like_mnist(curves: Curves) -> tuple[bool, str]:
    """Density rises and falls on both MNIST and OrganMNIST, or on neither."""
    courses = {title: _course(curves[title], "density") for title in ("MNIST", "OrganMNIST")}
    rises = {course == "rises and falls" for course in courses.values()}
    return len(rises) == 1, ", ".join(f"{title} {course}" for title, course in courses.items())


def coverage_goes_alike(curves: Curves) -> tuple[bool, str]:
    """Coverage rises and falls on all of the paper's sets, or on none."""
    rises = {rises_then_falls(curves[title], "coverage") for title in _of_paper(curves)}
    return len(rises) == 1, ", ".join(f"{title} {_course(curve, 'coverage')}" for title, curve in curves.items())


def _of_paper(curves: Curves) -> list[str]:
    return [chosen.title for chosen in SETS.values() if chosen.in_paper and chosen.title in curves]


def clean_density_near_one(curves: Curves) -> tuple[bool, str]:
    """Clean density lies within three standard errors of 1 on every set."""
    clean, mnist = [curve.clean for curve in curves.values()], curves["MNIST"]
    one = _shown(crossing(mnist.x, mnist.density, 1.0))
    near = all(abs(score.density - 1) <= 3 * score.density_error for score in clean)
    return near, f"attacked MNIST has density 1 too, at ε = {one}"


def density_rises_then_falls(curves: Curves) -> tuple[bool, str]:
    """Density rises and falls on MNIST and on OrganMNIST."""
    words = []
    for curve in (both := [curves["MNIST"], curves["OrganMNIST"]]):
        end = read_off("density raised up to eps", curve)
        raised = "raised on the whole axis" if curve.density[-1] > curve.clean.density else "never raised"
        words.append(raised if end is None else f"raised up to ε = {end:.3f}")
    return all(map(rises_then_falls, both)), f"MNIST {words[0]}, OrganMNIST {words[1]}"


def density_halved_at_the_end(curves: Curves) -> tuple[bool, str]:
    """At the largest ε density lies below half of the clean batch's on every set."""
    ends = {title: curve.density[-1] / curve.clean.density for title, curve in curves.items()}
    return max(ends.values()) < 0.5, ", ".join(f"{title} {value:.3f}" for title, value in ends.items())


def coverage_grows_with_the_batch(curves: Curves) -> tuple[bool, str]:
    """Clean coverage of the whole batch is larger than the mean sub-batch's on every set."""
    both = {t: (curve.clean.coverage, float(curve.clean.batch_coverage.mean())) for t, curve in curves.items()}
    words = ", ".join(f"{title} {whole:.3f} whole, {part:.3f} sub-batch" for title, (whole, part) in both.items())
    return all(whole > part for whole, part in both.values()), words


def density_exceeds_one(curves: Curves) -> tuple[bool, str]:
    """Density of some sub-batch exceeds 1, and the coverage of each lies in [0, 1]."""
    scores = [score for curve in curves.values() for score in (curve.clean, *curve.scores)]
    highest = max(float(score.batch_density.max()) for score in scores)
    covered = np.concatenate([score.batch_coverage for score in scores])
    return bool(highest > 1 and covered.min() >= 0 and covered.max() <= 1), (
        f"sub-batches: density up to {highest:.2f}, coverage {covered.min():.3f} to {covered.max():.3f}"
    )


def spread_shrinks_where_coverage_falls(curves: Curves, spread: Mapping[str, Sequence[float]]) -> tuple[bool, str]:
    """At the first ε with half of the clean coverage the attacked images spread by less than 0.9 of the clean ones."""
    below = {title: np.flatnonzero(curve.coverage < curve.clean.coverage / 2) for title, curve in curves.items()}
    found = {title: spread[title][places[0]] for title, places in below.items() if len(places)}
    words = ", ".join(f"{t} {found[t]:.2f}" if t in found else f"{t}: no such ε" for t in curves)
    return bool(found) and max(found.values()) < 0.9, words


def judge_fgsm(run: Any, results: Mapping[str, FgsmResult]) -> None:
    """Judge the sentences of §5.1 by the curves; criteria in `data/published/sentences/`.

    Parameters
    ----------
    run : record.Run
    results : dict
        Title of an image set → result; "MNIST" and "OrganMNIST" at least.
    """
    by_mode = {mode.name: {title: r.curves[mode.name] for title, r in results.items()} for mode in MODES}
    numbers = _numbers(results, by_mode)
    predicates = (
        density_differs_on_mnist, both_differ_on_every_set, organ_density_goes_like_mnist, coverage_goes_alike,
        clean_density_near_one, density_rises_then_falls, density_halved_at_the_end, coverage_grows_with_the_batch,
        density_exceeds_one,
    )  # fmt: skip
    found = {judge.__name__: {mode: judge(curves) for mode, curves in by_mode.items()} for judge in predicates}
    found["spread_shrinks_where_coverage_falls"] = {
        mode: spread_shrinks_where_coverage_falls(curves, {title: r.spread[mode] for title, r in results.items()})
        for mode, curves in by_mode.items()
    }
    findings = {name: verdicts.Finding.of(pairs, **numbers) for name, pairs in found.items()}
    verdicts.judge_sentences(run, findings, paper="vs22")


def _numbers(results: Mapping[str, FgsmResult], by_mode: Mapping[str, Curves]) -> dict[str, Any]:
    """Collect what the causes of the sentences name."""
    apart = {mode: _apart(curves["MNIST"], "density")[0] for mode, curves in by_mode.items()}
    crosses = (
        "the curve crosses its reference; near the crossing mean and power say nothing, and at some ε of the grid "
        "the means differ by less than three standard errors"
    )
    if apart[CORRECTED.name]:
        crosses = f"as published {crosses}; corrected they differ by more everywhere"
    curves, mnist = by_mode[CORRECTED.name], results["MNIST"]
    formula = {title: (c.expected_coverage, c.expected_batch_coverage) for title, c in curves.items()}
    return {
        "where_it_crosses": "" if all(apart.values()) else crosses,
        "all_sets": ", ".join(results),
        "paper_sets": " and ".join(_of_paper(curves)),
        "clean_densities": ", ".join(
            f"{t} {c.clean.density:.2f} ± {c.clean.density_error:.2f}" for t, c in curves.items()
        ),
        "coin_flip_peak": mnist.noise[AS_PUBLISHED.name].density.max(),
        "gradient_peak": mnist.curves[AS_PUBLISHED.name].density.max(),
        "expected_coverages": ", ".join(f"{t} {whole:.3f} and {part:.3f}" for t, (whole, part) in formula.items()),
        "highest_density": curves["MNIST"].n_reference / K,
    }
