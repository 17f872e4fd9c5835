"""Figures of notebook 04_transferability."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, NOISE, PUBLISHED, REAL, STYLE, subplots
from compendium.common import panels
from compendium.common.size_sweeps import COMBINED
from compendium.nb04_transferability.measure import printed_table2, with_printed

_LINES = {"R1": "R1 real-adversarial", "R2": "R2 real-real"}


def table2(measurements: pandas.DataFrame) -> Figure:
    """Draw G17's Table 2: mean density ratios a row, printed and rerun (both modes' measurements)."""
    printed = printed_table2()
    rows = {key: -place for place, key in enumerate(zip(printed["row"], printed["attack"], strict=True))}
    figure, axis = subplots(figsize=(9.5, 5))
    everything = pandas.concat([printed, measurements])
    for offset, (mode, table) in zip((0.24, 0, -0.24), everything.groupby("mode", sort=False), strict=True):
        place = [rows[key] + offset for key in zip(table["row"], table["attack"], strict=True)]
        for side, name in _LINES.items():
            spread = [table[side] - table[f"{side} low"], table[f"{side} high"] - table[side]]
            colour = panels.PALETTE[mode]
            axis.errorbar(
                table[side], place, xerr=spread, fmt=panels.MARKERS[mode], color=colour, ms=6, capsize=2, lw=1,
                mfc="white" if side == "R2" else colour, label=f"{mode}: {name}",
            )  # fmt: skip
    for place in list(rows.values())[:-1]:
        axis.axhline(place - 0.5, color=LIMIT, lw=0.4, alpha=0.5)
    axis.axvline(1, color=LIMIT, lw=0.8)
    axis.set_yticks(list(rows.values()), [f"{row}, {attack.replace('eps=', 'ε = ')}" for row, attack in rows])
    axis.set_xlabel("mean density ratio over the draws, with 95 % interval")
    panels.log_ticks(axis, [1, 2, 5, 10, 20, 40], "x")
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def attack_scan(scan: pandas.DataFrame, amount: str) -> Figure:
    """Draw R1 against an attack's unpublished setting, a panel a row of Table 2, with the printed value as a line.

    Parameters
    ----------
    scan : pandas.DataFrame
        From `measure.tgsm_scan` or `measure.jsma_scan`; the mean of the channels is left out.
    amount : str
        Name of the setting, for the axes.
    """
    scan = with_printed(scan[scan["row"] != COMBINED]).rename(columns={"amount": amount})
    scan["title"] = scan["row"] + "\n" + scan["attack"].str.replace("eps=", "ε = ")
    scan["how"] = "R1, rerun: " + scan["how"]
    ways = scan["how"].nunique()
    figure = panels.lines(
        scan, x=amount, y="R1", col="title", hue="how", style="how", size=(2.6, 3.3),
        palette=(AS_PUBLISHED, REAL, NOISE, ADVERSARIAL, CORRECTED)[:ways],
    )  # fmt: skip
    for axis, goal in zip(figure.axes, scan.drop_duplicates("title")["printed R1"], strict=True):
        axis.axhline(goal, color=PUBLISHED, ls=":", label="printed R1")
        panels.log_ticks(axis, [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 40) if tick <= scan["R1"].max()])
        tried = sorted(scan[amount].unique())
        axis.set_xticks([tried[0], tried[len(tried) // 2], tried[-1]])
    figure.axes[0].set_ylabel("mean density ratio R1")
    _renew_legend(figure, figure.axes[0])
    return figure


def _renew_legend(figure: Figure, axis: Axes) -> None:
    """Say below the panels what their lines are, those that came after the first legend as well."""
    for old in [*figure.legends, axis.get_legend()]:
        if old is not None:
            old.remove()
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)


def attacks_and_controls(control: pandas.DataFrame) -> Figure:
    """Draw attacks beside aimless changes of the same size: mean R1, power, share fooled; a line of panels a data set.

    Parameters
    ----------
    control : pandas.DataFrame
        From `measure.controls`.
    """
    words = {"attack": "attack", "aimless": "aimless change of the same size"}
    ratios = control.assign(what="R2, real-real", variable="R1", value=control["R2"])
    control = control.assign(what=control["how"].map(words))
    long = control.melt(["row", "attack", "what"], ["R1", "power", "fooled"])
    long = pandas.concat([long, ratios[long.columns]], ignore_index=True)
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        grid = seaborn.catplot(
            long, kind="point", x="value", y="attack", hue="what", col="variable", row="row", height=3.1, aspect=1.15,
            sharex="col", sharey="row", palette=[ADVERSARIAL, NOISE, REAL], markers=["o", "D", "|"], linestyle="none",
            errorbar=None, legend_out=False,
        )  # fmt: skip
    names = ("mean density ratio", "share of batches flagged\nat 5 % false alarms", "share of images fooled")
    for column, name, chance in zip(grid.axes.T, names, (1, 0.05, None), strict=True):
        for axis in column:
            if chance is not None:
                axis.axvline(chance, color=LIMIT, lw=0.8)
            axis.set(xlabel=name, ylabel="")
    ticks = (0.8, 1, 1.5, 2, 3, 5, 10, 20)
    panels.log_ticks(grid.axes[0, 0], [tick for tick in ticks if tick <= control["R1"].max() * 1.2], "x")
    grid.set_titles("{row_name}")
    seaborn.move_legend(grid, "upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, title=None, frameon=False)
    grid.figure.tight_layout()
    plt.close(grid.figure)
    return grid.figure


def real_real_by_pool(curves: pandas.DataFrame, printed: Mapping[str, Sequence[float]]) -> Figure:
    """Draw mean R2 on MNIST against the number of images that both batches are drawn from.

    Parameters
    ----------
    curves : pandas.DataFrame
        From `measure.real_real_by_pool`.
    printed : dict
        "Table 1" and "Table 2" → printed R2 of MNIST.
    """
    size, ratio = "test images of MNIST that both batches are drawn from", "mean R2, 100 real against 100 real"
    long = curves.rename_axis(size).reset_index().melt(size, var_name="mode", value_name=ratio)
    figure = panels.lines(long, x=size, y=ratio, hue="mode", style="mode", size=(6.5, 3.4))
    (axis,) = figure.axes
    for (name, values), style, shade in zip(printed.items(), ("--", ":"), (0.12, 0.2), strict=True):
        axis.axhspan(min(values), max(values), color=PUBLISHED, alpha=shade, lw=0)
        middle = (min(values) + max(values)) / 2
        axis.axhline(middle, color=PUBLISHED, ls=style, label=f"printed in {name} (band: least to largest)")
    panels.log_ticks(axis, list(curves.index), "x")
    _renew_legend(figure, axis)
    return figure
