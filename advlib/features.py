"""What a detector looks at: feature maps from images to vectors, kept by name.

A feature map takes (n, c, h, w) images in [0, 1] and gives (n, d) float32 vectors, image by image: the vector of an
image does not depend on which others are in the batch, so that it may be computed once and drawn from many times.
A saved detector holds the *name* of its map, so a map of your own needs one too: `register`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from advlib import models
from advlib.checks import ArrayLike

FeatureMap = Callable[[ArrayLike], np.ndarray]


def pixels(images: ArrayLike) -> np.ndarray:
    """Return every pixel of every channel, (n, c·h·w): what both papers look at."""
    tensor = _images(images)
    return tensor.reshape(len(tensor), -1).numpy()


def residual(images: ArrayLike) -> np.ndarray:
    """Return |image − its 3 × 3 mean|, averaged over blocks of 4 × 4 pixels, (n, c·⌊h/4⌋·⌊w/4⌋).

    What a smoothed copy takes away is noise and edges; the content is gone. At the border, the mean is over the pixels
    that are there.
    """
    tensor = _images(images)
    smooth = torch.nn.functional.avg_pool2d(tensor, 3, 1, 1, count_include_pad=False)
    return _pooled((tensor - smooth).abs(), 4)


@dataclass(frozen=True)
class Network:
    """A shipped network's output as a feature map: its last hidden layer or its logits.

    Parameters
    ----------
    name : str
        Of the network, one of `advlib.models.SPECS`.
    layer : {"hidden", "logits"}
    """

    name: str
    layer: str = "hidden"

    def __call__(self, images: ArrayLike) -> np.ndarray:
        """(n, c, h, w) images in [0, 1] → (n, d) float32."""
        function = models.embed if self.layer == "hidden" else models.logits
        return function(_loaded(self.name), _images(images))


_REGISTERED: dict[str, FeatureMap] = {"pixels": pixels, "residual": residual}
NAMES = (*_REGISTERED, *(f"{layer}:{network}" for layer in ("hidden", "logits") for network in models.NAMES))
"""Names of the maps that come with the package."""


def resolve(features: str | FeatureMap) -> FeatureMap:
    """Return the feature map of a name; a callable is returned as it is.

    Parameters
    ----------
    features : str or callable
        One of `NAMES`, "hidden:NETWORK" or "logits:NETWORK", a name given to `register`, or the map itself.

    Raises
    ------
    ValueError
        For an unknown name, with the names there are.
    """
    if callable(features):
        return features
    if isinstance(features, str):
        if features in _REGISTERED:
            return _REGISTERED[features]
        layer, _, network = features.partition(":")
        if layer in ("hidden", "logits") and network in models.SPECS:
            return Network(network, layer)
    known = ", ".join([*_REGISTERED, "hidden:NETWORK", "logits:NETWORK"])
    raise ValueError(
        f"features must be a callable or one of {known} (NETWORK one of {', '.join(models.SPECS)}), "
        f"but is {features!r}; a map of your own is made known with advlib.features.register"
    )


def name_of(features: str | FeatureMap) -> str:
    """Return the name that `resolve` takes back, or the function's own dotted name if it was never registered."""
    if isinstance(features, str):
        resolve(features)
        return features
    for name, function in _REGISTERED.items():
        if function == features:
            return name
    if isinstance(features, Network):
        return f"{features.layer}:{features.name}"
    kind = features if hasattr(features, "__qualname__") else type(features)
    return f"{kind.__module__}.{kind.__qualname__}"


def register(name: str, function: FeatureMap) -> FeatureMap:
    """Make a feature map known by a name, so that a saved detector finds it again.

    Parameters
    ----------
    name : str
        Letters, digits, "-", "_" and "."; not one that comes with the package.
    function : callable
        (n, c, h, w) images in [0, 1] → (n, d) floats.

    Returns
    -------
    callable
        The same function.

    Raises
    ------
    ValueError
        For a name that is taken by another function or has other characters.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name must consist of letters, digits, '-', '_' and '.', but is {name!r}")
    if not callable(function):
        raise ValueError(f"function must be callable, but is {type(function).__name__}")
    if name in NAMES and _REGISTERED[name] is not function:
        raise ValueError(f"name must not be one that comes with the package, but is {name!r}")
    _REGISTERED[name] = function
    return function


def apply(features: str | FeatureMap, images: ArrayLike) -> np.ndarray:
    """Return the feature vectors of images, checked.

    Parameters
    ----------
    features : str or callable
        As for `resolve`.
    images : (n, c, h, w) array or tensor
        In [0, 1].

    Returns
    -------
    (n, d) float32 array

    Raises
    ------
    ValueError
        If images are not (n, c, h, w), or the map gives something else than n rows of finite numbers.
    """
    tensor = _images(images)
    vectors = resolve(features)(tensor.numpy())
    vectors = vectors.detach().cpu().numpy() if isinstance(vectors, torch.Tensor) else np.asarray(vectors)
    name = name_of(features)
    if vectors.ndim != 2 or len(vectors) != len(tensor) or vectors.shape[1] == 0:
        raise ValueError(
            f"the feature map {name} must give one vector an image, shape ({len(tensor)}, d), but gave {vectors.shape}"
        )
    vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(f"the feature map {name} must give finite numbers, but gave NaN or infinity")
    return vectors


@lru_cache(maxsize=4)
def _loaded(network: str) -> torch.nn.Module:
    return models.load_trained(network)


def _images(images: ArrayLike) -> torch.Tensor:
    tensor = models.as_tensor(images).to("cpu", torch.float32)
    if tensor.ndim != 4 or tensor.numel() == 0:
        raise ValueError(f"images must be a non-empty (n, c, h, w) array, but has shape {tuple(tensor.shape)}")
    return tensor


def _pooled(maps: torch.Tensor, size: int) -> np.ndarray:
    return torch.nn.functional.avg_pool2d(maps, size).reshape(len(maps), -1).numpy()
