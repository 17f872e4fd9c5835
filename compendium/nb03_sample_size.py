"""Notebook 03_sample_size: sentences of G17 §4.3, tables and Fig. 3 (the sweep itself: `common.size_sweeps`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure

from compendium.claims import verdicts
from compendium.common import g17, panels, size_sweeps
from compendium.common.protocol import auroc, departure
from compendium.common.size_sweeps import SIDE_LABELS, SIDE_PALETTE, SizeResult, draws_frame, extent, select

FIGURE3 = (*size_sweeps.ROWS["mnist"], *size_sweeps.ROWS["cifar10"])
_SIZE = "images in each sample"

# ------------------------------------------------------------------------------------------------ figures and tables


def figure3(results: Sequence[SizeResult]) -> Figure:
    """Draw G17's Fig. 3 again: mean R1 and R2 with 95 % intervals over the falling sample size, a line each mode."""
    y = "mean ratio, 95 % interval"
    draws = draws_frame(results).rename(columns={"ratio": y})
    figure = _over_sizes(draws, y, style="mode", errorbar=panels.t_interval, err_style="bars", size=(2.8, 3.0))
    # Intervals of a few huge draws reach below 0: there is no such place on a logarithmic axis.
    figure.axes[0].set_ylim(0.5, None)
    return figure


def own_kernels(results: Sequence[SizeResult]) -> Figure:
    """Draw mean R1 and R2 over the sample size, with and without each image's kernel on itself (of one mode)."""
    y = "mean density ratio"
    draws = draws_frame(results).rename(columns={"ratio": "whole"})
    long = draws.melt(["size", "row", "side"], ["whole", "ratio without own kernels"], var_name="part", value_name=y)
    return _over_sizes(long, y, style="part", size=(2.8, 2.9))


def _over_sizes(draws: pandas.DataFrame, y: str, **options: Any) -> Figure:
    """Draw R1 and R2 over the falling sample size, a panel a row of the paper's tables."""
    figure = panels.lines(
        draws[draws["side"] != SIDE_LABELS["noise"]].rename(columns={"size": _SIZE}), x=_SIZE, y=y, col="row",
        hue="side", palette=SIDE_PALETTE, references={"no difference": 1}, legend_columns=6, **options,
    )  # fmt: skip
    for axis in figure.axes:
        panels.log_ticks(axis, (1, 2, 5, 10))
    figure.axes[0].invert_xaxis()  # of all panels: they share it
    return figure


def parts_frame(results: Sequence[SizeResult]) -> pandas.DataFrame:
    """Show by what a batch is told apart: AUROC of the ratio, of the ratio without own kernels, of the chosen λ alone.

    Of the largest and the smallest size, a line each.

    Parameters
    ----------
    results : sequence of SizeResult
        Channels apart, with settings.
    """
    lines = []
    for r in (r for end in _ends(results) for r in end):
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


def record_sentences(run: Any, results: Sequence[SizeResult]) -> None:
    """Record what the three sentences of §4.3 are judged by, from a sweep in both modes, channels apart."""
    of_figure = [r for r in results if r.row in FIGURE3]
    found = {mode.name: sentences(select(of_figure, mode=mode.name)) for mode in g17.MODES}
    for row in found[g17.CORRECTED.name][0]:
        statistics, words = ({mode: parts[i][row] for mode, parts in found.items()} for i in (0, 1))
        verdicts.sentence(run, "g17", row, statistics, words)


def _ends(results: Sequence[SizeResult]) -> tuple[list[SizeResult], list[SizeResult]]:
    """Results at the largest and at the smallest size, in the same order of panels."""
    return tuple(select(results, size=which(r.size for r in results)) for which in (max, min))


def sentences(results: Sequence[SizeResult]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Measure what decides the sentences, of one mode: sentence → statistic → number, and sentence → words."""
    largest, smallest = _ends(results)
    first, last = (np.array([[r.r1.mean(), r.r2.mean()] for r in end]) for end in (largest, smallest))
    risen = float((departure(last) - departure(first)).min())
    parted = sum(r.p_value < 0.05 and r.welch_t > 0 for r in results)
    powers, aurocs = [r.attack.tpr_at_5_fpr for r in smallest], [r.attack.auroc for r in smallest]
    statistics = {
        "deteriorates-with-sample-size": {"least rise of |log R| from the largest size to the smallest": risen},
        "difference-persists": {"least Welch t of R1 above R2": min(r.welch_t for r in results)},
        "ten-samples-suffice": {"least power with the smallest batches": min(powers)},
    }
    words = {
        "deteriorates-with-sample-size": "; ".join(
            f"over the panels, R{side + 1} is {extent(first[:, side])} at {largest[0].size} images and "
            f"{extent(last[:, side])} at {smallest[0].size}"
            for side in (0, 1)
        ),
        "difference-persists": f"R1 above R2 by Welch's test at 5 % in {parted} of {len(results)} means",
        "ten-samples-suffice": f"of batches of {smallest[0].size}, a share of {extent(powers)} flagged "
        f"(AUROC {extent(aurocs)})",
    }
    return statistics, words


def replicate(run: Any) -> None:
    """Record the sentences again with other networks and draws: every second sample size and the smallest, no control.

    Of CIFAR-10 `REPLICATED_IMAGES` are attacked.
    """
    given = run.parameters
    sizes = list(dict.fromkeys([*given["sample_sizes"][::2], given["sample_sizes"][-1]]))
    results = []
    for mode in g17.MODES:
        for image_set, images in (("mnist", given["images"]), ("cifar10", size_sweeps.REPLICATED_IMAGES)):
            results += size_sweeps.size_sweep(
                mode, sizes, epsilon=given["epsilon"], images=images, draws=given["draws"], image_sets=[image_set],
                rng=run.rng(f"{mode.name}, {image_set}"), attack_only=True,
            )  # fmt: skip
    record_sentences(run, results)
