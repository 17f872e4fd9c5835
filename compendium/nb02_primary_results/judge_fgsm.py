"""What VS22 says of FGSM (§5.1, stored results), number by number and sentence by sentence, beside our curves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from compendium.claims import published
from compendium.common.vs22 import AS_PUBLISHED, CORRECTED, MODES, RELATIVE, Curve, K
from compendium.nb02_primary_results.fgsm import FgsmResult


def crossing(x: np.ndarray, y: np.ndarray, level: float) -> float | None:
    """Return where y (n,), having been above `level`, first falls below it, interpolated on x (n,); None if nowhere."""
    above = np.flatnonzero(y > level)
    if not len(above):
        return None
    below = np.flatnonzero((y < level) & (np.arange(len(y)) > above[0]))
    if not len(below):
        return None
    j = below[0]
    share = (y[j - 1] - level) / (y[j - 1] - y[j])
    return float(x[j - 1] + share * (x[j] - x[j - 1]))


GRID_STEP = 1 / 19
"""Distance of two ε of the paper's grid: nothing read off its curves in ε is known better."""


_VALUES: dict[str, Callable[[Curve], float | None]] = {
    "reference density": lambda curve: curve.clean.density,
    "reference coverage": lambda curve: curve.clean.coverage,
    "adversarial density peak": lambda curve: float(curve.density[1:].max()),
    "adversarial coverage peak": lambda curve: float(curve.coverage[1:].max()),
    "adversarial coverage peak eps": lambda curve: float(curve.x[1:][curve.coverage[1:].argmax()]),
    "adversarial coverage smallest": lambda curve: float(curve.coverage.min()),
    "adversarial density at eps=1": lambda curve: float(curve.density[-1]),
    "density crossing eps": lambda curve: crossing(curve.x, curve.density, curve.clean.density),
    "density raised up to eps": lambda curve: crossing(curve.x, curve.density, curve.clean.density),
    "coverage crossing eps": lambda curve: crossing(curve.x, curve.coverage, curve.clean.coverage),
}


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


def _verdict(as_published: bool, corrected: bool) -> str:
    if corrected:
        return "reproduced"
    return "reproduced as published only" if as_published else "not reproduced"


def record_fgsm(run: Any, results: Sequence[FgsmResult]) -> None:
    """Put §5.1 into a run's record: curves as metrics, every printed number and sentence as a comparison.

    Parameters
    ----------
    run : advlib.record.Run
    results : sequence of FgsmResult
    """
    for result in results:
        prefix = f"fgsm.{result.image_set.title}"
        either = result.curves[CORRECTED.name]
        run.metric(f"{prefix}.reference_density", either.clean.density)
        run.metric(f"{prefix}.reference_coverage", either.clean.coverage)
        run.metric(f"{prefix}.expected_coverage", either.expected_coverage)
        for name, curve in result.curves.items():
            run.metric(f"{prefix}.{name}.density", curve.density)
            run.metric(f"{prefix}.{name}.coverage", curve.coverage)
            run.metric(f"{prefix}.{name}.accuracy", curve.accuracy)
            run.metric(f"{prefix}.{name}.density_power", curve.decisions("density")[1])
            run.metric(f"{prefix}.{name}.coverage_power", curve.decisions("coverage")[1])
            run.metric(f"{prefix}.{name}.density_auroc", curve.decisions("density")[0])
            run.metric(f"{prefix}.{name}.zero_gradient_share", result.zero_gradient_share[name])
        if result.image_set.in_paper:
            _compare_numbers(run, result)
    _compare_sentences(run, {result.image_set.title: result for result in results})


def _compare_numbers(run: Any, result: FgsmResult) -> None:
    title = result.image_set.title
    counted = {
        "images": result.pooled,
        "classes": result.classes,
        "model images": result.model_images,
        "validation images": result.holdout_images,
    }
    for entry in published.load("vs22"):
        key = {"paper": "vs22", "item": entry.item, "row": entry.row, "column": entry.column}
        if entry.row != title or (entry.item == "stored results" and not entry.column.endswith(_STORED)):
            continue
        if entry.item in ("§4.1", "Table 3"):
            ours = counted[entry.column]
            # MedMNIST's present OrganAMNIST file holds 20 images fewer than the release that the paper used.
            same = abs(ours - entry.value) <= 0.001 * entry.value
            cause = "" if ours == entry.value else "the present file of the data set holds other images" * same
            if not same:
                cause = f"§4.1 says {published.value('vs22', '§4.1', title, entry.column):.0f}: a misprint of the table"
            run.compare(
                {**key, "as_published": None, "corrected": ours, "verdict": _verdict(same, same), "cause": cause}
            )
        elif entry.item == "§5":
            ours = 100 * result.holdout_accuracy
            fed_twice = 100 * float(result.curves[AS_PUBLISHED.name].accuracy[0])
            run.compare({
                **key,
                "as_published": round(fed_twice, 1),
                "corrected": round(ours, 1),
                "verdict": _verdict(abs(fed_twice - entry.value) <= 0.6, abs(ours - entry.value) <= 0.6),
                "cause": f"the attacked network, fed images normalised twice, reads {fed_twice:.1f} % of them rightly",
            })  # fmt: skip
        elif entry.item in ("§5.1", "stored results"):
            values = {name: _value(entry.column, curve) for name, curve in result.curves.items()}
            allowed = tolerance(entry.column, entry.value, result.curves[CORRECTED.name])
            near = {name: v is not None and abs(v - entry.value) <= allowed for name, v in values.items()}
            word = _verdict(near[AS_PUBLISHED.name], near[CORRECTED.name])
            run.compare({
                **key,
                "as_published": _shown(values[AS_PUBLISHED.name]),
                "corrected": _shown(values[CORRECTED.name]),
                "verdict": word,
                "cause": f"band ± {allowed:.2g}" + _number_cause(word, entry.column, result, entry.value)
                + _against_stored(entry),
            })  # fmt: skip


_STORED = ("eps=0.158", "eps=0.316", "eps=0.526", "eps=1", "crossing eps")
"""Ends of the columns of the authors' stored curves that are compared."""


def _value(column: str, curve: Curve) -> float | None:
    """Return a number of §5.1, or a point of a stored curve, named as in `data/published/vs22.csv`."""
    if column in _VALUES:
        return _VALUES[column](curve)
    statistic, _, epsilon = column.removeprefix("adversarial ").partition(" eps=")
    return float(getattr(curve, statistic)[np.abs(curve.x - float(epsilon)).argmin()])


def _against_stored(entry: published.Published) -> str:
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
    tossed = _value(column, result.noise[AS_PUBLISHED.name])
    same = f"; as published with coin flips for the gradient's sign: {_shown(tossed)}"
    if word == "reproduced as published only":
        return f"; images normalised twice and pulled into (0, 1) of normalised values{same}"
    if word == "not reproduced":
        ours, whole = result.curves[CORRECTED.name].n_reference, result.image_set.references or result.model_images
        if ours < 0.9 * whole:
            return f"; {ours} reference images instead of {whole}: what moved images give depends on their number{same}"
        extra = ""
        if column in ("adversarial density at eps=1", "adversarial density eps=1"):
            share = printed / result.pulled_density
            extra = f"; it would come out if {share:.1%} of the images had no gradient at all (saturated softmax)"
        return f"; other network and other reference images than ours{same}{extra}"
    if column.endswith("smallest") and not _value(column, result.curves[CORRECTED.name]):
        return "; by chance: corrected, no ball is hit any more at large ε"
    statistic = "coverage" if "coverage" in column else "density"
    if not column.endswith("smallest") and not rises_then_falls(result.curves[CORRECTED.name], statistic):
        return "; by chance: the corrected curve falls from the start"
    return ""


def _apart(curve: Curve, statistic: str) -> tuple[bool, float]:
    """Whether a statistic differs from the clean one at every ε > 0 by three standard errors, and the least power."""
    clean, scale = getattr(curve.clean, statistic), getattr(curve.clean, statistic) / curve.clean.density
    gaps = [
        abs(getattr(s, statistic) - clean) > 3 * scale * np.hypot(s.density_error, curve.clean.density_error)
        for s, x in zip(curve.scores, curve.x, strict=True)
        if x > 0
    ]
    return all(gaps), float(curve.decisions(statistic)[1][curve.x > 0].min())


def rises_then_falls(curve: Curve, statistic: str = "density") -> bool:
    """Whether a curve climbs over the clean level by more than 5 % of it and ends at less than half of it.

    Both come from the same images and the same balls, so a few per cent are no matter of chance.
    """
    values, clean = getattr(curve, statistic), getattr(curve.clean, statistic)
    return bool(values[1:].max() > 1.05 * clean and values[-1] < clean / 2)


def _course(curve: Curve, statistic: str) -> str:
    """Say in a word how a curve goes."""
    if rises_then_falls(curve, statistic):
        return "rises and falls"
    values, clean = getattr(curve, statistic), getattr(curve.clean, statistic)
    return "rises, and ends at more than half" if values[1:].max() > 1.05 * clean else "falls"


def _raised_up_to(curve: Curve) -> str:
    """Say up to which ε density lies above the clean one."""
    end = crossing(curve.x, curve.density, curve.clean.density)
    if end is not None:
        return f"raised up to ε = {end:.3f}"
    return "raised on the whole axis" if curve.density[-1] > curve.clean.density else "never raised"


def _compare_sentences(run: Any, results: Mapping[str, FgsmResult]) -> None:
    """Judge the sentences of §5.1 by the curves."""
    by_mode = {mode.name: {title: r.curves[mode.name] for title, r in results.items()} for mode in MODES}

    def judge(row: str, holds: Mapping[str, bool], words: Mapping[str, str], cause: str) -> None:
        run.compare({
            "paper": "vs22",
            "item": "claim",
            "row": row,
            "column": "",
            "as_published": words[AS_PUBLISHED.name],
            "corrected": words[CORRECTED.name],
            "verdict": _verdict(holds[AS_PUBLISHED.name], holds[CORRECTED.name]),
            "cause": cause,
        })  # fmt: skip

    def of_modes(function: Callable[[Mapping[str, Curve]], Any]) -> dict[str, Any]:
        return {name: function(curves) for name, curves in by_mode.items()}

    least = of_modes(lambda c: _apart(c["MNIST"], "density"))
    cross = ""
    if not all(apart for apart, _ in least.values()):
        cross = (
            "the curve crosses its reference; near the crossing mean and power say nothing, and at some ε of the grid "
            "the means differ by less than three standard errors"
        )
    if cross and least[CORRECTED.name][0]:
        cross = f"as published {cross}; corrected they differ by more everywhere"
    judge(
        "fgsm-density-differs-at-every-eps",
        {name: apart for name, (apart, _) in least.items()},
        {name: f"least power of one sub-batch over ε > 0: {power:.2f}" for name, (_, power) in least.items()},
        cross,
    )
    least = of_modes(lambda c: [_apart(curve, s) for curve in c.values() for s in ("density", "coverage")])
    judge(
        "fgsm-both-differ-at-every-eps",
        {name: all(apart for apart, _ in found) for name, found in least.items()},
        {
            name: f"least power of one sub-batch: {min(power for _, power in found):.2f}"
            for name, found in least.items()
        },
        f"on {', '.join(results)}; both metrics cross their reference on the way down",
    )
    humps = of_modes(lambda c: {t: rises_then_falls(c[t]) for t in ("MNIST", "OrganMNIST")})
    judge(
        "organ-density-like-mnist",
        {name: found["MNIST"] == found["OrganMNIST"] for name, found in humps.items()},
        of_modes(lambda c: ", ".join(f"{t} {_course(c[t], 'density')}" for t in ("MNIST", "OrganMNIST"))),
        "the rise is the loss of contrast between ε = 0 and the bounds, which all images share; in pixels only the "
        "digits' density rises a little",
    )
    humps = of_modes(lambda c: {t: rises_then_falls(curve, "coverage") for t, curve in c.items()})
    of_paper = [title for title, result in results.items() if result.image_set.in_paper]
    judge(
        "coverage-alike-on-all-data",
        {name: len({found[title] for title in of_paper}) == 1 for name, found in humps.items()},
        of_modes(lambda c: ", ".join(f"{t} {_course(curve, 'coverage')}" for t, curve in c.items())),
        f"judged on {' and '.join(of_paper)}; coverage does not always rise before it falls",
    )
    mnist = results["MNIST"]
    ones = of_modes(lambda c: crossing(c["MNIST"].x, c["MNIST"].density, 1.0))
    clean = {t: curve.clean for t, curve in by_mode[CORRECTED.name].items()}
    near_one = all(abs(s.density - 1) <= 3 * s.density_error for s in clean.values())
    judge(
        "density-near-one-confirms-iid",
        dict.fromkeys(by_mode, near_one),
        {name: f"attacked MNIST has density 1 too, at ε = {_shown(one)}" for name, one in ones.items()},
        "reference density: "
        + ", ".join(f"{t} {s.density:.2f} ± {s.density_error:.2f}" for t, s in clean.items())
        + "; exchangeable images have mean density 1, but density 1 does not confirm that images are exchangeable",
    )
    tossed = {name: mnist.noise[name] for name in by_mode}
    up_to = of_modes(lambda c: [_raised_up_to(c[t]) for t in ("MNIST", "OrganMNIST")])
    judge(
        "density-rises-for-geometry",
        {name: all(rises_then_falls(by_mode[name][t]) for t in ("MNIST", "OrganMNIST")) for name in by_mode},
        {name: f"MNIST {one}, OrganMNIST {two}" for name, (one, two) in up_to.items()},
        f"geometry, but not FGSM's: with coin flips for the gradient's sign the peak on MNIST is "
        f"{tossed[AS_PUBLISHED.name].density.max():.2f} as published, with the gradient "
        f"{by_mode[AS_PUBLISHED.name]['MNIST'].density.max():.2f}; every pixel outside (0, 1) is pulled in",
    )
    ends = of_modes(lambda c: {t: curve.density[-1] / curve.clean.density for t, curve in c.items()})
    judge(
        "large-eps-separates",
        {name: max(found.values()) < 0.5 for name, found in ends.items()},
        {name: ", ".join(f"{t} {v:.3f}" for t, v in found.items()) for name, found in ends.items()},
        "density at ε = 1 as a share of the reference's",
    )
    formula = {t: (c.expected_coverage, c.expected_batch_coverage) for t, c in by_mode[CORRECTED.name].items()}
    measured = {t: (c.clean.coverage, float(c.clean.batch_coverage.mean())) for t, c in by_mode[CORRECTED.name].items()}
    grows = all(whole > part for whole, part in measured.values())
    judge(
        "coverage-depends-on-sample-count",
        dict.fromkeys(by_mode, grows),
        dict.fromkeys(by_mode, ", ".join(f"{t} {w:.3f} whole, {p:.3f} sub-batch" for t, (w, p) in measured.items())),
        "closed form: " + ", ".join(f"{t} {w:.3f} and {p:.3f}" for t, (w, p) in formula.items()),
    )
    batches = of_modes(lambda c: [score for curve in c.values() for score in (curve.clean, *curve.scores)])
    highest = {name: max(float(s.batch_density.max()) for s in scores) for name, scores in batches.items()}
    covered = {name: np.concatenate([s.batch_coverage for s in scores]) for name, scores in batches.items()}
    most = by_mode[CORRECTED.name]["MNIST"].n_reference / K
    judge(
        "density-unbounded-coverage-bounded",
        {name: bool(highest[name] > 1 and values.min() >= 0 and values.max() <= 1) for name, values in covered.items()},
        {
            name: f"sub-batches: density up to {highest[name]:.2f}, coverage {values.min():.3f} to {values.max():.3f}"
            for name, values in covered.items()
        },
        "true by definition, and clean sub-batches exceed 1 already; given a reference of N images density is bounded "
        f"too, by N/k (here {most:,.0f} on MNIST), where every ball holds every query",
    )
    lost = {}
    for name, curves in by_mode.items():
        below = {t: np.flatnonzero(c.coverage < c.clean.coverage / 2) for t, c in curves.items()}
        lost[name] = {t: float(results[t].spread[name][i[0]]) for t, i in below.items() if len(i)}
    judge(
        "coverage-fall-is-lost-diversity",
        {name: bool(found) and max(found.values()) < 0.9 for name, found in lost.items()},
        {
            name: ", ".join(f"{t} {found[t]:.2f}" if t in found else f"{t}: no such ε" for t in results)
            for name, found in lost.items()
        },
        "spread of the attacked images about their mean, as a share of the clean ones', at the first ε with half of "
        "the reference coverage; coin flips, which take no class's side, lower coverage as well",
    )
