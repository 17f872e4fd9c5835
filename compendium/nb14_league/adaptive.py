"""Attackers who know the detector: PGD on the network's margin and on a smooth stand-in for what the detector sees.

A stand-in replaces steps by slopes: shares below an edge become sums of sigmoids, rounding lets gradients through. The
attacker keeps, of all steps and restarts that fool the network, the one that the stand-in minds least [1]_ [2]_.

References
----------
.. [1] N. Carlini and D. Wagner, "Adversarial examples are not easily detected", AISec 2017, arXiv:1705.07263.
.. [2] F. Tramèr, N. Carlini, W. Brendel and A. Mądry, "On adaptive attacks to adversarial example defenses", NeurIPS
   2020, arXiv:2002.08347.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import nn
from torch.nn import functional

from advlib.detectors import features
from advlib.detectors.aim import AimTest, around, changes, score
from compendium.nb14_league.attacks import margin_loss

Penalty = Callable[[torch.Tensor], torch.Tensor]
"""(n, c, h, w) → (n,): what a detector would mind."""

_EDGES = (1 / 512, 1 / 128, 1 / 32, 1 / 8)
_WEIGHTS = (0.3, 1.0, 3.0, 10.0)  # of the penalty, one after another: fool first, hide then


def soft_texture(images: torch.Tensor) -> torch.Tensor:
    """Return `features.texture` with sigmoids for steps, (n, d): square roots of shares below a few edges."""
    n, c, h, w = images.shape
    planes = images.reshape(n * c, 1, h, w)
    across, down = planes[..., 1:] - planes[..., :-1], planes[..., 1:, :] - planes[..., :-1, :]
    second = [(part[..., 1:, :] - part[..., :-1, :]) / 2 for part in (across, down)]
    along = (across[..., 1:] - across[..., :-1]) / 2
    columns = []
    for part in (across, down, *second, along):
        size = part.abs().flatten(1)
        columns += [torch.sigmoid((edge - size) / (0.3 * edge)).mean(1) for edge in _EDGES]
    flat = planes.flatten(1)
    columns += [torch.sigmoid((edge - flat) / 0.01).mean(1) for edge in (0.02, 0.1, 0.9, 0.98)]
    return (torch.stack(columns, 1) + 1e-4).sqrt().reshape(n, -1)


def penalties(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, guides: torch.Tensor, aim: AimTest | None
) -> dict[str, Penalty]:
    """Return the stand-ins, each against the image itself unattacked.

    Parameters
    ----------
    model, images, labels
        As for the attacks.
    guides : (k, c, h, w) tensor
        Clean images: hidden layers are led to that of the nearest one that is read as another class.
    aim : AimTest or None
        Fitted on this network.
    """

    def near(function: Callable[[torch.Tensor], torch.Tensor], weight: float) -> Penalty:
        own = function(images).detach()
        return lambda x: (function(x) - own).square().mean(1) * weight

    # The scales need no stand-in. In units of their spread: the mean of images that keep their own scales stays too.
    seen = LedoitWolf().fit(features.scales(guides).cpu().numpy()).covariance_
    whitening = torch.from_numpy(np.linalg.inv(np.linalg.cholesky(seen)).T).to(images)
    known: dict[str, Penalty] = {
        "texture": near(soft_texture, 50), "scales": near(lambda x: features.scales(x) @ whitening, 0.2),
    }  # fmt: skip
    if hasattr(model, "features"):
        with torch.no_grad():
            there, read = model.features(guides), model(guides).argmax(1)
            distance = torch.cdist(model.features(images), there)
            distance[labels[:, None] == read] = math.inf
            target = there[distance.argmin(1)]
        spread = there.std(0).mean().clamp_min(1e-6)
        known["hidden layer"] = lambda x: ((model.features(x) - target) / spread).square().mean(1)
    if aim is not None:
        known["aim"] = lambda x: score.score(
            aim.score_, around.look(model, x, mirror=aim.mirror_, second=aim.second_, differentiable=True)
        )
        known["aim, texture and scales"] = lambda x: known["aim"](x) + known["texture"](x) + known["scales"](x)
    return known


def evade(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float,
    rng: np.random.Generator,
    penalty: Penalty,
    *,
    steps: int = 60,
    restarts: int = 2,
    confidence: float = 1.0,
) -> torch.Tensor:
    """Fool the network within ε and hide from the penalty.

    The loss is max(0, z_label − largest other z + κ) + w · penalty; w rises through four values, an equal number of
    steps each, and the step shrinks within each.

    Returns
    -------
    (n, c, h, w) tensor
        Of each image the least penalised among its successful states, rounded to 8 bits; images that were never
        fooled are as they were.
    """
    best = images.clone()
    least = torch.full((len(images),), math.inf, device=images.device)
    each = max(1, steps // len(_WEIGHTS))
    for restart in range(restarts):
        noise = torch.from_numpy(rng.uniform(-1, 1, tuple(images.shape)).astype(np.float32)).to(images.device)
        x = (images + epsilon * noise * (0.5 if restart else 0.1)).clamp(0, 1)
        for weight in _WEIGHTS:
            for k in range(each):
                x = x.detach().requires_grad_()
                with torch.enable_grad():
                    logits = model(x)
                    minded = penalty(x)
                    loss = functional.relu(confidence - margin_loss(logits, labels)) + weight * minded
                    (slope,) = torch.autograd.grad(loss.sum(), x)
                better = (margin_loss(logits.detach(), labels) > 0.05) & (minded.detach() < least)
                best = torch.where(better[:, None, None, None], x.detach(), best)
                least = torch.where(better, minded.detach(), least)
                size = epsilon * 0.25 * (1 - k / each) + epsilon * 0.01
                x = images + (x.detach() - size * slope.nan_to_num(0).sign() - images).clamp(-epsilon, epsilon)
                x = x.clamp(0, 1)
    return changes.rounded(best)
