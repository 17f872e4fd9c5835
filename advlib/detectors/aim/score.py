"""The statistic of aim: small networks that tell attacked images from changed ones by what `around.look` saw."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from advlib.detectors import features

_HIDDEN = 32
_FITS = 5  # where no rehearsed image lies, one fit may say anything, and several seldom the same
_STEPS = 400
_FAR = 6.0  # standard deviations; beyond them one number must not decide
_MOST = 6.0  # a single image must not decide about a batch

Weights = dict[str, torch.Tensor]

OLDER = "its aim test was saved by another version: fit it again"


def learn(aimed: torch.Tensor, aimless: torch.Tensor, seed: int) -> Weights:
    """Fit the score to looks at attacked and at changed images.

    Parameters
    ----------
    aimed, aimless : (n, f), (k, f) float32 tensors
        Rows of `around.look`. Both sides weigh the same, however many rows they have.
    seed : int
        Of the first weights and of the noise that keeps the fit smooth.

    Returns
    -------
    dict
        Tensors on the CPU, for `score`.
    """
    aimed, aimless = aimed.cpu().float(), aimless.cpu().float()
    centre, spread = aimless.median(0).values, aimless.std(0).clamp_min(1e-6)
    rows = torch.cat([aimed, aimless])
    standard = ((rows - centre) / spread).clamp(-_FAR, _FAR)
    target = torch.cat([torch.ones(len(aimed)), torch.zeros(len(aimless))])
    weight = torch.where(target > 0, 0.5 / max(1, len(aimed)), 0.5 / max(1, len(aimless)))
    fits = [_fit(standard, target, weight, _FITS * seed + k) for k in range(_FITS)]
    fitted = {
        f"{part}{k}": torch.stack([getattr(layers[k], part).detach() for layers in fits])
        for k in range(3)
        for part in ("weight", "bias")
    }
    return {"centre": centre, "spread": spread, **fitted}


def _fit(rows: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, seed: int) -> list[nn.Linear]:
    """Fit one network to rows (n, f), targets 0 or 1 and weights (n,); return its three layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Linear(rows.shape[1], _HIDDEN), nn.SiLU(),
            nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(),
            nn.Linear(_HIDDEN, 1),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(body.parameters(), lr=0.01, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=_STEPS)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            found = body(rows + 0.1 * torch.randn_like(rows))[:, 0]
            (weight * functional.binary_cross_entropy_with_logits(found, target, reduction="none")).sum().backward()
            optimizer.step()
            schedule.step()
    return [layer for layer in body if isinstance(layer, nn.Linear)]


def score(weights: Weights, looks: torch.Tensor) -> torch.Tensor:
    """Return how much more like an attack than like a change without an aim each image looks, (n,), mean log odds."""
    kept = {name: tensor.to(looks.device) for name, tensor in weights.items()}
    x = ((looks - kept["centre"]) / kept["spread"]).clamp(-_FAR, _FAR)
    for k in range(3):
        x = torch.baddbmm(kept[f"bias{k}"][:, None], x.expand(len(kept["bias0"]), -1, -1), kept[f"weight{k}"].mT)
        x = functional.silu(x) if k < 2 else x
    return (_MOST * torch.tanh(x[:, :, 0] / _MOST)).mean(0)


def signature(images: torch.Tensor) -> torch.Tensor:
    """Describe how large a change may be and at which scales, without any network: (n, q).

    `features.scales`, then contrast, brightness and the share of values at the ends of the range.
    """
    flat = images.flatten(1)
    ends = ((flat < 0.5 / 255) | (flat > 1 - 0.5 / 255)).float().mean(1)
    return torch.cat([features.scales(images), torch.stack([flat.std(1), flat.mean(1), ends], dim=1)], dim=1)


def as_arrays(weights: Weights) -> dict[str, np.ndarray]:
    """Return the weights as arrays, for a file."""
    return {name: tensor.numpy().reshape(len(tensor), -1) for name, tensor in weights.items()}


def from_arrays(arrays: dict[str, np.ndarray]) -> Weights:
    """Take back what `as_arrays` gave.

    Raises
    ------
    ValueError
        If arrays are missing or of another size.
    """
    features = len(arrays.get("centre", ()))
    shapes = {"centre": (features,), "spread": (features,)}
    for k, (rows, columns) in enumerate([(_HIDDEN, features), (_HIDDEN, _HIDDEN), (1, _HIDDEN)]):
        shapes |= {f"weight{k}": (_FITS, rows, columns), f"bias{k}": (_FITS, rows)}
    if {name: array.size for name, array in arrays.items()} != {name: math.prod(s) for name, s in shapes.items()}:
        raise ValueError(OLDER)
    return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])).float().reshape(s) for name, s in shapes.items()}
