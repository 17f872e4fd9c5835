"""Figures of notebook 09_embedding_space; `results` are `measure.SpaceCurves`, one an image set."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure

from advlib.figures import LIMIT, MARKERS, PUBLISHED, REAL
from compendium.common import panels
from compendium.common.vs22 import IMPERCEPTIBLE

PALETTE = {"clean batches": REAL} | {f"FGSM {mode}": panels.PALETTE[mode] for mode in ("as published", "corrected")}
SPACES = {
    "pixels": "#56B4E9",
    "last hidden layer": "#882255",
    "logits": "#332288",
    "ImageNet ResNet-18": "#117733",
}


def space_curves(results: Sequence[Any], statistic: str, stored: Mapping[str, Mapping[float, float]]) -> Figure:
    """Draw density or coverage over ε in every space, a row each, in both modes (VS22 Fig. 12 and its pixel twin).

    Lines are medians of sub-batches, bands their quartiles, dashed the closed form of clean ones, squares the stored
    values.

    Parameters
    ----------
    results : sequence of measure.SpaceCurves
        A column each.
    statistic : str
        "density" or "coverage".
    stored : dict
        Title of an image set → ε → stored value of Fig. 12, drawn in the row of the logits.
    """
    x = "FGSM size ε (corrected: pixels;\nas published: multiples of σ)\ngrey: imperceptible, if corrected"
    spaces, frames = list(results[0].corrected), []
    for result, space in product(results, spaces):
        clean = result.corrected[space].clean
        steps = [("clean batches", epsilon, clean) for epsilon in (0.0, 1.0)]
        for mode, curves in result.by_mode().items():
            steps += [(f"FGSM {mode}", *step) for step in zip(curves[space].x, curves[space].scores, strict=True)]
        frames += [
            pandas.DataFrame({"image set": result.image_set.title, "space": space, "what": what, x: epsilon,
                              statistic: getattr(score, f"batch_{statistic}")})
            for what, epsilon, score in steps
        ]  # fmt: skip
    frame = pandas.concat(frames, ignore_index=True)
    figure = panels.lines(
        frame, x=x, y=statistic, col="image set", row="space", hue="what", style="what", palette=PALETTE,
        markers=dict(zip(PALETTE, (".", MARKERS["as published"], MARKERS["corrected"]), strict=True)),
        dashes=False, estimator="median", errorbar=panels.quartiles, share="row", size=(3.3, 2.3), ms=4,
    )  # fmt: skip
    axes = np.reshape(figure.axes, (len(spaces), len(results)))
    for (row, space), (column, result) in product(enumerate(spaces), enumerate(results)):
        axis, title = axes[row, column], result.image_set.title
        null = 1.0 if statistic == "density" else result.corrected[space].expected_batch_coverage
        axis.axhline(null, color=LIMIT, ls="--", lw=1)
        axis.axvspan(0, IMPERCEPTIBLE, color=LIMIT, alpha=0.25, lw=0)
        if space == "logits" and statistic == "density":
            points = stored.get(title, {})
            axis.plot(list(points), list(points.values()), MARKERS["published"], color=PUBLISHED, mfc="none")
        axis.set_title("" if row else title)
        axes[row, 0].set_ylabel(f"{statistic} in\n{space}")
    figure.tight_layout()
    return figure


def space_decisions(results: Sequence[Any], largest: float = 0.35) -> Figure:
    """Draw what a decision about one batch gets in each space, for FGSM and for aimless noise of the same size.

    Parameters
    ----------
    results : sequence of measure.SpaceCurves
        A column each; rows are density and coverage.
    largest : float
        ε up to which is drawn.
    """
    x = "size ε (L∞, pixels from 0 to 1)\n(lines shifted by 0.01 to keep them apart)"
    y = "power at 5 % false alarms"
    frames = []
    for result, statistic in product(results, ("density", "coverage")):
        for offset, space in enumerate(result.corrected):
            for change, curves in (("FGSM", result.corrected), ("±ε noise", result.noise)):
                # Curves that lie on top of each other at 1 are drawn a hair apart.
                powers = curves[space].decisions(statistic)[1] + 0.01 * (offset - 1)
                keys = {"image set": result.image_set.title, "by": f"by {statistic}", "space": space, "change": change}
                frames.append(pandas.DataFrame(keys | {x: curves[space].x, y: powers}))
    frame = pandas.concat(frames, ignore_index=True)
    figure = panels.lines(
        frame[frame[x] <= largest], x=x, y=y, col="image set", row="by", hue="space", style="change",
        palette={space: SPACES[space] for space in frame["space"].unique()}, references={"level": 0.05},
        size=(3.7, 2.7), axis={"ylim": (-0.03, 1.03)}, legend_columns=7, dashes={"FGSM": "", "±ε noise": (1, 1)},
    )  # fmt: skip
    for axis in figure.axes:
        axis.axvspan(0, IMPERCEPTIBLE, color=LIMIT, alpha=0.25, lw=0)
    return figure
