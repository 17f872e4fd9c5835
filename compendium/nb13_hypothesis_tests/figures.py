"""The figures of notebook 13: null distributions, calibration, power.

Every function takes results and returns a matplotlib Figure; style and colours are those of `advlib.plotting`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from pandas import DataFrame, concat

from advlib.figures import ADVERSARIAL, CORRECTED, LIMIT, NOISE, REAL, subplots
from compendium.nb13_hypothesis_tests.tables import details, pivot

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7F7F7F")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


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
    low, high = np.quantile(null, [0.025, 0.975])
    left.hist(null, bins=25, orientation="horizontal", color=REAL, alpha=0.7)
    left.set(title="clean batches", xlabel="batches", ylabel="density of the batch")
    band = np.quantile(result["statistic"], [0.025, 0.25, 0.5, 0.75, 0.975], axis=1)
    middle.fill_between(epsilons, band[0], band[4], color=ADVERSARIAL, alpha=0.15, label="95 % of batches")
    middle.fill_between(epsilons, band[1], band[3], color=ADVERSARIAL, alpha=0.3, label="half of the batches")
    middle.plot(epsilons, band[2], color=ADVERSARIAL, label="median batch")
    middle.set(title=f"attacked batches, {title}", xlabel="FGSM size ε (L∞)")
    middle.legend(fontsize=8)
    for axis in (left, middle):
        axis.axhspan(low, high, color=REAL, alpha=0.15)
        axis.set_ylim(0, max(null.max(), band[4].max()) * 1.05)
    for (tail, values), style, colour in zip(
        result["power"].items(), (":", "--", "-"), (REAL, NOISE, CORRECTED), strict=True
    ):
        right.plot(epsilons, values, style, color=colour, label=tail)
    right.axhline(0.05, color=LIMIT, lw=0.8)
    right.set(title="flagged at 5 % false alarms", xlabel="FGSM size ε (L∞)", ylabel="power", ylim=(-0.03, 1.05))
    right.legend(title="a low / high / any density\nis evidence", fontsize=8, title_fontsize=8)
    return figure


def calibration(table: DataFrame, titles: Mapping[str, str]) -> Figure:
    """Draw rejection rates of clean batches against the batch size, within the band that chance allows.

    Parameters
    ----------
    table : DataFrame
        From `levels.calibration`.
    titles : dict
        Name of a data set → name to print.
    """
    alphas = sorted(table.alpha.unique(), reverse=True)
    figure, axes = subplots(1, len(alphas), figsize=(5.2 * len(alphas), 3.8), squeeze=False)
    sizes = sorted(table.m.unique())
    for axis, alpha in zip(axes[0], alphas, strict=True):
        mine = table[table.alpha == alpha]
        axis.axhspan(mine.low.iloc[0], mine.high.iloc[0], color=LIMIT, alpha=0.2, label="99 % of exact tests")
        axis.axhline(alpha, color=LIMIT, lw=0.8)
        groups = list(mine.groupby(["dataset", "test"], sort=False))
        for number, ((dataset, _), part) in enumerate(groups):
            place = np.searchsorted(sizes, part.m) + 0.6 * ((number + 0.5) / len(groups) - 0.5)
            which = list(titles).index(dataset)
            first = all(name != dataset for (name, _), _ in groups[:number])
            axis.plot(
                place, part.rejected, MARKS[which], color=PALETTE[which], ms=4, alpha=0.8,
                label=titles[dataset] if first else None,
            )  # fmt: skip
        axis.set_xticks(range(len(sizes)), [str(m) for m in sizes])
        axis.set(title=f"level α = {alpha:g}", xlabel="images in the batch", ylim=(0, 2.2 * mine.high.iloc[0]))
    axes[0, 0].set_ylabel("share of clean batches rejected")
    axes[0, 0].legend(fontsize=8, ncols=2)
    return figure


def power_map(
    table: DataFrame, m: int, tests: Sequence[str], titles: Mapping[str, str], detail: str | None = None
) -> Figure:
    """Draw the share of batches that each test flags, a panel a data set.

    Attacks above; below them, if asked for, one attack in batches of other sizes and changed in part; then changes that
    harm nobody. Full power carries no number.

    Parameters
    ----------
    table : DataFrame
        From `power.power_table`.
    m : int
        Images in a batch.
    tests : sequence of str
        Columns, in this order.
    titles : dict
        Name of a data set → name to print.
    detail : str, optional
        Name of an attack.
    """
    names = [name for name in titles if name in set(table.dataset)]
    controls = set(table.loc[table.kind == "control", "change"])
    frames = []
    for name in names:
        wide = pivot(table, name, m, tests)
        unaimed = [label.split(", ε")[0] in controls for label in wide.index]
        more = [details(table, name, m, tests, detail)] if detail else []
        frames.append([wide[~np.array(unaimed)], *more, wide[unaimed]])
    blocks = [
        list(dict.fromkeys(label for part in block for label in part.index)) for block in zip(*frames, strict=True)
    ]
    labels = [label for block in blocks for label in block]
    columns = 2 if len(names) > 2 else len(names)
    rows = -(-len(names) // columns)
    colours = colormaps["cividis"].resampled(20)
    size = (3.0 + 3.2 * columns, rows * (0.6 + 0.24 * len(labels)) + 1.6)
    figure, axes = subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axis, name, parts in zip(axes.flat, names, frames, strict=False):
        frame = concat(parts).reindex(index=labels, columns=list(tests))
        image = axis.imshow(frame.to_numpy(dtype=float), cmap=colours, vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(frame.shape):
            value = frame.iat[row, column]
            if value < 0.995:
                axis.text(
                    column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                    color="black" if value > 0.6 else "white",
                )  # fmt: skip
        for end in np.cumsum([len(block) for block in blocks])[:-1]:
            axis.axhline(end - 0.5, color="white", lw=3)
        axis.set_xticks(range(len(tests)), list(tests), rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        axis.grid(False)
        axis.set_title(titles[name])
    figure.colorbar(image, ax=axes.ravel().tolist(), label="share of batches flagged", shrink=0.6)
    return figure


def power_curves(table: DataFrame, change: str, size: float, tests: Sequence[str], titles: Mapping[str, str]) -> Figure:
    """Draw power against the batch size for one change, a panel a data set.

    Parameters
    ----------
    table : DataFrame
        From `power.power_table`.
    change, size : str, float
        For instance "FGSM", 0.05.
    tests : sequence of str
    titles : dict
        Name of a data set → name to print.
    """
    names = [name for name in titles if name in set(table.dataset)]
    mine = table[(table.change == change) & np.isclose(table["size"].astype(float), size) & (table.share == 1)]
    sizes = sorted(mine.m.unique())
    figure, axes = subplots(1, len(names), figsize=(2.9 * len(names) + 0.6, 3.4), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for number, test in enumerate(tests):
            part = mine[(mine.dataset == name) & (mine.test == test)].sort_values("m")
            place = np.searchsorted(sizes, part.m) + 0.05 * (number - len(tests) / 2)
            axis.plot(
                place, part.power, marker=MARKS[number % len(MARKS)], ls="-" if number < 4 else "--",
                color=PALETTE[number % len(PALETTE)], ms=4, lw=1.2, label=test,
            )  # fmt: skip
        axis.axhline(0.05, color=LIMIT, lw=0.8)
        axis.set_xticks(range(len(sizes)), [str(m) for m in sizes])
        axis.set(title=titles[name], xlabel="images in the batch", ylim=(-0.03, 1.05))
    axes[0, 0].set_ylabel("power at 5 % false alarms")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def shares(table: DataFrame, changes: Sequence[str], tests: Sequence[str], titles: Mapping[str, str]) -> Figure:
    """Draw power against the share of the batch that was changed, a row a change and a panel a data set.

    Parameters
    ----------
    table : DataFrame
        From `power.power_table`, with shares below 1.
    changes, tests : sequence of str
    titles : dict
        Name of a data set → name to print.
    """
    names = [name for name in titles if name in set(table.dataset)]
    partial = table[(table.share < 1) & table.change.isin(list(changes))]
    m, size = int(partial.m.max()), float(partial["size"].max())
    mine = table[(table.m == m) & np.isclose(table["size"].astype(float), size)]
    shape = (len(changes), len(names))
    figure, axes = subplots(
        *shape, figsize=(2.9 * len(names) + 0.6, 2.3 * len(changes) + 0.8), sharex=True, sharey=True, squeeze=False
    )
    for line, change in zip(axes, changes, strict=True):
        for axis, name in zip(line, names, strict=True):
            for number, test in enumerate(tests):
                part = mine[(mine.dataset == name) & (mine.test == test) & (mine.change == change)]
                part = part.sort_values("share")
                axis.plot(part.share, part.power, marker=MARKS[number % len(MARKS)], ls="-" if number < 4 else "--",
                          color=PALETTE[number % len(PALETTE)], ms=4, lw=1.2, label=test)  # fmt: skip
            axis.axhline(0.05, color=LIMIT, lw=0.8)
            axis.set(title=f"{titles[name]}: {change}, ε = {size:g}", ylim=(-0.03, 1.05))
        line[0].set_ylabel("power at 5 % false alarms")
    for axis in axes[-1]:
        axis.set_xlabel(f"share of a batch of {m} that is changed")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def streams(paths: Mapping[str, Sequence[Any]], change_at: int, alpha: float) -> Figure:
    """Draw the evidence that a stream of batches was changed, and where it raises an alarm.

    Parameters
    ----------
    paths : dict
        What the stream is → its `sequential.Step`s.
    change_at : int
        Number of the first changed batch.
    alpha : float
        Level of the whole stream; the alarm is at 1/α.
    """
    figure, axis = subplots(figsize=(7.5, 3.4))
    for (name, steps), colour, style in zip(paths.items(), (REAL, ADVERSARIAL, NOISE), ("-", "--", ":"), strict=False):
        axis.plot([step.number for step in steps], [step.evidence for step in steps], style, color=colour, label=name)
    axis.axhline(1 / alpha, color=LIMIT, label=f"alarm at 1/α = {1 / alpha:g}")
    axis.axvline(change_at, color=LIMIT, ls=":", label="change begins")
    axis.set(xlabel="batch number", ylabel="evidence E (log scale)", yscale="log", ylim=(1e-3, 1e8))
    axis.legend(fontsize=8, loc="upper left")
    return figure
