"""The figures' common style and those of notebooks 01, 02 and 11: takes results, returns a matplotlib Figure.

The same thing has the same colour everywhere.

Colours are Okabe & Ito's, told apart by colour-blind readers; line styles and markers say the same once more.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

REAL = "#0072B2"
ADVERSARIAL = "#D55E00"
NOISE = "#E69F00"
PUBLISHED = "#000000"
AS_PUBLISHED = "#CC79A7"
CORRECTED = "#009E73"
LIMIT = "#7F7F7F"
MARKERS = {"published": "s", "as published": "o", "corrected": "^"}

_STYLE = {
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
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(*args, **kwargs)
    # A closed figure is shown once, by the cell that returns it, and not a second time by the inline backend.
    plt.close(figure)
    return figure, axes


def show_image(axis: Any, image: np.ndarray, title: str = "", low: float = 0.0, high: float = 1.0) -> None:
    """Draw one image (c, h, w); one channel in grey, three in colour."""
    axis.imshow(np.clip((image.transpose(1, 2, 0) - low) / (high - low), 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
    axis.set_title(title)
    axis.set_axis_off()


def image_twins(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw image, adversarial twin and their difference, a row each (the idea of G17 Fig. 1).

    Parameters
    ----------
    rows : sequence of dict
        From `g17.example_twins`: `image`, `twin` (c, h, w) in [0, 1], `epsilon`, and the network's words for both,
        `said` and `said_of_twin`. The difference is drawn with −ε black and +ε white.
    """
    figure, axes = subplots(len(rows), 3, figsize=(8, 2.7 * len(rows)), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        epsilon = row["epsilon"]
        show_image(line[0], row["image"], f"the network sees “{row['said']}”")
        show_image(line[1], row["twin"], f"FGSM, ε = {epsilon:g}: it sees “{row['said_of_twin']}”")
        show_image(
            line[2], row["twin"] - row["image"], f"difference, amplified × {0.5 / epsilon:.3g}", -epsilon, epsilon
        )
    return figure


def embeddings(panels: Mapping[str, Mapping[str, np.ndarray]], epsilon: float) -> Figure:
    """Draw joint t-SNE maps of clean and adversarial images, one data set a row (G17 Fig. 2).

    Parameters
    ----------
    panels : dict
        From `protocol.joint_maps`.
    epsilon : float
        Size of the attack, for the titles.
    """
    figure, axes = subplots(len(panels), 3, figsize=(10.5, 3.5 * len(panels)), squeeze=False)
    for line, (title, panel) in zip(axes, panels.items(), strict=True):
        real, adversarial = panel["real"], panel["adversarial"]
        line[0].scatter(*real.T, c=panel["real_labels"], cmap="tab10", vmin=-0.5, vmax=9.5, s=6)
        line[0].set_title(f"{title}: real, coloured by class")
        line[1].scatter(*adversarial.T, c=panel["adversarial_labels"], cmap="tab10", vmin=-0.5, vmax=9.5, s=6)
        line[1].set_title(f"FGSM, ε = {epsilon:g}, by true class")
        line[2].scatter(*real.T, color=REAL, s=5, label="real")
        line[2].scatter(*adversarial.T, color=ADVERSARIAL, marker="x", s=8, linewidths=0.7, label="adversarial")
        line[2].set_title("both on one map")
        line[2].legend(markerscale=2, loc="upper right", frameon=True, framealpha=0.8)
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
            axis.set_xlim(line[2].get_xlim())
            axis.set_ylim(line[2].get_ylim())
        line[0].set_ylabel("t-SNE axis 2")
    for axis in axes[-1]:
        axis.set_xlabel("t-SNE axis 1")
    return figure


def density_ratio_1d(result: Mapping[str, Any]) -> Figure:
    """Draw two 1-D densities, their true ratio and uLSIF's estimate.

    Parameters
    ----------
    result : dict
        From `protocol.ratio_in_one_dimension`.
    """
    figure, (densities, ratios) = subplots(1, 2, figsize=(9.5, 3.4))
    x = result["x"]
    densities.plot(x, result["p_numerator"], color=REAL, label="p numerator (clean)")
    densities.plot(x, result["p_denominator"], color=ADVERSARIAL, ls="--", label="p denominator (suspect)")
    densities.plot(result["numerator"], np.full_like(result["numerator"], -0.012), "|", color=REAL, ms=6, alpha=0.4)
    densities.plot(
        result["denominator"], np.full_like(result["denominator"], -0.03), "|", color=ADVERSARIAL, ms=6, alpha=0.4
    )
    densities.set(title="two densities and samples of each", xlabel="x", ylabel="probability density")
    densities.legend()
    ratios.plot(x, result["true_ratio"], color=PUBLISHED, label="true ratio")
    ratios.plot(x, result["estimate"], color=CORRECTED, ls="--", label="uLSIF")
    ratios.axhline(1, color=LIMIT, lw=0.8)
    ratios.set(title="their ratio", xlabel="x", ylabel="p numerator / p denominator")
    ratios.legend()
    return figure


def moving_points(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw points that move into and out of the reference balls, with density and coverage (VS22 Fig. 5).

    Parameters
    ----------
    steps : sequence of dict
        From `protocol.points_through_balls`.
    """
    figure, axes = subplots(1, len(steps), figsize=(3.1 * len(steps), 3.6), sharex=True, sharey=True)
    for number, (axis, step) in enumerate(zip(axes, steps, strict=True), 1):
        for centre, radius in zip(step["reference"], step["radii"], strict=True):
            axis.add_patch(Circle(centre, radius, facecolor=REAL, edgecolor=REAL, alpha=0.10))
        axis.plot(*step["reference"].T, ".", color=REAL, label="reference")
        axis.plot(*step["queries"].T, "x", color=ADVERSARIAL, label="suspect")
        axis.set_aspect("equal")
        axis.grid(False)
        axis.set_title(f"step {number}\ndensity {step['density']:.2f}, coverage {step['coverage']:.2f}")
        axis.set_xlabel("feature 1")
    axes[0].set_ylabel("feature 2")
    axes[0].legend(loc="lower left", frameon=True, framealpha=0.8)
    return figure


def table1(rows: Sequence[Any]) -> Figure:
    """Draw G17's Table 1: mean density ratios over ε, published and rerun, a panel for each data set.

    Parameters
    ----------
    rows : sequence of g17.RatioRow
        Of the modes "published", "as published" and "corrected".
    """
    names = list(dict.fromkeys(row.row for row in rows))
    figure, axes = subplots(2, -(-len(names) // 2), figsize=(11.5, 6.6), sharex=True, sharey=True)
    colours = {"published": PUBLISHED, "as published": AS_PUBLISHED, "corrected": CORRECTED}
    for axis, name in zip(axes.flat, names, strict=False):
        for mode, colour in colours.items():
            mine = [row for row in rows if row.row == name and row.mode == mode]
            epsilon = np.array([row.epsilon for row in mine])
            for side, style in (("r1", "-"), ("r2", ":")):
                middle = np.array([getattr(row, side).mean for row in mine])
                low, high = (np.array([getattr(getattr(row, side), end) for row in mine]) for end in ("low", "high"))
                axis.errorbar(
                    epsilon, middle, yerr=[middle - low, high - middle], color=colour, ls=style, capsize=2.5,
                    marker=MARKERS[mode], ms=5, lw=1.2, mfc=colour if side == "r1" else "white",
                    label=f"{mode}: {'R1 real-adversarial' if side == 'r1' else 'R2 real-real'}",
                )  # fmt: skip
        axis.set_yscale("log")
        axis.set_title(name)
    for axis in axes[-1]:
        axis.set_xlabel("FGSM size ε (L∞, pixel range 0 to 1)")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean density ratio")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def plateaus(predicted: Mapping[str, Any], rows: Sequence[Any]) -> Figure:
    """Draw the predicted plateau of each row of Table 1 beside what was printed and rerun at the largest ε.

    Parameters
    ----------
    predicted : dict
        From `g17.plateaus`.
    rows : sequence of g17.RatioRow
    """
    largest = max(row.epsilon for row in rows)
    names = list(predicted)
    figure, axis = subplots(figsize=(9, 3.6))
    place = np.arange(len(names))
    for name, colour, label, offset in (
        ("formula", "#BBBBBB", "predicted: ‖ĥ‖²/λ_min, clean images alone", -0.18),
        ("coin_flips", NOISE, "predicted: coin flips of ±1 instead of an attack", 0.18),
    ):
        heights = [getattr(predicted[row], name).mean for row in names]
        axis.bar(place + offset, heights, 0.34, color=colour, label=label)
    for mode, colour in (("published", PUBLISHED), ("as published", AS_PUBLISHED)):
        values = {row.row: row.r1.mean for row in rows if row.mode == mode and row.epsilon == largest}
        axis.plot(
            place, [values[n] for n in names], MARKERS[mode], color=colour, label=f"{mode}: R1 at ε = {largest:g}"
        )
    axis.set_xticks(place, names)
    axis.set_ylabel("mean density ratio R1")
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def unmoved_pixels(
    curves: Mapping[str, np.ndarray],
    shares: Sequence[float],
    epsilons: Sequence[float],
    printed: Mapping[str, Sequence[float]],
) -> Figure:
    """Draw R1 against the share of pixels that do not move, with the printed values as lines.

    Parameters
    ----------
    curves : dict
        From `g17.unmoved_pixel_curves`.
    shares, epsilons : sequence of float
        As given to it.
    printed : dict
        Row → printed R1 at each ε.
    """
    figure, axes = subplots(1, len(curves), figsize=(2.5 * len(curves), 3.1), sharey=True)
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        for column, (epsilon, colour) in enumerate(zip(epsilons, (REAL, ADVERSARIAL), strict=False)):
            axis.plot(shares, curve[:, column], "o-", color=colour, ms=3, label=f"coin flips, ε = {epsilon:g}")
            axis.axhline(printed[name][column], color=colour, ls=":", label=f"printed, ε = {epsilon:g}")
        axis.set(title=name, xlabel="share of unmoved pixels", yscale="log")
    axes[0].set_ylabel("mean density ratio R1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def table1_decisions(rows: Sequence[Any]) -> Figure:
    """Draw what a decision gets from the same draws: AUROC and TPR at 5 % false alarms over ε.

    Parameters
    ----------
    rows : sequence of g17.RatioRow
    """
    mine = [row for row in rows if row.mode == "corrected"]
    names = list(dict.fromkeys(row.row for row in mine))
    palette = dict(zip(names, ["#000000", "#7F7F7F", "#D55E00", "#009E73", "#0072B2", "#CC79A7"], strict=False))
    figure, axes = subplots(1, 2, figsize=(9.5, 3.6), sharex=True, sharey=True)
    for axis, key, title in zip(
        axes, ("auroc", "tpr_at_5_fpr"), ("AUROC of one batch", "power at 5 % false alarms"), strict=True
    ):
        for offset, name in enumerate(names):
            line = [row for row in mine if row.row == name]
            # Curves that lie on top of each other at 1 are drawn a hair apart.
            shift = (offset - len(names) / 2) * 0.006
            axis.plot(
                [r.epsilon + shift for r in line],
                [getattr(r, key) for r in line],
                "o-",
                color=palette[name],
                ms=4,
                label=name,
            )
        axis.set(title=title, xlabel="FGSM size ε (L∞)", ylim=(-0.03, 1.05))
    axes[0].axhline(0.5, color=LIMIT, lw=0.8)
    axes[1].axhline(0.05, color=LIMIT, lw=0.8)
    axes[0].legend(loc="lower right")
    return figure


def speedups(manifold: Sequence[Mapping[str, Any]], printed: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw VS22 Fig. 13 again: speed-up over prdc and our own seconds, against the sample size.

    Parameters
    ----------
    manifold : sequence of dict
        From `runtime.manifold_times`.
    printed : dict
        From `runtime.published_speedups`.
    """
    figure, (ratio, seconds) = subplots(1, 2, figsize=(10.5, 4))
    for (name, line), marker in zip(printed.items(), "sD", strict=False):
        ratio.plot(
            list(line), list(line.values()), f"{marker}:", color=PUBLISHED, mfc="white", label=f"{name}, published"
        )
    n = np.array([row["n"] for row in manifold])
    fit, score, product = (np.array([row[key] for row in manifold]) for key in ("fit_s", "score_s", "product_s"))
    peers = [row for row in manifold if row["prdc_s"] is not None]
    peer_n, peer_s = np.array([row["n"] for row in peers]), np.array([row["prdc_s"] for row in peers])
    ratio.plot(peer_n, peer_s / (fit + score)[: len(peers)], "o-", color=CORRECTED, label="ours: fit and score")
    ratio.plot(peer_n, peer_s / score[: len(peers)], "^-", color=REAL, label="ours: score alone, fitted before")
    ratio.plot(peer_n, peer_s / product[: len(peers)], "--", color=LIMIT, label="bare float32 matrix products")
    ratio.set(title="speed-up β over prdc", ylabel="T(prdc) / T", yscale="log")
    seconds.plot(peer_n, peer_s, "s-", color=PUBLISHED, label="prdc (with precision and recall)")
    seconds.plot(n, fit + score, "o-", color=CORRECTED, label="ours: fit and score")
    seconds.plot(n, score, "^-", color=REAL, label="ours: score")
    seconds.plot(n, product, "--", color=LIMIT, label="bare float32 matrix products")
    seconds.set(title="the same in seconds", ylabel="seconds", yscale="log")
    for axis in (ratio, seconds):
        axis.set(xscale="log", xlabel="reference images n = queries m (512 features)")
        axis.legend(fontsize=8)
    return figure


def ulsif_speedups(times: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw seconds for a uLSIF fit, ours and densratio's, with the ratio written beside.

    Parameters
    ----------
    times : sequence of dict
        From `runtime.ulsif_times`.
    """
    figure, axis = subplots(figsize=(6.5, 3.4))
    n = [row["n"] for row in times]
    axis.plot(n, [row["densratio_s"] for row in times], "s-", color=PUBLISHED, label="densratio")
    axis.plot(n, [row["ours_s"] for row in times], "o-", color=CORRECTED, label="ours, in a batch")
    for row in times:
        middle = (row["densratio_s"] * row["ours_s"]) ** 0.5
        axis.annotate(f"× {row['densratio_s'] / row['ours_s']:.0f}", (row["n"], middle), ha="center")
    axis.set(xlabel="samples in numerator and in denominator", ylabel="seconds a fit", yscale="log")
    axis.set_xticks(n, [str(value) for value in n])
    axis.legend()
    return figure


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
