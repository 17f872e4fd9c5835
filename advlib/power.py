"""How often a test flags what it should, and what it should not: power, false alarms, calibration.

**Same batches, same false-alarm rate.** Every test looks at the same batches. Its threshold is set where 5 % of *these*
clean batches lie beyond it (both tails where both count), and power is the share of changed batches beyond it. So no
test gains by being badly calibrated. Whether the permutation p-values of `advlib.detectors` keep their level on their
own is another question, answered by `calibration`.

**Peers.** The tests that the papers are to be measured against: maximum mean discrepancy with a Gaussian kernel [1]_,
used for adversarial examples by [2]_; energy distance [3]_; a classifier two-sample test [4]_. Each is a few lines
here, checked against brute force, SciPy and scikit-learn: `dcor` and
`hyppo` bring a compiler (Numba) along and have no state to keep, so that the reference's own N × N term would be
computed for every batch anew; `alibi-detect`'s permutation test takes seconds a batch and can say p = 0.

References
----------
.. [1] A. Gretton et al., "A kernel two-sample test", JMLR 13 (2012) 723-773, eq. 5.
.. [2] K. Grosse et al., "On the (statistical) detection of adversarial examples", arXiv:1702.06280 (2017).
.. [3] G. J. Székely and M. L. Rizzo, "Energy statistics", J. Stat. Plan. Inference 143 (2013) 1249-1272,
   doi:10.1016/j.jspi.2013.03.018.
.. [4] D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017, arXiv:1610.06545.
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from scipy import stats

from advlib import attacks, datasets, models
from advlib import features as feature_maps
from advlib.crafted import crafted
from advlib.detectors import CoverageTest, DensityRatioTest, DensityTest, NearestBallTest, Scores
from advlib.progress import track
from advlib.protocol import tpr_at_fpr
from advlib.sequential import StreamTest

NETWORKS = {
    "mnist": "mnist-vs22",
    "cifar10": "cifar10-resnet",
    "organamnist": "organamnist-vs22",
    "bloodmnist": "bloodmnist-vs22",
}
"""Data sets of the study and the networks under attack. Batches come from images that the network has never seen."""

TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "organamnist": "OrganAMNIST", "bloodmnist": "BloodMNIST"}
ATTACK, CONTROL = "attack", "control"
LEVEL = 0.05

_FOREIGN = {"mnist": "organamnist", "cifar10": "bloodmnist", "organamnist": "mnist", "bloodmnist": "cifar10"}


# ---------------------------------------------------------------------------------------------- batches and changes


@dataclass(frozen=True)
class Bench:
    """Clean images of one data set, and what became of some of them.

    Attributes
    ----------
    name, network : str
    reference : (N, c, h, w) float32 array
        Images the network was trained on.
    calibration : (n, c, h, w) float32 array
        Images it has not seen; disjoint from `clean`.
    clean : (m, c, h, w) float32 array
        Further images that it has not seen.
    labels, calibration_labels : (m,), (n,) int64 arrays
    """

    name: str
    network: str
    reference: np.ndarray
    calibration: np.ndarray
    clean: np.ndarray
    labels: np.ndarray
    calibration_labels: np.ndarray


@dataclass(frozen=True)
class Change:
    """What a batch may have gone through.

    Attributes
    ----------
    name : str
        "FGSM", "random noise" …
    kind : {"attack", "control"}
    size : float or None
        ε where there is one, in pixels of [0, 1].
    images : (m, c, h, w) float32 array
        Changed images: image i from `Bench.clean[i]`, unless `paired` is False. An attack may cover the first images
        only.
    success : float or None
        Share of the images read rightly before and wrongly after.
    weights : (m,) array or None
        Chance of each image to be drawn, where it is not the same for all.
    paired : bool
    """

    name: str
    kind: str
    size: float | None
    images: np.ndarray
    success: float | None = None
    weights: np.ndarray | None = None
    paired: bool = True

    @property
    def label(self) -> str:
        """Name and size."""
        return self.name if self.size is None else f"{self.name}, ε = {self.size:g}"


def bench(name: str, *, references: int, images: int, calibration: int, rng: np.random.Generator) -> Bench:
    """Draw reference, calibration and test images of a data set, disjoint.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.
    references, images, calibration : int
        Numbers of each; of what the network has not seen, test images take at most half and calibration what is left.
    rng : numpy.random.Generator
    """
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, but is {name!r}")
    part = models.partition(NETWORKS[name])
    order = rng.permutation(len(part.holdout_images))
    images = min(images, len(order) // 2)
    test, rest = order[:images], order[images : images + calibration]
    chosen = rng.permutation(len(part.train_images))[:references]
    return Bench(
        name,
        NETWORKS[name],
        part.train_images[chosen],
        part.holdout_images[rest],
        part.holdout_images[test],
        part.holdout_labels[test],
        part.holdout_labels[rest],
    )


def changes(
    subject: Bench,
    *,
    epsilons: Sequence[float],
    slow_images: int = 0,
    jsma_gamma: float = 0.1,
    boundary_steps: int = 1000,
    rng: np.random.Generator,
    seed: int = 0,
) -> list[Change]:
    """Attack the clean images, and change them harmlessly.

    FGSM, PGD (10 steps) and random ±ε noise at every ε; TGSM (5 steps of ε/5 towards the least likely class) at the
    largest ε; JSMA and the boundary attack on the first `slow_images`, if any. Controls beside noise: a shift by 1.5
    pixels, a rotation by 10°, another data set, and a batch that is half of one class. What an attack gives is rounded
    to 8 bits, as a stored image is, so that no test lives on fractions of grey levels.

    Returns
    -------
    list of Change
    """
    clean, labels, largest = subject.clean, subject.labels, max(epsilons)
    made = []

    def attack(
        name: str, function: Any, count: int | None = None, size: float | None = None, **parameters: Any
    ) -> None:
        batch = crafted(function, subject.network, clean[:count], labels[:count], **parameters)
        right = np.asarray(batch.clean_correct).sum()
        success = float(np.asarray(batch.success).sum() / max(right, 1))
        made.append(Change(name, ATTACK, size, _stored(batch.images), success))

    for epsilon in epsilons:
        attack("FGSM", attacks.fgsm, size=epsilon, epsilon=epsilon)
    for epsilon in epsilons:
        attack("PGD", attacks.pgd, size=epsilon, epsilon=epsilon, steps=10)
    attack("TGSM", attacks.tgsm, size=largest, epsilon=largest / 5, steps=5)
    if slow_images:
        attack("JSMA", attacks.jsma, slow_images, gamma=jsma_gamma, chunk=100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # images without a start stay as they are and count as clean
            attack("boundary", attacks.boundary, slow_images, steps=boundary_steps, seed=seed, chunk=100)
    for epsilon in epsilons:
        noisy = attacks.random_sign_noise(clean, epsilon, rng)
        made.append(Change("random noise", CONTROL, epsilon, _stored(noisy)))
    angles = rng.uniform(0, 360, len(clean))
    made.append(
        Change("shift by 1.5 pixels", CONTROL, None, _stored(attacks.shifted(clean, pixels=1.5, direction=angles)))
    )
    turn = 10.0 * rng.choice([-1, 1], len(clean))
    made.append(Change("rotation by 10°", CONTROL, None, _stored(attacks.rotated(clean, degrees=turn))))
    other = datasets.load(_FOREIGN[subject.name]).test_images
    other = other[np.sort(rng.choice(len(other), len(clean), replace=False))]
    made.append(Change("another data set", CONTROL, None, _cast(other, clean.shape[1:]), paired=False))
    counts = np.bincount(labels)
    frequent = counts.argmax()
    mine = labels == frequent
    weights = np.where(mine, 0.5 / mine.sum(), 0.5 / (~mine).sum())
    made.append(Change("half of one class", CONTROL, None, clean, weights=weights))
    made.append(Change("nothing", CONTROL, None, clean))
    return made


def _stored(images: Any) -> np.ndarray:
    """Round to the 256 grey levels of a stored image."""
    return (np.round(np.asarray(images) * 255) / np.float32(255)).astype(np.float32)


def _cast(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring images of another data set to (c, h, w): mean of colours or copies of grey, border cut or repeated."""
    channels, height, width = shape
    if images.shape[1] != channels:
        images = np.repeat(images.mean(axis=1, keepdims=True), channels, axis=1)
    for axis, size in ((2, height), (3, width)):
        missing = size - images.shape[axis]
        if missing > 0:
            pad = [(0, 0)] * 4
            pad[axis] = (missing // 2, missing - missing // 2)
            images = np.pad(images, pad, mode="edge")
        else:
            start = -missing // 2
            images = np.take(images, range(start, start + size), axis=axis)
    return np.ascontiguousarray(images, dtype=np.float32)


# ---------------------------------------------------------------------------------------------- peers


class _Peer:
    """A two-sample test against the reference; one row of features an image, one number a set of rows."""

    two_sided = False
    least = 2  # samples in a batch

    def __init__(self, features: str = "pixels", n_reference: int = 500):
        self.features = features
        self.n_reference = n_reference

    def fit(self, reference: np.ndarray, calibration: np.ndarray | None = None) -> "_Peer":
        """Take the first `n_reference` reference vectors (N, d); calibration is not needed."""
        self.reference_ = reference[: self.n_reference].astype(np.float64)
        self._learn()
        return self

    def measure(self, vectors: np.ndarray) -> Scores:
        """Return what `_statistics` needs of each vector (n, d)."""
        matrix = vectors.astype(np.float64)
        return Scores((matrix, self._to_reference(matrix)))

    def _learn(self) -> None:
        pass

    def _to_reference(self, matrix: np.ndarray) -> np.ndarray:
        return np.zeros(len(matrix))


class MMDTest(_Peer):
    """Squared maximum mean discrepancy, Gaussian kernel, biased estimate (Gretton et al. 2012, eq. 5).

    The kernel's width is the median distance within the reference, as is customary. See `_Peer`.

    Parameters
    ----------
    features : str
        Name of a feature map.
    n_reference : int
        Reference images compared with.
    """

    def _learn(self) -> None:
        distance = _within(self.reference_)
        self.width_ = float(np.median(distance[np.triu_indices(len(distance), 1)])) or 1.0
        self.own_ = float(self._kernel(distance).mean())

    def _kernel(self, squared: np.ndarray) -> np.ndarray:
        return np.exp(-squared / self.width_)

    def _to_reference(self, matrix: np.ndarray) -> np.ndarray:
        return self._kernel(_squared(matrix, self.reference_)).mean(axis=1)

    def _statistics(self, parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        matrix, cross = parts
        grams = _grams(matrix, rows, self._kernel)
        return np.array([[own.mean() - 2 * cross[b].mean() + self.own_] for own, b in zip(grams, rows, strict=True)])


class EnergyTest(_Peer):
    """Energy distance 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ (Székely & Rizzo 2013, eq. 5). See `MMDTest`."""

    def _learn(self) -> None:
        self.own_ = float(np.sqrt(_within(self.reference_)).mean())

    def _to_reference(self, matrix: np.ndarray) -> np.ndarray:
        return np.sqrt(_squared(matrix, self.reference_)).mean(axis=1)

    def _statistics(self, parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        matrix, cross = parts
        grams = _grams(matrix, rows, np.sqrt)
        return np.array([[2 * cross[b].mean() - own.mean() - self.own_] for own, b in zip(grams, rows, strict=True)])


class ClassifierTest(_Peer):
    """Leave-one-out accuracy of a linear classifier that tells the batch from as many reference images.

    Ridge regression of ±1 on standardised features, penalty d: what a handful of images can train. Its n leave-one-out
    predictions come from one inverse, y_i − [C⁻¹y]_i / [C⁻¹]_ii with C = XXᵀ + d·I, which is why scikit-learn's
    RidgeClassifier, with the same answers, is the judge in the tests and not called here. Successive batches meet other
    parts of the reference. See `MMDTest`.
    """

    def _learn(self) -> None:
        centre, spread = self.reference_.mean(axis=0), self.reference_.std(axis=0) + 1e-3
        self._standard = lambda matrix: np.column_stack([(matrix - centre) / spread, np.ones(len(matrix))])

    def _statistics(self, parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        m = rows.shape[1]
        clean, changed = self._standard(self.reference_), self._standard(parts[0])
        target = np.repeat([-1.0, 1.0], m)
        out = []
        for number, batch in enumerate(rows):
            start = number * m % max(1, len(clean) - m)
            right = target * leave_one_out(np.concatenate([clean[start : start + m], changed[batch]]), target)
            # Accuracy alone has few values; the mean margin breaks its ties.
            out.append([(right > 0).mean() + 1e-6 * np.tanh(right.mean())])
        return np.array(out)


def leave_one_out(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return ridge regression's prediction of each target (n,) from all other rows of features (n, d), penalty d."""
    inverse = np.linalg.inv(features @ features.T + features.shape[1] * np.eye(len(features)))
    return target - inverse @ target / np.diag(inverse)


def _squared(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) of (n, d) and (m, d), float64, by a matrix product; never below 0."""
    squared = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
    return np.maximum(squared, 0, out=squared)


def _grams(matrix: np.ndarray, rows: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    """Give function(squared distances) within each set of rows (B, m): from one matrix where sets overlap much."""
    used, places = np.unique(rows, return_inverse=True)
    places = places.reshape(rows.shape)
    if len(used) ** 2 <= rows.size * rows.shape[1]:
        whole = function(_within(matrix[used]))
        yield from (whole[np.ix_(place, place)] for place in places)
    else:
        yield from (function(_within(matrix[batch])) for batch in rows)


def _within(matrix: np.ndarray) -> np.ndarray:
    squared = _squared(matrix, matrix)
    np.fill_diagonal(squared, 0)  # rounding would leave a small distance of an image to itself
    return squared


# ---------------------------------------------------------------------------------------------- power


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
    """Share of changed batches beyond the threshold that 5 % of the clean ones exceed.

    Parameters
    ----------
    null, changed : (t,), (s,) float arrays
        A statistic of clean and of changed batches.
    two_sided : bool
        Whether low values are evidence as well: then the distance of a value's rank from the middle counts.
    rng : numpy.random.Generator
        Breaks ties, of which counts have many.
    """
    both = np.concatenate([null, changed])
    scale = np.ptp(both) or 1.0
    both = both + 1e-9 * scale * rng.random(len(both))
    null, changed = both[: len(null)], both[len(null) :]
    if two_sided:
        order = np.sort(null)

        def off_centre(values: np.ndarray) -> np.ndarray:
            rank = (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2
            return np.abs(rank / len(order) - 0.5)

        null, changed = off_centre(null) + 1e-9 * rng.random(len(null)), off_centre(changed)
    return tpr_at_fpr(null, changed, LEVEL)


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
        Of a batch that was changed; the rest is clean. Below 1 for the middle (the lower of two) of the changes' sizes
        and the largest batches only.
    batches : int
        Batches drawn for each, clean and changed, the same for every test.
    slow_batches : int, optional
        Fewer, for the classifier and the density ratio, which are fitted anew for each batch.
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
                partial = share < 1
                if partial and (m != max(batch_sizes) or change.size != middle):
                    continue
                if round(share * m) >= 1:
                    plan.append((change, m, share, null[count], other))
    ties = int(rng.integers(2**31))
    rows = []
    views: dict[str, _View] = {}
    for name, test in track(tests.items(), f"power, {TITLES[subject.name]}", len(tests)):
        # Tests that look at the same features share them: computed once, and handed over as vectors.
        whole = isinstance(test, DensityRatioTest)
        map_name = "images" if whole else test.features
        view = views[map_name] if map_name in views else views.setdefault(map_name, _View(map_name, subject))
        if not whole:
            test = copy.copy(test)
            test.features = "pixels"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            test = test.fit(view.reference, view.calibration)
        clean, spent = _timed(test.measure, view.clean)
        spent += view.seconds
        two_sided = getattr(test, "two_sided", True)
        slow = whole or isinstance(test, ClassifierTest)
        few = slice(0, slow_batches if slow else None)
        pools: dict[str, Scores] = {}
        nulls: dict[tuple[int, int], np.ndarray] = {}
        for change, m, share, null, other in plan:
            if m < getattr(test, "least", 1):
                continue
            if slow and share < 1:
                continue
            if change.label not in pools:
                pools[change.label] = Scores.stack([clean, test.measure(view.of(change))])
            pool = pools[change.label]
            key = (m, len(change.images))
            seconds = 0.0
            if key not in nulls:
                nulls[key], seconds = _timed(test._statistics, clean.parts, null[few])
            changed = other[few] + n
            changed[:, round(share * m) :] -= n
            found, more = _timed(test._statistics, pool.parts, changed)
            power = flagged(nulls[key][:, 0] if nulls[key].shape[1] == 1 else _joint(nulls[key], nulls[key]),
                            found[:, 0] if found.shape[1] == 1 else _joint(found, nulls[key]),
                            two_sided and found.shape[1] == 1, np.random.default_rng(ties))  # fmt: skip
            count = len(null[few]) * (2 if seconds else 1)
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


class _View:
    """The images of a bench as one feature map sees them."""

    def __init__(self, name: str, subject: Bench):
        self.name = name
        self.reference, self.calibration = self._seen(subject.reference), self._seen(subject.calibration)
        self.clean, self.seconds = _timed(self._seen, subject.clean)
        self._changed: dict[str, np.ndarray] = {}

    def _seen(self, images: np.ndarray) -> np.ndarray:
        return images if self.name == "images" else feature_maps.apply(self.name, images)

    def of(self, change: Change) -> np.ndarray:
        """Return what became of the clean images."""
        if change.label not in self._changed:
            self._changed[change.label] = self._seen(change.images)
        return self._changed[change.label]


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


# ---------------------------------------------------------------------------------------------- calibration


def binomial_band(draws: int, alpha: float, confidence: float = 0.99) -> tuple[float, float]:
    """Return the interval of rejection rates that `draws` independent tests of level `alpha` stay in."""
    low, high = stats.binom.interval(confidence, draws, alpha)
    return float(low / draws), float(high / draws)


def uniformity(p: np.ndarray, permutations: int, rng: np.random.Generator) -> float:
    """p-value of the hypothesis that p is uniform on 1/(1 + permutations), …, 1 (Kolmogorov-Smirnov).

    The steps are smoothed over: minus a uniform part of a step each, such p-values are uniform on (0, 1).
    """
    return float(stats.kstest(p - rng.random(len(p)) / (1 + permutations), "uniform").pvalue)


def calibration(
    subject: Bench,
    tests: Mapping[str, Any],
    *,
    batch_sizes: Sequence[int],
    batches: int,
    n_calibration: int,
    rng: np.random.Generator,
    alphas: Sequence[float] = (0.05, 0.01),
) -> pandas.DataFrame:
    """Test clean batches, each against a calibration set drawn anew, and count the rejections.

    The pool is all images of `subject` that the network has not seen. Batch and calibration set are drawn from it at
    random and disjoint, so that given the pool every one of the T tests is independent of the others and has exactly
    its level: the binomial band for T tests is the right yardstick. (Against *one* calibration set all batches would
    share its luck; `one_calibration_set` shows it.)

    Parameters
    ----------
    subject : Bench
    tests : dict
        Name → unfitted test of `advlib.detectors`. (1 + draws)·α must be whole for each α; else the level is lower.
    batch_sizes : sequence of int
    batches : int
        T.
    n_calibration : int
        Calibration images, or what the pool leaves, at least 50.
    rng : numpy.random.Generator
    alphas : sequence of float

    Returns
    -------
    DataFrame
        dataset, test, m, n (calibration images), alpha, rejected, low, high (99 % band), inside, uniform_p.
    """
    pool = np.concatenate([subject.clean, subject.calibration])
    rows = []
    for name, test in track(tests.items(), f"calibration, {TITLES[subject.name]}", len(tests)):
        fitted = test.fit(subject.reference, pool[:50])
        scores = fitted.measure(pool)
        for m in batch_sizes:
            n = min(n_calibration, len(pool) - m)
            if n < 50:
                continue
            sets = index_sets(len(pool), batches, m + n, rng)
            p = fitted.p_values(scores, sets[:, :m], sets[:, m:])
            uniform = uniformity(p, n if m == 1 else fitted.draws, rng)
            for alpha in alphas:
                low, high = binomial_band(batches, alpha)
                rejected = float(np.mean(p <= alpha + 1e-12))
                rows.append(
                    {
                        "dataset": subject.name, "test": name, "m": m, "n": n, "alpha": alpha, "rejected": rejected,
                        "low": low, "high": high, "inside": low <= rejected <= high, "uniform_p": uniform,
                    }
                )  # fmt: skip
    return pandas.DataFrame(rows)


def calibration_table(
    benches: Mapping[str, Bench], names: Sequence[str], *, rng: np.random.Generator, **options: Any
) -> pandas.DataFrame:
    """Run `calibration` on several data sets, with tests of `suite` chosen by name; other arguments are passed on.

    Raises
    ------
    ValueError
        For a test that `suite` does not have, or a peer, which has no p-value here.
    """
    frames = []
    for subject in benches.values():
        tests = suite(subject.network, len(subject.reference))
        for name in names:
            if name not in tests or isinstance(tests[name], _Peer):
                known = ", ".join(name for name, test in tests.items() if not isinstance(test, _Peer))
                raise ValueError(f"calibrated_tests must be among {known}, but hold {name!r}")
        chosen = {name: tests[name] for name in names}
        frames.append(calibration(subject, chosen, rng=rng, **{"n_calibration": 500, **options}))
    return pandas.concat(frames, ignore_index=True)


def one_calibration_set(
    subject: Bench, test: Any, *, batch_size: int, batches: int, sets: int, rng: np.random.Generator
) -> np.ndarray:
    """Rejection rate at 5 % of clean batches that share one calibration set, for several such sets.

    The mean over the sets is 5 %; a single set may be luckier or less lucky, the more so the larger the batches are.

    Returns
    -------
    (sets,) float64 array
    """
    pool = np.concatenate([subject.clean, subject.calibration])
    fitted = test.fit(subject.reference, pool[:50])
    scores = fitted.measure(pool)
    rates = []
    for _ in range(sets):
        order = rng.permutation(len(pool))
        half = len(order) // 2
        drawn = order[half:][index_sets(len(order) - half, batches, batch_size, rng)]
        p = fitted.p_values(scores, drawn, [order[:half]] * batches)
        rates.append(np.mean(p <= LEVEL))
    return np.array(rates)


def seen_by_the_network(
    subject: Bench, *, batch_sizes: Sequence[int], batches: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """Rejection at 5 % of clean, unseen images when calibration images are some that the network was trained on.

    Nobody tampered with anything; a network just treats images that it has learned unlike others. Half of the bench's
    reference is the reference, the other half the pool that calibration sets are drawn from anew.

    Returns
    -------
    DataFrame
        features ("pixels", "hidden", "stability"), m, rejected, low, high (99 % band), and fit_p: what the check in
        `fit` says of reference and calibration if that is the unseen images, as it should be.
    """
    half = len(subject.reference) // 2
    reference, learned = subject.reference[:half], subject.reference[half:]
    unseen = np.concatenate([subject.clean, subject.calibration])
    rows = []
    for name in ("pixels", f"hidden:{subject.network}", f"stability:{subject.network}"):
        k = max(5, half // 8) if name.startswith("stability") else 5
        test = DensityTest(k, features=name, draws=99, check=False).fit(reference, learned)
        scores = Scores.stack([test.calibration_, test.measure(unseen)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            fit_p = DensityTest(k, features=name).fit(reference, unseen).exchangeability_p_
        for m in batch_sizes:
            drawn = len(learned) + index_sets(len(unseen), batches, m, rng)
            known = index_sets(len(learned), batches, min(500, len(learned) // 2), rng)
            low, high = binomial_band(batches, LEVEL)
            rejected = float(np.mean(test.p_values(scores, drawn, known) <= LEVEL))
            rows.append(
                {"features": name.split(":")[0], "m": m, "rejected": rejected, "low": low, "high": high, "fit_p": fit_p}
            )
    return pandas.DataFrame(rows)


# ---------------------------------------------------------------------------------------------- what a tail misses


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
        statistic.append(test._statistics(test.measure(_stored(batch.images)).parts, other)[:, 0])
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


def at(
    table: pandas.DataFrame, test: str, change: str, size: float | None, m: int, share: float = 1.0
) -> dict[str, float]:
    """Return power by data set for one test, change, batch size and share."""
    chosen = table[(table.test == test) & (table.change == change) & (table.m == m) & np.isclose(table.share, share)]
    chosen = chosen[chosen["size"].isna() if size is None else np.isclose(chosen["size"], size)]
    return dict(zip(chosen.dataset, chosen.power, strict=True))


def lowest(table: pandas.DataFrame, test: str, change: str, size: float | None, m: int) -> float:
    """Return the lowest power over the data sets, whole batches changed."""
    return min(at(table, test, change, size, m).values())


def highest(table: pandas.DataFrame, test: str, change: str, size: float | None, m: int) -> float:
    """Return the highest power over the data sets, whole batches changed."""
    return max(at(table, test, change, size, m).values())


def pivot(table: pandas.DataFrame, dataset: str, m: int, tests: Iterable[str]) -> pandas.DataFrame:
    """Return power, one change a row and one test a column, for one data set and batch size, whole batches changed."""
    chosen = table[(table.dataset == dataset) & (table.m == m) & (table.share == 1) & table.test.isin(list(tests))]
    label = [f"{row.change}, ε = {row.size:g}" if row.size == row.size else row.change for row in chosen.itertuples()]
    wide = chosen.assign(label=label).pivot(index="label", columns="test", values="power")
    return wide.loc[list(dict.fromkeys(label)), [test for test in tests if test in wide.columns]]


def attack_or_noise(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Set beside each other how often FGSM, PGD and random noise of the same size are flagged.

    Returns
    -------
    DataFrame
        dataset, test ("nearest ball · texture", "density · hidden", "density · stability"), size, FGSM, PGD, noise.
    """
    tests = ["nearest ball · texture", "density · hidden", "density · stability"]
    names = {"FGSM": "FGSM", "PGD": "PGD", "random noise": "noise"}
    chosen = table[(table.m == m) & (table.share == 1) & table.test.isin(tests) & table.change.isin(list(names))]
    wide = chosen.pivot(index=["dataset", "test", "size"], columns="change", values="power").rename(columns=names)
    return wide[list(names.values())].reset_index().rename_axis(columns=None)


def winners(table: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Name the best of our tests and of the peers on pixels and on any features, for each attack, with their powers.

    Returns
    -------
    DataFrame
        One row an attack and data set; columns "ours, pixels", "peers, pixels", "ours, any features", "peers, any
        features".
    """
    chosen = table[(table.m == m) & (table.share == 1) & (table.kind == ATTACK)]
    word = chosen.test.str.split(" · ")
    peer, on_pixels = word.str[0].isin(["MMD", "energy", "classifier"]), word.str[1] == "pixels"
    rows = []
    for (dataset, change, size), part in chosen.groupby(["dataset", "change", "size"], sort=False, dropna=False):
        row = {"dataset": TITLES[dataset], "attack": change if size != size else f"{change}, ε = {size:g}"}
        for column, mask in (
            ("ours, pixels", ~peer & on_pixels),
            ("peers, pixels", peer & on_pixels),
            ("ours, any features", ~peer),
            ("peers, any features", peer),
        ):
            mine = part[mask[part.index]]
            top = mine.loc[mine.power.idxmax()]
            row[column] = f"{top.power:.2f} ({top.test})"
        rows.append(row)
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


# ---------------------------------------------------------------------------------------------- record and claims


def record_tables(run: Any, table: pandas.DataFrame, calibrated: pandas.DataFrame) -> None:
    """Keep both tables in the run's record: power as dataset → test → change → m (or m and share) → share flagged."""
    for (dataset, test), part in table.groupby(["dataset", "test"], sort=False):
        content: dict[str, dict[str, float]] = {}
        for row in part.itertuples():
            label = row.change if row.size != row.size or row.size is None else f"{row.change} {row.size:g}"
            key = f"{row.m}" if row.share == 1 else f"{row.m}, share {row.share:g}"
            content.setdefault(label, {})[key] = round(row.power, 4)
        run.metric(f"power.{dataset}.{test}", content)
    attacked = table[table.kind == ATTACK].drop_duplicates(["dataset", "change", "size"])
    run.metric(
        "success",
        {
            f"{row.dataset}, {row.change}" + ("" if row.size != row.size else f" {row.size:g}"): row.success
            for row in attacked.itertuples()
        },
    )
    times = table[table.share == 1].groupby(["test", "m"])[["ms", "feature_ms"]].mean().reset_index()
    for row in times.itertuples():
        run.metric(f"time.{row.test}.{row.m}", {"statistic_ms": row.ms, "feature_ms_an_image": row.feature_ms})
    for row in calibrated.itertuples():
        run.metric(
            f"calibration.{row.dataset}.{row.test}.{row.m}.{row.alpha:g}",
            {"rejected": row.rejected, "low": row.low, "high": row.high, "n": row.n, "uniform_p": row.uniform_p},
        )


def summary_metrics(run: Any, table: pandas.DataFrame) -> None:
    """Keep the numbers that a fresh run is held to: the goals of the texture map, and what pixels give instead."""
    for test in ("nearest ball · texture", "density · pixels"):
        for m, size in ((25, 0.05), (1, 0.1)):
            for dataset, value in at(table, test, "FGSM", size, m).items():
                run.metric(f"{dataset}.{test}.FGSM {size:g}.{m}", value)
    for change in ("FGSM", "random noise"):
        for dataset, value in at(table, "density · stability", change, 0.1, 25).items():
            run.metric(f"{dataset}.density · stability.{change} 0.1.25", value)


def outside_band(calibrated: pandas.DataFrame) -> tuple[int, int, int]:
    """Return how many rejection rates lie outside their 99 % band, of how many, and how many chance allows (99.9 %)."""
    cells = len(calibrated)
    return int((~calibrated.inside).sum()), cells, int(stats.binom.ppf(0.999, cells, 0.01))


def claims(run: Any, table: pandas.DataFrame, calibrated: pandas.DataFrame) -> None:
    """Judge the sentences of VS22 that a test of one batch can answer."""
    m = int(table.m.max())
    whole = table[(table.share == 1) & (table.m == m)]
    attacks_only = whole[whole.kind == ATTACK]
    ours = attacks_only[attacks_only.test.isin(["density · pixels", "coverage · pixels"])]
    either = ours.groupby(["dataset", "change", "size"], dropna=False).power.max()
    texture = attacks_only[attacks_only.test == "nearest ball · texture"].power.min()
    weakest = either.idxmin()

    def add(row: str, corrected: str, verdict: str, cause: str) -> None:
        run.compare(
            {
                "paper": "vs22", "item": "claim", "row": row, "column": "", "as_published": None,
                "corrected": corrected, "verdict": verdict, "cause": cause,
            }
        )  # fmt: skip

    spread = f"power of the better of density and coverage on pixels, m = {m}: {either.min():.2f} to {either.max():.2f}"
    add(
        "independent-of-attack",
        f"{spread}; nearest ball on texture at least {texture:.2f}",
        "reproduced" if either.min() >= 0.5 else "not reproduced",
        "" if either.min() >= 0.5 else "how far and which way images move differs from attack to attack; least under "
        f"{weakest[1]} on {TITLES[weakest[0]]}",
    )  # fmt: skip
    small = ours[(ours.change == "FGSM") & (ours["size"] <= 8 / 255 + 1e-9)]
    seen = small.groupby("dataset", sort=False).power.max()
    add(
        "detects-imperceptible",
        f"FGSM at eps = {small['size'].max():g}, m = {m}, flagged at 5 %: "
        + ", ".join(f"{TITLES[name]} {value:.2f}" for name, value in seen.items()),
        "reproduced" if seen.min() >= 0.5 else "not reproduced",
        "" if seen.min() >= 0.5 else "on raw pixels a change that small hardly moves an image against its radius; the "
        "same balls on texture see it",
    )  # fmt: skip
    add(
        "model-agnostic",
        "density and coverage on pixels, residual and texture ask no network; hidden layer and stability do",
        "reproduced",
        "",
    )
    outside, cells, allowed = outside_band(calibrated)
    add(
        "hypothesis-tests-would-help",
        f"level kept: {outside} of {cells} rejection rates outside their 99 % band, chance allows {allowed}; a flag "
        "says changed, not attacked, unless stability is looked at",
        "reproduced" if outside <= allowed else "not reproduced",
        "" if outside <= allowed else "some level is not kept",
    )
