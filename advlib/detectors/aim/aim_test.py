"""The second question about a batch: whether the change aims at the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from advlib import models
from advlib.checks import ArrayLike, whole_number
from advlib.detectors.aim import around, changes, rehearsal, score
from advlib.detectors.aim.bank import Bank, Ranked
from advlib.detectors.samples import as_samples, check_shape, extremes, hold_out, level

_CHUNK = 500
_MIRRORED = 0.9  # share of clean images whose mirror image is read alike, for the mirror to count as harmless
NOTHING = ("nothing", 0.0)


@dataclass(frozen=True)
class AimVerdict:
    """What `AimTest` says about one batch.

    Attributes
    ----------
    statistic : float
        Mean score of the batch, log odds of attack against change without an aim among those that were rehearsed.
    p_value : float
        Of the hypothesis that the batch went through one of the calibrated changes, or none; at least `BETA`.
    least : tuple of (str, float)
        Family and size that explain the batch best: p is theirs.
    fitting : tuple of (str, float)
        Families and sizes that the batch does not contradict by its own size and spectrum.
    sample_scores, sample_p_values : (m,) float64 arrays
        Of each image alone.
    assumed : tuple of str
        What the p-value rests on.
    """

    statistic: float
    p_value: float
    least: tuple[str, float]
    fitting: tuple[tuple[str, float], ...]
    sample_scores: np.ndarray
    sample_p_values: np.ndarray
    assumed: tuple[str, ...]

    def reject(self, alpha: float = 0.05) -> bool:
        """Return whether the batch looks aimed at level `alpha`, in (0, 1)."""
        level("alpha", alpha)
        return self.p_value <= alpha


class AimTest(BaseEstimator):
    """Test whether a batch was pushed towards the network's errors, or only changed.

    The null hypothesis is that the images went through one of `families`, at one of `sizes`, or through nothing. What
    the network says around each image (`around.look`) becomes a score, learned from attacks that `fit` rehearses on the
    network; its null distribution is that of calibration images changed by each family and size (`bank`).

    Parameters
    ----------
    network : str or nn.Module
        The classifier under attack: one of `advlib.models.SPECS`, or any module that gives logits of images in [0, 1].
    second : str or nn.Module, optional
        Another network for the same classes: it seldom errs as the first was made to.
    families : sequence of str, optional
        Of `changes.FAMILIES`, all by default.
    sizes : sequence of float
        Root mean squares, in pixels of [0, 1].
    learned, calibrated : int
        Images that attacks and changes are rehearsed on, and calibration images, at most.
    draws : int
        Permutations for batches of several images.
    random_state : int

    Attributes
    ----------
    bank_ : Bank
        What calibration images score under each change.
    mirror_ : bool
        Whether the network reads mirror images as it reads images.
    rehearsed_ : dict
        Attack → share of the images that it turned, at the bound drawn for them or at the largest.
    """

    def __init__(
        self,
        network: str | nn.Module,
        second: str | nn.Module | None = None,
        *,
        families: Sequence[str] | None = None,
        sizes: Sequence[float] = changes.SIZES,
        learned: int = 300,
        calibrated: int = 300,
        draws: int = 999,
        random_state: int = 0,
    ):
        self.network = network
        self.second = second
        self.families = families
        self.sizes = sizes
        self.learned = learned
        self.calibrated = calibrated
        self.draws = draws
        self.random_state = random_state

    def fit(self, reference: ArrayLike, calibration: ArrayLike | None = None) -> Self:
        """Rehearse attacks and changes on the reference, and calibrate.

        Parameters
        ----------
        reference : (N, c, h, w) float array or tensor
            Clean images in [0, 1].
        calibration : (n, c, h, w) float array or tensor, optional
            Other clean images, unseen by the network, from where batches come. Without it a fifth of the reference.

        Raises
        ------
        ValueError
            Naming the argument that cannot be used.
        """
        families = self._check_parameters()
        reference = as_samples(reference, "reference")
        if reference.ndim != 4:
            raise ValueError(f"reference must hold images (n, c, h, w) for a network, but has shape {reference.shape}")
        rng = np.random.default_rng(self.random_state)
        if calibration is None:
            keep, held = hold_out(len(reference), rng)
            reference, calibration = reference[keep], reference[held]
        calibration = as_samples(calibration, "calibration")
        self.sample_shape_, self.value_range_ = reference.shape[1:], extremes(reference)
        check_shape(calibration, "calibration", self.sample_shape_, self.value_range_)
        self._load()
        learned = self._tensor(reference[rng.permutation(len(reference))[: self.learned]])
        kept = self._tensor(calibration[rng.permutation(len(calibration))[: self.calibrated]])
        self.mirror_ = self._mirrors(kept)
        self._learn(learned, families, rng)
        self._calibrate(kept, families, rng)
        return self

    def _learn(self, images: torch.Tensor, families: Sequence[str], rng: np.random.Generator) -> None:
        with models.frozen(self.model_):
            attacked = rehearsal.rehearse(self.model_, images, rng, mirror=self.mirror_)
        self.rehearsed_ = {kind: round(len(found) / len(images), 3) for kind, found in attacked.items()}
        aimed = [self.look(found) for found in attacked.values() if len(found)]
        if not aimed:
            raise ValueError("network must be one that can be attacked: no rehearsed attack changed any of its answers")
        few = max(20, len(images) // 5)
        aimless = [self.look(images)]
        for family in families:
            for size in self.sizes:
                part = images[torch.from_numpy(rng.permutation(len(images))[:few]).to(images.device)]
                aimless.append(self.look(changes.make(part, family, size, rng)))
        self.score_ = score.learn(torch.cat(aimed), torch.cat(aimless), self.random_state)

    def _calibrate(self, images: torch.Tensor, families: Sequence[str], rng: np.random.Generator) -> None:
        cells = [NOTHING, *((family, float(size)) for family in families for size in self.sizes)]
        measured = [
            self.measure_tensor(images if cell == NOTHING else changes.make(images, *cell, rng)) for cell in cells
        ]
        scores, signatures = (torch.stack(column).double() for column in zip(*measured, strict=True))
        self.bank_ = Bank(tuple(cells), scores, signatures)

    def look(self, images: torch.Tensor) -> torch.Tensor:
        """Return `around.look` at images on the network's device, (n, f), some at a time."""
        with models.frozen(self.model_):
            known = {"mirror": self.mirror_, "second": self.second_}
            return torch.cat([around.look(self.model_, part, **known) for part in images.split(_CHUNK)])

    def measure_tensor(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (n,) and signatures (n, q) of images on the network's device."""
        with torch.no_grad():
            signatures = torch.cat([score.signature(part) for part in images.split(_CHUNK)])
        return score.score(self.score_, self.look(images)), signatures

    def measure(self, batch: ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:
        """Check images (n, c, h, w) in [0, 1] and return their scores (n,) and signatures (n, q)."""
        check_is_fitted(self, "bank_")
        samples = as_samples(batch, "batch")
        check_shape(samples, "batch", self.sample_shape_, self.value_range_)
        self._load()
        return self.measure_tensor(self._tensor(samples))

    def p_values(
        self,
        measured: tuple[torch.Tensor, torch.Tensor],
        batches: ArrayLike,
    ) -> Ranked:
        """Test many batches of one size drawn from one pool of images.

        Parameters
        ----------
        measured : (scores, signatures)
            From `measure`.
        batches : (B, m) int array
            Rows of the pool.
        """
        rows = torch.as_tensor(np.asarray(batches), device=measured[0].device)
        rng = np.random.default_rng([self.random_state, rows.shape[1]])
        return self.bank_.p_values(measured[0][rows], measured[1][rows], self.draws, rng)

    def test(self, batch: ArrayLike) -> AimVerdict:
        """Test one batch, (m, c, h, w), m ≥ 1.

        Raises
        ------
        ValueError
            Naming what is wrong with the batch.
        """
        measured = self.measure(batch)
        m = len(measured[0])
        ranked = self.p_values(measured, np.arange(m)[None])
        single = self.p_values(measured, np.arange(m)[:, None])
        fits = ranked.fits[0]
        best = int(np.where(fits, ranked.each[0], -1).argmax())
        return AimVerdict(
            statistic=float(measured[0].mean()),
            p_value=float(ranked.p[0]),
            least=self.bank_.cells[best],
            fitting=tuple(cell for cell, fit in zip(self.bank_.cells, fits, strict=True) if fit),
            sample_scores=measured[0].double().cpu().numpy(),
            sample_p_values=single.p,
            assumed=self.assumed(),
        )

    def assumed(self) -> tuple[str, ...]:
        """Return what the p-values rest on, in sentences."""
        families = list(dict.fromkeys(family for family, _ in self.bank_.cells if family != NOTHING[0]))
        sizes = ", ".join(f"{size:g}" for size in self.sizes)
        name = self.network if isinstance(self.network, str) else type(self.network).__name__
        return (
            f"Aim was calibrated on {self.bank_.scores.shape[1]} clean images as they are and changed by "
            f"{', '.join(families)}, each at root mean squares of {sizes}: its p-value holds for these.",
            f"It looks at the network {name}. A change of another kind that unsettles this network as an attack does "
            "is taken for one, and an attacker who knows the test and pays for it is not.",
        )

    # ------------------------------------------------------------------ saving

    def state(self, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return what was learned in JSON's types, and put arrays into `tensors`, their names beginning "aim."."""
        for what, network in (("network", self.network), ("second", self.second)):
            if not isinstance(network, str | None):
                raise ValueError(f"{what} must be a network with a name so that the test can be saved")
        for name, array in score.as_arrays(self.score_).items():
            tensors[f"aim.score.{name}"] = array
        tensors["aim.scores"] = self.bank_.scores.cpu().numpy()
        tensors["aim.signatures"] = self.bank_.signatures.flatten(1).float().cpu().numpy()
        return {
            "network": self.network, "second": self.second,
            "weights": [models.card(name)["sha256"] for name in (self.network, self.second) if name],
            "cells": [[family, size] for family, size in self.bank_.cells], "sizes": [float(s) for s in self.sizes],
            "draws": self.draws, "random_state": self.random_state, "mirror": self.mirror_,
            "rehearsed": self.rehearsed_,
            "sample_shape": list(self.sample_shape_), "value_range": list(self.value_range_),
        }  # fmt: skip

    @classmethod
    def restored(cls, stated: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> "AimTest":
        """Return the test whose `state` is given.

        Raises
        ------
        ValueError
            If the networks' weights are not those that the test was fitted with.
        """
        test = cls(
            stated["network"], stated["second"], sizes=stated["sizes"], draws=int(stated["draws"]),
            random_state=int(stated["random_state"]),
        )  # fmt: skip
        found = [models.card(name)["sha256"] for name in (test.network, test.second) if name]
        if found != stated["weights"]:
            raise ValueError("the weights of its network are not those that it was fitted with: fit it again")
        test.mirror_, test.rehearsed_ = bool(stated["mirror"]), dict(stated["rehearsed"])
        test.sample_shape_ = tuple(int(size) for size in stated["sample_shape"])
        low, high = stated["value_range"]
        test.value_range_ = float(low), float(high)
        prefix = "aim.score."
        test.score_ = score.from_arrays(
            {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        )
        scores = torch.from_numpy(tensors["aim.scores"])
        signatures = torch.from_numpy(tensors["aim.signatures"]).double().reshape(*scores.shape, -1)
        if signatures.shape[2] != score.signature(torch.zeros(1, *test.sample_shape_)).shape[1]:
            raise ValueError(score.OLDER)
        test.bank_ = Bank(tuple((family, float(size)) for family, size in stated["cells"]), scores, signatures)
        return test

    # ------------------------------------------------------------------ what it needs

    def _check_parameters(self) -> Sequence[str]:
        families = list(changes.FAMILIES) if self.families is None else list(self.families)
        unknown = [family for family in families if family not in changes.FAMILIES]
        if unknown or not families:
            raise ValueError(f"families must be some of {', '.join(changes.FAMILIES)}, but are {families}")
        if not self.sizes or min(self.sizes) <= 0:
            raise ValueError(f"sizes must be positive, but are {list(self.sizes)}")
        for name, least in (("learned", 20), ("calibrated", 20), ("draws", 1), ("random_state", 0)):
            whole_number(getattr(self, name), name, least)
        return families

    def _load(self) -> None:
        """Have the networks at hand."""
        if not hasattr(self, "model_"):
            self.model_, self.second_ = (
                models.load_trained(network) if isinstance(network, str) else network
                for network in (self.network, self.second)
            )  # fmt: skip

    def _tensor(self, images: np.ndarray) -> torch.Tensor:
        device = next(iter([*self.model_.parameters(), *self.model_.buffers()]), torch.zeros(0)).device
        return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(device)

    def _mirrors(self, images: torch.Tensor) -> bool:
        with models.frozen(self.model_), torch.no_grad():
            parts = images.split(_CHUNK)
            alike = [self.model_(part).argmax(1) == self.model_(part.flip(3)).argmax(1) for part in parts]
        return bool(torch.cat(alike).float().mean() >= _MIRRORED)
