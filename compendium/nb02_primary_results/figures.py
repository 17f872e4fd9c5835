"""Figures of notebook 02_primary_results."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advlib.figures import (
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
from compendium.claims import published
from compendium.common import vs22
from compendium.nb02_primary_results import fgsm

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
    columns = 1 + len(vs22.MODES) * len(fgsm.SHOWN)
    figure, axes = subplots(len(results), columns, figsize=(1.75 * columns, 2.1 * len(results)), squeeze=False)
    for line, result in zip(axes, results, strict=True):
        show_image(line[0], result.examples[vs22.CORRECTED.name][0], f"{result.image_set.title}\noriginal")
        place = 1
        for mode in vs22.MODES:
            for epsilon, image in zip(fgsm.SHOWN, result.examples[mode.name][1:], strict=True):
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


def table1(rows: Sequence[Any]) -> Figure:
    """Draw G17's Table 1: mean density ratios over ε, published and rerun, a panel for each data set.

    Parameters
    ----------
    rows : sequence of g17.RatioRow
        Of the modes "published", "as published" and "corrected".
    """
    names = list(dict.fromkeys(row.row for row in rows))
    figure, axes = subplots(2, -(-len(names) // 2), figsize=(11.5, 6.6), sharex=True, sharey=True)
    colours = {"published": PUBLISHED, "as published": AS_PUBLISHED, "corrected": CORRECTED}
    for axis, name in zip(axes.flat, names, strict=False):
        for mode, colour in colours.items():
            mine = [row for row in rows if row.row == name and row.mode == mode]
            epsilon = np.array([row.epsilon for row in mine])
            for side, style in (("r1", "-"), ("r2", ":")):
                middle = np.array([getattr(row, side).mean for row in mine])
                low, high = (np.array([getattr(getattr(row, side), end) for row in mine]) for end in ("low", "high"))
                axis.errorbar(
                    epsilon, middle, yerr=[middle - low, high - middle], color=colour, ls=style, capsize=2.5,
                    marker=MARKERS[mode], ms=5, lw=1.2, mfc=colour if side == "r1" else "white",
                    label=f"{mode}: {'R1 real-adversarial' if side == 'r1' else 'R2 real-real'}",
                )  # fmt: skip
        axis.set_yscale("log")
        axis.set_title(name)
    for axis in axes[-1]:
        axis.set_xlabel("FGSM size ε (L∞, pixel range 0 to 1)")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean density ratio")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def plateaus(predicted: Mapping[str, Any], rows: Sequence[Any]) -> Figure:
    """Draw the predicted plateau of each row of Table 1 beside what was printed and rerun at the largest ε.

    Parameters
    ----------
    predicted : dict
        From `g17.plateaus`.
    rows : sequence of g17.RatioRow
    """
    largest = max(row.epsilon for row in rows)
    names = list(predicted)
    figure, axis = subplots(figsize=(9, 3.6))
    place = np.arange(len(names))
    for name, colour, label, offset in (
        ("formula", "#BBBBBB", "predicted: ‖ĥ‖²/λ_min, clean images alone", -0.18),
        ("coin_flips", NOISE, "predicted: coin flips of ±1 instead of an attack", 0.18),
    ):
        heights = [getattr(predicted[row], name).mean for row in names]
        axis.bar(place + offset, heights, 0.34, color=colour, label=label)
    for mode, colour in (("published", PUBLISHED), ("as published", AS_PUBLISHED)):
        values = {row.row: row.r1.mean for row in rows if row.mode == mode and row.epsilon == largest}
        axis.plot(
            place, [values[n] for n in names], MARKERS[mode], color=colour, label=f"{mode}: R1 at ε = {largest:g}"
        )
    axis.set_xticks(place, names)
    axis.set_ylabel("mean density ratio R1")
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def unmoved_pixels(
    curves: Mapping[str, np.ndarray],
    shares: Sequence[float],
    epsilons: Sequence[float],
    printed: Mapping[str, Sequence[float]],
) -> Figure:
    """Draw R1 against the share of pixels that do not move, with the printed values as lines.

    Parameters
    ----------
    curves : dict
        From `g17.unmoved_pixel_curves`.
    shares, epsilons : sequence of float
        As given to it.
    printed : dict
        Row → printed R1 at each ε.
    """
    figure, axes = subplots(1, len(curves), figsize=(2.5 * len(curves), 3.1), sharey=True)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        for column, (epsilon, colour) in enumerate(zip(epsilons, (REAL, ADVERSARIAL), strict=False)):
            axis.plot(shares, curve[:, column], "o-", color=colour, ms=3, label=f"coin flips, ε = {epsilon:g}")
            axis.axhline(printed[name][column], color=colour, ls=":", label=f"printed, ε = {epsilon:g}")
        axis.set(title=name, xlabel="share of unmoved pixels", yscale="log")
    axes[0].set_ylabel("mean density ratio R1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def table1_decisions(rows: Sequence[Any]) -> Figure:
    """Draw what a decision gets from the same draws: AUROC and TPR at 5 % false alarms over ε.

    Parameters
    ----------
    rows : sequence of g17.RatioRow
    """
    mine = [row for row in rows if row.mode == "corrected"]
    names = list(dict.fromkeys(row.row for row in mine))
    palette = dict(zip(names, ["#000000", "#7F7F7F", "#D55E00", "#009E73", "#0072B2", "#CC79A7"], strict=False))
    figure, axes = subplots(1, 2, figsize=(9.5, 3.6), sharex=True, sharey=True)
    for axis, key, title in zip(
        axes, ("auroc", "tpr_at_5_fpr"), ("AUROC of one batch", "power at 5 % false alarms"), strict=True
    ):
        for offset, name in enumerate(names):
            line = [row for row in mine if row.row == name]
            # Curves that lie on top of each other at 1 are drawn a hair apart.
            shift = (offset - len(names) / 2) * 0.006
            axis.plot(
                [r.epsilon + shift for r in line],
                [getattr(r, key) for r in line],
                "o-",
                color=palette[name],
                ms=4,
                label=name,
            )
        axis.set(title=title, xlabel="FGSM size ε (L∞)", ylim=(-0.03, 1.05))
    axes[0].axhline(0.5, color=LIMIT, lw=0.8)
    axes[1].axhline(0.05, color=LIMIT, lw=0.8)
    axes[0].legend(loc="lower right")
    return figure
