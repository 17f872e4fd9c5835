"""Small data for exercises: real images that need no download, and a network that learns them in a moment.

References
----------
E. Alpaydin, C. Kaynak, *Optical recognition of handwritten digits*, UCI machine learning repository, 1998,
doi:10.24432/C50P49; as scikit-learn ships them.
"""

from functools import cache

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from advlib.models import as_tensor, frozen

N_REFERENCE = 800
"""Digits that the network has learned and that balls are put around; the other 997 are unseen."""


@cache
def _shuffled() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels[order].astype(np.int64)


def reference() -> np.ndarray:
    """Return the digits that the network has learned, (800, 1, 8, 8) float32 pixels in [0, 1]."""
    return _shuffled()[0][:N_REFERENCE].copy()


def digits(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return unseen digits (count, 1, 8, 8) float32 in [0, 1] and their labels (count,) int64; count up to 997.

    Raises
    ------
    ValueError
        If there are not so many.
    """
    images, labels = _shuffled()
    if not 1 <= count <= len(images) - N_REFERENCE:
        raise ValueError(f"count must lie between 1 and the {len(images) - N_REFERENCE} unseen digits, but is {count}")
    part = slice(N_REFERENCE, N_REFERENCE + count)
    return images[part].copy(), labels[part].copy()


def kernels(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Gaussian kernels of width σ = 1, (n, b), of points (n, d) around centers (b, d)."""
    return np.exp(-cdist(points, centers, "sqeuclidean") / 2)


@cache
def network() -> nn.Module:
    """Return a linear softmax classifier of the digits, (n, 1, 8, 8) → (n, 10) logits, fitted to `reference`."""
    images, labels = _shuffled()
    fitted = LogisticRegression(max_iter=500).fit(images[:N_REFERENCE].reshape(N_REFERENCE, -1), labels[:N_REFERENCE])
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fitted.coef_))
        layer.bias.copy_(torch.from_numpy(fitted.intercept_))
    return nn.Sequential(nn.Flatten(), layer).eval()


def loss_gradient(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the gradient of `network`'s cross-entropy with respect to each image, (n, 1, 8, 8) float32.

    Parameters
    ----------
    images : (n, 1, 8, 8) array
        Pixels.
    labels : (n,) integer array
        Classes whose cross-entropy it is.
    """
    points = as_tensor(np.asarray(images, np.float32)).clone().requires_grad_()
    with frozen(network()), torch.enable_grad():
        loss = nn.functional.cross_entropy(network()(points), as_tensor(np.asarray(labels)), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
    return gradient.numpy()
