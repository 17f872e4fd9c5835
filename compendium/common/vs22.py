"""Venkatesh & Steinbach 2022's experiments as functions: splits, the two modes, curves of density and coverage.

Two modes run everywhere. *As published* is what the authors' code does [1]_: images are normalised on load, then
attacked with bounds (0, 1) by a library that normalises them once more. *Corrected* attacks pixels in [0, 1] and lets
the network normalise. What the published program does is easiest seen in pixels. With x = (p − μ)/σ the bounds
0 ≤ x ≤ 1 are

    μ ≤ p ≤ μ + σ,

and a step ε is one of σε. foolbox clips its result to the bounds and then, in the images it returns second ("clipped"),
shortens every pixel's way to at most ε. So a pixel that starts outside the bounds, such as MNIST's whole background,
goes towards them by σε whatever the gradient says, until it reaches them at ε = μ/σ (0.42 for MNIST). Up to there most
of the "attack" is a loss of contrast. Every mode here takes pixels and gives pixels. With the same σ for all channels
x and p differ by a scale and a shift, which move queries and reference alike: density and coverage are the same
whether computed on x or on p, and one manifold, fitted to pixels, serves both modes. (Where the σ of colours differ it
serves them too, but then p weighs the channels otherwise than x does; `advlib.rising_density` takes x.)

References
----------
.. [1] D. K. Venkatesh and P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022); code:
   github.com/danushv07/n2gem, state of 2022-03-21.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from advlib import attacks, datasets, models, paths, training
from advlib.attacks import AdversarialBatch
from advlib.models import as_tensor, frozen
from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from compendium.common.protocol import auroc, tpr_at_fpr

K = 5
"""Neighbours that set a ball's radius (VS22 §4)."""

EPSILONS = tuple(np.linspace(0, 1, 20).tolist())
"""FGSM sizes of the authors' code, in steps of 1/19; the text says steps of 0.05."""

QUANTILES = (0.25, 0.5, 0.75)
"""Of the bands over sub-batches (VS22 §4)."""

IMPERCEPTIBLE = 8 / 255
"""L∞ size in pixels up to which a change of a natural image is commonly taken as imperceptible, the usual budget for
CIFAR-10 (Madry et al. 2018, arXiv:1706.06083). A convention, marked in the figures."""


@dataclass(frozen=True)
class ImageSet:
    """One of the paper's image sets, or what stands in for it.

    Attributes
    ----------
    name, title : str
        Key of `advlib.datasets.load`, and name to print: the paper's row where it is one of the paper's.
    network : str
        Name for `advlib.models.load_trained`.
    mean, std : tuple of float
        Channel by channel, in pixels of [0, 1]: what the published program normalises images by on load. MNIST's are
        in the authors' code and are its training part's own, to four places; nothing says what the others were, and of
        what was tried only OrganMNIST's own meet its stored densities (notebook 12).
    references : int
        Reference images of the paper's FGSM experiments, 0 for the whole model set.
    queries : int
        Images of the paper's hold-out, 0 where the paper has none.
    """

    name: str
    title: str
    network: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    references: int = 0
    queries: int = 0

    @property
    def in_paper(self) -> bool:
        """Whether the paper has this image set."""
        return self.queries > 0

    @property
    def kink(self) -> float:
        """μ/σ, of colours the smallest: the ε at which a black pixel has reached the published program's bound."""
        return min(mean / std for mean, std in zip(self.mean, self.std, strict=True))


def own_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of (n, c, h, w) images, to four places.

    Raises
    ------
    ValueError
        If a channel hardly varies, so that nothing can be divided by its deviation.
    """
    mean, std = (
        tuple(round(float(value), 4) for value in statistic((0, 2, 3), dtype=np.float64))
        for statistic in (images.mean, images.std)
    )
    if not min(std):
        raise ValueError(f"images must vary in every channel to be normalised, but their deviations are {std}")
    return mean, std


SETS = {
    image_set.name: image_set
    for image_set in (
        ImageSet("mnist", "MNIST", "mnist-vs22", (0.1307,), (0.3081,), 20_000, 2_100),
        ImageSet("organamnist", "OrganMNIST", "organamnist-vs22", (0.4680,), (0.2974,), 0, 4_708),
        # PathMNIST's as others computed them from its training part, and as the tiles that could be had give to 2 %.
        ImageSet(
            "pathmnist",
            "PathMNIST",
            "pathmnist-vs22",
            (0.7405, 0.5330, 0.7058),
            (0.1237, 0.1768, 0.1244),
            30_547,
            5_359,
        ),
        ImageSet("bloodmnist", "BloodMNIST", "bloodmnist-vs22", (0.7943, 0.6597, 0.6962), (0.2156, 0.2416, 0.1179)),
    )
}


def image_set(name: str) -> ImageSet:
    """Return one of `SETS`.

    Raises
    ------
    ValueError
        For an unknown name, with the names there are.
    """
    try:
        return SETS[name]
    except KeyError:
        raise ValueError(f"name must be one of {', '.join(SETS)}, but is {name!r}") from None


def own_set(path: str | os.PathLike) -> ImageSet:
    """Turn any file in MedMNIST's format into an image set, with a network of the paper's Table 2 of its own.

    The network is trained where none was trained on this very file before, with BloodMNIST's recipe, on what is not
    held out, and kept in `results/cache/networks`. Held out are 5 % as of PathMNIST, of small files up to 30 %, so that
    there are 400 images if possible.

    Parameters
    ----------
    path : path
        For `advlib.datasets.load_npz`; 28 × 28 pixels, grey or RGB. From the working folder on, or from the project's.

    Raises
    ------
    ValueError
        For another format or size.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path) if Path(path).is_file() else paths.HOME / path
    dataset = datasets.load_npz(path)
    channels, height, width = dataset.train_images.shape[1:]
    if (height, width) != (28, 28):
        raise ValueError(
            f"{path} must hold images of 28 × 28 pixels, as the paper's network reads, but has {height} × {width}"
        )
    name = f"{dataset.name}-{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]}"
    network = f"{name}-vs22"
    _, labels = datasets.pooled(dataset)
    datasets.OWN[name] = dataset
    models.SPECS[network] = models.Spec(
        models.vs22_medmnist, name, channels, 28, len(dataset.class_names),
        holdout_fraction=max(0.05, min(0.3, 400 / len(labels))), folder=paths.CACHE / "networks",
    )  # fmt: skip
    training.RECIPES.setdefault(network, training.RECIPES["bloodmnist-vs22"])
    if not all(file.is_file() for file in models.files(network)):
        models.files(network)[0].parent.mkdir(parents=True, exist_ok=True)
        training.train(network)
    return SETS.setdefault(name, ImageSet(name, dataset.title, network, *own_statistics(dataset.train_images)))


def image_sets(image_file: str | os.PathLike = "") -> tuple[tuple[ImageSet, ...], str]:
    """Return the three sets that can be run here, and a sentence that says which the third is and why.

    PathMNIST if its file lies on disk, else BloodMNIST under its own name.

    Parameters
    ----------
    image_file : path, optional
        A file of the reader's own in MedMNIST's format, which takes the third place; see `own_set`.
    """
    if image_file:
        own = own_set(image_file)
        return (
            SETS["mnist"],
            SETS["organamnist"],
            own,
        ), f"{own.title} is used in place of PathMNIST: the reader's file"
    rgb, sentence = datasets.rgb_medical()
    return (SETS["mnist"], SETS["organamnist"], SETS[rgb.name]), sentence


# ---------------------------------------------------------------- splits


@dataclass(frozen=True, eq=False)
class Split:
    """Reference and query images of one image set, disjoint, with their places in the pooled data set.

    Attributes
    ----------
    image_set : ImageSet
    reference, images : (N, c, h, w), (m, c, h, w) float32
        From the model set and from the hold-out, pixels in [0, 1].
    reference_labels, labels : (N,), (m,) int64
    reference_index, index : (N,), (m,) int64
        Places in `advlib.datasets.pooled`.
    """

    image_set: ImageSet
    reference: np.ndarray = field(repr=False)
    reference_labels: np.ndarray = field(repr=False)
    reference_index: np.ndarray = field(repr=False)
    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    index: np.ndarray = field(repr=False)


def holdout_index(name: str, n: int, labels: np.ndarray) -> np.ndarray:
    """Return where the hold-out of an image set lies in its pooled images, as stored in `data/splits/`.

    Parameters
    ----------
    name : str
        Key of `SETS`.
    n : int
        Pooled images there are.
    labels : (n,) int64 array
        Theirs; the split is made anew (seed 42, stratified) where none is stored, which is PathMNIST's case.

    Raises
    ------
    ValueError
        If the stored split points beyond the images there are.
    """
    spec = models.spec(image_set(name).network)
    path = paths.DATA / "splits" / f"{spec.dataset}.npy"
    if not path.is_file():
        return datasets.stratified_holdout(labels, spec.holdout_fraction, seed=models.SPLIT_SEED)[1]
    index = np.load(path, allow_pickle=False).astype(np.int64)
    if index.max() >= n:
        raise ValueError(f"{path} must point to the {n} pooled images of {name}, but points to number {index.max()}")
    return index


def references_for(image_set: ImageSet, queries: int, available: int, holdout: int) -> int:
    """Return how many reference images keep the paper's ratio of references to queries.

    Coverage depends on the two numbers almost only through their ratio (`advlib.prdc.expected_coverage`), so a smaller
    run with the same ratio has the paper's coverage to compare with.

    Parameters
    ----------
    image_set : ImageSet
    queries : int
        Queries of the run, at most `holdout`.
    available, holdout : int
        Images in the model set and in the hold-out.
    """
    whole = min(image_set.references or available, available)
    return min(whole, round(whole * queries / holdout))


def reference_and_holdout(
    name: str,
    references: int | None = None,
    queries: int = 0,
    rng: np.random.Generator | None = None,
) -> Split:
    """Return VS22's reference images and hold-out: all partitions pooled, a stratified hold-out, seed 42.

    Parameters
    ----------
    name : str
        Key of `SETS`.
    references : int, optional
        Images of the model set that form the reference, 0 for the whole. None takes the paper's number for its FGSM
        experiments, cut by the same share as the queries.
    queries : int
        Images of the hold-out, 0 for all.
    rng : numpy.random.Generator, optional
        Draws the subsets; without it they are taken at even steps.

    Raises
    ------
    ValueError
        For an unknown name, or more images of one of the paper's sets than there are. A set that stands in for one, as
        a file of the reader's own does, may be smaller: all that it has are taken then.
    advlib.datasets.DataUnavailable
        If the data set is neither on disk nor to be had.
    """
    chosen = image_set(name)
    images, labels = datasets.pooled(datasets.load(name))
    held = holdout_index(name, len(images), labels)
    model_set = np.delete(np.arange(len(images)), held)
    if not chosen.in_paper:
        queries, references = min(queries, len(held)), references and min(references, len(model_set))
    index = _part(held, queries, "queries", rng)
    if references is None:
        references = references_for(chosen, len(index), len(model_set), len(held))
    reference = _part(model_set, references, "references", rng)
    return Split(
        chosen, images[reference], labels[reference], reference, images[index], labels[index], index
    )  # fmt: skip


def _part(index: np.ndarray, count: int, name: str, rng: np.random.Generator | None) -> np.ndarray:
    if not 0 <= count <= len(index):
        raise ValueError(f"{name} must lie between 1 and {len(index)}, or be 0 for all, but is {count}")
    if count in (0, len(index)):
        return index
    if rng is None:
        return index[np.arange(count) * len(index) // count]
    return rng.permutation(index)[:count]


# ---------------------------------------------------------------- modes


@dataclass(frozen=True)
class Mode:
    """How images reach attack and network.

    Attributes
    ----------
    name : str
    normalised_twice : bool
        Whether images are normalised on load, and by the attacked network again.
    """

    name: str
    normalised_twice: bool

    def to_attack(self, image_set: ImageSet, images: np.ndarray) -> np.ndarray:
        """Turn pixels (n, c, h, w) into what the attack is given, with bounds (0, 1)."""
        if not self.normalised_twice:
            return images
        return (images - _channels(image_set.mean)) / _channels(image_set.std)

    def to_pixels(self, image_set: ImageSet, attacked: np.ndarray) -> np.ndarray:
        """Turn what the attack gives, (n, c, h, w), back into pixels."""
        if not self.normalised_twice:
            return attacked
        return attacked * _channels(image_set.std) + _channels(image_set.mean)

    def pixel_size(self, image_set: ImageSet, epsilon: float) -> float:
        """L∞ size in pixels of a step that the attack takes for ε, clipping apart; of colours the largest."""
        return epsilon * max(image_set.std) if self.normalised_twice else epsilon


def _channels(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


AS_PUBLISHED = Mode("as published", normalised_twice=True)
CORRECTED = Mode("corrected", normalised_twice=False)
MODES = (AS_PUBLISHED, CORRECTED)


def margin_signs(model: nn.Module, images: np.ndarray, labels: np.ndarray, *, batch_size: int = 500) -> np.ndarray:
    r"""Return FGSM's direction, the sign of the cross-entropy's gradient, also where the softmax is saturated.

    With logits z and :math:`u = \log \sum_{j \ne y} e^{z_j} - z_y` the cross-entropy is log(1 + eᵘ), which rises with
    u, so both gradients have the same sign in every pixel. The cross-entropy's own gradient carries the factor
    1 − softmax(z)_y, which float32 rounds to 0 for the true class once z_y leads by about 17: `attacks.gradient_signs`
    then follows the other classes alone, and beyond a lead of about 100 nothing at all.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits, at least two classes.
    images : (n, c, h, w) float32 array
        Anywhere.
    labels : (n,) int64 array
    batch_size : int
        Images at a time; bounds the memory.

    Returns
    -------
    (n, c, h, w) int8 array
        −1, 0 and 1.
    """
    signs = []
    truth = as_tensor(labels)
    with frozen(model) as device, torch.enable_grad():
        for part, target in zip(as_tensor(images).split(batch_size), truth.split(batch_size), strict=True):
            part = part.to(device, torch.float32).requires_grad_()
            logits, target = model(part), target.to(device)[:, None]
            others = logits.scatter(1, target, -torch.inf)
            lead = others.logsumexp(1) - logits.gather(1, target)[:, 0]
            (gradient,) = torch.autograd.grad(lead.sum(), part)
            signs.append(gradient.sign().to("cpu", torch.int8))
    return torch.cat(signs).numpy()


def fgsm_sweep(
    mode: Mode,
    image_set: ImageSet,
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    epsilons: Sequence[float] = EPSILONS,
    *,
    batch_size: int = 50,
) -> Iterator[AdversarialBatch]:
    """FGSM at several ε in one of the modes; pixels in, pixels out.

    *As published* takes the direction from the float32 cross-entropy, as foolbox does, at the unclipped normalised
    image, clips to (0, 1) and then each pixel's way to ε, which leaves the image alone at ε = 0. *Corrected* takes the
    direction from `margin_signs` and clips once: its images never were outside.

    Parameters
    ----------
    mode : Mode
    image_set : ImageSet
        For its normalisation.
    model : nn.Module
        The network, its own normalisation included.
    images : (n, c, h, w) float32 array
        Pixels in [0, 1].
    labels : (n,) int64 array
    epsilons : sequence of float
        L∞ sizes in the attack's own units: pixels when corrected, multiples of σ as published.
    batch_size : int
        Images at a time; few fit into a CPU's cache and go twice as fast as hundreds.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `epsilons`. Images and norms are in pixels of [0, 1]; predictions and accuracies are those of
        the network as the mode feeds it.

    Raises
    ------
    ValueError
        For an ε outside [0, 1] or images outside [0, 1].
    """
    for epsilon in epsilons:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilons must lie in [0, 1], but has {epsilon}")
    images = np.asarray(images, np.float32)
    if images.min() < 0 or images.max() > 1:
        raise ValueError(f"images must lie in [0, 1], but reach from {images.min():g} to {images.max():g}")
    start = mode.to_attack(image_set, images)
    find = attacks.gradient_signs if mode.normalised_twice else margin_signs
    signs = find(model, start, labels, batch_size=batch_size)
    clean_correct = models.predict(model, start, batch_size) == labels

    def attacked() -> Iterator[AdversarialBatch]:
        for epsilon in epsilons:
            moved = _stepped(start, signs, epsilon)
            said = models.predict(model, moved, batch_size)
            yield as_batch(images, mode.to_pixels(image_set, moved), labels, said, clean_correct, signs)

    return attacked()


def as_batch(
    images: np.ndarray,
    moved: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    clean_correct: np.ndarray,
    signs: np.ndarray | None = None,
) -> AdversarialBatch:
    """Put an attack's result, all in pixels, into the package's one result type.

    Parameters
    ----------
    images, moved : (n, c, h, w) float32 array
        Before and after.
    labels, predictions : (n,) int64 array
        True classes, and what the network said of `moved`.
    clean_correct : (n,) bool array
        Whether it was right before.
    signs : (n, c, h, w) int8 array, optional
        FGSM's direction.
    """
    change = torch.from_numpy(moved - images).flatten(1)
    arrays = {
        "images": torch.from_numpy(np.ascontiguousarray(moved)),
        "labels": torch.from_numpy(np.asarray(labels)),
        "clean_correct": torch.from_numpy(clean_correct),
        "predictions": torch.from_numpy(predictions),
        "linf": change.abs().amax(1),
        "l2": torch.linalg.vector_norm(change, dim=1),
        "l0": change.count_nonzero(1),
        "targets": None,
    }
    return attacks.summarised(arrays, images, None if signs is None else float((signs == 0).mean()))


# ---------------------------------------------------------------- density and coverage of query sets


def flat(images: np.ndarray) -> np.ndarray:
    """Return images (n, c, h, w) as points (n, c·h·w)."""
    return np.asarray(images).reshape(len(images), -1)


def sub_batches(n: int, size: int, rng: np.random.Generator, least: int = 40) -> np.ndarray:
    """Split n queries at random into disjoint batches, again and again until there are `least` of them.

    VS22 split once (§4). A small hold-out gives too few batches for quartiles that way; batches of one split are
    disjoint, batches of two splits overlap as chance has it.

    Parameters
    ----------
    n, size : int
        Queries there are and in each batch.
    rng : numpy.random.Generator
    least : int
        Batches wanted at least, ≥ 2.

    Returns
    -------
    (T, size) int64 array
        T ≥ `least`, a multiple of n // size; rows point to queries.

    Raises
    ------
    ValueError
        When size is below 1 or above n, or `least` below 2.
    """
    if least < 2:
        raise ValueError(f"least must be at least 2, but is {least}")
    each = n // size if 1 <= size <= n else 0
    if not each:
        raise ValueError(f"size must lie between 1 and the {n} queries there are, but is {size}")
    splits = -(-least // each)
    return np.concatenate([rng.permutation(n)[: each * size].reshape(each, size) for _ in range(splits)])


@dataclass(frozen=True, eq=False)
class Score:
    """Density and coverage of one query set, whole and in sub-batches.

    Attributes
    ----------
    density, coverage : float
        Of all queries in one batch.
    batch_density, batch_coverage : (T,) float64
        Of each sub-batch.
    density_error : float
        Standard error of `density` from the spread of the ball counts over the queries, the reference held fixed.
    accuracy, success : float or None
        Share of queries that the attacked network still reads rightly, and share that it read rightly before and no
        longer does: the adversarial examples among the queries.
    """

    density: float
    coverage: float
    batch_density: np.ndarray = field(repr=False)
    batch_coverage: np.ndarray = field(repr=False)
    density_error: float
    accuracy: float | None = None
    success: float | None = None

    @cached_property
    def density_quantiles(self) -> np.ndarray:
        """`QUANTILES` of density over the sub-batches, (3,)."""
        return np.quantile(self.batch_density, QUANTILES)

    @cached_property
    def coverage_quantiles(self) -> np.ndarray:
        """`QUANTILES` of coverage over the sub-batches, (3,)."""
        return np.quantile(self.batch_coverage, QUANTILES)


def score(
    manifold: ReferenceManifold,
    queries: np.ndarray | AdversarialBatch,
    batches: Iterable[Sequence[int] | np.ndarray],
) -> Score:
    """Score one query set whole and in sub-batches, from one pass over the reference.

    Parameters
    ----------
    manifold : ReferenceManifold
        Fitted to `flat` reference images (or features).
    queries : (m, c, h, w) or (m, d) array, or AdversarialBatch
        In the reference's units.
    batches : sequences of int
        Rows of each sub-batch, from `sub_batches`.
    """
    attacked = queries if isinstance(queries, AdversarialBatch) else None
    hits = manifold.hits(flat(queries if attacked is None else attacked.images))
    everything = np.arange(hits.shape[0])
    (density,), (coverage,) = manifold.subset_density_coverage(hits, [everything])
    batch_density, batch_coverage = manifold.subset_density_coverage(hits, batches)
    counts = np.diff(hits.indptr) / manifold.k
    return Score(
        float(density),
        float(coverage),
        batch_density,
        batch_coverage,
        float(counts.std(ddof=1) / np.sqrt(len(counts))) if len(counts) > 1 else 0.0,
        None if attacked is None else attacked.adversarial_accuracy,
        None if attacked is None else float(np.mean(attacked.success)),
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """Density and coverage of several query sets against one reference: a column of VS22's Fig. 3.

    Attributes
    ----------
    title : str
        What was attacked and how, for the figure.
    x : (n,) float64
        What the query sets differ in: ε, batch size, share, steps.
    clean : Score
        Of the untouched queries: the *reference* density and coverage of the paper.
    scores : tuple of Score
        Of the n query sets.
    n_reference, n_queries, batch_size, k : int
        Sizes.
    """

    title: str
    x: np.ndarray = field(repr=False)
    clean: Score = field(repr=False)
    scores: tuple[Score, ...] = field(repr=False)
    n_reference: int
    n_queries: int
    batch_size: int
    k: int

    @property
    def density(self) -> np.ndarray:
        """Full-batch density, (n,)."""
        return np.array([score.density for score in self.scores])

    @property
    def coverage(self) -> np.ndarray:
        """Full-batch coverage, (n,)."""
        return np.array([score.coverage for score in self.scores])

    @property
    def density_quantiles(self) -> np.ndarray:
        """`QUANTILES` over sub-batches, (n, 3)."""
        return np.array([score.density_quantiles for score in self.scores])

    @property
    def coverage_quantiles(self) -> np.ndarray:
        """`QUANTILES` over sub-batches, (n, 3)."""
        return np.array([score.coverage_quantiles for score in self.scores])

    @property
    def accuracy(self) -> np.ndarray:
        """Robust accuracy, (n,); NaN where no network was asked."""
        return np.array([np.nan if score.accuracy is None else score.accuracy for score in self.scores])

    @property
    def expected_coverage(self) -> float:
        """Mean coverage of the whole batch if queries and reference were exchangeable; the mean density is 1."""
        return expected_coverage(self.n_reference, self.n_queries, self.k)

    @property
    def expected_batch_coverage(self) -> float:
        """The same for a sub-batch."""
        return expected_coverage(self.n_reference, self.batch_size, self.k)

    def decisions(self, statistic: str) -> tuple[np.ndarray, np.ndarray]:
        """Return AUROC and power at 5 % false alarms of a decision about one sub-batch, (n,) each.

        Two-sided: a sub-batch is the more suspect the further its statistic lies from the clean ones' median.

        Parameters
        ----------
        statistic : str
            "density" or "coverage".
        """
        clean = getattr(self.clean, f"batch_{statistic}")
        middle = np.median(clean)
        null = np.abs(clean - middle)
        suspect = [np.abs(getattr(score, f"batch_{statistic}") - middle) for score in self.scores]
        return np.array([auroc(null, s) for s in suspect]), np.array([tpr_at_fpr(null, s) for s in suspect])


def density_coverage_curve(
    manifold: ReferenceManifold,
    clean: np.ndarray,
    attacked: Iterable[np.ndarray | AdversarialBatch],
    x: Sequence[float],
    batches: np.ndarray,
    *,
    title: str = "",
    clean_score: Score | None = None,
) -> Curve:
    """Score any list of query sets: full-batch density and coverage, quantiles over sub-batches, accuracy.

    Parameters
    ----------
    manifold : ReferenceManifold
        Fitted to the reference.
    clean : (m, …) array
        Untouched queries, in the reference's units.
    attacked : iterable of (m, …) arrays or AdversarialBatch
        Query sets, one for each entry of `x`; generated one at a time where the iterable does.
    x : sequence of float
        What they differ in.
    batches : (T, size) int array
        Rows of the sub-batches, the same for every set; from `sub_batches`.
    title : str
        For the figure and the progress line.
    clean_score : Score, optional
        Of `clean`, where it was scored before.

    Raises
    ------
    ValueError
        When there are not as many query sets as entries of `x`.
    """
    batches = np.asarray(batches)
    first = score(manifold, clean, batches) if clean_score is None else clean_score
    found = tuple(score(manifold, queries, batches) for queries in track(attacked, title or "query sets", len(x)))
    if len(found) != len(x):
        raise ValueError(
            f"attacked must hold one query set for each of the {len(x)} entries of x, but has {len(found)}"
        )
    return Curve(
        title, np.asarray(x, float), first, found, len(manifold.radii_), len(clean), batches.shape[1], manifold.k
    )


def noise_sweep(
    images: np.ndarray,
    epsilons: Sequence[float],
    rng: np.random.Generator,
    mode: Mode = CORRECTED,
    image_set: ImageSet | None = None,
) -> Iterator[np.ndarray]:
    """Change images as much as FGSM does, without its aim: the sign by the toss of a coin, one a pixel for all ε.

    Parameters
    ----------
    images : (n, c, h, w) float32 array
        Pixels in [0, 1].
    epsilons : sequence of float
        L∞ sizes, in the mode's units.
    rng : numpy.random.Generator
        Source of the signs.
    mode : Mode
        In pixels, or in the range that the published program attacked; the latter needs `image_set`.
    """
    signs = rng.integers(0, 2, size=images.shape, dtype=np.int8) * 2 - 1
    start = mode.to_attack(image_set, images)
    for epsilon in epsilons:
        yield mode.to_pixels(image_set, _stepped(start, signs, epsilon))


def _stepped(start: np.ndarray, signs: np.ndarray, epsilon: float) -> np.ndarray:
    """Take a step ε along the signs as foolbox does: clip to (0, 1), then each pixel's way to ε."""
    step = np.float32(epsilon)
    return start + np.clip(np.clip(start + step * signs, 0, 1) - start, -step, step)


# ---------------------------------------------------------------- §5.1: FGSM


def network(chosen: ImageSet, device: torch.device | str | None = None) -> models.Classifier:
    """Return the trained network of an image set, laid out so that its convolutions run about twice as fast on a CPU.

    Raises
    ------
    FileNotFoundError
        If its weights are missing, as PathMNIST's are until somebody trains them; the sentence says with what command.
    """
    return models.load_trained(chosen.network, device).to(memory_format=torch.channels_last)


RELATIVE = 0.15
"""A peak or end value agrees with a printed one within this share of it: the paper's network is unknown, and drawing
another reference of 20,000 digits moves such values by about a tenth."""
