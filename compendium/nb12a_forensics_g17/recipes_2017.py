"""Classifiers of public examples of early 2017, for MNIST and CIFAR-10, and their training as the examples did it.

CleverHans
    `cnn_model`: three strided convolutions, no pooling. Until 25 March 2017 (pull request 114) it had dropout, 0.2 at
    the input and 0.5 before the dense layer. Trained by Adadelta with rate 0.1, ρ = 0.95, ε = 1e-8 until 16 June 2017
    (pull request 171: "Switch to the adam optimizer"), so also in the month of the paper; labels smoothed to 0.9.
    6 epochs on MNIST (tutorials/mnist_tutorial_tf.py), 10 on CIFAR-10 (examples/ex_cifar10_tf.py), 128 images a step.
tensorflow-adversarial
    The repository from which G17 adapted TGSM and JSMA, ex_00.py at commit 001180e419894b722caca5dbf04725fc68941542:
    two convolutions, max-pooling, dropout; Adam, 64 images a step, 10 epochs. For MNIST; here on CIFAR-10 as well.
    Its older utils_mnist.py has a perceptron with three hidden layers, trained by Adadelta as above for 100 epochs.
Keras
    Examples mnist_cnn.py (Adadelta with rate 1, 12 epochs) and cifar10_cnn.py (RMSprop with rate 1e-4, 32 images a
    step, 100 epochs): pooling and dropout. cifar10_cnn.py shifts and mirrors its images, which is left out here.

All start from Glorot's uniform weights and zero biases, as Keras does. Where an example trains for long, ours is
stopped earlier; each network says both numbers of epochs. Matrix products of the training are in bfloat16.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional

from advlib import models, paths
from advlib.progress import track
from compendium import paths as places

FOLDER = places.RESULTS / "networks" / "may-2017"
"""Weights and cards; git ignores them."""

SEED = 0

Layers = Callable[[int, int], list[nn.Module]]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()]


def cleverhans(channels: int, size: int) -> list[nn.Module]:
    """CleverHans' `cnn_model` after March 2017; the hidden layers are `advlib.models.cleverhans_tutorial`."""
    hidden, head = models.cleverhans_tutorial(channels, 10, size)
    return [*hidden, head]


def cleverhans_dropout(channels: int, size: int) -> list[nn.Module]:
    """CleverHans' `cnn_model` before March 2017: dropout at the input and before the dense layer."""
    *convolutions, flatten, head = cleverhans(channels, size)
    return [nn.Dropout(0.2), *convolutions, nn.Dropout(0.5), flatten, head]


def pooled(channels: int, size: int, second: int = 32) -> list[nn.Module]:
    """ex_00.py of tensorflow-adversarial; with 64 filters in the second convolution Keras' mnist_cnn.py."""
    return [
        *_convolution(channels, 32, 3), *_convolution(32, second, 3), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(second * ((size - 4) // 2) ** 2, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    ]  # fmt: skip


def keras_mnist(channels: int, size: int) -> list[nn.Module]:
    """Keras' mnist_cnn.py."""
    return pooled(channels, size, second=64)


def keras_cifar(channels: int, size: int) -> list[nn.Module]:
    """Keras' cifar10_cnn.py."""
    side = (((size - 2) // 2) - 2) // 2
    return [
        *_convolution(channels, 32, 3, padding=1), *_convolution(32, 32, 3), nn.MaxPool2d(2), nn.Dropout(0.25),
        *_convolution(32, 64, 3, padding=1), *_convolution(64, 64, 3), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * side**2, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10),
    ]  # fmt: skip


def perceptron(channels: int, size: int) -> list[nn.Module]:
    """utils_mnist.py of tensorflow-adversarial: three hidden layers of 100."""
    widths = (channels * size**2, 100, 100, 100)
    hidden = [
        layer
        for inputs, outputs in pairwise(widths)
        for layer in (nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.5))
    ]
    return [nn.Flatten(), *hidden, nn.Linear(100, 10)]


@dataclass(frozen=True)
class Network:
    """A network and how it is trained.

    Attributes
    ----------
    name : str
    image_set : {"mnist", "cifar10", "cifar10-grey"}
    layers : callable
        (channels, size) → all layers, the last one to the 10 logits.
    epochs, source_epochs : int
        Of our training and of the example's.
    optimizer : {"adadelta", "adam", "rmsprop"}
        With a constant rate.
    rate : float
    batch_size : int
    smoothing : float
        Share of the label that is spread over the nine other classes.
    """

    name: str
    image_set: Literal["mnist", "cifar10", "cifar10-grey"]
    layers: Layers
    epochs: int
    source_epochs: int
    optimizer: Literal["adadelta", "adam", "rmsprop"] = "adadelta"
    rate: float = 0.1
    batch_size: int = 128
    smoothing: float = 0.0

    @property
    def key(self) -> str:
        """Image set and name in one word, of which files are named."""
        return f"{self.image_set}-{self.name}".replace(", ", "-").replace(" ", "-").lower()


def _cleverhans(image_set: str, layers: Layers, epochs: int, words: str) -> Network:
    return Network(f"CleverHans, {words}", image_set, layers, epochs, 6 if image_set == "mnist" else 10, smoothing=0.1)


def _pooled(image_set: str, epochs: int) -> Network:
    return Network("tensorflow-adversarial", image_set, pooled, epochs, 10, "adam", 1e-3, 64)


def _keras(image_set: str) -> Network:
    return Network("Keras example", image_set, keras_cifar, 1, 100, "rmsprop", 1e-4, 32)


NETWORKS = (
    _cleverhans("mnist", cleverhans, 6, "Adadelta"),
    _cleverhans("mnist", cleverhans, 1, "Adadelta, 1 epoch"),
    _cleverhans("mnist", cleverhans_dropout, 3, "dropout"),
    _pooled("mnist", 3),
    Network("Keras example", "mnist", keras_mnist, 1, 12, rate=1.0),
    Network("perceptron", "mnist", perceptron, 5, 100, batch_size=64),
    _cleverhans("cifar10", cleverhans, 6, "Adadelta"),
    _cleverhans("cifar10", cleverhans_dropout, 2, "dropout"),
    _pooled("cifar10", 2),
    _keras("cifar10"),
    _cleverhans("cifar10-grey", cleverhans, 6, "Adadelta"),
    _cleverhans("cifar10-grey", cleverhans_dropout, 2, "dropout"),
    _pooled("cifar10-grey", 2),
    _keras("cifar10-grey"),
)


def build(network: Network, seed: int = SEED) -> models.Classifier:
    """Return a network with Keras' initial weights, on pixels in [0, 1] as they are, in training mode."""
    mnist = network.image_set == "mnist"
    channels, size = 3 if network.image_set == "cifar10" else 1, 28 if mnist else 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        *hidden, head = network.layers(channels, size)
        for layer in (*hidden, head):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    identity = models.Normalize((0.0,) * channels, (1.0,) * channels)
    return models.Classifier(identity, nn.Sequential(*hidden), head)


def _optimizer(network: Network, model: nn.Module) -> torch.optim.Optimizer:
    if network.optimizer == "adadelta":
        return torch.optim.Adadelta(model.parameters(), network.rate, rho=0.95, eps=1e-8)
    if network.optimizer == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), network.rate, alpha=0.9, eps=1e-8)
    return torch.optim.Adam(model.parameters(), network.rate, eps=1e-8)


def fit(network: Network, model: nn.Module, images: np.ndarray, labels: np.ndarray, seed: int = SEED) -> None:
    """Train `model` in place on (n, c, h, w) float32 images and (n,) int64 labels; leaves it in evaluation mode.

    Raises
    ------
    FloatingPointError
        If the loss becomes NaN or infinite.
    """
    everything, targets = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer, generator = _optimizer(network, model), torch.Generator().manual_seed(seed)
    smoothing = network.smoothing * 10 / 9  # torch spreads over all ten classes
    model.train().to(memory_format=torch.channels_last)
    order = [
        part
        for _ in range(network.epochs)
        for part in torch.randperm(len(images), generator=generator).split(network.batch_size)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of dropout
        for part in track(order, f"{network.image_set}: {network.name}"):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(everything[part].contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), targets[part], label_smoothing=smoothing)
            if not loss.isfinite():
                raise FloatingPointError(f"the training loss of {network.name} became {loss.item()}; lower its rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval().to(memory_format=torch.contiguous_format)


def files(network: Network) -> tuple[Path, Path]:
    """Where weights and card of a network lie."""
    return FOLDER / f"{network.key}.safetensors", FOLDER / f"{network.key}.json"


def description(network: Network) -> dict[str, Any]:
    """Return what a card says of a network before it is trained; another recipe is another network."""
    plain = asdict(network) | {"layers": network.layers.__name__, "seed": SEED}
    return plain | {"parameters": sum(p.numel() for p in build(network).parameters())}


def train(network: Network) -> dict[str, Any]:
    """Train a network, unless that was done, keep its weights, and return its card.

    Returns
    -------
    dict
        `description`, accuracy on the official test images, sha256 of the weights, cpu_s of the training.

    Raises
    ------
    advlib.datasets.DataUnavailable
        If the data set is neither on disk nor to be had.
    """
    weights, card = files(network)
    FOLDER.mkdir(parents=True, exist_ok=True)
    if weights.is_file() and card.is_file():
        found = json.loads(card.read_text(encoding="utf-8"))
        if all(found[key] == value for key, value in description(network).items()):
            return found
    tutorials = {"mnist": "mnist-vs22-official", "cifar10": "cifar10-resnet"}
    data = models.partition(tutorials.get(network.image_set, "cifar10-grey-cleverhans"))  # the official split
    model, start = build(network), time.process_time()
    fit(network, model, data.train_images, data.train_labels)
    seconds = round(time.process_time() - start, 1)
    contents = save({key: value.contiguous() for key, value in model.state_dict().items()})
    found = description(network) | {
        "accuracy": models.accuracy(model, data.holdout_images, data.holdout_labels),
        "sha256": hashlib.sha256(contents).hexdigest(),
        "cpu_s": seconds,
    }
    with paths.replacing(card) as card_part, paths.replacing(weights) as weights_part:
        weights_part.write_bytes(contents)
        card_part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def load(network: Network) -> models.Classifier:
    """Return a trained network, in evaluation mode, its parameters frozen; `train` must have been called."""
    model = build(network)
    model.load_state_dict(load_file(files(network)[0]))
    return model.eval().requires_grad_(False)
