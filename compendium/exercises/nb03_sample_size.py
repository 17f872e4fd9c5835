"""Checks of the exercises of notebook 03."""

import numpy as np

from advlib.ulsif import ULSIF
from compendium.common import protocol
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, close, expect, require


def own_kernels_alone(my_ratio_of_10: float, my_ratio_of_80: float) -> str:
    """03.1: 1/(nλ), held against fits in which no point reaches another."""
    lam = 0.01
    for n, value in zip((10, 80), (my_ratio_of_10, my_ratio_of_80), strict=True):
        apart = 1000.0 * np.arange(2 * n)[:, None]
        fitted = ULSIF(sigmas=1.0, lambdas=lam).fit(apart[:n], apart[n:]).mean_ratio_
        expect(value, fitted, {
            f"{n} images: ĥ is a mean over n images, and only one of them is the centre itself: ĥ_l = 1/n, not 1.":
                1 / lam,
            f"{n} images: a small σ does not make the ratio 1. Each image still meets its own kernel, which is 1.": 1.0,
            f"{n} images: it cannot be 0, for each image meets its own kernel, which is 1.": 0.0,
            f"{n} images: you took the mean of the weights' mean once too often; there is one factor 1/n.":
                1 / (n**2 * lam),
            f"{n} images: λ divides, θ = ĥ / λ.": lam / n,
        }, f"{n} images: a fit gives another number than {value:g}. What is θ when Ĥ = 0?")  # fmt: skip
    return "1/(nλ): it grows as the samples shrink, whoever made the denominator."


def ratio_without_own(my_ratio_without_own: Answer) -> str:
    """03.2: the mean ratio less the images' kernels on themselves."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(25, 3))
    kernels, theta = small.kernels(points, points), rng.random(25)
    given = float(called(my_ratio_without_own, kernels, theta))
    whole = float((kernels @ theta).mean())
    wanted = whole - theta.mean()
    expect(given, wanted, {
        "The own kernels are still in it: take the diagonal of the kernel matrix off.": whole,
        "You took all own parts off each image; each image has one: divide by n.":
            whole - theta.sum(),
        "You took 1 off: an own kernel counts with its weight, θ_l.": whole - 1,
    }, f"Whole, the ratio is {whole:.4f}; without own parts {wanted:.4f}, not {given:.4f}.")  # fmt: skip
    return "The own kernels add the mean of θ, whatever the other images do."


def auroc(my_auroc: Answer) -> str:
    """03.3: the AUROC of one draw; repeating draws leaves it alone."""
    rng = np.random.default_rng(4)
    clean, attacked = rng.integers(0, 8, size=30).astype(float), rng.integers(2, 11, size=40).astype(float)
    given, wanted = float(called(my_auroc, clean, attacked)), protocol.auroc(clean, attacked)
    above = (attacked[:, None] > clean).mean()
    expect(given, wanted, {
        "It is the other way round: how often is the attacked draw above the clean one?": 1 - wanted,
        "Ties are missing: two equal scores count one half.": above,
        "Ties count one half, not one.": (attacked[:, None] >= clean).mean(),
        "Compare every attacked draw with every clean one, not with the clean mean.": (attacked > clean.mean()).mean(),
    }, f"Of all pairs, ties as halves, a share of {wanted:.3f} is right; yours is {given:.3f}.")  # fmt: skip
    repeated = float(called(my_auroc, np.tile(clean, 10), np.tile(attacked, 10)))
    require(close(repeated, given), "Every draw taken ten times over, your AUROC changes: it must be a share of pairs.")
    once, often = (protocol.Summary.of(np.tile(attacked, n)) for n in (1, 100))
    narrower = (once.high - once.low) / (often.high - often.low)
    return f"A hundred times the draws: AUROC {given:.2f} as before, the mean's interval {narrower:.0f} times narrower."
