"""Architectures of the papers' classifiers: hidden layers and head, put together with their normalisation."""

import itertools

import torch
from torch import nn


class Normalize(nn.Module):
    """(images − mean) / std, channel by channel; mean and std are buffers and travel with the weights.

    Parameters
    ----------
    mean, std : tuple of float
        One value a channel, in units of pixels in [0, 1].
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise (n, c, h, w) images in [0, 1]."""
        return (images - self.mean) / self.std


class Classifier(nn.Module):
    """Normalisation, hidden layers, one linear layer to the logits.

    Parameters
    ----------
    normalize : Normalize
    hidden : nn.Module
        (n, c, h, w) normalised images → (n, d), the last hidden layer.
    head : nn.Linear
        (n, d) → (n, classes).
    """

    def __init__(self, normalize: Normalize, hidden: nn.Module, head: nn.Linear):
        super().__init__()
        self.normalize = normalize
        self.hidden = hidden
        self.head = head

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Last hidden layer, (n, d), of (n, c, h, w) images in [0, 1]."""
        return self.hidden(self.normalize(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, (n, classes), of (n, c, h, w) images in [0, 1]."""
        return self.head(self.features(images))


def vs22_mnist(channels: int = 1, classes: int = 10) -> tuple[nn.Module, nn.Linear]:
    """Hidden layers and head of VS22 Table 1, for 28 × 28 images.

    Convolutions are 3 × 3 without padding, the only choice that gives the table's 800 neurons after the second
    pooling: 28 → 26 → 13 → 11 → 5, and 32 · 5 · 5 = 800. Dropout is 0.5 (appendix B).
    """
    hidden = nn.Sequential(
        nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(800, 512), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(512, 64), nn.ReLU(),
    )  # fmt: skip
    return hidden, nn.Linear(64, classes)


def vs22_medmnist(channels: int, classes: int) -> tuple[nn.Module, nn.Linear]:
    """Hidden layers and head of VS22 Table 2, for 28 × 28 images.

    The table gives padding = 1 for the fifth convolution only, so the others have none:
    28 → 26 → 24 → 12 → 10 → 8 → 8 → 4, and 64 · 4 · 4 = 1024 numbers reach the first dense layer.
    """

    def convolution(inputs: int, outputs: int, padding: int = 0) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()]

    hidden = nn.Sequential(
        *convolution(channels, 32),
        *convolution(32, 32), nn.MaxPool2d(2),
        *convolution(32, 64),
        *convolution(64, 64),
        *convolution(64, 64, padding=1), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 128), nn.ReLU(),
        nn.Linear(128, 64), nn.ReLU(),
    )  # fmt: skip
    return hidden, nn.Linear(64, classes)


def cleverhans_tutorial(channels: int, classes: int, size: int) -> tuple[nn.Module, nn.Linear]:
    """Hidden layers and head of the network in the CleverHans tutorial of 2017, the likely one of G17.

    64 filters 8 × 8, stride 2, "SAME"; 128 filters 6 × 6, stride 2, "VALID"; 128 filters 5 × 5, stride 1, "VALID";
    one dense layer. TensorFlow's "SAME" means padding by 3 on every side here, for 28 and for 32 pixels.
    No pooling, so no pixel's gradient is zero because another one won.
    """
    side = (size // 2 - 6) // 2 + 1 - 4
    hidden = nn.Sequential(
        nn.Conv2d(channels, 64, 8, stride=2, padding=3), nn.ReLU(),
        nn.Conv2d(64, 128, 6, stride=2), nn.ReLU(),
        nn.Conv2d(128, 128, 5), nn.ReLU(),
        nn.Flatten(),
    )  # fmt: skip
    return hidden, nn.Linear(128 * side**2, classes)


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the branch to its input."""
        return x + self.branch(x)


def resnet9(channels: int, classes: int) -> tuple[nn.Module, nn.Linear]:
    """Hidden layers and head of a small residual network of nine layers for 32 × 32 images.

    The layout of the "ResNet-9" of the DAWNBench CIFAR-10 entries at half its width.
    """

    def convolution(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    def residual(width: int) -> Residual:
        return Residual(nn.Sequential(convolution(width, width), convolution(width, width)))

    hidden = nn.Sequential(
        convolution(channels, 32),
        convolution(32, 64), nn.MaxPool2d(2), residual(64),
        convolution(64, 128), nn.MaxPool2d(2),
        convolution(128, 256), nn.MaxPool2d(2), residual(256),
        nn.MaxPool2d(4), nn.Flatten(),
    )  # fmt: skip
    return hidden, nn.Linear(256, classes)


class Whitening(nn.Conv2d):
    """2 × 2 patches onto their principal components, of mean square 1 each, and onto the negatives.

    The filters come from images, by `learn`, and are not trained [1]_; the bias is trained.

    Parameters
    ----------
    channels : int
        Of the images; there are eight filters a channel.

    References
    ----------
    .. [1] K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, arXiv:2404.00498.
    """

    def __init__(self, channels: int):
        super().__init__(channels, 8 * channels, 2)
        self.weight.requires_grad_(False)

    def learn(self, images: torch.Tensor) -> None:
        """Take the filters from the patches of (n, c, h, w) normalised images."""
        patches = nn.functional.unfold(images, 2).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors.T / (values + 5e-4).sqrt()[:, None]).reshape(-1, *self.weight.shape[1:])
        with torch.no_grad():
            self.weight.copy_(torch.cat([filters, -filters]))


class Scale(nn.Module):
    """The input times a number."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return x * self.factor


def airbench(channels: int, classes: int) -> tuple[nn.Module, nn.Linear]:
    """Hidden layers and head of the network of six trained convolutions of Jordan 2024, for 32 × 32 images.

    K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498: convolutions begin as the identity
    on as many channels as they can, batch normalisation has no gain, and the last hidden layer, so that the logits as
    well, is scaled by 1/9.
    """

    def convolution(inputs: int, outputs: int, pool: bool) -> list[nn.Module]:
        filters = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        nn.init.dirac_(filters.weight[:inputs])
        norm = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        norm.weight.requires_grad_(False)
        return [filters, *[nn.MaxPool2d(2)] * pool, norm, nn.GELU()]

    widths = (8 * channels, 64, 256, 256)
    blocks = [
        layer
        for inputs, outputs in itertools.pairwise(widths)
        for layer in (*convolution(inputs, outputs, True), *convolution(outputs, outputs, False))
    ]
    hidden = nn.Sequential(Whitening(channels), nn.GELU(), *blocks, nn.MaxPool2d(3), nn.Flatten(), Scale(1 / 9))
    return hidden, nn.Linear(256, classes, bias=False)
