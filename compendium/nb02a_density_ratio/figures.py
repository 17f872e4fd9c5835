"""Figure of notebook 02a_density_ratio."""

import pandas
from matplotlib.figure import Figure

from compendium.common import panels

_SIZE, _RATIO = "FGSM size ε (L∞, pixels from 0 to 1)", "mean density ratio"


def table1(table: pandas.DataFrame) -> Figure:
    """Draw G17's Table 1: mean density ratios over ε with 95 % intervals, printed and rerun, a panel a data set.

    Parameters
    ----------
    table : pandas.DataFrame
        As in `nb02a_density_ratio.table1`, of the modes "printed", "as published" and "corrected".
    """
    sides = {"r1": "R1 real-adversarial", "r2": "R2 real-real"}
    ratios = table.rename(columns={"epsilon": _SIZE} | sides)
    ratios = ratios.melt([_SIZE, "row", "mode"], list(sides.values()), "side", _RATIO)
    ratios["line"] = ratios["mode"] + ": " + ratios.side
    modes = ratios.drop_duplicates(["mode", "side"]).set_index("line")["mode"]
    # The legend fills its columns first: one for each mode, R1 above R2.
    order = [f"{mode}: {side}" for mode in modes.unique() for side in sides.values()]
    figure = panels.lines(
        ratios, x=_SIZE, y=_RATIO, col="row", hue="line", style="line", palette=modes.map(panels.PALETTE).to_dict(),
        markers=modes.map(panels.MARKERS).to_dict(),
        dashes={line: "" if "R1" in line else (1, 1.5) for line in modes.index},
        hue_order=order, style_order=order, col_wrap=3, size=(3.6, 2.9),
    )  # fmt: skip
    for axis, (_, mine) in zip(figure.axes, table.groupby("row", sort=False), strict=True):
        for side in sides:
            ends, colours = [mine[f"{side}_low"], mine[f"{side}_high"]], mine["mode"].map(panels.PALETTE)
            axis.vlines(mine.epsilon, *ends, colors=colours, lw=1.2)
            for end in ends:
                axis.scatter(mine.epsilon, end, c=colours, marker="_", s=40)
        panels.log_ticks(axis, [1, 3, 10, 30, 100])
    return figure
