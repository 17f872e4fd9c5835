"""VS22's image sets, their networks, and which images are reference and hold-out."""

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advlib import datasets, models, paths, training
from advlib.checks import one_of


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
        Channel by channel, in pixels of [0, 1]: what the published program normalises images by on load. They are those
        of the data's training part, to four places. The authors' notebook has MNIST's to the digit, the others to two
        or three places; `with_network` takes theirs with their network.
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


def with_network(chosen: ImageSet, network: str) -> ImageSet:
    """Return an image set with another network, and that network's normalisation.

    Parameters
    ----------
    chosen : ImageSet
    network : str
        One of `advlib.models.SPECS` for the same data set, such as `advlib.models.AUTHORS` has.

    Raises
    ------
    ValueError
        For an unknown network, or one of another data set.
    """
    spec = models.spec(network)
    if spec.dataset != chosen.name:
        raise ValueError(f"network must read {chosen.name}, but {network} reads {spec.dataset}")
    return replace(chosen, network=network, mean=spec.mean, std=spec.std)


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


_ALL = (
    ImageSet("mnist", "MNIST", "mnist-vs22", (0.1307,), (0.3081,), 20_000, 2_100),
    ImageSet("organamnist", "OrganMNIST", "organamnist-vs22", (0.4680,), (0.2974,), 0, 4_708),
    # PathMNIST's as others computed them from its training part, and as the tiles that could be had give to 2 %.
    ImageSet(
        "pathmnist", "PathMNIST", "pathmnist-vs22", (0.7405, 0.5330, 0.7058), (0.1237, 0.1768, 0.1244), 30_547, 5_359
    ),
    ImageSet("bloodmnist", "BloodMNIST", "bloodmnist-vs22", (0.7943, 0.6597, 0.6962), (0.2156, 0.2416, 0.1179)),
)
SETS = {image_set.name: image_set for image_set in _ALL}


def image_set(name: str) -> ImageSet:
    """Return one of `SETS`.

    Raises
    ------
    ValueError
        For an unknown name, with the names there are.
    """
    one_of(name, "name", SETS)
    return SETS[name]


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
        third = own_set(image_file)
        sentence = f"{third.title} is used in place of PathMNIST: the reader's file"
    else:
        rgb, sentence = datasets.rgb_medical()
        third = SETS[rgb.name]
    return (SETS["mnist"], SETS["organamnist"], third), sentence


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

    @property
    def origin(self) -> tuple[str, str, str]:
        """Image set, digest of its network's weights, digest of which images are reference and queries."""
        places = hashlib.sha256(self.reference_index.tobytes() + b"|" + self.index.tobytes()).hexdigest()
        return self.image_set.name, models.card(self.image_set.network)["sha256"], places


def kept_by_split(most: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a function of a split and hashable arguments keep its last results, for runs that differ in their seed alone.

    Parameters
    ----------
    most : int
        Results that are kept; the oldest goes.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        kept: dict[Any, Any] = {}

        @functools.wraps(function)
        def wrapper(split: Split, *arguments: Any) -> Any:
            key = split.origin, arguments
            if key not in kept:
                kept[key] = function(split, *arguments)
                if len(kept) > most:
                    del kept[next(iter(kept))]
            return kept[key]

        wrapper.cache = kept
        return wrapper

    return decorate


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
    *,
    network: str | None = None,
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
    network : str, optional
        Instead of the image set's own, see `with_network`.

    Raises
    ------
    ValueError
        For an unknown name or network, or more images of one of the paper's sets than there are. A set that stands in
        for one, as a file of the reader's own does, may be smaller: all that it has are taken then.
    advlib.datasets.DataUnavailable
        If the data set is neither on disk nor to be had.
    """
    chosen = image_set(name) if network is None else with_network(image_set(name), network)
    images, labels = datasets.pooled(datasets.load(name))
    held = holdout_index(name, len(images), labels)
    model_set = np.delete(np.arange(len(images)), held)
    if not chosen.in_paper:
        queries, references = min(queries, len(held)), references and min(references, len(model_set))
    index = _part(held, queries, "queries", rng)
    if references is None:
        references = references_for(chosen, len(index), len(model_set), len(held))
    reference = _part(model_set, references, "references", rng)
    return Split(chosen, images[reference], labels[reference], reference, images[index], labels[index], index)


def evenly(n: int, count: int) -> np.ndarray:
    """Take `count` of n places at even steps."""
    return np.arange(count) * n // count


def _part(index: np.ndarray, count: int, name: str, rng: np.random.Generator | None) -> np.ndarray:
    if not 0 <= count <= len(index):
        raise ValueError(f"{name} must lie between 1 and {len(index)}, or be 0 for all, but is {count}")
    if count in (0, len(index)):
        return index
    return index[evenly(len(index), count)] if rng is None else rng.permutation(index)[:count]


def network(chosen: ImageSet) -> models.Classifier:
    """Return the trained network of an image set, laid out so that its convolutions run about twice as fast on a CPU.

    Raises
    ------
    FileNotFoundError
        If its weights are missing, as PathMNIST's are until somebody trains them; the sentence says with what command.
    """
    return models.load_trained(chosen.network).to(memory_format=torch.channels_last)


def held_out(network: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Take `count` (0 or more than there are: all) of a network's held-out images and labels at even steps."""
    held = models.partition(network)
    n = len(held.holdout_images)
    part = evenly(n, min(count or n, n))
    return held.holdout_images[part], held.holdout_labels[part]
