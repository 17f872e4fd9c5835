"""Figure of notebook 12b_forensics_vs22."""

from typing import Any

import pandas
from matplotlib.figure import Figure

from advlib.figures import AS_PUBLISHED, CORRECTED, LIMIT, NOISE, REAL, subplots
from compendium.nb12b_forensics_vs22.vs22_causes import BOUNDS_ALONE, UNTOUCHED


def bounds_alone(curves: pandas.DataFrame, kink: float, sigma: float) -> Figure:
    """Draw density and coverage over ε of VS22's published attack, of its bounds alone, and of the corrected attack.

    Parameters
    ----------
    curves : pandas.DataFrame
        From `vs22_causes.bounds_alone`.
    kink : float
        μ/σ: the ε at which a black pixel has reached the lower bound.
    sigma : float
        Pixels in one σ. The lower axis counts pixels, the upper one σ, as VS22 do.
    """
    lines: dict[str, tuple[str, dict[str, Any]]] = {
        "as published": ("as the papers' code did it", {"color": AS_PUBLISHED, "marker": "o"}),
        BOUNDS_ALONE: (BOUNDS_ALONE, {"color": NOISE, "marker": "x", "ls": "--"}),
        "corrected": ("as the paper describes it", {"color": CORRECTED, "marker": "^"}),
        UNTOUCHED: ("expected of untouched images", {"color": REAL}),
    }
    figure, axes = subplots(1, 2, figsize=(10, 4.1))
    for axis, score in zip(axes, ("density", "coverage"), strict=True):
        for attack, (words, style) in lines.items():
            rows = curves[curves["attack"] == attack]
            unit = 1.0 if attack == "corrected" else sigma
            axis.plot(rows["ε"] * unit, rows[score], label=words, ms=4.5, **style)
        arrived = f"black pixels reach the bound: {kink:.2f} σ, {kink * sigma:.2f} in pixels"
        axis.axvline(kink * sigma, color=LIMIT, ls=":", label=arrived)
        axis.set(xlim=(-0.01, 1.03 * sigma), xlabel="ε (L∞, pixels from 0 to 1)", ylabel=score)
        scale = axis.secondary_xaxis("top", functions=(lambda x: x / sigma, lambda x: x * sigma))
        scale.set_xlabel("ε in σ, as VS22 count")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
