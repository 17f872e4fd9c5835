"""Figure of notebook 12a_forensics_g17."""

from collections.abc import Sequence

import pandas
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, LIMIT, NOISE, PUBLISHED, REAL, subplots

_SIZES = (("#56B4E9", "o"), (REAL, "s"), (NOISE, "^"), (ADVERSARIAL, "D"))
"""Colour and marker of each ε of Table 1."""

WORDS = {
    "as published": "as the software of 2017 does it",
    "mean over the denominator": "mean over the attacked batch",
    "densratio's leave-one-out": "leave-one-out with densratio's defect",
    "VS22's network": "another network (VS22's)",
    "VS22's network, exact direction": "another network, exact direction",
    "corrected": "as the paper describes it",
}
"""Names of variants in figures and tables, where the record has shorter ones."""

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
    names = ["printed", *(WORDS.get(name, name) for name in means.index)]
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


def networks_2017(lines: pandas.DataFrame, epsilon: float = 0.3) -> Figure:
    """Draw R1 of every recipe and of coin flips, a line a recipe and a panel a row of Table 1.

    Parameters
    ----------
    lines : pandas.DataFrame
        From `networks_2017.judged`.
    epsilon : float
        Below the plateau.
    """
    lines = lines[(lines["epsilon"] == epsilon) & ~lines["row"].str.contains("combined")]
    names = lines["recipe"]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    lines = lines.assign(place=names.map(places))
    panels = lines["row"].nunique()
    figure, axes = subplots(1, panels, figsize=(1.9 * panels + 2.5, 0.27 * len(places) + 1.5), sharey=True)
    for (row, mine), axis in zip(lines.groupby("row", sort=False), axes, strict=True):
        printed = mine.iloc[0]
        band = {"color": PUBLISHED, "alpha": 0.15, "lw": 0, "label": "printed 95 % interval"}
        axis.axvspan(printed["printed_low"], printed["printed_high"], **band)
        axis.axvline(printed["printed"], color=PUBLISHED, lw=1, label="printed")
        axis.hlines(mine["place"], mine["r1"], mine["coin_flips"], color=LIMIT, lw=0.7)
        axis.plot(mine["r1"], mine["place"], "o", color=ADVERSARIAL, label="FGSM")
        coins = "coin flips that leave the same pixels unmoved"
        axis.plot(mine["coin_flips"], mine["place"], "|", color=NOISE, ms=10, mew=2.5, label=coins)
        axis.set(title=row, xlabel=f"R1, ε = {epsilon:g}")
        axis.locator_params(axis="x", nbins=3, integer=True)
    axes[0].set_yticks(range(len(places)), places)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
