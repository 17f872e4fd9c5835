"""Targeted gradient sign method (Kurakin et al. 2016, arXiv:1607.02533): several steps toward a chosen class."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn

from advlib.attacks import base
from advlib.attacks.base import AdversarialBatch, Clip, Targets, versioned
from advlib.checks import ArrayLike


@versioned(1)
def tgsm(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilon: float = 0.05,
    clip: Clip = (0.0, 1.0),
    *,
    steps: int = 10,
    targets: Targets = "least_likely",
    ball: float | None = None,
    rng: np.random.Generator | None = None,
    batch_size: int = 500,
) -> AdversarialBatch:
    """Target gradient sign method: `steps` times x − ε · sign(∇ₓ loss(x, target)).

    G17 took it from the repository tensorflow-adversarial. There ε is the size of *one* step and nothing keeps the sum
    of the steps small, so an image may move by steps · ε; G17 prints ε, but not the number of steps (that code's
    default is 1, its example of MNIST takes 12 of 0.02).

    Parameters
    ----------
    model, images, clip, batch_size
        As for `fgsm`.
    labels : (n,) integer array or tensor
        True classes: they say what is a success and do not steer the attack.
    epsilon : float
        L∞ size of one step, at least 0; in pixels.
    steps : int
        Number of steps, at least 0.
    targets : "least_likely", "random", int or (n,) integer array
        Class aimed at: the one with the smallest logit on the clean image (that repository's default, Kurakin's
        iterative least-likely class method); a random one other than the label, from `rng`; or given, for all images
        or for each. An image whose target is its label is moved too, deeper into its class.
    ball : float, optional
        Largest L∞ distance from the clean image, onto which every step is projected (Kurakin's α and ε are `epsilon`
        and `ball`). None is the repository's way.
    rng : numpy.random.Generator, optional
        For random targets.

    Returns
    -------
    AdversarialBatch
        With `targets` and `targeted_success`.

    Raises
    ------
    ValueError
        As `fgsm`; also for negative steps or ball, unknown targets, or random ones without `rng`.

    References
    ----------
    A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical world", ICLR 2017 workshop,
    arXiv:1607.02533, section 2.3; G17 section 2.2.
    """
    options = {"targets": targets, "ball": ball, "rng": rng, "batch_size": batch_size}
    return next(tgsm_sweep(model, images, labels, [steps], epsilon, clip, **options))


@versioned(1)
def tgsm_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    steps: Sequence[int],
    epsilon: float = 0.05,
    clip: Clip = (0.0, 1.0),
    *,
    targets: Targets = "least_likely",
    ball: float | None = None,
    rng: np.random.Generator | None = None,
    batch_size: int = 500,
) -> Iterator[AdversarialBatch]:
    """TGSM after several numbers of steps, for the price of the largest: each goes on from the one before.

    Parameters and errors are those of `tgsm`, save `steps`, which must increase. Arguments are checked at the call.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `steps`, each equal to `tgsm` with that many; one at a time is held in memory.
    """
    epsilon = base.checked_size(epsilon, "epsilon")
    ball = None if ball is None else base.checked_size(ball, "ball")
    steps = base.checked_steps(steps)
    base.checked_rng(rng, needed=False)
    case = base.Case(model, images, labels, clip, batch_size)
    aims = case.target_classes(targets, rng)
    return case.measured(case.sign_steps(case.clean, aims, -epsilon, steps, ball, "TGSM"), targets=aims)
