"""Figure of notebook 02b_density_coverage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advlib.figures import NOISE, PUBLISHED, REAL, subplots
from compendium.claims import published
from compendium.common import panels, vs22

_WAYS = {
    vs22.AS_PUBLISHED.name: "FGSM as the papers' code did it",
    vs22.CORRECTED.name: "FGSM as the paper describes it",
}


def over_epsilon(
    metrics: Mapping[str, Any], sets: Sequence[vs22.ImageSet], statistic: str = "density", *, read: bool = True
) -> Figure:
    """Draw VS22 Fig. 3a again: density or coverage over ε, and below it how much the network still reads rightly.

    Parameters
    ----------
    metrics : dict
        Of a run, or of its record, as `judge_fgsm.record_fgsm` fills them.
    sets : sequence of ImageSet
        A column each. The lower ε axis counts pixels, the upper one σ of the set, as VS22 do.
    statistic : str
        "density" or "coverage".
    read : bool
        Whether to draw the lower panels.
    """
    lines = 1 + read
    figure, axes = subplots(lines, len(sets), figsize=(3.3 * len(sets), 1.6 + 2 * lines), sharex="col", squeeze=False)
    epsilons = np.array(vs22.EPSILONS)
    for column, image_set in zip(axes.T, sets, strict=True):
        above, below, sigma = column[0], column[-1], max(image_set.std)
        of = f"fgsm.{image_set.title}."
        for mode in vs22.MODES:
            sizes = epsilons * mode.pixel_size(image_set, 1.0)
            style = {"color": panels.PALETTE[mode.name], "marker": panels.MARKERS[mode.name], "ms": 4}
            above.plot(sizes, metrics[f"{of}{mode.name}.{statistic}"], label=_WAYS[mode.name], **style)
            if read:
                below.plot(sizes, metrics[f"{of}{mode.name}.accuracy"], **style)
        flips = metrics[f"{of}{vs22.AS_PUBLISHED.name}.coin_flips_{statistic}"]
        tossed = "coin flips, else as the papers' code did it"
        above.plot(epsilons * sigma, flips, ":", color=NOISE, lw=2.5, label=tossed)
        above.axhline(metrics[f"{of}reference_{statistic}"], color=REAL, lw=1.2, label="clean images")
        _printed(above, image_set, statistic)
        above.set_title(image_set.title, pad=8)
        above.set(xlim=(-0.02 * sigma, 1.06 * sigma), ylim=(-0.05 if statistic == "density" else -0.02, None))
        below.set_xlabel("FGSM size ε (L∞, pixels from 0 to 1)")
        if read:
            below.set_ylim(-0.03, 1.05)
        scale = above.secondary_xaxis("top", functions=(lambda x, s=sigma: x / s, lambda x, s=sigma: x * s))
        scale.set_xticks(np.linspace(0, 1, 5))
        scale.set_xlabel("ε in σ, as VS22 count")
    axes[0, 0].set_ylabel(statistic)
    if read:
        axes[1, 0].set_ylabel("share read rightly")
    legend: dict[str, Any] = {}
    for axis in axes[0]:
        legend |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _printed(axis: Any, image_set: vs22.ImageSet, statistic: str) -> None:
    """Mark the crossing of the clean density that §5.1 prints, and what the authors stored of the curve."""
    sigma, start = max(image_set.std), f"adversarial {statistic} eps="
    stored = [
        (min(vs22.EPSILONS, key=lambda e: abs(e - float(entry.column.removeprefix(start)))) * sigma, entry.value)
        for entry in published.load("vs22", "stored results")
        if entry.row == image_set.title and entry.column.startswith(start)
    ]
    if stored:
        axis.plot(*zip(*stored, strict=True), "kx", ms=7, mew=1.6, label="stored by the authors", zorder=4)
    found = {entry.column: entry.value for entry in published.load("vs22", "§5.1") if entry.row == image_set.title}
    crossing, clean = f"{statistic} crossing eps", f"reference {statistic}"
    if crossing in found and clean in found:
        point = found[crossing] * sigma, found[clean]
        axis.plot(*point, "s", color=PUBLISHED, mfc="none", ms=9, label="crossing as printed in §5.1", zorder=4)
