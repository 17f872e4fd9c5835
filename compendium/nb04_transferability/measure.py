"""G17 §4.4 rerun: a detector that was shown no attack meets JSMA and TGSM, and aimless changes of the same size.

The paper prints neither the number of TGSM's steps nor JSMA's budget. Here both are scanned, the setting that comes
closest to Table 2 is taken for the rerun *as published*, and what it leaves unexplained is said. *Corrected* is each
attack as its own authors describe it: TGSM within an L∞ ball of radius ε, JSMA over pairs, by logits, until its target.

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017), §4.4.
A. Kurakin, I. Goodfellow, S. Bengio, arXiv:1607.02533 (2016); N. Papernot et al., arXiv:1511.07528 (2015).
"""

import functools
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
from compendium.claims import published
from compendium.common import g17
from compendium.common.protocol import RatioComparison, Summary, draw_indices, mean_ratios

PARTS = {
    "mnist": {"MNIST": (0,)},
    "cifar10": {
        "CIFAR-10 (red)": (0,),
        "CIFAR-10 (green)": (1,),
        "CIFAR-10 (blue)": (2,),
        "CIFAR-10 (combined)": (0, 1, 2),
    },
}
"""Image set → row of Table 2 → channels whose estimates are averaged."""

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

_MEAN_OF_CHANNELS = "CIFAR-10 (combined)"


@dataclass(frozen=True)
class Effect:
    """What a change did to images and to the network that read them.

    Attributes
    ----------
    fooled : float
        Share of the images read rightly before that are misread afterwards.
    targeted : float or None
        Share read as the target, for targeted attacks.
    l0, l2, linf : float
        Median number of changed features, mean norms in pixels of [0, 1].
    """

    fooled: float
    targeted: float | None
    l0: float
    l2: float
    linf: float

    @classmethod
    def of_attack(cls, batch: AdversarialBatch) -> "Effect":
        """Sum up an attack's result."""
        fooled = float(np.sum(batch.success) / max(np.sum(batch.clean_correct), 1))
        norms = float(np.median(batch.l0)), float(np.mean(batch.l2)), float(np.mean(batch.linf))
        return cls(fooled, batch.targeted_success, *norms)

    @classmethod
    def of_change(cls, model: nn.Module, clean: np.ndarray, moved: np.ndarray, labels: np.ndarray) -> "Effect":
        """Measure any change of images (n, c, h, w) with labels (n,), read by `model`."""
        right = models.predict(model, clean) == labels
        still = models.predict(model, moved) == labels
        change = (moved - clean).reshape(len(clean), -1)
        return cls(
            float(np.sum(right & ~still) / max(right.sum(), 1)),
            None,
            float(np.median(np.count_nonzero(change, axis=1))),
            float(np.mean(np.linalg.norm(change, axis=1))),
            float(np.mean(np.abs(change).max(axis=1))),
        )


@dataclass(frozen=True)
class Measurement:
    """R1 and R2 of one row under one change of the images.

    Attributes
    ----------
    row, attack : str
        As in Table 2: "CIFAR-10 (red)" and "JSMA" or "TGSM eps=0.05"; a control has its own name.
    mode : str
        "as published" or "corrected": the kernel and the network.
    how : str
        Which way the attack was run.
    amount : float
        TGSM's number of steps, JSMA's budget γ, or a control's size.
    comparison : RatioComparison
        The draws.
    effect : Effect
    """

    row: str
    attack: str
    mode: str
    how: str
    amount: float
    comparison: RatioComparison
    effect: Effect

    @property
    def r1(self) -> float:
        """Mean R1 over the draws."""
        return self.comparison.r1_summary.mean

    @property
    def r2(self) -> float:
        """Mean R2 over the draws."""
        return self.comparison.r2_summary.mean

    @property
    def apart(self) -> bool:
        """Whether the 95 % intervals of R1 and R2 do not touch."""
        first, second = self.comparison.r1_summary, self.comparison.r2_summary
        return first.low > second.high or first.high < second.low


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
        everything, labels = _everything(image_set)
        rows = _rows(len(everything), images)
        a = draw_indices(len(everything), draws, batch_size, rng)
        b = draw_indices(len(rows), draws, batch_size, rng)
        return cls(image_set, everything, everything[rows], labels[rows], a, b)

    def ratios(self, suspects: np.ndarray, kernel: str) -> np.ndarray:
        """Mean density ratio of each draw and channel, (t, c), of clean numerators against `suspects` (n, c, h, w)."""
        n, channels = suspects.shape[:2]
        used, rows = np.unique(self.a, return_inverse=True)
        return np.stack(
            [
                mean_ratios(
                    self.everything[used, c].reshape(len(used), -1),
                    suspects[:, c].reshape(n, -1),
                    rows.reshape(self.a.shape),
                    self.b,
                    kernel,
                )
                for c in range(channels)
            ],
            axis=1,
        )

    def measure(
        self, suspects: np.ndarray, mode: g17.Mode, attack: str, how: str, amount: float, effect: Effect
    ) -> list[Measurement]:
        """Compare changed images (n, c, h, w) with clean ones, one Measurement for each row of this image set."""
        if suspects.shape != self.images.shape:
            raise ValueError(f"suspects must have the shape {self.images.shape} of images, but has {suspects.shape}")
        if mode.kernel not in self._real:
            self._real[mode.kernel] = self.ratios(self.images, mode.kernel)
        r1, r2 = self.ratios(suspects, mode.kernel), self._real[mode.kernel]
        found = []
        for row, channels in PARTS[self.image_set].items():
            sides = (side[:, list(channels)].mean(axis=1) for side in (r1, r2))
            found.append(Measurement(row, attack, mode.name, how, amount, RatioComparison(*sides), effect))
        return found

    def measure_attack(
        self, batch: AdversarialBatch, mode: g17.Mode, attack: str, how: str, amount: float
    ) -> list[Measurement]:
        """Do the same with what an attack made of this pool's images."""
        return self.measure(batch.images, mode, attack, how, amount, Effect.of_attack(batch))


@functools.cache
def _everything(image_set: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the test images once: every load checks its files byte for byte, which takes a second."""
    return g17.test_images(image_set, 0)


def _rows(n: int, count: int) -> np.ndarray:
    """Choose `count` of n rows (0: all) at even steps, as `g17.test_images` does."""
    if count > n:
        raise ValueError(f"images must be at most {n}, the test images there are, but is {count}")
    return np.arange(count or n) * n // (count or n)


def printed(row: str, attack: str, side: str = "R1") -> float:
    """Table 2 as printed: mean of `side` ("R1" or "R2") in a row under an attack such as "TGSM eps=0.1"."""
    return published.value("g17", "Table 2", row, f"{side} {attack}")


def table2_rows() -> list[tuple[str, str]]:
    """Rows of Table 2 in the paper's order, as (row, attack)."""
    entries = published.load("g17", "Table 2")
    return [(e.row, e.column.removeprefix("R1 ")) for e in entries if e.column.startswith("R1 ")]


def tgsm_name(epsilon: float) -> str:
    """Name an attack as `data/published/g17.csv` does: "TGSM eps=0.05"."""
    return f"TGSM eps={epsilon:g}"


def tgsm_scan(
    pools: Iterable[Pool], steps: Sequence[int], mode: g17.Mode, networks: Mapping[str, str] | None = None
) -> list[Measurement]:
    """Measure Table 2's TGSM rows after several numbers of steps of ε, without a ball, toward the least likely class.

    The images are made anew each time: that is cheap, and all of them would fill gigabytes of a cache.

    Parameters
    ----------
    pools : iterable of Pool
    steps : sequence of int
        Rising.
    mode : g17.Mode
        Its kernel and, unless given otherwise, its networks.
    networks : dict, optional
        Image set → attacked network.
    """
    found = []
    for pool in pools:
        model = models.load_trained((networks or mode.networks)[pool.image_set])
        for epsilon in TGSM_EPSILONS[pool.image_set]:
            sweep = attacks.tgsm_sweep(model, pool.images, pool.labels, steps, epsilon)
            for count, batch in zip(steps, track(sweep, f"TGSM on {pool.image_set}", len(steps)), strict=True):
                found += pool.measure_attack(batch, mode, tgsm_name(epsilon), "steps of ε", count)
    return found


def jsma_scan(
    pools: Iterable[Pool], gammas: Sequence[float], variants: Sequence[str], mode: g17.Mode, seed: int
) -> list[Measurement]:
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
    found = []
    for pool in pools:
        for how in variants:
            for gamma, batch in zip(gammas, _jsma(pool, gammas, how, mode, seed), strict=True):
                found += pool.measure_attack(batch, mode, "JSMA", how, gamma)
    return found


def _jsma(pool: Pool, gammas: Sequence[float], how: str, mode: g17.Mode, seed: int) -> list[AdversarialBatch]:
    if how not in VARIANTS:
        raise ValueError(f"a way to run JSMA must be one of {', '.join(VARIANTS)}, but is {how!r}")
    options = VARIANTS[how]
    return stored_attack(
        attacks.jsma_sweep,
        mode.networks[pool.image_set],
        pool.images,
        pool.labels,
        chunk=100,
        seed=seed if options.get("targets") == "random" else None,
        gammas=list(gammas),
        **options,
    )


def chosen(
    scan: Iterable[Measurement], *, attack: str = "", row: str = "", how: str = "", amount: float | None = None
) -> list[Measurement]:
    """Filter measurements: those whose attack and row begin with, and whose way and amount are, what is given."""
    return [
        m
        for m in scan
        if m.attack.startswith(attack)
        and m.row.startswith(row)
        and how in ("", m.how)
        and (amount is None or m.amount == amount)
    ]


def worst_factor(measurements: Iterable[Measurement]) -> float:
    """By which factor, up or down, the worst of some rows is off the printed R1; the mean of channels counts for none.

    Infinite where a ratio is zero.
    """
    factors = [m.r1 / printed(m.row, m.attack) for m in measurements if m.row != _MEAN_OF_CHANNELS]
    return max(max(f, 1 / f) if f > 0 else float("inf") for f in factors)


def best_amount(scan: Sequence[Measurement]) -> float:
    """Return the one amount whose worst row is least off the printed R1."""
    amounts = dict.fromkeys(m.amount for m in scan)
    return min(amounts, key=lambda amount: worst_factor(chosen(scan, amount=amount)))


def crossing(scan: Sequence[Measurement]) -> float | None:
    """Interpolate the amount at which R1 of one row first reaches the printed value; None if it does not.

    Linear in log R1 against log amount, between scanned amounts.

    Parameters
    ----------
    scan : sequence of Measurement
        Of one row, one attack and one way.
    """
    if len({(m.row, m.attack, m.how) for m in scan}) != 1:
        raise ValueError("scan must be of one row, one attack and one way, and not empty")
    line = sorted(scan, key=lambda m: m.amount)
    goal = printed(line[0].row, line[0].attack)
    for before, after in zip([None, *line[:-1]], line, strict=True):
        if after.r1 >= goal:
            if before is None:
                return None  # reached before the first scanned amount: where, is not known
            low, high = np.log([before.r1, after.r1])
            share = (np.log(goal) - low) / (high - low)
            return float(np.exp((1 - share) * np.log(before.amount) + share * np.log(after.amount)))
    return None


def crossings(scan: Sequence[Measurement]) -> pandas.DataFrame:
    """Show for each row and way which amount gives the printed R1, and the largest R1 that was scanned.

    Returns
    -------
    pandas.DataFrame
        One line a row, attack and way: printed, reached at (None: not within the scan), largest R1.
    """
    lines = []
    for row, attack, how in dict.fromkeys((m.row, m.attack, m.how) for m in scan):
        mine = [m for m in chosen(scan, attack=attack, how=how) if m.row == row and m.attack == attack]
        at = crossing(mine)
        lines.append(
            {
                "row": row,
                "attack": attack,
                "way": how,
                "printed R1": printed(row, attack),
                "reached at": None if at is None else round(at, 3),
                "largest R1 scanned": round(max(m.r1 for m in mine), 2),
            }
        )
    return pandas.DataFrame(lines).set_index(["row", "attack"])


def within_ball(pools: Iterable[Pool], mode: g17.Mode) -> list[Measurement]:
    """Measure the TGSM rows where ε is what Kurakin et al. call ε: the L∞ radius of all steps together."""
    found = []
    for pool in pools:
        for epsilon in TGSM_EPSILONS[pool.image_set]:
            batch = _in_ball(attacks.tgsm, pool, mode, epsilon)
            found += pool.measure_attack(batch, mode, tgsm_name(epsilon), "within an ε-ball", epsilon)
    return found


def _in_ball(attack: Any, pool: Pool, mode: g17.Mode, epsilon: float) -> AdversarialBatch:
    size = (
        {"epsilon": epsilon / 4, "ball": epsilon}
        if attack is attacks.tgsm
        else {"epsilon": epsilon, "step": epsilon / 4}
    )
    network = mode.networks[pool.image_set]
    return stored_attack(attack, network, pool.images, pool.labels, steps=BALL_STEPS, **size)


def controls(
    pools: Mapping[str, tuple[Pool, Pool]],
    gamma: float,
    mode: g17.Mode,
    *,
    seed: int,
    rng: np.random.Generator,
) -> dict[str, list[Measurement]]:
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
    dict
        "MNIST" and "CIFAR-10 (combined)" → measurements; `how` is "attack" or "aimless", `attack` names the change,
        `amount` is 0 for the group of the ball and 1 for JSMA's.
    """
    found: dict[str, list[Measurement]] = {}
    for image_set, (free, few) in pools.items():
        model = models.load_trained(mode.networks[image_set])
        epsilon = max(TGSM_EPSILONS[image_set])
        pgd = _in_ball(attacks.pgd, free, mode, epsilon)
        (jsma,) = _jsma(few, [gamma], CORRECTED_VARIANT, mode, seed)
        mine = []
        for name, batch in ((f"TGSM within {epsilon:g}", _in_ball(attacks.tgsm, free, mode, epsilon)),
                            (f"PGD within {epsilon:g}", pgd)):  # fmt: skip
            mine += free.measure_attack(batch, mode, name, "attack", 0)
        mine += few.measure_attack(jsma, mode, f"JSMA, γ = {gamma:g}", "attack", 1)
        flips = attacks.random_sign_noise(free.images, epsilon, rng)
        aimless = [(free, 0, f"coin flips of ±{epsilon:g}", flips)]
        for pool, group, l2, whose in ((free, 0, pgd.l2, "PGD"), (few, 1, jsma.l2, "JSMA")):
            aimless += [(pool, group, f"{name}, L2 of {whose}", moved) for name, moved in _as_far(pool, l2, rng)]
        for pool, group, name, moved in track(aimless, f"aimless changes of {image_set}", len(aimless)):
            effect = Effect.of_change(model, pool.images, moved, pool.labels)
            mine += pool.measure(moved, mode, name, "aimless", group, effect)
        last = list(PARTS[image_set])[-1]
        found[last] = sorted((m for m in mine if m.row == last), key=lambda m: m.amount)
    return found


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
    modes: Sequence[g17.Mode], *, draws: int, batch_size: int, rng: np.random.Generator
) -> dict[str, dict[int, float]]:
    """Mean R2 on MNIST when both index sets are drawn from N test images only.

    The smaller N, the more images do the two batches share (m/N of each on average), and shared images pull R2 down.

    Returns
    -------
    dict
        Mode → N → mean R2.
    """
    curves: dict[str, dict[int, float]] = {mode.name: {} for mode in modes}
    everything, _ = _everything("mnist")
    for size in track(POOL_SIZES, "real-real by pool", len(POOL_SIZES)):
        flat = everything[_rows(len(everything), size)].reshape(size, -1)
        a, b = (draw_indices(size, draws, batch_size, rng) for _ in range(2))
        for mode in modes:
            curves[mode.name][size] = float(mean_ratios(flat, flat, a, b, mode.kernel).mean())
    return curves


def by_network(
    pool: Pool, steps: int, networks: Sequence[str], modes: Sequence[g17.Mode]
) -> dict[str, list[Measurement]]:
    """Run the same TGSM (the pool's largest ε of Table 2, `steps` steps) on several networks, under each mode's kernel.

    Returns
    -------
    dict
        Network → one Measurement a mode and row.
    """
    epsilon = max(TGSM_EPSILONS[pool.image_set])
    found = {}
    for network in networks:
        batch = stored_attack(attacks.tgsm, network, pool.images, pool.labels, epsilon=epsilon, steps=steps)
        found[network] = [
            m for mode in modes for m in pool.measure_attack(batch, mode, tgsm_name(epsilon), "steps of ε", steps)
        ]
    return found


def shared_pool_size(curve: Mapping[int, float], value: float) -> float | None:
    """Interpolate the number of images at which mean R2 first takes `value`; None if it does not."""
    sizes, means = np.array(list(curve)), np.maximum.accumulate(list(curve.values()))
    if not means[0] < value <= means[-1]:
        return None
    return float(np.exp(np.interp(value, means, np.log(sizes))))


def sizes_frame(measurements: Iterable[Measurement]) -> pandas.DataFrame:
    """Show what attacks achieved and how far they moved images: one line an attack, image set, mode and way."""
    lines = {}
    for m in measurements:
        e, images = m.effect, m.row.split(" (")[0]
        lines[images, m.attack, m.mode, m.how] = {
            "images": images,
            "attack": m.attack,
            "mode": m.mode,
            "way": m.how if m.how in ("attack", "aimless") else f"{m.how}, {m.amount:g}",
            "fooled": round(e.fooled, 3),
            "read as target": None if e.targeted is None else round(e.targeted, 3),
            "changed features (median)": e.l0,
            "L2": round(e.l2, 2),
            "L∞": round(e.linf, 2),
        }
    return pandas.DataFrame(lines.values()).set_index(["images", "attack", "mode"])


def table2(as_published: Iterable[Measurement], corrected: Iterable[Measurement]) -> dict[str, dict]:
    """Put Table 2 as printed beside both reruns: mode → (row, attack) → (R1, R2), each a `protocol.Summary`."""
    tables: dict[str, dict] = {"published": {}, "as published": {}, "corrected": {}}
    for row, attack in table2_rows():
        entries = [published.lookup("g17", "Table 2", row, f"{side} {attack}") for side in ("R1", "R2")]
        tables["published"][row, attack] = tuple(Summary(e.value, e.low, e.high) for e in entries)
    for mode, measurements in (("as published", as_published), ("corrected", corrected)):
        for m in measurements:
            tables[mode][m.row, m.attack] = (m.comparison.r1_summary, m.comparison.r2_summary)
    return tables


def scan_panels(scan: Iterable[Measurement]) -> tuple[dict, dict[str, float]]:
    """Arrange a scan for `plotting_g17.attack_scan`: title → way → (amounts, R1), and title → printed R1.

    The mean of the channels is left out.
    """
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    printed_r1 = {}
    for m in scan:
        if m.row != _MEAN_OF_CHANNELS:
            title = f"{m.row}\n{m.attack.replace('eps=', 'ε = ')}"
            amounts, ratios = panels.setdefault(title, {}).setdefault(m.how, ([], []))
            amounts.append(m.amount)
            ratios.append(m.r1)
            printed_r1[title] = printed(m.row, m.attack)
    return panels, printed_r1
