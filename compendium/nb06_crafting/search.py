"""Adversarial images that stay under a density-ratio tolerance: G17's Algorithm 2, and an attacker who knows the test.

Algorithm 2 lowers FGSM's ε until |mean R1 − mean R2| ≤ τ, where R1 is the density ratio of clean against adversarial
and R2 that of clean against clean batches (Algorithm 1, `compendium.common.protocol`). It cannot aim: it only attacks
less. The attacker who knows the detector can (`advlib.attacks.adaptive`).

Both are judged alike, by a `Defender`. The tolerance holds two *means* together; whether one batch can be told from
another is a different question, answered by `Trial.comparison`.

References
----------
G17: L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017), section 5.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from advlib import attacks, models
from advlib.attacks import Clip
from advlib.attacks.adaptive import pgd_against_density_ratio
from advlib.progress import track
from compendium.common.protocol import RatioComparison, channel_ratios, draw_indices


@dataclass(frozen=True)
class Trial:
    """One attack that was tried.

    Attributes
    ----------
    epsilon : float
        L∞ size (FGSM) or bound (PGD), pixels in [0, 1].
    difference : float
        mean R1 − mean R2, with its sign: R1 can fall below R2.
    adversarial_accuracy : float
        Share of the attacked images that the model reads rightly.
    weight : float or None
        Of the density ratio in the loss; PGD only. 0: the detector was left aside.
    comparison : RatioComparison
        R1 and R2 of each draw, channels combined (G17 eq. 4), with AUROC and power at 5 % false alarms.
    """

    epsilon: float
    difference: float
    adversarial_accuracy: float
    weight: float | None = None
    comparison: RatioComparison | None = field(default=None, repr=False, compare=False)

    @property
    def gap(self) -> float:
        """|mean R1 − mean R2|, what the tolerance bounds."""
        return abs(self.difference)


@dataclass(frozen=True, eq=False, kw_only=True)
class CraftingResult(Trial):
    """The trial that an attack under a tolerance ends with: of those within it, the largest ε or lowest accuracy.

    Attributes
    ----------
    tolerance : float
        τ ≥ gap.
    clean_accuracy : float
        Share of the images that are read rightly before.
    trace : tuple of Trial
        Everything that was tried, in that order.
    images : (n, c, h, w) float32
        After the attack; None from `fgsm_under_tolerance`, where `attacks.fgsm` at `epsilon` gives them.
    defended : RatioComparison
        From `compare_attackers`: as a defender sees the images, on draws that no attacker had.
    """

    tolerance: float
    clean_accuracy: float
    trace: tuple[Trial, ...] = field(repr=False)
    images: np.ndarray | None = field(default=None, repr=False)
    defended: RatioComparison | None = field(default=None, repr=False)


class ToleranceNotMet(ValueError):
    """Nothing in `trace`, a tuple of trials, keeps |mean R1 − mean R2| within the tolerance."""

    def __init__(self, message: str, trace: Sequence[Trial]):
        super().__init__(message)
        self.trace = tuple(trace)


class Defender:
    """Algorithm 1 on one set of draws: R1, R2 and accuracy of any attack on the same images.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits.
    images, labels : (n, c, h, w) float32 array, (n,) integer array
        Clean, within `clip` or, without clipping, within [0, 1]. Attacked, and drawn from.
    clip : (float, float) or None
        Range that attacks keep images in; None is what G17 did.
    draws, batch_size : int
        t and m of Algorithm 1.
    numerators : (N, c, h, w) float32 array, optional
        Clean images that the numerators are drawn from, where only some of them are attacked; `images` by default.
        Images that numerator and denominator share pull R2 down, and R1 with it at small ε.
    rng : numpy.random.Generator
        Source of index sets and kernel centres, used as by `density_ratio_comparison`: same generator, same numbers.
    **estimator
        For uLSIF: kernel, sigmas, lambdas, n_kernels; see `advlib.ulsif.fit_batch`.
    """

    def __init__(
        self,
        model: nn.Module,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        clip: Clip = (0.0, 1.0),
        draws: int = 100,
        batch_size: int = 100,
        numerators: np.ndarray | None = None,
        rng: np.random.Generator,
        **estimator: Any,
    ):
        # An attack of size 0 checks model, images, labels and range, and leaves the accuracy on clean images.
        self.clean_accuracy = attacks.fgsm(model, images, labels, 0.0, clip).clean_accuracy
        self.model, self.images, self.labels, self.clip = model, images, labels, clip
        self.numerators = images if numerators is None else numerators
        if self.numerators.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"numerators must hold images of shape {images.shape[1:]}, but has shape {self.numerators.shape}"
            )
        self.draws, self.batch_size, self.rng, self.estimator = draws, batch_size, rng, estimator
        self.draw()

    def draw(self, rng: np.random.Generator | None = None) -> None:
        """Take new index sets and centres, from another generator if one is given."""
        rng = self.rng if rng is None else rng
        self.indices = [
            draw_indices(len(pool), self.draws, self.batch_size, rng) for pool in (self.numerators, self.images)
        ]
        self.settings = {"random_state": int(rng.integers(2**31))} | self.estimator
        self.r2 = self._ratios(self.images)

    def judge(self, images: np.ndarray, epsilon: float, weight: float | None = None) -> Trial:
        """Say what the draws tell of an attack that made `images` (n, c, h, w); ε and w are as in `Trial`."""
        comparison = RatioComparison(self._ratios(images), self.r2)
        difference = float(comparison.r1.mean() - self.r2.mean())
        return Trial(epsilon, difference, models.accuracy(self.model, images, self.labels), weight, comparison)

    def fgsm(self) -> Callable[[float], np.ndarray]:
        """Give the images that FGSM makes with any ε; its direction is computed once."""
        signs = attacks.gradient_signs(self.model, self.images, self.labels)

        def moved(epsilon: float) -> np.ndarray:
            images = self.images + np.float32(epsilon) * signs
            return images if self.clip is None else images.clip(*self.clip)

        return moved

    def result(self, trial: Trial, tolerance: float, trace: Sequence[Trial], **more: Any) -> CraftingResult:
        """Complete a trial."""
        return CraftingResult(
            **vars(trial), tolerance=tolerance, clean_accuracy=self.clean_accuracy, trace=tuple(trace), **more
        )

    def _ratios(self, suspects: np.ndarray) -> np.ndarray:
        """Mean ratio of each draw, (t,) float64, the mean of the channels."""
        return channel_ratios(self.numerators, suspects, *self.indices, **self.settings).mean(axis=1)


# ---------------------------------------------------------------------------------------------- Algorithm 2


def fgsm_under_tolerance(
    defender: Defender,
    tolerances: Sequence[float],
    *,
    initial_epsilon: float = 0.3,
    step: float = 0.02,
    resolution: float | None = 1e-3,
    redraw: bool = False,
) -> list[CraftingResult]:
    """G17's Algorithm 2: lower FGSM's ε until |mean R1 − mean R2| ≤ τ, for several τ (Fig. 4).

    The answer is the first ε from above that meets τ (`EpsilonSearch`). Every ε is judged once for all τ, on the same
    draws (common random numbers), so R2 is computed once and the gap changes with ε only. As ε → 0 each adversarial
    batch becomes its clean twin and the gap goes to 0: there is an ε for every τ > 0, but it can lie below
    `resolution`.

    Parameters
    ----------
    defender : Defender
    tolerances : sequence of float
        Each τ, at least 0.
    initial_epsilon, step : float
        ε_i, where the scan starts, and ε_Δ, the distance of two ε of it. The paper prints neither.
    resolution : float or None
        Where the bisection stops: the answer is at most so much below the place where the gap passes τ. None leaves
        the scan alone, which is the paper's loop. (As printed it computes εₙ = ε_i − ε_Δ forever; read as ε ← ε − ε_Δ.)
    redraw : bool
        New draws for each ε, as in the paper's loop; without bisection only. Then sampling noise decides as well where
        the loop stops, and a small τ may be met nowhere or by luck.

    Returns
    -------
    list of CraftingResult
        In the order of `tolerances`; ε never falls as τ grows.

    Raises
    ------
    ToleranceNotMet
        If no ε down to `resolution` (or to the last step) meets a τ.
    ValueError
        Naming the argument that cannot be used.
    """
    for tolerance in tolerances:
        _check("tolerance", tolerance, least=0)
    if redraw and resolution is not None:
        raise ValueError("redraw must be False where the search bisects, which compares ε on the same draws")
    moved = defender.fgsm()

    def attacked(epsilon: float) -> Trial:
        if redraw and search.trials:
            defender.draw()
        return defender.judge(moved(epsilon), epsilon)

    search = EpsilonSearch(attacked, initial_epsilon, step, resolution)
    for tolerance in sorted(set(tolerances), reverse=True):
        search.lower(tolerance)
    trace = list(search.trials.values())
    return [defender.result(search.best(tolerance), tolerance, trace) for tolerance in tolerances]


def scan(initial_epsilon: float, step: float) -> list[float]:
    """List ε from `initial_epsilon` down in steps, all above 0."""
    # Without the 1e-9, 0.3 in steps of 0.1 would end at 5e-17 instead of 0.1.
    return [initial_epsilon - k * step for k in range(math.ceil(initial_epsilon / step - 1e-9))]


class EpsilonSearch:
    """The way down in ε: a scan, and bisection where it first finds τ met.

    Plain bisection would be wrong, because the gap need not grow with ε: the mean ratio of the Gaussian kernel first
    falls below that of clean images and then rises, so the gap is small at three places. Instead ε is scanned
    downwards, and in the first interval with the answer in it (its lower end meets τ, or R1 − R2 changes sign in it)
    the answer is bisected. Where R1 − R2 jumps over ± τ, because uLSIF's choice of σ and λ does, the search goes on
    below the jump. What the scan cannot see is a gap that falls below τ and returns within one step.

    Parameters
    ----------
    attacked : callable
        ε → Trial; called once for each ε.
    initial_epsilon, step, resolution
        As for `fgsm_under_tolerance`.
    """

    def __init__(
        self, attacked: Callable[[float], Trial], initial_epsilon: float, step: float, resolution: float | None
    ):
        _check("initial_epsilon", initial_epsilon)
        _check("step", step)
        _check("resolution", 1.0 if resolution is None else resolution)
        self.attacked, self.resolution = attacked, resolution
        self.trials: dict[float, Trial] = {}
        self.grid = scan(initial_epsilon, step)

    def at(self, epsilon: float) -> Trial:
        """Attack with ε, or give what is known of it."""
        if epsilon not in self.trials:
            self.trials[epsilon] = self.attacked(epsilon)
        return self.trials[epsilon]

    def best(self, tolerance: float) -> Trial | None:
        """Trial with the largest ε of those that meet τ."""
        within = [trial for trial in self.trials.values() if trial.gap <= tolerance]
        return max(within, key=lambda trial: trial.epsilon, default=None)

    def lower(self, tolerance: float) -> None:
        """Try ε until `best(tolerance)` is the answer, or raise `ToleranceNotMet`."""
        above = None
        for epsilon in track(self.grid, f"Algorithm 2, tolerance {tolerance:g}"):
            trial = self.at(epsilon)
            if self.resolution is not None and above is not None:
                self._bisect(trial, above, tolerance)
            # Lower ones may have been tried for another tolerance already; the scan has not got there yet.
            best = self.best(tolerance)
            if best is not None and best.epsilon >= epsilon:
                return
            above = trial
        if self.resolution is not None:
            unchanged = Trial(0.0, 0.0, math.nan)  # at ε = 0 each suspect is its clean twin
            self._bisect(unchanged, above, tolerance)
        if self.best(tolerance) is None:
            closest = min(self.trials.values(), key=lambda trial: trial.gap)
            last, finer = (self.grid[-1], "step") if self.resolution is None else (self.resolution, "resolution")
            raise ToleranceNotMet(
                f"tolerance must be met by some ε from {self.grid[0]:g} down to {last:g}, but is {tolerance:g}, and "
                f"|mean R1 − mean R2| was {closest.gap:.3g} at best, at ε = {closest.epsilon:.3g}: "
                f"allow more, or take a finer {finer}",
                list(self.trials.values()),
            )

    def _bisect(self, below: Trial, above: Trial, tolerance: float) -> None:
        """Look between two neighbours of the scan for the place where R1 − R2 comes within ± τ, if there is one.

        R1 jumps where uLSIF's choice of σ and λ does, so R1 − R2 can jump over the band. Then it may still come into
        it from the other side, further down.
        """

        def reached(trial: Trial) -> bool:
            """Within ± τ, or beyond it on the other side, coming from `above`."""
            return math.copysign(1.0, above.difference) * trial.difference <= tolerance

        while reached(below):
            low, high = below, above.epsilon
            while high - low.epsilon > self.resolution:
                trial = self.at((low.epsilon + high) / 2)
                if reached(trial):
                    low = trial
                else:
                    high = trial.epsilon
            if low.gap <= tolerance or low is below:
                return
            above = low


def _check(name: str, value: float, *, least: float | None = None) -> None:
    if not (math.isfinite(value) and (value > 0 if least is None else value >= least)):
        raise ValueError(
            f"{name} must be a finite number {'above 0' if least is None else f'of at least {least}'}, but is {value}"
        )


# ---------------------------------------------------------------------------------------------- knowing attacker


def _next_weight(kept: float | None, broken: float, first: float) -> float:
    if kept is None:
        return max(4 * broken, first)
    return kept / 4 if broken == 0 else math.sqrt(kept * broken)


def pgd_under_tolerance(
    defender: Defender,
    tolerance: float,
    *,
    epsilon: float = 0.3,
    first_weight: float = 1.0,
    searches: int = 6,
    **descent: Any,
) -> CraftingResult:
    """Attack classifier and detector at once by `pgd_against_density_ratio`, and search the weight w of the detector.

    The first w is 0, an attacker who does not know the detector; if that keeps τ on the defender's draws, it is the
    result. Otherwise w goes up by factors of four while the attack breaks τ, down while it keeps it, then between.

    Parameters
    ----------
    defender : Defender
        Its numerators are the attacker's references.
    tolerance, epsilon : float
        τ, at least 0, and the L∞ bound of the change, which is not lowered: the tolerance does the bounding.
    first_weight, searches : float, int
        w after 0, above 0; number of weights tried after 0, at least 1.
    **descent
        For `pgd_against_density_ratio`: steps, step, confidence.

    Raises
    ------
    ToleranceNotMet
        If no weight tried keeps τ; a ValueError for arguments that cannot be used.
    """
    _check("first_weight", first_weight)
    if searches < 1:
        raise ValueError(f"searches must be at least 1, but is {searches}")
    trace: list[Trial] = []
    best, images = None, None
    weight, kept, broken = 0.0, None, 0.0  # smallest weight that keeps τ, largest that breaks it
    for _ in range(searches + 1):
        moved = pgd_against_density_ratio(
            defender.model, defender.images, defender.labels, tolerance=tolerance, weight=weight, epsilon=epsilon,
            clip=defender.clip, references=defender.numerators, batch_size=defender.batch_size, rng=defender.rng,
            **defender.estimator, **descent,
        ).images  # fmt: skip
        trial = defender.judge(moved, epsilon, weight)
        trace.append(trial)
        within = trial.gap <= tolerance
        if within and (best is None or trial.adversarial_accuracy < best.adversarial_accuracy):
            best, images = trial, moved
        if within and (weight == 0 or trial.adversarial_accuracy == 0):
            break
        kept, broken = (weight, broken) if within else (kept, weight)
        weight = _next_weight(kept, broken, first_weight)
    if best is None:
        closest = min(trace, key=lambda trial: trial.gap)
        raise ToleranceNotMet(
            f"tolerance must be kept by the attack for some weight up to {trace[-1].weight:g}, but is {tolerance:g}, "
            f"and |mean R1 − mean R2| was {closest.gap:.3g} at best, at weight {closest.weight:.3g}: "
            "allow more, or more steps or searches",
            trace,
        )
    return defender.result(best, tolerance, trace, images=images)


def compare_attackers(
    defender: Defender,
    tolerances: Sequence[float],
    *,
    epsilon: float = 0.3,
    fgsm_options: Mapping[str, Any] | None = None,
    pgd_options: Mapping[str, Any] | None = None,
) -> list[tuple[CraftingResult, CraftingResult]]:
    """Run Algorithm 2 and the attacker who knows the detector at equal tolerance.

    Parameters
    ----------
    defender : Defender
        Gives each attacker draws of its own, and meets both with one more set.
    tolerances : sequence of float
    epsilon : float
        Where Algorithm 2 starts, and the L∞ bound of the other: neither may move a pixel further. Where the other
        keeps τ with no weight, its bound is halved, three times at most.
    fgsm_options, pgd_options : dict, optional
        For `fgsm_under_tolerance` and `pgd_under_tolerance`.

    Returns
    -------
    list of (Algorithm 2's, the other's)
        In the order of `tolerances`, with `images` and `defended`. On the defender's draws |mean R1 − mean R2| can
        exceed τ by what the draws scatter.
    """
    pairs = []
    moved = defender.fgsm()
    for fgsm in fgsm_under_tolerance(defender, tolerances, initial_epsilon=epsilon, **(fgsm_options or {})):
        pgd = _pgd_within(defender, fgsm.tolerance, epsilon, pgd_options or {})
        fgsm = replace(fgsm, images=moved(fgsm.epsilon))
        defender.draw(np.random.default_rng(int(defender.rng.integers(2**31))))
        pairs.append(tuple(
            replace(result, defended=defender.judge(result.images, result.epsilon).comparison) for result in (fgsm, pgd)
        ))  # fmt: skip
    return pairs


def _pgd_within(
    defender: Defender, tolerance: float, epsilon: float, options: Mapping[str, Any], halvings: int = 3
) -> CraftingResult:
    """Attack within ε, or within less where no weight keeps τ; each time on new draws."""
    defender.draw()
    try:
        return pgd_under_tolerance(defender, tolerance, epsilon=epsilon, **options)
    except ToleranceNotMet:
        if halvings == 0:
            raise
    return _pgd_within(defender, tolerance, epsilon / 2, options, halvings - 1)
