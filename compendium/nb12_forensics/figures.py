"""Figures of notebook 12_forensics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, NOISE, PUBLISHED, REAL, subplots


def one_at_a_time(found: Sequence[Any], printed: Sequence[float]) -> Figure:
    """Draw R1 of every variant at every ε on one logarithmic axis, a line for each variant, below the printed row.

    Parameters
    ----------
    found : sequence of forensics.VariantResult
    printed : sequence of float
        R1 as printed, at the same ε.
    """
    epsilons = found[0].epsilons
    names = ["printed", *(result.variant.name for result in found)]
    values = [np.asarray(printed), *(result.means for result in found)]
    shades = ("#56B4E9", REAL, NOISE, ADVERSARIAL)
    figure, axis = subplots(figsize=(9.5, 0.42 * len(names) + 1.4))
    place = -np.arange(len(names))
    for column, (epsilon, colour, marker) in enumerate(zip(epsilons, shades, "os^D", strict=False)):
        # Dots of two lines that nearly coincide alternate.
        axis.axvline(printed[column], color=colour, lw=1.2, ls=(2 * column, (1.5, 6.5)))
        means = np.array([row[column] for row in values])
        shown, level = np.maximum(means, 0.1), place + 0.27 - 0.18 * column
        axis.plot(shown, level, marker, color=colour, ms=6, mfc="none", mew=1.5, label=f"ε = {epsilon:g}")
        for x, y in zip(shown[means < 0.1], level[means < 0.1], strict=True):
            axis.annotate("below 0.1", (x, y), xytext=(7, -3), textcoords="offset points", fontsize=8)
    axis.set_yticks(place, names)
    axis.axhline(-0.5, color=PUBLISHED, lw=0.8)
    axis.set(xscale="log", xlabel="mean density ratio R1, MNIST (dotted: as printed)", xlim=(0.08, None))
    figure.legend(loc="outside lower center", ncols=len(epsilons))
    return figure


def plateau_by_lambda(plateaus: Sequence[Any], printed: Mapping[str, float]) -> Figure:
    """Draw the plateau of R1 against the smallest λ of the grid: formula as a line, coin flips as circles.

    Parameters
    ----------
    plateaus : sequence of forensics.PlateauByLambda
    printed : dict
        Row → printed R1 at the largest ε, drawn at the default grid's smallest λ.
    """
    figure, axes = subplots(1, len(plateaus), figsize=(2.5 * len(plateaus), 3.2), sharey=True)
    for axis, plateau in zip(axes, plateaus, strict=True):
        axis.plot(plateau.smallest, plateau.predicted, color=LIMIT, label="predicted: ‖ĥ‖²/λ_min, clean images alone")
        axis.plot(plateau.smallest, plateau.measured, "o", color=NOISE, label="measured: coin flips of ±1")
        axis.plot(1e-3, printed[plateau.row], "s", color=PUBLISHED, mfc="none", ms=9, label="printed R1 at ε = 1")
        axis.set(title=plateau.row, xscale="log", yscale="log", xlabel="smallest λ of the grid")
    axes[0].set_ylabel("mean density ratio R1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def pooled_intervals(table: Any) -> Figure:
    """Draw the printed half-widths of the combined R1 rows beside three ways to come by them.

    Parameters
    ----------
    table : pandas.DataFrame
        From `forensics.pooled_intervals`.
    """
    rows = table[table.index.get_level_values("column").str.startswith("R1")]
    names = [f"{item}\n{column.removeprefix('R1 ').replace('eps=', 'ε = ')}" for item, column in rows.index]
    figure, axis = subplots(figsize=(9, 3.2))
    place = np.arange(len(rows))
    for column, colour, marker, words in (
        ("together", LIMIT, "v", "mean of channels that go together"),
        ("independent", REAL, "^", "mean of independent channels"),
        ("pooled", CORRECTED, "o", "300 ratios in one pot"),
    ):
        axis.plot(place, rows[column], marker, color=colour, ms=8, label=words)
    axis.plot(place, rows["printed"], "s", color=PUBLISHED, mfc="none", ms=11, label="printed")
    axis.set_xticks(place, names)
    axis.set(ylabel="half-width of the 95 % interval", yscale="log")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def bounds_alone(curve: Any) -> Figure:
    """Draw density and coverage over ε of VS22's published attack, of its bounds alone, and of the corrected attack.

    Parameters
    ----------
    curve : forensics_vs22.BoundsCurve
    """
    figure, axes = subplots(1, 2, figsize=(10, 3.8), sharex=True)
    colours = {"as published": AS_PUBLISHED, "its bounds alone, no gradient": NOISE, "corrected": CORRECTED}
    for axis, values, expected, name in (
        (axes[0], curve.density, 1.0, "density"),
        (axes[1], curve.coverage, curve.expected, "coverage"),
    ):
        for title, colour in colours.items():
            alone = title.startswith("its")
            axis.plot(
                curve.epsilons, values[title], marker="x" if alone else "o", ms=7 if alone else 4, color=colour,
                ls="--" if alone else "-", zorder=3 if alone else 2, label=title,
            )  # fmt: skip
        axis.axhline(expected, color=REAL, lw=1, label="untouched hold-out, in the mean")
        axis.axvline(curve.kink, color=LIMIT, ls=":", label=f"μ/σ = {curve.kink:.3f}")
        axis.set(title=name, xlabel="ε (as published: multiples of σ; corrected: pixels)", ylabel=f"{name} (no unit)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def shifts(moved: Sequence[Any], sources: Sequence[Any], printed: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw where clean hold-outs go that are not exchangeable with the reference, in pixels and inside the network.

    Parameters
    ----------
    moved, sources : sequence of forensics_vs22.Shift
    printed : dict
        "pixels" and "inside" → (density, coverage over its closed form) of PathMNIST as the authors have them.
    """
    figure, axes = subplots(1, 2, figsize=(11, 4.6))
    colours = (PUBLISHED, ADVERSARIAL, REAL, NOISE, CORRECTED)
    for shift, colour in zip(moved, colours, strict=True):
        sizes = ", ".join(f"{strength:g}" for strength in shift.strengths[1:])
        for axis, x, y in (
            (axes[0], shift.density, shift.coverage),
            (axes[1], shift.embedded_density, shift.embedded_coverage),
        ):
            if len(x) > 1:
                axis.plot(x, y, "-", color=colour, lw=1)
                axis.scatter(x[1:], y[1:], s=18 * np.arange(1, len(x)), color=colour, label=f"{shift.title}: {sizes}")
            else:
                axis.plot(x, y, "+", color=colour, ms=12, label="untouched hold-out")
    for shift, marker in zip(sources, "<>", strict=False):
        axes[0].plot(shift.density, shift.coverage, marker, color=AS_PUBLISHED, ms=8, label=shift.title)
    titles = ("pixels", "last hidden layer (other axes)")
    for axis, key, title in zip(axes, ("pixels", "inside"), titles, strict=True):
        axis.plot(*printed[key], "s", color=PUBLISHED, mfc="none", ms=11, label="PathMNIST, the authors")
        axis.axhline(1, color=LIMIT, lw=0.8)
        axis.axvline(1, color=LIMIT, lw=0.8)
        axis.set(title=title, xlabel="density (exchangeable: 1)")
    axes[0].set_ylabel("coverage / closed form (exchangeable: 1)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
