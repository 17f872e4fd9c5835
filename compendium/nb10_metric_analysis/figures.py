"""Figures of notebook 10_metric_analysis; `results` are `measure.Analysis`, one an image set."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas
import seaborn
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, MARKERS, NOISE, REAL, subplots
from compendium.common import panels
from compendium.nb10_metric_analysis.geometry import label_counts

COLOURS = {"as published": AS_PUBLISHED, "corrected": CORRECTED}
EPSILON = "FGSM size ε"


def _grid(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Give panels of a width and height in inches."""
    return subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options)


def _label_edges(axes: np.ndarray, x: str, y: str) -> None:
    """Name the axes at the left and lower edge of a grid of panels."""
    for axis in axes[-1]:
        axis.set_xlabel(x)
    for axis in axes[:, 0]:
        axis.set_ylabel(axis.get_ylabel() + y)


def label_histories(results: Sequence[Any]) -> Figure:
    """Draw how often each class is predicted over ε, beside how often it is true (VS22 Fig. 6 to 8, on one page)."""
    figure, axes = _grid(2, len(results), 3.9, 2.9)
    for (line, mode), (column, result) in product(zip(axes, COLOURS, strict=True), enumerate(results)):
        attacked, axis = result.attacked, line[column]
        counts = label_counts(attacked.predicted[mode], attacked.classes)
        # The true shares stand left of ε = 0, apart by an empty column.
        both = np.vstack([attacked.class_counts, np.full(attacked.classes, np.nan), counts]) / len(attacked.labels)
        seaborn.heatmap(both.T, ax=axis, cmap="cividis", norm=PowerNorm(0.5, 0, 1), cbar=False)
        shown = (0, 0.25, 0.5, 0.75, 1)
        places = np.interp(shown, attacked.epsilons, 2.5 + np.arange(len(counts)))
        axis.set_xticks([0.5, *places], ["true", *shown], rotation=0)
        axis.tick_params(axis="y", rotation=0)
        axis.set_title(f"{attacked.image_set.title}, FGSM {mode}")
        axis.invert_yaxis()
        axis.grid(False)
    _label_edges(axes, EPSILON, "predicted class")
    figure.colorbar(axis.collections[0], ax=axes, label="share of the hold-out", shrink=0.7)
    return figure


def _scatter_classes(axis: Any, places: np.ndarray, labels: np.ndarray, classes: int, size: float) -> Any:
    """Draw points of a map, coloured by class."""
    colours = {"cmap": f"tab{20 if classes > 10 else 10}", "vmin": -0.5, "vmax": (20 if classes > 10 else 10) - 0.5}
    axis.set(xticks=[], yticks=[])
    return axis.scatter(*places.T, c=labels, s=size, **colours)


def _class_legend(figure: Figure, axes: Sequence[Any], dots: Any, classes: int, label: str) -> None:
    """Draw the colours of the classes beside a row of maps."""
    bar = figure.colorbar(dots, ax=axes, label=label, ticks=range(classes), pad=0.01)
    bar.ax.set_ylim(-0.5, classes - 0.5)


def distortion_maps(maps: Mapping[str, Sequence[Mapping[str, Any]]], classes: Mapping[str, int]) -> Figure:
    """Draw a minimum-distortion map for each ε, coloured by predicted class (VS22 Fig. 9).

    Parameters
    ----------
    maps : dict
        Title → from `measure.maps`.
    classes : dict
        Title → number of classes.
    """
    figure, axes = _grid(len(maps), len(next(iter(maps.values()))), 2.5, 2.8)
    for line, (title, row) in zip(axes, maps.items(), strict=True):
        for axis, found in zip(line, row, strict=True):
            dots = _scatter_classes(axis, found["places"], found["predicted"], classes[title], 5)
            alike = f"neighbours alike {found['agreement']:.0%}\n(by chance {found['chance']:.0%})"
            axis.set_title(f"ε = {found['epsilon']:.2f}\n{alike}", fontsize=9)
            axis.set(box_aspect=1)
            axis.set_aspect("equal", adjustable="datalim")
        line[0].set_ylabel(f"{title}\n")
        _class_legend(figure, line, dots, classes[title], "predicted class")
    _label_edges(axes, "map axis 1", "map axis 2")
    return figure


def joint_maps(maps: Mapping[str, Mapping[str, Any]], classes: Mapping[str, int]) -> Figure:
    """Draw clean and attacked images on one minimum-distortion map, an image set a row.

    Parameters
    ----------
    maps : dict
        Title → from `measure.joint_map`.
    classes : dict
        Title → number of classes.
    """
    figure, axes = _grid(len(maps), 3, 3.5, 3.2, sharex="row", sharey="row")
    for line, (title, found) in zip(axes, maps.items(), strict=True):
        _scatter_classes(line[0], found["real"], found["real_labels"], classes[title], 7)
        line[0].set_title(f"{title}: clean, true class")
        dots = _scatter_classes(line[1], found["adversarial"], found["adversarial_predicted"], classes[title], 7)
        line[1].set_title(f"FGSM, ε = {found['epsilon']:.2f}, predicted class")
        line[2].scatter(*found["real"].T, color=REAL, s=6, label="clean")
        line[2].scatter(*found["adversarial"].T, color=ADVERSARIAL, marker="x", s=9, linewidths=0.7, label="FGSM")
        of_clean, of_fgsm = found["nearest_is_clean"]
        words = f"nearest is clean: of clean {of_clean:.0%}, of FGSM {of_fgsm:.0%};"
        line[2].set_title(f"{words}\nFGSM images in any ball: {found['inside']:.0%}", fontsize=9)
        line[2].legend(loc="upper right", frameon=True, framealpha=0.8, markerscale=1.5)
        _class_legend(figure, line, dots, classes[title], "class")
    _label_edges(axes, "map axis 1", "map axis 2")
    return figure


def cluster_volumes(results: Sequence[Any]) -> Figure:
    """Draw the paper's cluster volume against what it counts, and a log volume over ε (VS22 Fig. 10 and its flaw)."""
    figure, axes = _grid(2, len(results), 3.4, 2.9, sharey="row")
    for (above, below), result in zip(axes.T, results, strict=True):
        epsilons = result.attacked.epsilons
        for mode, colour in COLOURS.items():
            volume, marker = result.volumes[mode], MARKERS[mode]
            there = volume.counts > 0
            correlation = f"FGSM {mode}, r = {volume.count_correlation:.2f}"
            points = volume.counts[there], volume.sums[there]
            above.loglog(*points, marker, color=colour, ms=3, alpha=0.6, label=correlation)
            below.plot(epsilons, volume.by_class - volume.by_class[0], color=colour, lw=0.6, alpha=0.45)
            mean = f"FGSM {mode}, mean of the classes"
            below.plot(epsilons, volume.mean_change, marker + "-", color=colour, ms=3.5, label=mean)
        above.set(title=result.attacked.image_set.title, xlabel="images in the predicted class")
        above.legend(fontsize=8, loc="upper left")
        below.axhline(0, color=LIMIT, lw=0.8)
        below.set_xlabel(EPSILON)
        below.legend(fontsize=8, loc="upper center")
    low, high = axes[1, 0].get_ylim()
    axes[1, 0].set_ylim(low, high + 0.35 * (high - low))  # room for the legends; the row shares this axis
    axes[0, 0].set_ylabel("VS22's volume: Σ 4/3·π·r³\n(pixels³)")
    axes[1, 0].set_ylabel("change of log volume, a dimension\n(nats; true classes, equal counts)")
    return figure


def scaled_centres(results: Sequence[Any]) -> Figure:
    """Draw distances of clean to attacked centres after scaling to the plane, as published (VS22 Fig. 11).

    Two rows an image set: the matrices, and the same from another random start.
    """
    figure, axes = _grid(2 * len(results), len(results[0].centres.scaled), 2.2, 2.25)
    for pair, result in zip(np.split(axes, len(results)), results, strict=True):
        scaled = result.centres.scaled
        high = max(np.nanmax(step[key]) for step in scaled for key in ("distances", "again"))
        title = result.attacked.image_set.title
        for line, key, name in zip(pair, ("distances", "again"), (title, "another start"), strict=True):
            for axis, step in zip(line, scaled, strict=True):
                seaborn.heatmap(step[key], ax=axis, cmap="magma", vmin=0, vmax=high, cbar=False, square=True)
                axis.set(xticks=[], yticks=[])
            line[0].set_ylabel(f"{name}\n")
        for axis, step in zip(pair[0], scaled, strict=True):
            axis.set_title(f"ε = {step['epsilon']:.2f}, stress {step['stress']:.2f}", fontsize=9)
        figure.colorbar(axis.collections[0], ax=pair, label="distance on the map", shrink=0.8)
    _label_edges(axes, "predicted class", "clean class")
    return figure


def centre_shifts(results: Sequence[Any]) -> Figure:
    """Draw how far class centres move over ε, against how far they seem to when nothing happens (blue)."""
    height = "shift of a class's centre over\nmean distance of two clean centres"
    moves = pandas.concat([
        pandas.DataFrame({
            "image set": result.attacked.image_set.title, "FGSM": mode, EPSILON: result.attacked.epsilons,
            height: result.centres.shifts[mode] / result.centres.spacing,
        })
        for result in results for mode in COLOURS
    ], ignore_index=True)  # fmt: skip
    figure = panels.lines(
        moves, x=EPSILON, y=height, col="image set", hue="FGSM", style="FGSM", references={"as far apart": 1.0},
        markers=MARKERS, dashes=False, size=(3.6, 3.2),
    )  # fmt: skip
    for axis, result in zip(figure.axes, results, strict=True):
        axis.axhspan(0, result.centres.threshold / result.centres.spacing, color=REAL, alpha=0.18, lw=0)
    return figure


def density_parts(results: Sequence[Any]) -> Figure:
    """Draw density over ε and the three things it is made of: why its curve has a hump, a kink and a fall.

    A dashed line stands at ε = μ/σ, where black has reached the bounds.
    """
    words = {
        "density": "density =\nballs × share / k",
        "balls": "balls around an\nimage inside any",
        "inside": "share of images\ninside any ball",
        "to_middle": "distance to the\nmean (clean: 1)",
        "radius_rank": "mean rank of radii\nof balls that are hit",
    }
    frames = []
    for result, kind in product(results, results[0].balls):
        parts = result.balls[kind][list(words)].copy()
        parts["to_middle"] /= parts["to_middle"][0]
        parts.loc[parts.inside <= 0.02, ["balls", "radius_rank"]] = np.nan
        name = "as published, signs from a coin" if kind == "coin flips" else f"FGSM {kind}"
        keys = {"image set": result.attacked.image_set.title, "moved by": name, EPSILON: result.attacked.epsilons}
        frames.append(parts.rename(columns=words).assign(**keys).melt(list(keys), var_name="part", value_name=" "))
    kinds = list(dict.fromkeys(frame["moved by"][0] for frame in frames))
    frame = pandas.concat(frames, ignore_index=True)
    figure = panels.lines(
        frame, x=EPSILON, y=" ", col="image set", row="part", hue="moved by", style="moved by",
        palette=dict(zip(kinds, (AS_PUBLISHED, CORRECTED, NOISE), strict=True)), share="row", size=(3.5, 1.9),
        markers=dict(zip(kinds, "o^X", strict=True)), dashes=dict(zip(kinds, ("", "", (1, 1)), strict=True)), ms=4,
    )  # fmt: skip
    axes = np.reshape(figure.axes, (len(words), len(results)))
    for (row, name), (column, result) in product(enumerate(words.values()), enumerate(results)):
        axes[row, column].set_title("" if row else result.attacked.image_set.title)
        axes[row, 0].set_ylabel(name)
        if result.attacked.image_set.kink <= result.attacked.epsilons.max():
            axes[row, column].axvline(result.attacked.image_set.kink, color=LIMIT, ls="--", lw=1)
    figure.tight_layout()
    return figure
