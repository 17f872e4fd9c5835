"""Figures of notebook 05_real_life_m."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, MARKERS, PUBLISHED, subplots
from compendium.common.size_sweeps import _SIDES


def table3(
    results: Sequence[Any], printed: Sequence[tuple[int, Any, Any]], bands: Mapping[str, Sequence[Any]]
) -> Figure:
    """Draw G17's Table 3: mean R1 and R2 over the number of suspects, published and rerun.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of MNIST, both modes.
    printed : sequence of (m, R1, R2)
        From `sample_size.published_table3`.
    bands : dict
        "r1" and "r2" → (low, high) for each printed m, in which a rerun agrees.
    """
    figure, axes = subplots(1, 2, figsize=(10, 4.2), sharex=True)
    m = [row[0] for row in printed]
    for axis, side, place in zip(axes, ("r1", "r2"), (1, 2), strict=True):
        entries = [row[place] for row in printed]
        axis.fill_between(
            m, *zip(*bands[side], strict=True), color=LIMIT, alpha=0.18, lw=0, label="agrees with the print"
        )
        lines = {"published": [(e.value, e.low, e.high) for e in entries]}
        for mode in ("as published", "corrected"):
            found = [r.summary(side) for r in results if r.mode == mode]
            lines[mode] = [(s.mean, s.low, s.high) for s in found]
        sizes = [r.size for r in results if r.mode == "corrected"]
        for offset, (mode, colour) in enumerate(
            (("published", PUBLISHED), ("as published", AS_PUBLISHED), ("corrected", CORRECTED))
        ):
            middle, low, high = np.array(lines[mode]).T
            x = np.array(m if mode == "published" else sizes) + (offset - 1) * 0.12
            axis.errorbar(
                x, middle, yerr=[middle - low, high - middle], fmt=MARKERS[mode] + "-", color=colour, ms=5, capsize=2.5,
                lw=1, label=f"{mode} (95 % interval)",
            )  # fmt: skip
        words = "R1: real against adversarial" if side == "r1" else "R2: real against real"
        axis.set(title=words, xlabel="suspect images m (100 real ones above the line)", yscale="log")
        axis.set_xticks(m)
        ticks = [1, 2, 5, 10, 20, 40]
        axis.set_yticks(ticks, [str(t) for t in ticks])
        axis.minorticks_off()
    axes[0].set_ylabel("mean density ratio")
    axes[0].invert_xaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def ratio_strips(results: Sequence[Any], rng: np.random.Generator) -> Figure:
    """Draw every single draw's ratio over the number of suspects, with medians: what the means hide.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of one row, both modes.
    rng : numpy.random.Generator
        Scatters the points sideways, nothing else.
    """
    modes = list(dict.fromkeys(r.mode for r in results))
    figure, axes = subplots(len(modes), 1, figsize=(10, 3.6 * len(modes)), sharex=True)
    for axis, mode in zip(axes, modes, strict=True):
        for result in (r for r in results if r.mode == mode):
            for offset, (side, (label, colour, style)) in enumerate(_SIDES.items()):
                values = getattr(result, side)
                x = -result.size + (offset - 1) * 0.27
                axis.plot(
                    x + rng.uniform(-0.09, 0.09, len(values)), values, style[0], color=colour, ms=2.5, alpha=0.55,
                    mew=0.6, label=label,
                )  # fmt: skip
                axis.plot(
                    [x - 0.12, x + 0.12], [np.median(values)] * 2, color=PUBLISHED, lw=1.8, label="median of draws"
                )
        axis.axhline(1, color=LIMIT, lw=0.8)
        axis.set(title=f"{mode}: a point a draw", ylabel="mean density ratio of one draw", yscale="log")
        ticks = [0.5, 1, 2, 5, 10, 20, 50, 100]
        axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
    sizes = sorted({r.size for r in results}, reverse=True)
    axes[-1].set_xticks([-size for size in sizes], [str(size) for size in sizes])
    axes[-1].set_xlabel("suspect images m")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, markerscale=2)
    return figure


def r2_by_lambda(table: Any) -> Figure:
    """Draw mean R2 over the number of suspects, split by the λ that the draws chose, and how many chose it.

    Parameters
    ----------
    table : pandas.DataFrame
        From `sample_size.clean_r2_by_lambda`.
    """
    groups = (
        # Three shades of one colour: all of it is R2.
        ("λ = 0.001 or 0.0032: as if out of reach", table["lambda"] < 0.005, "#08306B"),
        ("λ = 0.01", (table["lambda"] > 0.005) & (table["lambda"] < 0.02), "#4292C6"),
        ("λ above 0.01", table["lambda"] > 0.02, "#C6DBEF"),
    )
    sizes = sorted(table["size"].unique(), reverse=True)
    places = np.arange(len(sizes))
    figure, axes = subplots(1, 2, figsize=(10, 3.6), sharex=True)
    for axis, column, title in (
        (axes[0], "contribution", "what the draws add to mean R2"),
        (axes[1], "share", "share of draws"),
    ):
        base = np.zeros(len(sizes))
        for label, chosen, colour in groups:
            heights = np.array([table[chosen & (table["size"] == size)][column].sum() for size in sizes])
            axis.bar(places, heights, 0.7, bottom=base, color=colour, label=label, edgecolor="white", linewidth=0.8)
            base += heights
        axis.set(title=title, xlabel="clean images m in the denominator")
        axis.set_xticks(places, [str(size) for size in sizes])
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("mean density ratio R2")
    axes[1].set_ylabel("share of clean draws")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def single_image_maps(
    maps: Mapping[str, np.ndarray], grid: Sequence[float], bands: Mapping[str, tuple[float, float]]
) -> Figure:
    """Draw mean R1 and R2 at m = 1 for each fixed σ and λ, cells that agree with the print framed.

    Parameters
    ----------
    maps : dict
        "r1" and "r2" → (t, n_sigmas, n_lambdas).
    grid : sequence of float
        Values of σ and of λ.
    bands : dict
        "r1" and "r2" → range that agrees with the printed number.
    """
    figure, axes = subplots(1, 2, figsize=(12.5, 4.6), sharey=True)
    words = [f"{value:.2g}" for value in grid]
    for axis, side in zip(axes, ("r1", "r2"), strict=True):
        mean = maps[side].mean(axis=0)
        axis.imshow(np.log10(mean), cmap="Greys", vmin=-3, vmax=5, aspect="auto")
        for (s, k), value in np.ndenumerate(mean):
            inside = bands[side][0] <= value <= bands[side][1]
            axis.text(k, s, f"{value:.3g}", ha="center", va="center", fontsize=8, fontweight="bold" if inside else None)
            if inside:
                axis.add_patch(Rectangle((k - 0.47, s - 0.47), 0.94, 0.94, fill=False, ec=ADVERSARIAL, lw=2))
        axis.set_xticks(range(len(grid)), words)
        axis.set_yticks(range(len(grid)), words)
        axis.grid(False)
        axis.set(title=f"mean {side.upper()}, one suspect; framed: agrees with the print", xlabel="λ, fixed")
    axes[0].set_ylabel("σ, fixed")
    return figure
