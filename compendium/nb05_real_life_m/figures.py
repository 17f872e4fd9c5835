"""Figures of notebook 05_real_life_m."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas
import seaborn
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from advlib.figures import ADVERSARIAL, LIMIT, PUBLISHED, REAL, subplots
from advlib.ulsif import DEFAULT_GRID
from compendium.common import panels
from compendium.common.size_sweeps import SIDE_LABELS, SIDE_PALETTE, SizeResult, draws_frame
from compendium.nb05_real_life_m.measure import published_table3


def table3(results: Sequence[SizeResult]) -> Figure:
    """Draw G17's Table 3: mean R1 and R2 over the number of suspects, printed and rerun (of MNIST, both modes)."""
    figure, axes = subplots(1, 2, figsize=(10, 4.2), sharex=True)
    for place, (axis, side) in enumerate(zip(axes, ("r1", "r2"), strict=True)):
        printed = {m: entries[place] for m, *entries in published_table3()}
        lines = [(m, "printed", entry.value, entry.low, entry.high) for m, entry in printed.items()]
        means = [(r, r.summary(side)) for r in results]
        lines += [(r.size, r.mode, summary.mean, summary.low, summary.high) for r, summary in means]
        table = pandas.DataFrame(lines, columns=["m", "mode", "mean", "low", "high"])
        for offset, (mode, mine) in zip((-0.12, 0, 0.12), table.groupby("mode", sort=False), strict=False):
            axis.errorbar(
                mine["m"] + offset, mine["mean"], yerr=[mine["mean"] - mine["low"], mine["high"] - mine["mean"]],
                fmt=panels.MARKERS[mode] + "-", color=panels.PALETTE[mode], ms=5, capsize=2.5, lw=1,
                label=f"{mode} (95 % interval)",
            )  # fmt: skip
        axis.set(title=SIDE_LABELS[side], xlabel="suspect images m (against 100 clean ones)")
        axis.set_xticks(list(printed))
        panels.log_ticks(axis, [1, 2, 5, 10, 20, 40])
    axes[0].set_ylabel("mean density ratio")
    axes[0].invert_xaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def ratio_strips(results: Sequence[SizeResult], rng: np.random.Generator) -> Figure:
    """Draw every single draw's ratio over the number of suspects, with medians: what the means hide.

    Parameters
    ----------
    results : sequence of SizeResult
        Of one row, both modes.
    rng : numpy.random.Generator
        Scatters the points sideways, nothing else.
    """
    draws = draws_frame(results)
    draws["centre"] = 0.27 * (draws["side"].map(list(SIDE_LABELS.values()).index) - 1) - draws["size"]
    draws["place"] = draws["centre"] + rng.uniform(-0.09, 0.09, len(draws))
    modes = draws["mode"].unique()
    figure, axes = subplots(len(modes), 1, figsize=(10, 3.6 * len(modes)), sharex=True)
    for axis, mode in zip(axes, modes, strict=True):
        mine = draws[draws["mode"] == mode]
        seaborn.scatterplot(
            mine, x="place", y="ratio", hue="side", style="side", palette=SIDE_PALETTE, ax=axis, s=9, alpha=0.6,
            linewidth=0.3,
        )  # fmt: skip
        medians = mine.groupby("centre")["ratio"].median()
        axis.hlines(medians, medians.index - 0.12, medians.index + 0.12, color=PUBLISHED, label="median of draws")
        axis.axhline(1, color=LIMIT, lw=0.8)
        axis.set(title=f"{mode}: a point a draw", ylabel="mean density ratio of one draw", xlabel="suspect images m")
        axis.get_legend().remove()
        panels.log_ticks(axis, [0.5, 1, 2, 5, 10, 20, 50, 100])
    sizes = sorted(draws["size"].unique(), reverse=True)
    axes[-1].set_xticks([-size for size in sizes], sizes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=2)
    return figure


def r2_by_lambda(table: pandas.DataFrame) -> Figure:
    """Draw mean R2 over the number of suspects, split by the λ that the draws chose, and how many chose it.

    Parameters
    ----------
    table : pandas.DataFrame
        From `measure.clean_r2_by_lambda`.
    """
    labels = ["λ = 0.001 or 0.0032: as if out of reach", "λ = 0.01", "λ above 0.01"]
    table = table.assign(group=pandas.cut(table["lambda"], [0, 0.005, 0.02, np.inf], labels=labels))
    figure, axes = subplots(1, 2, figsize=(10, 3.6), sharex=True)
    words = {"contribution": ("what the draws add to mean R2", "mean density ratio R2"),
             "share": ("share of draws", "share of clean draws")}  # fmt: skip
    for axis, (column, (title, label)) in zip(axes, words.items(), strict=True):
        heights = table.pivot_table(index="size", columns="group", values=column, aggfunc="sum", observed=False)
        # Three shades of one colour: all of it is R2.
        heights.sort_index(ascending=False).plot.bar(
            stacked=True, ax=axis, width=0.7, rot=0, legend=False, color=["#08306B", "#4292C6", "#C6DBEF"],
            edgecolor="white",
        )  # fmt: skip
        axis.set(title=title, xlabel="clean images m in the denominator", ylabel=label)
        axis.grid(axis="x", visible=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def single_image_maps(maps: Mapping[str, np.ndarray]) -> Figure:
    """Draw mean R1 and R2 at m = 1 for each fixed σ and λ of the grid; the cell nearest to each print is framed.

    Both frames stand in both panels, with the mean there: one pair of values would have to serve both.

    Parameters
    ----------
    maps : dict
        "r1" and "r2" → (t, n_sigmas, n_lambdas).
    """
    figure, axes = subplots(1, 2, figsize=(10, 4.4), sharey=True)
    words = [f"{value:.2g}" for value in DEFAULT_GRID]
    _, *printed = published_table3()[-1]
    means = {side: maps[side].mean(axis=0) for side in ("r1", "r2")}
    nearest = {
        side: np.unravel_index(np.abs(np.log(mean / entry.value)).argmin(), mean.shape)
        for (side, mean), entry in zip(means.items(), printed, strict=True)
    }
    for axis, (side, mean), entry in zip(axes, means.items(), printed, strict=True):
        seaborn.heatmap(
            pandas.DataFrame(mean, index=words, columns=words), norm=LogNorm(1e-3, 1e3), cmap="Greys", ax=axis,
            cbar=side == "r2", cbar_kws={"label": "mean density ratio", "ticks": [1e-3, 1e-2, 0.1, 1, 10, 100, 1000]},
        )  # fmt: skip
        axis.grid(False)
        for name, colour in (("r1", ADVERSARIAL), ("r2", REAL)):
            s, k = nearest[name]
            axis.add_patch(Rectangle((k + 0.03, s + 0.03), 0.94, 0.94, fill=False, ec=colour, lw=2.5))
            shade = "white" if mean[s, k] > 5 else "black"
            axis.text(k + 0.5, s + 0.5, f"{mean[s, k]:.2g}", color=shade, ha="center", va="center", fontsize=8)
        axis.set(title=f"mean {side.upper()}, one suspect; printed: {entry.value:.2g}", xlabel="λ, fixed")
    axes[0].set_ylabel("σ, fixed")
    marks = [Patch(fill=False, ec=ADVERSARIAL, lw=2, label="nearest to the printed R1"),
             Patch(fill=False, ec=REAL, lw=2, label="nearest to the printed R2")]  # fmt: skip
    figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure
