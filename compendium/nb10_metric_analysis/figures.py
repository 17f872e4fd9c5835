"""Figures of notebook 10_metric_analysis; `results` are `measure.Analysis`, one an image set."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas
import seaborn
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, NOISE, REAL, subplots
from compendium.common import panels, vs22
from compendium.nb10_metric_analysis.geometry import label_counts

COLOURS = {"as published": AS_PUBLISHED, "corrected": CORRECTED}
EPSILON = "FGSM size ε (pixels)"


def _pixel_sizes(attacked: Any, mode: str) -> np.ndarray:
    """Sizes of a mode's steps in pixels, (e,): as published ε counts in σ, for coin flips as well."""
    found = vs22.CORRECTED if mode == vs22.CORRECTED.name else vs22.AS_PUBLISHED
    return np.array([found.pixel_size(attacked.image_set, epsilon) for epsilon in attacked.epsilons])


def _grid(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Give panels of a width and height in inches."""
    return subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options)


def _label_edges(axes: np.ndarray, x: str, y: str) -> None:
    """Name the axes at the left and lower edge of a grid of panels."""
    for axis in axes[-1]:
        axis.set_xlabel(x)
    for axis in axes[:, 0]:
        axis.set_ylabel(axis.get_ylabel() + y)


def _add_to_legend(figure: Figure, *artists: Any, columns: int) -> None:
    """Name more artists in the legend below the panels."""
    old = figure.legends[-1]
    words = [*(text.get_text() for text in old.get_texts()), *(artist.get_label() for artist in artists)]
    handles = [*old.legend_handles, *artists]
    old.remove()
    figure.legend(handles, words, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns, frameon=False)


def label_histories(results: Sequence[Any]) -> Figure:
    """Draw how often each class is predicted over ε, beside how often it is true (VS22 Fig. 6 to 8, on one page)."""
    figure, axes = _grid(2, len(results), 3.9, 2.9)
    for (line, mode), (column, result) in product(zip(axes, COLOURS, strict=True), enumerate(results)):
        attacked, axis = result.attacked, line[column]
        counts = label_counts(attacked.predicted[mode], attacked.classes)
        # The true shares stand left of ε = 0, apart by an empty column.
        both = np.vstack([attacked.class_counts, np.full(attacked.classes, np.nan), counts]) / len(attacked.labels)
        seaborn.heatmap(both.T, ax=axis, cmap="cividis", norm=PowerNorm(0.5, 0, 1), cbar=False)
        sizes = _pixel_sizes(attacked, mode)
        step = 0.25 if sizes[-1] > 0.5 else 0.05 if sizes[-1] < 0.3 else 0.1
        shown = np.arange(0, sizes[-1] + 1e-9, step).round(2)
        places = np.interp(shown, sizes, 2.5 + np.arange(len(counts)))
        axis.set_xticks([0.5, *places], ["true", *(f"{size:g}" for size in shown)], rotation=0)
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


def _frame_points(axis: Any, *places: np.ndarray) -> None:
    """Show the middle 90 % of the points in each direction: a few groups far out would squash the rest."""
    low, high = np.quantile(np.concatenate(places), (0.05, 0.95), axis=0)
    margin = 0.06 * (high - low)
    axis.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))


def distortion_maps(maps: Mapping[str, Sequence[Mapping[str, Any]]], classes: Mapping[str, int]) -> Figure:
    """Draw a minimum-distortion map for each ε, coloured by predicted class (VS22 Fig. 9).

    Parameters
    ----------
    maps : dict
        Title → from `measure.maps`; ε is in σ, as these are the maps as published.
    classes : dict
        Title → number of classes.
    """
    figure, axes = _grid(len(maps), len(next(iter(maps.values()))), 3.2, 3.0)
    for line, (title, row) in zip(axes, maps.items(), strict=True):
        for axis, found in zip(line, row, strict=True):
            dots = _scatter_classes(axis, found["places"], found["predicted"], classes[title], 7)
            _frame_points(axis, found["places"])
            alike = f"neighbours alike {found['agreement']:.0%} (by chance {found['chance']:.0%})"
            axis.set_title(f"ε = {found['epsilon']:.2f} σ\n{alike}", fontsize=9)
        line[0].set_ylabel(f"{title}\n")
        _class_legend(figure, line, dots, classes[title], "predicted class")
    _label_edges(axes, "map axis 1 (middle 90 %)", "map axis 2")
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
        line[0].set_title(f"{title}: clean, true class", fontsize=9)
        dots = _scatter_classes(line[1], found["adversarial"], found["adversarial_predicted"], classes[title], 7)
        line[1].set_title(f"FGSM, ε = {found['epsilon']:.2f} pixels, predicted class", fontsize=9)
        line[2].scatter(*found["real"].T, color=REAL, s=6, label="clean")
        line[2].scatter(*found["adversarial"].T, color=ADVERSARIAL, marker="x", s=9, linewidths=0.7, label="FGSM")
        of_clean, of_fgsm = found["nearest_is_clean"]
        words = f"nearest image clean: {of_clean:.0%} of clean, {of_fgsm:.0%} of FGSM"
        line[2].set_title(f"{words}\n(alike: 50%); in any ball: {found['inside']:.0%} of FGSM", fontsize=9)
        _frame_points(line[2], found["real"], found["adversarial"])
        _class_legend(figure, line, dots, classes[title], "class")
    _label_edges(axes, "map axis 1 (middle 90 %)", "map axis 2")
    figure.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower right", ncols=2, markerscale=1.5)
    return figure


def cluster_volumes(results: Sequence[Any]) -> Figure:
    """Draw the paper's cluster volume against what it counts, and a log volume over ε (VS22 Fig. 10 and its flaw)."""
    figure, axes = _grid(2, len(results), 3.4, 2.9, sharey="row")
    for (above, below), result in zip(axes.T, results, strict=True):
        correlations = []
        for mode, colour in COLOURS.items():
            volume, marker = result.volumes[mode], panels.MARKERS[mode]
            sizes = _pixel_sizes(result.attacked, mode)
            there = volume.counts > 0
            correlations.append(f"{volume.count_correlation:.2f} {mode}")
            above.loglog(volume.counts[there], volume.sums[there], marker, color=colour, ms=3, alpha=0.6)
            below.plot(sizes, volume.by_class - volume.by_class[0], color=colour, lw=0.6, alpha=0.45)
            mean = f"FGSM {mode} (below: thick, the mean)"
            below.plot(sizes, volume.mean_change, marker + "-", color=colour, ms=3.5, label=mean)
        words = f"correlation {', '.join(correlations)}"  # not "r", which is a distance in the axis' label
        above.set_title(f"{result.attacked.image_set.title}\n{words}", fontsize=9.5)
        above.set_xlabel("images in the predicted class")
        below.axhline(0, color=LIMIT, lw=0.8)
        below.set_xlabel(EPSILON)
    axes[0, 0].set_ylabel("VS22's volume: Σ 4/3·π·r³\n(pixels³)")
    axes[1, 0].set_ylabel("change of log volume per dimension\n(nats; true classes, equal counts)")
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def scaled_centres(result: Any, steps: Sequence[int] = (0, 2, 4)) -> Figure:
    """Draw distances of clean to attacked centres after scaling to the plane, as published (VS22 Fig. 11).

    Above are the matrices, below the same data from another random start. A class that no image is put into has no
    centre: its column is hatched.

    Parameters
    ----------
    result : measure.Analysis
    steps : sequence of int
        Places in `result.centres.scaled`.
    """
    figure, axes = _grid(2, len(steps), 2.9, 2.8)
    chosen = [result.centres.scaled[step] for step in steps]
    high = max(np.nanmax(step[key]) for step in chosen for key in ("distances", "again"))
    for line, key, name in zip(axes, ("distances", "again"), ("one start", "another start"), strict=True):
        for axis, step in zip(line, chosen, strict=True):
            seaborn.heatmap(step[key], ax=axis, cmap="cividis", vmin=0, vmax=high, cbar=False, square=True)
            axis.patch.set(hatch="///", edgecolor=LIMIT)
            axis.grid(False)
            axis.tick_params(rotation=0)
        line[0].set_ylabel(f"{name}\n")
    for axis, step in zip(axes[0], chosen, strict=True):
        words = f"{result.attacked.image_set.title}, ε = {step['epsilon']:.2f} σ"
        axis.set_title(f"{words}\nstress {step['stress']:.2f} (exact: 0)")
    words = "distance on the map (hatched: no such prediction)"
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label=words, shrink=0.8)
    _label_edges(axes, "predicted class", "clean class")
    return figure


def centre_shifts(results: Sequence[Any]) -> Figure:
    """Draw how far class centres move over ε, against how far they seem to when nothing happens (blue)."""
    height = "shift of a class's centre over\nmean distance of two clean centres"
    moves = pandas.concat([
        pandas.DataFrame({
            "image set": result.attacked.image_set.title, "FGSM": mode,
            EPSILON: _pixel_sizes(result.attacked, mode), height: result.centres.shifts[mode] / result.centres.spacing,
        })
        for result in results for mode in COLOURS
    ], ignore_index=True)  # fmt: skip
    figure = panels.lines(
        moves, x=EPSILON, y=height, col="image set", hue="FGSM", style="FGSM", markers=panels.MARKERS, dashes=False,
        size=(3.6, 3.2),
    )  # fmt: skip
    for axis, result in zip(figure.axes, results, strict=True):
        chance = result.centres.threshold / result.centres.spacing
        band = axis.axhspan(0, chance, color=REAL, alpha=0.18, lw=0, label="two clean halves (95 % of the cuts)")
        line = axis.axhline(1, color=LIMIT, lw=0.8, label="as far as two clean centres")
    _add_to_legend(figure, band, line, columns=4)
    return figure


LARGEST_SHOWN = 0.5
"""Pixels: beyond it no image of MNIST lies in a ball, and every line but one is flat."""


def density_parts(result: Any) -> Figure:
    """Draw density over ε up to `LARGEST_SHOWN`, its factors, and where the images lie: why it bends as it does.

    A dashed line stands at ε = μ/σ, where black has reached the bounds.

    Parameters
    ----------
    result : measure.Analysis
    """
    words = {
        "density": "density = balls × share / k",
        "balls": "balls around an image inside any",
        "inside": "share of images inside any ball",
        "to_middle": "distance to the mean image (ε = 0: 1)",
        "radius_rank": "rank of radii of balls hit (all alike: 0.5)",
    }
    attacked, frames, kinds = result.attacked, [], {}
    for kind, colour in zip(result.balls, (AS_PUBLISHED, CORRECTED, NOISE), strict=True):
        parts = result.balls[kind][list(words)].copy()
        parts["to_middle"] /= parts["to_middle"][0]
        parts.loc[parts.inside <= 0.02, ["balls", "radius_rank"]] = np.nan
        name = "as published, signs from a coin" if kind == "coin flips" else f"FGSM {kind}"
        kinds[name] = colour
        keys = {"moved by": name, EPSILON: _pixel_sizes(attacked, kind)}
        parts = parts.rename(columns=words).assign(**keys)
        parts = parts[parts[EPSILON] <= LARGEST_SHOWN + 1e-9]
        frames.append(parts.melt(list(keys), var_name="part", value_name=" "))
    figure = panels.lines(
        pandas.concat(frames, ignore_index=True), x=EPSILON, y=" ", col="part", hue="moved by", style="moved by",
        palette=kinds, share=False, size=(3.5, 2.4), markers=dict(zip(kinds, "o^X", strict=True)),
        dashes=dict(zip(kinds, ("", "", (1, 1)), strict=True)), ms=4, col_wrap=3,
    )  # fmt: skip
    kink = vs22.AS_PUBLISHED.pixel_size(attacked.image_set, attacked.image_set.kink)
    words = "step of μ, the mean of all pixels"
    dashed = [axis.axvline(kink, color=LIMIT, ls="--", lw=1, label=words) for axis in figure.axes]
    _add_to_legend(figure, dashed[0], columns=4)
    return figure
