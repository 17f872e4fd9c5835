"""Figures of notebook 06_crafting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, CORRECTED, LIMIT, NOISE, PUBLISHED, show_image, subplots
from compendium.common import panels
from compendium.nb06_crafting.measure import ALGORITHM_2, CLIPPED, GRADIENT_STEPS, NOT_CLIPPED


def _panel_a_column(frame: pandas.DataFrame, x: str, columns: Mapping[str, str], hue: str, **options: Any) -> Figure:
    """Draw columns of a wide frame over `x`, a panel each; `columns` are column → y label."""
    keys = list(dict.fromkeys([x, hue, options["style"]]))
    long = frame.melt(keys, list(columns), var_name="panel", value_name="value")
    figure = panels.lines(long, x=x, y="value", col="panel", hue=hue, share=False, **options)
    for axis, label in zip(figure.axes, columns.values(), strict=True):
        axis.set(title="", ylabel=label)
    figure.tight_layout()
    return figure


def _tolerances(frame: pandas.DataFrame, column: str) -> dict[str, Any]:
    """Axis settings: logarithmic, with each tolerance named."""
    ticks = sorted(set(frame[column]))
    return {"xscale": "log", "xticks": ticks, "xticklabels": [f"{tick:g}" for tick in ticks],
            "xlabel": "tolerance τ on |mean R1 − mean R2|"}  # fmt: skip


def tolerance_tradeoff(curves: pandas.DataFrame) -> Figure:
    """Draw G17's Fig. 4 again: the ε that Algorithm 2 finds, and the accuracy it leaves (`measure.curves`)."""
    columns = {"epsilon": "FGSM size ε (L∞) that Algorithm 2 finds", "accuracy": "share of images read rightly"}
    figure = _panel_a_column(
        curves, "tolerance", columns, "mode", style="image set", size=(4.6, 3.6), legend_columns=6,
        axis=_tolerances(curves, "tolerance"),
    )  # fmt: skip
    for axis, top in zip(figure.axes, (None, 1), strict=True):
        axis.set_ylim(-0.03 if top else 0, top)
        axis.minorticks_off()
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
        "distance": "squared distance (clean to clean: 1)",
        "accuracy": "share of images read rightly",
    }
    figure = _panel_a_column(
        gaps, "epsilon", columns, "FGSM", style="FGSM", palette={CLIPPED: CORRECTED, NOT_CLIPPED: NOISE},
        size=(4, 3.6), axis={"xlabel": "FGSM size ε (L∞)"},
    )  # fmt: skip
    difference, distance, accuracy = figure.axes
    difference.axhspan(-tolerance, tolerance, color=LIMIT, alpha=0.2, lw=0, label=f"within τ = {tolerance:g}")
    difference.set_ylim(-0.25, 0.6)
    difference.legend(handles=difference.patches, loc="upper left", frameon=False)
    distance.axhline(1, color=LIMIT, lw=0.8)
    accuracy.set_ylim(0, 1)
    return figure


def two_attackers(compared: pandas.DataFrame) -> Figure:
    """Draw accuracy against the tolerance for both attackers, and what a decision about one batch sees of them.

    Parameters
    ----------
    compared : pandas.DataFrame
        From `measure.attackers`.
    """
    columns = {
        "accuracy": "share of images read rightly",
        "AUROC": "AUROC of one batch, fresh draws",
        "power at 5 % false alarms": "share flagged at 5 % false alarms",
    }
    figure = _panel_a_column(
        compared.reset_index(), "τ", columns, "attacker", style="setting", size=(4, 3.8), legend_columns=6,
        palette={ALGORITHM_2: PUBLISHED, GRADIENT_STEPS: ADVERSARIAL}, axis=_tolerances(compared.reset_index(), "τ"),
    )  # fmt: skip
    for axis, chance in zip(figure.axes, (None, 0.5, 0.05), strict=True):
        axis.set_ylim(-0.03, 1.03)
        axis.minorticks_off()
        if chance is not None:
            axis.axhline(chance, color=LIMIT, lw=0.8)
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
