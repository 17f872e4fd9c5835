"""Fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572): one step along the sign of the gradient."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from advlib.attacks import base
from advlib.attacks.base import AdversarialBatch, Clip, versioned
from advlib.checks import ArrayLike, listed, of_kind


@versioned(1)
def fgsm(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    *,
    batch_size: int = 500,
) -> AdversarialBatch:
    """Fast gradient sign method, x + ε · sign(∇ₓ loss(x, y)); equal to `cleverhans`' fast_gradient_method.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits. Runs where it lives, in evaluation mode, and is left as it was.
    images : (n, c, h, w) float array or tensor
        Within `clip`, or within [0, 1] if there is no clipping.
    labels : (n,) integer array or tensor
        Whose cross-entropy is increased. CleverHans' tutorial of 2017 took the model's own predictions; for that,
        pass `predict(model, images)`. (Success then means "no longer says what it said".)
    epsilon : float
        L∞ size of the step, at least 0; in pixels.
    clip : (float, float) or None
        Range of valid images, into which the result is clipped. None leaves it unclipped, as G17 did: then the
        result need not be an image.
    batch_size : int
        Images at a time; bounds the memory.

    Returns
    -------
    AdversarialBatch

    Raises
    ------
    ValueError
        Naming the argument: images outside the stated range, not floating point, not finite or not (n, c, h, w);
        labels that are not one class an image; a negative ε; an empty range.

    Notes
    -----
    Everything is float32, as in cleverhans. Where the model is so sure that its softmax rounds to 1 (a logit gap
    above about 17), the true class's part of the gradient is rounded away and the sign is that of the rest.

    References
    ----------
    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
    arXiv:1412.6572; G17 eq. 2.
    """
    return next(fgsm_sweep(model, images, labels, [epsilon], clip, batch_size=batch_size))


@versioned(1)
def fgsm_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilons: Sequence[float],
    clip: Clip = (0.0, 1.0),
    *,
    batch_size: int = 500,
) -> Iterator[AdversarialBatch]:
    """FGSM at several ε for the price of one gradient: its direction does not depend on ε.

    Parameters and errors are those of `fgsm`. Arguments are checked and the gradient is computed at the call.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `epsilons`, each equal to `fgsm` at that ε to the bit; one at a time is held in memory.
    """
    epsilons = [base.checked_size(epsilon, "epsilon") for epsilon in listed(epsilons, "epsilons")]
    case = base.Case(model, images, labels, clip, batch_size)
    signs = case.gradient_signs(case.clean, case.labels)
    walk = (base.clipped_step(case.clean, epsilon, signs, clip) for epsilon in epsilons)
    return case.measured(walk, zero_gradient_share=float((signs == 0).double().mean()))


def gradient_signs(model: nn.Module, images: ArrayLike, labels: ArrayLike, *, batch_size: int = 500) -> ArrayLike:
    """Return sign(∇ₓ loss), FGSM's direction, (n, c, h, w) int8 of −1, 0 and 1.

    Parameters are those of `fgsm`, save that images may lie anywhere, so that attacks can be replayed which mixed up
    their ranges.
    """
    case = base.Case(model, images, labels, (-np.inf, np.inf), batch_size)
    return of_kind(images, case.gradient_signs(case.clean, case.labels))
