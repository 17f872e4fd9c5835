"""Attacks of the league: gradients, decisions only, smooth, sparse, by movement; foolbox's where it has them.

Each takes a network, images that it reads rightly, their labels, a bound and a generator, and gives images rounded to
8 bits, wherever the tensors live.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import foolbox
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from advlib import attacks as ours
from advlib.detectors.aim import changes
from advlib.detectors.aim.rehearsal import ascend

Attack = Callable[[nn.Module, torch.Tensor, torch.Tensor, float, np.random.Generator], torch.Tensor]


@dataclass(frozen=True)
class Effort:
    """How long iterated attacks go on; the defaults are those of the stored run.

    Attributes
    ----------
    steps : int
        Of gradient attacks.
    search : int
        Of each of C&W's and EAD's searches, and DeepFool's.
    queries : int
        Of the attacks that see decisions or scores only.
    """

    steps: int = 40
    search: int = 150
    queries: int = 1000


def catalogue(effort: Effort) -> dict[str, tuple[Attack, bool]]:
    """Return the attacks by name, quick ones first, each with whether it is slow."""
    steps = effort.steps
    quick = {
        "FGSM": lambda *given: _signed(*given, steps=1, step=1.0, start=False),
        f"PGD-{steps}": lambda *given: _signed(*given, steps=steps),
        "targeted PGD": lambda *given: _targeted(*given, steps=steps),
        "momentum": lambda *given: _momentum(*given, steps=steps),
        "APGD, cross-entropy": lambda *given: apgd(*given, error, steps=2 * steps),
        "APGD, DLR": lambda *given: apgd(*given, difference_of_logits, steps=2 * steps),
        "low-frequency 4": lambda *given: _smooth(*given, knots=4, steps=steps),
        "low-frequency 8": lambda *given: _smooth(*given, knots=8, steps=steps),
        "low-frequency 14": lambda *given: _smooth(*given, knots=14, steps=steps),
        "spatial": spatial,
        "DeepFool": lambda *given: _foolbox(foolbox.attacks.L2DeepFoolAttack(steps=min(50, effort.search)), *given),
        "Square": lambda *given: square(*given, queries=effort.queries),
    }
    search = {"binary_search_steps": 4, "steps": effort.search}
    slow = {
        "C&W": lambda *given: _foolbox(foolbox.attacks.L2CarliniWagnerAttack(**search, stepsize=0.02), *given),
        "EAD": lambda *given: _foolbox(foolbox.attacks.EADAttack(**search), *given),
        "JSMA": _jsma,
        "boundary": lambda *given: _decisions(foolbox.attacks.BoundaryAttack(steps=effort.queries), *given),
        "HopSkipJump": lambda *given: _decisions(
            foolbox.attacks.HopSkipJumpAttack(
                steps=max(1, effort.queries // 100), initial_gradient_eval_steps=50, max_gradient_eval_steps=200
            ),
            *given,
        ),
    }
    return {name: (attack, False) for name, attack in quick.items()} | {name: (a, True) for name, a in slow.items()}


ENSEMBLE = ("APGD, cross-entropy", "APGD, DLR", "Square")
"""Parts of the AutoAttack-like ensemble: each image counts as turned by the first part that turns it."""


def _bound(images: torch.Tensor, epsilon: float) -> torch.Tensor:
    return torch.full((len(images), 1, 1, 1), epsilon, device=images.device)


def error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, (n,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


def difference_of_logits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """DLR loss of Croce & Hein 2020 (arXiv:2003.01690, eq. 6), (n,): no scale of the logits makes it vanish."""
    ordered = logits.sort(1, descending=True).values
    own = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -math.inf).amax(1)
    return -(own - other) / (ordered[:, 0] - ordered[:, 2]).clamp_min(1e-9)


def _signed(model, images, labels, epsilon, rng, *, steps, step=None, start=True):
    return ascend(
        lambda x: error(model(x), labels), images, _bound(images, epsilon), steps=steps, step=step,
        rng=rng if start else None,
    )  # fmt: skip


def _targeted(model, images, labels, epsilon, rng, *, steps):
    with torch.no_grad():
        targets = model(images).argsort(1)[:, -2]  # the second likeliest class: what targeted success needs least
    return ascend(lambda x: -error(model(x), targets), images, _bound(images, epsilon), steps=steps)


def _momentum(model, images, labels, epsilon, rng, *, steps, decay=1.0):
    """MI-FGSM (Dong et al. 2018, arXiv:1710.06081)."""
    moved, memory = images, torch.zeros_like(images)
    for _ in range(steps):
        x = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(error(model(x), labels).sum(), x)
        memory = decay * memory + slope / slope.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
        moved = images + (moved + 2.5 / steps * epsilon * memory.sign() - images).clamp(-epsilon, epsilon)
        moved = moved.clamp(0, 1)
    return moved


def apgd(model, images, labels, epsilon, rng, loss, *, steps):
    """Auto-PGD (Croce & Hein 2020, arXiv:2003.01690): momentum, and a step that halves where the loss stalls."""

    def project(x):
        return (images + (x - images).clamp(-epsilon, epsilon)).clamp(0, 1)

    noise = torch.from_numpy(rng.uniform(-1, 1, tuple(images.shape)).astype(np.float32)).to(images.device)
    x = before = best = project(images + epsilon * noise)
    most = torch.full((len(images),), -math.inf, device=images.device)
    size = torch.full((len(images), 1, 1, 1), 2 * epsilon, device=images.device)
    rose, since, last = torch.zeros_like(most), 0, most.clone()
    window = max(2, round(0.22 * steps))
    for k in range(steps):
        x = x.detach().requires_grad_()
        found = loss(model(x), labels)
        (slope,) = torch.autograd.grad(found.sum(), x)
        found, x = found.detach(), x.detach()
        rose += found > most
        better = (found > most)[:, None, None, None]
        best, most = torch.where(better, x, best), torch.maximum(found, most)
        since += 1
        if since == window:
            stalled = ((rose < 0.75 * since) | (most <= last))[:, None, None, None]
            size, x = torch.where(stalled, size / 2, size), torch.where(stalled, best, x)
            rose, since, last = torch.zeros_like(most), 0, most.clone()
            window = max(2, window - round(0.03 * steps))
        straight = project(x + size * slope.sign())
        x, before = project(x + 0.75 * (straight - x) + (0.25 * (x - before) if k else 0)), x
    return best


def _smooth(model, images, labels, epsilon, rng, *, knots, steps):
    """PGD on a coarse grid of knots, interpolated bilinearly: no knowledge of any detector."""
    return ascend(
        lambda x: error(model(x), labels), images, _bound(images, epsilon), steps=steps, smooth=knots, rng=rng
    )


def spatial(model, images, labels, epsilon, rng, *, degrees=30.0, pixels=3):
    """Take the worst rotation and translation of a grid (Engstrom et al. 2019, arXiv:1712.02779)."""
    best, most = images, torch.full((len(images),), -math.inf, device=images.device)
    still = torch.zeros(images.shape[2:], device=images.device)
    for angle in np.linspace(-degrees, degrees, 13):
        turned = changes.turned(images, torch.full((len(images),), float(angle), device=images.device))
        for dx in (-pixels, 0, pixels):
            for dy in (-pixels, 0, pixels):
                moved = changes.warped(turned, still + dx, still + dy)
                with torch.no_grad():
                    found = error(model(moved), labels)
                best = torch.where((found > most)[:, None, None, None], moved, best)
                most = torch.maximum(found, most)
    return best


_HALVED_AT = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])  # of 10,000 queries, as its authors do


def square(model, images, labels, epsilon, rng, *, queries):
    """Square Attack, L∞ (Andriushchenko et al. 2020, arXiv:1912.00049): squares of ±ε, kept where the margin falls."""
    n, c, h, w = images.shape

    def signs(shape):
        return torch.from_numpy(rng.choice([-1.0, 1.0], shape).astype(np.float32)).to(images.device)

    best = (images + epsilon * signs((n, c, 1, w))).clamp(0, 1)
    with torch.no_grad():
        least = -margin_loss(model(best), labels)
    for k in range(queries):
        share = 0.8 * 0.5 ** np.searchsorted(_HALVED_AT * queries / 10_000, k)
        side = max(1, min(h, w, round(math.sqrt(share * h * w))))
        top, left = (
            torch.from_numpy(rng.integers(0, size - side + 1, (n, 1, 1, 1))).to(images.device) for size in (h, w)
        )
        y, x = torch.arange(h, device=images.device)[:, None], torch.arange(w, device=images.device)
        inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
        tried = torch.where(inside, (images + epsilon * signs((n, c, 1, 1))).clamp(0, 1), best)
        with torch.no_grad():
            found = -margin_loss(model(tried), labels)
        kept = (found < least) & (least > 0)
        best, least = torch.where(kept[:, None, None, None], tried, best), torch.where(kept, found, least)
    return best


def margin_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Largest other logit minus the label's, (n,): above 0 where misread."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return logits.scatter(1, labels[:, None], -math.inf).amax(1) - own


def _jsma(model, images, labels, epsilon, rng):
    found = ours.jsma(model, images.cpu(), labels.cpu(), gamma=0.1)
    return torch.as_tensor(found.images).to(images.device)


def _foolbox(attack, model, images, labels, epsilon, rng):
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    return attack.run(wrapped, images, foolbox.criteria.Misclassification(labels))


def _decisions(attack, model, images, labels, epsilon, rng):
    """Run a decision attack from images of noise blended in; images for which none is found stay as they are."""
    torch.manual_seed(int(rng.integers(2**31)))
    starts, found = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for _ in range(10):
        noise = torch.from_numpy(rng.random(tuple(images.shape), dtype=np.float32)).to(images.device)
        for share in np.linspace(0.1, 1, 10):
            tried = (1 - share) * images + share * noise
            with torch.no_grad():
                new = ~found & (model(tried).argmax(1) != labels)
            starts[new], found = tried[new], found | new
    out = images.clone()
    if found.any():
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        criterion = foolbox.criteria.Misclassification(labels[found])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out[found] = attack.run(wrapped, images[found], criterion, starting_points=starts[found])
    return out


@dataclass(frozen=True, eq=False)
class Crafted:
    """What an attack made.

    Attributes
    ----------
    images : (k, c, h, w) tensor
        The images that it turned.
    rows : (k,) int array
        Which of the attacked images they are.
    tried : int
        Images that it was given, all read rightly before.
    linf, rms : float
        Median sizes of the change.
    """

    images: torch.Tensor
    rows: np.ndarray
    tried: int
    linf: float
    rms: float

    @property
    def success(self) -> float:
        """Share of the images that were turned."""
        return len(self.rows) / max(1, self.tried)


def craft(
    attack: Attack,
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epsilon: float,
    rng: np.random.Generator,
    chunk: int = 2000,
) -> Crafted:
    """Attack the images that the network reads rightly; keep those that are misread after rounding to 8 bits."""
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in images.split(500)]) == labels
    rows = right.nonzero()[:, 0]
    parts = []
    for some in rows.split(chunk):
        moved = changes.rounded(attack(model, images[some], labels[some], epsilon, rng).detach())
        with torch.no_grad():
            turned = model(moved).argmax(1) != labels[some]
        parts.append((moved[turned], some[turned]))
    moved, kept = (torch.cat(column) for column in zip(*parts, strict=True))
    return measured(moved, images, kept, len(rows))


def measured(moved: torch.Tensor, images: torch.Tensor, kept: torch.Tensor, tried: int) -> Crafted:
    """Put together what was crafted with its sizes."""
    change = (moved - images[kept]).flatten(1)
    if not len(kept):
        return Crafted(moved, kept.cpu().numpy(), tried, 0.0, 0.0)
    linf, rms = float(change.abs().amax(1).median()), float(change.square().mean(1).sqrt().median())
    return Crafted(moved, kept.cpu().numpy(), tried, linf, rms)


def ensemble(parts: Sequence[Crafted], images: torch.Tensor) -> Crafted:
    """Join attacks: each image as the first of them that turned it left it."""
    taken: dict[int, torch.Tensor] = {}
    for part in parts:
        for row, image in zip(part.rows.tolist(), part.images, strict=True):
            taken.setdefault(row, image)
    rows = torch.tensor(sorted(taken), dtype=torch.long, device=images.device)
    moved = torch.stack([taken[row] for row in rows.tolist()]) if taken else images[:0]
    return measured(moved, images, rows, max(part.tried for part in parts))
