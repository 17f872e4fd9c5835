"""Figures of notebook 10_metric_analysis."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, MARKERS, NOISE, REAL, subplots
from compendium.nb10_metric_analysis.geometry import label_counts

# ---------------------------------------------------------------- 10: metric analysis


def _class_colours(classes: int) -> Any:
    return plt.get_cmap("tab20" if classes > 10 else "tab10", classes)


def label_histories(results: Sequence[Any]) -> Figure:
    """Draw how often each class is predicted over ε, beside how often it is true (VS22 Fig. 6 to 8, on one page).

    Parameters
    ----------
    results : sequence of cluster_analysis.Analysis
        A column each; rows are the two modes.
    """
    modes = list(results[0].attacked.said)
    figure, axes = subplots(
        len(modes), len(results), figsize=(3.9 * len(results), 2.9 * len(modes)), sharex=True, squeeze=False
    )
    for column, result in enumerate(results):
        attacked = result.attacked
        for axis, mode in zip(axes[:, column], modes, strict=True):
            counts = label_counts(attacked.said[mode], attacked.classes)
            both = np.vstack([attacked.truth, np.full(attacked.classes, np.nan), counts]) / len(attacked.labels)
            step = attacked.epsilons[1] - attacked.epsilons[0]
            # The true shares stand left of ε = 0, apart by an empty column.
            extent = (-2.5 * step, 1 + step / 2, -0.5, attacked.classes - 0.5)
            drawn = axis.imshow(
                both.T,
                origin="lower",
                aspect="auto",
                extent=extent,
                cmap="cividis",
                norm=PowerNorm(0.5, 0, 1),
                interpolation="none",
            )
            axis.set_yticks(range(attacked.classes))
            axis.grid(False)
            axis.set_xticks([-2 * step, 0, 0.25, 0.5, 0.75, 1], ["true", "0", "0.25", "0.5", "0.75", "1"])
            axis.set_title(f"{attacked.image_set.title}, FGSM {mode}")
        axes[0, column].set_ylabel("predicted class")
        axes[1, column].set_ylabel("predicted class")
        axes[-1, column].set_xlabel("FGSM size ε")
    figure.colorbar(drawn, ax=axes, label="share of the hold-out", shrink=0.7)
    return figure


def distortion_maps(panels: Mapping[str, Sequence[Mapping[str, Any]]], classes: Mapping[str, int]) -> Figure:
    """Draw a minimum-distortion map for each ε, coloured by predicted class (VS22 Fig. 9).

    Parameters
    ----------
    panels : dict
        Title → from `cluster_analysis.maps`.
    classes : dict
        Title → number of classes.
    """
    columns = len(next(iter(panels.values())))
    figure, axes = subplots(len(panels), columns, figsize=(2.5 * columns, 2.8 * len(panels)), squeeze=False)
    for line, (title, row) in zip(axes, panels.items(), strict=True):
        for axis, panel in zip(line, row, strict=True):
            dots = axis.scatter(
                *panel["places"].T, c=panel["said"], cmap=_class_colours(classes[title]), vmin=-0.5,
                vmax=classes[title] - 0.5, s=5,
            )  # fmt: skip
            axis.set_title(
                f"ε = {panel['epsilon']:.2f}\nneighbours alike {panel['agreement']:.0%}\n"
                f"(by chance {panel['chance']:.0%})",
                fontsize=9,
            )
            axis.set(xticks=[], yticks=[], box_aspect=1)
            axis.set_aspect("equal", adjustable="datalim")
        line[0].set_ylabel(f"{title}\nmap axis 2")
        figure.colorbar(dots, ax=line, label="predicted class", ticks=range(classes[title]), pad=0.01)
    for axis in axes[-1]:
        axis.set_xlabel("map axis 1")
    return figure


def joint_maps(panels: Mapping[str, Mapping[str, Any]], classes: Mapping[str, int]) -> Figure:
    """Draw clean and attacked images on one minimum-distortion map, an image set a row.

    Parameters
    ----------
    panels : dict
        Title → from `cluster_analysis.joint_map`.
    classes : dict
        Title → number of classes.
    """
    figure, axes = subplots(len(panels), 3, figsize=(10.5, 3.2 * len(panels)), squeeze=False)
    for line, (title, panel) in zip(axes, panels.items(), strict=True):
        style = {"cmap": _class_colours(classes[title]), "vmin": -0.5, "vmax": classes[title] - 0.5, "s": 7}
        line[0].scatter(*panel["real"].T, c=panel["real_labels"], **style)
        line[0].set_title(f"{title}: clean, true class")
        dots = line[1].scatter(*panel["adversarial"].T, c=panel["adversarial_said"], **style)
        line[1].set_title(f"FGSM, ε = {panel['epsilon']:.2f}, predicted class")
        line[2].scatter(*panel["real"].T, color=REAL, s=6, label="clean")
        line[2].scatter(*panel["adversarial"].T, color=ADVERSARIAL, marker="x", s=9, linewidths=0.7, label="FGSM")
        of_clean, of_fgsm = panel["in_pixels"]
        line[2].set_title(
            f"nearest is clean: of clean {of_clean:.0%}, of FGSM {of_fgsm:.0%};\n"
            f"FGSM images in any ball: {panel['inside']:.0%}",
            fontsize=9,
        )
        line[2].legend(loc="upper right", frameon=True, framealpha=0.8, markerscale=1.5)
        for axis in line:
            axis.set(xticks=[], yticks=[], xlim=line[2].get_xlim(), ylim=line[2].get_ylim())
        line[0].set_ylabel("map axis 2")
        figure.colorbar(dots, ax=line, label="class", ticks=range(classes[title]), pad=0.01)
    for axis in axes[-1]:
        axis.set_xlabel("map axis 1")
    return figure


def cluster_volumes(results: Sequence[Any]) -> Figure:
    """Draw the paper's cluster volume against what it counts, and a log volume over ε (VS22 Fig. 10 and its flaw).

    Parameters
    ----------
    results : sequence of cluster_analysis.Analysis
        A column each.
    """
    figure, axes = subplots(2, len(results), figsize=(3.4 * len(results), 5.8), sharey="row", squeeze=False)
    for column, result in enumerate(results):
        attacked = result.attacked
        above, below = axes[:, column]
        for (mode, volume), colour in zip(result.volumes.items(), (AS_PUBLISHED, CORRECTED), strict=True):
            there = volume.counts > 0
            above.loglog(
                volume.counts[there], volume.sums[there], MARKERS[mode], color=colour, ms=3, alpha=0.6,
                label=f"FGSM {mode}, r = {volume.count_correlation:.2f}",
            )  # fmt: skip
            changes = volume.by_truth - volume.by_truth[0]
            below.plot(attacked.epsilons, changes, color=colour, lw=0.6, alpha=0.45)
            below.plot(
                attacked.epsilons, volume.mean_change, MARKERS[mode] + "-", color=colour, ms=3.5,
                label=f"FGSM {mode}, mean of the classes",
            )  # fmt: skip
        above.set(title=attacked.image_set.title, xlabel="images in the predicted class")
        above.legend(fontsize=8, loc="upper left")
        below.axhline(0, color=LIMIT, lw=0.8)
        below.set_xlabel("FGSM size ε")
        below.legend(fontsize=8, loc="upper center")
    low, high = axes[1, 0].get_ylim()
    axes[1, 0].set_ylim(low, high + 0.35 * (high - low))  # room for the legends; the row shares this axis
    axes[0, 0].set_ylabel("VS22's volume: Σ 4/3·π·r³\n(pixels³)")
    axes[1, 0].set_ylabel("change of log volume, a dimension\n(nats; true classes, equal counts)")
    return figure


def scaled_centres(results: Sequence[Any]) -> Figure:
    """Draw distances of clean to attacked centres after scaling to the plane, as published (VS22 Fig. 11).

    Parameters
    ----------
    results : sequence of cluster_analysis.Analysis
        Two rows each: the matrices, and the same from another random start.
    """
    columns = len(results[0].centres.scaled)
    figure, axes = subplots(2 * len(results), columns, figsize=(2.2 * columns, 4.5 * len(results)), squeeze=False)
    for number, result in enumerate(results):
        scaled = result.centres.scaled
        high = max(np.nanmax(step[key]) for step in scaled for key in ("distances", "again"))
        for offset, key in enumerate(("distances", "again")):
            line = axes[2 * number + offset]
            for axis, step in zip(line, scaled, strict=True):
                drawn = axis.imshow(step[key], cmap="magma", vmin=0, vmax=high)
                axis.grid(False)
                axis.set(xticks=[], yticks=[])
                if offset == 0:
                    axis.set_title(f"ε = {step['epsilon']:.2f}, stress {step['stress']:.2f}", fontsize=9)
            name = result.attacked.image_set.title if offset == 0 else "another start"
            line[0].set_ylabel(f"{name}\nclean class", fontsize=9)
        figure.colorbar(drawn, ax=axes[2 * number : 2 * number + 2], label="distance on the map", shrink=0.8)
    for axis in axes[-1]:
        axis.set_xlabel("class predicted after FGSM", fontsize=9)
    return figure


def centre_shifts(results: Sequence[Any]) -> Figure:
    """Draw how far class centres move over ε, against how far they seem to when nothing happens.

    Parameters
    ----------
    results : sequence of cluster_analysis.Analysis
        A column each.
    """
    figure, axes = subplots(1, len(results), figsize=(3.6 * len(results), 3.4), sharey=True, squeeze=False)
    for axis, result in zip(axes[0], results, strict=True):
        moves, epsilons = result.centres, result.attacked.epsilons
        for (mode, shifts), colour in zip(moves.shifts.items(), (AS_PUBLISHED, CORRECTED), strict=True):
            axis.plot(epsilons, shifts / moves.spacing, MARKERS[mode] + "-", color=colour, ms=3.5, label=f"FGSM {mode}")
        axis.axhspan(
            0, moves.threshold / moves.spacing, color=REAL, alpha=0.18, lw=0, label="two clean halves, up to 95 %"
        )
        axis.axhline(1, color=LIMIT, lw=0.8, ls="--", label="mean distance of two clean centres")
        axis.set(title=result.attacked.image_set.title, xlabel="FGSM size ε")
    axes[0, 0].set_ylabel("shift of a class's centre over\ndistance between clean centres")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def among_the_balls(results: Sequence[Any]) -> Figure:
    """Draw density over ε and the three things it is made of: why its curve has a hump, a kink and a fall.

    Parameters
    ----------
    results : sequence of cluster_analysis.Analysis
        A column each.
    """
    rows = {
        "density": "density =\nballs × share / k",
        "balls": "balls around an\nimage inside any",
        "inside": "share of images\ninside any ball",
        "to_middle": "distance to the\nmean (clean: 1)",
        "radius_rank": "mean rank of radii\nof balls that are hit",
    }
    styles = {
        "as published": (AS_PUBLISHED, "o-", "FGSM as published"),
        "corrected": (CORRECTED, "^-", "FGSM corrected"),
        "coin flips": (NOISE, ":", "as published, signs from a coin"),
    }
    figure, axes = subplots(
        len(rows), len(results), figsize=(3.5 * len(results), 1.9 * len(rows)), sharex=True, sharey="row", squeeze=False
    )
    for column, result in enumerate(results):
        attacked = result.attacked
        kink = attacked.image_set.kink
        for axis, (key, words) in zip(axes[:, column], rows.items(), strict=True):
            for kind, (colour, style, label) in styles.items():
                values = result.balls[kind][key]
                if key == "to_middle":
                    values = values / values[0]
                shown = result.balls[kind]["inside"] > 0.02 if key in ("balls", "radius_rank") else slice(None)
                axis.plot(attacked.epsilons[shown], values[shown], style, color=colour, ms=3, label=label)
            if kink <= max(attacked.epsilons):
                axis.axvline(kink, color=LIMIT, ls="--", lw=1, label="ε = μ/σ: black has reached the bounds")
            if column == 0:
                axis.set_ylabel(words, fontsize=9)
        axes[0, column].set_title(attacked.image_set.title)
        axes[-1, column].set_xlabel("FGSM size ε")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
