"""Figures of notebook 02_primary_results."""

from collections.abc import Sequence
from typing import Any

import pandas
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, LIMIT, MARKERS, NOISE, PUBLISHED, REAL, show_image, subplots
from compendium.claims import published
from compendium.common import g17, panels, vs22
from compendium.common.vs22 import Curve
from compendium.nb02_primary_results.fgsm import SHOWN, FgsmResult

# ---------------------------------------------------------------- part A: Table 1

_SIZE, _RATIO = "FGSM size ε (L∞, pixels)", "mean density ratio"


def table1(table: pandas.DataFrame) -> Figure:
    """Draw G17's Table 1: mean density ratios over ε with 95 % intervals, printed and rerun, a panel a data set.

    Parameters
    ----------
    table : pandas.DataFrame
        As in `nb02_primary_results.table1`, of the modes "published", "as published" and "corrected".
    """
    sides = {"r1": "R1 real-adversarial", "r2": "R2 real-real"}
    ratios = table.rename(columns={"epsilon": _SIZE} | sides)
    ratios = ratios.melt([_SIZE, "row", "mode"], list(sides.values()), "side", _RATIO)
    ratios["line"] = ratios["mode"] + ": " + ratios.side
    modes = ratios.groupby("line")["mode"].first()
    figure = panels.lines(
        ratios, x=_SIZE, y=_RATIO, col="row", hue="line", style="line", palette=modes.map(panels.PALETTE).to_dict(),
        markers=modes.map(MARKERS).to_dict(), dashes={line: "" if "R1" in line else (1, 1.5) for line in modes.index},
        col_wrap=3, axis={"yscale": "log"}, size=(3.6, 2.9),
    )  # fmt: skip
    for axis, (_, mine) in zip(figure.axes, table.groupby("row", sort=False), strict=True):
        for side in sides:
            ends, colours = [mine[f"{side}_low"], mine[f"{side}_high"]], mine["mode"].map(panels.PALETTE)
            axis.vlines(mine.epsilon, *ends, colors=colours, lw=1.2)
            for end in ends:
                axis.scatter(mine.epsilon, end, c=colours, marker="_", s=40)
    return figure


def plateaus(predicted: pandas.DataFrame, table: pandas.DataFrame) -> Figure:
    """Draw the predicted plateau of each row of Table 1 beside what was printed and rerun at the largest ε.

    Parameters
    ----------
    predicted : pandas.DataFrame
        From `table1.plateaus`.
    table : pandas.DataFrame
        As for `table1`.
    """
    end = table[table.epsilon == table.epsilon.max()].pivot(index="row", columns="mode", values="r1")
    words = {
        "formula": "predicted: ‖ĥ‖²/λ_min, clean images alone",
        "coin_flips": "predicted: coin flips of ±1 instead of an attack",
    }
    figure, axis = subplots(figsize=(10, 3.6))
    predicted[list(words)].rename(columns=words).plot.bar(ax=axis, color=["#BBBBBB", NOISE], rot=0, width=0.7)
    for mode in ("published", "as published"):
        heights = end.loc[predicted.index, mode]
        label = f"{mode}: R1 at ε = {table.epsilon.max():g}"
        axis.plot(range(len(heights)), heights, MARKERS[mode], color=panels.PALETTE[mode], label=label)
    axis.set_ylabel("mean density ratio R1")
    axis.grid(axis="x", visible=False)
    axis.get_legend().remove()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def unmoved_pixels(curves: pandas.DataFrame) -> Figure:
    """Draw R1 against the share of pixels that do not move, with the printed values as lines.

    Parameters
    ----------
    curves : pandas.DataFrame
        From `table1.unmoved_pixel_curves`.
    """
    sized = curves.assign(size=curves.epsilon.map("ε = {:g}".format))
    printed = [g17.printed_r1(line.row, line.epsilon) for line in curves.itertuples()]
    both = [sized.assign(source="coin flips"), sized.assign(source="printed", r1=printed)]
    words = {"r1": _RATIO + " R1", "share": "share of unmoved pixels", "size": "FGSM size", "source": "R1 of"}
    return panels.lines(
        pandas.concat(both).rename(columns=words), x=words["share"], y=words["r1"], col="row", hue="FGSM size",
        style="R1 of", palette=[REAL, ADVERSARIAL], axis={"yscale": "log"}, size=(2.5, 2.9), legend_columns=7,
    )  # fmt: skip


def table1_decisions(table: pandas.DataFrame) -> Figure:
    """Draw what a decision gets from the corrected rerun's draws: AUROC and power at 5 % false alarms over ε.

    Parameters
    ----------
    table : pandas.DataFrame
        As for `table1`.
    """
    what = {"auroc": "AUROC of one batch", "tpr_at_5_fpr": "power at 5 % false alarms"}
    mine = table[table["mode"] == "corrected"].rename(columns={"epsilon": _SIZE} | what)
    # Curves that lie on top of each other at 1 are drawn a hair apart.
    mine[_SIZE] += 0.006 * (mine.row.map(list(g17.TABLE1).index) - len(g17.TABLE1) / 2)
    figure = panels.lines(
        mine.melt([_SIZE, "row"], list(what.values()), "what", "share"), x=_SIZE, y="share", col="what", hue="row",
        marker="o", palette=["#000000", "#7F7F7F", "#D55E00", "#009E73", "#0072B2", "#CC79A7"], size=(4.5, 3.2),
        axis={"ylim": (-0.03, 1.05)},
    )  # fmt: skip
    for axis, by_chance in zip(figure.axes, (0.5, 0.05), strict=True):
        axis.axhline(by_chance, color=LIMIT, lw=0.8)
    return figure


# ---------------------------------------------------------------- part B: FGSM in pixels

_PRINTED_MARKS = {
    "density": (("density crossing eps", "reference density"), ("adversarial density at eps=1", 1.0)),
    "coverage": (("coverage crossing eps", "reference coverage"), ("adversarial coverage smallest", 1.0)),
}


def fgsm_curves(results: Sequence[FgsmResult], statistic: str) -> Figure:
    """Draw VS22 Fig. 3a again, density or coverage over ε: as published above, corrected below, a column an image set.

    Parameters
    ----------
    results : sequence of FgsmResult
    statistic : str
        "density" or "coverage".
    """
    figure, axes = subplots(2, len(results), figsize=(3.0 * len(results), 5.9), sharex=True, squeeze=False)
    for line, mode in zip(axes, vs22.MODES, strict=True):
        line[0].set_ylabel(statistic)
        for axis, result in zip(line, results, strict=True):
            curve = result.curves[mode.name]
            _curve(axis, curve, result.noise[mode.name], statistic)
            edge = vs22.IMPERCEPTIBLE / mode.pixel_size(result.image_set, 1.0)
            words = "8/255 of the pixel range: visible to the right"
            axis.axvline(edge, color="black", ls=(0, (1, 1)), lw=1, label=words)
            if mode.normalised_twice and result.image_set.in_paper:
                _printed(axis, result.image_set.title, statistic)
            sizes = f"{curve.n_queries} images against {curve.n_reference}"
            axis.set_title(f"{result.image_set.title}, {mode.name}\n{sizes}", fontsize=9.5)
            unit = "σ of the pixels" if mode.normalised_twice else "pixel range"
            axis.set_xlabel(f"FGSM size ε (L∞, {unit})", fontsize=9)
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _curve(axis: Any, curve: Curve, noise: Curve, statistic: str) -> None:
    """Draw one statistic over ε: whole batch, coin flips, references, and the quartiles over sub-batches."""
    values, quantiles = getattr(curve, statistic), getattr(curve, f"{statistic}_quantiles")
    low, middle, high = quantiles.T
    words = f"quantiles over sub-batches of {curve.batch_size}"
    axis.fill_between(curve.x, low, middle, color=ADVERSARIAL, alpha=0.35, lw=0, label=f"25 % to 50 % {words}")
    axis.fill_between(curve.x, middle, high, color=ADVERSARIAL, alpha=0.15, lw=0, label=f"50 % to 75 % {words}")
    axis.plot(curve.x, values, "o-", color=ADVERSARIAL, ms=3, label="FGSM, whole batch")
    axis.plot(noise.x, getattr(noise, statistic), ":", color=NOISE, lw=1.6, label="coin flips for the sign")
    axis.axhline(getattr(curve.clean, statistic), color=REAL, lw=1.3, label="reference: clean, whole batch")
    expected = 1.0 if statistic == "density" else curve.expected_coverage
    axis.axhline(expected, color=LIMIT, ls="--", lw=1, label="closed form for exchangeable images")
    axis.plot(curve.x, curve.accuracy, "-.", color="#332288", lw=1.1, label="robust accuracy (share)")
    axis.set_ylim(-0.03, 1.06 * max(1.0, values.max(), quantiles.max()))


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


def fgsm_examples(results: Sequence[FgsmResult]) -> Figure:
    """Draw VS22 Fig. 2 again: one image of each set under FGSM in both modes, all on one grey scale."""
    columns = 1 + len(vs22.MODES) * len(SHOWN)
    figure, axes = subplots(len(results), columns, figsize=(1.75 * columns, 2.1 * len(results)), squeeze=False)
    for line, result in zip(axes, results, strict=True):
        show_image(line[0], result.examples[vs22.CORRECTED.name][0], f"{result.image_set.title}\noriginal")
        moved = [(mode, e, i) for mode, images in result.examples.items() for e, i in enumerate(images[1:])]
        for axis, (mode, at, image) in zip(line[1:], moved, strict=True):
            show_image(axis, image, f"{mode}\nε = {SHOWN[at]:g}")
    return figure


def fgsm_decisions(results: Sequence[FgsmResult]) -> Figure:
    """Draw what a decision about one sub-batch gets over ε: power at 5 % false alarms, two-sided."""
    epsilon, flips = "FGSM size ε (as published in σ)", "coin flips of ±ε, corrected"
    power = f"power of one sub-batch of {results[0].noise[vs22.CORRECTED.name].batch_size}"
    frames = []
    for result in results:
        lines = {f"FGSM, {mode}": curve for mode, curve in result.curves.items()}
        lines[flips] = result.noise[vs22.CORRECTED.name]
        for statistic in ("density", "coverage"):
            for line, curve in lines.items():
                values = {epsilon: curve.x, power: curve.decisions(statistic)[1]}
                frames.append(
                    pandas.DataFrame(values).assign(line=line, statistic=statistic, images=result.image_set.title)
                )
    palette = {f"FGSM, {mode.name}": panels.PALETTE[mode.name] for mode in vs22.MODES} | {flips: NOISE}
    figure = panels.lines(
        pandas.concat(frames), x=epsilon, y=power, row="statistic", col="images", hue="line", style="line",
        palette=palette, references={"false alarms": 0.05}, size=(3.6, 3.0), axis={"ylim": (-0.03, 1.05)},
    )  # fmt: skip
    figure.axes[1].text(1, 0.06, "5 %, the rate of false alarms", ha="right", va="bottom", fontsize=8)
    return figure
