"""Figures of notebook 08_admixture."""

from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from advlib.figures import ADVERSARIAL, REAL
from compendium.claims import published
from compendium.common import panels, vs22
from compendium.nb08_admixture.experiment import Admixture
from compendium.nb08_admixture.mixtures import SHARES, TABLES
from compendium.nb08_admixture.power import FLAGGED

BOUNDARY = "#332288"
"""Colour of the boundary attack beside FGSM of several sizes."""


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
            parts.append(pandas.DataFrame({x: shares, statistic: values}).assign(line="printed", **keys))
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


def power_curves(results: Sequence[Admixture], mode: vs22.Mode, sizes: Sequence[int]) -> Figure:
    """Draw density's power over the adversarial share, a line an attack; a column an image set, a row a batch size.

    Grey lines are 5 %, the rate of false alarms, and the power from which on a batch counts as detected.

    Parameters
    ----------
    results : sequence of Admixture
    mode : vs22.Mode
    sizes : sequence of int
        Batch sizes of the power maps; shares for which there were not enough attacked images have no point.
    """
    x, y, parts = "adversarial share of the batch", "power by density", []
    for result in results:
        for attack, power in result.maps[mode.name].items():
            name = attack if attack.startswith("FGSM") else "boundary attack"
            for size in sizes:
                values = {x: power.index, y: power["density", size].to_numpy()}
                parts.append(pandas.DataFrame({**values, "attack": name, "set": result.image_set.title, "m": size}))
    frame = pandas.concat(parts).dropna()
    frame["m"] = frame["m"].map("{} images a batch".format)
    names = list(dict.fromkeys(frame["attack"]))
    fgsm = [name for name in names if name.startswith("FGSM")]
    colours = dict(zip(fgsm, seaborn.blend_palette(["#F0C080", ADVERSARIAL, "#5A2A00"], len(fgsm)), strict=True))
    figure = panels.lines(
        frame, x=x, y=y, col="set", row="m", hue="attack", style="attack", legend_columns=len(names),
        palette={"boundary attack": BOUNDARY} | colours, axis={"ylim": (-0.03, 1.03)},
        references={"false alarms": 0.05, "detected": FLAGGED},
    )  # fmt: skip
    for axis in figure.axes:
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    return figure
