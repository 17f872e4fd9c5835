"""Checks of the exercises of notebook 12a."""

import warnings

import numpy as np
from scipy.special import logsumexp

from compendium.exercises.feedback import Answer, called, close, expect, require


def reach(my_reach_2017: float, my_reach_paper: float) -> str:
    """12a.1: the ε at which a kernel value falls below 0.001."""
    given = my_reach_2017, my_reach_paper
    pixels, exponent = 784, np.log(1000)
    names = {"The kernel of 2017": 2 * exponent, "The paper's kernel": np.sqrt(2 * exponent)}
    wanted = [distance / np.sqrt(pixels) for distance in names.values()]
    require(not close(given, wanted[::-1], 5e-3), "The kernel of 2017 comes first.")
    for value, right, (name, distance) in zip(given, wanted, names.items(), strict=True):
        without = exponent if distance == 2 * exponent else np.sqrt(exponent)
        expect(value, right, {
            f"{name}: that is the distance d; divide by 28.": distance,
            f"{name}: the length of the change is 28 ε, not 784 ε.": distance / pixels,
            f"{name}: the 2 of 2σ² is missing.": without / np.sqrt(pixels),
        }, f"{name}: put the value equal to 0.001, and solve for d; then d = 28 ε.", rtol=5e-3)  # fmt: skip
    reached = f"ε = {wanted[0]:.2f} with the kernel of 2017, {wanted[1]:.2f} with the paper's"
    return f"{reached}. Table 1's plateau begins at 0.5."


def lead(my_lead: Answer) -> str:
    """12a.2: the lead of the other classes, stable."""
    rng = np.random.default_rng(22)
    logits, labels = rng.normal(0, 3, size=(20, 10)), rng.integers(0, 10, size=20)
    rows = np.arange(20)
    others = logits.copy()
    others[rows, labels] = -np.inf
    wanted = logsumexp(others, axis=1) - logits[rows, labels]
    given = called(my_lead, logits, labels, shape=(20,))
    expect(given, wanted, {
        "The label's own class is still in the sum; that is the cross-entropy.":
            logsumexp(logits, axis=1) - logits[rows, labels],
        "The sign is the other way round: others minus label.": -wanted,
        "You took the largest other logit; the sum runs over all others.": others.max(axis=1) - logits[rows, labels],
        "The label's logit has to be taken off.": logsumexp(others, axis=1),
    }, "The numbers are not log Σ exp(z_j) over the other classes, minus z of the label.")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for size in (1000.0, -1000.0):
            far = called(my_lead, logits + size, labels, shape=(20,), finite=False)
            require(
                np.isfinite(far).all(), f"Logits around {size:g} give NaN or infinity: take the largest off before exp."
            )
            require(close(far, wanted, 1e-6, 1e-6), f"All logits moved by {size:g} must give the same lead.")
    return "The same sign of the gradient as the cross-entropy, at any size of the logits."
