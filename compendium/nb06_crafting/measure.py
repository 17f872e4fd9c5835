"""G17 §5 and Fig. 4: attacks under a density-ratio tolerance on the paper's data sets, in both modes, as tidy frames.

The searches are in `search`; here stands what is attacked with what. The paper does not say which data set its Fig. 4
shows; MNIST and grey CIFAR-10 are rerun.

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017), section 5.
G. J. Székely, M. L. Rizzo, "Energy statistics: a class of statistics based on distances", J. Statist. Plann. Inference
143, 1249–1272 (2013).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas
from sklearn.metrics.pairwise import euclidean_distances
from torch import nn

from advlib import attacks, models
from advlib.progress import track
from compendium.common.g17 import MODES, Mode, all_and_attacked
from compendium.common.protocol import draw_indices, fit_indices, power
from compendium.nb06_crafting import search

IMAGE_SETS = {"MNIST": "mnist", "CIFAR-10 (grey)": "cifar10-grey"}
ALGORITHM_2, GRADIENT_STEPS = "Algorithm 2", "gradient steps"


@dataclass(frozen=True, eq=False)
class Setting:
    """One data set in one mode, loaded, and how Algorithm 1 draws from it.

    Attributes
    ----------
    title, mode : str, Mode
    draws, batch_size : int
        t and m of Algorithm 1.
    model : nn.Module
    images, labels : (n, c, h, w) float32, (n,)
        Attacked test images.
    numerators : (N, c, h, w) float32
        All test images.
    """

    title: str
    mode: Mode
    draws: int
    batch_size: int
    model: nn.Module = field(repr=False)
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    numerators: np.ndarray = field(repr=False)

    @property
    def name(self) -> str:
        """Data set and mode."""
        return f"{self.title}, {self.mode.name}"

    @property
    def place(self) -> dict[str, str]:
        """Columns by which frames tell settings apart."""
        return {"setting": self.name, "image set": self.title, "mode": self.mode.name}

    def defender(self, rng: np.random.Generator, **changed: object) -> search.Defender:
        """Draw for Algorithm 1; `changed` may hold another clip."""
        options = {"clip": self.mode.clip, "kernel": self.mode.kernel, "numerators": self.numerators} | changed
        sizes = {"draws": self.draws, "batch_size": self.batch_size}
        return search.Defender(self.model, self.images, self.labels, rng=rng, **sizes, **options)


def settings(images: int, draws: int, batch_size: int, modes: Sequence[Mode] = MODES) -> list[Setting]:
    """Load the data sets of `IMAGE_SETS` and networks, with `images` test images that are attacked, 0 for all."""
    loaded = []
    for title, image_set in IMAGE_SETS.items():
        everything, real, labels = all_and_attacked(image_set, images)
        for mode in modes:
            model = models.load_trained(mode.networks[image_set])
            loaded.append(Setting(title, mode, draws, batch_size, model, real, labels, everything))
    return loaded


def curves(
    loaded: Sequence[Setting], tolerances: Sequence[float], *, epsilon: float, step: float, rng: np.random.Generator
) -> pandas.DataFrame:
    """ε and accuracy against τ in each setting (Fig. 4), by the search that bisects.

    Parameters
    ----------
    loaded : sequence of Setting
    tolerances : sequence of float
        τ.
    epsilon, step : float
        Where Algorithm 2 starts, and ε_Δ of its scan; a fifth of it is where the bisection stops.
    rng : numpy.random.Generator

    Returns
    -------
    pandas.DataFrame
        A row a setting and τ: its name, image set and mode, tolerance, epsilon, accuracy, clean accuracy, AUROC.
    """
    options = {"initial_epsilon": epsilon, "step": step, "resolution": step / 5}
    return pandas.DataFrame([
        {
            **setting.place,
            "tolerance": result.tolerance,
            "epsilon": result.epsilon,
            "accuracy": result.adversarial_accuracy,
            "clean accuracy": result.clean_accuracy,
            "AUROC": result.comparison.auroc,
        }
        for setting in loaded
        for result in search.fgsm_under_tolerance(setting.defender(rng), tolerances, **options)
    ])  # fmt: skip


def relative_distance(clean: np.ndarray, moved: np.ndarray) -> float:
    """Mean squared distance between an image of `clean` and one of `moved`, over that between two of `clean`.

    With means μ and covariances Σ the mean squared distance is tr Σ₁ + tr Σ₂ + ‖μ₁ − μ₂‖², so no pair is formed.

    Parameters
    ----------
    clean, moved : (N, ...), (n, ...) float array
    """

    def moments(images: np.ndarray) -> tuple[np.ndarray, float]:
        flat = images.reshape(len(images), -1)
        return flat.mean(0, dtype=np.float64), float(flat.var(0, dtype=np.float64).sum())

    (centre, spread), (other, other_spread) = moments(clean), moments(moved)
    return (spread + other_spread + float(((centre - other) ** 2).sum())) / (2 * spread)


def energy_distances(clean: np.ndarray, moved: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Energy distance of each draw, clean[a[t]] against moved[b[t]]: 2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖, in pixels.

    It is 0 in the mean for one distribution and above 0 for two, and uses no density ratio (Székely & Rizzo 2013).

    Parameters
    ----------
    clean, moved : (N, ...), (n, ...) float array
    a, b : (t, m) int array

    Returns
    -------
    (t,) float64 array
    """
    clean, moved = (images.reshape(len(images), -1).astype(np.float64) for images in (clean, moved))

    def within(batch: np.ndarray) -> float:
        return float(euclidean_distances(batch).sum() / (len(batch) * (len(batch) - 1)))

    return np.array([
        2 * euclidean_distances(clean[i], moved[j]).mean() - within(clean[i]) - within(moved[j])
        for i, j in zip(a, b, strict=True)
    ])  # fmt: skip


def similarity(
    loaded: Sequence[Setting], found: pandas.DataFrame, *, epsilon: float, step: float, rng: np.random.Generator
) -> pandas.DataFrame:
    """Set the gap of the mean ratios beside the energy distance, over ε and where Algorithm 2 ends at its smallest τ.

    Parameters
    ----------
    loaded : sequence of Setting
    found : pandas.DataFrame
        From `curves`.
    epsilon, step, rng
        As for `curves`.

    Returns
    -------
    pandas.DataFrame
        A row a setting and ε: setting, image set, mode, epsilon, crafted (whether Algorithm 2 ended there), gap
        (|mean R1 − mean R2|), energy (mean over the draws), power (of the energy distance of one batch, at 5 % false
        alarms).
    """
    strictest = found.loc[found.groupby("setting")["tolerance"].idxmin()].set_index("setting")["epsilon"]
    rows = []
    for setting in loaded:
        defender, end = setting.defender(rng), float(strictest[setting.name])
        moved, indices = defender.fgsm(), defender.indices
        clean = energy_distances(setting.numerators, setting.images, *indices)
        grid = [(size, False) for size in search.scan(epsilon, step)]
        for size, crafted in track([*grid, (end, True)], f"energy distance, {setting.name}", len(grid) + 1):
            images = moved(size)
            energy = energy_distances(setting.numerators, images, *indices)
            gap = defender.judge(images, size).gap
            measured = {"gap": gap, "energy": float(energy.mean()), "power": power(clean, energy)}
            rows.append({**setting.place, "epsilon": size, "crafted": crafted, **measured})
    return pandas.DataFrame(rows)


def order_agreement(x: Sequence[float], y: Sequence[float]) -> float:
    """Goodman and Kruskal's γ: pairs in the same order less pairs in the opposite order, over both; 0 without any."""
    x, y = np.asarray(x), np.asarray(y)
    signs = np.sign(np.subtract.outer(x, x)) * np.sign(np.subtract.outer(y, y))
    ordered = np.abs(signs).sum()
    return float(signs.sum() / ordered) if ordered else 0.0


def similarity_frame(similar: pandas.DataFrame) -> pandas.DataFrame:
    """Sum `similarity` up, a row a setting: what the sentences about similar densities are judged by."""
    lines = []
    for name, rows in similar.groupby("setting", sort=False):
        scan, crafted = rows[~rows["crafted"]], rows[rows["crafted"]].iloc[0]
        lines.append({
            "setting": name,
            "image set": crafted["image set"],
            "mode": crafted["mode"],
            "agreement in order": order_agreement(scan["gap"], scan["energy"]),
            "energy left": crafted["energy"] / scan.loc[scan["epsilon"].idxmax(), "energy"],
            "power": crafted["power"],
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index("setting")


CLIPPED, NOT_CLIPPED = "clipped to [0, 1]", "not clipped"


def clipped_and_unclipped(setting: Setting, epsilons: Sequence[float], rng: np.random.Generator) -> pandas.DataFrame:
    """R1 − R2 over ε with FGSM kept in [0, 1] and not, all else equal: why the gap can fall before it rises.

    Parameters
    ----------
    setting : Setting
        Its own clipping is left aside.
    epsilons : sequence of float
    rng : numpy.random.Generator
        Of the draws, the same for both.

    Returns
    -------
    pandas.DataFrame
        A row an ε, for `CLIPPED` and `NOT_CLIPPED` in column "FGSM": epsilon, difference (mean R1 − mean R2), accuracy,
        and distance (`relative_distance` of attacked images).
    """
    seed = int(rng.integers(2**31))
    rows = []
    for title, clip in ((CLIPPED, (0.0, 1.0)), (NOT_CLIPPED, None)):
        defender = setting.defender(np.random.default_rng(seed), clip=clip)
        moved = defender.fgsm()
        for epsilon in track(epsilons, "R1 − R2 over ε"):
            images = moved(epsilon)
            trial, distance = defender.judge(images, epsilon), relative_distance(setting.numerators, images)
            row = {"FGSM": title, "epsilon": epsilon, "difference": trial.difference}
            rows.append(row | {"accuracy": trial.adversarial_accuracy, "distance": distance})
    return pandas.DataFrame(rows)


def usual_pairs(setting: Setting, epsilons: Sequence[float], rng: np.random.Generator) -> list[str]:
    """Say which pair (σ, λ) leave-one-out picks most often against images attacked by FGSM, for each ε.

    Parameters
    ----------
    setting : Setting
    epsilons : sequence of float
        0 for clean against clean.
    rng : numpy.random.Generator
        Of the draws, the same for every ε.
    """
    clean = setting.numerators.reshape(len(setting.numerators), -1)
    a, b = (draw_indices(len(pool), setting.draws, setting.batch_size, rng) for pool in (clean, setting.images))
    lines = []
    sweep = attacks.fgsm_sweep(setting.model, setting.images, setting.labels, epsilons, setting.mode.clip)
    for epsilon, batch in zip(epsilons, sweep, strict=True):
        moved = batch.images.reshape(len(batch.images), -1)
        fit = fit_indices(clean, moved, a, b, setting.mode.kernel)
        pairs, counts = np.unique(np.stack([fit.sigma_, fit.lambda_], axis=1), axis=0, return_counts=True)
        sigma, lambda_ = pairs[counts.argmax()]
        lines.append(f"ε = {epsilon:g}: σ = {sigma:.2g}, λ = {lambda_:.2g} in {counts.max()} of {len(a)} draws")
    return lines


BISECTION, FIXED_STEP = "scan, then bisection", "fixed step"


def searches(
    setting: Setting,
    tolerances: Sequence[float],
    *,
    repeats: int,
    epsilon: float,
    step: float,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """Compare the search that bisects with the paper's fixed step, without and with new draws at every ε.

    Parameters
    ----------
    setting : Setting
    tolerances : sequence of float
    repeats : int
        Seeds under which each search is run.
    epsilon, step, rng
        As for `curves`.

    Returns
    -------
    pandas.DataFrame
        A row a search, τ and repeat: ε found, NaN where the search ended without one, and attacks tried on the way.
    """
    ways = {
        BISECTION: {"resolution": step / 5},
        FIXED_STEP: {"resolution": None},
        f"{FIXED_STEP}, new draws": {"resolution": None, "redraw": True},
    }
    seeds = rng.integers(2**31, size=repeats).tolist()
    rows = []
    for (name, way), tolerance, seed in itertools.product(ways.items(), tolerances, seeds):
        defender = setting.defender(np.random.default_rng(seed))
        try:
            (found,) = search.fgsm_under_tolerance(defender, [tolerance], initial_epsilon=epsilon, step=step, **way)
            answer, trace = found.epsilon, found.trace
        except search.ToleranceNotMet as stopped:
            answer, trace = np.nan, stopped.trace
        rows.append({"search": name, "τ": tolerance, "ε": answer, "attacks": len(trace)})
    return pandas.DataFrame(rows)


def never_smaller(outcomes: pandas.DataFrame, one: str, other: str) -> bool:
    """Whether search `one` found no smaller ε than `other` under any seed; no answer counts as the smallest."""
    found = outcomes["ε"].fillna(0)
    return bool((found[outcomes["search"] == one].values >= found[outcomes["search"] == other].values).all())


def searches_frame(outcomes: pandas.DataFrame) -> pandas.DataFrame:
    """Show `searches` as a table: ε found (smallest to largest where there are several) and attacks needed."""

    def summary(rows: pandas.DataFrame) -> pandas.Series:
        found = rows["ε"].dropna()
        ends = dict.fromkeys(f"{epsilon:.3f}" for epsilon in (found.min(), found.max()))
        return pandas.Series({
            "ε found": " to ".join(ends) if len(found) else "none",
            "without an answer": f"{rows['ε'].isna().sum()} of {len(rows)}",
            "attacks tried": f"{rows['attacks'].mean():.0f}",
        })  # fmt: skip

    return outcomes.groupby(["search", "τ"], sort=False)[["ε", "attacks"]].apply(summary)


def attackers(
    loaded: Sequence[Setting],
    tolerances: Sequence[float],
    *,
    epsilon: float,
    step: float,
    steps: int,
    searches: int,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """Algorithm 2 and the attacker who knows the detector, at equal tolerance.

    Parameters
    ----------
    loaded, tolerances, epsilon, step, rng
        As for `curves`; `epsilon` bounds both attackers.
    steps : int
        Gradient steps of the knowing attacker for each weight of the detector.
    searches : int
        Weights that it tries after 0.

    Returns
    -------
    pandas.DataFrame
        Indexed by setting, τ and attacker: size of the change, gap, accuracy, what a decision about one batch sees,
        weight w (NaN for Algorithm 2), and the `CraftingResult`.
    """
    rows = []
    for setting in loaded:
        pairs = search.compare_attackers(
            setting.defender(rng), tolerances, epsilon=epsilon,
            fgsm_options={"step": step, "resolution": step / 5}, pgd_options={"steps": steps, "searches": searches},
        )  # fmt: skip
        for pair in pairs:
            for attacker, result in zip((ALGORITHM_2, GRADIENT_STEPS), pair, strict=True):
                change = result.images - setting.images
                rows.append({
                    "setting": setting.name,
                    "τ": result.tolerance,
                    "attacker": attacker,
                    "largest change": float(np.abs(change).max()),
                    "mean L2 change": float(np.sqrt((change**2).sum((1, 2, 3))).mean()),
                    "|R1 − R2|": result.gap,
                    "accuracy": result.adversarial_accuracy,
                    "AUROC": result.defended.auroc,
                    "power at 5 % false alarms": result.defended.tpr_at_5_fpr,
                    "weight w it ended with": result.weight,
                    "result": result,
                })  # fmt: skip
    return pandas.DataFrame(rows).set_index(["setting", "τ", "attacker"])


def attackers_frame(compared: pandas.DataFrame) -> pandas.DataFrame:
    """Show `attackers` as a table, by two digits."""
    numbers = compared.drop(columns=["result", "weight w it ended with"]).map(lambda value: float(f"{value:.2g}"))
    weight = compared["weight w it ended with"].map(lambda value: "–" if np.isnan(value) else f"{value:.2g}")
    return numbers.assign(**{weight.name: weight})


def without_detector(compared: pandas.DataFrame) -> str:
    """Say in how many comparisons the gradient steps ended with weight 0, that is, without the detector."""
    weights = compared["weight w it ended with"].dropna()
    unused = f"{(weights == 0).sum()} of {len(weights)}"
    return f"the search ended with w = 0 (detector not used) in {unused} rows of gradient steps"


def example_rows(
    setting: Setting, compared: pandas.DataFrame, count: int
) -> tuple[np.ndarray, list[tuple[str, np.ndarray, np.ndarray]]]:
    """Pick images that are read rightly, with both attackers' versions and what the network reads in each.

    Parameters
    ----------
    setting : Setting
    compared : pandas.DataFrame
        From `attackers`; this setting's first τ is shown.
    count : int
        Images, spread evenly over those that are read rightly.

    Returns
    -------
    labels : (count,) int64
    rows : list of (title, (count, c, h, w) images, (count,) predicted classes)
    """
    right = np.flatnonzero(models.predict(setting.model, setting.images) == setting.labels)
    chosen = right[np.arange(count) * len(right) // count]
    fgsm, pgd = compared.loc[[setting.name], "result"].iloc[:2]
    batches: Mapping[str, np.ndarray] = {
        "clean": setting.images,
        f"{ALGORITHM_2},\nε = {fgsm.epsilon:.3f}": fgsm.images,
        f"{GRADIENT_STEPS},\nw = {pgd.weight:.2g}": pgd.images,
    }
    rows = [(title, images[chosen], models.predict(setting.model, images[chosen])) for title, images in batches.items()]
    return setting.labels[chosen], rows
