"""How often a test flags what was changed: power, at one measured false-alarm rate for all tests.

Every test looks at the same batches. Its threshold is set by the same clean batches, so that 5 % of further clean ones
would lie beyond it (both tails together where both count), and power is the share of changed batches beyond it. So no
test gains by being badly calibrated.
Whether the permutation p-values of `advlib.detectors` keep their level on their own is another question, answered by
`advlib.levels`.
"""

import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas

from advlib import attacks, models
from advlib.detectors import (
    CombinedTest,
    CoverageTest,
    DensityRatioTest,
    DensityTest,
    NearestBallTest,
    Scores,
    features,
)
from advlib.detectors.sequential import StreamTest
from advlib.progress import track
from compendium.nb13_hypothesis_tests.changes import TITLES, Bench, Change, bench, stored
from compendium.nb13_hypothesis_tests.peers import ClassifierTest, EnergyTest, MMDTest

LEVEL = 0.05


def suite(network: str, references: int, *, ratio: bool = True) -> dict[str, Any]:
    """Return the tests of the study by name, unfitted: ours and the peers, on several feature maps.

    Parameters
    ----------
    network : str
        Whose hidden layer and stability are looked at.
    references : int
        Sizes the balls of the stability test: with three features only wide balls are smooth enough.
    ratio : bool
        Whether G17's density ratio, the slowest, takes part.
    """
    options = {"check": False, "draws": 99}
    tests: dict[str, Any] = {}
    for name in ("pixels", "residual", f"hidden:{network}", "texture"):
        word = name.split(":")[0]
        tests[f"density · {word}"] = DensityTest(features=name, **options)
        tests[f"coverage · {word}"] = CoverageTest(features=name, **options)
        tests[f"nearest ball · {word}"] = NearestBallTest(features=name, **options)
    stability = f"stability:{network}"
    tests["density · stability"] = DensityTest(k=max(5, references // 8), features=stability, **options)
    parts = [DensityTest(), CoverageTest(), NearestBallTest()]
    tests["combined · pixels"] = CombinedTest(parts, **options)
    if ratio:
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


def flagged(null: np.ndarray, changed: np.ndarray, two_sided: bool, rng: np.random.Generator) -> float:
    """Share of changed batches that rank, among the clean ones, where at most 5 % of further clean ones would.

    The rank of a clean batch among n others and itself is uniform, so that the level is kept at any n, and is 5 % where
    (n + 1) / 40 is whole.

    Parameters
    ----------
    null, changed : (t,), (s,) float arrays
        A statistic of clean and of changed batches.
    two_sided : bool
        Whether low values are evidence as well: then half of the level is spent on each side.
    rng : numpy.random.Generator
        Breaks ties, of which counts have many.
    """
    both = np.concatenate([null, changed])
    scale = np.ptp(both) or 1.0
    both = both + 1e-9 * scale * rng.random(len(both))
    null, changed = np.sort(both[: len(null)]), both[len(null) :]
    most = LEVEL / (2 if two_sided else 1) * (len(null) + 1) + 1e-9
    beyond = 1 + len(null) - np.searchsorted(null, changed) <= most
    if two_sided:
        beyond |= 1 + np.searchsorted(null, changed) <= most
    return float(beyond.mean())


def power_table(
    subject: Bench,
    tests: Mapping[str, Any],
    made: Sequence[Change],
    *,
    batch_sizes: Sequence[int],
    shares: Sequence[float] = (1.0,),
    batches: int,
    slow_batches: int | None = None,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """Flag batches by every test: each change, batch size and share.

    Parameters
    ----------
    subject : Bench
    tests : dict
        Name → unfitted test, from `suite`; fitted here.
    made : sequence of Change
        From `changes`.
    batch_sizes : sequence of int
    shares : sequence of float
        Of a batch that was changed; the rest is clean. Below 1 for the largest batches only, and of changes of several
        sizes for the middle one (the lower of two).
    batches : int
        Batches drawn for each, clean and changed, the same for every test.
    slow_batches : int, optional
        Fewer changed batches, for the classifier and the density ratio, which are fitted anew for each.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        dataset, test, change, kind, size, success, m, share, power, ms (CPU time of the statistic of one batch, without
        features), feature_ms (CPU time of looking at one image).
    """
    n = len(subject.clean)
    sizes = sorted({change.size for change in made if change.size is not None})
    middle = sizes[(len(sizes) - 1) // 2]
    several = {change.name for change in made if change.size == middle}
    plan = []
    for m in batch_sizes:
        null = {len(change.images): None for change in made}
        for count in null:
            if m <= count // 2:
                null[count] = index_sets(count, batches, m, rng)
        for change in made:
            count = len(change.images)
            if null[count] is None:
                continue
            other = index_sets(count, batches, m, rng, change.weights)
            for share in shares:
                largest = m == max(size for size in batch_sizes if size <= count // 2)
                if share < 1 and not (largest and (change.size == middle or change.name not in several)):
                    continue
                if round(share * m) >= 1:
                    plan.append((change, m, share, null[count], other))
    ties = int(rng.integers(2**31))
    rows = []
    for name, test in track(tests.items(), f"power, {TITLES[subject.name]}", len(tests)):
        seen, test = on_vectors(test)
        view = view_of(subject, seen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # Thresholds come from clean batches; the ratio alone learns something from a calibration set.
            test = test.fit(view.reference, view.calibration if seen == "images" else view.clean)
        clean, spent = _timed(test.measure, view.clean)
        spent += view.seconds
        two_sided = getattr(test, "two_sided", True)
        slow = isinstance(test, DensityRatioTest | ClassifierTest)
        few = slice(0, slow_batches if slow else None)
        pools: dict[str, Scores] = {}
        nulls: dict[tuple[int, int], np.ndarray] = {}
        for change, m, share, null, other in plan:
            if m < getattr(test, "least", 1):
                continue
            if change.label not in pools:
                pools[change.label] = Scores.stack([clean, test.measure(view.of(change))])
            pool = pools[change.label]
            key = (m, len(change.images))
            seconds = 0.0
            if key not in nulls:
                nulls[key], seconds = _timed(test._statistics, clean.parts, null)
            changed = other[few] + n
            changed[:, round(share * m) :] -= n
            found, more = _timed(test._statistics, pool.parts, changed)
            power = flagged(nulls[key][:, 0] if nulls[key].shape[1] == 1 else _joint(nulls[key], nulls[key]),
                            found[:, 0] if found.shape[1] == 1 else _joint(found, nulls[key]),
                            two_sided and found.shape[1] == 1, np.random.default_rng(ties))  # fmt: skip
            count = len(changed) + (len(null) if seconds else 0)
            rows.append(
                {
                    "dataset": subject.name, "test": name, "change": change.name, "kind": change.kind,
                    "size": change.size, "success": change.success, "m": m, "share": share, "power": power,
                    "ms": 1000 * (seconds + more) / count, "feature_ms": 1000 * spent / n,
                }
            )  # fmt: skip
    return pandas.DataFrame(rows)


def study(
    benches: Mapping[str, Bench],
    made: Mapping[str, Sequence[Change]],
    *,
    refitted_batches: int,
    rng: np.random.Generator,
    **options: Any,
) -> pandas.DataFrame:
    """Run `power_table` with the whole `suite` on several data sets; other arguments are passed on."""
    frames = [
        power_table(
            subject,
            suite(subject.network, len(subject.reference)),
            made[name],
            slow_batches=refitted_batches,
            rng=rng,
            **options,
        )
        for name, subject in benches.items()
    ]
    return pandas.concat(frames, ignore_index=True)


class View:
    """The images of a bench as one feature map sees them; "images" leaves them as they are."""

    def __init__(self, subject: Bench, name: str):
        self.name, self._subject = name, subject
        self.reference = self._seen(subject.reference)
        self.clean, self.seconds = _timed(self._seen, subject.clean)
        self._changed: dict[str, np.ndarray] = {}

    def _seen(self, images: np.ndarray) -> np.ndarray:
        return images if self.name == "images" else features.apply(self.name, images)

    @cached_property
    def calibration(self) -> np.ndarray:
        """The calibration images, looked at when first asked for."""
        return self._seen(self._subject.calibration)

    def of(self, change: Change) -> np.ndarray:
        """Return what became of the clean images."""
        if change.images is self._subject.clean:
            return self.clean
        if change.label not in self._changed:
            self._changed[change.label] = self._seen(change.images)
        return self._changed[change.label]


@cache
def view_of(subject: Bench, name: str) -> View:
    """Return the view of a feature map: computed once, for all tests and tables that look at it."""
    return View(subject, name)


def on_vectors(test: Any) -> tuple[str, Any]:
    """Return the name of a test's feature map, and a copy of the test that is handed that map's vectors.

    The density ratio, which looks at colour channels one by one, is handed images.
    """
    if isinstance(test, DensityRatioTest):
        return "images", test
    copied = copy.deepcopy(test)
    parts = getattr(copied, "tests", [copied])
    seen = parts[0].features
    for part in parts:
        part.features = "pixels"
    return seen, copied


def _joint(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Largest standardised distance from the middle over the columns (channels), (B, J) → (B,)."""
    middle = np.median(null, axis=0)
    spread = np.median(np.abs(null - middle), axis=0)
    return (np.abs(values - middle) / np.where(spread > 0, spread, 1.0)).max(axis=1)


def _timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """Return the result and the CPU seconds it took: other programs on the machine do not count."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def tails(
    subject: Bench, *, epsilons: Sequence[float], batch_size: int, batches: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Density on pixels over the size of FGSM, and what each one-sided test and the two-sided one flag at 5 %.

    Returns
    -------
    dict
        epsilons (E,), null (batches,), statistic (E, batches), power {"less", "greater", "two-sided"} → (E,).
    """
    test = DensityTest(check=False, draws=1).fit(subject.reference, subject.calibration)
    clean = test.measure(subject.clean)
    n = len(subject.clean)
    rows = index_sets(n, batches, batch_size, rng)
    null = test._statistics(clean.parts, rows)[:, 0]
    model = models.load_trained(subject.network)
    statistic = []
    for batch in attacks.fgsm_sweep(model, subject.clean, subject.labels, list(epsilons)):
        other = index_sets(n, batches, batch_size, rng)
        statistic.append(test._statistics(test.measure(stored(batch.images)).parts, other)[:, 0])
    power = {
        "less": [flagged(-null, -values, False, np.random.default_rng(0)) for values in statistic],
        "greater": [flagged(null, values, False, np.random.default_rng(0)) for values in statistic],
        "two-sided": [flagged(null, values, True, np.random.default_rng(0)) for values in statistic],
    }
    return {
        "epsilons": np.asarray(epsilons, dtype=float),
        "null": null,
        "statistic": np.array(statistic),
        "power": {tail: np.array(values) for tail, values in power.items()},
    }


def by_references(
    name: str, test: Any, references: Sequence[int], *, epsilon: float, images: int = 1000, rng: np.random.Generator
) -> pandas.DataFrame:
    """How much power against *single* images grows with the number of reference images; attacked by FGSM.

    Balls around more references are smaller and follow the clean images more closely.

    Parameters
    ----------
    name : str
        Data set, one of `advlib.changes.NETWORKS`.
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
    subject = bench(name, references=max(references), images=images, calibration=images, rng=rng)
    attacked = attacks.fgsm(models.load_trained(subject.network), subject.clean, subject.labels, epsilon=epsilon)
    seen, test = on_vectors(test)
    vectors = [
        features.apply(seen, found)
        for found in (subject.reference, subject.calibration, stored(attacked.images), subject.clean)
    ]
    success = float(np.asarray(attacked.success).sum() / max(1, np.asarray(attacked.clean_correct).sum()))
    ties = int(rng.integers(2**31))
    rows = []
    for count in track(references, f"reference images of {TITLES[name]}"):
        fitted = copy.deepcopy(test).fit(vectors[0][:count], vectors[1])
        # Every image is a batch of its own.
        null, found = (
            fitted._statistics(fitted.measure(part).parts, np.arange(len(part))[:, None])[:, 0]
            for part in (vectors[3], vectors[2])
        )
        power = flagged(null, found, True, np.random.default_rng(ties))
        rows.append({"references": min(count, len(subject.reference)), "success": success, "power": power})
    return pandas.DataFrame(rows)


def streams(
    test: Any,
    subject: Bench,
    changed: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    length: int,
    change_at: int,
    seed: int,
) -> dict[str, list]:
    """Run streams of batches that are clean up to batch `change_at` − 1 and then changed, or not.

    Parameters
    ----------
    test : fitted test
    subject : Bench
    changed : dict
        What the stream is → images that batches are drawn from once it has changed.
    batch_size, length, change_at : int
    seed : int

    Returns
    -------
    dict
        What the stream is → `advlib.sequential.Step`s.
    """
    clean = test.measure(subject.clean)
    out = {}
    for name, images in changed.items():
        rng = np.random.default_rng(seed)
        later = test.measure(images)
        stream = StreamTest(test, draws=999, random_state=seed)
        out[name] = [
            stream.update((clean if number < change_at else later)[rng.choice(len(clean), batch_size, replace=False)])
            for number in range(1, length + 1)
        ]
    return out
