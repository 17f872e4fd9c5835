"""Figures of notebook 12_forensics."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, NOISE, PUBLISHED, REAL, subplots
from compendium.common import panels
from compendium.nb12_forensics.g17_causes import r1_rows
from compendium.nb12_forensics.vs22_causes import BOUNDS_ALONE, INSIDE, PIXELS, UNTOUCHED


def one_at_a_time(found: pandas.DataFrame, printed: Sequence[float]) -> Figure:
    """Draw R1 of every variant at every ε on one logarithmic axis, a line for each variant, below the printed row.

    Parameters
    ----------
    found : pandas.DataFrame
        From `g17_causes.one_at_a_time`.
    printed : sequence of float
        R1 as printed, at the same ε.
    """
    means = found[found["ε"] > 0].groupby(["variant", "ε"], sort=False, as_index=False)["ratio"].mean()
    epsilons = list(means["ε"].unique())
    colours = dict(zip(epsilons, ("#56B4E9", REAL, NOISE, ADVERSARIAL), strict=False))
    first = pandas.DataFrame({"variant": "printed", "ε": epsilons, "ratio": printed})
    rows = pandas.concat([first, means])
    figure, axis = subplots(figsize=(9.5, 0.42 * rows["variant"].nunique() + 1.4))
    seaborn.stripplot(
        rows, x="ratio", y="variant", hue="ε", palette=colours, dodge=True, jitter=False, log_scale=True, ax=axis
    )
    for column, (epsilon, value) in enumerate(zip(epsilons, printed, strict=True)):
        # Dots of two lines that nearly coincide alternate.
        axis.axvline(value, color=colours[epsilon], lw=1.2, ls=(2 * column, (1.5, 6.5)))
    axis.axhline(0.5, color=PUBLISHED, lw=0.8)
    axis.set(xlabel="mean density ratio R1, MNIST (dotted: as printed)", ylabel="")
    handles, labels = axis.get_legend_handles_labels()
    axis.get_legend().remove()
    figure.legend(handles, [f"ε = {label}" for label in labels], loc="outside lower center", ncols=len(labels))
    return figure


def plateau_by_lambda(plateaus: pandas.DataFrame, printed: Mapping[str, float]) -> Figure:
    """Draw the plateau of R1 against the smallest λ of the grid, predicted and measured.

    Parameters
    ----------
    plateaus : pandas.DataFrame
        From `g17_causes.plateau_by_lambda`.
    printed : dict
        Row → printed R1 at the largest ε, drawn at the default grid's smallest λ.
    """
    names = {
        "predicted": "predicted: ‖ĥ‖²/λ_min, clean images alone",
        "measured": "measured: coin flips of ±1",
        "printed": "printed R1 at ε = 1",
    }
    at_default = pandas.DataFrame({"row": list(printed), "smallest λ": 1e-3, "printed": list(printed.values())})
    long = pandas.concat([plateaus, at_default]).rename(columns=names)
    long = long.melt(["row", "smallest λ"], list(names.values()), "kind", "mean density ratio R1").dropna()
    return panels.lines(
        long, x="smallest λ", y="mean density ratio R1", col="row", hue="kind", style="kind",
        palette=dict(zip(names.values(), (LIMIT, NOISE, PUBLISHED), strict=True)), markers=[".", "o", "s"],
        dashes=["", (1, 1), ""], size=(2.4, 3),
        axis={"xscale": "log", "yscale": "log", "xlabel": "smallest λ of the grid"},
    )  # fmt: skip


def pooled_intervals(table: pandas.DataFrame) -> Figure:
    """Draw the printed half-widths of the combined R1 rows beside three ways to come by them.

    Parameters
    ----------
    table : pandas.DataFrame
        From `g17_causes.pooled_intervals`.
    """
    rows = r1_rows(table)
    ways = {
        "together": "mean of channels that go together",
        "independent": "mean of independent channels",
        "pooled": "300 ratios in one pot",
    }
    names = [f"{item}\n{column.removeprefix('R1 ').replace('eps=', 'ε = ')}" for item, column in rows.index]
    computed = rows[list(ways)].rename(columns=ways).set_axis(names)
    figure, axis = subplots(figsize=(9, 3.2))
    seaborn.scatterplot(computed, palette=[LIMIT, REAL, CORRECTED], markers=["v", "^", "o"], s=80, ax=axis)
    axis.plot(names, rows["printed"], "s", color=PUBLISHED, mfc="none", ms=11, label="printed")
    axis.set(ylabel="half-width of the 95 % interval", yscale="log")
    axis.get_legend().remove()
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def bounds_alone(curves: pandas.DataFrame, kink: float) -> Figure:
    """Draw density and coverage over ε of VS22's published attack, of its bounds alone, and of the corrected attack.

    Parameters
    ----------
    curves : pandas.DataFrame
        From `vs22_causes.bounds_alone`.
    kink : float
        μ/σ: the ε at which a black pixel has reached the lower bound.
    """
    colours = {"as published": AS_PUBLISHED, BOUNDS_ALONE: NOISE, "corrected": CORRECTED, UNTOUCHED: REAL}
    long = curves.melt(["attack", "ε"], ["density", "coverage"], "score", "score (no unit)")
    figure = panels.lines(
        long, x="ε", y="score (no unit)", col="score", hue="attack", style="attack", palette=colours, size=(4.8, 3.6),
        markers=["o", "X", "o", "."], share=False, legend_columns=4,
        axis={"xlabel": "ε (as published: multiples of σ; corrected: pixels)"},
    )  # fmt: skip
    for axis in figure.axes:
        axis.axvline(kink, color=LIMIT, ls=":")
        axis.set_title(f"{axis.get_title()} (dotted line: ε = μ/σ = {kink:.3f})")
    return figure


def shifts(moved: pandas.DataFrame, sources: pandas.DataFrame, printed: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw where clean hold-outs go that are not exchangeable with the reference, in pixels and inside the network.

    Parameters
    ----------
    moved, sources : pandas.DataFrame
        From `vs22_causes.shifts` and `other_sources`.
    printed : dict
        `PIXELS` and `INSIDE` → (density, coverage over its closed form) of PathMNIST as the authors have them.
    """
    figure, axes = subplots(1, 2, figsize=(11, 4.6))
    for axis, space in zip(axes, (PIXELS, INSIDE), strict=True):
        changes = moved[moved["space"] == space].groupby("change", sort=False)
        for (change, rows), colour in zip(changes, (PUBLISHED, ADVERSARIAL, REAL, NOISE, CORRECTED), strict=True):
            if len(rows) == 1:
                axis.plot(rows["density"], rows["coverage"], "+", color=colour, ms=12, label="untouched hold-out")
                continue
            axis.plot(rows["density"], rows["coverage"], "-", color=colour, lw=1)
            label = f"{change}: {', '.join(f'{strength:g}' for strength in rows['strength'][1:])}"
            sizes = 18 * np.arange(1, len(rows))
            axis.scatter(rows["density"][1:], rows["coverage"][1:], s=sizes, color=colour, label=label)
        for (_, row), marker in zip(sources[sources["space"] == space].iterrows(), "<>", strict=False):
            axis.plot(row["density"], row["coverage"], marker, color=AS_PUBLISHED, ms=8, label=row["change"])
        axis.plot(*printed[space], "s", color=PUBLISHED, mfc="none", ms=11, label="PathMNIST, the authors")
        axis.axhline(1, color=LIMIT, lw=0.8)
        axis.axvline(1, color=LIMIT, lw=0.8)
        axis.set(title=space, xlabel="density (exchangeable: 1)", ylabel="coverage / closed form (exchangeable: 1)")
    axes[1].set_title(f"{INSIDE} (other axes)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def networks_2017(lines: pandas.DataFrame) -> Figure:
    """Draw R1 of every variant against its share of unmoved pixels, at the two ε below the plateau.

    Parameters
    ----------
    lines : pandas.DataFrame
        From `networks_2017.judged`.
    """
    rows = [row for row in lines["row"].unique() if "combined" not in row]
    epsilons = sorted(lines["epsilon"].unique())[:2]
    kinds = list(lines["variant"].unique())
    palette = dict(zip(kinds, seaborn.color_palette("colorblind", len(kinds)), strict=True))
    figure, axes = subplots(len(epsilons), len(rows), figsize=(2.6 * len(rows), 5.6), sharex=True, squeeze=False)
    for epsilon, line in zip(epsilons, axes, strict=True):
        for row, axis in zip(rows, line, strict=True):
            mine = lines[(lines["row"] == row) & (lines["epsilon"] == epsilon)]
            axis.axhspan(mine["printed_low"].iloc[0], mine["printed_high"].iloc[0], color=PUBLISHED, alpha=0.15, lw=0)
            axis.axhline(mine["printed"].iloc[0], color=PUBLISHED, lw=1)
            for entry in mine.itertuples():
                colour, x = palette[entry.variant], 100 * entry.zero_share
                axis.plot([x, x], [entry.coin_flips, entry.r1], color=colour, lw=0.7, alpha=0.6)
                axis.plot(x, entry.coin_flips, "_", color=colour, ms=8)
                marker = {"true labels": "o", "own predictions": "s", "dropout on": "^"}[entry.attack]
                axis.plot(
                    x, entry.r1, marker, color=colour, ms=6, mfc="none" if entry.attack != "true labels" else None
                )
            axis.set_title(f"{row}, ε = {epsilon:g}")
    for axis in axes[-1]:
        axis.set_xlabel("unmoved pixels (%)")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean density ratio R1")
    handles = [Line2D([], [], color=palette[name], marker="o", ls="", label=name) for name in kinds]
    marks = {"own predictions": "s", "dropout on": "^", "coin flips, same unmoved pixels": "_"}
    handles += [Line2D([], [], color=LIMIT, marker=m, ls="", mfc="none", label=name) for name, m in marks.items()]
    handles.append(Line2D([], [], color=PUBLISHED, label="printed, with its interval"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
