"""Checks of the exercises of notebook 08."""

import numpy as np

from advlib.attacks import random_sign_noise
from advlib.prdc import ReferenceManifold
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, expect, mistaken, require


def share(my_share: Answer) -> str:
    """08.1: the share that a density implies, held against mixtures of real ball counts."""
    images, _ = small.digits(200)
    manifold = ReferenceManifold(5).fit(small.reference().reshape(-1, 64))
    moved = random_sign_noise(images, 0.15, np.random.default_rng(10))
    clean, attacked = (manifold.ball_counts(batch.reshape(200, -1)) / 5 for batch in (images, moved))
    for true in (0.25, 0.5, 0.9):
        # Of a mixture every image is attacked with probability s: the mean over all choices.
        density = float(((1 - true) * clean + true * attacked).mean())
        for ends, words in (
            ((clean, attacked), ""),
            ((attacked, clean), " where attacked images have the higher density"),
        ):
            given = float(called(my_share, density, ends[0].mean(), ends[1].mean()))
            wanted = true if not words else 1 - true
            expect(given, wanted, {
                "That is the share of clean images, one minus what is asked.": 1 - wanted,
                "That is the density in units of the clean one; the attacked density counts as well.":
                    density / ends[0].mean(),
                "Divide by the difference of the two ends.": ends[0].mean() - density,
            }, f"A mixture with a share of {wanted:g}{words} gives {given:.3f}.")  # fmt: skip
    return "The share comes out right from the density alone, for any attack and any reference."


def flagged_share(my_flagged_share: Answer) -> str:
    """08.2: equal tails of 2.5 % each."""
    rng = np.random.default_rng(11)
    clean, others = rng.gamma(4, 0.25, size=(2, 4000))
    alarms = float(called(my_flagged_share, clean, others))
    low, high = np.quantile(clean, [0.025, 0.975])
    center = np.median(clean)
    mistaken(alarms, np.mean((others < low) | (others > high)), {
        "You return the share that passes; the flagged ones are asked.": np.mean((others >= low) & (others <= high)),
        "Both tails hold 5 % each, which makes 10 % false alarms.":
            np.mean((others < np.quantile(clean, 0.05)) | (others > np.quantile(clean, 0.95))),
        "Equal distances from the median, not equal tails: clean densities have a longer tail upwards.":
            np.mean(np.abs(others - center) > np.quantile(np.abs(clean - center), 0.95)),
    })  # fmt: skip
    for shift, words in ((-center, "fallen to nearly nothing"), (10.0, "risen far above all clean ones")):
        seen = float(called(my_flagged_share, clean, 0.01 * others + center + shift))
        require(seen > 0.99, f"Batches whose density has {words} are flagged in {seen:.0%} only: watch both tails.")
    require(0.03 < alarms < 0.07, f"{alarms:.1%} of clean batches are flagged, not about 5 %.")
    return f"{alarms:.1%} false alarms on new clean batches, and both a rise and a fall are seen."


def different_images(my_different: float) -> str:
    """08.3: 100 (1 − ¼), held against draws."""
    rng = np.random.default_rng(12)
    counts = [len(np.union1d(*(rng.choice(100, 50, replace=False) for _ in range(2)))) for _ in range(500)]
    expect(my_different, np.mean(counts), {
        "The two halves are drawn independently, so some images are in both.": 100.0,
        "50 is one half alone; the other brings new images, but not 50.": 50.0,
        "25 is how many are in both halves. How many are in at least one?": 25.0,
    }, "With which probability does an image lie in neither half?", atol=0.75)  # fmt: skip
    return f"500 batches held {np.mean(counts):.1f} different images on average."


def smallest_share(my_smallest_share: float) -> str:
    """08.4: the share that shifts the mean by the same number of standard errors."""
    in_range = 0 <= my_smallest_share <= 1
    require(in_range, f"A share lies between 0 and 1, but yours is {my_smallest_share:g}; 40 % is 0.4.")
    rng = np.random.default_rng(13)
    spreads = [rng.normal(size=(4000, m)).mean(axis=1).std() for m in (25, 100)]
    expect(my_smallest_share, 0.4 * spreads[1] / spreads[0], {
        "Four times the images do not make a quarter: the spread falls as the *root* of their number.": 0.1,
        "It does not stay: larger batches scatter less.": 0.4,
        "It goes the other way: larger batches scatter less.": 0.8,
    }, "By which factor does the spread of a mean fall from 25 to 100 images?", atol=0.02)  # fmt: skip
    return (
        f"The spread of 4,000 simulated means falls to {spreads[1] / spreads[0]:.2f} of itself, and the share with it."
    )
