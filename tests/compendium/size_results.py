"""Results of sweeps made by hand, for the tests of `common.size_sweeps` and of notebooks 03 and 05."""

import numpy as np
import torch
from torch import nn

from compendium.common import g17, size_sweeps

MODES = {mode.name: mode for mode in g17.MODES}


class Linear(nn.Module):
    def __init__(self, features):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(features, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))


def use_toy_images(monkeypatch):
    """Image sets of random pixels and a linear network, so that a sweep takes no time."""
    rng = np.random.default_rng(0)
    sets = {"mnist": rng.random((60, 1, 6, 6), np.float32), "cifar10": rng.random((60, 3, 6, 6), np.float32)}
    labels = rng.integers(0, 10, 60)

    def images(name, count):
        return sets[name], sets[name][: count or None], labels[: count or None]

    def attack(attack, network, images, labels, **parameters):
        return attack(size_sweeps.models.load_trained(network), images, labels, **parameters)

    monkeypatch.setattr(g17, "all_and_attacked", images)
    monkeypatch.setattr(size_sweeps, "stored_attack", attack)
    monkeypatch.setattr(
        size_sweeps.models, "load_trained", lambda name: Linear(108 if name.startswith("cifar10") else 36)
    )


def result(r1, r2, mode="as published", size=10, row="MNIST", noise=None, lambdas=None, outside=1.0):
    r1, r2 = np.asarray(r1, float), np.asarray(r2, float)
    noise = r1 if noise is None else np.asarray(noise, float)
    lambda_ = np.full(len(r2), 0.01) if lambdas is None else np.asarray(lambdas, float)
    setting = np.stack([np.ones(len(r2)), lambda_], axis=1)
    return size_sweeps.SizeResult(
        row, mode, size, r1, r2, noise, dict.fromkeys(size_sweeps.SIDES, np.zeros(len(r1))),
        dict.fromkeys(size_sweeps.SIDES, setting), (0.99, 0.1, 0.6), outside,
    )  # fmt: skip


def apart(n=40):
    return np.linspace(20, 25, n), np.linspace(0.9, 1.1, n)


def together(n=40):
    values = np.linspace(0.9, 1.1, n)
    return values, values
