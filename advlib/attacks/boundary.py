"""Boundary attack (Brendel et al. 2018, arXiv:1712.04248): decisions only, along the boundary toward the image.

The walk is foolbox's BoundaryAttack, without what loses whole batches. foolbox raises for all images when a single one
finds no start (its issue 541), gives images back unchanged that were misread before, draws from torch's global
generator, says nothing while it runs, and keeps only the last state. None of its code is copied here: starts are drawn
apart, so that images without one can be left out, and a criterion that watches what the network is asked follows the
walk.
"""

import warnings
from collections.abc import Sequence

import eagerpy
import foolbox
import numpy as np
import torch
from foolbox.attacks import BoundaryAttack, LinearSearchBlendedUniformNoiseAttack
from torch import nn

from advlib.attacks import base
from advlib.attacks.base import AdversarialBatch, versioned
from advlib.checks import ArrayLike, whole_number
from advlib.models import frozen, predict
from advlib.progress import track

BLENDS = 50
"""Steps from an image to the noise in which a start is searched: foolbox's default start of this attack."""

STATISTICS_EVERY = 10
"""Steps between two looks at the success rates, foolbox's default; every such step asks the network a second time."""


@versioned(1)
def boundary(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    steps: int = 25_000,
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    rng: np.random.Generator,
    directions: int = 1_000,
    batch_size: int = 100,
    outside: bool = False,
) -> AdversarialBatch:
    """Boundary attack: from noise that is misread, walk along the decision boundary to as near the image as it gets.

    It asks the network for classes only, about 1.1 times a step and image. This is `foolbox`'s BoundaryAttack with its
    defaults, which are VS22's but for its starts. An image for which no start is found stays as it is, is no success,
    and a warning says how many there are. An image that is misread already is left alone as well, without a warning.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits. Runs where it lives, in evaluation mode, and is left as it was.
    images : (n, c, h, w) float array or tensor
        Within `clip`.
    labels : (n,) integer array or tensor
        True classes; misread is any other.
    steps : int
        Number of steps, at least 0. VS22: 25,000.
    clip : (float, float)
        Range of noise, candidates and result.
    rng : numpy.random.Generator
        Source of starts and steps. Two machines of the same kind give the same result; torch's own global generator is
        left as it was.
    directions : int
        Noise images tried for a start before an image is given up, at least 1.
    batch_size : int
        Images of one run of foolbox. In it all images take the same random directions, so images influence the result
        of others only through their number and order.
    outside : bool
        Whether images may lie outside `clip`; then the result may, too, where nothing better was found. For replaying
        attacks that mixed up their ranges, as foolbox allowed before 3.3.3.

    Returns
    -------
    AdversarialBatch
        Every image with `clean_correct` whose `l2` is 0 is one without a start. The others end so near the boundary
        that another batch size or machine can read one or the other rightly again; `predictions` are measured anew.

    Raises
    ------
    ValueError
        As `fgsm`; also for clip=None, negative steps, or fewer than one direction.

    References
    ----------
    W. Brendel, J. Rauber, M. Bethge, "Decision-based adversarial attacks: reliable attacks against black-box machine
    learning models", ICLR 2018, arXiv:1712.04248; VS22 §4.3.
    """
    options = {"rng": rng, "directions": directions, "batch_size": batch_size, "outside": outside}
    return boundary_sweep(model, images, labels, [steps], clip, **options)[0]


@versioned(1)
def boundary_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    steps: Sequence[int],
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    rng: np.random.Generator,
    directions: int = 1_000,
    batch_size: int = 100,
    outside: bool = False,
) -> list[AdversarialBatch]:
    """Boundary attack after several numbers of steps, for the price of the largest: states of one run.

    Parameters and errors are those of `boundary`, save `steps`, which must increase; 0 gives the starts. While it
    runs, the median distance is shown.

    Returns
    -------
    list of AdversarialBatch
        In the order of `steps`, each equal to `boundary` with that many and a generator in the same state, save images
        that have converged: there it may be closer by some 1e-7 of the distance, but for the last.
    """
    steps = base.checked_steps(steps)
    if not steps:
        raise ValueError("steps must hold at least one number, but is empty")
    if clip is None:
        raise ValueError("clip must be a range (low, high) with low < high, because noise comes from it, but is None")
    if not np.isfinite(base.checked_range(clip)).all():
        raise ValueError(f"clip must be finite, because noise comes from it, but is {clip}")
    base.checked_rng(rng)
    directions = whole_number(directions, "directions", 1)
    case = base.Case(model, images, labels, (-np.inf, np.inf) if outside else clip, batch_size)
    clean, truth, batch_size = case.clean, case.labels, case.batch_size
    with frozen(model) as device, torch.inference_mode():
        base.checked_logits(model, clean[:1].to(device), truth)
    rows = torch.nonzero(torch.as_tensor(predict(model, clean, batch_size)) == truth)[:, 0]
    states, started = walk(
        model, clean[rows], truth[rows], steps, clip, rng, directions=directions, batch_size=batch_size
    )
    if not started.all():
        warnings.warn(
            f"no start was found for {int((~started).sum())} of {len(clean)} images in {directions} random directions; "
            "these stay as they are and are no success",
            UserWarning,
            stacklevel=2,
        )
    if not outside:  # blending may leave the range by a rounding error
        states = [state.clamp(*clip) for state in states]
    return list(case.measured(clean.index_copy(0, rows, state) for state in states))


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
    asked = _Model(model, bounds)
    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        seed_of_starts, seed_of_walk = rng.integers(2**63, size=2).tolist()
        with frozen(model) as device, torch.no_grad(), torch.random.fork_rng([device] * (device.type != "cpu")):
            clean, truth = images[rows].to(device), labels[rows].to(device)
            torch.manual_seed(seed_of_starts)
            starts, found = _starts(asked, clean, truth, directions)
            if not found.any():
                continue
            torch.manual_seed(seed_of_walk)
            watch = _Watch(clean[found], truth[found], steps)
            attack = BoundaryAttack(steps=max(steps), update_stats_every_k=STATISTICS_EVERY)
            last = attack.run(asked, clean[found], watch, starting_points=starts[found])
        started[rows] = found.cpu()
        place = first + torch.nonzero(found.cpu())[:, 0]
        for state, now in zip(states, watch.finish(last), strict=True):
            state[place] = now.cpu()
    return states, started


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
    # Asked again in the batch that foolbox will ask about: with other images beside it, an image on the very boundary
    # can be read the other way, and then foolbox would give up all of them.
    while found.any() and not (wrong := _misread(model, starts[found], labels[found])).all():
        found[found.clone()] = wrong
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
