"""The figures' common style, and the library's own figures: a verdict, the evidence of a stream, a training's course.

The same thing has the same colour everywhere. Colours are Okabe & Ito's, told apart by colour-blind readers; line
styles and markers say the same once more.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from advlib import paths

REAL = "#0072B2"
ADVERSARIAL = "#D55E00"
NOISE = "#E69F00"
PUBLISHED = "#000000"
AS_PUBLISHED = "#CC79A7"
CORRECTED = "#009E73"
LIMIT = "#7F7F7F"

STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def subplots(*args: Any, **kwargs: Any) -> tuple[Figure, Any]:
    """Do what `plt.subplots` does, in the style of this project; the figure is left to whoever returns it."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(*args, **kwargs)
    # A closed figure is shown once, by the cell that returns it, and not a second time by the inline backend.
    plt.close(figure)
    return figure, axes


def show_image(axis: Any, image: np.ndarray, title: str = "", low: float = 0.0, high: float = 1.0) -> None:
    """Draw one image (c, h, w); one channel in grey, three in colour."""
    axis.imshow(np.clip((image.transpose(1, 2, 0) - low) / (high - low), 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
    axis.set_title(title)
    axis.set_axis_off()


def training_curve(card: Mapping[str, Any]) -> Figure:
    """Draw loss and accuracy over the epochs of a training.

    Parameters
    ----------
    card : dict
        A network's card; `history` holds epoch, train_loss and accuracy.
    """
    history = card["history"]
    epochs = [entry["epoch"] for entry in history]
    figure, (loss, accuracy) = subplots(1, 2, figsize=(8, 3))
    loss.plot(epochs, [entry["train_loss"] for entry in history], "o-", color=REAL)
    loss.set(title=f"{card['name']}: training loss", xlabel="epoch", ylabel="negative log-likelihood (nats)")
    accuracy.plot(epochs, [entry["accuracy"] for entry in history], "o-", color=CORRECTED)
    accuracy.set(title="accuracy on held-out images", xlabel="epoch", ylabel="share correct")
    return figure


def verdict(result: Any, images: np.ndarray | None, names: Sequence[str], alpha: float) -> Figure:
    """Draw what a test says about one batch: each statistic, the samples' p-values, and which fit least.

    Parameters
    ----------
    result : detectors.Verdict
    images : (m, c, h, w) array or None
        The batch in [0, 1], 1 or 3 channels; None where samples are vectors.
    names : sequence of str
        Of the samples.
    alpha : float
        Level of the decision in the title.
    """
    shown = 0 if images is None else min(6, len(images))
    height = max(3.2, 1.2 + 0.35 * len(result.parts))
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(10.5, height + (2.4 if shown else 0)))
        upper, *lower = figure.subfigures(2, 1, height_ratios=[height, 2.4]) if shown else [figure]
        nulls, curve = upper.subplots(1, 2)
        row = lower[0].subplots(1, 6) if shown else ()
    plt.close(figure)
    _draw_statistics(nulls, result.parts)
    _draw_sample_p_values(curve, result)
    for axis in row:
        axis.set_axis_off()
    least = np.argsort(result.sample_p_values, kind="stable")[:shown]
    for axis, i in zip(row, least, strict=False):
        show_image(axis, images[i], f"{names[i][:16]}\np = {result.sample_p_values[i]:.2g}")
    flagged = result.reject(alpha)
    word = f"{'flagged' if flagged else 'clean'}, p = {result.p_value:.3g} {'≤' if flagged else '>'} {alpha:g}"
    upper.suptitle(f"{len(names)} samples: {word}" + ("; below, those that fit least" if shown else ""))
    return figure


def _draw_statistics(axis: Any, parts: Sequence[Any]) -> None:
    """Draw each statistic (`detectors.Part`) of a batch in standard deviations of its permutations."""
    for row, part in enumerate(parts):
        spread = part.null.std() or 1.0
        limits = (np.quantile(part.null, [0.025, 0.975]) - part.expected) / spread
        away = np.clip((part.statistic - part.expected) / spread, -30, 30)
        bar, mark = ("95 % of the permutations", "this batch") if row == 0 else (None, None)
        axis.plot(limits, [row, row], color=REAL, lw=6, alpha=0.4, solid_capstyle="butt", label=bar)
        axis.plot(away, row, "D", color=ADVERSARIAL, label=mark)
    axis.axvline(0, color=LIMIT, lw=0.8)
    axis.set_yticks(range(len(parts)), [f"{part.name}\np = {part.p_value:.3g}" for part in parts])
    axis.set(ylim=(len(parts) - 0.4, -0.6), xlabel="standard deviations of the permutations from their mean")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


def _draw_sample_p_values(axis: Any, result: Any) -> None:
    """Draw the distribution of the samples' p-values (`detectors.Verdict`) beside that of clean samples."""
    ordered = np.sort(result.sample_p_values)
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    axis.step([0, *ordered, 1], [0, *shares, 1], where="post", color=ADVERSARIAL, label="this batch")
    axis.plot([0, 1], [0, 1], color=LIMIT, lw=0.8, label="expected of clean samples")
    misfits = result.contamination
    axis.set(
        xlabel="p-value x of one sample", ylabel="share of samples with p ≤ x", xlim=(0, 1), ylim=(0, 1.02),
        title=f"at least {misfits.low:.0%} do not fit ({misfits.level:.0%} confidence)",
    )  # fmt: skip
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(loc="lower right", frameon=False)


def stream(evidence: Sequence[float], alpha: float, first_alarm: int | None) -> Figure:
    """Draw the evidence of a stream of batches against the level at which an alarm is raised.

    Parameters
    ----------
    evidence : sequence of float
        After each batch, `Step.evidence` of `advlib.detectors`.
    alpha : float
        Bound on false alarms.
    first_alarm : int or None
        Number of the batch that raised it.
    """
    figure, axis = subplots(figsize=(7.5, 3.2))
    number = np.arange(1, len(evidence) + 1)
    axis.plot(number, evidence, ".-", color=REAL, ms=4, label="evidence E")
    axis.axhline(1 / alpha, color=LIMIT, ls="--", label=f"alarm: a clean stream gets here with probability ≤ {alpha:g}")
    if first_alarm is not None:
        axis.plot(first_alarm, evidence[first_alarm - 1], "D", color=ADVERSARIAL, label=f"alarm at batch {first_alarm}")
    axis.set(xlabel="batch", ylabel="evidence that something changed", yscale="log")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False)
    return figure


_LARGE_FIGURE = 250_000  # bytes


def save_figure(figure: Any, path: Path) -> Path:
    """Write a matplotlib figure to `path` (format by its ending), whole or not at all; a large PNG in 256 colours."""
    with paths.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")
        if temporary.suffix == ".png" and temporary.stat().st_size > _LARGE_FIGURE:
            with Image.open(temporary) as picture:
                reduced = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            reduced.save(temporary, optimize=True)
    return path
