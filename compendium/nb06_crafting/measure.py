"""G17 §5 and Fig. 4 as functions: attacks under a density-ratio tolerance, on the paper's data sets, in both modes.

The engines are in `advlib.crafting`; here stands what is attacked with what, and what is compared.

The paper does not say which data set its Fig. 4 shows. MNIST and grey CIFAR-10 are rerun.

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017), section 5.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas
from torch import nn

from advlib import attacks, models
from advlib.ulsif import GridEdgeWarning, fit_batch_indices
from compendium.claims import published
from compendium.common.g17 import AS_PUBLISHED, CORRECTED, MODES, Mode, all_and_attacked
from compendium.common.protocol import draw_indices
from compendium.nb06_crafting import search
from compendium.nb06_crafting.search import AttackerComparison, CraftingResult, Trial

IMAGE_SETS = {"MNIST": "mnist", "CIFAR-10 (grey)": "cifar10-grey"}


@contextmanager
def _quiet() -> Iterator[None]:
    # The papers' grid is part of their method: that the best σ or λ lies at its edge is no warning here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        yield


@dataclass(frozen=True, eq=False)
class Setting:
    """One data set in one mode, loaded.

    Attributes
    ----------
    title, mode : str, Mode
    model : nn.Module
    images, labels : (n, c, h, w) float32, (n,)
        Attacked test images.
    numerators : (N, c, h, w) float32
        All test images.
    """

    title: str
    mode: Mode
    model: nn.Module = field(repr=False)
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    numerators: np.ndarray = field(repr=False)

    @property
    def name(self) -> str:
        """Data set and mode."""
        return f"{self.title}, {self.mode.name}"

    def options(self, draws: int, batch_size: int, rng: np.random.Generator) -> dict[str, Any]:
        """Arguments that every function of `advlib.crafting` takes."""
        return {
            "draws": draws,
            "batch_size": batch_size,
            "clip": self.mode.clip,
            "numerators": self.numerators,
            "kernel": self.mode.kernel,
            "rng": rng,
        }


def settings(images: int, titles: Sequence[str] = tuple(IMAGE_SETS), modes: Sequence[Mode] = MODES) -> list[Setting]:
    """Load data sets and networks.

    Parameters
    ----------
    images : int
        Test images that are attacked, 0 for all.
    titles : sequence of str
        Of `IMAGE_SETS`.
    modes : sequence of Mode
    """
    loaded = []
    for title in titles:
        everything, real, labels = all_and_attacked(IMAGE_SETS[title], images)
        for mode in modes:
            model = models.load_trained(mode.networks[IMAGE_SETS[title]])
            loaded.append(Setting(title, mode, model, real, labels, everything))
    return loaded


def _of_each(
    loaded: Sequence[Setting],
    function: Callable[..., list[Any]],
    *,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
    **arguments: Any,
) -> dict[str, list[Any]]:
    """Call a function of `advlib.crafting` for each setting in turn; `Setting.name` → its results."""
    with _quiet():
        return {
            setting.name: function(
                setting.model, setting.images, setting.labels, **arguments, **setting.options(draws, batch_size, rng)
            )
            for setting in loaded
        }


def curves(
    loaded: Sequence[Setting],
    tolerances: Sequence[float],
    *,
    epsilon: float,
    step: float,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
) -> dict[str, list[CraftingResult]]:
    """ε and accuracy against τ, a curve for each setting (Fig. 4), by the monotone search.

    Parameters
    ----------
    loaded : sequence of Setting
    tolerances : sequence of float
        τ.
    epsilon, step : float
        Where Algorithm 2 starts, and ε_Δ of its scan; a fifth of it is where the bisection stops.
    draws, batch_size : int
        t and m.
    rng : numpy.random.Generator

    Returns
    -------
    dict
        `Setting.name` → results in the order of `tolerances`.
    """
    return _of_each(
        loaded,
        search.tolerance_curve,
        tolerances=tolerances,
        initial_epsilon=epsilon,
        step=step,
        resolution=step / 5,
        draws=draws,
        batch_size=batch_size,
        rng=rng,
    )


@dataclass(frozen=True)
class GapCurve:
    """R1 − R2 over ε, and how near the attacked images lie to the clean ones.

    Attributes
    ----------
    title : str
    trials : list of Trial
        ε, mean R1 − mean R2 and accuracy.
    distances : (n,) float64
        Mean squared distance of clean to attacked images, over that of clean to clean ones.
    """

    title: str
    trials: list[Trial]
    distances: np.ndarray

    @property
    def epsilons(self) -> np.ndarray:
        """(n,) L∞ sizes."""
        return np.array([trial.epsilon for trial in self.trials])

    @property
    def differences(self) -> np.ndarray:
        """(n,) mean R1 − mean R2."""
        return np.array([trial.difference for trial in self.trials])

    @property
    def accuracies(self) -> np.ndarray:
        """(n,) share of attacked images that are read rightly."""
        return np.array([trial.accuracy for trial in self.trials])


def relative_distance(clean: np.ndarray, moved: np.ndarray) -> float:
    """Mean squared distance between an image of `clean` and one of `moved`, over that between two of `clean`.

    With means μ and covariances Σ the mean squared distance is tr Σ₁ + tr Σ₂ + ‖μ₁ − μ₂‖², so no pair is formed.

    Parameters
    ----------
    clean : (N, ...) float array
    moved : (n, ...) float array
        Images of the same shape.
    """

    def moments(images: np.ndarray) -> tuple[np.ndarray, float]:
        flat = images.reshape(len(images), -1)
        return flat.mean(0, dtype=np.float64), float(flat.var(0, dtype=np.float64).sum())

    (centre, spread), (other, other_spread) = moments(clean), moments(moved)
    return (spread + other_spread + float(((centre - other) ** 2).sum())) / (2 * spread)


def clipped_and_unclipped(
    setting: Setting, epsilons: Sequence[float], *, draws: int, batch_size: int, rng: np.random.Generator
) -> list[GapCurve]:
    """R1 − R2 over ε with FGSM kept in [0, 1] and not, all else equal: why the gap can fall before it rises.

    Parameters
    ----------
    setting : Setting
        Its own clipping is left aside.
    epsilons : sequence of float
    draws, batch_size, rng
        As for `curves`; both curves see the same draws.
    """
    seed = int(rng.integers(2**31))
    found = []
    for title, clip in (("clipped to [0, 1]", (0.0, 1.0)), ("not clipped", None)):
        options = setting.options(draws, batch_size, np.random.default_rng(seed)) | {"clip": clip}
        with _quiet():
            trials = search.gap_curve(setting.model, setting.images, setting.labels, epsilons=epsilons, **options)
        sweep = attacks.fgsm_sweep(setting.model, setting.images, setting.labels, epsilons, clip)
        distances = [relative_distance(setting.numerators, batch.images) for batch in sweep]
        found.append(GapCurve(title, trials, np.array(distances)))
    return found


def usual_pairs(
    setting: Setting, epsilons: Sequence[float], *, draws: int, batch_size: int, rng: np.random.Generator
) -> list[str]:
    """Say which pair (σ, λ) leave-one-out picks most often against images attacked by FGSM, for each ε.

    Parameters
    ----------
    setting : Setting
    epsilons : sequence of float
        0 for clean against clean.
    draws, batch_size, rng
        As for `curves`; every ε sees the same draws.
    """
    clean = setting.numerators.reshape(len(setting.numerators), -1)
    a, b = (draw_indices(len(pool), draws, batch_size, rng) for pool in (clean, setting.images))
    lines = []
    sweep = attacks.fgsm_sweep(setting.model, setting.images, setting.labels, epsilons, setting.mode.clip)
    for epsilon, batch in zip(epsilons, sweep, strict=True):
        moved = batch.images.reshape(len(batch.images), -1)
        with _quiet():
            fit = fit_batch_indices(clean, moved, a, b, kernel=setting.mode.kernel)
        pairs = Counter(zip(fit.sigma_.tolist(), fit.lambda_.tolist(), strict=True))
        (sigma, lambda_), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        lines.append(f"ε = {epsilon:g}: σ = {sigma:.2g}, λ = {lambda_:.2g} in {count} of {draws} draws")
    return lines


@dataclass(frozen=True)
class SearchOutcome:
    """What one way of searching found for one τ.

    Attributes
    ----------
    search : str
        "monotone", "fixed step" or "fixed step, new draws".
    tolerance : float
    epsilons : (r,) float64
        ε found, one a repeat; NaN where the search ended without one.
    attacks : (r,) int64
        ε that were attacked and judged on the way.
    """

    search: str
    tolerance: float
    epsilons: np.ndarray
    attacks: np.ndarray


def searches(
    setting: Setting,
    tolerances: Sequence[float],
    *,
    repeats: int,
    epsilon: float,
    step: float,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
) -> list[SearchOutcome]:
    """Compare the monotone search with the paper's fixed step, without and with new draws at every ε.

    Parameters
    ----------
    setting : Setting
    tolerances : sequence of float
    repeats : int
        Seeds under which each search is run.
    epsilon, step, draws, batch_size, rng
        As for `curves`.
    """
    ways = {
        "monotone": {"search": "monotone", "resolution": step / 5},
        "fixed step": {"search": "fixed step"},
        "fixed step, new draws": {"search": "fixed step", "redraw": True},
    }
    seeds = [int(seed) for seed in rng.integers(2**31, size=repeats)]
    outcomes = []
    for name, way in ways.items():
        for tolerance in tolerances:
            epsilons, tried = np.full(repeats, np.nan), np.zeros(repeats, int)
            for k, seed in enumerate(seeds):
                options = setting.options(draws, batch_size, np.random.default_rng(seed))
                try:
                    with _quiet():
                        result = search.fgsm_under_tolerance(
                            setting.model,
                            setting.images,
                            setting.labels,
                            tolerance=tolerance,
                            initial_epsilon=epsilon,
                            step=step,
                            **way,
                            **options,
                        )
                    epsilons[k], tried[k] = result.epsilon, len(result.trace)
                except search.ToleranceNotMet as stopped:
                    tried[k] = len(stopped.trace)
            outcomes.append(SearchOutcome(name, tolerance, epsilons, tried))
    return outcomes


def never_smaller(first: SearchOutcome, second: SearchOutcome) -> bool:
    """Whether `first` found no smaller ε than `second` under any seed; no answer counts as the smallest."""
    one, other = (np.nan_to_num(outcome.epsilons, nan=0.0) for outcome in (first, second))
    return bool(np.all(one >= other))


def searches_frame(outcomes: Sequence[SearchOutcome]) -> pandas.DataFrame:
    """Show `searches` as a table: ε found (smallest to largest over the repeats) and attacks needed."""
    lines = []
    for outcome in outcomes:
        found = outcome.epsilons[~np.isnan(outcome.epsilons)]
        lines.append({
            "search": outcome.search,
            "τ": outcome.tolerance,
            "ε found": f"{found.min():.3f} to {found.max():.3f}" if len(found) else "none",
            "without an answer": f"{np.isnan(outcome.epsilons).sum()} of {len(outcome.epsilons)}",
            "attacks tried": f"{outcome.attacks.mean():.0f}",
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["search", "τ"])


def attackers(
    loaded: Sequence[Setting],
    tolerances: Sequence[float],
    *,
    epsilon: float,
    step: float,
    steps: int,
    searches: int,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
) -> dict[str, list[AttackerComparison]]:
    """Algorithm 2 and the attacker who knows the detector, at equal tolerance.

    Parameters
    ----------
    loaded, tolerances, epsilon, step, draws, batch_size, rng
        As for `curves`; `epsilon` bounds both attackers.
    steps : int
        Gradient steps of the knowing attacker for each weight of the detector.
    searches : int
        Weights that it tries after 0.

    Returns
    -------
    dict
        `Setting.name` → comparisons in the order of `tolerances`.
    """
    return _of_each(
        loaded,
        search.compare_attackers,
        tolerances=tolerances,
        epsilon=epsilon,
        fgsm_options={"step": step, "resolution": step / 5},
        pgd_options={"steps": steps, "searches": searches},
        draws=draws,
        batch_size=batch_size,
        rng=rng,
    )


def attackers_frame(
    loaded: Sequence[Setting], compared: Mapping[str, Sequence[AttackerComparison]]
) -> pandas.DataFrame:
    """Show `attackers` as a table: size of the change, gap and accuracy, and what a decision about one batch sees."""
    lines = []
    for setting in loaded:
        for row in compared[setting.name]:
            fgsm = attacks.fgsm(setting.model, setting.images, setting.labels, row.fgsm.epsilon, setting.mode.clip)
            for attacker, result, defended, images in (
                ("Algorithm 2", row.fgsm, row.fgsm_defended, fgsm.images),
                ("gradient steps", row.pgd, row.pgd_defended, row.pgd.images),
            ):
                change = np.asarray(images) - setting.images
                lines.append({
                    "setting": setting.name,
                    "τ": row.tolerance,
                    "attacker": attacker,
                    "largest change": round(float(np.abs(change).max()), 3),
                    "mean L2 change": round(float(np.sqrt((change**2).sum((1, 2, 3))).mean()), 2),
                    "|R1 − R2|": round(result.gap, 3),
                    "accuracy": round(result.adversarial_accuracy, 3),
                    "AUROC": round(defended.auroc, 2),
                    "power at 5 % false alarms": round(defended.tpr_at_5_fpr, 2),
                    "weight w it ended with": "–" if attacker == "Algorithm 2" else f"{result.penalty:.3g}",
                })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["setting", "τ", "attacker"])


def without_detector(compared: Mapping[str, Sequence[AttackerComparison]]) -> str:
    """Say in how many comparisons the gradient steps ended with weight 0, that is, without the detector."""
    weights = [row.pgd.penalty for rows in compared.values() for row in rows]
    return f"the search ended with w = 0 (detector not used) in {sum(w == 0 for w in weights)} of {len(weights)} rows"


def example_rows(
    setting: Setting, comparison: AttackerComparison, count: int
) -> tuple[np.ndarray, list[tuple[str, np.ndarray, np.ndarray]]]:
    """Pick images that are read rightly, with both attackers' versions and what the network reads in each.

    Parameters
    ----------
    setting : Setting
    comparison : AttackerComparison
        Of this setting.
    count : int
        Images, spread evenly over those that are read rightly.

    Returns
    -------
    labels : (count,) int64
    rows : list of (title, (count, c, h, w) images, (count,) predicted classes)
    """
    right = np.flatnonzero(models.predict(setting.model, setting.images) == setting.labels)
    chosen = right[np.arange(count) * len(right) // count]
    fgsm = attacks.fgsm(
        setting.model, setting.images[chosen], setting.labels[chosen], comparison.fgsm.epsilon, setting.mode.clip
    )
    rows = [
        ("clean", setting.images[chosen]),
        (f"Algorithm 2,\nε = {comparison.fgsm.epsilon:.3f}", fgsm.images),
        ("gradient steps,\nw searched", np.asarray(comparison.pgd.images)[chosen]),
    ]
    return setting.labels[chosen], [(title, images, models.predict(setting.model, images)) for title, images in rows]


# ---------------------------------------------------------------------------------------------- record and verdicts

FOOLED = 0.5
"""A model counts as fooled where the attack leaves at most this share of its accuracy: the paper does not say."""

LITTLE = 0.1
"""An accuracy rises "not by a significant margin" where it rises by at most this: the paper does not say."""


def fools(result: CraftingResult) -> bool:
    """Whether the attack leaves at most `FOOLED` of the clean accuracy."""
    return result.adversarial_accuracy <= FOOLED * result.accuracy


def rise(results: Sequence[CraftingResult]) -> float:
    """How much higher the accuracy is at the smallest τ than at the largest."""
    ordered = sorted(results, key=lambda result: result.tolerance)
    return ordered[0].adversarial_accuracy - ordered[-1].adversarial_accuracy


def falls(results: Sequence[CraftingResult]) -> bool:
    """Whether ε at the smallest τ is smaller than at the largest, and never larger on the way down."""
    epsilons = [result.epsilon for result in sorted(results, key=lambda result: result.tolerance)]
    return epsilons[0] < epsilons[-1] and bool(np.all(np.diff(epsilons) >= 0))


def record_curves(run: Any, found: Mapping[str, Sequence[CraftingResult]]) -> None:
    """Put Fig. 4's two curves of every setting, and the paper's three sentences about them, into a run's record.

    Parameters
    ----------
    run : advlib.record.Run
    found : dict
        From `curves`, over all of `IMAGE_SETS` in both modes.
    """
    for name, results in found.items():
        for result in results:
            prefix = f"{name}.tolerance={result.tolerance:g}"
            run.metric(f"{prefix}.epsilon", result.epsilon)
            run.metric(f"{prefix}.accuracy", result.adversarial_accuracy)
            run.metric(f"{prefix}.auroc", result.comparison.auroc)
    smallest = published.value("g17", "setting", "Algorithm 2", "smallest tolerance")
    strictest = {
        name: min(results, key=lambda result: abs(result.tolerance - smallest)) for name, results in found.items()
    }
    sentences = {
        "tolerance-lowers-eps": (
            {name: falls(results) for name, results in found.items()},
            {
                name: f"ε {strictest[name].epsilon:.2f} to {max(r.epsilon for r in results):.2f}"
                for name, results in found.items()
            },
            "the largest ε that meets τ cannot rise when τ falls: true of any search from above",
        ),
        "accuracy-rises-little": (
            {name: rise(results) <= LITTLE for name, results in found.items()},
            {name: f"by {rise(results):.2f}" for name, results in found.items()},
            f"“not by a significant margin” read as at most {LITTLE:g}; the paper names no data set",
        ),
        "tolerance-0.05-fools-model": (
            {name: fools(result) for name, result in strictest.items()},
            {name: f"accuracy {result.adversarial_accuracy:.2f}" for name, result in strictest.items()},
            f"“fools” read as at most {FOOLED:g} of the clean accuracy; the paper names no data set",
        ),
    }
    for sentence, (holds, words, cause) in sentences.items():
        run.compare({
            "paper": "g17",
            "item": "claim",
            "row": sentence,
            "column": "",
            "as_published": _phrase(words, AS_PUBLISHED),
            "corrected": _phrase(words, CORRECTED),
            "verdict": judge(holds),
            "cause": f"{_where(holds)}; {cause}{_exceptions(holds)}",
        })  # fmt: skip


def judge(holds: Mapping[str, bool]) -> str:
    """Judge a sentence that names no data set, from whether it holds in each setting ("data set, mode").

    "reproduced" where it holds in both modes on one data set at least, "reproduced as published only" where it holds
    on one at least in that mode alone.
    """
    for modes, verdict in (
        ((AS_PUBLISHED, CORRECTED), "reproduced"),
        ((AS_PUBLISHED,), "reproduced as published only"),
    ):
        if any(all(holds[f"{title}, {mode.name}"] for mode in modes) for title in IMAGE_SETS):
            return verdict
    return "not reproduced"


def _phrase(words: Mapping[str, str], mode: Mode) -> str:
    return "; ".join(f"{title}: {words[f'{title}, {mode.name}']}" for title in IMAGE_SETS)


def _where(holds: Mapping[str, bool]) -> str:
    titles = [title for title in IMAGE_SETS if all(holds[f"{title}, {mode.name}"] for mode in MODES)]
    return f"in both modes on {' and '.join(titles) or 'neither'}{'' if len(titles) == len(IMAGE_SETS) else ' only'}"


def _exceptions(holds: Mapping[str, bool]) -> str:
    broken = [name for name, true in holds.items() if not true]
    return f"; not so for {' and '.join(broken)}" if broken else ""


def record_attackers(run: Any, compared: Mapping[str, Sequence[AttackerComparison]]) -> None:
    """Put both attackers' accuracies and what a decision sees of them into a run's record."""
    for name, rows in compared.items():
        for row in rows:
            for attacker, result, defended in (
                ("algorithm2", row.fgsm, row.fgsm_defended),
                ("knowing", row.pgd, row.pgd_defended),
            ):
                prefix = f"attackers.{name}.tolerance={row.tolerance:g}.{attacker}"
                run.metric(f"{prefix}.accuracy", result.adversarial_accuracy)
                run.metric(f"{prefix}.auroc", defended.auroc)
                run.metric(f"{prefix}.tpr_at_5_fpr", defended.tpr_at_5_fpr)
