"""Figures of notebook 06_crafting."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas
import seaborn
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, CORRECTED, LIMIT, PUBLISHED, STYLE, show_image, subplots
from compendium.common import panels
from compendium.nb06_crafting.measure import ALGORITHM_2, CLIPPED, GRADIENT_STEPS, NOT_CLIPPED

EPSILON = "size ε of FGSM (pixels go from 0 to 1)"


def _panel_a_column(frame: pandas.DataFrame, x: str, columns: Mapping[str, str], hue: str, **options: Any) -> Figure:
    """Draw columns of a wide frame over `x`, a panel each; `columns` are column → y label."""
    keys = list(dict.fromkeys([x, hue, options["style"]]))
    long = frame.melt(keys, list(columns), var_name="panel", value_name="value")
    figure = panels.lines(long, x=x, y="value", col="panel", hue=hue, share=False, **options)
    for axis, label in zip(figure.axes, columns.values(), strict=True):
        axis.set(title="", ylabel=label)
    figure.tight_layout()
    return figure


def tolerance_tradeoff(curves: pandas.DataFrame) -> Figure:
    """Draw G17's Fig. 4 again: the ε that Algorithm 2 finds, and the accuracy it leaves (`measure.curves`)."""
    columns = {
        "epsilon": "ε that Algorithm 2 finds\n(pixels go from 0 to 1)",
        "accuracy": "share of images read rightly",
    }
    figure = _panel_a_column(
        curves, "tolerance", columns, "mode", style="image set", size=(4.6, 3.6), legend_columns=6,
        axis={"xlabel": "tolerance τ on |mean R1 − mean R2|"},
    )  # fmt: skip
    for axis, top in zip(figure.axes, (None, 1), strict=True):
        axis.set_ylim(-0.03 if top else 0, top)
        panels.log_ticks(axis, sorted(set(curves["tolerance"])), "x")
    return figure


def gap_and_distance(gaps: pandas.DataFrame, tolerance: float) -> Figure:
    """Draw R1 − R2 over ε beside the distance between clean and attacked images (`measure.clipped_and_unclipped`).

    Parameters
    ----------
    gaps : pandas.DataFrame
    tolerance : float
        τ whose band is shaded.
    """
    columns = {
        "difference": "mean R1 − mean R2 (cut at 0.6)",
        "distance": "mean squared distance, attacked to clean\n(clean to clean: 1)",
        "accuracy": "share of images read rightly",
    }
    figure = _panel_a_column(
        gaps, "epsilon", columns, "FGSM", style="FGSM", palette={CLIPPED: CORRECTED, NOT_CLIPPED: ADVERSARIAL},
        size=(4, 3.6), axis={"xlabel": EPSILON},
    )  # fmt: skip
    difference, distance, accuracy = figure.axes
    difference.axhspan(-tolerance, tolerance, color=LIMIT, alpha=0.2, lw=0)
    difference.set(ylim=(-0.25, 0.6), title=f"grey: within τ = {tolerance:g}")
    distance.axhline(1, color=LIMIT, lw=0.8)
    accuracy.set_ylim(0, 1)
    return figure


def two_attackers(compared: pandas.DataFrame) -> Figure:
    """Draw what both attackers leave and what a decision about one batch sees of them, a point a tolerance.

    Parameters
    ----------
    compared : pandas.DataFrame
        From `measure.attackers`; a line of panels a setting.
    """
    columns = {
        "accuracy": "share of images read rightly",
        "AUROC": "AUROC of one batch, fresh draws",
        "power at 5 % false alarms": "share flagged at 5 % false alarms",
    }
    long = compared.reset_index().melt(["setting", "τ", "attacker"], list(columns), var_name="panel")
    long["τ"] = long["τ"].map("{:g}".format)
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        grid = seaborn.catplot(
            long, kind="point", x="τ", y="value", hue="attacker", col="panel", row="setting", height=2.7, aspect=1.3,
            palette={ALGORITHM_2: PUBLISHED, GRADIENT_STEPS: ADVERSARIAL}, markers=["o", "D"], linestyle="none",
            dodge=0.25, errorbar=None, legend_out=False,
        )  # fmt: skip
    for column, label, chance in zip(grid.axes.T, columns.values(), (None, 0.5, 0.05), strict=True):
        for axis, setting in zip(column, grid.row_names, strict=True):
            axis.set(title=f"{setting}\n{label}", ylabel="", ylim=(-0.05, 1.05), xlabel="tolerance τ")
            if chance is not None:
                axis.axhline(chance, color=LIMIT, lw=0.8)
    seaborn.move_legend(grid, "upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, title=None, frameon=False)
    grid.figure.tight_layout()
    plt.close(grid.figure)
    return grid.figure


def gap_and_energy(similar: pandas.DataFrame) -> Figure:
    """Draw the gap of the mean ratios beside the energy distance over ε (`measure.similarity`)."""
    columns = {"gap": "|mean R1 − mean R2|", "energy": "energy distance\n(L2, grey values from 0 to 1)"}
    scan = similar[~similar["crafted"]]
    figure = _panel_a_column(
        scan, "epsilon", columns, "mode", style="image set", size=(4.6, 3.4), legend_columns=6, axis={"xlabel": EPSILON}
    )
    figure.axes[0].set_yscale("log")
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
