"""Figures of notebook 07: the boundary attack's density and coverage, its convergence, and why density can rise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from advlib.figures import AS_PUBLISHED, CORRECTED, LIMIT, NOISE, PUBLISHED, REAL, show_image, subplots
from compendium.claims import published

_SET_COLOURS = {"MNIST": "#0072B2", "OrganMNIST": "#E69F00", "PathMNIST": "#882255", "BloodMNIST": "#117733"}
_SET_MARKERS = {"MNIST": "o", "OrganMNIST": "s", "PathMNIST": "D", "BloodMNIST": "^"}


def _log(axis: Any) -> None:
    """Make the axis logarithmic with plain numbers at 1, 2 and 5."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _columns(found: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(found[::2], found[1::2], strict=True))


def batch_size_curves(found: Sequence[Any]) -> Figure:
    """Draw density and coverage over the batch size, with quantile bands and full-batch values (VS22 Fig. 3b).

    Parameters
    ----------
    found : sequence of vs22_boundary.Outcome
        As `vs22_boundary.outcomes` gives them: as published, then corrected, for each image set.
    """
    columns = _columns(found)
    figure, axes = subplots(2, len(columns), figsize=(4.1 * len(columns), 7.2), sharex="col", squeeze=False)
    for column, pair in enumerate(columns):
        for axis, statistic in zip(axes[:, column], ("density", "coverage"), strict=True):
            first = pair[0]
            curves = [("clean", first, first.clean, REAL, "o", first.by_steps.clean)]
            for result, colour, marker in zip(pair, (AS_PUBLISHED, CORRECTED), "s^", strict=True):
                name = f"adversarial, {result.mode.name}"
                curves.append((name, result, result.attacked, colour, marker, result.by_steps.scores[-1]))
            for name, result, scores, colour, marker, whole in curves:
                low, middle, high = np.array([getattr(s, f"{statistic}_quantiles") for s in scores]).T
                axis.fill_between(result.batch_sizes, low, high, color=colour, alpha=0.18, lw=0)
                axis.plot(
                    result.batch_sizes, middle, f"{marker}-", color=colour, ms=4, label=f"{name}: median, 25–75 %"
                )
                full = getattr(whole, statistic)
                axis.axhline(
                    full, color=colour, lw=0.9, ls=":", label="all images in one batch" if name == "clean" else None
                )
            if pair[1].noise is not None:
                axis.axhline(
                    getattr(pair[1].noise, statistic), color=NOISE, ls="-.", lw=1.2, label="Gaussian noise as far (L2)"
                )
            _printed(axis, first.title, statistic)
            axis.set_ylabel(statistic)
            _log(axis)
        axes[0, column].set_title(f"{first.title}: {first.counts['attacked']} images, {first.steps[-1]:,} steps")
        axes[1, column].set_xlabel("images in a batch")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def _printed(axis: Any, title: str, statistic: str) -> None:
    values = {entry.column: entry.value for entry in published.load("vs22", "§5.2") if entry.row == title}
    low, high = (values.get(f"adversarial {statistic} {edge}") for edge in ("smallest", "largest"))
    whole = values.get(f"adversarial {statistic}")
    if low is not None:
        axis.axhspan(
            low,
            high,
            facecolor="none",
            edgecolor=PUBLISHED,
            hatch="///",
            lw=0.8,
            alpha=0.5,
            label="published, adversarial",
        )
    elif whole is not None:
        axis.axhline(whole, color=PUBLISHED, ls=(0, (1, 3)), lw=1.2, label="published, adversarial")


def convergence(found: Sequence[Any]) -> Figure:
    """Draw distance and density over the steps of the attack.

    Parameters
    ----------
    found : sequence of vs22_boundary.Outcome
        As for `batch_size_curves`.
    """
    columns = _columns(found)
    figure, axes = subplots(2, len(columns), figsize=(4.1 * len(columns), 6.6), sharex="col", squeeze=False)
    for column, pair in enumerate(columns):
        distance, density = axes[:, column]
        for result, colour, marker in zip(pair, (AS_PUBLISHED, CORRECTED), "s^", strict=True):
            distance.plot(
                result.steps, result.l2, f"{marker}-", color=colour, ms=5, label=f"adversarial, {result.mode.name}"
            )
            density.plot(result.steps, result.by_steps.density, f"{marker}-", color=colour, ms=5)
        density.axhline(pair[0].by_steps.clean.density, color=REAL, lw=1.2, label="clean, the same images")
        _printed(density, pair[0].title, "density")
        distance.set(title=pair[0].title, ylabel="median L2 distance\n(pixels of [0, 1])", ylim=(0, None))
        density.set(xlabel="steps of the attack (0: its start)", ylabel="density")
        density.set_xscale("symlog", linthresh=100)
        density.set_xlim(-8, pair[0].steps[-1] * 1.25)
        density.set_xticks(pair[0].steps, [f"{steps:,}" for steps in pair[0].steps], rotation=45)
        density.xaxis.set_minor_locator(NullLocator())
        _log(density)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    more = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles + more[0], labels + more[1], loc="outside lower center", ncols=4, fontsize=8.5)
    return figure


def boundary_examples(found: Sequence[Any]) -> Figure:
    """Draw one image of each set before the attack, at its start and at its end, in both modes.

    Parameters
    ----------
    found : sequence of vs22_boundary.Outcome
        As for `batch_size_curves`.
    """
    figure, axes = subplots(len(found), 3, figsize=(6.6, 2.05 * len(found)), squeeze=False)
    for line, result in zip(axes, found, strict=True):
        words = ("image", "start", f"after {result.steps[-1]:,} steps")
        for axis, image, word in zip(line, result.examples, words, strict=True):
            show_image(axis, image, f"{result.title}, {result.mode.name}\n{word}" if axis is line[0] else word)
            axis.title.set_fontsize(9)
    return figure


def movements(controls: Sequence[Any]) -> Figure:
    """Draw what density and coverage do when images are moved without any attack.

    Parameters
    ----------
    controls : sequence of rising_density.Controls
    """
    figure, axes = subplots(2, 2, figsize=(9.6, 6.6), sharex="col")
    for row, statistic in enumerate(("density", "coverage")):
        for axis, kind in zip(axes[row], ("shrunk", "clipped"), strict=True):
            for control in controls:
                move = getattr(control, kind)
                x = 1 - move.x if kind == "shrunk" else move.x
                axis.plot(
                    x,
                    getattr(move, statistic),
                    f"{_SET_MARKERS.get(control.title, 'v')}-",
                    color=_SET_COLOURS.get(control.title, "#56B4E9"),
                    ms=4,
                    label=f"{control.title}, {control.n_reference:,} references",
                )
            axis.set_ylabel(statistic)
            if statistic == "density":
                _log(axis)
                axis.axhline(1, color=LIMIT, lw=0.9, ls="--")
    axes[0, 0].set_title("shrunk toward the mean: no network, no attack")
    axes[0, 1].set_title("clipped to [μ, μ + σ]: FGSM's program without its step")
    axes[0, 1].title.set_fontsize(9.5)
    axes[1, 0].set_xlabel("share of the way to the mean")
    axes[1, 1].set_xlabel("ε (in units of σ)")
    axes[0, 0].legend(fontsize=8.5)
    return figure


def own_file(found: Mapping[str, Any]) -> Figure:
    """Draw the PathMNIST study of a file: density, coverage, distance from the mean and accuracy over ε.

    Parameters
    ----------
    found : dict
        From `rising_density.as_plain`.
    """
    own, half = found["movements"]["own statistics"], found["movements"]["one half"]
    lines = [
        (own[0], AS_PUBLISHED, "o-", "FGSM as published, normalised by the data's own mean and std"),
        (own[1], "#000000", "s--", "the same program without the step: clipped alone"),
        (half[0], "#56B4E9", "v-", "FGSM as published, normalised by 0.5 and 0.5"),
        (found["movements"]["corrected"][0], CORRECTED, "^-", "FGSM corrected, pixels in [0, 1]"),
    ]
    figure, axes = subplots(2, 2, figsize=(9.8, 7.4), sharex=True)
    for move, colour, style, name in lines:
        for axis, what in zip(axes.flat, ("density", "coverage", "distance", "accuracy"), strict=True):
            if move[what] is None:
                continue
            values = np.asarray(move[what]) / (move["distance"][0] if what == "distance" else 1)
            axis.plot(move["x"], values, style, color=colour, ms=4, label=name if axis is axes[0, 0] else None)
    density, coverage, distance, accuracy = axes.flat
    for axis, column in ((density, "density"), (coverage, "coverage")):
        value = published.value("vs22", "§5.2", "PathMNIST", f"reference {column}")
        axis.axhline(value, color=PUBLISHED, lw=0.9, ls=(0, (1, 3)))
        axis.annotate(
            "published, clean", (0.98, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
    largest = published.value("vs22", "§5.1", "PathMNIST", "adversarial density peak")
    density.axhline(largest, color=PUBLISHED, lw=0.9, ls=(0, (1, 3)))
    density.annotate(
        "published, largest under FGSM",
        (0.98, largest),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=8,
    )
    density.set(title="density", ylabel="density")
    coverage.set(title="coverage", ylabel="coverage")
    distance.set(
        title="median distance from the data's mean", ylabel="relative to untouched images", xlabel="ε", yscale="log"
    )
    accuracy.set(title="accuracy of the attacked network", ylabel="share read rightly", xlabel="ε", ylim=(0, 1))
    counts = found["counts"]
    figure.suptitle(f"{found['title']}: {counts['reference']:,} references, {counts['queries']} attacked", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
    return figure
