"""How often a test flags what was perturbed: power, at one measured false-alarm rate for all tests.

Every test looks at the same batches, and `compendium.common.protocol.power` calibrates each on the same clean ones. So
no test gains by being badly calibrated.
Whether the permutation p-values of `advlib.detectors` keep their level on their own is another question, answered in
`calibration`.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas

from advlib import attacks, models
from advlib.attacks.stored import stored_attack
from advlib.cli.detection import make_test
from advlib.detectors import (
    CombinedTest,
    CoverageTest,
    DensityRatioTest,
    DensityTest,
    HotellingTest,
    NearestBallTest,
    Scores,
)
from advlib.detectors.sequential import StreamTest
from advlib.progress import track
from advlib.tasks import map_tasks
from compendium.common.protocol import power
from compendium.nb13_hypothesis_tests.peers import ClassifierTest, EnergyTest, MMDTest
from compendium.nb13_hypothesis_tests.perturbations import (
    ATTACK,
    TITLES,
    ImageSplit,
    Perturbation,
    split_images,
    stored,
    timed,
)

OTHER_NETWORKS = {"mnist": "mnist-cleverhans", "cifar10": "cifar10-cleverhans"}
"""Data set → a second network of it, of another architecture and another training."""


def suite(network: str, references: int) -> dict[str, Any]:
    """Return the tests of the study by name, unfitted: ours and the peers, on several feature maps.

    Parameters
    ----------
    network : str
        Whose hidden layer and stability are looked at.
    references : int
        Sizes the balls of the stability test: with three features only wide balls are smooth enough.
    """
    options = {"check": False, "draws": 99}
    tests: dict[str, Any] = {}
    for name in ("pixels", "residual", f"hidden:{network}", "texture"):
        word = name.split(":")[0]
        tests[f"density · {word}"] = DensityTest(features=name, **options)
        tests[f"coverage · {word}"] = CoverageTest(features=name, **options)
        tests[f"nearest ball · {word}"] = NearestBallTest(features=name, **options)
    wide = max(5, references // 8)
    tests["density · stability"] = DensityTest(k=wide, features=f"stability:{network}", **options)
    tests["combined · pixels"] = CombinedTest([DensityTest(), CoverageTest(), NearestBallTest()], **options)
    tests["mean · multiscale"] = HotellingTest(features="multiscale", **options)
    tests["advlib fit · four maps"] = CombinedTest(make_test("combined", (1, 28, 28)).tests, **options)
    tests["density ratio · pixels"] = DensityRatioTest(**options)
    for word in ("pixels", "texture"):
        tests[f"MMD · {word}"] = MMDTest(word)
        tests[f"energy · {word}"] = EnergyTest(word)
        tests[f"classifier · {word}"] = ClassifierTest(word)
    return tests


def index_sets(
    n: int, draws: int, size: int, rng: np.random.Generator, weights: np.ndarray | None = None
) -> np.ndarray:
    """Draw (draws, size) rows of n images, each set without replacement, with equal chances or by `weights`."""
    if not 1 <= size <= n:
        raise ValueError(f"size must lie between 1 and the {n} images there are, but is {size}")
    return np.stack([rng.choice(n, size, replace=False, p=weights) for _ in range(draws)])


Batches = tuple[Perturbation, int, float, np.ndarray, np.ndarray]
"""Perturbation, images m in a batch, share of them that was perturbed, rows (t, m) of clean and of perturbed images."""


def draw_batches(
    made: Sequence[Perturbation],
    batch_sizes: Sequence[int],
    shares: Sequence[float],
    draws: int,
    rng: np.random.Generator,
) -> list[Batches]:
    """Draw the batches that all tests look at: each perturbation, batch size and share; see `power_table`."""
    sizes = sorted({perturbation.size for perturbation in made if perturbation.size is not None})
    middle = sizes[(len(sizes) - 1) // 2]
    of_several_sizes = {perturbation.name for perturbation in made if perturbation.size == middle}
    drawn = []
    for m in batch_sizes:
        counts = dict.fromkeys(len(perturbation.images) for perturbation in made)
        null = {count: index_sets(count, draws, m, rng) for count in counts if m <= count // 2}
        for perturbation in made:
            count = len(perturbation.images)
            if count not in null:
                continue
            rows = index_sets(count, draws, m, rng, perturbation.weights)
            largest = m == max(size for size in batch_sizes if size <= count // 2)
            in_part = largest and (perturbation.size == middle or perturbation.name not in of_several_sizes)
            drawn += [
                (perturbation, m, share, null[count], rows)
                for share in shares
                if round(share * m) >= 1 and (share == 1 or in_part)
            ]
    return drawn


def power_table(
    split: ImageSplit,
    tests: Mapping[str, Any],
    made: Sequence[Perturbation],
    *,
    batch_sizes: Sequence[int],
    shares: Sequence[float] = (1.0,),
    batches: int,
    slow_batches: int | None = None,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """Flag batches by every test: each perturbation, batch size and share.

    Parameters
    ----------
    split : ImageSplit
    tests : dict
        Name → unfitted test, from `suite`.
    made : sequence of Perturbation
        From `perturb`.
    batch_sizes : sequence of int
    shares : sequence of float
        Of a batch that was perturbed; the rest is clean. Below 1 for the largest batches only, and of perturbations of
        several sizes for the middle one (the lower of two).
    batches : int
        Batches drawn for each, clean and perturbed, the same for every test.
    slow_batches : int, optional
        Fewer perturbed batches, for the classifier and the density ratio, which are fitted anew for each.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        dataset, test, perturbation, kind, size, success, m, share, power, ms (CPU time of the statistic of one batch,
        without features), feature_ms (CPU time of looking at one image).
    """
    drawn = draw_batches(made, batch_sizes, shares, batches, rng)
    done = map_tasks(_powers, tests.items(), f"power, {TITLES[split.name]}", shared=[split, drawn, slow_batches])
    by_test = {name: found for (name, _), found in done}
    return pandas.DataFrame([row for name in tests for row in by_test[name]])


def _powers(
    named: tuple[str, Any], split: ImageSplit, drawn: Sequence[Batches], slow_batches: int | None
) -> list[dict[str, Any]]:
    """Return the rows of one test, (name, test)."""
    name, test = named
    n = len(split.clean)
    parts = [_Part(split, *each) for each in by_map(test)]
    few = slow_batches if isinstance(test, DensityRatioTest | ClassifierTest) else None
    two_sided = getattr(test, "alternative", "two-sided") == "two-sided"
    feature_ms = 1000 / n * sum(part.measuring + split.feature_seconds(part.seen) for part in parts)
    pools: dict[str, list[Scores]] = {}
    nulls: dict[tuple[int, int], np.ndarray] = {}
    rows = []
    for perturbation, m, share, null_rows, perturbed_rows in drawn:
        if m < getattr(test, "least", 1):
            continue
        if perturbation.label not in pools:
            pools[perturbation.label] = [part.with_clean(perturbation.images) for part in parts]
        key = m, len(perturbation.images)
        if key not in nulls:
            nulls[key] = _statistics(parts, [part.clean for part in parts], null_rows)
        mixed = perturbed_rows[:few] + n
        mixed[:, round(share * m) :] -= n
        found, seconds = timed(_statistics, parts, pools[perturbation.label], mixed)
        rows.append(
            {
                "dataset": split.name, "test": name,
                "perturbation": perturbation.name, "kind": perturbation.kind, "size": perturbation.size,
                "success": perturbation.success, "m": m, "share": share,
                "power": _power(nulls[key], found, two_sided),
                "ms": 1000 * seconds / len(mixed), "feature_ms": feature_ms,
            }
        )  # fmt: skip
    return rows


class _Part:
    """A test on one feature map, fitted to a split, and what it measures of the split's images."""

    def __init__(self, split: ImageSplit, seen: str, test: Any):
        # Thresholds come from clean batches; the ratio alone learns something from a calibration set.
        calibration = split.calibration if seen == "images" else split.clean
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.test = test.fit(split.features(seen, split.reference), split.features(seen, calibration))
        self.split, self.seen = split, seen
        self.clean, self.measuring = timed(self.test.measure, split.features(seen, split.clean))

    def with_clean(self, images: np.ndarray) -> Scores:
        """Return the clean images' scores, and then those of others."""
        return Scores.stack([self.clean, self.test.measure(self.split.features(self.seen, images))])


def _statistics(parts: Sequence[_Part], pools: Sequence[Scores], rows: np.ndarray) -> np.ndarray:
    return np.hstack([part.test.statistics(pool, rows) for part, pool in zip(parts, pools, strict=True)])


def _power(null: np.ndarray, found: np.ndarray, two_sided: bool) -> float:
    """`power` of a statistic (t, J); of several columns, of the largest standardised distance from the middle.

    The median absolute deviation that standardises is that of the own side: T², for one, reaches further up than down.
    """
    if null.shape[1] > 1:
        away = null - np.median(null, axis=0)
        sides = [np.nanmedian(np.where(part >= 0, part, np.nan), axis=0) for part in (away, -away)]
        above, below = (np.where(side > 0, side, 1.0) for side in sides)
        null, found = (
            (np.abs(part) / np.where(part >= 0, above, below)).max(axis=1, keepdims=True)
            for part in (away, found - np.median(null, axis=0))
        )
        two_sided = False
    return power(null[:, 0], found[:, 0], "two-sided" if two_sided else "high")


def study(
    splits: Mapping[str, ImageSplit],
    made: Mapping[str, Sequence[Perturbation]],
    *,
    refitted_batches: int,
    **options: Any,
) -> pandas.DataFrame:
    """Run `power_table` with the whole `suite` on several data sets; other arguments are passed on."""
    frames = []
    for name, split in splits.items():
        tests = suite(split.network, len(split.reference))
        frames.append(power_table(split, tests, made[name], slow_batches=refitted_batches, **options))
    return pandas.concat(frames, ignore_index=True)


def by_network(
    splits: Mapping[str, ImageSplit],
    epsilons: Sequence[float],
    *,
    batch_size: int,
    batches: int,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """Power of density and coverage on pixels against FGSM on either of two networks, batches drawn alike.

    Parameters
    ----------
    splits : mapping
        Data set → ImageSplit; those in `OTHER_NETWORKS` are looked at.
    epsilons : sequence of float
    batch_size, batches : int
        Images in a batch, and batches.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        dataset, network, size, power (of the better of the two).
    """
    rows, seed = [], int(rng.integers(2**31))
    for name, split in splits.items():
        tests = {test: suite(split.network, 1)[test] for test in ("density · pixels", "coverage · pixels")}
        for network in (split.network, OTHER_NETWORKS[name]) if name in OTHER_NETWORKS else ():
            attacked = (stored_attack(attacks.fgsm, network, split.clean, split.labels, epsilon=e) for e in epsilons)
            made = [Perturbation("FGSM", ATTACK, e, stored(a.images)) for e, a in zip(epsilons, attacked, strict=True)]
            options = {"batch_sizes": [batch_size], "batches": batches, "rng": np.random.default_rng(seed)}
            best = power_table(split, tests, made, **options).groupby("size").power.max()
            rows += [{"dataset": name, "network": network, "size": e, "power": value} for e, value in best.items()]
    return pandas.DataFrame(rows, columns=["dataset", "network", "size", "power"])


def on_vectors(test: Any) -> tuple[str, Any]:
    """Return the name of a test's feature map, and a copy of the test that is handed that map's vectors.

    The density ratio, which looks at colour channels one by one, and tests on several maps are handed images.
    """
    copied = copy.deepcopy(test)
    parts = getattr(copied, "tests", [copied])
    maps = {part.features for part in parts}
    if isinstance(test, DensityRatioTest) or len(maps) > 1:
        return "images", copied
    for part in parts:
        part.features = "pixels"
    return maps.pop(), copied


def by_map(test: Any) -> list[tuple[str, Any]]:
    """Do as `on_vectors`, with one test a map for a test on several: its statistics side by side are the whole's."""
    parts = getattr(test, "tests", None) or [test]
    maps = dict.fromkeys(part.features for part in parts)
    if len(maps) == 1:
        return [on_vectors(test)]
    groups = ([part for part in parts if part.features == name] for name in maps)
    return [on_vectors(CombinedTest(group, check=False, draws=test.draws)) for group in groups]


def tails(
    split: ImageSplit, *, epsilons: Sequence[float], batch_size: int, batches: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Density on pixels over the size of FGSM, and what each one-sided test and the two-sided one flag at 5 %.

    Returns
    -------
    dict
        epsilons (E,), null (batches,), statistic (E, batches), power {"less", "greater", "two-sided"} → (E,).
    """
    test = DensityTest(check=False, draws=1).fit(split.reference, split.calibration)
    n = len(split.clean)

    def statistic(images: np.ndarray) -> np.ndarray:
        return test.statistics(test.measure(images), index_sets(n, batches, batch_size, rng))[:, 0]

    null = statistic(split.clean)
    sweep = attacks.fgsm_sweep(models.load_trained(split.network), split.clean, split.labels, list(epsilons))
    found = np.array([statistic(stored(batch.images)) for batch in sweep])
    sides = {"less": "low", "greater": "high", "two-sided": "two-sided"}
    powers = {tail: np.array([power(null, row, side) for row in found]) for tail, side in sides.items()}
    return {"epsilons": np.asarray(epsilons, dtype=float), "null": null, "statistic": found, "power": powers}


def by_references(
    name: str, test: Any, references: Sequence[int], *, epsilon: float, images: int = 1000, rng: np.random.Generator
) -> pandas.DataFrame:
    """How much power against *single* images grows with the number of reference images; attacked by FGSM.

    Balls around more references are smaller and follow the clean images more closely.

    Parameters
    ----------
    name : str
        Data set, one of `perturbations.NETWORKS`.
    test : BatchTest
        Unfitted; a ball test on any feature map.
    references : sequence of int
        Numbers of reference images, each a part of the next.
    epsilon : float
        FGSM's size, in pixels of [0, 1].
    images : int
        Images to attack, unseen by the network; the same number untouched sets the threshold.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        references, success (share of the rightly read images that the attack turns), power.
    """
    split = split_images(name, references=max(references), images=images, calibration=images, rng=rng)
    attacked = attacks.fgsm(models.load_trained(split.network), split.clean, split.labels, epsilon=epsilon)
    success = float(np.asarray(attacked.success).sum() / max(1, np.asarray(attacked.clean_correct).sum()))
    seen, test = on_vectors(test)
    reference, calibration, moved, clean = (
        split.features(seen, found)
        for found in (split.reference, split.calibration, stored(attacked.images), split.clean)
    )
    rows = []
    for count in track(references, f"reference images of {TITLES[name]}"):
        fitted = copy.deepcopy(test).fit(reference[:count], calibration)
        # Every image is a batch of its own.
        null, found = (
            fitted.statistics(fitted.measure(part), np.arange(len(part))[:, None])[:, 0] for part in (clean, moved)
        )
        size = min(count, len(split.reference))
        rows.append({"references": size, "success": success, "power": power(null, found, "two-sided")})
    return pandas.DataFrame(rows)


def streams(
    test: Any,
    split: ImageSplit,
    later: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    length: int,
    change_at: int,
    seed: int,
) -> pandas.DataFrame:
    """Run streams of batches that are clean up to batch `change_at` − 1, and then drawn from other images.

    Parameters
    ----------
    test : fitted test
    split : ImageSplit
    later : dict
        What the stream is → images that batches are drawn from once it has changed.
    batch_size, length, change_at : int
    seed : int

    Returns
    -------
    DataFrame
        stream, batch (number, from 1), evidence, first_alarm (number of the batch so far, or NaN).
    """
    clean = test.measure(split.clean)
    rows = []
    for name, images in later.items():
        rng = np.random.default_rng(seed)
        moved = test.measure(images)
        stream = StreamTest(test, draws=999, random_state=seed)
        for number in range(1, length + 1):
            pool = clean if number < change_at else moved
            step = stream.update(pool[rng.choice(len(clean), batch_size, replace=False)])
            rows.append({"stream": name, "batch": number, "evidence": step.evidence, "first_alarm": step.first_alarm})
    return pandas.DataFrame(rows)
