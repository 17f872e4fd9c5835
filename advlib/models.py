"""The papers' classifiers, and the trained weights that come with the package.

Every network takes images in [0, 1]: normalisation is its first layer, so that an attack's ε and bounds are in pixels
and nobody can normalise twice. Every network returns *logits*. VS22 ends in log-softmax and trains on the negative
log-likelihood; that loss is the cross-entropy of the logits, so loss, gradient and FGSM are the same.

Two papers attack two different sets of images, and a network is only honest about images it has not seen:

- G17 attacks the *official* test partitions, so the networks for it are trained on the official training partition.
- VS22 pools all partitions and attacks a stratified hold-out of them, so its networks are trained on the rest.
  Those networks have seen most official test images; `partition(name)` gives what each network has and has not seen.

VS22's authors published their own networks. `load_trained` knows them by the names in `AUTHORS` (see `advlib.n2gem`);
`partition` gives this project's hold-out for them too; which images they were trained on is not written down.
"""

import contextlib
import contextvars
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from advlib import checks, datasets, n2gem, paths
from advlib.architectures import (
    Classifier,
    Normalize,
    airbench,
    cleverhans_tutorial,
    resnet9,
    vs22_medmnist,
    vs22_mnist,
)
from advlib.checks import ArrayLike, class_labels, finite, image_tensor, one_of, usual_device, whole_number


@dataclass(frozen=True)
class Spec:
    """What a named network is and which images it may be trained on.

    Parameters
    ----------
    network : callable
        Gives the hidden layers and the head.
    dataset : str
        Name for `advlib.datasets.load`.
    channels, size, classes : int
        Of the images that go in and the logits that come out.
    mean, std : tuple of float
        Normalisation, in pixels of [0, 1].
    holdout_fraction : float or None
        Share of the pooled data set that is held out by a stratified split (VS22), or None for the official
        training and test partitions (G17).
    grey : bool
        Whether colour images are turned grey first.
    folder : Path or None
        Where weights and card lie; None: with the package's own.
    """

    network: Callable[..., tuple[nn.Module, nn.Linear]]
    dataset: str
    channels: int
    size: int
    classes: int
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    holdout_fraction: float | None = None
    grey: bool = False
    folder: Path | None = None


_MNIST = {"dataset": "mnist", "channels": 1, "size": 28, "classes": 10}
_CIFAR = {"dataset": "cifar10", "channels": 3, "size": 32, "classes": 10}
_GREY = _CIFAR | {"channels": 1, "grey": True}
_DIGITS = {"mean": (0.1307,), "std": (0.3081,)}  # VS22's, in their code
_PIXELS = {"mean": (0.0,), "std": (1.0,)}  # the CleverHans tutorial trains on pixels in [0, 1] as they are

SPECS = {
    "mnist-cleverhans": Spec(cleverhans_tutorial, **_MNIST, **_PIXELS),
    "mnist-vs22": Spec(vs22_mnist, **_MNIST, **_DIGITS, holdout_fraction=0.03),
    "mnist-vs22-official": Spec(vs22_mnist, **_MNIST, **_DIGITS),
    "cifar10-resnet": Spec(resnet9, **_CIFAR, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "cifar10-airbench": Spec(airbench, **_CIFAR, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "cifar10-cleverhans": Spec(cleverhans_tutorial, **_CIFAR, **_PIXELS),
    "cifar10-grey-cleverhans": Spec(cleverhans_tutorial, **_GREY, **_PIXELS),
    "organamnist-vs22": Spec(vs22_medmnist, "organamnist", 1, 28, 11, holdout_fraction=0.08),
    "organamnist-vs22-official": Spec(vs22_medmnist, "organamnist", 1, 28, 11),
    "pathmnist-vs22": Spec(vs22_medmnist, "pathmnist", 3, 28, 9, holdout_fraction=0.05),
    # Stands in for PathMNIST, so it is held out by the same share; it is no data set of the paper's.
    "bloodmnist-vs22": Spec(vs22_medmnist, "bloodmnist", 3, 28, 8, holdout_fraction=0.05),
    # Normalisation as in the authors' notebook. The one for PathMNIST reads three channels.
    "mnist-n2gem": Spec(vs22_mnist, **_MNIST, **_DIGITS, holdout_fraction=0.03),
    "organmnist-n2gem": Spec(vs22_medmnist, "organamnist", 1, 28, 11, (0.4657,), (0.2936,), 0.08),
    "pathmnist-n2gem": Spec(vs22_medmnist, "pathmnist", 3, 28, 9, (0.74, 0.53, 0.71), (0.12, 0.18, 0.13), 0.05),
}
AUTHORS = tuple(n2gem.WEIGHTS)
"""Networks of VS22's authors; their weights are fetched or taken from a folder, see `advlib.n2gem.read`."""
NAMES = tuple(name for name in SPECS if name not in (*AUTHORS, "pathmnist-vs22", "organamnist-vs22-official"))
"""Networks whose weights come with the package. The other two are there to be trained: PathMNIST could not be had, and
OrganAMNIST's own split serves one sentence, on its accuracy."""

SPLIT_SEED = 42  # VS22's own


def spec(name: str) -> Spec:
    """Return the description of a named network.

    Raises
    ------
    ValueError
        For an unknown name, with the names there are.
    """
    one_of(name, "name", SPECS)
    return SPECS[name]


def build(name: str) -> Classifier:
    """Return the named network with fresh weights from torch's global generator, in training mode."""
    s = spec(name)
    sizes = {"size": s.size} if s.network is cleverhans_tutorial else {}
    hidden, head = s.network(channels=s.channels, classes=s.classes, **sizes)
    return Classifier(Normalize(s.mean, s.std), hidden, head)


@dataclass(frozen=True)
class Partition:
    """What a named network was trained on, and what it has never seen.

    Parameters
    ----------
    train_images, holdout_images : (n, c, h, w) float32 array
        In [0, 1]; grey where the network is.
    train_labels, holdout_labels : (n,) int64 array
    train_index, holdout_index : (n,) int64 array
        Positions in the official partition (official split) or in `advlib.datasets.pooled` (pooled split).
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    train_index: np.ndarray
    holdout_images: np.ndarray
    holdout_labels: np.ndarray
    holdout_index: np.ndarray


def partition(name: str) -> Partition:
    """Return the images that the named network was trained on and those it has never seen.

    Attack the hold-out: an image the network was trained on says little about others. Without a validation part
    of its own, the official split (G17) holds out the official test partition.

    Raises
    ------
    ValueError
        For an unknown name.
    advlib.datasets.DataUnavailable
        If the data set is neither on disk nor to be had.
    """
    s = spec(name)
    dataset = datasets.load(s.dataset)
    if s.holdout_fraction is None:
        train, train_labels = dataset.train_images, dataset.train_labels
        holdout, holdout_labels = dataset.test_images, dataset.test_labels
        train_index, holdout_index = np.arange(len(train)), np.arange(len(holdout))
    else:
        images, labels = datasets.pooled(dataset)
        train_index, holdout_index = datasets.stratified_holdout(labels, s.holdout_fraction, seed=SPLIT_SEED)
        train, train_labels = images[train_index], labels[train_index]
        holdout, holdout_labels = images[holdout_index], labels[holdout_index]
    if s.grey:
        train, holdout = datasets.grey(train), datasets.grey(holdout)
    return Partition(train, train_labels, train_index, holdout, holdout_labels, holdout_index)


def files(name: str, folder: Path | None = None) -> tuple[Path, Path]:
    """Where the weights (safetensors) and the card (JSON) of a named network lie, whatever `weights_from` says."""
    folder = Path(folder or spec(name).folder or paths.WEIGHTS)
    return folder / f"{name}.safetensors", folder / f"{name}.json"


_OTHER_WEIGHTS: contextvars.ContextVar[Path | None] = contextvars.ContextVar("advlib_weights", default=None)


@contextlib.contextmanager
def weights_from(folder: Path) -> Iterator[None]:
    """Inside the block `card` and `load_trained` take a network from `folder` where it is there, else as ever.

    An explicit folder goes before. A folder with one of a network's two files is taken, and the other is missed aloud.
    Other threads and tasks are not affected; a thread started inside the block sees it only in a copy of its context
    (`contextvars.copy_context().run`). Blocks may be nested: the innermost folder counts alone.

    Raises
    ------
    ValueError
        If there is no such folder.
    """
    if not isinstance(folder, str | os.PathLike) or not Path(folder).is_dir():
        raise ValueError(f"folder must be a folder with weights, but there is no {folder!s}")
    folder = Path(folder)
    token = _OTHER_WEIGHTS.set(folder.resolve())
    try:
        yield
    finally:
        _OTHER_WEIGHTS.reset(token)


def _found(name: str, folder: Path | None) -> tuple[Path, Path]:
    """`files`, with the folder of `weights_from` before the network's own."""
    other = _OTHER_WEIGHTS.get()
    if folder is None and other is not None and any(file.is_file() for file in files(name, other)):
        folder = other
    return files(name, folder)


def card(name: str, folder: Path | None = None) -> dict:
    """Return what is written down about a trained network: data split, seed, accuracy, duration, versions, checksum.

    Parameters
    ----------
    name : str
        One of `NAMES`, or of `SPECS` if trained here.
    folder : path, optional
        Instead of the package's own weights, or those of `weights_from`. Of `AUTHORS` there is a card without any file.

    Raises
    ------
    ValueError
        For an unknown name or a card that cannot be read.
    FileNotFoundError
        If there is no such card.
    """
    if isinstance(name, str) and name in AUTHORS:
        return n2gem.card(name)
    path = _found(name, folder)[1]
    text = _content("card", name, path)
    try:
        contents = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the card {path} must be JSON, but cannot be read ({error})") from None
    if not isinstance(contents, dict) or "sha256" not in contents:
        raise ValueError(f"the card {path} must hold the sha256 of the weights, but does not")
    return contents


def _content(kind: str, name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {kind} of {name} at {path}; restore the file from the repository or run: advlib train {name}"
        ) from None
    except OSError as error:
        raise ValueError(f"the {kind} {path} cannot be read ({error.strerror}); restore the file") from None


def load_trained(name: str, device: torch.device | str | None = None, folder: Path | None = None) -> Classifier:
    """Return a trained network, in evaluation mode, its parameters frozen.

    Parameters
    ----------
    name : str
        One of `NAMES`, of `AUTHORS`, or of `SPECS` if trained here.
    device : torch.device, optional
        Where it goes; by default where `ADVLIB_DEVICE` says, or else the CPU.
    folder : path, optional
        Instead of the package's own weights, or those of `weights_from`; of `AUTHORS`, of the place where
        `advlib.n2gem.read` looks.

    Returns
    -------
    Classifier
        float32. Parameters are shipped rounded to float16, and the card's accuracy is that of the rounded ones.

    Raises
    ------
    ValueError
        For an unknown name, or weights that do not match their card's sha256 or the architecture.
    FileNotFoundError
        If weights or card are missing.
    """
    model = build(name).to(device or usual_device())
    weights, _ = _found(name, folder)
    try:
        if name in AUTHORS:
            constants = {f"normalize.{key}": value for key, value in model.normalize.state_dict().items()}
            state = constants | n2gem.read(name, folder)
        else:
            state = load(_checked_weights(name, weights))
        model.load_state_dict({key: value.float() for key, value in state.items()})
    except (SafetensorError, RuntimeError) as error:
        what = "the authors' weights" if name in AUTHORS else f"the weights {weights}"
        raise ValueError(f"{what} must fit the architecture of {name}, but do not: {error}") from None
    return model.eval().requires_grad_(False)


def _checked_weights(name: str, file: Path) -> bytes:
    expected, content = card(name, file.parent)["sha256"], _content("weights", name, file)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"the weights {file} must have the sha256 on their card, {expected}, but have {found}; "
            f"restore both files from the repository or run: advlib train {name}"
        )
    return content


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[torch.device]:
    """Put `model` into evaluation mode with frozen parameters for the block, and give the device it lives on.

    Dropout and batch statistics would make its output random, and an attack's backward pass would otherwise add to
    the gradients of the caller's parameters. Afterwards everything is as before.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, but is {type(model).__name__}")
    modes = [(module, module.training) for module in model.modules()]
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tensors = [*model.parameters(), *model.buffers()]
    model.eval()
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield tensors[0].device if tensors else torch.device("cpu")
    finally:
        for module, training in modes:
            module.training = training
        for parameter in wanting:
            parameter.requires_grad_(True)


class DoesNotFit(ValueError):
    """Images of a shape that a model cannot take."""


@contextlib.contextmanager
def fitting(name: str, images: torch.Tensor) -> Iterator[None]:
    """Name the images where a model cannot take their shape, of which torch says only which product failed."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise DoesNotFit(
            f"{name} of shape {tuple(images.shape[1:])} must fit the model, which says: {first}"
        ) from error


def as_tensor(values: ArrayLike, name: str = "values") -> torch.Tensor:
    """Return `values` as a dense tensor of real numbers; memory is shared where torch can (not if read-only, reversed).

    Raises
    ------
    ValueError
        Naming the argument, by `name`, where `values` cannot be one.
    """
    return checks.plain_tensor(values, name)


_CACHED_IMAGES = 100  # as many as leave a CPU's cache room: twice as fast as 500, and the numbers are the same


def _batched(
    model: nn.Module, function: Callable[[torch.Tensor], torch.Tensor], images: ArrayLike, batch_size: int
) -> np.ndarray:
    batch_size = whole_number(batch_size, "batch_size", 1)
    tensor = finite(image_tensor(images), "images")
    if tensor.is_floating_point() and tensor.abs().max() > torch.finfo(torch.float32).max:
        raise ValueError("images must fit into float32, but hold larger numbers")
    with frozen(model) as device, torch.inference_mode(), fitting("images", tensor):
        parts = tensor.split(min(batch_size, _CACHED_IMAGES) if device.type == "cpu" else batch_size)
        return torch.cat([function(part.to(device, torch.float32)).cpu() for part in parts]).numpy()


def predict(model: nn.Module, images: ArrayLike, batch_size: int = 500) -> np.ndarray:
    """Return the class with the largest logit, (n,) int64.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits; runs where it lives, in evaluation mode.
    images : (n, c, h, w) array or tensor
        In [0, 1].
    batch_size : int
        Images at a time; bounds the memory.
    """
    return _batched(model, lambda part: model(part).argmax(1), images, batch_size)


def accuracy(model: nn.Module, images: ArrayLike, labels: ArrayLike, batch_size: int = 500) -> float:
    """Return the share of images whose largest logit is that of their label; see `predict`.

    Raises
    ------
    ValueError
        If there is not one label an image.
    """
    predicted = predict(model, images, batch_size)
    return float(np.mean(predicted == class_labels(labels, len(predicted), negative=True).cpu().numpy()))


def embed(model: Classifier, images: ArrayLike, batch_size: int = 500) -> np.ndarray:
    """Return the last hidden layer, (n, d) float32, of (n, c, h, w) images in [0, 1]; see `predict`.

    VS22 appendix C speaks of the last layer; their code takes the output of the last dense layer, the logits. Those
    are `logits`.
    """
    return _batched(model, lambda part: model.features(part), images, batch_size)


def logits(model: nn.Module, images: ArrayLike, batch_size: int = 500) -> np.ndarray:
    """Return the logits, (n, classes) float32, of (n, c, h, w) images in [0, 1]; see `predict`."""
    return _batched(model, model, images, batch_size)
