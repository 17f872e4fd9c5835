"""Figures of notebook 09_embedding_space; `results` are `measure.SpaceCurves`, one an image set."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure

from advlib.figures import LIMIT, PUBLISHED, REAL
from compendium.common import panels
from compendium.common.vs22 import AS_PUBLISHED, MODES

PALETTE = {"clean batches": REAL} | {f"FGSM {mode}": panels.PALETTE[mode] for mode in ("as published", "corrected")}
SPACES = {"pixels": "#56B4E9", "last hidden layer": "#882255", "logits": "#332288"}
SIZE = "FGSM size ε (pixels)"
LARGEST = 0.42
"""Size in pixels up to which curves are drawn: beyond, corrected ones only fall further."""


def space_curves(results: Sequence[Any], statistic: str, stored: Mapping[str, Mapping[float, float]]) -> Figure:
    """Draw density or coverage over ε in every space, an image set a row (VS22 Fig. 12 and its pixel twin).

    Lines are medians of sub-batches, bands their quartiles, dashed the closed form of clean ones, squares the stored
    values. All sizes are in pixels: as published the largest is one σ of the image set.

    Parameters
    ----------
    results : sequence of measure.SpaceCurves
        A row each.
    statistic : str
        "density" or "coverage".
    stored : dict
        Title of an image set → ε in σ → stored value of Fig. 12, drawn in the column of the logits.
    """
    spaces, frames = list(results[0].corrected), []
    for result, space in product(results, spaces):
        clean = result.corrected[space].clean
        steps = [("clean batches", epsilon, clean) for epsilon in (0.0, LARGEST)]
        for mode in MODES:
            curve = result.by_mode()[mode.name][space]
            sizes = [mode.pixel_size(result.image_set, epsilon) for epsilon in curve.x]
            steps += [(f"FGSM {mode.name}", *step) for step in zip(sizes, curve.scores, strict=True)]
        frames += [
            pandas.DataFrame({"image set": result.image_set.title, "space": space, "what": what, SIZE: epsilon,
                              statistic: getattr(score, f"batch_{statistic}")})
            for what, epsilon, score in steps if epsilon <= LARGEST
        ]  # fmt: skip
    figure = panels.lines(
        pandas.concat(frames, ignore_index=True), x=SIZE, y=statistic, col="space", row="image set", hue="what",
        style="what", palette=PALETTE, dashes=False, estimator="median", errorbar=panels.quartiles, share="row",
        markers=dict(zip(PALETTE, (".", panels.MARKERS["as published"], panels.MARKERS["corrected"]), strict=True)),
        size=(3.3, 2.6), ms=4,
    )  # fmt: skip
    axes = np.reshape(figure.axes, (len(results), len(spaces)))
    for (row, result), (column, space) in product(enumerate(results), enumerate(spaces)):
        axis, title = axes[row, column], result.image_set.title
        null = 1.0 if statistic == "density" else result.corrected[space].expected_batch_coverage
        axis.axhline(null, color=LIMIT, ls="--", lw=1)
        if space == "logits":
            points = stored.get(title, {})
            sizes = [AS_PUBLISHED.pixel_size(result.image_set, epsilon) for epsilon in points]
            axis.plot(sizes, list(points.values()), panels.MARKERS["printed"], color=PUBLISHED, mfc="none")
        axis.set_title("" if row else space)
        axes[row, 0].set_ylabel(f"{statistic},\n{title}")
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
    x = "size ε of FGSM and of noise (pixels)\n(lines shifted by 0.01 to keep them apart)"
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
    return panels.lines(
        frame[frame[x] <= largest], x=x, y=y, col="image set", row="by", hue="space", style="change",
        palette=SPACES, references={"level": 0.05},
        size=(3.7, 2.7), axis={"ylim": (-0.03, 1.03)}, legend_columns=7, dashes={"FGSM": "", "±ε noise": (1, 1)},
    )  # fmt: skip
