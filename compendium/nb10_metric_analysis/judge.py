"""What notebook 10_metric_analysis records: what VS22 says in appendix C and §5.1 of classes, clusters and balls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from scipy import stats

from compendium.claims import published, verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED
from compendium.nb10_metric_analysis import geometry
from compendium.nb10_metric_analysis.measure import MAP_EPSILONS, Analysis

MODES = (AS_PUBLISHED, CORRECTED)
HIGH = 0.75
"""Size from which on ε is called high, which the paper gives no number for: the last quarter."""

Statistics = dict[str, dict[str, float]]


def record_metrics(run: Any, results: Sequence[Analysis]) -> None:
    """Keep the analysis' numbers in a notebook's record."""
    for result in results:
        name, middle = result.attacked.image_set.name, result.attacked.at(0.5)
        run.metric(f"{name}.clean.spacing", result.centres.spacing)
        run.metric(f"{name}.centres.threshold", result.centres.threshold)
        run.metric(f"{name}.centres.stress", result.centres.scaled[0]["stress"])
        run.metric(f"{name}.centres.start_difference", result.centres.start_difference)
        run.metric(f"{name}.far_radii", geometry.far_share(np.asarray(result.attacked.manifold.radii_)))
        for mode in MODES:
            volume = result.volumes[mode]
            run.metric(f"{name}.{mode}.dominant_share", result.dominance(mode)[2])
            run.metric(f"{name}.{mode}.volume_is_count", volume.count_correlation)
            # Clusters of fewer images than `log_volumes` needs have none.
            changes = [float(change) if np.isfinite(change) else None for change in volume.mean_change[[middle, -1]]]
            run.metric(f"{name}.{mode}.log_volume_change", changes)
            run.metric(f"{name}.{mode}.centre_shift", result.centres.shifts[mode][[middle, -1]])
        for kind, parts in result.balls.items():
            for key in ("density", "inside", "to_middle"):
                run.metric(f"{name}.{kind}.{key}", parts[key].to_numpy()[[result.attacked.at(0.2), middle]])


def judge(run: Any, results: Sequence[Analysis]) -> None:
    """Record what appendix C and §5.1 say of the image sets that are there."""
    sets = {result.attacked.image_set.title: result for result in results if result.attacked.image_set.in_paper}
    for title, column, function in (
        ("MNIST", "dominant class", lambda result, mode: result.dominance(mode)[0]),
        ("PathMNIST", "dominant class", lambda result, mode: result.dominance(mode)[0]),
        ("MNIST", "dominant class from eps", lambda result, mode: _or_never(result.dominance(mode)[1])),
        ("OrganMNIST", "centre shift from eps", lambda result, mode: _or_never(result.centres.onset(mode))),
    ):
        if title in sets:
            ours = {mode: function(sets[title], mode) for mode in MODES}
            verdicts.number(run, ("vs22", "Appendix C", title, column), ours)
    for row, statistics in sentences(sets).items():
        verdicts.sentence(run, "vs22", row, statistics)


def sentences(sets: Mapping[str, Analysis]) -> dict[str, Statistics]:
    """Measure what decides each sentence about image sets that are there: sentence → mode → statistic → value.

    Parameters
    ----------
    sets : mapping
        "MNIST", "OrganMNIST", "PathMNIST" → Analysis; PathMNIST may be missing.
    """
    beyond = published.value("vs22", "Appendix C", "MNIST", "dominant class from eps")
    mnist, organ, path = (sets.get(title) for title in ("MNIST", "OrganMNIST", "PathMNIST"))
    measures: dict[str, Callable[[str], dict[str, float]]] = {
        "class-8-dominates": lambda mode: {"smallest share of class 8": mnist.share(mode, 8, beyond)},
        "organ-labels-like-mnist": lambda mode: {
            "smallest share of one class": organ.share(mode, organ.dominance(mode)[0], beyond)
        },
        "always-a-particular-class": lambda mode: {
            "smallest share of the largest class at eps = 1": min(
                result.share(mode, result.dominance(mode)[0], 1 - 1e-6) for result in sets.values()
            )
        },
        "centres-move": lambda mode: {
            "smallest shift over that of clean halves": min(
                result.centres.beyond_chance(mode, MAP_EPSILONS[1:]) for result in (mnist, path) if result
            )
        },
        "organ-centres-move-late": lambda mode: {
            f"shift over that of clean halves at eps = {epsilon:g}": organ.centres.beyond_chance(mode, [epsilon])
            for epsilon in (0.5, 1)
        },
    }
    if path:
        measures |= {
            "class-2-dominates-path": lambda mode: {"smallest share of class 2": path.share(mode, 2, HIGH)},
            "path-cluster-volumes-shrink": lambda mode: {"change of log volume": path.volumes[mode].mean_change[-1]},
            "path-classes-confined": lambda mode: confined(path.balls[mode]),
        }
    found = {row: {mode: measure(mode) for mode in MODES} for row, measure in measures.items()}
    found["cluster-8-volume-grows"] = cluster_grows(mnist, 8)
    if all(result.attacked.manifold for result in sets.values()):
        found["manifold-packed-without-outliers"] = {CORRECTED: packed(list(sets.values()))}
    return found


def confined(balls: pandas.DataFrame) -> dict[str, float]:
    """Measure how far from the middle, and in how many balls, the images of the largest ε lie."""
    first, last = balls.iloc[0], balls.iloc[-1]
    return {"distance to the middle over clean": last["to_middle"] / first["to_middle"], "density": last["density"]}


def cluster_grows(result: Analysis, number: int) -> Statistics:
    """Measure how a predicted class's cluster grows over ε: as published the paper's volume, corrected one that is one.

    Returns
    -------
    dict
        Mode → growth (change of the logarithm from the first to the last ε at which there is a cluster) and its rank
        correlation with ε.
    """
    with np.errstate(divide="ignore"):
        logarithms = {
            AS_PUBLISHED: np.log(result.volumes[AS_PUBLISHED].sums[:, number]),
            CORRECTED: result.volumes[CORRECTED].by_prediction[:, number],
        }
    found = {}
    for mode, values in logarithms.items():
        there = np.isfinite(values)
        if there.sum() >= 3:
            sizes, values = result.attacked.epsilons[there], values[there]
            found[mode] = {
                "growth of log volume": float(values[-1] - values[0]),
                "rank correlation with eps": float(np.nan_to_num(stats.spearmanr(sizes, values).statistic)),
            }
    return found


def packed(results: Sequence[Analysis]) -> dict[str, float]:
    """Measure outliers among the reference images, and how many of the hold-out lie in a ball."""
    sets = [result.attacked for result in results]
    far = [geometry.far_share(np.asarray(one.manifold.radii_)) for one in sets]
    held = [float(np.mean(one.manifold.ball_counts(one.clean) > 0)) for one in sets]
    return {"largest share of far radii": max(far), "smallest share of the hold-out in a ball": min(held)}


def _or_never(epsilon: float | None) -> float | str:
    return "never" if epsilon is None else epsilon
