"""Figures of notebook 06_crafting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, MARKERS, NOISE, PUBLISHED, show_image, subplots


def tolerance_tradeoff(curves: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw G17's Fig. 4 again: the ε that Algorithm 2 finds, and the accuracy it leaves, against the tolerance.

    Parameters
    ----------
    curves : dict
        "data set, mode" → results, from `tolerance.curves`.
    """
    figure, (sizes, accuracies) = subplots(1, 2, figsize=(10, 3.8), sharex=True)
    for name, results in curves.items():
        title, mode = name.rsplit(", ", 1)
        colour = AS_PUBLISHED if mode == "as published" else CORRECTED
        style = {"color": colour, "marker": MARKERS[mode], "ms": 5, "ls": "-" if title == "MNIST" else "--"}
        style["mfc"] = colour if title == "MNIST" else "white"
        tolerances = [result.tolerance for result in results]
        sizes.plot(tolerances, [result.epsilon for result in results], label=name, **style)
        accuracies.plot(tolerances, [result.adversarial_accuracy for result in results], **style)
    sizes.set(title="ε that Algorithm 2 finds", ylabel="FGSM size ε (L∞)", xscale="log", ylim=(0, None))
    accuracies.set(title="accuracy that it leaves", ylabel="share of images read rightly", ylim=(-0.03, 1))
    for axis in (sizes, accuracies):
        axis.set_xlabel("tolerance τ on |mean R1 − mean R2|")
        axis.set_xticks(tolerances, [f"{value:g}" for value in tolerances])
        axis.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def gap_and_distance(curves: Sequence[Any], tolerance: float) -> Figure:
    """Draw R1 − R2 over ε beside the distance between clean and attacked images, clipped and not.

    Parameters
    ----------
    curves : sequence of tolerance.GapCurve
        Clipped, then not clipped.
    tolerance : float
        τ whose band is shaded.
    """
    figure, (gaps, distances, accuracies) = subplots(1, 3, figsize=(12, 3.6), sharex=True)
    for curve, colour, marker in zip(curves, (CORRECTED, NOISE), "^v", strict=True):
        style = {"color": colour, "marker": marker, "ms": 4}
        gaps.plot(curve.epsilons, curve.differences, label=curve.title, **style)
        distances.plot(curve.epsilons, curve.distances, **style)
        accuracies.plot(curve.epsilons, curve.accuracies, **style)
    gaps.axhspan(-tolerance, tolerance, color=LIMIT, alpha=0.2, lw=0, label=f"within τ = {tolerance:g}")
    gaps.set(title="R1 − R2 (cut at 0.6)", ylabel="mean R1 − mean R2", ylim=(-0.25, 0.6))
    gaps.legend()
    distances.axhline(1, color=LIMIT, lw=0.8)
    distances.set(title="how near attacked images lie to clean ones", ylabel="squared distance (clean to clean: 1)")
    accuracies.set(title="accuracy", ylabel="share of images read rightly", ylim=(0, 1))
    for axis in (gaps, distances, accuracies):
        axis.set_xlabel("FGSM size ε (L∞)")
    return figure


def two_attackers(compared: Mapping[str, Sequence[Any]]) -> Figure:
    """Draw accuracy against the tolerance for both attackers, and what a decision about one batch sees of them.

    Parameters
    ----------
    compared : dict
        "data set, mode" → comparisons, from `tolerance.attackers`.
    """
    figure, axes = subplots(1, 3, figsize=(12, 3.8), sharex=True, sharey=True)
    panels = (
        ("accuracy left", lambda result, defended: result.adversarial_accuracy, "share of images read rightly"),
        ("AUROC of one batch", lambda result, defended: defended.auroc, "AUROC, fresh draws"),
        ("power at 5 % false alarms", lambda result, defended: defended.tpr_at_5_fpr, "share of batches flagged"),
    )
    for axis, (title, value, label) in zip(axes, panels, strict=True):
        for (name, rows), (line, filled) in zip(compared.items(), (("-", True), ("--", False)), strict=False):
            for attacker, colour in (("fgsm", PUBLISHED), ("pgd", ADVERSARIAL)):
                words = "Algorithm 2" if attacker == "fgsm" else "gradient steps (weight searched)"
                axis.plot(
                    [row.tolerance for row in rows],
                    [value(getattr(row, attacker), getattr(row, f"{attacker}_defended")) for row in rows],
                    color=colour, marker="o", ls=line, mfc=colour if filled else "white", label=f"{words}: {name}",
                )  # fmt: skip
        axis.set(title=title, xlabel="tolerance τ", ylabel=label, xscale="log", ylim=(-0.03, 1.03))
        axis.tick_params(labelleft=True)
        tolerances = [row.tolerance for row in next(iter(compared.values()))]
        axis.set_xticks(tolerances, [f"{value:g}" for value in tolerances])
        axis.minorticks_off()
    axes[1].axhline(0.5, color=LIMIT, lw=0.8)
    axes[2].axhline(0.05, color=LIMIT, lw=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def attacked_rows(rows: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    """Draw images row by row, with the class that the network reads above each.

    Parameters
    ----------
    rows : sequence of (title, (n, c, h, w) images, (n,) predicted classes)
    """
    count = len(rows[0][1])
    figure, axes = subplots(len(rows), count, figsize=(1.25 * count + 1, 1.5 * len(rows)), squeeze=False)
    for line, (title, images, said) in zip(axes, rows, strict=True):
        for axis, image, word in zip(line, images, said, strict=True):
            show_image(axis, image, f"“{word}”")
        line[0].text(-0.15, 0.5, title, transform=line[0].transAxes, ha="right", va="center")
    return figure
