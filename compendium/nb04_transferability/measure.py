"""G17 §4.4 rerun: a detector that was shown no attack meets JSMA and TGSM, and aimless changes of the same size.

The paper prints neither the number of TGSM's steps nor JSMA's budget. Here both are scanned, the setting that comes
closest to Table 2 is taken for the rerun *as published*, and what it leaves unexplained is said. *Corrected* is each
attack as its own authors describe it: TGSM within an L∞ ball of radius ε, JSMA over pairs, by logits, until its target.

All measurements are tidy frames with one row for each row of Table 2 and change of the images; `Pool.measure` names the
columns.

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017), §4.4.
A. Kurakin, I. Goodfellow, S. Bengio, arXiv:1607.02533 (2016); N. Papernot et al., arXiv:1511.07528 (2015).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas
from torch import nn

from advlib import attacks, models
from advlib.attacks import AdversarialBatch
from advlib.attacks.stored import stored_attack
from advlib.progress import track
from advlib.ulsif import BatchFit
from compendium.common import g17
from compendium.common.protocol import RatioComparison, Summary, channel_ratios, draw_indices, fit_indices, mean_ratios
from compendium.common.size_sweeps import COMBINED, ROWS

PARTS = {"mnist": ROWS["mnist"], "cifar10": (*ROWS["cifar10"], COMBINED)}
"""Image set → rows of Table 2: its channels, and the mean of their estimates where there are several."""

TGSM_EPSILONS = {"mnist": (0.1, 0.05), "cifar10": (0.05,)}
"""Image set → ε of its TGSM rows."""

VARIANTS: dict[str, dict[str, Any]] = {
    "budget spent": {"pairs": False, "saliency": "softmax", "stop_at_target": False},
    "until its target": {"pairs": False, "saliency": "softmax"},
    "until a random target": {"pairs": False, "saliency": "softmax", "targets": "random"},
    "half steps, budget spent": {"pairs": False, "saliency": "softmax", "stop_at_target": False, "theta": 0.5},
    "pairs by logits, until its target": {"pairs": True, "saliency": "logits"},
}
"""Ways to run JSMA. The first four are those of tensorflow-adversarial, G17's source: single features by the softmax's
gradient, until the target is reached, or with `min_proba` above 1 until the budget is spent. The last is Papernot's."""

AS_PUBLISHED_VARIANT = "budget spent"
CORRECTED_VARIANT = "pairs by logits, until its target"
BALL_STEPS = 10
"""Steps of TGSM and PGD within the ball, each of a quarter of its radius."""

POOL_SIZES = (200, 1000, 2000, 5000, 10000)
"""Test images of MNIST that both clean batches are drawn from."""

PGD = "PGD"


Effect = dict[str, float | None]
"""What a change did to images and to the network that read them. fooled: share of the images read rightly before that
are misread afterwards; targeted: share read as the target, None for untargeted attacks; l0: median number of changed
features; l2, linf: mean norms in pixels of [0, 1]."""


def effect_of_attack(batch: AdversarialBatch) -> Effect:
    """Sum up an attack's result."""
    norms = batch.l0, batch.l2, batch.linf
    return {"targeted": batch.targeted_success, **_effect(batch.clean_correct, batch.success, *norms)}


def effect_of_change(model: nn.Module, clean: np.ndarray, moved: np.ndarray, labels: np.ndarray) -> Effect:
    """Sum up any change of images (n, c, h, w) with labels (n,), read by `model`."""
    right, still = (models.predict(model, images) == labels for images in (clean, moved))
    change = (moved - clean).reshape(len(clean), -1)
    norms = np.count_nonzero(change, axis=1), np.linalg.norm(change, axis=1), np.abs(change).max(axis=1)
    return {"targeted": None, **_effect(right, right & ~still, *norms)}


def _effect(right: np.ndarray, misread: np.ndarray, l0: np.ndarray, l2: np.ndarray, linf: np.ndarray) -> Effect:
    fooled = np.sum(misread) / max(np.sum(right), 1)
    return {"fooled": float(fooled), "l0": float(np.median(l0)), "l2": float(np.mean(l2)), "linf": float(np.mean(linf))}


def _interval(name: str, summary: Summary) -> dict[str, float]:
    return {name: summary.mean, f"{name} low": summary.low, f"{name} high": summary.high}


@dataclass(frozen=True, eq=False)
class Pool:
    """Images of one set with the draws that every change of them shares: R1 differs by the change alone.

    Attributes
    ----------
    image_set : str
        "mnist" or "cifar10".
    everything : (N, c, h, w) float32
        All test images; numerators are drawn from them.
    images, labels : (n, c, h, w) float32, (n,) int64
        Those that are changed; denominators are drawn from them.
    a, b : (t, m) int64
        Rows of `everything` and of `images`.
    """

    image_set: str
    everything: np.ndarray = field(repr=False)
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    a: np.ndarray = field(repr=False)
    b: np.ndarray = field(repr=False)
    _real: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def draw(cls, image_set: str, images: int, *, draws: int, batch_size: int, rng: np.random.Generator) -> "Pool":
        """Take `images` test images (0: all), at even steps, and draw t = `draws` index sets of m = `batch_size`."""
        everything, chosen, labels = g17.all_and_attacked(image_set, images)
        a, b = (draw_indices(len(pool), draws, batch_size, rng) for pool in (everything, chosen))
        return cls(image_set, everything, chosen, labels, a, b)

    def ratios(self, suspects: np.ndarray, kernel: str) -> np.ndarray:
        """Mean density ratio of each draw and channel, (t, c), of clean numerators against `suspects` (n, c, h, w)."""
        used, rows = np.unique(self.a, return_inverse=True)
        return channel_ratios(self.everything[used], suspects, rows.reshape(self.a.shape), self.b, kernel=kernel)

    def by_row(self, ratios: np.ndarray) -> dict[str, np.ndarray]:
        """Give the channels (t, c), and their mean where there are several, the names of Table 2: row → (t,)."""
        columns = [*ratios.T, ratios.mean(axis=1)][: len(PARTS[self.image_set])]
        return dict(zip(PARTS[self.image_set], columns, strict=True))

    def clean(self, kernel: str) -> dict[str, np.ndarray]:
        """R2 of each draw: row of Table 2 → (t,)."""
        if kernel not in self._real:
            self._real[kernel] = self.ratios(self.images, kernel)
        return self.by_row(self._real[kernel])

    def compare(self, suspects: np.ndarray, kernel: str) -> dict[str, RatioComparison]:
        """Compare changed images (n, c, h, w) with clean ones: row of Table 2 → its draws."""
        if suspects.shape != self.images.shape:
            raise ValueError(f"suspects must have the shape {self.images.shape} of images, but has {suspects.shape}")
        r1, r2 = self.by_row(self.ratios(suspects, kernel)), self.clean(kernel)
        return {row: RatioComparison(r1[row], r2[row]) for row in r1}

    def measure(
        self, suspects: np.ndarray, mode: g17.Mode, attack: str, how: str, amount: float, effect: Effect
    ) -> pandas.DataFrame:
        """Compare changed images (n, c, h, w) with clean ones.

        Parameters
        ----------
        suspects : (n, c, h, w) float32
        mode : g17.Mode
            Kernel.
        attack : str
            As in Table 2, "JSMA" or "TGSM eps=0.05"; a control has its own name.
        how : str
            Which way the attack was run.
        amount : float
            TGSM's number of steps, JSMA's budget γ, or a control's group.
        effect : dict
            From `effect_of_attack` or `effect_of_change`.

        Returns
        -------
        pandas.DataFrame
            A row for each row of Table 2 on this image set: row, attack, mode, how, amount; R1 and R2, means over the
            draws with 95 % interval ("R1 low", "R1 high"); AUROC and power (at 5 % false alarms) of one batch; fooled,
            targeted, l0, l2, linf.
        """
        lines = []
        for row, found in self.compare(suspects, mode.kernel).items():
            place = {"row": row, "attack": attack, "mode": mode.name, "how": how, "amount": amount}
            ratios = _interval("R1", found.r1_summary) | _interval("R2", found.r2_summary)
            lines.append({**place, **ratios, "AUROC": found.auroc, "power": found.tpr_at_5_fpr, **effect})
        return pandas.DataFrame(lines)

    def stored(self, attack: Any, network: str, **options: Any) -> Any:
        """Attack this pool's images, or read from disk what was made of them: `stored_attack`."""
        return stored_attack(attack, network, self.images, self.labels, **options)

    def measure_attack(
        self, batch: AdversarialBatch, mode: g17.Mode, attack: str, how: str, amount: float
    ) -> pandas.DataFrame:
        """Do the same with what an attack made of this pool's images."""
        return self.measure(batch.images, mode, attack, how, amount, effect_of_attack(batch))


def joined(frames: Iterable[pandas.DataFrame]) -> pandas.DataFrame:
    """Put measurements under one another."""
    # As objects, a share of targets that no row has is no reason for a warning.
    return pandas.concat([frame.astype({"targeted": float}) for frame in frames], ignore_index=True)


def printed_table2() -> pandas.DataFrame:
    """Table 2 as printed, in the paper's order, with the columns of `Pool.measure` that it has."""
    return g17.printed_ratios("Table 2").rename(columns={"what": "attack"}).assign(mode="printed")


def with_printed(measurements: pandas.DataFrame) -> pandas.DataFrame:
    """Add the printed R1 of the same row and attack as a column "printed R1"."""
    printed = printed_table2().set_index(["row", "attack"])["R1"].rename("printed R1")
    return measurements.join(printed, on=["row", "attack"])


def tgsm_name(epsilon: float) -> str:
    """Name an attack as `data/published/g17.csv` does: "TGSM eps=0.05"."""
    return f"TGSM eps={epsilon:g}"


def _tgsm_rows(pools: Iterable[Pool]) -> list[tuple[Pool, float]]:
    return [(pool, epsilon) for pool in pools for epsilon in TGSM_EPSILONS[pool.image_set]]


def tgsm_scan(pools: Iterable[Pool], steps: Sequence[int], mode: g17.Mode) -> pandas.DataFrame:
    """Measure Table 2's TGSM rows after several numbers of steps of ε, without a ball, toward the least likely class.

    The images are made anew each time: that is cheap, and all of them would fill gigabytes of a cache.

    Parameters
    ----------
    pools : iterable of Pool
    steps : sequence of int
        Rising.
    mode : g17.Mode
    """
    found = []
    for pool, epsilon in _tgsm_rows(pools):
        model = models.load_trained(mode.networks[pool.image_set])
        sweep = attacks.tgsm_sweep(model, pool.images, pool.labels, steps, epsilon)
        for count, batch in zip(steps, track(sweep, f"TGSM on {pool.image_set}", len(steps)), strict=True):
            found.append(pool.measure_attack(batch, mode, tgsm_name(epsilon), "steps of ε", count))
    return joined(found)


def jsma_scan(
    pools: Iterable[Pool], gammas: Sequence[float], variants: Sequence[str], mode: g17.Mode, seed: int
) -> pandas.DataFrame:
    """Measure Table 2's JSMA rows at several budgets γ, for each way of running JSMA.

    Parameters
    ----------
    pools : iterable of Pool
    gammas : sequence of float
        Shares of the features that may be changed.
    variants : sequence of str
        Of `VARIANTS`.
    mode : g17.Mode
    seed : int
        Of random targets.
    """
    return joined(
        pool.measure_attack(batch, mode, "JSMA", how, gamma)
        for pool in pools
        for how in variants
        for gamma, batch in zip(gammas, _jsma(pool, gammas, how, mode, seed), strict=True)
    )


def _jsma(pool: Pool, gammas: Sequence[float], how: str, mode: g17.Mode, seed: int) -> list[AdversarialBatch]:
    if how not in VARIANTS:
        raise ValueError(f"a way to run JSMA must be one of {', '.join(VARIANTS)}, but is {how!r}")
    options = VARIANTS[how]
    seed = seed if options.get("targets") == "random" else None
    network = mode.networks[pool.image_set]
    return pool.stored(attacks.jsma_sweep, network, chunk=100, seed=seed, gammas=list(gammas), **options)


def worst_factor(measurements: pandas.DataFrame) -> float:
    """By which factor, up or down, the worst of some rows is off the printed R1; the mean of channels counts for none.

    Infinite where a ratio is zero.
    """
    rows = with_printed(measurements[measurements["row"] != COMBINED])
    factors = rows["R1"] / rows["printed R1"]
    return float(np.maximum(factors, 1 / factors).max())


def best_amount(scan: pandas.DataFrame) -> float:
    """Return the one amount whose worst row is least off the printed R1."""
    return min(scan["amount"].unique().tolist(), key=lambda amount: worst_factor(scan[scan["amount"] == amount]))


def crossing(amounts: np.ndarray, ratios: np.ndarray, goal: float) -> float:
    """Interpolate the amount at which R1 first reaches `goal`, linearly in log R1 against log amount.

    Parameters
    ----------
    amounts, ratios : (n,) float arrays
        What was scanned, in any order, and R1.
    goal : float

    Returns
    -------
    float
        NaN where R1 does not reach the goal, or has reached it before the first scanned amount.
    """
    order = np.argsort(amounts)
    amounts, ratios = np.asarray(amounts)[order], np.asarray(ratios)[order]
    above = np.flatnonzero(ratios >= goal)
    if not len(above) or above[0] == 0:
        return float("nan")
    pair = slice(above[0] - 1, above[0] + 1)
    return float(np.exp(np.interp(np.log(goal), np.log(ratios[pair]), np.log(amounts[pair]))))


def free_steps(pools: Iterable[Pool], steps: int, mode: g17.Mode) -> pandas.DataFrame:
    """Measure the TGSM rows after one number of steps of ε without a ball, as `tgsm_scan` does, with images kept."""
    return joined(
        pool.measure_attack(
            _free(pool, mode.networks[pool.image_set], epsilon, steps), mode, tgsm_name(epsilon), "steps of ε", steps
        )
        for pool, epsilon in _tgsm_rows(pools)
    )


def _free(pool: Pool, network: str, epsilon: float, steps: int) -> AdversarialBatch:
    return pool.stored(attacks.tgsm, network, epsilon=epsilon, steps=steps)


def pgd_within_ball(pools: Iterable[Pool], mode: g17.Mode) -> pandas.DataFrame:
    """Measure PGD within the largest ε of Table 2, a row an image set, as `controls` does."""
    found = []
    for pool in pools:
        epsilon = max(TGSM_EPSILONS[pool.image_set])
        batch = _in_ball(attacks.pgd, pool, mode, epsilon)
        found.append(pool.measure_attack(batch, mode, f"{PGD} within {epsilon:g}", "attack", 0).tail(1))
    return joined(found)


def within_ball(pools: Iterable[Pool], mode: g17.Mode) -> pandas.DataFrame:
    """Measure the TGSM rows where ε is what Kurakin et al. call ε: the L∞ radius of all steps together."""
    return joined(
        pool.measure_attack(
            _in_ball(attacks.tgsm, pool, mode, epsilon), mode, tgsm_name(epsilon), "within an ε-ball", epsilon
        )
        for pool, epsilon in _tgsm_rows(pools)
    )


def _in_ball(attack: Any, pool: Pool, mode: g17.Mode, epsilon: float) -> AdversarialBatch:
    quarter = epsilon / 4
    size = {"epsilon": quarter, "ball": epsilon} if attack is attacks.tgsm else {"epsilon": epsilon, "step": quarter}
    return pool.stored(attack, mode.networks[pool.image_set], steps=BALL_STEPS, **size)


def controls(
    pools: Mapping[str, tuple[Pool, Pool]], gamma: float, mode: g17.Mode, *, seed: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """Put attacks beside changes of the same size that ask no network and aim at nothing, image by image.

    Beside TGSM and PGD within the ball: coin flips of ±ε (the same L∞), and Gaussian noise, a shift and a rotation with
    the L2 norm of PGD's change. Beside JSMA: the last three, with the L2 norm of JSMA's.

    Parameters
    ----------
    pools : dict
        Image set → (pool for TGSM and PGD, pool for JSMA).
    gamma : float
        Budget of JSMA.
    mode : g17.Mode
    seed : int
        Of JSMA's random targets, where a variant has them.
    rng : numpy.random.Generator
        Of the aimless changes.

    Returns
    -------
    pandas.DataFrame
        Rows "MNIST" and "CIFAR-10 (combined)"; `how` is "attack" or "aimless", `attack` names the change, `amount` is 0
        for the group of the ball and 1 for JSMA's.
    """
    found = []
    for image_set, (free, few) in pools.items():
        model = models.load_trained(mode.networks[image_set])
        epsilon = max(TGSM_EPSILONS[image_set])
        tgsm, pgd = (_in_ball(attack, free, mode, epsilon) for attack in (attacks.tgsm, attacks.pgd))
        (jsma,) = _jsma(few, [gamma], CORRECTED_VARIANT, mode, seed)
        attacked = [(free, 0, f"TGSM within {epsilon:g}", tgsm), (free, 0, f"{PGD} within {epsilon:g}", pgd),
                    (few, 1, f"JSMA, γ = {gamma:g}", jsma)]  # fmt: skip
        mine = [pool.measure_attack(batch, mode, name, "attack", group) for pool, group, name, batch in attacked]
        aimless = [(free, 0, f"coin flips of ±{epsilon:g}", attacks.random_sign_noise(free.images, epsilon, rng))]
        for pool, group, l2, whose in ((free, 0, pgd.l2, "PGD"), (few, 1, jsma.l2, "JSMA")):
            aimless += [(pool, group, f"{name}, L2 of {whose}", moved) for name, moved in _as_far(pool, l2, rng)]
        for pool, group, name, moved in track(aimless, f"aimless changes of {image_set}", len(aimless)):
            effect = effect_of_change(model, pool.images, moved, pool.labels)
            mine.append(pool.measure(moved, mode, name, "aimless", group, effect))
        # One row an image set, the last: colour images as a whole.
        whole = joined(line.tail(1) for line in mine)
        found.append(whole.sort_values("amount", kind="stable"))
    return joined(found)


def _as_far(pool: Pool, l2: np.ndarray, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """Return noise, shift and rotation of the pool's images with L2 norms (n,)."""
    with warnings.catch_warnings():
        # A few images of thin strokes cannot be shifted as far; the norm that was reached is reported.
        warnings.simplefilter("ignore", UserWarning)
        return [
            ("Gaussian noise", attacks.gaussian_noise(pool.images, rng, l2=l2)),
            ("shift", attacks.shifted(pool.images, l2=l2, direction=rng.uniform(0, 360, len(l2)))),
            ("rotation", attacks.rotated(pool.images, l2=l2)),
        ]


def real_real_by_pool(
    images: np.ndarray, modes: Sequence[g17.Mode], *, draws: int, batch_size: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """Mean R2 when both index sets are drawn from N of `images` (10,000, c, h, w) only, at even steps.

    The smaller N, the more images do the two batches share (m/N of each on average), and shared images pull R2 down.

    Returns
    -------
    pandas.DataFrame
        Mean R2, a column a mode, indexed by N.
    """
    curves: dict[str, dict[int, float]] = {mode.name: {} for mode in modes}
    for size in track(POOL_SIZES, "real-real by pool", len(POOL_SIZES)):
        flat = images[np.arange(size) * len(images) // size].reshape(size, -1)
        a, b = (draw_indices(size, draws, batch_size, rng) for _ in range(2))
        for mode in modes:
            curves[mode.name][size] = float(mean_ratios(flat, flat, a, b, mode.kernel).mean())
    return pandas.DataFrame(curves)


def clean_fits(
    images: np.ndarray, mode: g17.Mode, draws: int, batch_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, BatchFit]:
    """Fit clean batches of `images` (n, c, h, w) against clean ones: index sets a, b, (t, m) int64, and the fits."""
    a, b = (draw_indices(len(images), draws, batch_size, rng) for _ in range(2))
    flat = images.reshape(len(images), -1)
    return a, b, fit_indices(flat, flat, a, b, mode.kernel)


def by_network(pool: Pool, steps: int, networks: Sequence[str], modes: Sequence[g17.Mode]) -> pandas.DataFrame:
    """Run the same TGSM (the pool's largest ε of Table 2, `steps` steps) on several networks, under each mode's kernel.

    Returns
    -------
    pandas.DataFrame
        As from `Pool.measure`, with the network's name in a column "network".
    """
    epsilon, found = max(TGSM_EPSILONS[pool.image_set]), []
    for network in networks:
        batch = _free(pool, network, epsilon, steps)
        found += [
            pool.measure_attack(batch, mode, tgsm_name(epsilon), "steps of ε", steps).assign(network=network)
            for mode in modes
        ]
    return joined(found)
