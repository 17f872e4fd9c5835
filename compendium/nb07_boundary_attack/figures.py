"""Figures of notebook 07: the boundary attack's density and coverage, its convergence, and why density can rise."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from advlib.figures import AS_PUBLISHED, CORRECTED, LIMIT, NOISE, PUBLISHED, REAL, show_image, subplots
from compendium.claims import published
from compendium.common import panels
from compendium.nb07_boundary_attack.measure import Outcome

CLEAN, NOISY = "clean", "Gaussian noise as far (L2)"
PALETTE = {CLEAN: REAL, "as published": AS_PUBLISHED, "corrected": CORRECTED, NOISY: NOISE}
STATISTICS = ("density", "coverage")


def _log(axis: Axes) -> None:
    """Make the axis logarithmic with plain numbers at 1, 2 and 5; at more, where these would be one or two."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
    )
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_printed(axis: Axes, title: str, statistic: str) -> None:
    """Draw what §5.2 prints for adversarial images: a hatched range over batch sizes, or a dotted value."""
    values = {entry.column: entry.value for entry in published.load("vs22", "§5.2") if entry.row == title}
    low, high = (values.get(f"adversarial {statistic} {edge}") for edge in ("smallest", "largest"))
    whole = values.get(f"adversarial {statistic}")
    if low is not None:
        axis.axhspan(low, high, facecolor="none", edgecolor=PUBLISHED, hatch="///", lw=0.8, alpha=0.5)
    elif whole is not None:
        axis.axhline(whole, color=PUBLISHED, ls=(0, (1, 3)), lw=1.2)


def batch_size_curves(found: Sequence[Outcome]) -> Figure:
    """Draw density and coverage over the batch size, with quantile bands and full-batch values (VS22 Fig. 3b).

    Dotted lines are whole batches, hatched or dotted black what the paper prints for adversarial images.

    Parameters
    ----------
    found : sequence of Outcome
        As `measure.outcomes` gives them: as published, then corrected, for each image set.
    """
    x, y, parts, whole = "images in a batch", "median and quartiles of batches", [], []
    for result in found:
        title = f"{result.title}: {result.counts['attacked']} images, {result.steps[-1]:,} steps"
        series = [(result.mode.name, result.attacked, result.by_steps.scores[-1])]
        if result.mode.name == "as published":
            clean = {size: result.clean.by_size[size] for size in result.attacked}
            series.insert(0, (CLEAN, clean, result.by_steps.clean))
        if result.noise is not None:
            series.append((NOISY, {max(result.attacked): result.noise}, result.noise))  # measured in these alone
        for line, scores, full in series:
            whole.append((result.title, line, full))
            for size, score in scores.items():
                values = {"density": score.batch_density, "coverage": score.batch_coverage}
                parts.append(pandas.DataFrame({x: size, "image set": title, "line": line, **values}))
    frame = pandas.concat(parts).melt([x, "image set", "line"], var_name="statistic", value_name=y)
    figure = panels.lines(
        frame, x=x, y=y, col="image set", row="statistic", hue="line", style="line", palette=PALETTE, size=(3.7, 3.2),
        estimator="median", errorbar=panels.quartiles, share=False, legend_columns=4,
    )  # fmt: skip
    titles = list(dict.fromkeys(result.title for result in found))
    for axis, (statistic, title) in zip(figure.axes, itertools.product(STATISTICS, titles), strict=True):
        for name, line, full in whole:
            if name == title:
                axis.axhline(getattr(full, statistic), color=PALETTE[line], lw=0.9, ls=":")
        _draw_printed(axis, title, statistic)
        _log(axis)
    return figure


def convergence(found: Sequence[Outcome]) -> Figure:
    """Draw distance and density over the steps of the attack; hatched or dotted is the density that the paper prints.

    Parameters
    ----------
    found : sequence of Outcome
        As for `batch_size_curves`.
    """
    x, distance, parts = "steps of the attack (0: its start)", "median L2 distance (pixels of [0, 1])", []
    for result in found:
        common, curve = {"image set": result.title, x: result.steps}, result.by_steps
        moved = {"line": result.mode.name, distance: result.l2, "density": curve.density}
        parts.append(pandas.DataFrame({**common, **moved}))
        if result.mode.name == "as published":
            parts.append(pandas.DataFrame({**common, "line": CLEAN, "density": curve.clean.density}))
    frame = pandas.concat(parts).melt(["image set", x, "line"], [distance, "density"], "quantity").dropna()
    figure = panels.lines(
        frame, x=x, y="value", col="image set", row="quantity", hue="line", style="line", palette=PALETTE,
        size=(3.7, 3.2), share=False, axis={"ylabel": ""},
    )  # fmt: skip
    steps = sorted(set().union(*(result.steps for result in found)))
    columns = len(figure.axes) // 2
    for axis in figure.axes:
        axis.set_xscale("symlog", linthresh=100)
        axis.set_xlim(-8, steps[-1] * 1.25)
        axis.set_xticks(steps, [f"{count:,}" for count in steps], rotation=45)
        axis.xaxis.set_minor_locator(NullLocator())
    for above, axis, result in zip(figure.axes[:columns], figure.axes[columns:], found[::2], strict=True):
        above.set_ylim(bottom=0)
        _draw_printed(axis, result.title, "density")
        _log(axis)
    figure.tight_layout()  # for turned labels, which reach into the legend otherwise
    return figure


def boundary_examples(found: Sequence[Outcome]) -> Figure:
    """Draw one image of each outcome before the attack, at its start and at its end: what it is read as, how far it is.

    Parameters
    ----------
    found : sequence of Outcome
        From `measure.outcomes`, or some of them: a row each.
    """
    figure, axes = subplots(len(found), 3, figsize=(6.6, 2.5 * len(found)), squeeze=False)
    for line, result in zip(axes, found, strict=True):
        words = (f"{result.title}, {result.mode.name}", "start", f"after {result.steps[-1]:,} steps")
        for axis, (image, label, far), word in zip(line, result.examples, words, strict=True):
            show_image(axis, image, f"{word}\nread as class {label}, L2 distance {far:.1f}")
            axis.title.set_fontsize(9)
    return figure


def movements(controls: pandas.DataFrame) -> Figure:
    """Draw what density and coverage do when images are moved without any attack.

    Parameters
    ----------
    controls : pandas.DataFrame
        From `rising_density.controls`, of several image sets.
    """
    shrunk = controls["name"] == "shrunk toward the mean"
    sets = controls["image set"] + controls["references"].map(", {:,} references".format)
    x, ways = "how far", {"clip": "ε in σ, the deviation of the set's pixels", "shrink": "share of the way to the mean"}
    frame = controls.assign(**{
        x: controls["x"].where(~shrunk, 1 - controls["x"]), "line": sets,
        "how": controls["name"].where(shrunk, "clipped to [μ, μ + σ]:\nFGSM's program without its step"),
    })  # fmt: skip
    figure = panels.lines(
        frame.melt([x, "line", "how"], list(STATISTICS), "statistic"), x=x, y="value", col="how", row="statistic",
        hue="line", style="line", size=(4.4, 3.0), share=False, axis={"ylabel": ""},
    )  # fmt: skip
    for axis in figure.axes[:2]:
        _log(axis)
        axis.axhline(1, color=LIMIT, lw=0.9, ls="--")
    for axis in figure.axes[2:]:
        axis.set_xlabel(ways["shrink" if "shrunk" in axis.get_title() else "clip"])
    return figure


def tiles(found: Mapping[str, Any]) -> Figure:
    """Draw the PathMNIST study of a file: density, coverage, distance from the mean and accuracy over ε in pixels.

    As published, ε counts in the deviation by which images were normalised, in the mean over the colours; the figure
    ends at one deviation of the file's own. Dotted black is what the paper prints.

    Parameters
    ----------
    found : dict
        From `pathmnist_tiles.stored`.
    """
    names = {
        ("own statistics", "FGSM as published"): "FGSM as published, normalised by the data's own mean and std",
        ("own statistics", "clipped alone"): "the same program without the step: clipped alone",
        ("one half", "FGSM as published"): "FGSM as published, normalised by 0.5 and 0.5",
        ("corrected", "FGSM corrected"): "FGSM corrected, pixels in [0, 1]",
    }
    distance = "median distance from the mean, over that of untouched images"
    x, own = "FGSM size ε in pixels (L∞)", float(np.mean(found["std"]))
    unit = found["movements"]["way"].map({"own statistics": own, "one half": 0.5, "corrected": 1.0})
    moves = found["movements"].assign(**{x: found["movements"]["x"] * unit}).query(f"`{x}` <= {own * 1.01}").copy()
    moves["line"] = pandas.MultiIndex.from_frame(moves[["way", "name"]]).map(names)
    moves[distance] = moves["distance"] / moves.groupby(["way", "name"])["distance"].transform("first")
    accuracy = "accuracy of the attacked network"
    shown = ["density", "coverage", distance, accuracy]
    frame = (
        moves.rename(columns={"accuracy": accuracy}).dropna(subset="line").melt([x, "line"], shown, "quantity").dropna()
    )
    palette = dict(zip(names.values(), (AS_PUBLISHED, PUBLISHED, "#56B4E9", CORRECTED), strict=True))
    figure = panels.lines(
        frame, x=x, y="value", col="quantity", col_wrap=2, hue="line", style="line", palette=palette, size=(4.7, 3.1),
        share=False, legend_columns=2, axis={"ylabel": ""},
    )  # fmt: skip
    printed = {statistic: [("§5.2", f"reference {statistic}", "printed, clean")] for statistic in STATISTICS}
    printed["density"].append(("§5.1", "adversarial density peak", "printed, largest under FGSM"))
    for axis, lines in zip(figure.axes, printed.values(), strict=False):
        for item, column, word in lines:
            value = published.value("vs22", item, "PathMNIST", column)
            axis.axhline(value, color=PUBLISHED, lw=0.9, ls=(0, (1, 3)))
            axis.annotate(word, (0.98, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    figure.axes[3].set_ylim(0, 1)
    counts = found["counts"]
    title = f"{found['title']}: {counts['reference']:,} references, {counts['queries']} attacked"
    figure.suptitle(title, y=1.02, fontsize=11)
    return figure
