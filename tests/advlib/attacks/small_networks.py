"""What the tests of the attacks attack: small networks, random images, and a linear model's exact gradient."""

import numpy as np
import torch
from torch import nn

CHANNELS, SIDE, CLASSES = 2, 5, 3


def linear_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIDE * SIDE, CLASSES))


def network(seed=0):
    """Everything that could go wrong: dropout, batch norm, pooling, parameters that want gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(CHANNELS, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(4, CLASSES),
        )  # fmt: skip


def batch(n=12, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.random((n, CHANNELS, SIDE, SIDE), dtype=np.float32)
    return images, rng.integers(0, CLASSES, n)


def exact_signs(model, images, labels):
    """Sign of the gradient of a linear model's cross-entropy in closed form: Wᵀ(softmax(z) − onehot(y)), in float64."""
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    z = images.reshape(len(images), -1).astype(float) @ weight.T + bias
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return np.sign((p - np.eye(CLASSES)[labels]) @ weight).reshape(images.shape)
