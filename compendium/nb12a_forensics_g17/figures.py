"""Figure of notebook 12a_forensics_g17."""

from collections.abc import Sequence

import pandas
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, NOISE, PUBLISHED, REAL, subplots

_SIZES = (("#56B4E9", "o"), (REAL, "s"), (NOISE, "^"), (ADVERSARIAL, "D"))
"""Colour and marker of each ε of Table 1."""

_SMALLEST = 0.1
"""R1 below it is drawn at it, so that one ratio near 0 does not squeeze all others."""


def one_at_a_time(found: pandas.DataFrame, printed: Sequence[float]) -> Figure:
    """Draw R1 of every variant at every ε on one logarithmic axis, a line for each variant, below the printed row.

    Parameters
    ----------
    found : pandas.DataFrame
        From `g17_causes.one_at_a_time`.
    printed : sequence of float
        R1 as printed, at the same ε.
    """
    means = found[found["ε"] > 0].pivot_table("ratio", "variant", "ε", sort=False)
    names = ["printed", *means.index]
    figure, axis = subplots(figsize=(9.5, 0.42 * len(names) + 1.4))
    for column, (epsilon, value) in enumerate(zip(means.columns, printed, strict=True)):
        colour, marker = _SIZES[column % len(_SIZES)]
        ratios = [value, *means[epsilon]]
        rows = [row + 0.18 * (column - (len(printed) - 1) / 2) for row in range(len(names))]
        style = {"color": colour, "marker": marker, "mfc": "none", "mew": 1.5}
        axis.plot([max(ratio, _SMALLEST) for ratio in ratios], rows, ls="none", label=f"ε = {epsilon:g}", **style)
        # Dots of two lines that nearly coincide alternate.
        axis.axvline(value, color=colour, lw=1.2, ls=(2 * column, (1.5, 6.5)))
        for row, ratio in zip(rows, ratios, strict=True):
            if ratio < _SMALLEST:
                axis.annotate(f"below {_SMALLEST:g}", (_SMALLEST, row), (8, -3), textcoords="offset points", fontsize=8)
    axis.axhline(0.5, color=PUBLISHED, lw=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set(xscale="log", ylim=(len(names) - 0.5, -0.6), xlabel="mean density ratio R1, MNIST (dotted: as printed)")
    figure.legend(loc="outside lower center", ncols=len(printed))
    return figure
