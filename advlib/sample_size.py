"""How few images are enough? Gondara 2017's sweeps over the sample size (§4.3, Fig. 3; §4.5, Table 3) as functions.

In §4.3 numerator and denominator shrink together; in §4.5 only the suspect images do, down to a single one. Every draw
is fitted three times over the same indices: real against adversarial (R1), real against real (R2), and real against
real with a coin flip of ±ε on every pixel, which is as large as FGSM and has no aim. (Such noise can cost accuracy as
well, most on colour images; how much is recorded.)

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017).
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas
from scipy import stats
from scipy.spatial.distance import cdist

from advlib import attacks, g17, models, published
from advlib.progress import track
from advlib.protocol import RatioComparison, Summary, auroc, departure, draw_indices
from advlib.ulsif import DEFAULT_GRID, GridEdgeWarning, fit_batch_indices

FIGURE3 = ("MNIST", "CIFAR-10 (red)", "CIFAR-10 (green)", "CIFAR-10 (blue)")
SIDES = ("r1", "r2", "noise")
SMALL_LAMBDA = 0.01
"""A chosen λ below this says that, for the unsquared kernel, denominator and numerator hardly overlap: leave-one-out
then has nothing to lose by a large ratio."""

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


def _range(values: Sequence[float], form: str = ".2f") -> str:
    low, high = (format(end, form) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


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


# ------------------------------------------------------------------------------------------------ §4.5, Table 3


def table3_column(side: str, size: int) -> str:
    """Name a column of Table 3 as `data/published/g17.csv` does: "R1 m=9"."""
    return f"{side.upper()} m={size}"


def table3_band(entry: published.Published) -> tuple[float, float]:
    """Range in which a rerun of a number of Table 3 agrees with it.

    Two unrelated reasons make a faithful rerun differ, so they add in quadrature. The paper's network is unknown:
    `g17.TOLERANCE`, a share of the value, as for Table 1. And both numbers are means of 100 draws with a printed
    95 % interval of half-width h: the difference of two such means has √2 h. The rerun's own spread does not
    widen the band, so that few draws make agreement harder and not easier.

    Parameters
    ----------
    entry : published.Published
        With `low` and `high`.

    Returns
    -------
    low, high : float
    """
    half_width = (entry.high - entry.low) / 2
    reach = math.hypot(g17.TOLERANCE * entry.value, math.sqrt(2) * half_width)
    return entry.value - reach, entry.value + reach


def table3_verdict(entry: published.Published, as_published: float, corrected: float) -> str:
    """Judge one number of Table 3 by our two, with the words of `published.VERDICTS`."""
    low, high = table3_band(entry)
    if low <= corrected <= high:
        return "reproduced"
    return "reproduced as published only" if low <= as_published <= high else "not reproduced"


def published_table3() -> list[tuple[int, published.Published, published.Published]]:
    """Table 3 as printed: m with R1 and R2, m falling."""
    return [
        (m, *(published.lookup("g17", "Table 3", "MNIST", table3_column(side, m)) for side in ("r1", "r2")))
        for m in range(9, 0, -1)
    ]


def out_of_reach_share(result: SizeResult, side: str = "r2") -> float:
    """Share of draws that chose a λ below `SMALL_LAMBDA`."""
    # The grid's 0.01 is a rounded power of ten.
    return float((result.settings[side][:, 1] < SMALL_LAMBDA * (1 - 1e-9)).mean())


def clean_r2_by_lambda(results: Sequence[SizeResult]) -> pandas.DataFrame:
    """Split mean R2 by the λ that clean draws chose: why R2 grows as the suspect sample shrinks.

    When no kernel of the numerator reaches the few denominator images, leave-one-out has nothing to lose by a small λ,
    and the ratio is ‖ĥ‖²/λ, whatever the images are.

    Parameters
    ----------
    results : sequence of SizeResult
        Of one mode and row, with settings.

    Returns
    -------
    pandas.DataFrame
        A row a size and λ: share of draws, their mean R2, and their contribution to the mean.
    """
    lines = []
    for r in results:
        lambdas = r.settings["r2"][:, 1]
        for value in np.unique(lambdas):
            chosen = lambdas == value
            lines.append({
                "size": r.size,
                "lambda": float(value),
                "share": float(chosen.mean()),
                "mean": float(r.r2[chosen].mean()),
                "contribution": float(r.r2[chosen].sum() / len(chosen)),
            })  # fmt: skip
    return pandas.DataFrame(lines)


def single_image_map(
    numerators: np.ndarray,
    suspects: np.ndarray,
    kernel: str,
    sigmas: Sequence[float] = DEFAULT_GRID,
    lambdas: Sequence[float] = DEFAULT_GRID,
) -> np.ndarray:
    """Mean ratio against a single denominator image, for every σ and λ of the grid, in closed form.

    With one denominator image Ĥ = φφᵀ, so by Sherman and Morrison θ = max(0, ĥ − φ·φᵀĥ/(λ + ‖φ‖²))/λ.
    All numerator images are kernel centres.

    Parameters
    ----------
    numerators : (t, n, d) float array
    suspects : (t, d) float array
        The image of each draw.
    kernel : str
        "gaussian" or "unsquared".
    sigmas, lambdas : sequence of float

    Returns
    -------
    (t, n_sigmas, n_lambdas) float64
    """
    metric = "sqeuclidean" if kernel == "gaussian" else "euclidean"
    lambda_ = np.asarray(lambdas, dtype=float)[:, None]
    found = np.empty((len(numerators), len(sigmas), len(lambdas)))
    for t, (numerator, suspect) in enumerate(zip(numerators, suspects, strict=True)):
        among, to = cdist(numerator, numerator, metric), cdist(suspect[None], numerator, metric)[0]
        for s, sigma in enumerate(sigmas):
            h, phi = np.exp(-among / (2 * sigma**2)).mean(axis=0), np.exp(-to / (2 * sigma**2))
            theta = np.maximum(0, h - phi * (phi @ h) / (lambda_ + phi @ phi)) / lambda_
            found[t, s] = theta @ h
    return found


@dataclass(frozen=True, eq=False)
class SingleImage:
    """What can stand in the row m = 1 of Table 3, where leave-one-out has nothing to leave out.

    Attributes
    ----------
    maps : dict of (t, n_sigmas, n_lambdas) float64
        Mean ratio with σ and λ fixed, for "r1" and "r2".
    alternatives : dict
        What was done → RatioComparison.
    needs_answer : tuple of str
        Alternatives that treat attacked and clean suspects differently: no detector can, and their AUROC means nothing.
    """

    maps: Mapping[str, np.ndarray]
    alternatives: Mapping[str, RatioComparison]
    needs_answer: tuple[str, ...]

    def settings_in_both_bands(self) -> list[tuple[float, float]]:
        """List each σ, λ of the grid with which both printed numbers of m = 1 come out."""
        _, *printed = published_table3()[-1]
        inside = np.ones(self.maps["r1"].shape[1:], dtype=bool)
        for side, entry in zip(SIDES, printed, strict=False):
            low, high = table3_band(entry)
            mean = self.maps[side].mean(axis=0)
            inside &= (mean >= low) & (mean <= high)
        return [(DEFAULT_GRID[s], DEFAULT_GRID[k]) for s, k in np.argwhere(inside)]


def single_image_alternatives(
    mode: g17.Mode, *, batch_size: int, epsilon: float, images: int, draws: int, rng: np.random.Generator
) -> SingleImage:
    """Try what could be done with one suspect MNIST image, where the defaults cannot choose σ and λ.

    Parameters
    ----------
    mode : g17.Mode
    batch_size : int
        Images in the numerator, and suspects in the fits that "m = batch_size" settings are taken from.
    epsilon, images, draws, rng
        As for `size_sweep`.

    Returns
    -------
    SingleImage
        Alternatives: σ, λ fixed where most fits of the same side chose them at m = batch_size, and at m = 2 (a
        detector cannot do that: it does not know the side); fixed for both sides where most clean fits chose them at
        m = 2, and where most attacked ones did at m = batch_size; each draw's own choice from two images, fitted to one
        of them; and the image given twice, with the usual leave-one-out.
    """
    pools = attacked_pools(mode, "mnist", epsilon, images, rng)
    a = draw_indices(len(pools.clean), draws, batch_size, rng)
    b = draw_indices(len(pools.real), draws, batch_size, rng)
    clean, suspects, sides = pools.clean[:, 0], pools.denominators(0), ("r1", "r2")
    single = b[:, :1]

    def fit(side: str, indices: np.ndarray) -> Any:
        return _fit(clean, suspects[side], a, indices, kernel=mode.kernel)

    at_many, at_two = ({side: fit(side, b[:, :m]) for side in sides} for m in (batch_size, 2))
    maps = {side: single_image_map(clean[a], suspects[side][single[:, 0]], mode.kernel) for side in sides}

    def usual(found: Any) -> tuple[int, int]:
        pairs = Counter(zip(_places(found.sigma_), _places(found.lambda_), strict=True))
        return min(pairs, key=lambda pair: (-pairs[pair], pair))

    def fixed(places: Mapping[str, tuple[int, int]]) -> RatioComparison:
        return RatioComparison(*(maps[side][:, *places[side]] for side in sides))

    def same(place: tuple[int, int]) -> RatioComparison:
        return fixed({"r1": place, "r2": place})

    own = [maps[s][np.arange(draws), _places(at_two[s].sigma_), _places(at_two[s].lambda_)] for s in sides]
    needs_answer = {
        f"fixed: each side's most frequent at m = {batch_size}": fixed({s: usual(f) for s, f in at_many.items()}),
        "fixed: each side's most frequent at m = 2": fixed({s: usual(f) for s, f in at_two.items()}),
    }
    alternatives = {
        f"fixed: the attacked side's at m = {batch_size}, for both": same(usual(at_many["r1"])),
        "fixed: the clean side's at m = 2, for both": same(usual(at_two["r2"])),
        "each draw's own, chosen on two images": RatioComparison(*own),
        "the image twice, leave-one-out as usual": RatioComparison(
            *(fit(side, _twice_if_single(single)).mean_ratio_ for side in sides)
        ),
    }
    return SingleImage(maps, {**needs_answer, **alternatives}, tuple(needs_answer))


def _places(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.asarray(DEFAULT_GRID), values)


def alternatives_frame(found: Mapping[str, SingleImage]) -> pandas.DataFrame:
    """Show what each alternative for m = 1 gives, by mode, beside the printed numbers."""
    _, r1, r2 = published_table3()[-1]
    lines = [{"mode": "published", "what was done": "", "R1": f"{r1.value:.2f} ({r1.low:.2f}, {r1.high:.2f})",
              "R2": f"{r2.value:.2f} ({r2.low:.2f}, {r2.high:.2f})", "in both bands": "", "AUROC": ""}]  # fmt: skip
    for mode, single in found.items():
        for what, result in single.alternatives.items():
            lines.append({
                "mode": mode,
                "what was done": what,
                "R1": str(result.r1_summary),
                "R2": str(result.r2_summary),
                "in both bands": "yes" if in_both_bands(result) else "no",
                "AUROC": "needs the answer" if what in single.needs_answer else f"{result.auroc:.2f}",
            })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["mode", "what was done"])


def in_both_bands(result: RatioComparison) -> bool:
    """Whether both means of an alternative agree with the printed row m = 1."""
    _, r1, r2 = published_table3()[-1]
    ends = [(*table3_band(entry), summary.mean)
            for entry, summary in ((r1, result.r1_summary), (r2, result.r2_summary))]  # fmt: skip
    return all(low <= mean <= high for low, high, mean in ends)


def record_table3(run: Any, results: Sequence[SizeResult], single: SingleImage) -> None:
    """Set every number of Table 3 beside our two in a run's record.

    Parameters
    ----------
    run : advlib.record.Run
    results : sequence of SizeResult
        Of MNIST, both modes; sizes that the table has not are left out.
    single : SingleImage
        What was tried for m = 1 in the as-published mode.
    """
    mine = {(r.mode, r.size): r for r in results if r.row == "MNIST"}
    hits = [what for what, result in single.alternatives.items() if in_both_bands(result)]
    one = (
        f"the defaults cannot run with one suspect, here it was given twice; of {len(single.alternatives)} "
        f"alternatives that were tried, both printed numbers come out of: {', '.join(hits) or 'none'}"
    )
    excess = [
        mine["as published", m].r1.mean() / r1.value - 1
        for m, r1, _ in published_table3()
        if ("as published", m) in mine
    ]
    for m, *entries in published_table3():
        if ("corrected", m) not in mine or ("as published", m) not in mine:
            continue
        as_published, corrected = mine["as published", m], mine["corrected", m]
        for side, entry in zip(("r1", "r2"), entries, strict=True):
            ours = as_published.summary(side).mean, corrected.summary(side).mean
            cause = _table3_cause(side, entry, as_published, corrected, excess)
            run.compare({
                "paper": "g17",
                "item": "Table 3",
                "row": "MNIST",
                "column": entry.column,
                "as_published": round(ours[0], 2),
                "corrected": round(ours[1], 2),
                "verdict": table3_verdict(entry, *ours),
                "cause": "; ".join(part for part in (cause, one if m == 1 else "") if part),
            })  # fmt: skip


def _table3_cause(
    side: str, entry: published.Published, as_published: SizeResult, corrected: SizeResult, excess: Sequence[float]
) -> str:
    low, high = table3_band(entry)
    word = table3_verdict(entry, as_published.summary(side).mean, corrected.summary(side).mean)
    if word == "reproduced":
        parts = []
        median, mean = float(np.median(getattr(corrected, side))), as_published.summary(side).mean
        if not low <= median <= high:
            parts.append(f"a few draws carry the corrected mean: its median is {median:.2f}")
        if not low <= mean <= high:
            parts.append("as published it does not agree")
        if side == "r1" and corrected.r1.mean() <= corrected.r2.mean():
            parts.append("corrected R2 is no smaller: the number agrees, and no difference between R1 and R2 does")
        return "; ".join(parts)
    if word == "not reproduced":
        if side == "r1":
            return (
                f"unknown network: over all m our as-published R1 differs by {_range(excess, '+.0%')} from the printed"
            )
        return f"{out_of_reach_share(as_published):.0%} of the clean draws carry the mean: few, hence no steady number"
    if side == "r1":
        return "unsquared kernel and unclipped FGSM, the software of May 2017"
    return (
        f"unsquared kernel; {out_of_reach_share(as_published):.0%} of the clean draws choose a λ below "
        f"{SMALL_LAMBDA:g}, as if their few images were out of every kernel's reach"
    )


def table3_frame(run: Any) -> pandas.DataFrame:
    """Show a run's comparisons with Table 3: published, as published, corrected, band, verdict; see `table3_causes`."""
    lines = []
    for c in run.comparisons.values():
        if c["item"] == "Table 3":
            printed = published.lookup("g17", "Table 3", c["row"], c["column"])
            lines.append({
                "column": c["column"],
                "published": f"{printed.value:.2f} ({printed.low:.2f}, {printed.high:.2f})",
                "as published": c["as_published"],
                "corrected": c["corrected"],
                "band": "{:.2f} to {:.2f}".format(*table3_band(printed)),
                "verdict": c["verdict"],
            })  # fmt: skip
    return pandas.DataFrame(lines).set_index("column")


def table3_causes(run: Any) -> list[str]:
    """List the causes in a run's comparisons with Table 3, each once, after the columns that it explains.

    Causes that differ by a median alone are one, with the range of the medians.
    """
    columns: dict[str, list[str]] = {}
    medians: dict[str, list[float]] = {}
    for c in run.comparisons.values():
        if c["item"] == "Table 3" and c["cause"]:
            before, word, after = c["cause"].partition("its median is ")
            number, semicolon, rest = after.partition(";")
            cause = f"{before}{word}{'{}' if word else ''}{semicolon}{rest}"
            columns.setdefault(cause, []).append(c["column"])
            medians.setdefault(cause, []).extend([float(number)] if word else [])
    return [
        f"{', '.join(names)}: {cause.format(_range(medians[cause])) if medians[cause] else cause}"
        for cause, names in columns.items()
    ]


def judge_table3(mnist: Sequence[SizeResult], cifar: Sequence[SizeResult]) -> list[dict[str, Any]]:
    """Judge the two sentences of §4.5 by sweeps in both modes.

    - *single adversarial sample*: at m = 1 (the image given twice) at least 95 % of attacked images are flagged at 5 %
      false alarms on MNIST.
    - *same on other data*: on CIFAR-10 combined, AUROC differs by less than 0.1 from MNIST's at every size that both
      sweeps have.

    Parameters
    ----------
    mnist, cifar : sequence of SizeResult

    Returns
    -------
    list of dict
        Rows for `Run.compare`.

    Raises
    ------
    ValueError
        When mnist has no size of 1.
    """
    if not select(mnist, row="MNIST", size=1):
        raise ValueError(f"mnist must hold a size of 1 for this sentence, but holds {sorted({r.size for r in mnist})}")
    words: dict[str, dict[str, str]] = {"single": {}, "same": {}}
    holds: dict[str, dict[str, bool]] = {name: {} for name in words}
    noise = []
    outside = select(mnist, mode=g17.AS_PUBLISHED.name, row="MNIST")[0].outside_share
    for mode in ("as published", "corrected"):
        (one,) = select(mnist, mode=mode, row="MNIST", size=1)
        noise.append(one.control.tpr_at_5_fpr)
        holds["single"][mode] = one.attack.tpr_at_5_fpr >= 0.95
        words["single"][mode] = (
            f"R1 = {one.summary('r1').mean:.2f}, R2 = {one.summary('r2').mean:.2f}; {one.attack.tpr_at_5_fpr:.0%} of "
            f"single images flagged at 5 % false alarms, AUROC {one.attack.auroc:.2f}"
        )
        pairs = [
            (select(mnist, mode=mode, row="MNIST", size=other.size), other)
            for other in select(cifar, mode=mode, row=_COMBINED)
        ]
        pairs = [(found[0], other) for found, other in pairs if found]
        holds["same"][mode] = all(abs(one.attack.auroc - other.attack.auroc) < 0.1 for one, other in pairs)
        words["same"][mode] = "AUROC on MNIST and CIFAR-10: " + ", ".join(
            f"{a.attack.auroc:.2f} and {b.attack.auroc:.2f} at m = {a.size}" for a, b in pairs
        )
    return [
        _claim(
            "single-adversarial-sample",
            words["single"],
            holds["single"],
            "the means of R1 and R2 are not the question that one image asks; random ±ε noise of the same size is "
            f"flagged in {noise[0]:.0%} (as published) and {noise[1]:.0%} (corrected); as published, "
            f"{outside:.0%} of the attacked images leave [0, 1], so that a range check finds them without any ratio",
        ),
        _claim(
            "same-on-other-data",
            words["same"],
            holds["same"],
            "run with FGSM; other attacks at m = 100 are in notebook 04",
        ),
    ]
