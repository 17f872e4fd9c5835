"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083): several steps within an L∞ ball."""

import numpy as np
import torch
from torch import nn

from advlib.attacks import base
from advlib.attacks.base import AdversarialBatch, Clip, versioned
from advlib.checks import ArrayLike


@versioned(1)
def pgd(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    *,
    steps: int = 10,
    step: float | None = None,
    rng: np.random.Generator | None = None,
    batch_size: int = 500,
) -> AdversarialBatch:
    """Projected gradient descent: FGSM in small steps, each projected onto the L∞ ball of radius ε around the image.

    Equal to the bit to `cleverhans`' projected_gradient_descent without its random start. That function is not called,
    because it draws its start from torch's global generator, a batch at a time, refuses step > ε and clip ranges
    narrower than ε by `assert`, and returns its own input for ε = 0.

    Parameters
    ----------
    model, images, labels, clip, batch_size
        As for `fgsm`.
    epsilon : float
        L∞ radius, at least 0; in pixels.
    steps : int
        Number of steps, at least 0.
    step : float, optional
        L∞ size of one step; 2.5 ε / steps by default (Madry's choice: enough to reach and leave the edge of the ball).
    rng : numpy.random.Generator, optional
        Starts every image at a point drawn uniformly from its ball (Madry et al.); None starts at the image itself,
        the basic iterative method of Kurakin et al.

    Returns
    -------
    AdversarialBatch

    Raises
    ------
    ValueError
        As `fgsm`; also for a negative number of steps or size of a step.

    References
    ----------
    A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards deep learning models resistant to adversarial
    attacks", ICLR 2018, arXiv:1706.06083, section 2.1.
    """
    epsilon = base.checked_size(epsilon, "epsilon")
    (steps,) = counts = base.checked_steps([steps])
    step = 2.5 * epsilon / max(steps, 1) if step is None else base.checked_size(step, "step")
    base.checked_rng(rng, needed=False)
    case = base.Case(model, images, labels, clip, batch_size)
    start = case.clean
    if rng is not None:
        directions = torch.from_numpy(rng.random(start.shape, dtype=np.float32) * 2 - 1)
        start = base.clipped_step(start, epsilon, directions, clip)
    return next(case.measured(case.sign_steps(start, case.labels, step, counts, epsilon, "PGD")))
