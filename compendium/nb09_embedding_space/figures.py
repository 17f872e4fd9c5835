"""Figures of notebook 09_embedding_space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advlib.figures import AS_PUBLISHED, CORRECTED, LIMIT, MARKERS, PUBLISHED, REAL, subplots
from compendium.common.vs22 import IMPERCEPTIBLE

# ---------------------------------------------------------------- 09: embedding space

SPACE_COLOURS = {
    "pixels": "#56B4E9",
    "last hidden layer": "#882255",
    "logits": "#332288",
    "ImageNet ResNet-18": "#117733",
}
SPACE_MARKERS = {"pixels": "o", "last hidden layer": "s", "logits": "^", "ImageNet ResNet-18": "D"}


def space_curves(results: Sequence[Any], statistic: str, stored: Mapping[str, Mapping[float, float]]) -> Figure:
    """Draw density or coverage over ε in every space, a row each, in both modes (VS22 Fig. 12 and its pixel twin).

    Parameters
    ----------
    results : sequence of embedding.SpaceCurves
        A column each.
    statistic : str
        "density" or "coverage".
    stored : dict
        Title of an image set → ε → stored value of Fig. 12, drawn in the row of the logits.
    """
    names = list(results[0].corrected)
    figure, axes = subplots(
        len(names),
        len(results),
        figsize=(3.3 * len(results), 2.2 * len(names)),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for column, result in enumerate(results):
        for axis, space in zip(axes[:, column], names, strict=True):
            modes = result.by_mode()
            clean = next(iter(modes.values()))[space]
            low, _, high = getattr(clean.clean, f"{statistic}_quantiles")
            middle = np.median(getattr(clean.clean, f"batch_{statistic}"))
            axis.axhspan(low, high, color=REAL, alpha=0.18, label="clean batches, 25–75 % quantiles", lw=0)
            axis.axhline(middle, color=REAL, lw=1, label="clean batches, median")
            null = 1.0 if statistic == "density" else clean.expected_batch_coverage
            axis.axhline(null, color=LIMIT, ls="--", lw=1, label="closed form for clean batches")
            for (mode, curves), colour in zip(modes.items(), (AS_PUBLISHED, CORRECTED), strict=True):
                curve = curves[space]
                low, middle, high = getattr(curve, f"{statistic}_quantiles").T
                axis.fill_between(
                    curve.x, low, high, color=colour, alpha=0.25, lw=0, label=f"FGSM {mode}, 25–75 % quantiles"
                )
                axis.plot(curve.x, middle, color=colour, marker=MARKERS[mode], ms=3, label=f"FGSM {mode}, median")
            if space == "logits" and result.image_set.title in stored and statistic == "density":
                points = stored[result.image_set.title]
                axis.plot(
                    list(points), list(points.values()), MARKERS["published"], color=PUBLISHED, mfc="none",
                    label="VS22's stored values, whole hold-out",
                )  # fmt: skip
            axis.axvspan(0, IMPERCEPTIBLE, color=LIMIT, alpha=0.25, lw=0, label="imperceptible (corrected, ε ≤ 8/255)")
            if column == 0:
                axis.set_ylabel(f"{statistic} in\n{space}")
        axes[0, column].set_title(result.image_set.title)
        axes[-1, column].set_xlabel("FGSM size ε (corrected: pixels;\nas published: multiples of σ)")
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def space_decisions(results: Sequence[Any], largest: float = 0.35) -> Figure:
    """Draw what a decision about one batch gets in each space, for FGSM and for aimless noise of the same size.

    Parameters
    ----------
    results : sequence of embedding.SpaceCurves
        A column each; rows are density and coverage.
    largest : float
        ε up to which is drawn.
    """
    figure, axes = subplots(2, len(results), figsize=(3.7 * len(results), 5.4), sharex=True, sharey=True, squeeze=False)
    for column, result in enumerate(results):
        for axis, statistic in zip(axes[:, column], ("density", "coverage"), strict=True):
            for offset, (space, curve) in enumerate(result.corrected.items()):
                near = curve.x <= largest
                style = {"color": SPACE_COLOURS[space], "marker": SPACE_MARKERS[space], "ms": 4}
                # Curves that lie on top of each other at 1 are drawn a hair apart.
                shift = 0.01 * (offset - 1)
                axis.plot(curve.x[near], curve.decisions(statistic)[1][near] + shift, label=f"FGSM, {space}", **style)
                axis.plot(
                    curve.x[near], result.noise[space].decisions(statistic)[1][near] + shift, ls=":", mfc="white",
                    label=f"±ε noise, {space}", **style,
                )  # fmt: skip
            axis.axhline(0.05, color=LIMIT, lw=0.8)
            axis.axvspan(0, IMPERCEPTIBLE, color=LIMIT, alpha=0.25, lw=0)
            if column == 0:
                axis.set_ylabel(f"power by {statistic}\nat 5 % false alarms")
            axis.set_ylim(-0.03, 1.03)
        axes[0, column].set_title(result.image_set.title)
        axes[-1, column].set_xlabel("size ε (L∞, pixels from 0 to 1)\n(lines shifted by 0.01 to keep them apart)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
