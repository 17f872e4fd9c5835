"""Panels of lines from tidy frames (one row a measurement), by seaborn in the project's style and colours."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from advlib import figures

PALETTE = {
    "printed": figures.PUBLISHED, "as published": figures.AS_PUBLISHED, "corrected": figures.CORRECTED,
    "FGSM": figures.ADVERSARIAL, "adversarial": figures.ADVERSARIAL,
    "noise": figures.NOISE, "clean": figures.REAL, "real": figures.REAL,
}  # fmt: skip
MARKERS = {"printed": "s", "as published": "o", "corrected": "^"}


def t_interval(values: pandas.Series) -> tuple[float, float]:
    """95 % interval of a mean by Student's t, for seaborn's `errorbar`."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
    return values.mean() - half, values.mean() + half


def quartiles(values: pandas.Series) -> tuple[float, float]:
    """First and third quartile, for seaborn's `errorbar`."""
    return tuple(np.quantile(values, [0.25, 0.75]))


def lines(
    frame: pandas.DataFrame,
    *,
    x: str,
    y: str,
    col: str | None = None,
    row: str | None = None,
    hue: str | None = None,
    style: str | None = None,
    palette: Mapping[Any, str] | Sequence[str] | None = None,
    references: Mapping[str, float] | None = None,
    size: tuple[float, float] = (3.0, 2.9),
    legend_columns: int = 3,
    share: bool | str = True,
    axis: Mapping[str, Any] | None = None,
    **options: Any,
) -> Figure:
    """Draw one line a group over `x`, a panel a value of `col` and `row`.

    Parameters
    ----------
    frame : pandas.DataFrame
        Long form. Several rows of one group and x are averaged; `errorbar` in `options` says how they spread
        (`t_interval`, `quartiles`), none by default.
    x, y, col, row, hue, style : str
        Columns; x and y name the axes.
    palette : dict or list, optional
        Colours of `hue`; `PALETTE` where its values are all known there.
    references : dict, optional
        Words → height of a grey horizontal line in every panel.
    size : (width, height)
        Of one panel, inches.
    legend_columns : int
        Of the legend below the panels.
    share : bool or str
        Whether panels share their y axis.
    axis : dict, optional
        For `axes.set` of every panel, for instance yscale="log".
    **options
        For `seaborn.relplot`.
    """
    if palette is None and hue is not None and set(frame[hue]) <= set(PALETTE):
        palette = {value: PALETTE[value] for value in dict.fromkeys(frame[hue])}
    settings = {"kind": "line", "errorbar": None, "markers": style is not None, "dashes": style is not None}
    with plt.rc_context(figures.STYLE | {"figure.constrained_layout.use": False}):
        grid = seaborn.relplot(
            frame, x=x, y=y, col=col, row=row, hue=hue, style=style, palette=palette,
            height=size[1], aspect=size[0] / size[1], facet_kws={"sharey": share, "legend_out": False},
            **{**settings, **options},
        )  # fmt: skip
    grid.set_titles("{row_name}\n{col_name}" if row and col else "{col_name}" if col else "{row_name}")
    for panel in grid.axes.flat:
        panel.set(**(axis or {}))
        for height in (references or {}).values():
            panel.axhline(height, color=figures.LIMIT, lw=0.8)
    if grid.legend is not None:
        seaborn.move_legend(grid, "upper center", bbox_to_anchor=(0.5, 0.0), ncols=legend_columns, title=None)
    grid.figure.tight_layout()
    plt.close(grid.figure)
    return grid.figure


def log_ticks(panel: Axes, ticks: Sequence[float], which: str = "y") -> None:
    """Make an axis ("x" or "y") logarithmic with these ticks alone, written as plain numbers."""
    panel.set(**{f"{which}scale": "log"})
    axis = getattr(panel, f"{which}axis")
    axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    axis.set_ticks([], minor=True)
