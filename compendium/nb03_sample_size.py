"""Notebook 03_sample_size: verdicts on G17 §4.3, tables and Fig. 3 (the sweep itself: `common.size_sweeps`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure

from advlib.figures import LIMIT, subplots
from compendium.common import g17
from compendium.common.protocol import auroc, departure
from compendium.common.size_sweeps import _SIDES, SizeResult, _claim, _range, select


def figure3(results: Sequence[Any]) -> Figure:
    """Draw G17's Fig. 3 again: mean ratios with 95 % intervals over the sample size, a row of panels for each mode.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of the rows to draw.
    """
    names, modes = (list(dict.fromkeys(getattr(r, key) for r in results)) for key in ("row", "mode"))
    figure, axes = subplots(len(modes), len(names), figsize=(3 * len(names), 5.8), sharex=True, sharey=True)
    for line, mode in zip(axes, modes, strict=True):
        for axis, name in zip(line, names, strict=True):
            mine = [r for r in results if r.row == name and r.mode == mode]
            for side, (label, colour, style) in _SIDES.items():
                summaries = [r.summary(side) for r in mine]
                middle = np.array([s.mean for s in summaries])
                reach = [middle - [s.low for s in summaries], [s.high for s in summaries] - middle]
                axis.errorbar(
                    [r.size for r in mine], middle, yerr=reach, fmt=style, color=colour, ms=4, capsize=2.5, lw=1.2,
                    label=f"{label} (mean, 95 % interval)",
                )  # fmt: skip
            axis.axhline(1, color=LIMIT, lw=0.8)
            axis.set(title=f"{name}\n{mode}", yscale="log")
            axis.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
            axis.minorticks_off()
    # Intervals of a few huge draws reach below 0: there is no such place on a logarithmic axis.
    axes[0, 0].set_ylim(0.5, None)
    for axis in axes[-1]:
        axis.set_xlabel("images in numerator and denominator")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean density ratio")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def own_kernels(results: Sequence[Any]) -> Figure:
    """Draw mean R1 and R2 over the sample size, whole and without what each image's kernel on itself adds.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of one mode.
    """
    names = list(dict.fromkeys(r.row for r in results))
    figure, axes = subplots(1, len(names), figsize=(3 * len(names), 3.5), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        mine = [r for r in results if r.row == name]
        sizes = [r.size for r in mine]
        for side in ("r1", "r2"):
            _, colour, style = _SIDES[side]
            for bare, line, fill in ((False, "-", colour), (True, ":", "white")):
                axis.plot(
                    sizes, [r.summary(side, bare).mean for r in mine], marker=style[0], ls=line, color=colour, mfc=fill,
                    ms=4.5, label=f"mean {side.upper()}{' without own kernels' if bare else ''}",
                )  # fmt: skip
        axis.axhline(1, color=LIMIT, lw=0.8)
        axis.set(title=name, xlabel="images in each sample", yscale="log")
        axis.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        axis.minorticks_off()
    axes[0].set_ylabel("mean density ratio")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


FIGURE3 = ("MNIST", "CIFAR-10 (red)", "CIFAR-10 (green)", "CIFAR-10 (blue)")


# ------------------------------------------------------------------------------------------------ §4.3, Fig. 3


def parts_frame(results: Sequence[SizeResult]) -> pandas.DataFrame:
    """Show by what a batch is told apart: AUROC of the ratio, of the ratio without own kernels, of the chosen λ alone.

    Parameters
    ----------
    results : sequence of SizeResult
        Channels apart, with settings.
    """
    lines = []
    for r in results:
        rest = [departure(np.maximum(getattr(r, side) - r.own[side], 0)) for side in ("r2", "r1")]
        lines.append({
            "row": r.row,
            "images": r.size,
            "AUROC of R": f"{r.attack.auroc:.2f}",
            "AUROC without own kernels": f"{auroc(*rest):.2f}",
            "AUROC of the chosen λ": f"{auroc(-r.settings['r2'][:, 1], -r.settings['r1'][:, 1]):.2f}",
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["row", "images"])


def judge_figure3(results: Sequence[SizeResult]) -> list[dict[str, Any]]:
    """Judge the three sentences of §4.3 by a sweep in both modes, channels apart.

    - *deteriorates*: mean R1 at the smallest size is at least a quarter away from that at the largest, in every panel.
    - *persists*: Welch's test at 5 % parts R1 from R2, R1 above, in every panel at every size.
    - *ten suffice*: at the smallest size at least 95 % of attacked batches are flagged at 5 % false alarms, in every
      panel. "High confidence" has no number in the paper; this is the level at which its own tests are read.

    Parameters
    ----------
    results : sequence of SizeResult

    Returns
    -------
    list of dict
        Rows for `Run.compare`.
    """
    small, large = min(r.size for r in results), max(r.size for r in results)
    words: dict[str, dict[str, str]] = {"grow": {}, "differ": {}, "decide": {}}
    holds: dict[str, dict[str, bool]] = {name: {} for name in words}
    below: dict[str, int] = {}
    spread: dict[str, int] = {}
    for mode in dict.fromkeys(r.mode for r in results):
        mine = [r for r in results if r.mode == mode and r.row in FIGURE3]
        ends = [(first.summary("r1").mean, last.summary("r1").mean) for first, last in _ends(mine, large, small)]
        holds["grow"][mode] = all(abs(last / first - 1) > g17.TOLERANCE for first, last in ends)
        words["grow"][mode] = (
            f"over the panels, R1 is {_range([first for first, _ in ends])} at {large} images and "
            f"{_range([last for _, last in ends])} at {small}"
        )
        parted = [r.p_value < 0.05 and r.r1.mean() > r.r2.mean() for r in mine]
        holds["differ"][mode] = all(parted)
        words["differ"][mode] = f"R1 above R2 by Welch's test in {sum(parted)} of {len(parted)} means"
        below[mode] = sum(r.r1.mean() <= r.r2.mean() for r in mine)
        spread[mode] = len(parted) - sum(parted) - below[mode]
        least = [r for r in mine if r.size == small]
        holds["decide"][mode] = all(r.attack.tpr_at_5_fpr >= 0.95 for r in least)
        words["decide"][mode] = (
            f"of batches of {small}, a share of {_range([r.attack.tpr_at_5_fpr for r in least])} flagged "
            f"(AUROC {_range([r.attack.auroc for r in least])})"
        )
    noise = [r.control.tpr_at_5_fpr for r in results if r.size == small and r.row in FIGURE3]
    return [
        _claim(
            "deteriorates-with-sample-size",
            words["grow"],
            holds["grow"],
            "the kernels of the numerator's images on themselves add up to 1/(nλ), whoever made the denominator",
        ),
        _claim(
            "difference-persists",
            words["differ"],
            holds["differ"],
            f"corrected, mean R1 lies below mean R2 in {below['corrected']} (FGSM within [0, 1] brings MNIST's images "
            f"nearer to clean ones), and in {spread['corrected']} more the draws spread too far for the test; a "
            "difference of means over many draws says nothing about one batch",
        ),
        _claim(
            "ten-samples-suffice",
            words["decide"],
            holds["decide"],
            f"the means differ, single batches overlap; untargeted noise is flagged as well ({_range(noise)})",
        ),
    ]


def _ends(results: Sequence[SizeResult], first: int, last: int) -> list[tuple[SizeResult, SizeResult]]:
    rows = dict.fromkeys(r.row for r in results)
    return [tuple(select(results, row=row, size=size)[0] for size in (first, last)) for row in rows]
