"""How few images are enough? Gondara 2017's sweeps over the sample size (§4.3, Fig. 3; §4.5, Table 3) as functions.

In §4.3 numerator and denominator shrink together; in §4.5 only the suspect images do, down to a single one. Every draw
is fitted three times over the same indices: real against adversarial (R1), real against real (R2), and real against
real with a coin flip of ±ε on every pixel, which is as large as FGSM and has no aim. (Such noise can cost accuracy as
well, most on colour images; how much is recorded.)

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure
from scipy import stats

from advlib import attacks, figures, models
from advlib.attacks.stored import stored_attack
from advlib.tasks import map_tasks
from compendium.common import g17, panels
from compendium.common.protocol import RatioComparison, Summary, draw_indices, fit_indices

SIDES = ("r1", "r2", "noise")
SIDE_LABELS = {
    "r1": "R1: real against adversarial",
    "r2": "R2: real against real",
    "noise": "real against coin flips of ±ε",
}
SIDE_PALETTE = dict(zip(SIDE_LABELS.values(), (figures.ADVERSARIAL, figures.REAL, figures.NOISE), strict=True))

ROWS = {
    "mnist": ("MNIST",),
    "cifar10": ("CIFAR-10 (red)", "CIFAR-10 (green)", "CIFAR-10 (blue)"),
}
"""Image set → a row of G17's tables for each channel."""

COMBINED = "CIFAR-10 (combined)"

REPLICATED_IMAGES = 1000
"""Colour images that are attacked where a sweep is repeated with other networks and draws."""


@dataclass(frozen=True, eq=False)
class SizeResult:
    """All draws at one sample size, for one channel of one image set in one mode.

    Attributes
    ----------
    row, mode : str
        As in G17's tables, and "as published" or "corrected".
    size : int
        Images in the denominator.
    r1, r2, noise : (t,) float64
        Mean density ratio of each draw: real against adversarial, against real, and against real with random ±ε noise
        (None where there is no control).
    own : dict of (t,) float64
        For each of these, the part of the mean ratio that the numerator images' kernels on themselves make up.
    settings : dict of (t, 2) float64
        For each of these, σ and λ of each draw; empty for the mean of three channels.
    accuracies : tuple of float
        Of the attacked network on clean images, under FGSM and, where it was drawn, under the noise.
    outside_share : float
        Share of adversarial images with at least one pixel outside [0, 1]: those that a range check finds.
    """

    row: str
    mode: str
    size: int
    r1: np.ndarray
    r2: np.ndarray
    noise: np.ndarray | None
    own: Mapping[str, np.ndarray]
    settings: Mapping[str, np.ndarray]
    accuracies: tuple[float, ...]
    outside_share: float

    @cached_property
    def attack(self) -> RatioComparison:
        """Attacked batches beside clean ones."""
        return RatioComparison(self.r1, self.r2)

    @cached_property
    def control(self) -> RatioComparison:
        """Batches with untargeted noise beside clean ones."""
        return RatioComparison(self.noise, self.r2)

    @property
    def p_value(self) -> float:
        """Two-sided p of Welch's test that R1 and R2 have one mean, the draws taken as independent."""
        return float(stats.ttest_ind(self.r1, self.r2, equal_var=False).pvalue)

    @property
    def welch_t(self) -> float:
        """The test's t: how many standard errors mean R1 lies above mean R2."""
        return float(stats.ttest_ind(self.r1, self.r2, equal_var=False).statistic)

    def summary(self, side: str, without_own: bool = False) -> Summary:
        """Mean and 95 % interval of "r1", "r2" or "noise", if asked without the kernels' part on themselves."""
        return Summary.of(getattr(self, side) - (self.own[side] if without_own else 0))


def most_frequent(pairs: np.ndarray) -> tuple[Any, Any]:
    """Return the most frequent row of (n, 2) numbers; of equally frequent ones the smallest."""
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    return tuple(values[counts.argmax()].tolist())


@dataclass(frozen=True, eq=False)
class Pools:
    """Images that a sweep draws from, by channel: clean (N, c, d) and, for "r1", "r2", "noise", suspects (n, c, d)."""

    clean: np.ndarray
    suspects: Mapping[str, np.ndarray]
    accuracies: tuple[float, ...]
    outside_share: float


def attacked_pools(
    mode: g17.Mode, image_set: str, epsilon: float, images: int, rng: np.random.Generator, attack_only: bool = False
) -> Pools:
    """Attack test images by FGSM and make twins of the same size without an aim, random ±ε noise.

    Parameters
    ----------
    mode : g17.Mode
        Which network is attacked, and whether attack and noise are clipped.
    image_set : str
        "mnist" or "cifar10".
    epsilon : float
        L∞ size of both, pixels in [0, 1].
    images : int
        Test images attacked, 0 for all; `clean` holds all of them either way.
    rng : numpy.random.Generator
        Source of the noise.
    attack_only : bool
        For runs that are repeated with other draws: no noise, and attacked images from disk where they are there.
    """
    everything, real, labels = g17.all_and_attacked(image_set, images)
    network = mode.networks[image_set]
    if attack_only:
        batch = stored_attack(attacks.fgsm, network, real, labels, epsilon=epsilon, clip=mode.clip)
    else:
        model = models.load_trained(network)
        batch = attacks.fgsm(model, real, labels, epsilon=epsilon, clip=mode.clip)
    moved, accuracies = {"r1": batch.images, "r2": real}, (batch.clean_accuracy, batch.adversarial_accuracy)
    if not attack_only:
        moved["noise"] = attacks.random_sign_noise(real, epsilon, rng, clip=mode.clip)
        accuracies += (models.accuracy(model, moved["noise"], labels),)
    clean, *suspects = (pool.reshape(*pool.shape[:2], -1) for pool in (everything, *moved.values()))
    outside = ((suspects[0] < 0) | (suspects[0] > 1)).any(axis=(1, 2))
    return Pools(clean, dict(zip(moved, suspects, strict=True)), accuracies, float(outside.mean()))


def size_sweep(
    mode: g17.Mode,
    sizes: Sequence[int],
    *,
    epsilon: float,
    images: int,
    draws: int,
    rng: np.random.Generator,
    numerator_size: int | None = None,
    image_sets: Sequence[str] = ("mnist", "cifar10"),
    attack_only: bool = False,
) -> list[SizeResult]:
    """Run Algorithm 1 at several sample sizes.

    The images of a smaller size are the first ones of the larger sizes' draws, and the same draws serve the three
    fits and the channels: what differs along a curve is the size alone, and its points are not independent.

    Parameters
    ----------
    mode : g17.Mode
    sizes : sequence of int
        Images in the denominator, at least 1; see `fit_draws` for a single one.
    epsilon : float
        L∞ size of FGSM and of the noise.
    images, draws : int
        Test images attacked, 0 for all, while numerators are drawn from all; t of the paper.
    rng : numpy.random.Generator
        Source of noise and draws.
    numerator_size : int, optional
        Images in the numerator (§4.5); by default as many as in the denominator (§4.3).
    image_sets : sequence of str
    attack_only : bool
        As for `attacked_pools`.

    Returns
    -------
    list of SizeResult
        By row, then in the order of `sizes`; CIFAR-10 in three channels and combined, the mean of these (G17 eq. 4).

    Raises
    ------
    ValueError
        When sizes is empty or draws and sizes do not fit the images there are.
    """
    if not len(sizes) or min(sizes) < 1:
        raise ValueError(f"sizes must hold at least one sample size and none below 1, but is {list(sizes)}")
    results: list[SizeResult] = []
    for image_set in image_sets:
        pools = attacked_pools(mode, image_set, epsilon, images, rng, attack_only)
        name = "numerator_size" if numerator_size else "sizes"
        a = draw_indices(len(pools.clean), draws, numerator_size or max(sizes), rng, name)
        b = draw_indices(len(pools.suspects["r2"]), draws, max(sizes), rng, "sizes")
        steps = [(channel, size) for channel in range(len(ROWS[image_set])) for size in sizes]
        shared = [pools, image_set, mode, a, b, bool(numerator_size)]
        by_step = dict(map_tasks(_at_step, steps, f"{mode.name}, {image_set}: channel, size", shared=shared))
        found = [by_step[step] for step in steps]
        results += found
        if len(ROWS[image_set]) > 1:
            results += [_mean_of_channels(select(found, size=size)) for size in sizes]
    return results


def fit_draws(numerators: np.ndarray, denominators: np.ndarray, a: np.ndarray, b: np.ndarray, kernel: str) -> Any:
    """Fit all draws by `protocol.fit_indices`.

    With a single denominator image there is nothing to leave out; it is given twice, which lets the leave-one-out run.
    """
    return fit_indices(numerators, denominators, a, np.repeat(b, 2, axis=1) if b.shape[1] == 1 else b, kernel)


def _at_step(
    step: tuple[int, int], pools: Pools, image_set: str, mode: g17.Mode, a: np.ndarray, b: np.ndarray, fixed: bool
) -> SizeResult:
    """Fit one channel at one size; `fixed` keeps the numerator's."""
    channel, size = step
    a, b = a if fixed else a[:, :size], b[:, :size]
    fits = {
        side: fit_draws(pools.clean[:, channel], pool[:, channel], a, b, mode.kernel)
        for side, pool in pools.suspects.items()
    }
    return SizeResult(
        ROWS[image_set][channel],
        mode.name,
        size,
        **{side: fits[side].mean_ratio_ if side in fits else None for side in SIDES},
        # A centre's kernel on itself is 1, so each of the n numerator images gives θ/n of its own to the mean.
        own={side: fit.theta_.sum(axis=1) / a.shape[1] for side, fit in fits.items()},
        settings={side: np.stack([fit.sigma_, fit.lambda_], axis=1) for side, fit in fits.items()},
        accuracies=pools.accuracies,
        outside_share=pools.outside_share,
    )


def _mean_of_channels(channels: Sequence[SizeResult]) -> SizeResult:
    sides = channels[0].own
    own = {side: np.mean([c.own[side] for c in channels], axis=0) for side in sides}
    ratios = {side: np.mean([getattr(c, side) for c in channels], axis=0) for side in sides}
    return replace(channels[0], row=COMBINED, settings={}, own=own, **ratios)


def select(results: Sequence[SizeResult], **wanted: Any) -> list[SizeResult]:
    """Keep the results whose attributes are as given, for instance row="MNIST", size=10."""
    return [r for r in results if all(getattr(r, name) == value for name, value in wanted.items())]


def record_sweep(run: Any, results: Sequence[SizeResult], prefix: str) -> None:
    """Put a sweep into a run's record: means and decisions by row, and by size as lists, largest size first.

    With each row goes the network's accuracy on clean images, under FGSM and under noise.
    """
    for mode, row in dict.fromkeys((r.mode, r.row) for r in results):
        line = sorted(select(results, mode=mode, row=row), key=lambda r: -r.size)
        for side in SIDES:
            run.metric(f"{prefix}.{mode}.{row}.{side}", [r.summary(side).mean for r in line])
        for name, parts in (("attack", [r.attack for r in line]), ("noise", [r.control for r in line])):
            for metric in ("auroc", "tpr_at_5_fpr"):
                run.metric(f"{prefix}.{mode}.{row}.{name}.{metric}", [getattr(part, metric) for part in parts])
        run.metric(f"{prefix}.{mode}.{row}.accuracy", list(line[0].accuracies))


def accuracy_lines(results: Sequence[SizeResult]) -> list[str]:
    """Say what attack and noise cost each network that a sweep attacked."""
    networks = {(r.row.partition(" (")[0], r.mode): r.accuracies for r in results}
    words = "{}, {}: accuracy {:.2f}, under FGSM {:.2f}, under noise {:.2f}"
    return [words.format(*network, *accuracies) for network, accuracies in networks.items()]


# ------------------------------------------------------------------------------------------------ frames and figure


def draws_frame(results: Sequence[SizeResult]) -> pandas.DataFrame:
    """Tabulate every draw: mode, row, size, side (in words), ratio, and ratio without own kernels."""
    return pandas.concat(
        [
            pandas.DataFrame({
                "mode": r.mode, "row": r.row, "size": r.size, "side": label, "ratio": getattr(r, side),
                "ratio without own kernels": getattr(r, side) - r.own[side],
            })
            for r in results
            for side, label in SIDE_LABELS.items()
        ],
        ignore_index=True,
    )  # fmt: skip


def ends_frame(results: Sequence[SizeResult]) -> pandas.DataFrame:
    """Show what a decision about one batch gets at the largest and at the smallest size, a line a mode and row."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for size in (max(r.size for r in results), min(r.size for r in results)):
        for r in select(results, size=size):
            shown = {"AUROC": r.attack.auroc, "power": r.attack.tpr_at_5_fpr, "power on noise": r.control.tpr_at_5_fpr}
            words = {f"{name}, {size} images": f"{value:.2f}" for name, value in shown.items()}
            lines.setdefault((r.mode, r.row), {}).update(words)
    return pandas.DataFrame.from_dict(lines, orient="index").rename_axis(["mode", "row"])


def size_decisions(results: Sequence[SizeResult], label: str, *, power_only: bool = False) -> Figure:
    """Draw AUROC and power at 5 % false alarms over the sample size, attack and untargeted noise, a column a data set.

    Sizes fall from left to right, as in the paper's tables.

    Parameters
    ----------
    results : sequence of SizeResult
        Of the rows to draw, both modes.
    label : str
        What the sample size counts.
    power_only : bool
        Leave out the AUROC, where there are many data sets.
    """
    names, chances = ("AUROC of draws (grey: chance)", "share flagged (grey: false alarms)"), (0.5, 0.05)
    lines = [
        {"row": r.row, label: r.size, "what": name, "value": value, "line": f"{r.mode}: {words}"}
        for r in results
        for words, part in (("FGSM", r.attack), ("coin flips of ±ε", r.control))
        for name, value in zip(names, (part.auroc, part.tpr_at_5_fpr), strict=True)
    ]
    frame = pandas.DataFrame(lines)
    if power_only:
        frame, chances = frame[frame["what"] == names[1]], chances[1:]
    both = [colour for colour in (figures.AS_PUBLISHED, figures.CORRECTED) for _ in range(2)]
    figure = panels.lines(
        frame, x=label, y="value", row="what", col="row", hue="line", style="line", legend_columns=4,
        palette=both, dashes=["", (4, 2)] * 2, markers=["o", "o", "^", "^"], size=(2.8, 2.7),
        axis={"ylim": (-0.03, 1.05), "xticks": sorted(frame[label].unique()), "ylabel": ""},
    )  # fmt: skip
    figure.axes[0].invert_xaxis()  # of all panels: they share it
    for i, axis in enumerate(figure.axes):
        axis.label_outer()
        axis.axhline(chances[i // frame["row"].nunique()], color=figures.LIMIT, lw=0.8)
    return figure


def extent(values: Sequence[float], form: str = ".2f") -> str:
    """Write the smallest and the largest value as "0.10 to 0.25", or once where they read alike."""
    low, high = (format(end, form) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
