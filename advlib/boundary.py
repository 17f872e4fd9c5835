"""The boundary attack's machinery: foolbox's BoundaryAttack, without what loses whole batches; see `attacks.boundary`.

foolbox raises for all images when a single one finds no start (its issue 541), gives images back unchanged that were
misread before, draws from torch's global generator, says nothing while it runs, and keeps only the last state. None of
its code is copied here: starts are drawn apart, so that images without one can be left out, and a criterion that
watches what the network is asked follows the walk.
"""

import warnings
from collections.abc import Sequence

import eagerpy
import foolbox
import numpy as np
import torch
from foolbox.attacks import BoundaryAttack, LinearSearchBlendedUniformNoiseAttack
from torch import nn

from advlib.models import frozen
from advlib.progress import track

BLENDS = 50
"""Steps from an image to the noise in which a start is searched: foolbox's default start of this attack."""

STATISTICS_EVERY = 10
"""Steps between two looks at the success rates, foolbox's default; every such step asks the network a second time."""


def walk(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    steps: Sequence[int],
    bounds: tuple[float, float],
    rng: np.random.Generator,
    *,
    directions: int,
    batch_size: int,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Walk along the decision boundary and give the images after several numbers of steps.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits. Runs where it lives, in evaluation mode, and is left as it was.
    images : (n, c, h, w) float32 tensor
        On the CPU, anywhere: only candidates are clipped to `bounds`. All are attacked, those misread already too.
    labels : (n,) int64 tensor
        On the CPU.
    steps : increasing sequence of int
    bounds : (float, float)
        Range of noise and candidates.
    rng : numpy.random.Generator
    directions : int
        Noise images tried for a start.
    batch_size : int
        Images of one run of foolbox; in it all take the same random directions.

    Returns
    -------
    states : list of (n, c, h, w) float32 tensor
        One an entry of `steps`; images without a start unchanged.
    started : (n,) bool tensor
    """
    states = [images.clone() for _ in steps]
    started = torch.zeros(len(images), dtype=torch.bool)
    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        start_seed, walk_seed = rng.integers(2**63, size=2).tolist()
        with frozen(model) as device, torch.no_grad(), torch.random.fork_rng(_generators(device)):
            clean, truth = images[rows].to(device), labels[rows].to(device)
            asked = _Model(model, bounds)
            torch.manual_seed(start_seed)
            starts, found = _starts(asked, clean, truth, directions)
            # Asked again in the batch that foolbox will ask about: with other images beside it, an image on the very
            # boundary can be read the other way, and then foolbox would give up all of them.
            while found.any() and not (wrong := _misread(asked, starts[found], truth[found])).all():
                found[found.clone()] = wrong
            if found.any():
                torch.manual_seed(walk_seed)
                watch = _Watch(clean[found], truth[found], steps)
                attack = BoundaryAttack(steps=max(steps), update_stats_every_k=STATISTICS_EVERY)
                last = attack.run(asked, clean[found], watch, starting_points=starts[found])
                place = first + torch.nonzero(found.cpu())[:, 0]
                for state, reached in zip(states, watch.finish(last), strict=True):
                    state[place] = reached.cpu()
            started[rows] = found.cpu()
    return states, started


def _generators(device: torch.device) -> list[torch.device]:
    return [] if device.type == "cpu" else [device]


class _Bounds(tuple):
    """(low, high) for noise and candidates, which foolbox unpacks, and none for images, where it reads the names.

    Where images lie is checked by whoever calls; replaying a published attack takes images from outside.
    """

    lower, upper = -np.inf, np.inf


class _Model(foolbox.models.base.Model):
    """A network as foolbox asks for it."""

    def __init__(self, network: nn.Module, bounds: tuple[float, float]):
        self.network = network
        self.range = _Bounds(bounds)

    @property
    def bounds(self) -> _Bounds:
        return self.range

    def __call__(self, inputs: eagerpy.Tensor | torch.Tensor) -> eagerpy.Tensor | torch.Tensor:
        tensor, restore = eagerpy.astensor_(inputs)
        return restore(eagerpy.astensor(self.network(tensor.raw)))


def _misread(model: _Model, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return model(images).argmax(-1) != labels


def _starts(
    model: _Model, images: torch.Tensor, labels: torch.Tensor, directions: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend images with noise until they are misread; give them, and which of them are.

    The first noise serves nearly all; only the others are asked about again, up to `directions` times in all.
    """
    starts = images.clone()
    found = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for tries in (1, directions - 1):
        left = ~found
        if tries and left.any():
            search = LinearSearchBlendedUniformNoiseAttack(directions=tries, steps=BLENDS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that some found none; `found` says which
                blended = search.run(model, images[left], labels[left])
            starts[left] = blended
            found[left] = _misread(model, blended, labels[left])
    return starts, found


class _Watch(foolbox.criteria.Criterion):
    """Misclassification, as foolbox has it, that also follows which candidates foolbox takes.

    foolbox asks once about the starts and then once a step about the candidates; in every tenth step it asks a second
    time, for its statistics. A candidate is taken if it is misread and closer than the last one taken. The one thing
    that cannot be seen from here is that foolbox stops taking for images whose source step fell below 1e-7; what is
    followed here may then be closer by some 1e-7 of the distance. The last state is foolbox's own.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, steps: Sequence[int]):
        super().__init__()
        self.images, self.labels, self.steps = images, labels, steps
        self.states: list[torch.Tensor] = []
        self.best: torch.Tensor | None = None
        self.distances: torch.Tensor | None = None
        self.done = 0
        self.statistics_due = False
        self.bar = track(range(max(steps)), self._words)

    def __repr__(self) -> str:
        return f"watched misclassification of {len(self.labels)} images"

    def __call__(self, perturbed: eagerpy.Tensor, outputs: eagerpy.Tensor) -> eagerpy.Tensor:
        wrong = outputs.raw.argmax(-1) != self.labels
        if self.statistics_due:
            self.statistics_due = False
        elif self.best is None:
            self.best, self.distances = perturbed.raw, self._distances(perturbed.raw)
            self._keep()
        else:
            self.done += 1
            self.statistics_due = self.done % STATISTICS_EVERY == 0
            distances = self._distances(perturbed.raw)
            taken = wrong & (distances < self.distances)
            self.best = torch.where(taken[:, None, None, None], perturbed.raw, self.best)
            self.distances = torch.where(taken, distances, self.distances)
            self._keep()
            next(self.bar, None)
        return eagerpy.astensor(wrong)

    def finish(self, last: torch.Tensor) -> list[torch.Tensor]:
        """Give the images after each of the steps, the last as foolbox gave them; it stops once all have converged."""
        self.bar.close()
        reached = self.states[: len(self.steps) - 1]
        return reached + [last] * (len(self.steps) - len(reached))

    def _keep(self) -> None:
        if self.done in self.steps:
            self.states.append(self.best)

    def _distances(self, images: torch.Tensor) -> torch.Tensor:
        return (self.images - images).flatten(1).square().sum(-1).sqrt()  # as eagerpy's norms.l2, to the bit

    def _words(self) -> str:
        median = float("nan") if self.distances is None else self.distances.median().item()
        return f"boundary attack, {len(self.labels)} images, median L2 {median:.3f}, step"
