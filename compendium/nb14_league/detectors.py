"""The detectors of the league as statistics of many batches of one pool: ours by the library, the field's in few lines.

`Looks` computes what detectors look at, once a pool; a `Detector` turns rows of a pool into one number a batch. Which
numbers are evidence, low, high or both, is each method's own; thresholds come from clean batches, for all alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from advlib.cli.detection import DEFAULT_FEATURES
from advlib.detectors import (
    BatchTest,
    CombinedTest,
    CoverageTest,
    DensityTest,
    HotellingTest,
    NearestBallTest,
    features,
)
from advlib.detectors.aim import AimTest, around

MAPS = ("pixels", "residual", "texture", "multiscale", "hidden")
"""What balls, kernels and classifiers look at."""

MEANS = ("multiscale", "hidden")
"""Of which the mean is looked at."""

_CHUNK = 500
_REFERENCES = 500  # that kernels and two-sample tests compare with


@dataclass(eq=False)
class Looks:
    """A pool of images, and what was seen of it: feature name → (n, d) float32 array, `scores` of single images."""

    images: torch.Tensor
    maps: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    logits: torch.Tensor


def _fitted(test: BatchTest, reference: np.ndarray) -> BatchTest:
    """Fit a test whose statistics are wanted, not its p-values: any calibration will do."""
    return test.fit(reference, reference[:2])


class League:
    """Everything that is fitted for one image set and one draw of references.

    Parameters
    ----------
    model : nn.Module
        The network under attack, with `features`.
    reference : (N, c, h, w) tensor
        Clean images on the network's device.
    labels : (N,) tensor
        Their classes.
    """

    def __init__(self, model: nn.Module, reference: torch.Tensor, labels: torch.Tensor):
        self.model, self.labels = model, labels
        self.maps = self._maps(reference)
        self.hidden = torch.from_numpy(self.maps["hidden"]).to(reference.device)
        self._fit_field(reference)
        self.balls = {name: self._balls(name) for name in MAPS}
        self.hotelling = {name: _fitted(HotellingTest(check=False, draws=1), self.maps[name]) for name in MEANS}

    def _balls(self, name: str) -> CombinedTest:
        kinds = (DensityTest, CoverageTest, NearestBallTest)
        return _fitted(CombinedTest([kind() for kind in kinds], check=False, draws=1), self.maps[name])

    def _maps(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        cpu = images.cpu()
        found = {name: features.apply(name, cpu) for name in MAPS if name != "hidden"}
        with torch.no_grad():
            found["hidden"] = torch.cat([self.model.features(part) for part in images.split(_CHUNK)]).cpu().numpy()
        return found

    def look(self, images: torch.Tensor) -> Looks:
        """Look at a pool of images (n, c, h, w), as every detector does."""
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part in images.split(_CHUNK)])
        maps = self._maps(images)
        hidden = torch.from_numpy(maps["hidden"]).to(images.device)
        scores = {name: score(images, hidden, logits).cpu().numpy() for name, score in self._field.items()}
        return Looks(images, maps, scores, logits)

    # ------------------------------------------------------------------ single images: the field's

    def _fit_field(self, reference: torch.Tensor) -> None:
        classes = torch.unique(self.labels)
        hidden = self.hidden
        self.means = torch.stack([hidden[self.labels == c].mean(0) for c in classes])
        centred = hidden - self.means[torch.searchsorted(classes, self.labels)]
        covariance = centred.T @ centred / len(hidden)
        ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance), device=hidden.device)
        self.precision = torch.linalg.inv(covariance + ridge)
        self.width = torch.cdist(hidden, hidden).topk(11, largest=False).values[:, 10].median() ** 2
        self._field: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
            "kernel density (Feinman 2017)": self._kernel_density,
            "LID (Ma 2018)": self._intrinsic_dimension,
            "Mahalanobis (Lee 2018)": self._mahalanobis,
            "feature squeezing (Xu 2018)": self._squeezing,
            "odds are odd (Roth 2019)": self._odds,
            "deep k-NN (Papernot 2018)": self._neighbours,
        }
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part in reference.split(_CHUNK)])
        self.usual = self._usual_moves(reference, logits)

    def _kernel_density(self, images: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Log density of the last hidden layer among the reference images of the class that was read; high is odd."""
        kernel = -torch.cdist(hidden, self.hidden).square() / self.width
        kernel[logits.argmax(1)[:, None] != self.labels] = -torch.inf
        return -kernel.logsumexp(1).clamp_min(-1e4)

    def _intrinsic_dimension(self, images: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Maximum-likelihood local intrinsic dimension, 20 neighbours in the last hidden layer."""
        near = torch.cdist(hidden, self.hidden).topk(20, largest=False).values.clamp_min(1e-9)
        return -1 / (near / near[:, -1:]).log().mean(1).clamp(max=-1e-6)

    def _mahalanobis(self, images: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Least Mahalanobis distance to a class, one covariance for all, in the last hidden layer."""
        apart = hidden[:, None] - self.means
        return torch.einsum("nkd,de,nke->nk", apart, self.precision, apart).amin(1)

    def _squeezing(self, images: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Largest L1 change of the probabilities under 4 bits and a 3 × 3 median."""
        before, moved = logits.softmax(1), []
        for squeeze in (lambda x: (x * 15).round() / 15, around.HARMLESS["median"]):
            with torch.no_grad():
                after = torch.cat([self.model(squeeze(part)).softmax(1) for part in images.split(_CHUNK)])
            moved.append((after - before).abs().sum(1))
        return torch.stack(moved).amax(0)

    def _moves(self, images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """How far Gaussian noise of 0.05, eight fixed patterns, moves each logit towards the largest, (n, k)."""
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros_like(logits)
        for _ in range(8):
            pattern = 0.05 * torch.randn(images.shape[1:], generator=generator).to(images.device)
            with torch.no_grad():
                total += torch.cat([self.model(part + pattern) for part in images.split(_CHUNK)])
        read = logits.argmax(1)[:, None]
        return (total / 8 - logits) - (total / 8 - logits).gather(1, read)

    def _usual_moves(self, images: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and spread of `_moves` of clean images, by the class that was read, (k, k)."""
        moves, read = self._moves(images, logits), logits.argmax(1)
        parts = [moves[read == c] if (read == c).sum() > 2 else moves for c in range(logits.shape[1])]
        return torch.stack([part.mean(0) for part in parts]), torch.stack([part.std(0) for part in parts]).clamp_min(
            1e-3
        )

    def _odds(self, images: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Largest standardised move of another class's logit towards that of the class that was read."""
        read = logits.argmax(1)
        moved = (self._moves(images, logits) - self.usual[0][read]) / self.usual[1][read]
        return moved.scatter(1, read[:, None], -torch.inf).amax(1)

    def _neighbours(self, images: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Share of the 20 nearest reference images, in the last hidden layer, of another class than was read."""
        near = torch.cdist(hidden, self.hidden).topk(20, largest=False).indices
        return (self.labels[near] != logits.argmax(1)[:, None]).float().mean(1)

    # ------------------------------------------------------------------ batches

    def two_sample(self, name: str, pool: Looks, rows: np.ndarray) -> dict[str, np.ndarray]:
        """MMD (Gaussian), energy distance and LSDD of batches (B, m) against 500 references, on one feature map."""
        device = self.hidden.device
        reference = torch.from_numpy(self.maps[name][:_REFERENCES]).to(device).double()
        x = torch.from_numpy(pool.maps[name]).to(device).double()
        scale = reference.std(0).clamp_min(0.05 * reference.std())
        reference, x = reference / scale, x / scale
        within, across, own = torch.cdist(reference, reference), torch.cdist(x, reference), torch.cdist(x, x)
        width = within[within > 0].median() ** 2
        picked = torch.as_tensor(rows, device=device)
        gram = own[picked[:, :, None], picked[:, None, :]]
        kernel = torch.exp(-across.square() / width)[picked]
        mmd = torch.exp(-gram.square() / width).mean((1, 2)) - 2 * kernel.mean((1, 2))
        energy = 2 * across[picked].mean((1, 2)) - gram.mean((1, 2))
        # LSDD (Sugiyama et al. 2013): centres are references; up to a factor its H is the kernel of √2 the width.
        centres = torch.exp(-within.square() / (2 * width))
        base = torch.exp(-within.square() / width).mean(0)
        h = kernel.mean(1) - base
        theta = torch.linalg.solve(centres + torch.eye(len(centres), device=device, dtype=h.dtype), h.T).T
        lsdd = 2 * (theta * h).sum(1) - torch.einsum("bi,ij,bj->b", theta, centres, theta)
        found = {"MMD": mmd, "energy": energy, "LSDD": lsdd}
        return {kind: value.cpu().numpy() for kind, value in found.items()}

    def classifier(self, name: str, pool: Looks, rows: np.ndarray) -> np.ndarray:
        """Classifier two-sample test: leave-one-out accuracy of ridge regression, batch against as many references."""
        device, m = self.hidden.device, rows.shape[1]
        reference = torch.from_numpy(self.maps[name]).to(device).double()
        centre, spread = reference.mean(0), reference.std(0) + 1e-3
        reference = (reference - centre) / spread
        x = (torch.from_numpy(pool.maps[name]).to(device).double() - centre) / spread
        starts = (np.arange(len(rows)) * m) % max(1, len(reference) - m)
        out = []
        for some, start in zip(np.array_split(rows, 8), np.array_split(starts, 8), strict=True):
            if not len(some):
                continue
            theirs = reference[torch.as_tensor(start[:, None] + np.arange(m), device=device)]
            both = torch.cat([theirs, x[torch.as_tensor(some, device=device)]], 1)
            target = torch.cat([-torch.ones(m), torch.ones(m)]).to(both)
            gram = both @ both.mT + 1 + both.shape[2] * torch.eye(2 * m, device=device, dtype=both.dtype)
            inverse = torch.linalg.inv(gram)
            predicted = target - (inverse @ target) / inverse.diagonal(dim1=1, dim2=2)
            right = predicted * target
            out.append((right > 0).double().mean(1) + 1e-6 * torch.tanh(right.mean(1)))
        return torch.cat(out).cpu().numpy()


Statistics = dict[str, tuple[np.ndarray, bool]]
"""Detector → its statistic of each batch (B, J), and whether low values are evidence as well."""


def statistics(league: League, pool: Looks, measured: dict[str, Any], rows: np.ndarray) -> Statistics:
    """Return every detector's statistic of batches.

    Parameters
    ----------
    league : League
    pool : Looks
    measured : dict
        Ball scores of the pool by map, from `measure`; and what aim tests measured, under their names.
    rows : (B, m) int array
    """
    found: Statistics = {}
    columns = {}
    for name in MAPS:
        columns[name] = league.balls[name].statistics(measured[name], rows)
        for j, kind in enumerate(("density", "coverage", "nearest ball")):
            found[f"{kind} · {name}"] = columns[name][:, j : j + 1], True
    found["default of 0.1: pixels, residual"] = np.hstack([columns["pixels"], columns["residual"]]), True
    # A root of T² is nearly Gaussian, as the thresholds by median absolute deviations take their columns to be.
    means = {
        name: np.sqrt(test.statistics(measured[f"mean of {name}"], rows)) for name, test in league.hotelling.items()
    }
    found |= {f"mean · {name}": (column, True) for name, column in means.items()}
    balls = [columns[name] for name in DEFAULT_FEATURES]
    found["balls on four maps"] = np.hstack(balls), True
    found["default: balls on four maps, mean of scales"] = np.hstack([*balls, means["multiscale"]]), True
    for name, score in pool.scores.items():
        found[name] = score[rows].mean(1)[:, None], False
    if rows.shape[1] > 1:
        for name in ("pixels", "multiscale", "hidden"):
            for kind, value in league.two_sample(name, pool, rows).items():
                found[f"{kind} · {name}"] = value[:, None], False
            found[f"classifier · {name}"] = league.classifier(name, pool, rows)[:, None], False
    for name, value in measured.items():
        if name.startswith("aim"):
            found[f"{name} · score"] = value[0].cpu().numpy()[rows].mean(1)[:, None], False
    return found


def measure(league: League, pool: Looks, aims: dict[str, AimTest]) -> dict[str, Any]:
    """Measure a pool once for all batches that are drawn from it."""
    measured: dict[str, Any] = {name: league.balls[name].measure(pool.maps[name]) for name in MAPS}
    measured |= {f"mean of {name}": test.measure(pool.maps[name]) for name, test in league.hotelling.items()}
    return measured | {name: aim.measure_tensor(pool.images) for name, aim in aims.items()}
