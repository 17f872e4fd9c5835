"""Adversarial images that stay under a density-ratio tolerance: G17's Algorithm 2, and an attacker who knows the test.

Algorithm 2 lowers FGSM's ε until |mean R1 − mean R2| ≤ τ, where R1 is the density ratio of clean against adversarial
and R2 that of clean against clean batches (Algorithm 1, `advlib.protocol`). It cannot aim: it only attacks less.

The attacker who knows the detector can aim, because the mean ratio has a gradient: with σ, λ and centres given, it is
ĥ·θ with θ = max(0, (Ĥ(y) + λI)⁻¹ĥ), and the suspect images y enter through Ĥ alone. `pgd_under_tolerance` descends on a
classification loss plus a penalty on the part of |mean R1 − mean R2| above τ. A detector is worth what it is worth
against that.

Both are judged alike, by `CraftingResult`. The tolerance holds two *means* together; whether one batch can be told from
another is a different question, answered by `CraftingResult.comparison`.

References
----------
G17: L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017), section 5.
N. Carlini, D. Wagner, "Adversarial examples are not easily detected: bypassing ten detection methods", AISec 2017,
arXiv:1705.07263.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from advlib import attacks, models
from advlib.attacks import Clip
from advlib.checks import ArrayLike
from advlib.models import as_tensor, frozen
from advlib.progress import track
from advlib.ulsif import KERNELS, GridEdgeWarning, fit_batch, fit_batch_indices
from compendium.common.protocol import RatioComparison, density_ratio_comparison, draw_indices

# ‖x‖² + ‖y‖² − 2xᵀy loses digits where ‖x − y‖² is this small against ‖x‖² + ‖y‖²; such pairs are subtracted first.
_NEAR = 1e-4
# Images whose classification gradient is computed at once; bounds the memory.
_FORWARD_IMAGES = 500


class ToleranceNotMet(ValueError):
    """Nothing that was tried keeps |mean R1 − mean R2| within the tolerance.

    Attributes
    ----------
    trace : tuple of Trial
        What was tried.
    """

    def __init__(self, message: str, trace: Sequence["Trial"]):
        super().__init__(message)
        self.trace = tuple(trace)


@dataclass(frozen=True)
class Trial:
    """One attack that was tried on the way.

    Attributes
    ----------
    epsilon : float
        L∞ size (FGSM) or bound (PGD), pixels in [0, 1].
    difference : float
        mean R1 − mean R2, with its sign: R1 can fall below R2.
    accuracy : float
        Share of the attacked images that the model reads rightly.
    penalty : float or None
        Weight of the density ratio in the loss; PGD only.
    """

    epsilon: float
    difference: float
    accuracy: float
    penalty: float | None = None

    @property
    def gap(self) -> float:
        """|mean R1 − mean R2|, what the tolerance bounds."""
        return abs(self.difference)


@dataclass(frozen=True, eq=False)
class CraftingResult:
    """What an attack under a tolerance achieved.

    Attributes
    ----------
    tolerance : float
        τ, the largest |mean R1 − mean R2| allowed.
    epsilon : float
        L∞ size found (FGSM) or bound given (PGD), pixels in [0, 1].
    r1, r2 : (t,) float64
        Mean density ratio of each draw: clean against adversarial, clean against clean; channels combined (G17 eq. 4).
    gap : float
        |mean R1 − mean R2| ≤ τ.
    accuracy, adversarial_accuracy : float
        Share of all images that are read rightly before and after.
    trace : tuple of Trial
        Everything that was tried, in that order.
    penalty : float or None
        Weight of the density ratio in the loss; PGD only. 0: ignoring the detector was enough.
    images : (n, c, h, w) float32 or None
        After the attack, NumPy or torch as the images were. None in a `tolerance_curve`, where `attacks.fgsm` at
        `epsilon` gives them.
    """

    tolerance: float
    epsilon: float
    r1: np.ndarray = field(repr=False)
    r2: np.ndarray = field(repr=False)
    gap: float
    accuracy: float
    adversarial_accuracy: float
    trace: tuple[Trial, ...] = field(repr=False)
    penalty: float | None = None
    images: ArrayLike | None = field(default=None, repr=False)

    @property
    def comparison(self) -> RatioComparison:
        """R1 and R2 with their summaries, AUROC and power at 5 % false alarms: what a decision about one batch gets."""
        return RatioComparison(self.r1, self.r2)


# ---------------------------------------------------------------------------------------------- Algorithm 2


def fgsm_under_tolerance(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    tolerance: float,
    draws: int = 100,
    batch_size: int = 100,
    initial_epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    search: Literal["monotone", "fixed step"] = "monotone",
    step: float = 0.02,
    resolution: float = 1e-3,
    redraw: bool = False,
    numerators: ArrayLike | None = None,
    rng: np.random.Generator,
    **estimator,
) -> CraftingResult:
    """G17's Algorithm 2: lower FGSM's ε until |mean R1 − mean R2| ≤ τ.

    The answer is the first ε from above that meets τ, which is the largest one up to `initial_epsilon`. It is *not*
    found by plain bisection, because the gap need not grow with ε: the mean ratio of the Gaussian kernel first falls
    below that of clean images and then rises, so the gap is small at three places. Instead ε is scanned downwards in
    steps, and in the first interval with the answer in it (its lower end meets τ, or R1 − R2 changes sign in it) the
    answer is bisected. Where R1 − R2 jumps over ± τ, because uLSIF's choice of σ and λ does, the search goes on below
    the jump. What the scan cannot see is a gap that falls below τ and returns within one step.

    Every ε is judged on the same index sets and kernel centres (common random numbers), so R2 is computed once and the
    gap changes with ε only. As ε → 0 each adversarial batch becomes its clean twin and the gap goes to 0: there is an ε
    for every τ > 0, however far R2 itself spreads, but it can lie below `resolution`.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits. Runs where it lives, as does the estimator.
    images : (n, c, h, w) float array or tensor
        Clean, within `clip`, or within [0, 1] if there is no clipping. Attacked, and drawn from.
    labels : (n,) integer array or tensor
    tolerance : float
        τ, at least 0.
    draws, batch_size : int
        t and m of Algorithm 1.
    initial_epsilon : float
        ε_i, where the scan starts; tried as well. If it meets τ it is the answer. The paper does not print it.
    clip : (float, float) or None
        Range that FGSM keeps images in; None is what G17 did.
    search : "monotone" or "fixed step"
        With or without the refinement by bisection. The paper's loop is the scan alone: the first multiple of `step`
        below `initial_epsilon` that meets τ. (As printed it computes εₙ = ε_i − ε_Δ forever; read as ε ← ε − ε_Δ.)
    step : float
        ε_Δ, the distance of two ε of the scan. Not printed in the paper.
    resolution : float
        Where the bisection stops: the answer is at most so much below the place where the gap passes τ.
    redraw : bool
        Draw new index sets for each ε, as the paper's loop does; for "fixed step" only. Then sampling noise decides as
        well where the loop stops, and a small τ may be met nowhere or by luck.
    numerators : (N, c, h, w) float array or tensor, optional
        Clean images that the numerator batches are drawn from, where only some of them are attacked; `images` by
        default. Images that numerator and denominator share pull R2 down, and R1 with it at small ε.
    rng : numpy.random.Generator
        Source of the index sets and the centres, used as by `density_ratio_comparison`.
    **estimator
        For uLSIF: kernel, sigmas, lambdas, n_kernels; see `advlib.ulsif.fit_batch`.

    Returns
    -------
    CraftingResult

    Raises
    ------
    ToleranceNotMet
        If no ε down to `resolution` (or to the last step) meets τ.
    ValueError
        Naming the argument that cannot be used.

    Warns
    -----
    advlib.ulsif.GridEdgeWarning
        Once, about the clean batches; the fits along the search repeat it and are kept quiet.

    References
    ----------
    G17 section 5, Algorithm 2.
    """
    tolerance = _at_least_zero(tolerance, "tolerance")
    plan = _Search(initial_epsilon, search, step, resolution, redraw)
    judge = _Judge(model, images, labels, clip, draws, batch_size, rng, estimator, numerators)
    trials = _FgsmTrials(judge, images, labels, clip, redraw)
    plan.first_from_above(tolerance, trials)
    return trials.result(tolerance, images)


def tolerance_curve(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    tolerances: Sequence[float],
    draws: int = 100,
    batch_size: int = 100,
    initial_epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    search: Literal["monotone", "fixed step"] = "monotone",
    step: float = 0.02,
    resolution: float = 1e-3,
    redraw: bool = False,
    numerators: ArrayLike | None = None,
    rng: np.random.Generator,
    **estimator,
) -> list[CraftingResult]:
    """ε and accuracy against τ (G17 Fig. 4): Algorithm 2 for several tolerances, each ε evaluated once for all.

    Parameters and errors are those of `fgsm_under_tolerance`.

    Returns
    -------
    list of CraftingResult
        In the order of `tolerances`, without images. All share one set of draws and one trace, and each takes the
        largest ε in the trace that meets its τ, so ε never falls as τ grows.
    """
    tolerances = [_at_least_zero(tolerance, "tolerances") for tolerance in tolerances]
    plan = _Search(initial_epsilon, search, step, resolution, redraw)
    judge = _Judge(model, images, labels, clip, draws, batch_size, rng, estimator, numerators)
    trials = _FgsmTrials(judge, images, labels, clip, redraw)
    for tolerance in sorted(set(tolerances), reverse=True):
        plan.first_from_above(tolerance, trials)
    return [trials.result(tolerance) for tolerance in tolerances]


def gap_curve(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    epsilons: Sequence[float],
    draws: int = 100,
    batch_size: int = 100,
    clip: Clip = (0.0, 1.0),
    numerators: ArrayLike | None = None,
    rng: np.random.Generator,
    **estimator,
) -> list[Trial]:
    """R1 − R2 and accuracy of FGSM over ε on one set of draws: what Algorithm 2 searches in.

    Parameters and errors are those of `fgsm_under_tolerance`.

    Returns
    -------
    list of Trial
        In the order of `epsilons`. With the same generator state, those of the search's own trace.
    """
    judge = _Judge(model, images, labels, clip, draws, batch_size, rng, estimator, numerators)
    trials = _FgsmTrials(judge, images, labels, clip, redraw=False)
    return [trials.at(epsilon) for epsilon in track(epsilons, "R1 − R2 over ε")]


class _Judge:
    """The defender's side of a comparison: one set of draws, and the R1, R2 and accuracy of any attack on them."""

    def __init__(self, model, images, labels, clip, draws, batch_size, rng, estimator, numerators):
        # An attack of size 0 checks model, images, labels and range, and leaves the accuracy on clean images.
        self.clean_accuracy = attacks.fgsm(model, images, labels, 0.0, clip).clean_accuracy
        with frozen(model) as device:
            self.device = device
        self.model, self.labels = model, as_tensor(labels).cpu()
        self.clean = as_tensor(images).to(self.device, torch.float32)
        self.numerators = self.clean if numerators is None else as_tensor(numerators).to(self.device, torch.float32)
        if self.numerators.shape[1:] != self.clean.shape[1:]:
            raise ValueError(
                f"numerators must hold images of shape {tuple(self.clean.shape[1:])}, "
                f"but has shape {tuple(self.numerators.shape)}"
            )
        self.sizes, self.rng, self.estimator = (draws, batch_size), rng, estimator
        self.draw(quiet=False)

    def draw(self, quiet: bool) -> None:
        """Draw index sets and centres, in the order of `density_ratio_comparison`: same generator, same numbers."""
        draws, batch_size = self.sizes
        self.indices = tuple(
            draw_indices(len(pool), draws, batch_size, self.rng) for pool in (self.numerators, self.clean)
        )
        self.settings = {"random_state": int(self.rng.integers(2**31))} | self.estimator
        self.r2 = _ratios(self.numerators, self.clean, *self.indices, quiet=quiet, **self.settings)

    def judge(self, moved: torch.Tensor, epsilon: float, penalty: float | None = None) -> "_Judged":
        r1 = _ratios(self.numerators, moved, *self.indices, quiet=True, **self.settings)
        accuracy = models.accuracy(self.model, moved, self.labels)
        return _Judged(Trial(epsilon, float(r1.mean() - self.r2.mean()), accuracy, penalty), r1, self.r2)

    def result(
        self, judged: "_Judged", tolerance: float, trace: Sequence[Trial], images: ArrayLike | None
    ) -> CraftingResult:
        return CraftingResult(
            tolerance=tolerance,
            epsilon=judged.trial.epsilon,
            r1=judged.r1,
            r2=judged.r2,
            gap=judged.trial.gap,
            accuracy=self.clean_accuracy,
            adversarial_accuracy=judged.trial.accuracy,
            trace=tuple(trace),
            penalty=judged.trial.penalty,
            images=images,
        )


@dataclass(frozen=True)
class _Judged:
    trial: Trial
    r1: np.ndarray
    r2: np.ndarray


class _FgsmTrials:
    """FGSM at any ε, each judged once; its direction is computed once for all."""

    def __init__(self, judge: _Judge, images: ArrayLike, labels: ArrayLike, clip: Clip, redraw: bool):
        self.judge, self.clip, self.redraw = judge, clip, redraw
        self.signs = as_tensor(attacks.gradient_signs(judge.model, images, labels)).to(judge.device)
        self.found: dict[float, _Judged] = {}

    def moved(self, epsilon: float) -> torch.Tensor:
        moved = self.judge.clean + epsilon * self.signs.float()
        return moved if self.clip is None else moved.clamp(*self.clip)

    def at(self, epsilon: float) -> Trial:
        if epsilon not in self.found:
            if self.redraw and self.found:
                self.judge.draw(quiet=True)
            self.found[epsilon] = self.judge.judge(self.moved(epsilon), epsilon)
        return self.found[epsilon].trial

    @property
    def trace(self) -> list[Trial]:
        return [judged.trial for judged in self.found.values()]

    def best(self, tolerance: float) -> float | None:
        """Largest ε tried that meets τ."""
        return max((trial.epsilon for trial in self.trace if trial.gap <= tolerance), default=None)

    def result(self, tolerance: float, kind: ArrayLike | None = None) -> CraftingResult:
        """Make a result of the best ε, with images if their `kind` is given."""
        epsilon = self.best(tolerance)
        images = None if kind is None else _like(kind, self.moved(epsilon))
        return self.judge.result(self.found[epsilon], tolerance, self.trace, images)


class _Search:
    """The way down in ε: a scan, and bisection where it first finds τ met."""

    def __init__(self, initial_epsilon: float, search: str, step: float, resolution: float, redraw: bool):
        if search not in ("monotone", "fixed step"):
            raise ValueError(f"search must be 'monotone' or 'fixed step', but is {search!r}")
        if redraw and search != "fixed step":
            raise ValueError("redraw must be False for search='monotone', which compares ε on the same draws")
        for name, value in (("initial_epsilon", initial_epsilon), ("step", step), ("resolution", resolution)):
            _above_zero(value, name)
        self.refine, self.resolution = search == "monotone", resolution
        # Without the 1e-9, 0.3 in steps of 0.1 would end at 5e-17 instead of 0.1.
        self.grid = [initial_epsilon - k * step for k in range(math.ceil(initial_epsilon / step - 1e-9))]

    def first_from_above(self, tolerance: float, trials: _FgsmTrials) -> None:
        """Try ε until `trials.best(tolerance)` is the answer, or raise."""
        above = None
        for epsilon in track(self.grid, f"Algorithm 2, tolerance {tolerance:g}"):
            trial = trials.at(epsilon)
            if self.refine and above is not None:
                self._refine(trial, above, tolerance, trials)
            # Lower ones may have been tried for another tolerance already; the scan has not got there yet.
            if (trials.best(tolerance) or 0) >= epsilon:
                return
            above = trial
        if self.refine:
            nothing = Trial(0.0, 0.0, math.nan)  # at ε = 0 each suspect is its clean twin
            self._refine(nothing, above, tolerance, trials)
        if trials.best(tolerance) is None:
            closest = min(trials.trace, key=lambda trial: trial.gap)
            raise ToleranceNotMet(
                f"tolerance must be met by some ε from {self.grid[0]:g} down to "
                f"{self.resolution if self.refine else self.grid[-1]:g}, but is {tolerance:g}, and |mean R1 − mean R2| "
                f"was {closest.gap:.3g} at best, at ε = {closest.epsilon:.3g}: "
                f"allow more, or take a finer {'resolution' if self.refine else 'step'}",
                trials.trace,
            )

    def _refine(self, below: Trial, above: Trial, tolerance: float, trials: _FgsmTrials) -> None:
        """Bisect between two neighbours of the scan for the place where R1 − R2 comes within ± τ, if there is one.

        R1 jumps where uLSIF's choice of σ and λ does, so R1 − R2 can jump over the band. Then it may still enter it
        from the other side, further down.
        """
        while _enters(below.difference, above, tolerance):
            low, high = below, above.epsilon
            while high - low.epsilon > self.resolution:
                trial = trials.at((low.epsilon + high) / 2)
                if _enters(trial.difference, above, tolerance):
                    low = trial
                else:
                    high = trial.epsilon
            if low.gap <= tolerance or low is below:
                return
            above = low


def _enters(difference: float, above: Trial, tolerance: float) -> bool:
    """Whether R1 − R2 lies within ± τ, or beyond it on the other side, coming from a trial outside of it."""
    return math.copysign(1.0, above.difference) * difference <= tolerance


def _ratios(
    clean: torch.Tensor, suspect: torch.Tensor, a: np.ndarray, b: np.ndarray, *, quiet: bool, **estimator
) -> np.ndarray:
    """Return the mean ratio of each draw, (t,) float64, combined over channels, of two pools (n, c, h, w)."""
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", GridEdgeWarning)
        channels = [
            fit_batch_indices(
                clean[:, channel].flatten(1), suspect[:, channel].flatten(1), a, b, **estimator
            ).mean_ratio_.cpu()
            for channel in range(clean.shape[1])
        ]
    return torch.stack(channels).mean(0).numpy()


def _at_least_zero(value: float, name: str) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, but is {value}")
    return float(value)


def _above_zero(value: float, name: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, but is {value}")


def _like(kind: ArrayLike, tensor: torch.Tensor) -> ArrayLike:
    return tensor.to(kind.device) if isinstance(kind, torch.Tensor) else tensor.cpu().numpy()


# ---------------------------------------------------------------------------------------------- knowing attacker


def differentiable_mean_ratio(
    numerator: torch.Tensor,
    denominator: torch.Tensor,
    sigma: float | torch.Tensor,
    lambda_: float | torch.Tensor,
    kernel: str = "gaussian",
    center_indices: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean uLSIF ratio over the numerator at given σ and λ, with its gradient.

    Parameters
    ----------
    numerator : (..., n, d) tensor
        Sample above the line; its rows are the kernel centres.
    denominator : (..., m, d) tensor
        Sample below the line.
    sigma, lambda_ : float or (...) tensor
        Kernel width and regularisation, positive; in a search, those that `ULSIF` chose.
    kernel : {"gaussian", "unsquared"}
        As in `advlib.ulsif`.
    center_indices : (b,) integer tensor, optional
        Rows of the numerator that are centres, all by default.

    Returns
    -------
    (...) float64 tensor
        Equal to `ULSIF.mean_ratio_` at these values. Differentiable in both samples wherever no weight θ sits exactly
        on the edge of its cut at 0; there, and where unsquared kernel points coincide, a one-sided slope is taken as 0.

    Raises
    ------
    ValueError
        For an unknown kernel.

    References
    ----------
    Kanamori, Hido and Sugiyama, JMLR 10 (2009) 1391–1445, section 3.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(map(repr, KERNELS))}, but is {kernel!r}")
    numerator, denominator = numerator.double(), denominator.double()
    sigma = torch.as_tensor(sigma, dtype=torch.float64, device=numerator.device)
    lambda_ = torch.as_tensor(lambda_, dtype=torch.float64, device=numerator.device)
    centers = numerator if center_indices is None else numerator[..., center_indices, :]
    h = _kernel(numerator, centers, sigma, kernel).mean(-2)
    phi = _kernel(denominator, centers, sigma, kernel)
    identity = torch.eye(phi.shape[-1], dtype=torch.float64, device=phi.device)
    gram = phi.mT @ phi / phi.shape[-2] + lambda_[..., None, None] * identity
    theta = torch.cholesky_solve(h[..., None], torch.linalg.cholesky(gram))[..., 0].clamp(min=0)
    return (h * theta).sum(-1)


def _kernel(points: torch.Tensor, centers: torch.Tensor, sigma: torch.Tensor, kernel: str) -> torch.Tensor:
    scale = points.square().sum(-1)[..., :, None] + centers.square().sum(-1)[..., None, :]
    squared = scale - 2 * points @ centers.mT
    near = (squared.detach() < _NEAR * scale.detach()).nonzero(as_tuple=True)
    *draw, point, center = near
    differences = points[(*draw, point)] - centers[(*draw, center)]
    squared = squared.index_put(near, differences.square().sum(-1))
    if kernel == "gaussian":
        distance = squared
    else:
        apart = squared > 0  # the square root has no slope at 0, and 0 · ∞ would turn the gradient into NaN
        distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    return torch.exp(-distance / (2 * sigma[..., None, None] ** 2))


def pgd_under_tolerance(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    tolerance: float,
    epsilon: float = 0.3,
    draws: int = 100,
    batch_size: int = 100,
    clip: Clip = (0.0, 1.0),
    steps: int = 40,
    step: float | None = None,
    penalty: float = 1.0,
    searches: int = 6,
    confidence: float = 1.0,
    reference: ArrayLike | None = None,
    numerators: ArrayLike | None = None,
    rng: np.random.Generator,
    **estimator,
) -> CraftingResult:
    """Attack a classifier and the density-ratio test at once: projected gradient descent that knows both.

    Two terms are minimised over all images together, by steps that shrink to 0:

        mean of max(0, z_label − max of the other z + κ)  +  w/2 · max(0, |mean R1 − mean R2| − τ)².

    The first term (Carlini & Wagner's) is silent once an image is misread by a margin of κ, so from there on the image
    moves for the detector alone; cross-entropy would push on forever. Every image takes a step of the same length along
    it. The second term is estimated at each step from new draws: the suspects are dealt into batches of m, each gets m
    clean references, uLSIF chooses σ and λ for it as the detector would, and `differentiable_mean_ratio` at these
    values gives the slope. With w = 1 its step is the one that removes the excess over τ to first order, and no image
    moves further for it than for the first term.

    The weight w is searched outside. The first is 0, an attacker who has never heard of the detector; if that keeps τ
    on a separate set of draws, there is nothing to gain from knowing, and it is the result. Otherwise w goes up by
    factors of four while the finished attack breaks τ, down while it keeps it, then between; the result has the lowest
    accuracy among those that keep τ.

    Parameters
    ----------
    model, images, labels, tolerance, draws, batch_size, numerators, rng, **estimator
        As for `fgsm_under_tolerance`. All images are attacked; the classifier's gradient is taken 500 images at a time.
    epsilon : float
        L∞ bound of the change, pixels in [0, 1]. Not lowered: the tolerance does the bounding.
    clip : (float, float) or None
        Range of valid images.
    steps : int
        Gradient steps for each weight, at least 1.
    step : float, optional
        L2 length of an image's first step; ε · √d / 10 by default, d = c · h · w. (Steps go along the gradient and not
        its sign: the kernels see L2 distances, and a sign makes every pixel pay for the few that matter.)
    penalty : float
        First weight w after 0, above 0.
    searches : int
        Number of weights tried after 0, at least 1.
    confidence : float
        κ, in logits, at least 0.
    reference : (k, c, h, w) float array or tensor, optional
        Clean images that the attacker draws from, k ≥ m; the numerators by default. Give others to keep the
        defender's references from the attacker.

    Returns
    -------
    CraftingResult
        With `penalty`, and one trial for each weight. The first, `trace[0]`, is the attack without any; a `penalty` of
        0 says that it was enough.

    Raises
    ------
    ToleranceNotMet
        If no weight tried keeps τ.
    ValueError
        Naming the argument that cannot be used.

    References
    ----------
    N. Carlini, D. Wagner, AISec 2017, arXiv:1705.07263; A. Madry et al., ICLR 2018, arXiv:1706.06083.
    """
    tolerance = _at_least_zero(tolerance, "tolerance")
    confidence = _at_least_zero(confidence, "confidence")
    for name, value in (("epsilon", epsilon), ("penalty", penalty), *([] if step is None else [("step", step)])):
        _above_zero(value, name)
    for name, value in (("steps", steps), ("searches", searches)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}")
    judge = _Judge(model, images, labels, clip, draws, batch_size, rng, estimator, numerators)
    references = judge.numerators if reference is None else as_tensor(reference).to(judge.device, torch.float32)
    if references.shape[1:] != judge.clean.shape[1:] or len(references) < batch_size:
        raise ValueError(
            f"reference must hold at least batch_size={batch_size} images of shape {tuple(judge.clean.shape[1:])}, "
            f"but has shape {tuple(references.shape)}"
        )
    step = epsilon * math.sqrt(judge.clean[0].numel()) / 10 if step is None else step

    trace: list[Trial] = []
    best: tuple[_Judged, torch.Tensor] | None = None
    weight, kept, broken = 0.0, None, 0.0  # smallest weight that keeps τ, largest that breaks it
    for _ in range(searches + 1):
        moved = _evade(
            judge, references, tolerance, epsilon, clip, steps, step, weight, confidence, batch_size, rng, estimator
        )
        judged = judge.judge(moved, epsilon, weight)
        trace.append(judged.trial)
        if judged.trial.gap <= tolerance:
            if best is None or judged.trial.accuracy < best[0].trial.accuracy:
                best = judged, moved
            if weight == 0 or judged.trial.accuracy == 0:
                break
            kept = weight
        else:
            broken = weight
        if kept is None:
            weight = max(4 * broken, penalty)
        elif broken == 0:
            weight = kept / 4
        else:
            weight = math.sqrt(kept * broken)
    if best is None:
        closest = min(trace, key=lambda trial: trial.gap)
        raise ToleranceNotMet(
            f"tolerance must be kept by the attack for some penalty up to {trace[-1].penalty:g}, but is {tolerance:g}, "
            f"and |mean R1 − mean R2| was {closest.gap:.3g} at best, at penalty = {closest.penalty:.3g}: "
            "allow more, or more steps or searches",
            trace,
        )
    return judge.result(best[0], tolerance, trace, _like(images, best[1]))


def _evade(
    judge: _Judge,
    references: torch.Tensor,
    tolerance: float,
    epsilon: float,
    clip: Clip,
    steps: int,
    step: float,
    penalty: float,
    confidence: float,
    batch_size: int,
    rng: np.random.Generator,
    estimator: dict,
) -> torch.Tensor:
    """Return all images after the descent at one weight."""
    clean = judge.clean
    labels = judge.labels.to(judge.device)
    moved = clean
    with frozen(judge.model):
        for k in track(range(steps), f"PGD, penalty {penalty:.3g}"):
            size = step * (1 - k / steps)
            change = size * _unit(_margin_gradient(judge.model, moved, labels, confidence))
            if penalty > 0:
                excess, slope = _excess(references, clean, moved, tolerance, batch_size, rng, estimator)
                # To first order a step of excess / ‖slope‖² along the slope removes the excess.
                repair = penalty * excess * slope / slope.square().sum().clamp_min(torch.finfo(slope.dtype).tiny)
                length = torch.linalg.vector_norm(repair, dim=(1, 2, 3), keepdim=True)
                change = change + repair * (size / length.clamp_min(size))
            moved = clean + (moved - change - clean).clamp(-epsilon, epsilon)
            if clip is not None:
                moved = moved.clamp(*clip)
    return moved


def _margin_gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, confidence: float) -> torch.Tensor:
    """Gradient of each image's own max(0, z_label − largest other z + κ), (n, c, h, w)."""
    gradients = []
    for part, label in zip(images.split(_FORWARD_IMAGES), labels.split(_FORWARD_IMAGES), strict=True):
        part = part.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(part)
            own = logits.gather(1, label[:, None])[:, 0]
            other = logits.scatter(1, label[:, None], -math.inf).amax(1)
            loss = (own - other + confidence).clamp(min=0).sum()
        gradients.append(torch.autograd.grad(loss, part)[0])
    return torch.cat(gradients)


def _unit(gradient: torch.Tensor) -> torch.Tensor:
    """Scale each image's gradient to length 1; an image without any stays without."""
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    return gradient / length.clamp_min(torch.finfo(length.dtype).tiny)


def _excess(
    references: torch.Tensor,
    clean: torch.Tensor,
    moved: torch.Tensor,
    tolerance: float,
    batch_size: int,
    rng: np.random.Generator,
    estimator: dict,
) -> tuple[float, torch.Tensor]:
    """Return max(0, |mean R1 − mean R2| − τ) on new draws and its gradient, (n, c, h, w); 0 for images left over."""
    suspects = rng.permutation(len(clean))[: len(clean) // batch_size * batch_size].reshape(-1, batch_size)
    drawn = np.stack([rng.choice(len(references), batch_size, replace=False) for _ in suspects])
    settings = {"random_state": int(rng.integers(2**31))} | estimator
    difference, slope = _difference_gradient(references[drawn], clean[suspects], moved[suspects], settings)
    gradient = torch.zeros_like(clean)
    gradient[suspects.ravel()] = math.copysign(1.0, difference) * slope.flatten(0, 1)
    return max(0.0, abs(difference) - tolerance), gradient


def _difference_gradient(
    numerators: torch.Tensor, clean: torch.Tensor, suspects: torch.Tensor, estimator: dict
) -> tuple[float, torch.Tensor]:
    """Return mean R1 − mean R2 over B batches (B, m, c, h, w) and its gradient with respect to the suspects."""

    def samples(batches: torch.Tensor) -> torch.Tensor:
        """Make each channel a sample of its own, (B · c, m, h · w): combined is their mean."""
        return batches.transpose(1, 2).flatten(0, 1).flatten(2).double()

    above = samples(numerators)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        chosen = fit_batch(above, samples(suspects), **estimator)
        r2 = fit_batch(above, samples(clean), **estimator).mean_ratio_
    suspects = suspects.detach().requires_grad_()
    with torch.enable_grad():
        r1 = differentiable_mean_ratio(
            above,
            samples(suspects),
            chosen.sigma_,
            chosen.lambda_,
            estimator.get("kernel", "gaussian"),
            chosen.center_indices_.to(above.device),
        ).mean()
    return float(r1.detach() - r2.mean()), torch.autograd.grad(r1, suspects)[0]


# ---------------------------------------------------------------------------------------------- side by side


@dataclass(frozen=True, eq=False)
class AttackerComparison:
    """Algorithm 2 and the attacker who knows the detector, at one tolerance.

    Attributes
    ----------
    tolerance : float
        τ, the same for both.
    fgsm, pgd : CraftingResult
        As each attacker sees it, on the draws on which it chose ε or the penalty.
    fgsm_defended, pgd_defended : RatioComparison
        As the defender sees it, on draws that neither attacker had: R1, R2, AUROC, power at 5 % false alarms.
        |mean R1 − mean R2| can exceed τ here by what the draws scatter.
    """

    tolerance: float
    fgsm: CraftingResult
    pgd: CraftingResult
    fgsm_defended: RatioComparison = field(repr=False)
    pgd_defended: RatioComparison = field(repr=False)

    @property
    def advantage(self) -> float:
        """By how much the knowing attacker's accuracy is lower than Algorithm 2's, 0 to 1."""
        return self.fgsm.adversarial_accuracy - self.pgd.adversarial_accuracy


def compare_attackers(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    tolerances: Sequence[float],
    epsilon: float = 0.3,
    draws: int = 100,
    batch_size: int = 100,
    clip: Clip = (0.0, 1.0),
    fgsm_options: Mapping[str, Any] | None = None,
    pgd_options: Mapping[str, Any] | None = None,
    numerators: ArrayLike | None = None,
    rng: np.random.Generator,
    **estimator,
) -> list[AttackerComparison]:
    """At equal tolerance: the accuracy that Algorithm 2 leaves, and that an attacker leaves who knows the detector.

    Parameters
    ----------
    model, images, labels, draws, batch_size, clip, numerators, rng, **estimator
        As for `fgsm_under_tolerance`.
    tolerances : sequence of float
        Each τ, at least 0.
    epsilon : float
        Where Algorithm 2 starts, and the L∞ bound of the other: neither may move a pixel further. Where the other
        keeps τ with no penalty, its bound is halved, three times at most; `pgd.epsilon` says which bound it had.
    fgsm_options, pgd_options : dict, optional
        Further arguments of `tolerance_curve` (search, step …) and `pgd_under_tolerance` (steps, reference …).

    Returns
    -------
    list of AttackerComparison
        In the order of `tolerances`.

    Raises
    ------
    ToleranceNotMet
        If one of them finds nothing that keeps a τ.
    ValueError
        As the two functions.
    """
    shared = {"draws": draws, "batch_size": batch_size, "clip": clip, "numerators": numerators, "rng": rng} | estimator
    curve = tolerance_curve(
        model, images, labels, tolerances=tolerances, initial_epsilon=epsilon, **shared, **(fgsm_options or {})
    )
    rows = []
    for fgsm in curve:
        pgd = _pgd_within(model, images, labels, fgsm.tolerance, epsilon, shared | dict(pgd_options or {}))
        crafted = attacks.fgsm(model, images, labels, fgsm.epsilon, clip).images
        # One seed for both: the defender meets the two attacks with the same draws.
        seed = int(rng.integers(2**31))
        defended = [
            _defended(images, suspects, numerators, seed, draws=draws, batch_size=batch_size, **estimator)
            for suspects in (crafted, pgd.images)
        ]
        rows.append(AttackerComparison(fgsm.tolerance, fgsm, pgd, *defended))
    return rows


def _pgd_within(
    model: nn.Module, images: ArrayLike, labels: ArrayLike, tolerance: float, epsilon: float, options: dict
) -> CraftingResult:
    """Lower the bound of the knowing attacker where none of its penalties keeps τ."""
    for bound in (epsilon, epsilon / 2, epsilon / 4):
        try:
            return pgd_under_tolerance(model, images, labels, tolerance=tolerance, epsilon=bound, **options)
        except ToleranceNotMet:
            continue
    return pgd_under_tolerance(model, images, labels, tolerance=tolerance, epsilon=epsilon / 8, **options)


def _defended(
    images: ArrayLike, suspects: ArrayLike, numerators: ArrayLike | None, seed: int, **settings
) -> RatioComparison:
    clean, suspects = (as_tensor(values).cpu().numpy() for values in (images, suspects))
    if numerators is not None:
        settings["numerators"] = as_tensor(numerators).cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        return density_ratio_comparison(clean, suspects, rng=np.random.default_rng(seed), **settings)["combined"]
