"""What VS22 says of FGSM (§4.1, §4.3, §5, §5.1, stored results): our numbers, and the statistics of its sentences."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas

from advlib import models
from compendium.claims import published, verdicts
from compendium.claims.published import Published
from compendium.common.vs22 import CORRECTED, EPSILONS, MODES, Curve, ImageSet
from compendium.nb02b_density_coverage.fgsm import FgsmResult

Results = Mapping[str, FgsmResult]
"""Title of an image set → its result."""

RISE = 0.05
"""By what share of the clean value a curve must climb to count as risen. Attacked and clean batch are the same images
in the same balls, so a few per cent are no matter of chance."""


def crossing(x: np.ndarray, y: np.ndarray, level: float) -> float | None:
    """Return where y (n,), having been above `level`, first falls below it, interpolated on x (n,); None if nowhere."""
    below = np.flatnonzero((y < level) & np.maximum.accumulate(y > level))
    if not len(below):
        return None
    j = below[0]
    share = (y[j - 1] - level) / (y[j - 1] - y[j])
    return float(x[j - 1] + share * (x[j] - x[j - 1]))


def record_fgsm(run: Any, results: Sequence[FgsmResult]) -> None:
    """Put the curves of §5.1 into a run's record as metrics.

    Parameters
    ----------
    run : record.Run
    results : sequence of FgsmResult
    """
    for result in results:
        either = result.curves[CORRECTED.name]
        metrics = {"reference_density": either.clean.density, "reference_coverage": either.clean.coverage}
        metrics |= {"expected_coverage": either.expected_coverage}
        metrics |= {"mean": result.image_set.mean, "std": result.image_set.std}
        metrics |= {f"{CORRECTED.name}.coin_flips_accuracy": result.read_after_tosses}
        for name, curve in result.curves.items():
            (area, power), (_, coverage_power) = curve.decisions("density"), curve.decisions("coverage")
            of_mode = {"density": curve.density, "coverage": curve.coverage, "accuracy": curve.accuracy}
            of_mode |= {"density_power": power, "density_auroc": area, "coverage_power": coverage_power}
            of_mode |= {"zero_gradient_share": result.zero_gradient_share[name], "spread": result.spread[name]}
            of_mode |= {f"coin_flips_{key}": getattr(result.noise[name], key) for key in ("density", "coverage")}
            of_mode["coin_flips_density_power"] = result.noise[name].decisions("density")[1]
            metrics |= {f"{name}.{key}": values for key, values in of_mode.items()}
        for key, values in metrics.items():
            run.metric(f"fgsm.{result.image_set.title}.{key}", values)


def flag_rates(
    metrics: Mapping[str, Any], stored: Mapping[str, Any], titles: Sequence[str], shown: Sequence[int] = (1, 2, 3, 4)
) -> pandas.DataFrame:
    """Show which share of sub-batches their density flags, corrected: FGSM beside coin flips of the same size.

    Parameters
    ----------
    metrics, stored : dict
        From `record_fgsm`: of this run, and of the stored one at paper scale, in brackets where it knows them.
    titles : sequence of str
        Of image sets.
    shown : sequence of int
        Which of `EPSILONS`.

    Returns
    -------
    pandas.DataFrame
        A line an image set and change, a column an ε.
    """
    columns = {f"ε = {EPSILONS[place]:.2f}": place for place in shown}
    lines = {}
    for title in titles:
        for change, name in (("FGSM", "density_power"), ("coin flips", "coin_flips_density_power")):
            key = f"fgsm.{title}.{CORRECTED.name}.{name}"
            lines[title, change] = {
                words: f"{metrics[key][place]:.2f}" + (f" ({stored[key][place]:.2f})" if key in stored else "")
                for words, place in columns.items()
            }
    return pandas.DataFrame(lines).T.rename_axis(["set", "change"])


def compare_fgsm(run: Any, results: Sequence[FgsmResult]) -> None:
    """Put every printed number and sentence about FGSM into a run's record, by the paper's own image sets.

    Parameters
    ----------
    run : record.Run
    results : sequence of FgsmResult
        MNIST's and OrganMNIST's at least; a set that stands in for one of the paper's is left out.
    """
    ours = {result.image_set.title: result for result in results if result.image_set.in_paper}
    for entry in published.load("vs22"):
        if entry.row in ours:
            _compare_number(run, entry, ours[entry.row])
    found = {mode.name: sentences(ours, mode.name) for mode in MODES}
    for row in found[CORRECTED.name]:
        verdicts.sentence(run, "vs22", row, {mode: of[row] for mode, of in found.items()})
    verdicts.sentence(run, "vs22", "normalisers-of-eqs-1-and-2", {CORRECTED.name: printed_normalisers(ours)})


# ---------------------------------------------------------------- numbers

_STORED = ("eps=0", "eps=0.158", "eps=0.316", "eps=0.526", "eps=1", "crossing eps")
"""Ends of the columns of the authors' stored curves that are compared."""

_COUNTERPARTS = {
    "density raised up to eps": "density crossing eps",
    "adversarial coverage smallest": "adversarial coverage eps=1",
    "adversarial density at eps=1": "adversarial density eps=1",
}
"""Printed columns of §5.1 whose stored counterpart has another name; that of a crossing has its own."""


def _compare_number(run: Any, entry: Published, result: FgsmResult) -> None:
    if entry.item in ("§4.1", "Table 3"):
        ours = _count(entry.column, result)
        verdicts.number(run, entry.key, {CORRECTED.name: ours}, _about_count(entry, ours))
    elif entry.item == "§5":
        accuracy = 100 * float(result.curves[CORRECTED.name].accuracy[0])
        words = "no attack, so images are normalised once in either way of rerunning"
        verdicts.number(run, entry.key, {CORRECTED.name: accuracy}, words)
    elif entry.item == "§5.1" or (entry.item == "stored results" and entry.column.endswith(_STORED)):
        found = {mode: read_off(entry.column, curve) for mode, curve in result.curves.items()}
        ours = {mode: "never" if value is None else value for mode, value in found.items()}
        about = _about_stored(entry), _in_sigma(entry.column, ours[CORRECTED.name], result.image_set)
        verdicts.number(run, entry.key, ours, "; ".join(filter(None, about)))


def _count(column: str, result: FgsmResult) -> float:
    """Return a size of an image set."""
    split = models.card(result.image_set.network)["split"]
    train, held = split["train_size"], split["holdout_size"]
    classes = models.spec(result.image_set.network).classes
    sizes = {"images": train + held, "classes": classes, "model images": train, "validation images": held}
    return float(sizes[column])


def _about_count(entry: Published, ours: float) -> str:
    if ours == entry.value:
        return ""
    # MedMNIST's present OrganAMNIST file holds 20 images fewer than the release that the paper used.
    if abs(ours - entry.value) <= 0.001 * entry.value:
        return "the present file of the data set holds other images"
    return f"§4.1 says {published.value('vs22', '§4.1', entry.row, entry.column):.0f}: a misprint of the table"


def _about_stored(entry: Published) -> str:
    """Say where a printed number of §5.1 is not that of the authors' own stored curve."""
    column = _COUNTERPARTS.get(entry.column, entry.column)
    stored = {other.key: other.value for other in published.load("vs22", "stored results")}
    value = stored.get(("vs22", "stored results", entry.row, column))
    if entry.item != "§5.1" or value is None or abs(value - entry.value) <= 0.5 * 10.0**-entry.digits + 1e-9:
        return ""
    return f"the authors' own stored curve has {value:g}, not the printed {entry.value:g}"


def _in_sigma(column: str, size: float | str, image_set: ImageSet) -> str:
    """Say what a corrected size, in pixels, is in the unit that the paper counts in."""
    if not column.endswith(" eps") or isinstance(size, str):
        return ""
    return f"corrected in pixels: {size:.2g} is {size / max(image_set.std):.2g} σ"


def read_off(column: str, curve: Curve) -> float | None:
    """Return a number of §5.1, or a point of a stored curve, named as in `data/published/vs22.csv`; None: never."""
    if column.startswith("robust accuracy (%)"):
        return 100 * _at(curve, curve.accuracy, float(column.partition("eps=")[2]))
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
    return _at(curve, values, float(column.partition("eps=")[2]))


def _at(curve: Curve, values: np.ndarray, epsilon: float) -> float:
    """Return the value at the ε of the curve that is nearest."""
    return float(values[np.abs(curve.x - epsilon).argmin()])


# ---------------------------------------------------------------- sentences


def rises_then_falls(curve: Curve, statistic: str = "density") -> bool:
    """Whether a curve climbs over the clean level by more than `RISE` of it and ends at less than half of it."""
    values, clean = getattr(curve, statistic), getattr(curve.clean, statistic)
    return bool(values[1:].max() > (1 + RISE) * clean and values[-1] < clean / 2)


def _least(x: np.ndarray, gaps: np.ndarray) -> float:
    """Return the least |gap| over x > 0; 0 where the gap changes its sign, for in between it is 0."""
    gaps = gaps[x > 0]
    return 0.0 if gaps.min() < 0 < gaps.max() else float(np.abs(gaps).min())


def _errors(curve: Curve) -> np.ndarray:
    return np.array([score.density_error for score in curve.scores])


def _alike(curves: Sequence[Curve], statistic: str) -> dict[str, float]:
    """How alike curves over ε are: their least correlation, and the share that takes the same course."""
    rises = np.mean([rises_then_falls(curve, statistic) for curve in curves])
    pairs = combinations([getattr(curve, statistic) for curve in curves], 2)
    return {
        "least correlation of two sets' curves": min(float(np.corrcoef(*pair)[0, 1]) for pair in pairs),
        "share of sets with the same course (risen by 5 % and then fallen below half, or not)": max(rises, 1 - rises),
    }


def sentences(results: Results, mode: str) -> dict[str, dict[str, float]]:
    """Measure what decides the sentences on FGSM in one mode: sentence → statistic → number; of the paper's sets."""
    curves = [result.curves[mode] for result in results.values()]
    mnist, organ = (results[title].curves[mode] for title in ("MNIST", "OrganMNIST"))
    gaps = (mnist.density - mnist.clean.density) / np.hypot(_errors(mnist), mnist.clean.density_error)
    away = [(curve.density - 1) / np.maximum(_errors(curve), np.finfo(float).tiny) for curve in curves]
    scores = [score for curve in curves for score in (curve.clean, *curve.scores)]
    covered = np.concatenate([score.batch_coverage for score in scores])
    return {
        "fgsm-density-differs-at-every-eps": {
            "least distance of density from the clean one, in standard errors": _least(mnist.x, gaps)
        },
        "fgsm-both-differ-at-every-eps": {
            f"least distance of {name} from the clean one, as a share of it": min(
                _least(curve.x, getattr(curve, name) / getattr(curve.clean, name) - 1) for curve in curves
            )
            for name in ("density", "coverage")
        },
        "organ-density-like-mnist": _alike([mnist, organ], "density"),
        "coverage-alike-on-all-data": _alike(curves, "coverage"),
        "density-near-one-confirms-iid": {
            "largest distance of a clean density from 1": max(abs(curve.clean.density - 1) for curve in curves),
            "least distance of an attacked density from 1, in standard errors": min(
                _least(curve.x, values) for curve, values in zip(curves, away, strict=True)
            ),
        },
        "density-rises-for-geometry": _rises(results, mode),
        "large-eps-separates": {
            "largest density at the last ε, as a share of the clean one": max(
                curve.density[-1] / curve.clean.density for curve in curves
            )
        },
        "coverage-depends-on-sample-count": {
            "least coverage of a whole batch over that of its sub-batches": min(
                curve.clean.coverage / float(curve.clean.batch_coverage.mean()) for curve in curves
            ),
            "largest distance of coverage from its closed form, as a share of it": max(
                abs(curve.clean.coverage / curve.expected_coverage - 1) for curve in curves
            ),
        },
        "density-unbounded-coverage-bounded": {
            "largest density of a sub-batch": max(float(score.batch_density.max()) for score in scores),
            "largest coverage of a sub-batch": float(covered.max()),
            "smallest coverage of a sub-batch": float(covered.min()),
        },
        "coverage-fall-is-lost-diversity": _lost_diversity(results, mode),
        "accuracies-below-par": {
            "largest share of the accuracy at ε = 0 that is left at the worst ε": float(
                max(curve.accuracy.min() / curve.accuracy[0] for curve in curves)
            )
        },
    }


def _rises(results: Results, mode: str) -> dict[str, float]:
    """How far density climbs on MNIST and OrganMNIST, and how far coin flips of the same ε climb there."""
    rises, differences = [], []
    for title in ("MNIST", "OrganMNIST"):
        curve, noise = results[title].curves[mode], results[title].noise[mode]
        peak = curve.density[1:].max()
        tossed = _at(noise, noise.density, curve.x[1:][curve.density[1:].argmax()])
        rises.append(peak / curve.clean.density - 1)
        differences.append(abs(tossed - peak) / curve.clean.density)
    return {
        "least rise of density over the clean one, as a share of it": min(rises),
        "largest difference to coin flips at the peak, as a share of the clean density": max(differences),
    }


def _lost_diversity(results: Results, mode: str) -> dict[str, float]:
    """How far coverage falls, and how far the attacked images spread where half of it is gone (else at the last ε)."""
    falls, spreads = [], []
    for result in results.values():
        left = result.curves[mode].coverage / result.curves[mode].clean.coverage
        halved = np.flatnonzero(left < 0.5)
        falls.append(float(left.min()))
        spreads.append(result.spread[mode][halved[0] if len(halved) else -1])
    return {
        "largest share of clean coverage that is left at the least": max(falls),
        "largest spread of the images where coverage has halved, as a share of the clean ones'": max(spreads),
    }


def printed_normalisers(results: Results) -> dict[str, float]:
    """How far density and coverage would be from the printed ones with the normalisers of equations 1 and 2.

    S is the number of reference and T of query images (§3.1). Equation 1 divides by kS where a mean over queries
    divides by kT, and equation 2 by T where a share of balls divides by S.
    """
    factors = []
    for title, result in results.items():
        curve = result.curves[CORRECTED.name]
        queries_a_reference = curve.n_queries / curve.n_reference
        ours = {
            "reference density": curve.clean.density * queries_a_reference,
            "reference coverage": curve.clean.coverage / queries_a_reference,
        }
        factors += [abs(np.log(value / published.value("vs22", "§5.1", title, name))) for name, value in ours.items()]
    return {"largest factor between a value by the printed formula and the printed value": float(np.exp(max(factors)))}
