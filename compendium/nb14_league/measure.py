"""The league: power against attacks, and flags on changes without an aim, at 5 % of clean batches for all."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from advlib.detectors.aim import FAMILIES, SIZES, AimTest, changes
from compendium.nb14_league import adaptive, attacks, detectors
from compendium.nb14_league.attacks import Crafted, Effort
from compendium.nb14_league.images import Images

LEVEL = 0.05
BATCHES = (1, 5, 25, 100)
LOOKED = 250  # images of each pool whose looks are kept, so that another score can be tried later


@dataclass(frozen=True)
class Scale:
    """How much is measured; the defaults are those of the stored run.

    Attributes
    ----------
    halves : int
        Random halves of the test images, each measured by itself: their spread is a delete-half jackknife, about the
        standard error of the whole.
    clean, draws : int
        Clean batches that set a threshold, and batches of each pool, for each half.
    images : int
        Test images, and calibration images, at most.
    slow, changed, evading : int
        Images for slow attacks, for each change without an aim, and for attackers who know a detector.
    learned, calibrated : int
        Of `AimTest`.
    permutations : int
        Of `AimTest`.
    checked : int
        Batches of each change without an aim that *aimed* is asked about, over all halves: how often it is wrong. The
        changes are of few images, which many of these batches share.
    batches : tuple of int
        Batch sizes.
    aimed, changes : bool
        Whether aim is asked, and whether changes without an aim are tried.
    attacks : tuple of str
        Names, or beginnings of names, of the attacks; all if empty.
    effort : Effort
    """

    halves: int = 5
    clean: int = 199
    draws: int = 100
    images: int = 1000
    slow: int = 300
    changed: int = 300
    evading: int = 150
    learned: int = 600
    calibrated: int = 600
    permutations: int = 999
    checked: int = 1000
    batches: tuple[int, ...] = BATCHES
    aimed: bool = True
    changes: bool = True
    attacks: tuple[str, ...] = ()
    effort: Effort = field(default_factory=Effort)


@dataclass(eq=False)
class Setting:
    """One image set with its network, detectors and clean batches, made once by `prepare`."""

    images: Images
    model: nn.Module
    league: detectors.League
    aims: dict[str, AimTest]
    scale: Scale
    epsilons: tuple[float, ...]
    halves: list[np.ndarray]
    nulls: dict[int, list[dict[str, np.ndarray]]]
    seconds: dict[str, float]
    looks: dict[str, np.ndarray] = field(default_factory=dict)


def prepare(
    images: Images, model: nn.Module, second: nn.Module | None, epsilons: tuple[float, ...], scale: Scale, seed: int = 0
) -> Setting:
    """Fit all detectors, and score the clean batches that set the thresholds."""
    clock = time.monotonic()
    league = detectors.League(model, images.reference, images.reference_labels)
    seconds = {"fit the detectors": time.monotonic() - clock}
    aims = {}
    for name, other in (("aim", None), ("aim, two networks", second)):
        if scale.aimed and (name == "aim" or other is not None):
            clock = time.monotonic()
            test = AimTest(
                model, other, learned=scale.learned, calibrated=scale.calibrated, draws=scale.permutations,
                random_state=seed,
            )  # fmt: skip
            aims[name] = test.fit(images.reference.cpu().numpy(), images.calibration.cpu().numpy())
            seconds[f"fit {name}"] = time.monotonic() - clock
    rng = np.random.default_rng(seed)
    n = len(images.test)
    halves = [rng.permutation(n)[: n // 2] for _ in range(scale.halves)]
    setting = Setting(images, model, league, aims, scale, epsilons, halves, {}, seconds)
    pool = league.look(images.test)
    measured = detectors.measure(league, pool, aims)
    for m in scale.batches:
        rows = [batches(half, m, scale.clean, rng) for half in halves]
        found = detectors.statistics(league, pool, measured, np.concatenate(rows))
        setting.nulls[m] = [
            {name: values[k * scale.clean : (k + 1) * scale.clean] for name, (values, _) in found.items()}
            for k in range(len(halves))
        ]
    return setting


def batches(rows: np.ndarray, m: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw batches (draws, m) without replacement within each; of one image, each once before any twice."""
    if m == 1:
        return np.resize(rng.permutation(rows), draws)[:, None]
    return np.stack([rng.choice(rows, m, replace=False) for _ in range(draws)])


def flagged(null: np.ndarray, found: np.ndarray, two_sided: bool, rng: np.random.Generator) -> float:
    """Share of batches that rank among the clean ones where at most 5 % of further clean ones would.

    Of several columns the largest distance from the clean median counts, in median absolute deviations. Ties, of
    which counts have many, are broken at random.
    """
    if null.shape[1] > 1:
        middle = np.median(null, axis=0)
        spread = np.median(np.abs(null - middle), axis=0)
        spread[spread == 0] = 1.0
        null, found = ((np.abs(values - middle) / spread).max(axis=1, keepdims=True) for values in (null, found))
        two_sided = False
    both = np.concatenate([null[:, 0], found[:, 0]])
    both = both + 1e-9 * (np.ptp(both) or 1.0) * rng.random(len(both))
    null, found = np.sort(both[: len(null)]), both[len(null) :]
    most = LEVEL / (2 if two_sided else 1) * (len(null) + 1) + 1e-9
    beyond = 1 + len(null) - np.searchsorted(null, found) <= most
    if two_sided:
        beyond |= 1 + np.searchsorted(null, found) <= most
    return float(beyond.mean())


def powers(
    setting: Setting,
    images: torch.Tensor,
    rows: np.ndarray,
    rng: np.random.Generator,
    left_out: tuple[str, ...] = (),
    sizes: tuple[int, ...] | None = None,
    asked: int | None = None,
) -> dict[str, dict[int, list[float]]]:
    """Share of a pool's batches that each detector flags: detector → batch size → one share a half.

    Parameters
    ----------
    images : (k, c, h, w) tensor
        The pool.
    rows : (k,) int array
        Which test images they were made from.
    left_out : tuple of str
        Families that `AimTest` is asked to leave out as well, under a name of its own.
    sizes : tuple of int, optional
        Batch sizes, in place of the scale's.
    asked : int, optional
        Batches of each half that `AimTest` is asked about, in place of the scale's draws.
    """
    pool = setting.league.look(images)
    measured = detectors.measure(setting.league, pool, setting.aims)
    out: dict[str, dict[int, list[float]]] = {}
    members = [np.flatnonzero(np.isin(rows, half)) for half in setting.halves]
    for m in sizes or setting.scale.batches:
        if min(map(len, members)) < max(m, 2):
            continue
        drawn = [batches(own, m, setting.scale.draws, rng) for own in members]
        together = np.concatenate(drawn)
        found = detectors.statistics(setting.league, pool, measured, together)
        for name, (values, two_sided) in found.items():
            parts = np.split(values, len(drawn))
            out.setdefault(name, {})[m] = [
                flagged(setting.nulls[m][k][name], part, two_sided, np.random.default_rng(k))
                for k, part in enumerate(parts)
            ]
        if asked is not None:
            together = np.concatenate([batches(own, m, asked, rng) for own in members])
        for name, aim in setting.aims.items():
            ranked = aim.p_values(measured[name], together)
            verdicts = {f"{name} · verdict": ranked.p}
            if left_out:
                verdicts[f"{name} · verdict, family left out"] = ranked.among(aim.bank_.of(left_out)).p
            for title, p in verdicts.items():
                out.setdefault(title, {})[m] = [float((part <= LEVEL).mean()) for part in np.split(p, len(drawn))]
    return out


FREE = ("spatial", "DeepFool")
"""Quick attacks without a bound ε."""

Pools = Iterator[tuple[str, str, Callable[[], tuple[torch.Tensor, np.ndarray, dict[str, Any]]]]]
"""(kind, name, how to make it → images, rows, what to keep of it)."""


def plan(setting: Setting, seed: int = 0) -> Pools:
    """Yield all pools of the league, in the order of their importance; nothing is made before it is asked for."""
    quick, slow = [
        {name: attack for name, (attack, late) in attacks.catalogue(setting.scale.effort).items() if late is part}
        for part in (False, True)
    ]
    made: dict[str, Crafted] = {}

    def crafted(name: str, attack: attacks.Attack, epsilon: float, count: int | None = None) -> Callable:
        def make() -> tuple[torch.Tensor, np.ndarray, dict[str, Any]]:
            rng = np.random.default_rng([seed, len(name)])
            images, labels = setting.images.test[:count], setting.images.test_labels[:count]
            made[name] = attacks.craft(attack, setting.model, images, labels, epsilon, rng)
            return _kept(made[name])

        return make

    def bounded(epsilon: float, names: Sequence[str]) -> Pools:
        for name in names:
            title = f"{name}, ε = {epsilon:g}"
            yield "attack", title, crafted(title, quick[name], epsilon)

    late = "Square"
    early = [name for name in quick if name not in (*FREE, late)]
    yield "change", "nothing", lambda: (setting.images.test, np.arange(len(setting.images.test)), {})
    yield from bounded(setting.epsilons[-1], early)
    for name in FREE:
        yield "attack", name, crafted(name, quick[name], setting.epsilons[-1])
    yield from _aimless(setting, seed)
    yield from _adaptive(setting, seed)
    for name, attack in slow.items():
        yield "attack", name, crafted(name, attack, setting.epsilons[-1], setting.scale.slow)
    yield from bounded(setting.epsilons[0], early)
    for epsilon in setting.epsilons[::-1]:
        yield from bounded(epsilon, [late])
        parts = [f"{name}, ε = {epsilon:g}" for name in attacks.ENSEMBLE]

        def joined(parts: list[str] = parts) -> tuple[torch.Tensor, np.ndarray, dict[str, Any]]:
            return _kept(attacks.ensemble([made[part] for part in parts if part in made], setting.images.test))

        yield "attack", f"ensemble, ε = {epsilon:g}", joined


def _wanted(kind: str, name: str, scale: Scale) -> bool:
    if kind == "change":
        return scale.changes or name == "nothing"
    return not scale.attacks or name.startswith(scale.attacks)


def _kept(found: Crafted) -> tuple[torch.Tensor, np.ndarray, dict[str, Any]]:
    known = {"success": found.success, "tried": found.tried, "linf": found.linf, "rms": found.rms}
    return found.images, found.rows, {name: round(value, 4) for name, value in known.items()}


def _aimless(setting: Setting, seed: int) -> Pools:
    images = setting.images.test[: setting.scale.changed]
    for family in FAMILIES:
        for size in SIZES:

            def change(family: str = family, size: float = size) -> tuple[torch.Tensor, np.ndarray, dict[str, Any]]:
                moved = changes.make(images, family, size, np.random.default_rng([seed, 1]))
                reached = float((moved - images).square().flatten(1).mean(1).sqrt().median())
                with torch.no_grad():
                    read = torch.cat([setting.model(part).argmax(1) for part in moved.split(500)])
                right = float((read == setting.images.test_labels[: len(read)]).float().mean())
                kept = {"family": family, "rms": round(reached, 4), "accuracy": round(right, 4)}
                return moved, np.arange(len(moved)), kept

            yield "change", f"{family} {size:g}", change

    def other() -> tuple[torch.Tensor, np.ndarray, dict[str, Any]]:
        return setting.images.foreign, np.arange(len(setting.images.foreign)), {}

    def one_class() -> tuple[torch.Tensor, np.ndarray, dict[str, Any]]:
        labels = setting.images.test_labels
        frequent = labels == labels.mode().values
        rest = (~frequent).nonzero()[:, 0][: int(frequent.sum())]
        rows = torch.cat([frequent.nonzero()[:, 0], rest])
        return setting.images.test[rows], rows.cpu().numpy(), {}

    yield "change", "another data set", other
    yield "change", "half of one class", one_class


def _adaptive(setting: Setting, seed: int) -> Pools:
    images, labels = (part[: setting.scale.evading] for part in (setting.images.test, setting.images.test_labels))
    guides = setting.images.reference[:1000]
    for title, aim in [(None, None), *setting.aims.items()]:
        known = ("texture", "scales", "hidden layer") if aim is None else ("aim", "aim, texture and scales")
        for what in known:
            for epsilon in setting.epsilons[::-1]:
                name = what if title in (None, "aim") else what.replace("aim", title)

                def make(what=what, aim=aim, epsilon=epsilon):
                    def attack(model, x, y, bound, rng):
                        penalty = adaptive.penalties(model, x, y, guides, aim)[what]
                        steps, restarts = setting.scale.effort.steps, 2 if aim is None else 1
                        return adaptive.evade(model, x, y, bound, rng, penalty, steps=steps, restarts=restarts)

                    rng = np.random.default_rng([seed, 2])
                    return _kept(attacks.craft(attack, setting.model, images, labels, epsilon, rng, chunk=150))

                yield "adaptive", f"knows {name}, ε = {epsilon:g}", make


def run(setting: Setting, write: Callable[[dict[str, Any]], None], until: float, seed: int = 0) -> dict[str, Any]:
    """Measure pool by pool and hand what is known so far to `write`, until all is done or the clock says `until`.

    Parameters
    ----------
    setting : Setting
    write : callable
        Gets the result after each pool.
    until : float
        Of `time.monotonic`.
    """
    rng = np.random.default_rng([seed, 3])
    result: dict[str, Any] = {
        "seconds": {name: round(value, 2) for name, value in setting.seconds.items()}, "pools": {}, "flagged": {},
        "rehearsed": {name: aim.rehearsed_ for name, aim in setting.aims.items()}, "not reached": [],
        "failed": {}, "left out": [],
    }  # fmt: skip
    for kind, name, make in plan(setting, seed):
        if not _wanted(kind, name, setting.scale):
            result["left out"].append(name)
            continue
        if time.monotonic() > until:
            result["not reached"].append(name)
            continue
        clock = time.monotonic()
        try:
            images, rows, kept = make()
        except Exception as error:  # one attack that breaks must not cost the others the machine's few minutes
            result["failed"][name] = f"{type(error).__name__}: {error}"
            continue
        crafting = time.monotonic() - clock
        few = kind == "change" and name != "nothing"
        sizes = tuple(m for m in setting.scale.batches if m in (1, 25) or not few)
        left_out = (kept["family"],) if "family" in kept else ()
        asked = setting.scale.checked // setting.scale.halves if kind == "change" else None
        found = powers(setting, images, rows, rng, left_out, sizes, asked) if len(rows) else {}
        if len(rows) and setting.aims:
            seen = list(setting.aims.values())[-1].look(images[:LOOKED])
            setting.looks[name] = seen.cpu().numpy().astype(np.float16)
        for detector, by_size in found.items():
            for m, shares in by_size.items():
                result["flagged"].setdefault(detector, {}).setdefault(str(m), {})[name] = [round(s, 3) for s in shares]
        times = {"crafted_s": round(crafting, 2), "scored_s": round(time.monotonic() - clock - crafting, 2)}
        result["pools"][name] = {"kind": kind, "images": len(rows), **kept, **times}
        write(result)
    write(result)
    return result
