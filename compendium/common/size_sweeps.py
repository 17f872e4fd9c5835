"""How few images are enough? Gondara 2017's sweeps over the sample size (§4.3, Fig. 3; §4.5, Table 3) as functions.

In §4.3 numerator and denominator shrink together; in §4.5 only the suspect images do, down to a single one. Every draw
is fitted three times over the same indices: real against adversarial (R1), real against real (R2), and real against
real with a coin flip of ±ε on every pixel, which is as large as FGSM and has no aim. (Such noise can cost accuracy as
well, most on colour images; how much is recorded.)

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017).
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas
from matplotlib.figure import Figure
from scipy import stats

from advlib import attacks, models
from advlib.figures import ADVERSARIAL, AS_PUBLISHED, CORRECTED, LIMIT, MARKERS, NOISE, REAL, subplots
from advlib.progress import track
from advlib.ulsif import GridEdgeWarning, fit_batch_indices
from compendium.common import g17
from compendium.common.protocol import RatioComparison, Summary, draw_indices

SIDES = ("r1", "r2", "noise")


_ROWS = {
    "mnist": ("MNIST",),
    "cifar10": ("CIFAR-10 (red)", "CIFAR-10 (green)", "CIFAR-10 (blue)"),
}
_COMBINED = "CIFAR-10 (combined)"


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
        Mean density ratio of each draw: real against adversarial, against real, and against real with random ±ε noise.
    own : dict of (t,) float64
        For each of the three, the part of the mean ratio that the numerator images' kernels on themselves make up.
    settings : dict of (t, 2) float64
        For each of the three, σ and λ of each draw; empty for the mean of three channels.
    clean_accuracy, adversarial_accuracy, noise_accuracy : float
        Of the attacked network on clean images, under FGSM and under the noise.
    outside_share : float
        Share of adversarial images with at least one pixel outside [0, 1]: those that a range check finds.
    """

    row: str
    mode: str
    size: int
    r1: np.ndarray
    r2: np.ndarray
    noise: np.ndarray
    own: Mapping[str, np.ndarray]
    settings: Mapping[str, np.ndarray]
    clean_accuracy: float
    adversarial_accuracy: float
    noise_accuracy: float
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

    def summary(self, side: str, without_own: bool = False) -> Summary:
        """Mean and 95 % interval of "r1", "r2" or "noise", if asked without the kernels' part on themselves."""
        return Summary.of(getattr(self, side) - (self.own[side] if without_own else 0))

    def usual_setting(self, side: str) -> tuple[float, float]:
        """σ and λ that most draws of a side chose; of equally frequent ones the smallest."""
        pairs = Counter(map(tuple, self.settings[side].tolist()))
        return min(pairs, key=lambda pair: (-pairs[pair], pair))


@dataclass(frozen=True, eq=False)
class Pools:
    """Images that a sweep draws from, a channel each: clean (N, c, d); real, adversarial and noise (n, c, d)."""

    clean: np.ndarray
    real: np.ndarray
    adversarial: np.ndarray
    noise: np.ndarray
    clean_accuracy: float
    adversarial_accuracy: float
    noise_accuracy: float
    outside_share: float

    def denominators(self, channel: int) -> dict[str, np.ndarray]:
        """One pool (n, d) for each of `SIDES`."""
        return dict(zip(SIDES, (p[:, channel] for p in (self.adversarial, self.real, self.noise)), strict=True))


def attacked_pools(mode: g17.Mode, image_set: str, epsilon: float, images: int, rng: np.random.Generator) -> Pools:
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
    """
    everything, real, labels = g17.all_and_attacked(image_set, images)
    model = models.load_trained(mode.networks[image_set])
    batch = attacks.fgsm(model, real, labels, epsilon=epsilon, clip=mode.clip)
    noise = attacks.random_sign_noise(real, epsilon, rng, clip=mode.clip)
    outside = (batch.images < 0) | (batch.images > 1)
    return Pools(
        *(pool.reshape(len(pool), pool.shape[1], -1) for pool in (everything, real, batch.images, noise)),
        batch.clean_accuracy,
        batch.adversarial_accuracy,
        models.accuracy(model, noise, labels),
        float(outside.reshape(len(outside), -1).any(axis=1).mean()),
    )


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
) -> list[SizeResult]:
    """Run Algorithm 1 at several sample sizes.

    The images of a smaller size are the first ones of the larger sizes' draws, and the same draws serve the three
    fits and the channels: what differs along a curve is the size alone. Sizes of 10 and 9 share nine images, so the
    points of one curve are not independent of each other.

    Parameters
    ----------
    mode : g17.Mode
    sizes : sequence of int
        Images in the denominator, at least 1. With a single one there is nothing to leave out; it is given twice,
        which lets the leave-one-out run (see `single_image_alternatives` for what else could be done).
    epsilon : float
        L∞ size of FGSM and of the noise.
    images : int
        Test images attacked, 0 for all; numerators are drawn from all.
    draws : int
        t of the paper.
    rng : numpy.random.Generator
        Source of noise and draws.
    numerator_size : int, optional
        Images in the numerator (§4.5); by default as many as in the denominator (§4.3).
    image_sets : sequence of str
        Of "mnist" and "cifar10".

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
        pools = attacked_pools(mode, image_set, epsilon, images, rng)
        a = draw_indices(
            len(pools.clean), draws, numerator_size or max(sizes), rng, "numerator_size" if numerator_size else "sizes"
        )
        b = draw_indices(len(pools.real), draws, max(sizes), rng, "sizes")
        names = _ROWS[image_set]
        steps = [(channel, size) for channel in range(len(names)) for size in sizes]
        found = [
            _at_size(pools, channel, names[channel], mode, a if numerator_size else a[:, :size], b[:, :size])
            for channel, size in track(steps, f"{mode.name}, {image_set}: channel, size", len(steps))
        ]
        results += found
        if len(names) > 1:
            results += [_mean_of_channels([r for r in found if r.size == size]) for size in sizes]
    return results


def _fit(numerators: np.ndarray, denominators: np.ndarray, a: np.ndarray, b: np.ndarray, **estimator: Any) -> Any:
    """Fit all draws; the grid is part of the paper's method, so that the best value lies at its edge is no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        return fit_batch_indices(numerators, denominators, a, b, **estimator)


def _twice_if_single(b: np.ndarray) -> np.ndarray:
    return np.repeat(b, 2, axis=1) if b.shape[1] == 1 else b


def _at_size(pools: Pools, channel: int, row: str, mode: g17.Mode, a: np.ndarray, b: np.ndarray) -> SizeResult:
    fits = {
        side: _fit(pools.clean[:, channel], pool, a, _twice_if_single(b), kernel=mode.kernel)
        for side, pool in pools.denominators(channel).items()
    }
    return SizeResult(
        row,
        mode.name,
        b.shape[1],
        **{side: fit.mean_ratio_ for side, fit in fits.items()},
        # A centre's kernel on itself is 1, so each of the n numerator images gives θ/n of its own to the mean.
        own={side: fit.theta_.sum(axis=1) / a.shape[1] for side, fit in fits.items()},
        settings={side: np.stack([fit.sigma_, fit.lambda_], axis=1) for side, fit in fits.items()},
        clean_accuracy=pools.clean_accuracy,
        adversarial_accuracy=pools.adversarial_accuracy,
        noise_accuracy=pools.noise_accuracy,
        outside_share=pools.outside_share,
    )


def _mean_of_channels(channels: Sequence[SizeResult]) -> SizeResult:
    def mean(values: list[np.ndarray]) -> np.ndarray:
        return np.mean(values, axis=0)

    return replace(
        channels[0],
        row=_COMBINED,
        settings={},
        own={side: mean([c.own[side] for c in channels]) for side in SIDES},
        **{side: mean([getattr(c, side) for c in channels]) for side in SIDES},
    )


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
        for name, part in (("attack", "attack"), ("noise", "control")):
            run.metric(f"{prefix}.{mode}.{row}.{name}.auroc", [getattr(r, part).auroc for r in line])
            run.metric(f"{prefix}.{mode}.{row}.{name}.tpr_at_5_fpr", [getattr(r, part).tpr_at_5_fpr for r in line])
        run.metric(f"{prefix}.{mode}.{row}.accuracy", list(_accuracies(line[0])))


def _accuracies(result: SizeResult) -> tuple[float, float, float]:
    return result.clean_accuracy, result.adversarial_accuracy, result.noise_accuracy


def accuracy_lines(results: Sequence[SizeResult]) -> list[str]:
    """Say what attack and noise cost each network that a sweep attacked."""
    lines = []
    for mode, image_set in dict.fromkeys((r.mode, r.row.partition(" (")[0]) for r in results):
        first = next(r for r in results if r.mode == mode and r.row.startswith(image_set))
        clean, attacked, noisy = _accuracies(first)
        lines.append(f"{image_set}, {mode}: accuracy {clean:.2f}, under FGSM {attacked:.2f}, under noise {noisy:.2f}")
    return lines


def usual_lines(results: Sequence[SizeResult]) -> list[str]:
    """Say which σ and λ most draws chose for R1 and for R2, row by row.

    Parameters
    ----------
    results : sequence of SizeResult
        Channels apart, with settings.
    """

    def pair(r: SizeResult, side: str) -> str:
        return "σ {:.2g}, λ {:.2g}".format(*r.usual_setting(side))

    return [f"{r.row}, {r.mode}, {r.size} images: R1 {pair(r, 'r1')}; R2 {pair(r, 'r2')}" for r in results]


def size_frame(results: Sequence[SizeResult]) -> pandas.DataFrame:
    """Show a sweep as a table: means with intervals, Welch's p, and what a decision gets from one batch."""
    lines = [
        {
            "mode": r.mode,
            "row": r.row,
            "images": r.size,
            "R1": str(r.summary("r1")),
            "R2": str(r.summary("r2")),
            "p, means": f"{r.p_value:.1g}",
            "AUROC": f"{r.attack.auroc:.2f}",
            "power at 5 % false alarms": f"{r.attack.tpr_at_5_fpr:.2f}",
            "AUROC, noise": f"{r.control.auroc:.2f}",
            "power, noise": f"{r.control.tpr_at_5_fpr:.2f}",
        }
        for r in results
    ]
    return pandas.DataFrame(lines).set_index(["mode", "row", "images"])


def _claim(row: str, words: Mapping[str, str], holds: Mapping[str, bool], cause: str) -> dict[str, Any]:
    if holds["corrected"]:
        word = "reproduced"
        if not holds["as published"]:
            cause = f"as published it does not hold; {cause}"
    else:
        word = "reproduced as published only" if holds["as published"] else "not reproduced"
    return {
        "paper": "g17",
        "item": "claim",
        "row": row,
        "column": "",
        "as_published": words["as published"],
        "corrected": words["corrected"],
        "verdict": word,
        "cause": cause,
    }


_SIDES = {
    "r1": ("R1: real against adversarial", ADVERSARIAL, "o-"),
    "r2": ("R2: real against real", REAL, "s-"),
    "noise": ("real against real with random ±ε noise", NOISE, "x--"),
}


def size_decisions(results: Sequence[Any], label: str) -> Figure:
    """Draw AUROC and power at 5 % false alarms over the sample size, attack and untargeted noise, a column a data set.

    Parameters
    ----------
    results : sequence of sample_size.SizeResult
        Of the rows to draw, both modes.
    label : str
        What the sample size counts.
    """
    names = list(dict.fromkeys(r.row for r in results))
    figure, axes = subplots(2, len(names), figsize=(max(3 * len(names), 8), 5.6), sharex=True, sharey="row")
    for line, key, title, chance in zip(
        axes, ("auroc", "tpr_at_5_fpr"), ("AUROC of one batch", "power at 5 % false alarms"), (0.5, 0.05), strict=True
    ):
        for axis, name in zip(line, names, strict=True):
            for mode, colour in (("as published", AS_PUBLISHED), ("corrected", CORRECTED)):
                mine = [r for r in results if r.row == name and r.mode == mode]
                for part, words, style in (("attack", "FGSM", "-"), ("control", "random ±ε noise", "--")):
                    axis.plot(
                        [r.size for r in mine], [getattr(getattr(r, part), key) for r in mine], ls=style, color=colour,
                        marker=MARKERS[mode], ms=4.5, mfc=colour if part == "attack" else "white",
                        label=f"{mode}: {words}",
                    )  # fmt: skip
            axis.axhline(chance, color=LIMIT, lw=0.8)
            axis.set_ylim(-0.03, 1.05)
            axis.set_title(name)
        line[0].set_ylabel(title)
    for axis in axes[-1]:
        axis.set_xlabel(label)
        axis.set_xticks(sorted({r.size for r in results}))
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _range(values: Sequence[float], form: str = ".2f") -> str:
    low, high = (format(end, form) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
