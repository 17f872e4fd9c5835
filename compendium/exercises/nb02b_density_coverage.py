"""Checks of the exercises of notebook 02b."""

import numpy as np

from compendium.common import vs22
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, close, mistaken, require


def untouched_range(my_darkest: float, my_brightest: float) -> str:
    """02b.1: pixels that VS22's bounds leave alone."""
    organ = vs22.image_set("organamnist")
    pixels = np.linspace(0, 1, 10_001, dtype=np.float32)[None, None, None]
    start = vs22.AS_PUBLISHED.to_attack(organ, pixels)
    still = pixels[np.abs(vs22.clipped_step(start, np.zeros_like(start), 0.01) - start) < 1e-6]
    require(
        not close([my_darkest, my_brightest], [0, 1]), "That is the range of x. Solve x = (p − μ)/σ for p at both ends."
    )
    require(my_darkest < my_brightest, "The darkest pixel of the range comes first.")
    require(abs(my_darkest - still.min()) < 2e-3, "The lower end is the p with (p − μ)/σ = 0.")
    require(abs(my_brightest - still.max()) < 2e-3, "The upper end is the p with (p − μ)/σ = 1.")
    return f"With the gradient set to zero, pixels from {still.min():.3f} to {still.max():.3f} stay; all others move."


def published_step(my_step: Answer) -> str:
    """02b.2: FGSM's step with the bounds of VS22's program."""
    organ = vs22.image_set("organamnist")
    (mean,), (std,) = organ.mean, organ.std
    pixels = small.reference()[:40].astype(np.float64)
    signs = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], pixels.shape)
    epsilon, x = 0.3, (pixels - mean) / std
    moved = vs22.clipped_step(x, signs, epsilon)
    given = called(my_step, pixels, signs, epsilon, mean, std, shape=pixels.shape)
    mistaken(given, mean + std * moved, {
        "Those are x, not pixels: p = μ + σ x.": moved,
        "The bounds hold for x here, not for p.": np.clip(pixels + std * epsilon * signs, 0, 1),
        "The bounds are missing: clip x to [0, 1].": pixels + std * epsilon * signs,
        "Some pixels jumped further than ε: bound the way as well.": mean + std * np.clip(x + epsilon * signs, 0, 1),
        "That is the change alone; add it to the pixels.": std * (moved - x),
        "The change is in units of σ: multiply it by σ.": pixels + moved - x,
    }, rtol=1e-5)  # fmt: skip
    off = np.abs(given - mean - std * moved).max()
    require(close(given, mean + std * moved, 1e-5, 1e-6), f"Some pixel differs from the library's step by {off:.2g}.")
    still = signs == 0
    share = (np.abs(given - pixels) > 1e-6)[still].mean()
    return f"Of the pixels without a gradient, {share:.0%} move.".replace("%", " %")
