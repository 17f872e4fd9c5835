"""Notebook 03_sample_size: verdicts on G17 §4.3, tables and Fig. 3 (the sweep itself: `common.size_sweeps`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure

from compendium.claims import verdicts
from compendium.claims.verdicts import CORRECTED, Finding
from compendium.common import g17, panels
from compendium.common.protocol import auroc, departure
from compendium.common.size_sweeps import ROWS, SIDE_LABELS, SIDE_PALETTE, SizeResult, draws_frame, extent, select

FIGURE3 = (*ROWS["mnist"], *ROWS["cifar10"])
_TICKS = (1, 2, 5, 10)

# ------------------------------------------------------------------------------------------------ figures and tables


def figure3(results: Sequence[SizeResult]) -> Figure:
    """Draw G17's Fig. 3 again: mean ratios with 95 % intervals over the sample size, a row of panels for each mode."""
    x, y = "images in numerator and denominator", "mean ratio, 95 % interval"
    figure = panels.lines(
        draws_frame(results).rename(columns={"size": x, "ratio": y}), x=x, y=y, row="mode", col="row", hue="side",
        style="side", palette=SIDE_PALETTE, references={"no difference": 1}, errorbar=panels.t_interval,
        err_style="bars",
    )  # fmt: skip
    for axis in figure.axes:
        panels.log_ticks(axis, _TICKS)
    # Intervals of a few huge draws reach below 0: there is no such place on a logarithmic axis.
    figure.axes[0].set_ylim(0.5, None)
    return figure


def own_kernels(results: Sequence[SizeResult]) -> Figure:
    """Draw mean R1 and R2 over the sample size, with and without each image's kernel on itself (of one mode)."""
    x, y = "images in each sample", "mean density ratio"
    draws = draws_frame(results).rename(columns={"size": x, "ratio": "whole"})
    draws = draws[draws["side"] != SIDE_LABELS["noise"]]
    long = draws.melt([x, "row", "side"], ["whole", "ratio without own kernels"], var_name="part", value_name=y)
    figure = panels.lines(
        long, x=x, y=y, col="row", hue="side", style="part", palette=SIDE_PALETTE, references={"no difference": 1},
        legend_columns=6,
    )  # fmt: skip
    for axis in figure.axes:
        panels.log_ticks(axis, _TICKS)
    return figure


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


# ------------------------------------------------------------------------------------------------ sentences of §4.3


def judge(run: Any, results: Sequence[SizeResult]) -> None:
    """Judge the three sentences of §4.3 by a sweep in both modes, channels apart."""
    by_mode = {mode.name: [r for r in results if r.mode == mode.name and r.row in FIGURE3] for mode in g17.MODES}
    predicates: dict[str, Callable[[Mapping[str, list[SizeResult]]], Finding]] = {
        "means_change_with_size": means_change_with_size,
        "means_differ_at_every_size": means_differ_at_every_size,
        "smallest_batches_flagged": smallest_batches_flagged,
    }
    verdicts.judge_sentences(run, {name: predicate(by_mode) for name, predicate in predicates.items()})


def _at_extreme_size(results: Sequence[SizeResult], which: Callable) -> list[SizeResult]:
    return select(results, size=which(r.size for r in results))


def means_change_with_size(by_mode: Mapping[str, list[SizeResult]]) -> Finding:
    """Whether mean R1 at the smallest size is at least a quarter away from that at the largest, in every panel."""
    holds, words = {}, {}
    for mode, results in by_mode.items():
        ends = {which: _at_extreme_size(results, which) for which in (max, min)}
        first, last = ([r.r1.mean() for r in end] for end in ends.values())
        holds[mode] = all(abs(b / a - 1) > g17.TOLERANCE for a, b in zip(first, last, strict=True))
        words[mode] = (
            f"over the panels, R1 is {extent(first)} at {ends[max][0].size} images and {extent(last)} at "
            f"{ends[min][0].size}"
        )
    return Finding(holds, words)


def means_differ_at_every_size(by_mode: Mapping[str, list[SizeResult]]) -> Finding:
    """Whether Welch's test at 5 % parts R1 from R2, R1 above, in every panel at every size."""
    parted = {mode: [r.p_value < 0.05 and r.r1.mean() > r.r2.mean() for r in line] for mode, line in by_mode.items()}
    below = sum(r.r1.mean() <= r.r2.mean() for r in by_mode[CORRECTED])
    return Finding(
        {mode: all(yes) for mode, yes in parted.items()},
        {mode: f"R1 above R2 by Welch's test in {sum(yes)} of {len(yes)} means" for mode, yes in parted.items()},
        {"below": below, "spread": parted[CORRECTED].count(False) - below},
    )


def smallest_batches_flagged(by_mode: Mapping[str, list[SizeResult]]) -> Finding:
    """Whether at the smallest size 95 % of attacked batches are flagged at 5 % false alarms, in every panel."""
    least = {mode: _at_extreme_size(results, min) for mode, results in by_mode.items()}
    words = {
        mode: f"of batches of {line[0].size}, a share of {extent([r.attack.tpr_at_5_fpr for r in line])} flagged "
        f"(AUROC {extent([r.attack.auroc for r in line])})"
        for mode, line in least.items()
    }
    noise = extent([r.control.tpr_at_5_fpr for line in least.values() for r in line])
    holds = {mode: all(r.attack.tpr_at_5_fpr >= 0.95 for r in line) for mode, line in least.items()}
    return Finding(holds, words, {"noise": noise})
