"""Figures and tables of the league."""

import pandas
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from advlib import figures

SHOWN = {
    "aim · verdict": "aimed? (ours)",
    "aim, two networks · verdict": "aimed? two networks (ours)",
    "default: balls on four maps, mean of scales": "changed? (ours)",
    "balls on four maps": "balls on four maps",
    "nearest ball · texture": "nearest ball, texture",
    "nearest ball · multiscale": "nearest ball, scales",
    "mean · multiscale": "mean of scales (T²)",
    "density · pixels": "density, pixels (VS22)",
    "MMD · hidden": "MMD, hidden layer",
    "energy · pixels": "energy distance, pixels",
    "LSDD · hidden": "LSDD, hidden layer",
    "classifier · multiscale": "classifier, scales",
    "kernel density (Feinman 2017)": "kernel density (Feinman)",
    "LID (Ma 2018)": "LID (Ma)",
    "Mahalanobis (Lee 2018)": "Mahalanobis (Lee)",
    "feature squeezing (Xu 2018)": "feature squeezing (Xu)",
    "odds are odd (Roth 2019)": "odds are odd (Roth)",
    "deep k-NN (Papernot 2018)": "deep k-NN (Papernot)",
}
"""Detectors of the figure, by the names that it gives them."""

_MARKS = {
    "attack": ("least flagged attack", figures.ADVERSARIAL, "o", -0.22),
    "adaptive": ("least flagged attack that knows a detector", figures.ADVERSARIAL, "x", 0.0),
    "change": ("most flagged change without an aim", figures.REAL, "s", 0.22),
}
"""Column → words, colour, mark, and how far below the middle of its line it stands: marks at one place stay visible."""


def worst_cases(worst: pandas.DataFrame, m: int) -> Figure:
    """Draw each detector's worst cases, a panel an image set: attacks it misses, changes it flags.

    Parameters
    ----------
    worst : DataFrame
        From `stored.worst`.
    m : int
        Images in a batch.
    """
    some = worst[(worst.m == m) & worst.detector.isin(list(SHOWN))]
    sets = list(dict.fromkeys(some.dataset))
    detectors = [name for name in SHOWN if name in set(some.detector)]
    size = (2.4 + 2.3 * len(sets), 1.6 + 0.34 * len(detectors))
    figure, axes = figures.subplots(1, len(sets), figsize=size, sharey=True, squeeze=False)
    for axis, dataset in zip(axes[0], sets, strict=True):
        part = some[some.dataset == dataset].set_index("detector")
        for name, (label, colour, mark, below) in _MARKS.items():
            if name in part:
                places = [place + below for place in range(len(detectors))]
                axis.plot(part[name].reindex(detectors), places, mark, color=colour, label=label, ms=5)
        axis.axvline(0.05, color=figures.LIMIT, lw=0.8)
        axis.set(title=dataset, xlim=(-0.04, 1.04), xlabel=f"flagged batches of {m}")
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    axes[0, 0].set_yticks(range(len(detectors)), [SHOWN[name] for name in detectors])
    axes[0, 0].invert_yaxis()
    pairs = [pair for axis in axes[0] for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in pairs}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure
