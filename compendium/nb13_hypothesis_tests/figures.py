"""Figures of notebook 13_hypothesis_tests: null distributions, calibration, power."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas
import seaborn
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, CORRECTED, LIMIT, NOISE, REAL, STYLE, subplots
from compendium.nb13_hypothesis_tests.perturbations import CONTROL, TITLES
from compendium.nb13_hypothesis_tests.tables import details, pivot

PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
EPSILON = "FGSM size ε (pixels)"


def tails(result: Mapping[str, Any], title: str) -> Figure:
    """Draw a null distribution, the statistic over the size of an attack, and what each tail of it flags.

    Parameters
    ----------
    result : dict
        From `power.tails`.
    title : str
        Data set and batch size.
    """
    figure, (left, middle, right) = subplots(1, 3, figsize=(11.5, 3.5), width_ratios=[0.8, 1.2, 1.2])
    null, epsilons = result["null"], result["epsilons"]
    left.hist(null, bins=25, orientation="horizontal", color=REAL, alpha=0.7)
    left.set(title="clean batches", xlabel="batches", ylabel="density of the batch")
    lowest, low, median, high, highest = np.quantile(result["statistic"], [0.025, 0.25, 0.5, 0.75, 0.975], axis=1)
    middle.fill_between(epsilons, lowest, highest, color=ADVERSARIAL, alpha=0.15, label="95 % of batches")
    middle.fill_between(epsilons, low, high, color=ADVERSARIAL, alpha=0.3, label="half of the batches")
    middle.plot(epsilons, median, color=ADVERSARIAL, label="median batch")
    middle.set(title=f"attacked batches, {title}", xlabel=EPSILON)
    middle.legend(fontsize=8)
    for axis in (left, middle):
        axis.axhspan(*np.quantile(null, [0.025, 0.975]), color=REAL, alpha=0.15)
        axis.set_ylim(0, max(null.max(), highest.max()) * 1.05)
    words = {"less": "low density", "greater": "high density", "two-sided": "either"}
    styles = zip(result["power"].items(), (":", "--", "-"), (REAL, NOISE, CORRECTED), strict=True)
    for (tail, values), style, colour in styles:
        right.plot(epsilons, values, style, color=colour, label=words[tail])
    right.axhline(0.05, color=LIMIT, lw=0.8)
    right.set(title="flagged at 5 % false alarms", xlabel=EPSILON, ylabel="power", ylim=(-0.03, 1.05))
    right.legend(title="what counts as evidence", fontsize=8, title_fontsize=8, loc="center right")
    return figure


def calibration(table: pandas.DataFrame) -> Figure:
    """Draw rejection rates of clean batches against the batch size, in the grey band that holds 99 % of exact tests.

    A colour a data set, a marker a test; the sets stand side by side at each batch size.

    Parameters
    ----------
    table : DataFrame
        From `calibration.calibration_table`.
    """
    sizes, names = sorted(table.m.unique()), [name for name in TITLES if name in set(table.dataset)]
    tests = list(table.test.unique())
    beside = {name: 0.18 * (number - (len(names) - 1) / 2) for number, name in enumerate(names)}
    between = {test: 0.04 * (number - (len(tests) - 1) / 2) for number, test in enumerate(tests)}
    place = table.m.map({m: number for number, m in enumerate(sizes)})
    place = place + table.dataset.map(beside) + table.test.map(between)
    table = table.assign(**{"data set": table.dataset.map(TITLES), "place": place})
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        grid = seaborn.relplot(
            table, kind="scatter", x="place", y="rejected", col="alpha",
            col_order=sorted(table.alpha.unique(), reverse=True), hue="data set", style="test", s=45,
            palette=PALETTE[: len(names)], height=3.8, aspect=1.3, facet_kws={"sharey": False},
        )  # fmt: skip
    grid.set_titles("level α = {col_name:g}").set_axis_labels("images in the batch", "share of clean batches rejected")
    for alpha, axis in grid.axes_dict.items():
        low, high = table.loc[table.alpha == alpha, ["low", "high"]].iloc[0]
        axis.axhspan(low, high, color=LIMIT, alpha=0.2, zorder=0)
        axis.axhline(alpha, color=LIMIT, lw=0.8)
        axis.set_xticks(range(len(sizes)), [str(m) for m in sizes])
        axis.set_ylim(0, 1.6 * high)
    entries = {
        text.get_text(): handle for text, handle in zip(grid.legend.texts, grid.legend.legend_handles, strict=True)
    }
    entries = {words: handle for words, handle in entries.items() if words not in ("data set", "test")}
    grid.legend.remove()
    grid.figure.tight_layout(rect=(0, 0.12, 1, 1))
    grid.figure.legend(entries.values(), entries, loc="lower center", ncol=4, frameon=False, fontsize=8)
    plt.close(grid.figure)
    return grid.figure


def power_map(table: pandas.DataFrame, m: int, tests: Sequence[str], detail: str) -> Figure:
    """Draw the share of batches that each test flags, a panel a data set.

    Attacks above; below them one attack in batches of other sizes and perturbed in part; then perturbations that harm
    nobody. Per cent; grey with a dash where a test cannot be asked (about one image, for the peers).

    Parameters
    ----------
    table : DataFrame
        From `power.power_table`.
    m : int
        Images in a batch.
    tests : sequence of str
        Columns, in this order.
    detail : str
        Name of the attack in the middle.
    """
    names = [name for name in TITLES if name in set(table.dataset)]
    controls = set(table.loc[table.kind == CONTROL, "perturbation"])
    blocks: list[dict[str, None]] = [{}, {}, {}]
    frames = {}
    for name in names:
        wide = pivot(table, name, m, tests)
        unaimed = wide.index.str.split(", ε").str[0].isin(controls)
        parts = wide[~unaimed], details(table, name, m, tests, detail), wide[unaimed]
        for block, part in zip(blocks, parts, strict=True):
            block |= dict.fromkeys(part.index)
        frames[name] = pandas.concat(parts)
    rows = [label for block in blocks for label in block]
    columns = min(2, len(names))
    lines = -(-len(names) // columns)
    size = (3.0 + 3.2 * columns, lines * (0.6 + 0.24 * len(rows)) + 1.6)
    figure, axes = subplots(lines, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axis, (name, frame) in zip(axes.flat, frames.items(), strict=False):
        frame = frame.reindex(index=rows, columns=list(tests))
        shown = frame.map("{:.0%}".format).map(lambda word: word.rstrip("%"))
        seaborn.heatmap(
            frame.astype(float), ax=axis, annot=shown, fmt="", annot_kws={"fontsize": 7}, cmap="cividis", cbar=False,
            vmin=0, vmax=1, yticklabels=True,
        )  # fmt: skip
        for end in np.cumsum([len(block) for block in blocks])[:-1]:
            axis.axhline(end, color="white", lw=3)
        axis.set(title=TITLES[name], xlabel="", ylabel="")
        axis.grid(False)
        axis.set_facecolor("0.85")
        for row, column in np.argwhere(frame.isna().to_numpy()):
            axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", fontsize=7)
        axis.set_xticks(np.arange(len(tests)) + 0.5, tests, rotation=60, ha="right", fontsize=8)
        axis.tick_params(axis="y", labelsize=8, rotation=0)
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label="share of batches flagged", shrink=0.6)
    return figure


def streams(evidence: pandas.DataFrame, change_at: int, alpha: float) -> Figure:
    """Draw the evidence that a stream of batches was changed, and where it raises an alarm.

    Parameters
    ----------
    evidence : DataFrame
        From `power.streams`.
    change_at : int
        Number of the first changed batch.
    alpha : float
        Level of the whole stream; the alarm is at 1/α.
    """
    figure, axis = subplots(figsize=(7.5, 3.4))
    seaborn.lineplot(
        evidence, x="batch", y="evidence", hue="stream", style="stream", estimator=None, ax=axis,
        palette=[REAL, ADVERSARIAL, NOISE][: evidence.stream.nunique()],
    )  # fmt: skip
    axis.axhline(1 / alpha, color=LIMIT, label=f"alarm at 1/α = {1 / alpha:g}")
    axis.axvline(change_at, color=LIMIT, ls=":", label="change begins")
    axis.set(xlabel="batch number", ylabel="evidence E (log scale)", yscale="log", ylim=(1e-3, 1e8))
    axis.legend(fontsize=8, loc="upper left")
    return figure
