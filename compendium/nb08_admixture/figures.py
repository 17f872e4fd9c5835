"""Figures of notebook 08_admixture."""

from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from advlib.figures import ADVERSARIAL, REAL, subplots
from compendium.claims import published
from compendium.common import panels, vs22
from compendium.nb08_admixture.experiment import Admixture
from compendium.nb08_admixture.mixtures import SHARES, TABLES


def admixture_curves(results: Sequence[Admixture], mode: vs22.Mode) -> Figure:
    """Draw VS22 Fig. 4 again in one mode: density and coverage over ε for several adversarial shares.

    Parameters
    ----------
    results : sequence of Admixture
    mode : vs22.Mode
    """
    x = f"FGSM size ε (L∞, {'σ of the pixels' if mode.normalised_twice else 'pixel range'})"
    mixtures = [result.fgsm[mode.name] for result in results]
    frame = pandas.concat(found.frame() for found in mixtures)
    titles = [
        f"{result.image_set.title}, {mode.name}\n{found.n_queries} against {found.n_reference} images"
        for result, found in zip(results, mixtures, strict=True)
    ]
    frame["set"] = [title for title, found in zip(titles, mixtures, strict=True) for _ in range(found.density.size)]
    frame["adversarial"] = frame["share"].map("{:.0%} adversarial".format)
    long = frame.rename(columns={"x": x}).melt([x, "set", "adversarial"], list(TABLES), "statistic")
    figure = panels.lines(
        long, x=x, y="value", col="set", row="statistic", hue="adversarial", style="adversarial", markers=False,
        palette=seaborn.blend_palette([REAL, "#882255", ADVERSARIAL], len(SHARES)), share=False, legend_columns=5,
        axis={"ylabel": ""},
    )  # fmt: skip
    for number, axis in enumerate(figure.axes):
        result, found = results[number % len(results)], mixtures[number % len(results)]
        axis.axvline(vs22.IMPERCEPTIBLE / mode.pixel_size(result.image_set, 1.0), color="black", ls=(0, (1, 1)), lw=1)
        axis.set_ylim(bottom=-0.03 * axis.get_ylim()[1])
        if number < len(results):
            axis.plot(found.x, found.line[:, 1:-1], "k.", ms=2.5)
    words = "black dots: straight line between 0 % and 100 %; right of the dotted line: above 8/255 of the pixel range"
    figure.suptitle(words, y=1.02, fontsize=9)
    return figure


def admixture_tables(results: Sequence[Admixture]) -> Figure:
    """Draw VS22's Tables 4 and 5: density and coverage over the share of the boundary attack's images.

    Parameters
    ----------
    results : sequence of Admixture
    """
    x, parts = "adversarial share (boundary attack)", []
    for result in results:
        counts = " and ".join(str(found.n_queries) for found in result.boundary.values())
        keys = {"set": f"{result.image_set.title}, {result.boundary_steps:,} steps\n{counts} images"}
        for name, found in result.boundary.items():
            parts.append(found.frame().rename(columns={"share": x}).assign(line=name, **keys))
        for statistic, item in TABLES.items():
            printed = [entry for entry in published.load("vs22", item) if entry.row == result.image_set.title]
            shares = [float(entry.column.removeprefix("share=")) for entry in printed]
            values = [entry.value for entry in printed]
            parts.append(pandas.DataFrame({x: shares, statistic: values}).assign(line="published", **keys))
    long = pandas.concat(parts).melt([x, "set", "line"], list(TABLES), "statistic").dropna()
    long["statistic"] = long["statistic"].map(lambda statistic: f"{statistic} ({TABLES[statistic]})")
    figure = panels.lines(
        long, x=x, y="value", col="set", row="statistic", hue="line", style="line", share=False,
        axis={"ylim": (0, None), "ylabel": ""},
    )  # fmt: skip
    for axis, result in zip(figure.axes, results, strict=False):
        for name, found in result.boundary.items():
            axis.plot(SHARES, found.line[0], color=panels.PALETTE[name], lw=0.8)
    for axis in figure.axes:
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


def power_maps(results: Sequence[Admixture], mode: vs22.Mode, statistic: str) -> Figure:
    """Draw the power of one batch over adversarial share and batch size, an attack a column, an image set a row.

    Cells without enough attacked images stay empty.

    Parameters
    ----------
    results : sequence of Admixture
    mode : vs22.Mode
    statistic : str
        "density" or "coverage".
    """
    columns = max(len(result.maps[mode.name]) for result in results)
    figure, axes = subplots(len(results), columns, figsize=(2.5 * columns, 2.3 * len(results)), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, result in zip(axes, results, strict=True):
        for axis, (attack, power) in zip(line, result.maps[mode.name].items(), strict=False):
            table = power[statistic][::-1].rename(index="{:.0%}".format)
            seaborn.heatmap(
                table, ax=axis, vmin=0, vmax=1, cmap="cividis", annot=True, fmt=".2f", annot_kws={"size": 7}, cbar=False
            )
            axis.set_axis_on()
            axis.grid(False)
            axis.tick_params(axis="y", rotation=0)
            axis.set_title(f"{result.image_set.title}\n{attack}", fontsize=9)
            axis.set(xlabel="", ylabel="adversarial share" if axis is line[0] else "")
    for axis in axes[-1]:
        axis.set_xlabel("images in the batch, m")
    label = f"power by {statistic} at 5 % false alarms"
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label=label, shrink=0.8)
    return figure
