"""Jacobian saliency map attack (Papernot et al. 2016, arXiv:1511.07528): few features, each by a large step."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from advlib.attacks import base
from advlib.attacks.base import AdversarialBatch, Targets, versioned
from advlib.checks import ArrayLike, as_number, finite_number, listed, one_of
from advlib.models import frozen
from advlib.progress import track


@versioned(1)
def jsma(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    gamma: float = 0.1,
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    theta: float = 1.0,
    pairs: bool = True,
    targets: Targets = "least_likely",
    saliency: Literal["logits", "softmax"] = "logits",
    stop_at_target: bool = True,
    rng: np.random.Generator | None = None,
    batch_size: int = 100,
) -> AdversarialBatch:
    """Jacobian-based saliency map attack: change few features, each by θ, until the model says the target.

    At every iteration α = ∂Z_target/∂x and β = ∂(sum of the other Z)/∂x, and the pair of features (p, q) is moved by θ
    that maximises −(α_p + α_q)(β_p + β_q) with α_p + α_q > 0 > β_p + β_q (signs reversed for θ < 0), or with
    `pairs=False` the single feature; the search is exact (see `_best_pair`). A feature that reaches the edge of `clip`
    is left alone from then on. An image is finished when it is read as its target, when no pair has the right signs,
    or when its budget is spent.

    Parameters
    ----------
    model, images, batch_size
        As for `fgsm`.
    labels, targets, rng
        As for `tgsm`. An image that is read as its target already stays as it is.
    gamma : float
        Budget, the share of features that may change, 0 to 1: ⌊γ d / 2⌋ iterations for pairs, ⌊γ d⌋ for single
        features, with d = c · h · w. Papernot et al. take 0.145 as the largest on MNIST.
    clip : (float, float)
        Range of valid images.
    theta, pairs : float, bool
        Change of a feature in one iteration, not 0, in pixels (1 and −1 push it to the edge); two an iteration, or one.
    saliency : "logits" or "softmax"
        What Z is. The paper recommends logits. G17's code takes the softmax's probabilities: their sum is 1, so β = −α
        exactly, and the map always picks the features with the largest α, whatever they do to the other classes.
    stop_at_target : bool
        Whether an image is left alone once it is read as its target; otherwise the budget is spent.

    Returns
    -------
    AdversarialBatch
        With `targets` and `targeted_success`.

    Raises
    ------
    ValueError
        As `fgsm`; also for γ outside [0, 1], θ = 0, clip=None, another `saliency`, or targets that `tgsm` refuses.

    References
    ----------
    N. Papernot, P. McDaniel, S. Jha, M. Fredrikson, Z. B. Celik, A. Swami, "The limitations of deep learning in
    adversarial settings", EuroS&P 2016, arXiv:1511.07528, eq. 8–10 and algorithms 2–3.
    """
    options = {"theta": theta, "pairs": pairs, "targets": targets, "saliency": saliency}
    options |= {"stop_at_target": stop_at_target, "rng": rng, "batch_size": batch_size}
    return next(jsma_sweep(model, images, labels, [gamma], clip, **options))


@versioned(1)
def jsma_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    gammas: Sequence[float],
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    theta: float = 1.0,
    pairs: bool = True,
    targets: Targets = "least_likely",
    saliency: Literal["logits", "softmax"] = "logits",
    stop_at_target: bool = True,
    rng: np.random.Generator | None = None,
    batch_size: int = 100,
) -> Iterator[AdversarialBatch]:
    """JSMA at several budgets γ for the price of the largest: a smaller budget is a beginning of the same run.

    Parameters and errors are those of `jsma`. The features are chosen at the call, with progress shown.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `gammas`, each equal to `jsma` with that budget; one at a time is held in memory.
    """
    gammas = [as_number(gamma, "gamma") for gamma in listed(gammas, "gammas")]
    for gamma in gammas:
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be a share of features, 0 to 1, but is {gamma}")
    if not 0 < abs(finite_number(theta, "theta")) <= torch.finfo(torch.float32).max:
        raise ValueError(f"theta must be a finite number other than 0, but is {theta}")
    one_of(saliency, "saliency", ("logits", "softmax"))
    theta = float(theta)
    if clip is None:
        raise ValueError("clip must be a range (low, high), because a feature is left alone at its edge, but is None")
    base.checked_rng(rng, needed=False)
    case = base.Case(model, images, labels, clip, batch_size)
    aims = case.target_classes(targets, rng)
    # Without the 1e-9, 0.29 · 100 would be 28.
    budgets = [int(gamma * case.clean[0].numel() / (1 + pairs) + 1e-9) for gamma in gammas]
    picks = _jsma_picks(case, aims, theta, max(budgets, default=0), pairs, saliency, stop_at_target)

    def walk() -> Iterator[torch.Tensor]:
        for budget in budgets:
            moved = case.clean.clone()
            for chosen in picks[:, :budget].unbind(1):
                _push(moved, chosen.long(), theta, clip)
            yield moved

    return case.measured(walk(), targets=aims)


def _jsma_picks(
    case: base.Case,
    targets: torch.Tensor,
    theta: float,
    iterations: int,
    pairs: bool,
    saliency: str,
    stop_at_target: bool,
) -> torch.Tensor:
    """Return the features changed at each iteration, (n, iterations, 2 or 1) int32; −1 once an image is finished."""
    clean, clip = case.clean, case.clip
    picks = torch.full((len(clean), iterations, 1 + pairs), -1, dtype=torch.int32)
    with frozen(case.model) as device:
        for start in track(range(0, len(clean), case.batch_size), f"JSMA, {len(clean)} images"):
            rows = slice(start, start + case.batch_size)
            moved, aims = clean[rows].to(device, copy=True), targets[rows].to(device)
            active = torch.arange(len(moved), device=device)
            for iteration in range(iterations):
                part = moved[active].requires_grad_()
                alpha, beta, said = _forward_derivative(case.model, part, aims[active], saliency)
                part = part.detach().flatten(1)
                free = part < clip[1] if theta > 0 else part > clip[0]
                if stop_at_target:
                    free &= (said != aims[active])[:, None]
                sign = 1 if theta > 0 else -1
                chosen = (_best_pair if pairs else _best_feature)(sign * alpha, -sign * beta, free)
                picks[start + active.cpu(), iteration] = chosen.to("cpu", torch.int32)
                active = active[chosen[:, 0] >= 0]
                if not len(active):
                    break
                moved[active] = _push(moved[active], chosen[chosen[:, 0] >= 0], theta, clip)
    return picks


def _forward_derivative(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, saliency: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return α and β, (n, d) float64, and the class the model says, (n,).

    Images do not mix in evaluation mode, so two backward passes of sums over the batch give what would take one for
    each class: α, and the gradient of the sum of all outputs, which is α + β.
    The softmax's α is that of the log-probability: it differs by a positive factor, the probability itself, and does
    not underflow where that is tiny.
    """
    with torch.enable_grad():
        outputs = base.checked_logits(model, images, targets)
        said = outputs.argmax(1)
        if saliency == "softmax":
            outputs = outputs.log_softmax(1)
        (alpha,) = torch.autograd.grad(outputs.gather(1, targets[:, None]).sum(), images, retain_graph=True)
        alpha = alpha.flatten(1).double()
        if saliency == "softmax":
            return alpha, -alpha, said
        (total,) = torch.autograd.grad(outputs.sum(), images)
    return alpha, total.flatten(1).double() - alpha, said


def _push(images: torch.Tensor, chosen: torch.Tensor, theta: float, clip: tuple[float, float]) -> torch.Tensor:
    """Move the chosen features, (n, 1 or 2), of images in place by θ within the range; −1 means none."""
    rows = torch.nonzero(chosen[:, 0] >= 0)
    flat = images.view(len(images), -1)
    flat[rows, chosen[rows[:, 0]]] = (flat[rows, chosen[rows[:, 0]]] + theta).clamp(*clip)
    return images


def _best_feature(a: torch.Tensor, b: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Return for each row the free feature with a, b > 0 and the largest a·b, (n, 1) int64; −1 if there is none."""
    best, chosen = torch.where(free & (a > 0) & (b > 0), a * b, 0.0).max(1)
    return torch.where(best > 0, chosen, -1)[:, None]


_PAIR_ELEMENTS = 2**22
"""Pairs scored at a time; 32 MB an intermediate result."""


def _best_pair(a: torch.Tensor, b: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Return for each row the free features p < q with a_p + a_q > 0, b_p + b_q > 0 and the largest product of these.

    (n, 2) int64; −1 if there is no such pair. Of equal products of candidates the lowest p, then q, wins.

    Let (p, q) be a best pair and r another free feature with a_r ≥ a_q and b_r ≥ b_q. Then (p, r) has the right
    signs and is no worse. So some best pair has no such r for either member (equal features count as beaten by those of
    lower index): each is beaten by at most one feature, its partner. In the order of falling a, a feature is beaten by
    those before it with b at least as large; there is at most one iff b exceeds the second largest b before it. So a
    sort finds the candidates, usually a few dozen of thousands.
    """
    a, b = a.masked_fill(~free, -torch.inf), b.masked_fill(~free, -torch.inf)
    order = b.sort(dim=1, descending=True, stable=True).indices
    order = order.gather(1, a.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    sorted_b = b.gather(1, order)
    before = nn.functional.pad(sorted_b, (1, 0), value=-torch.inf)[:, :-1]  # b of the one before, then running maxima
    largest = before.cummax(1).values
    second = nn.functional.pad(torch.minimum(sorted_b, largest), (1, 0), value=-torch.inf)[:, :-1].cummax(1).values
    keep = sorted_b > second

    rank = keep.cumsum(1) - 1
    count = int(rank.max()) + 1
    # One column more than features, whose a and b are −∞, for rows with fewer candidates than others.
    candidates = torch.full((len(a), max(count, 1)), a.shape[1], device=a.device)
    rows = torch.nonzero(keep)[:, 0]
    candidates[rows, rank[keep]] = order[keep]
    candidates = candidates.sort(dim=1).values
    a, b = (nn.functional.pad(x, (0, 1), value=-torch.inf).gather(1, candidates) for x in (a, b))

    best = torch.zeros(len(a), dtype=a.dtype, device=a.device)
    chosen = torch.full((len(a), 2), -1, device=a.device)
    size = candidates.shape[1]
    block = max(1, _PAIR_ELEMENTS // (len(a) * size))
    column = torch.arange(size, device=a.device)
    for first in range(0, size, block):
        sum_a = a[:, first : first + block, None] + a[:, None]
        sum_b = b[:, first : first + block, None] + b[:, None]
        allowed = (sum_a > 0) & (sum_b > 0) & (column > column[first : first + block, None])
        score, position = torch.where(allowed, sum_a * sum_b, 0.0).flatten(1).max(1)
        better = score > best
        pair = torch.stack([first + position // size, position % size], dim=1)
        chosen[better] = candidates.gather(1, pair)[better]
        best = torch.maximum(best, score)
    return chosen
