"""Figures of notebook 04_transferability."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, MARKERS, NOISE, PUBLISHED, REAL, subplots


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
