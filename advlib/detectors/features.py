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
    blocks = torch.nn.functional.avg_pool2d((tensor - _smooth(tensor)).abs(), 4)
    return blocks.reshape(len(tensor), -1).numpy()


_DIFFERENCES = {
    "first, across": [[1.0, -1.0]],
    "first, down": [[1.0], [-1.0]],
    "second, across": [[-0.5, 1.0, -0.5]],
    "second, down": [[-0.5], [1.0], [-0.5]],
    "mixed": [[0.5, -0.5], [-0.5, 0.5]],
    "second, both": [[-0.25, 0.5, -0.25], [0.5, -1.0, 0.5], [-0.25, 0.5, -0.25]],
}
_DIFFERENCE_EDGES = np.geomspace(1 / 512, 0.5, 9)
_PIXEL_EDGES = np.array([1 / 512, 0.02, 0.05, 0.1, 0.9, 0.95, 0.98, 1 - 1 / 512])


def texture(images: ArrayLike) -> np.ndarray:
    """Return how differences between neighbouring pixels are distributed, (n, 62·c).

    For each of six differences (first and second, across and down, the mixed one, and the second in both directions,
    each scaled to at most 1) the share of places where it is smaller than each of nine sizes, from half a grey level to
    half the range; and the share of pixels below eight values near the ends of the range. Of each share the square
    root, which gives shares near 0 and near 1 the same sampling error. Where things lie in the image is forgotten, and
    with it what it shows; left is its noise. Steganalysis looks at images in the same way [1]_ [2]_.

    References
    ----------
    .. [1] J. Fridrich and J. Kodovský, "Rich models for steganalysis of digital images", IEEE Trans. Inf. Forensics
       Secur. 7 (2012) 868-882, doi:10.1109/TIFS.2012.2190402.
    .. [2] P. Schöttle et al., "Detecting adversarial examples: a lesson from multimedia security", EUSIPCO 2018,
       arXiv:1803.03613.
    """
    tensor = _images(images)
    n, c, h, w = tensor.shape
    if min(h, w) < 3:
        raise ValueError(f"images must be at least 3 pixels wide and high for texture, but have shape {(c, h, w)}")
    shares = [_shares(planes) for planes in tensor.reshape(n * c, 1, h, w).split(_CACHED_PLANES)]
    return torch.cat(shares).sqrt_().reshape(n, -1).numpy()


_CACHED_PLANES = 300  # at a time: several times as fast as thousands, which leave a CPU's cache


def _shares(planes: torch.Tensor) -> torch.Tensor:
    """Return the shares that `texture` speaks of, (n, 62), of single planes (n, 1, h, w)."""
    columns = [(planes.flatten(1), _PIXEL_EDGES)]
    for kernel in _DIFFERENCES.values():
        difference = torch.nn.functional.conv2d(planes, torch.tensor(kernel)[None, None]).abs_()
        columns.append((difference.flatten(1), _DIFFERENCE_EDGES))
    shares = []
    for values, edges in columns:
        # Sorted once, each row answers all edges at a glance: how many values lie below.
        ordered = torch.from_numpy(np.sort(values.numpy(), axis=1))
        below = torch.searchsorted(ordered, torch.tensor(edges, dtype=torch.float32).repeat(len(planes), 1))
        shares.append(below.float() / values.shape[1])
    return torch.cat(shares, dim=1)


_LEVELS = 4
_BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def multiscale(images: ArrayLike) -> np.ndarray:
    """Return how strong each scale of each colour is, (n, 12·c) for grey and (n, 48) for three channels.

    A pyramid of four levels [1]_, each a band between an image and its blur, then half the size. Of each band the
    logarithms of root mean square, mean and lower quartile of the absolute value: edges make the first, a floor of
    noise the last. Three channels are taken as brightness, red − green and yellow − blue, for what is added channel by
    channel shows in the colours, which natural images hardly use at fine scales; and of each level the three
    correlations of their bands. Images need at least 8 pixels a side.

    References
    ----------
    .. [1] P. J. Burt and E. H. Adelson, "The Laplacian pyramid as a compact image code", IEEE Trans. Commun. 31 (1983)
       532-540, doi:10.1109/TCOM.1983.1095851.
    """
    return scales(_images(images)).numpy()


def scales(tensor: torch.Tensor) -> torch.Tensor:
    """Return `multiscale` of images (n, c, h, w) as a tensor (n, d), through which gradients flow."""
    n, c, h, w = tensor.shape
    if min(h, w) < 8:
        raise ValueError(f"images must be at least 8 pixels wide and high for multiscale, but have shape {(c, h, w)}")
    if c == 3:
        opponent = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]]).to(tensor)
        tensor = torch.einsum("dc,nchw->ndhw", opponent, tensor)
    columns = []
    blurred = None
    for _ in range(_LEVELS):
        tensor = tensor if blurred is None else torch.nn.functional.avg_pool2d(blurred, 2)
        blurred = _binomial(tensor)
        band = (tensor - blurred).flatten(2)
        size = band.abs()
        rms = (band.square().mean(2) + 1e-20).sqrt()  # with a slope at 0, too
        columns += [torch.log10(1e-3 + part) for part in (rms, size.mean(2), size.quantile(0.25, dim=2))]
        if c == 3:
            standard = band / (rms[:, :, None] + 1e-3)
            pairs = ((0, 1), (0, 2), (1, 2))
            columns.append(torch.stack([(standard[:, i] * standard[:, j]).mean(1) for i, j in pairs], 1))
    return torch.cat(columns, dim=1).reshape(n, -1)


def _binomial(images: torch.Tensor) -> torch.Tensor:
    n, c, h, w = images.shape
    mode = "reflect" if min(h, w) > 2 else "replicate"
    planes = torch.nn.functional.pad(images.reshape(n * c, 1, h, w), (2, 2, 2, 2), mode=mode)
    binomial = _BINOMIAL.to(images)
    rows = torch.nn.functional.conv2d(planes, binomial[None, None, :, None])
    return torch.nn.functional.conv2d(rows, binomial[None, None, None, :]).reshape(n, c, h, w)


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


@dataclass(frozen=True)
class Stability:
    """How firmly a shipped network says what it says about an image: three numbers that noise hardly moves.

    Its margin, the difference of its two largest logits, over 5; and the logarithms (base 10, from 10⁻⁶) of how far its
    probabilities move, in L1, when the image is smoothed halfway to its 3 × 3 mean, and when a fixed pattern of ±0.03
    is added and subtracted. An adversarial example that was pushed only as far as it takes lies near a decision
    boundary; an image with random noise of the same size does not [1]_ [2]_. This looks at the network under attack, so
    it is not model-agnostic, and an attacker who goes on until the network is sure escapes it.

    Parameters
    ----------
    name : str
        Of the network, one of `advlib.models.SPECS`.

    References
    ----------
    .. [1] W. Xu, D. Evans and Y. Qi, "Feature squeezing", NDSS 2018, arXiv:1704.01155.
    .. [2] K. Roth, Y. Kilcher and T. Hofmann, "The odds are odd: a statistical test for detecting adversarial
       examples", ICML 2019, arXiv:1902.04818.
    """

    name: str

    def __call__(self, images: ArrayLike) -> np.ndarray:
        """(n, c, h, w) images in [0, 1] → (n, 3) float32."""
        tensor, network = _images(images), _loaded(self.name)
        signs = np.random.default_rng(0).integers(0, 2, size=tensor.shape[1:]) * 2 - 1
        pattern = 0.03 * torch.from_numpy(signs.astype(np.float32))
        half = (tensor + _smooth(tensor)) / 2
        logits = torch.from_numpy(models.logits(network, tensor))
        before = logits.softmax(dim=1)

        def moved(other: torch.Tensor) -> torch.Tensor:
            after = torch.from_numpy(models.logits(network, other.clamp(0, 1))).softmax(dim=1)
            return (after - before).abs().sum(dim=1)

        top = logits.topk(2, dim=1).values
        columns = [(top[:, 0] - top[:, 1]) / 5, *(torch.log10(1e-6 + move) for move in (
            moved(half), (moved(tensor + pattern) + moved(tensor - pattern)) / 2))]  # fmt: skip
        return torch.stack(columns, dim=1).numpy()


_REGISTERED: dict[str, FeatureMap] = {
    "pixels": pixels,
    "residual": residual,
    "texture": texture,
    "multiscale": multiscale,
}
NAMES = (
    *_REGISTERED,
    *(f"{layer}:{network}" for layer in ("hidden", "logits", "stability") for network in models.NAMES),
)
"""Names of the maps that come with the package."""


def resolve(features: str | FeatureMap) -> FeatureMap:
    """Return the feature map of a name; a callable is returned as it is.

    Parameters
    ----------
    features : str or callable
        One of `NAMES`, another network of `advlib.models.SPECS` in their manner, a name given to `register`, or the
        map itself.

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
        if network in models.SPECS and layer in ("hidden", "logits"):
            return Network(network, layer)
        if network in models.SPECS and layer == "stability":
            return Stability(network)
    known = ", ".join([*_REGISTERED, "hidden:NETWORK", "logits:NETWORK", "stability:NETWORK"])
    raise ValueError(
        f"features must be a callable or one of {known} (NETWORK one of {', '.join(models.SPECS)}), "
        f"but is {features!r}; a map of your own is made known with advlib.detectors.features.register"
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
    if isinstance(features, Stability):
        return f"stability:{features.name}"
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
    try:
        vectors = resolve(features)(tensor.numpy())
    except (RuntimeError, models.DoesNotFit) as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise ValueError(
            f"the feature map {name_of(features)} cannot take images of shape {tuple(tensor.shape[1:])}: {first}"
        ) from error
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


def _loaded(network: str) -> torch.nn.Module:
    return _kept(network, models.card(network)["sha256"])


@lru_cache(maxsize=4)
def _kept(network: str, sha256: str) -> torch.nn.Module:
    """Load a network; the digest tells apart the weights that `advlib.models.weights_from` may give one name."""
    return models.load_trained(network)


def _images(images: ArrayLike) -> torch.Tensor:
    given = models.as_tensor(images, "images")
    if given.ndim != 4 or given.numel() == 0:
        raise ValueError(f"images must be a non-empty (n, c, h, w) array, but has shape {tuple(given.shape)}")
    tensor = given.to("cpu", torch.float32)
    if not tensor.isfinite().all():
        bad = int((~tensor.isfinite()).sum())
        raise ValueError(f"images must be finite in float32, but {bad} of their {tensor.numel()} values are not")
    return tensor


def _smooth(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
