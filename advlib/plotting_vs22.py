"""VS22's figures of notebooks 02 (part B) and 07 to 10: density and coverage under attack.

Every function takes results and returns a matplotlib Figure; style and colours are those of `advlib.plotting`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from advlib import published, vs22
from advlib.geometry import label_counts
from advlib.plotting import (
    ADVERSARIAL,
    AS_PUBLISHED,
    CORRECTED,
    LIMIT,
    MARKERS,
    NOISE,
    PUBLISHED,
    REAL,
    show_image,
    subplots,
)
from advlib.vs22 import IMPERCEPTIBLE

# ---------------------------------------------------------------- 09: embedding space

SPACE_COLOURS = {
    "pixels": "#56B4E9",
    "last hidden layer": "#882255",
    "logits": "#332288",
    "ImageNet ResNet-18": "#117733",
}
SPACE_MARKERS = {"pixels": "o", "last hidden layer": "s", "logits": "^", "ImageNet ResNet-18": "D"}


def space_curves(results: Sequence[Any], statistic: str, stored: Mapping[str, Mapping[float, float]]) -> Figure:
    """Draw density or coverage over ε in every space, a row each, in both modes (VS22 Fig. 12 and its pixel twin).

    Parameters
    ----------
    results : sequence of embedding.SpaceCurves
        A column each.
    statistic : str
        "density" or "coverage".
    stored : dict
        Title of an image set → ε → stored value of Fig. 12, drawn in the row of the logits.
    """
    names = list(results[0].corrected)
    figure, axes = subplots(
        len(names),
        len(results),
        figsize=(3.3 * len(results), 2.2 * len(names)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for column, result in enumerate(results):
        for axis, space in zip(axes[:, column], names, strict=True):
            modes = result.by_mode()
            clean = next(iter(modes.values()))[space]
            low, _, high = getattr(clean.clean, f"{statistic}_quantiles")
            middle = np.median(getattr(clean.clean, f"batch_{statistic}"))
            axis.axhspan(low, high, color=REAL, alpha=0.18, label="clean batches, 25–75 % quantiles", lw=0)
            axis.axhline(middle, color=REAL, lw=1, label="clean batches, median")
            null = 1.0 if statistic == "density" else clean.expected_batch_coverage
            axis.axhline(null, color=LIMIT, ls="--", lw=1, label="closed form for clean batches")
            for (mode, curves), colour in zip(modes.items(), (AS_PUBLISHED, CORRECTED), strict=True):
                curve = curves[space]
                low, middle, high = getattr(curve, f"{statistic}_quantiles").T
                axis.fill_between(
                    curve.x, low, high, color=colour, alpha=0.25, lw=0, label=f"FGSM {mode}, 25–75 % quantiles"
                )
                axis.plot(curve.x, middle, color=colour, marker=MARKERS[mode], ms=3, label=f"FGSM {mode}, median")
            if space == "logits" and result.image_set.title in stored and statistic == "density":
                points = stored[result.image_set.title]
                axis.plot(
                    list(points), list(points.values()), MARKERS["published"], color=PUBLISHED, mfc="none",
                    label="VS22's stored values, whole hold-out",
                )  # fmt: skip
            axis.axvspan(0, IMPERCEPTIBLE, color=LIMIT, alpha=0.25, lw=0, label="imperceptible (corrected, ε ≤ 8/255)")
            if column == 0:
                axis.set_ylabel(f"{statistic} in\n{space}")
        axes[0, column].set_title(result.image_set.title)
        axes[-1, column].set_xlabel("FGSM size ε (corrected: pixels;\nas published: multiples of σ)")
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def space_decisions(results: Sequence[Any], largest: float = 0.35) -> Figure:
    """Draw what a decision about one batch gets in each space, for FGSM and for aimless noise of the same size.

    Parameters
    ----------
    results : sequence of embedding.SpaceCurves
        A column each; rows are density and coverage.
    largest : float
        ε up to which is drawn.
    """
    figure, axes = subplots(2, len(results), figsize=(3.7 * len(results), 5.4), sharex=True, sharey=True, squeeze=False)
    for column, result in enumerate(results):
        for axis, statistic in zip(axes[:, column], ("density", "coverage"), strict=True):
            for offset, (space, curve) in enumerate(result.corrected.items()):
                near = curve.x <= largest
                style = {"color": SPACE_COLOURS[space], "marker": SPACE_MARKERS[space], "ms": 4}
                # Curves that lie on top of each other at 1 are drawn a hair apart.
                shift = 0.01 * (offset - 1)
                axis.plot(curve.x[near], curve.decisions(statistic)[1][near] + shift, label=f"FGSM, {space}", **style)
                axis.plot(
                    curve.x[near], result.noise[space].decisions(statistic)[1][near] + shift, ls=":", mfc="white",
                    label=f"±ε noise, {space}", **style,
                )  # fmt: skip
            axis.axhline(0.05, color=LIMIT, lw=0.8)
            axis.axvspan(0, IMPERCEPTIBLE, color=LIMIT, alpha=0.25, lw=0)
            if column == 0:
                axis.set_ylabel(f"power by {statistic}\nat 5 % false alarms")
            axis.set_ylim(-0.03, 1.03)
        axes[0, column].set_title(result.image_set.title)
        axes[-1, column].set_xlabel("size ε (L∞, pixels from 0 to 1)\n(lines shifted by 0.01 to keep them apart)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# ---------------------------------------------------------------- 02, part B: FGSM in pixels


def _band(axis: Any, x: np.ndarray, quantiles: np.ndarray, colour: str, batch_size: int) -> None:
    """Shade the quartiles over sub-batches, the lower half darker than the upper, as VS22's two bands."""
    low, middle, high = quantiles.T
    words = f"quantiles over sub-batches of {batch_size}"
    axis.fill_between(x, low, middle, color=colour, alpha=0.35, lw=0, label=f"25 % to 50 % {words}")
    axis.fill_between(x, middle, high, color=colour, alpha=0.15, lw=0, label=f"50 % to 75 % {words}")


_PRINTED_MARKS = {
    "density": (("density crossing eps", "reference density"), ("adversarial density at eps=1", 1.0)),
    "coverage": (("coverage crossing eps", "reference coverage"), ("adversarial coverage smallest", 1.0)),
}


def fgsm_curves(results: Sequence[Any], statistic: str) -> Figure:
    """Draw VS22 Fig. 3a again, density or coverage over ε: as published above, corrected below, a column an image set.

    Parameters
    ----------
    results : sequence of vs22.FgsmResult
    statistic : str
        "density" or "coverage".
    """
    figure, axes = subplots(2, len(results), figsize=(3.0 * len(results), 5.9), sharex=True, squeeze=False)
    for line, mode in zip(axes, vs22.MODES, strict=True):
        for axis, result in zip(line, results, strict=True):
            curve, noise = result.curves[mode.name], result.noise[mode.name]
            _band(axis, curve.x, getattr(curve, f"{statistic}_quantiles"), ADVERSARIAL, curve.batch_size)
            axis.plot(curve.x, getattr(curve, statistic), "o-", color=ADVERSARIAL, ms=3, label="FGSM, whole batch")
            axis.plot(noise.x, getattr(noise, statistic), ":", color=NOISE, lw=1.6, label="coin flips for the sign")
            axis.axhline(getattr(curve.clean, statistic), color=REAL, lw=1.3, label="reference: clean, whole batch")
            expected = 1.0 if statistic == "density" else curve.expected_coverage
            axis.axhline(expected, color=LIMIT, ls="--", lw=1, label="closed form for exchangeable images")
            axis.plot(curve.x, curve.accuracy, "-.", color="#332288", lw=1.1, label="robust accuracy (share)")
            edge = vs22.IMPERCEPTIBLE / mode.pixel_size(result.image_set, 1.0)
            axis.axvline(
                edge, color="black", ls=(0, (1, 1)), lw=1, label="8/255 of the pixel range: visible to the right"
            )
            if mode.normalised_twice and result.image_set.in_paper:
                _printed(axis, result.image_set.title, statistic)
            top = max(1.0, getattr(curve, statistic).max(), getattr(curve, f"{statistic}_quantiles").max())
            axis.set_ylim(-0.03, 1.06 * top)
            sizes = f"{curve.n_queries} images against {curve.n_reference}"
            axis.set_title(f"{result.image_set.title}, {mode.name}\n{sizes}", fontsize=9.5)
            unit = "σ of the pixels" if mode.normalised_twice else "pixel range"
            axis.set_xlabel(f"FGSM size ε (L∞, {unit})", fontsize=9)
        line[0].set_ylabel(statistic)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _printed(axis: Any, title: str, statistic: str) -> None:
    """Mark what §5.1 prints of this curve, points where it gives ε, a line for a height alone, and what is stored."""
    found = {entry.column: entry.value for entry in published.load("vs22", "§5.1") if entry.row == title}
    for first, second in _PRINTED_MARKS[statistic]:
        if first in found:
            # A crossing has its ε printed and the reference for height; an end value lies at ε = 1.
            point = (found[first], found[second]) if isinstance(second, str) else (second, found[first])
            axis.plot(*point, MARKERS["published"], color=PUBLISHED, mfc="none", ms=7, label="printed in §5.1")
    peak = f"adversarial {statistic} peak"
    if peak in found:
        axis.plot([0.02, 0.4], [found[peak]] * 2, color=PUBLISHED, lw=1.4, label="printed in §5.1, height of the peak")
    start = f"adversarial {statistic} eps="
    stored = [
        (min(vs22.EPSILONS, key=lambda e: abs(e - float(entry.column.removeprefix(start)))), entry.value)
        for entry in published.load("vs22", "stored results")
        if entry.row == title and entry.column.startswith(start)
    ]
    if stored:
        axis.plot(*zip(*stored, strict=True), "x", color=PUBLISHED, ms=6, label="stored by the authors")


def fgsm_examples(results: Sequence[Any]) -> Figure:
    """Draw VS22 Fig. 2 again: one image of each set under FGSM in both modes, all on one grey scale.

    Parameters
    ----------
    results : sequence of vs22.FgsmResult
    """
    columns = 1 + len(vs22.MODES) * len(vs22.SHOWN)
    figure, axes = subplots(len(results), columns, figsize=(1.75 * columns, 2.1 * len(results)), squeeze=False)
    for line, result in zip(axes, results, strict=True):
        show_image(line[0], result.examples[vs22.CORRECTED.name][0], f"{result.image_set.title}\noriginal")
        place = 1
        for mode in vs22.MODES:
            for epsilon, image in zip(vs22.SHOWN, result.examples[mode.name][1:], strict=True):
                show_image(line[place], image, f"{mode.name}\nε = {epsilon:g}")
                place += 1
    return figure


def fgsm_decisions(results: Sequence[Any]) -> Figure:
    """Draw what a decision about one sub-batch gets over ε: power at 5 % false alarms, two-sided.

    Parameters
    ----------
    results : sequence of vs22.FgsmResult
    """
    figure, axes = subplots(2, len(results), figsize=(4.1 * len(results), 6), sharex=True, sharey=True, squeeze=False)
    for line, statistic in zip(axes, ("density", "coverage"), strict=True):
        for axis, result in zip(line, results, strict=True):
            for mode, colour in zip(vs22.MODES, (AS_PUBLISHED, CORRECTED), strict=True):
                curve, noise = result.curves[mode.name], result.noise[mode.name]
                axis.plot(
                    curve.x, curve.decisions(statistic)[1], marker=MARKERS[mode.name], color=colour, ms=4,
                    label=f"FGSM, {mode.name}",
                )  # fmt: skip
                if not mode.normalised_twice:
                    axis.plot(
                        noise.x, noise.decisions(statistic)[1], ":", color=NOISE, lw=1.6, label="coin flips of ±ε"
                    )
            axis.axhline(0.05, color=LIMIT, lw=0.8, label="5 %, the rate of false alarms")
            axis.set_title(f"{result.image_set.title}, {statistic}")
            axis.set_ylim(-0.03, 1.05)
        line[0].set_ylabel(f"power of one sub-batch of {results[0].noise[vs22.CORRECTED.name].batch_size}")
    for axis in axes[-1]:
        axis.set_xlabel("ε (pixels when corrected, σ of pixels as published)", fontsize=8.5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


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


# ---------------------------------------------------------------- 08: admixture


def _share_styles(shares: Sequence[float]) -> list[tuple[Any, str]]:
    """Colours from clean to adversarial, and line styles that say the same once more."""
    colours = LinearSegmentedColormap.from_list("share", [REAL, "#882255", ADVERSARIAL])(np.asarray(shares, float))
    return list(zip(colours, itertools.cycle(["-", (0, (1, 1)), "--", "-.", "-"]), strict=False))


def admixture_curves(results: Sequence[Any], mode: Any) -> Figure:
    """Draw VS22 Fig. 4 again in one mode: density and coverage over ε for several adversarial shares.

    Parameters
    ----------
    results : sequence of admixture.Admixture
    mode : vs22.Mode
    """
    figure, axes = subplots(2, len(results), figsize=(3.4 * len(results), 5.9), sharex=True, squeeze=False)
    for line, statistic in zip(axes, ("density", "coverage"), strict=True):
        for axis, result in zip(line, results, strict=True):
            found = result.fgsm[mode.name]
            for s, (share, (colour, style)) in enumerate(zip(found.shares, _share_styles(found.shares), strict=True)):
                values = getattr(found, statistic)[:, s]
                axis.plot(found.x, values, ls=style, color=colour, label=f"{share:.0%} adversarial")
                if statistic == "density" and 0 < share < 1:
                    axis.plot(found.x, found.line[:, s], "k.", ms=2.5, label="straight line between 0 % and 100 %")
            edge = vs22.IMPERCEPTIBLE / mode.pixel_size(result.image_set, 1.0)
            axis.axvline(
                edge, color="black", ls=(0, (1, 1)), lw=1, label="8/255 of the pixel range: visible to the right"
            )
            axis.set_title(
                f"{result.image_set.title}, {mode.name}\n{found.n_queries} against {found.n_reference} images",
                fontsize=9.5,
            )
            axis.set_ylim(bottom=-0.03 * axis.get_ylim()[1])
        line[0].set_ylabel(statistic)
    unit = "σ of the pixels" if mode.normalised_twice else "pixel range"
    for axis in axes[-1]:
        axis.set_xlabel(f"FGSM size ε (L∞, {unit})", fontsize=9)
    handles: dict[str, Any] = {}
    for handle, label in zip(*axes[0, 0].get_legend_handles_labels(), strict=True):
        handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def admixture_tables(results: Sequence[Any]) -> Figure:
    """Draw VS22's Tables 4 and 5: density and coverage over the share of the boundary attack's images.

    Parameters
    ----------
    results : sequence of admixture.Admixture
    """
    figure, axes = subplots(2, len(results), figsize=(3.4 * len(results), 5.9), sharex=True, squeeze=False)
    for line, (statistic, item) in zip(axes, (("density", "Table 4"), ("coverage", "Table 5")), strict=True):
        for axis, result in zip(line, results, strict=True):
            for mode, colour in zip(vs22.MODES, (AS_PUBLISHED, CORRECTED), strict=True):
                found = result.boundary[mode.name]
                references = result.boundary_references if statistic == "density" else found.n_reference
                axis.plot(
                    found.shares, getattr(found, statistic)[0], MARKERS[mode.name], color=colour,
                    label=f"{mode.name}, {found.n_queries} against {references} images",
                )  # fmt: skip
                if statistic == "density":
                    axis.plot(found.shares, found.line[0], color=colour, lw=1)
            printed = [e for e in published.load("vs22", item) if e.row == result.image_set.title]
            if printed:
                at = [float(entry.column.removeprefix("share=")) for entry in printed]
                axis.plot(
                    at, [e.value for e in printed], MARKERS["published"], color=PUBLISHED, mfc="none", label="published"
                )
            axis.set_title(f"{result.image_set.title}: {statistic} ({item})", fontsize=9.5)
            axis.set_ylim(0, 1.4 * axis.dataLim.y1)  # room for the legend
            axis.legend(fontsize=7.5, loc="upper center")
        line[0].set_ylabel(statistic)
    for axis, result in zip(axes[-1], results, strict=True):
        axis.set_xlabel(f"adversarial share\n(boundary attack, {result.boundary_steps:,} steps)", fontsize=9)
    return figure


def power_maps(results: Sequence[Any], mode: Any, statistic: str) -> Figure:
    """Draw the power of one batch over adversarial share and batch size, an attack a column, an image set a row.

    Parameters
    ----------
    results : sequence of admixture.Admixture
    mode : vs22.Mode
    statistic : str
        "density" or "coverage".
    """
    columns = max(len(result.maps[mode.name]) for result in results)
    figure, axes = subplots(
        len(results), columns, figsize=(2.5 * columns, 2.3 * len(results)), sharex=True, sharey=True, squeeze=False
    )
    for line, result in zip(axes, results, strict=True):
        for axis in line[len(result.maps[mode.name]) :]:
            axis.set_axis_off()
        for axis, found in zip(line, result.maps[mode.name], strict=False):
            power = found.power[statistic]
            shown = axis.imshow(power, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
            for (s, b), value in np.ndenumerate(power):
                if np.isnan(value):
                    axis.text(b, s, "–", ha="center", va="center")
                else:
                    axis.text(b, s, f"{value:.2f}", ha="center", va="center", fontsize=7,
                              color="black" if value > 0.55 else "white")  # fmt: skip
            axis.set_xticks(range(len(found.sizes)), [str(size) for size in found.sizes])
            axis.set_yticks(range(len(found.shares)), [f"{share:.0%}" for share in found.shares])
            axis.set_title(f"{result.image_set.title}\n{found.title}", fontsize=9)
            axis.grid(False)
        line[0].set_ylabel("adversarial share")
    for axis in axes[-1]:
        axis.set_xlabel("images in the batch, m")
    figure.colorbar(shown, ax=axes, label=f"power by {statistic} at 5 % false alarms", shrink=0.8)
    return figure
