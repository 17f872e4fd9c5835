"""G17's figures of notebooks 03 to 06 and 12: sample size, transferability, real life, crafting, forensics.

Every function takes results and returns a matplotlib Figure; style and colours are those of `advlib.plotting`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

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


def tolerance_tradeoff(curves: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw G17's Fig. 4 again: the ε that Algorithm 2 finds, and the accuracy it leaves, against the tolerance.

    Parameters
    ----------
    curves : dict
        "data set, mode" → results, from `tolerance.curves`.
    """
    figure, (sizes, accuracies) = subplots(1, 2, figsize=(10, 3.8), sharex=True)
    for name, results in curves.items():
        title, mode = name.rsplit(", ", 1)
        colour = AS_PUBLISHED if mode == "as published" else CORRECTED
        style = {"color": colour, "marker": MARKERS[mode], "ms": 5, "ls": "-" if title == "MNIST" else "--"}
        style["mfc"] = colour if title == "MNIST" else "white"
        tolerances = [result.tolerance for result in results]
        sizes.plot(tolerances, [result.epsilon for result in results], label=name, **style)
        accuracies.plot(tolerances, [result.adversarial_accuracy for result in results], **style)
    sizes.set(title="ε that Algorithm 2 finds", ylabel="FGSM size ε (L∞)", xscale="log", ylim=(0, None))
    accuracies.set(title="accuracy that it leaves", ylabel="share of images read rightly", ylim=(-0.03, 1))
    for axis in (sizes, accuracies):
        axis.set_xlabel("tolerance τ on |mean R1 − mean R2|")
        axis.set_xticks(tolerances, [f"{value:g}" for value in tolerances])
        axis.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def gap_and_distance(curves: Sequence[Any], tolerance: float) -> Figure:
    """Draw R1 − R2 over ε beside the distance between clean and attacked images, clipped and not.

    Parameters
    ----------
    curves : sequence of tolerance.GapCurve
        Clipped, then not clipped.
    tolerance : float
        τ whose band is shaded.
    """
    figure, (gaps, distances, accuracies) = subplots(1, 3, figsize=(12, 3.6), sharex=True)
    for curve, colour, marker in zip(curves, (CORRECTED, NOISE), "^v", strict=True):
        style = {"color": colour, "marker": marker, "ms": 4}
        gaps.plot(curve.epsilons, curve.differences, label=curve.title, **style)
        distances.plot(curve.epsilons, curve.distances, **style)
        accuracies.plot(curve.epsilons, curve.accuracies, **style)
    gaps.axhspan(-tolerance, tolerance, color=LIMIT, alpha=0.2, lw=0, label=f"within τ = {tolerance:g}")
    gaps.set(title="R1 − R2 (cut at 0.6)", ylabel="mean R1 − mean R2", ylim=(-0.25, 0.6))
    gaps.legend()
    distances.axhline(1, color=LIMIT, lw=0.8)
    distances.set(title="how near attacked images lie to clean ones", ylabel="squared distance (clean to clean: 1)")
    accuracies.set(title="accuracy", ylabel="share of images read rightly", ylim=(0, 1))
    for axis in (gaps, distances, accuracies):
        axis.set_xlabel("FGSM size ε (L∞)")
    return figure


def two_attackers(compared: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw accuracy against the tolerance for both attackers, and what a decision about one batch sees of them.

    Parameters
    ----------
    compared : dict
        "data set, mode" → comparisons, from `tolerance.attackers`.
    """
    figure, axes = subplots(1, 3, figsize=(12, 3.8), sharex=True, sharey=True)
    panels = (
        ("accuracy left", lambda result, defended: result.adversarial_accuracy, "share of images read rightly"),
        ("AUROC of one batch", lambda result, defended: defended.auroc, "AUROC, fresh draws"),
        ("power at 5 % false alarms", lambda result, defended: defended.tpr_at_5_fpr, "share of batches flagged"),
    )
    for axis, (title, value, label) in zip(axes, panels, strict=True):
        for (name, rows), (line, filled) in zip(compared.items(), (("-", True), ("--", False)), strict=False):
            for attacker, colour in (("fgsm", PUBLISHED), ("pgd", ADVERSARIAL)):
                words = "Algorithm 2" if attacker == "fgsm" else "gradient steps (weight searched)"
                axis.plot(
                    [row.tolerance for row in rows],
                    [value(getattr(row, attacker), getattr(row, f"{attacker}_defended")) for row in rows],
                    color=colour, marker="o", ls=line, mfc=colour if filled else "white", label=f"{words}: {name}",
                )  # fmt: skip
        axis.set(title=title, xlabel="tolerance τ", ylabel=label, xscale="log", ylim=(-0.03, 1.03))
        axis.tick_params(labelleft=True)
        tolerances = [row.tolerance for row in next(iter(compared.values()))]
        axis.set_xticks(tolerances, [f"{value:g}" for value in tolerances])
        axis.minorticks_off()
    axes[1].axhline(0.5, color=LIMIT, lw=0.8)
    axes[2].axhline(0.05, color=LIMIT, lw=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def attacked_rows(rows: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Draw images row by row, with the class that the network reads above each.

    Parameters
    ----------
    rows : sequence of (title, (n, c, h, w) images, (n,) predicted classes)
    """
    count = len(rows[0][1])
    figure, axes = subplots(len(rows), count, figsize=(1.25 * count + 1, 1.5 * len(rows)), squeeze=False)
    for line, (title, images, said) in zip(axes, rows, strict=True):
        for axis, image, word in zip(line, images, said, strict=True):
            show_image(axis, image, f"“{word}”")
        line[0].text(-0.15, 0.5, title, transform=line[0].transAxes, ha="right", va="center")
    return figure


_SIDES = {
    "r1": ("R1: real against adversarial", ADVERSARIAL, "o-"),
    "r2": ("R2: real against real", REAL, "s-"),
    "noise": ("real against real with random ±ε noise", NOISE, "x--"),
}


def figure3(results: Sequence[Any]) -> Figure:
    """Draw G17's Fig. 3 again: mean ratios with 95 % intervals over the sample size, a row of panels for each mode.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of the rows to draw.
    """
    names, modes = (list(dict.fromkeys(getattr(r, key) for r in results)) for key in ("row", "mode"))
    figure, axes = subplots(len(modes), len(names), figsize=(3 * len(names), 5.8), sharex=True, sharey=True)
    for line, mode in zip(axes, modes, strict=True):
        for axis, name in zip(line, names, strict=True):
            mine = [r for r in results if r.row == name and r.mode == mode]
            for side, (label, colour, style) in _SIDES.items():
                summaries = [r.summary(side) for r in mine]
                middle = np.array([s.mean for s in summaries])
                reach = [middle - [s.low for s in summaries], [s.high for s in summaries] - middle]
                axis.errorbar(
                    [r.size for r in mine], middle, yerr=reach, fmt=style, color=colour, ms=4, capsize=2.5, lw=1.2,
                    label=f"{label} (mean, 95 % interval)",
                )  # fmt: skip
            axis.axhline(1, color=LIMIT, lw=0.8)
            axis.set(title=f"{name}\n{mode}", yscale="log")
            axis.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
            axis.minorticks_off()
    # Intervals of a few huge draws reach below 0: there is no such place on a logarithmic axis.
    axes[0, 0].set_ylim(0.5, None)
    for axis in axes[-1]:
        axis.set_xlabel("images in numerator and denominator")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean density ratio")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def size_decisions(results: Sequence[Any], label: str) -> Figure:
    """Draw AUROC and power at 5 % false alarms over the sample size, attack and untargeted noise, a column a data set.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of the rows to draw, both modes.
    label : str
        What the sample size counts.
    """
    names = list(dict.fromkeys(r.row for r in results))
    figure, axes = subplots(2, len(names), figsize=(max(3 * len(names), 8), 5.6), sharex=True, sharey="row")
    for line, key, title, chance in zip(
        axes, ("auroc", "tpr_at_5_fpr"), ("AUROC of one batch", "power at 5 % false alarms"), (0.5, 0.05), strict=True
    ):
        for axis, name in zip(line, names, strict=True):
            for mode, colour in (("as published", AS_PUBLISHED), ("corrected", CORRECTED)):
                mine = [r for r in results if r.row == name and r.mode == mode]
                for part, words, style in (("attack", "FGSM", "-"), ("control", "random ±ε noise", "--")):
                    axis.plot(
                        [r.size for r in mine], [getattr(getattr(r, part), key) for r in mine], ls=style, color=colour,
                        marker=MARKERS[mode], ms=4.5, mfc=colour if part == "attack" else "white",
                        label=f"{mode}: {words}",
                    )  # fmt: skip
            axis.axhline(chance, color=LIMIT, lw=0.8)
            axis.set_ylim(-0.03, 1.05)
            axis.set_title(name)
        line[0].set_ylabel(title)
    for axis in axes[-1]:
        axis.set_xlabel(label)
        axis.set_xticks(sorted({r.size for r in results}))
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def own_kernels(results: Sequence[Any]) -> Figure:
    """Draw mean R1 and R2 over the sample size, whole and without what each image's kernel on itself adds.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of one mode.
    """
    names = list(dict.fromkeys(r.row for r in results))
    figure, axes = subplots(1, len(names), figsize=(3 * len(names), 3.5), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        mine = [r for r in results if r.row == name]
        sizes = [r.size for r in mine]
        for side in ("r1", "r2"):
            _, colour, style = _SIDES[side]
            for bare, line, fill in ((False, "-", colour), (True, ":", "white")):
                axis.plot(
                    sizes, [r.summary(side, bare).mean for r in mine], marker=style[0], ls=line, color=colour, mfc=fill,
                    ms=4.5, label=f"mean {side.upper()}{' without own kernels' if bare else ''}",
                )  # fmt: skip
        axis.axhline(1, color=LIMIT, lw=0.8)
        axis.set(title=name, xlabel="images in each sample", yscale="log")
        axis.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        axis.minorticks_off()
    axes[0].set_ylabel("mean density ratio")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


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


def table2(rows: Sequence[tuple[str, str]], tables: Mapping[str, Mapping[tuple[str, str], Any]]) -> Figure:
    """Draw G17's Table 2: mean density ratios a row, published and rerun.

    Parameters
    ----------
    rows : sequence of (str, str)
        (row, attack), from `transferability.table2_rows`.
    tables : dict
        "published", "as published" and "corrected" → (row, attack) → (R1, R2), each a `protocol.Summary`.
    """
    figure, axis = subplots(figsize=(9.5, 5))
    colours = {"published": PUBLISHED, "as published": AS_PUBLISHED, "corrected": CORRECTED}
    place = np.arange(len(rows))[::-1]
    for offset, (mode, colour) in zip((0.24, 0, -0.24), colours.items(), strict=True):
        for side, name in enumerate(("R1 real-adversarial", "R2 real-real")):
            values = [tables[mode][key][side] for key in rows]
            middle = np.array([value.mean for value in values])
            spread = [middle - [v.low for v in values], [v.high for v in values] - middle]
            axis.errorbar(
                middle, place + offset, xerr=spread, fmt=MARKERS[mode], color=colour, ms=6, capsize=2, lw=1,
                mfc="white" if side else colour, label=f"{mode}: {name}",
            )  # fmt: skip
    for edge in place[:-1] - 0.5:
        axis.axhline(edge, color=LIMIT, lw=0.4, alpha=0.5)
    axis.axvline(1, color=LIMIT, lw=0.8)
    axis.set_yticks(place, [f"{row}, {attack.replace('eps=', 'ε = ')}" for row, attack in rows])
    axis.set(xscale="log", xlabel="mean density ratio over the draws, with 95 % interval")
    axis.set_xticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def attack_scan(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    printed: Mapping[str, float],
    tolerance: float,
    amount: str,
) -> Figure:
    """Draw R1 against an attack's unpublished setting, a panel a row of Table 2, with the printed value as a line.

    Parameters
    ----------
    panels : dict
        Panel's title → way of running the attack → (settings, R1).
    printed : dict
        Panel's title → printed R1.
    tolerance : float
        Half width of the shaded band, as a share of the printed value.
    amount : str
        Name of the setting, for the axes.
    """
    figure, axes = subplots(1, len(panels), figsize=(2.6 * len(panels), 3.3), sharey=True)
    palette = (AS_PUBLISHED, REAL, NOISE, ADVERSARIAL, CORRECTED)
    for axis, (title, ways) in zip(axes, panels.items(), strict=True):
        for (way, (settings, ratios)), colour, marker in zip(ways.items(), palette, "o^Dvs", strict=False):
            axis.plot(settings, ratios, f"{marker}-", color=colour, ms=4, label=way)
        low, high = (printed[title] * (1 + sign * tolerance) for sign in (-1, 1))
        axis.axhspan(low, high, color=PUBLISHED, alpha=0.10, lw=0, label=f"printed ± {tolerance:.0%}")
        axis.axhline(printed[title], color=PUBLISHED, ls=":", label="printed R1")
        axis.set(title=title, xlabel=amount, yscale="log")
    axes[0].set_ylabel("mean density ratio R1")
    top = max(max(ratios) for ways in panels.values() for _, ratios in ways.values())
    ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 40) if tick <= top]
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def attacks_and_controls(groups: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw attacks beside aimless changes of the same size: mean R1, AUROC and power, a line of panels a data set.

    Parameters
    ----------
    groups : dict
        From `transferability.controls`.
    """
    figure, axes = subplots(len(groups), 3, figsize=(11, 3.1 * len(groups)), sharex="col", squeeze=False)
    for line, (title, measurements) in zip(axes, groups.items(), strict=True):
        place = -np.arange(len(measurements))
        for how, colour, marker, words in (
            ("attack", ADVERSARIAL, "o", "attack"),
            ("aimless", NOISE, "D", "aimless change of the same size"),
        ):
            mine = [(y, m) for y, m in zip(place, measurements, strict=True) if m.how == how]
            for axis, value in zip(
                line,
                (lambda m: m.r1, lambda m: m.comparison.auroc, lambda m: m.comparison.tpr_at_5_fpr),
                strict=True,
            ):
                axis.plot([value(m) for _, m in mine], [y for y, _ in mine], marker, color=colour, ms=6, label=words)
        # A line between the group of the ball and that of JSMA.
        edge = 0.5 - sum(m.amount == 0 for m in measurements)
        for axis in line:
            axis.axhline(edge, color=LIMIT, lw=0.6)
            axis.set_yticks(place, [m.attack for m in measurements] if axis is line[0] else [])
            axis.set_ylim(place[-1] - 0.6, 0.6)
        for group in dict.fromkeys(m.amount for m in measurements):
            ys = [y for y, m in zip(place, measurements, strict=True) if m.amount == group]
            r2 = next(m.r2 for m in measurements if m.amount == group)
            line[0].plot([r2, r2], [min(ys) - 0.4, max(ys) + 0.4], color=REAL, ls="--", label="R2, real-real")
        line[0].set(xscale="log", title=f"{title}: mean R1")
        ticks = [1, 2, 5, 10, 20] if max(m.r1 for line in groups.values() for m in line) > 6 else [0.8, 1, 1.5, 2, 3, 5]
        line[0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        line[0].minorticks_off()
        line[1].set(xlim=(0.2, 1.04), title="AUROC of one batch")
        line[1].axvline(0.5, color=LIMIT, lw=0.8)
        line[2].set(xlim=(-0.04, 1.04), title="power at 5 % false alarms")
        line[2].axvline(0.05, color=LIMIT, lw=0.8)
    axes[-1, 0].set_xlabel("mean density ratio")
    axes[-1, 1].set_xlabel("changed batch above clean one")
    axes[-1, 2].set_xlabel("share of changed batches flagged")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3)
    return figure


def real_real_by_pool(curves: Mapping[str, Mapping[int, float]], printed: Mapping[str, Sequence[float]]) -> Figure:
    """Draw mean R2 on MNIST against the number of images that both batches are drawn from.

    Parameters
    ----------
    curves : dict
        From `transferability.real_real_by_pool`.
    printed : dict
        "Table 1" and "Table 2" → printed R2 of MNIST.
    """
    figure, axis = subplots(figsize=(6.5, 3.4))
    for (mode, curve), colour in zip(curves.items(), (AS_PUBLISHED, CORRECTED), strict=True):
        axis.plot(list(curve), list(curve.values()), f"{MARKERS[mode]}-", color=colour, label=f"{mode}: mean R2")
    for (name, values), style, shade in zip(printed.items(), ("--", ":"), (0.12, 0.2), strict=True):
        low, high = min(values), max(values)
        axis.axhspan(low, high, color=PUBLISHED, alpha=shade, lw=0)
        axis.axhline((low + high) / 2, color=PUBLISHED, ls=style, label=f"printed in {name}")
    axis.set(xscale="log", xlabel="test images of MNIST that both batches are drawn from", ylabel="mean R2, real-real")
    sizes = list(next(iter(curves.values())))
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    axis.legend(fontsize=8.5)
    return figure


def one_at_a_time(found: Sequence[Any], printed: Sequence[float]) -> Figure:
    """Draw R1 of every variant at every ε on one logarithmic axis, a line for each variant, below the printed row.

    Parameters
    ----------
    found : sequence of forensics.VariantResult
    printed : sequence of float
        R1 as printed, at the same ε.
    """
    epsilons = found[0].epsilons
    names = ["printed", *(result.variant.name for result in found)]
    values = [np.asarray(printed), *(result.means for result in found)]
    shades = ("#56B4E9", REAL, NOISE, ADVERSARIAL)
    figure, axis = subplots(figsize=(9.5, 0.42 * len(names) + 1.4))
    place = -np.arange(len(names))
    for column, (epsilon, colour, marker) in enumerate(zip(epsilons, shades, "os^D", strict=False)):
        # Dots of two lines that nearly coincide alternate.
        axis.axvline(printed[column], color=colour, lw=1.2, ls=(2 * column, (1.5, 6.5)))
        means = np.array([row[column] for row in values])
        shown, level = np.maximum(means, 0.1), place + 0.27 - 0.18 * column
        axis.plot(shown, level, marker, color=colour, ms=6, mfc="none", mew=1.5, label=f"ε = {epsilon:g}")
        for x, y in zip(shown[means < 0.1], level[means < 0.1], strict=True):
            axis.annotate("below 0.1", (x, y), xytext=(7, -3), textcoords="offset points", fontsize=8)
    axis.set_yticks(place, names)
    axis.axhline(-0.5, color=PUBLISHED, lw=0.8)
    axis.set(xscale="log", xlabel="mean density ratio R1, MNIST (dotted: as printed)", xlim=(0.08, None))
    figure.legend(loc="outside lower center", ncols=len(epsilons))
    return figure


def plateau_by_lambda(plateaus: Sequence[Any], printed: Mapping[str, float]) -> Figure:
    """Draw the plateau of R1 against the smallest λ of the grid: formula as a line, coin flips as circles.

    Parameters
    ----------
    plateaus : sequence of forensics.PlateauByLambda
    printed : dict
        Row → printed R1 at the largest ε, drawn at the default grid's smallest λ.
    """
    figure, axes = subplots(1, len(plateaus), figsize=(2.5 * len(plateaus), 3.2), sharey=True)
    for axis, plateau in zip(axes, plateaus, strict=True):
        axis.plot(plateau.smallest, plateau.predicted, color=LIMIT, label="predicted: ‖ĥ‖²/λ_min, clean images alone")
        axis.plot(plateau.smallest, plateau.measured, "o", color=NOISE, label="measured: coin flips of ±1")
        axis.plot(1e-3, printed[plateau.row], "s", color=PUBLISHED, mfc="none", ms=9, label="printed R1 at ε = 1")
        axis.set(title=plateau.row, xscale="log", yscale="log", xlabel="smallest λ of the grid")
    axes[0].set_ylabel("mean density ratio R1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def pooled_intervals(table: Any) -> Figure:
    """Draw the printed half-widths of the combined R1 rows beside three ways to come by them.

    Parameters
    ----------
    table : pandas.DataFrame
        From `forensics.pooled_intervals`.
    """
    rows = table[table.index.get_level_values("column").str.startswith("R1")]
    names = [f"{item}\n{column.removeprefix('R1 ').replace('eps=', 'ε = ')}" for item, column in rows.index]
    figure, axis = subplots(figsize=(9, 3.2))
    place = np.arange(len(rows))
    for column, colour, marker, words in (
        ("together", LIMIT, "v", "mean of channels that go together"),
        ("independent", REAL, "^", "mean of independent channels"),
        ("pooled", CORRECTED, "o", "300 ratios in one pot"),
    ):
        axis.plot(place, rows[column], marker, color=colour, ms=8, label=words)
    axis.plot(place, rows["printed"], "s", color=PUBLISHED, mfc="none", ms=11, label="printed")
    axis.set_xticks(place, names)
    axis.set(ylabel="half-width of the 95 % interval", yscale="log")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def bounds_alone(curve: Any) -> Figure:
    """Draw density and coverage over ε of VS22's published attack, of its bounds alone, and of the corrected attack.

    Parameters
    ----------
    curve : forensics_vs22.BoundsCurve
    """
    figure, axes = subplots(1, 2, figsize=(10, 3.8), sharex=True)
    colours = {"as published": AS_PUBLISHED, "its bounds alone, no gradient": NOISE, "corrected": CORRECTED}
    for axis, values, expected, name in (
        (axes[0], curve.density, 1.0, "density"),
        (axes[1], curve.coverage, curve.expected, "coverage"),
    ):
        for title, colour in colours.items():
            alone = title.startswith("its")
            axis.plot(
                curve.epsilons, values[title], marker="x" if alone else "o", ms=7 if alone else 4, color=colour,
                ls="--" if alone else "-", zorder=3 if alone else 2, label=title,
            )  # fmt: skip
        axis.axhline(expected, color=REAL, lw=1, label="untouched hold-out, in the mean")
        axis.axvline(curve.kink, color=LIMIT, ls=":", label=f"μ/σ = {curve.kink:.3f}")
        axis.set(title=name, xlabel="ε (as published: multiples of σ; corrected: pixels)", ylabel=f"{name} (no unit)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def shifts(moved: Sequence[Any], sources: Sequence[Any], printed: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw where clean hold-outs go that are not exchangeable with the reference, in pixels and inside the network.

    Parameters
    ----------
    moved, sources : sequence of forensics_vs22.Shift
    printed : dict
        "pixels" and "inside" → (density, coverage over its closed form) of PathMNIST as the authors have them.
    """
    figure, axes = subplots(1, 2, figsize=(11, 4.6))
    colours = (PUBLISHED, ADVERSARIAL, REAL, NOISE, CORRECTED)
    for shift, colour in zip(moved, colours, strict=True):
        sizes = ", ".join(f"{strength:g}" for strength in shift.strengths[1:])
        for axis, x, y in (
            (axes[0], shift.density, shift.coverage),
            (axes[1], shift.embedded_density, shift.embedded_coverage),
        ):
            if len(x) > 1:
                axis.plot(x, y, "-", color=colour, lw=1)
                axis.scatter(x[1:], y[1:], s=18 * np.arange(1, len(x)), color=colour, label=f"{shift.title}: {sizes}")
            else:
                axis.plot(x, y, "+", color=colour, ms=12, label="untouched hold-out")
    for shift, marker in zip(sources, "<>", strict=False):
        axes[0].plot(shift.density, shift.coverage, marker, color=AS_PUBLISHED, ms=8, label=shift.title)
    titles = ("pixels", "last hidden layer (other axes)")
    for axis, key, title in zip(axes, ("pixels", "inside"), titles, strict=True):
        axis.plot(*printed[key], "s", color=PUBLISHED, mfc="none", ms=11, label="PathMNIST, the authors")
        axis.axhline(1, color=LIMIT, lw=0.8)
        axis.axvline(1, color=LIMIT, lw=0.8)
        axis.set(title=title, xlabel="density (exchangeable: 1)")
    axes[0].set_ylabel("coverage / closed form (exchangeable: 1)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
