"""Checks of the exercises of notebook 10."""

import math

import numpy as np

from advlib.prdc import ReferenceManifold
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, close, expect, require


def log_volume(my_log_volume: Answer) -> str:
    """10.1: log of a ball's volume, by known ones and by how it grows."""
    known = {1: 2 * 1.5, 2: math.pi * 1.5**2, 3: 4 / 3 * math.pi * 1.5**3, 4: math.pi**2 / 2 * 1.5**4}
    for d, volume in known.items():
        given = float(called(my_log_volume, 1.5, d))
        expect(given, math.log(volume), {
            f"In {d} dimensions you return the volume; its logarithm is asked.": volume,
            f"In {d} dimensions: Γ is taken at d/2 + 1, not at d/2.": math.log(volume) + math.log(d / 2),
        }, f"In {d} dimensions log V is {math.log(volume):.4f}, not {given:.4f}.")  # fmt: skip
    one, two = (float(called(my_log_volume, radius, 784, finite=False)) for radius in (1.0, 2.0))
    require(np.isfinite([one, two]).all(), "In 784 dimensions it is no finite number: use `math.lgamma`, and no power.")
    expect(two - one, 784 * math.log(2), {
        "Twice the radius adds 3 log 2 in 784 dimensions; it must add 784 log 2.": 3 * math.log(2),
    }, f"Twice the radius adds {two - one:.1f} in 784 dimensions, not d log 2.")  # fmt: skip
    return f"log V of the unit ball in 784 dimensions is {one:.0f}; twice the radius adds {two - one:.0f}."


def paper_volume(my_factor_of_copies: float, my_factor_of_distance: float) -> str:
    """10.2: a sum of cubes."""
    radii = np.random.default_rng(18).random(30) + 1

    def volume(r: np.ndarray) -> float:
        return float((4 / 3 * np.pi * r**3).sum())

    twice, doubled = volume(np.tile(radii, 2)) / volume(radii), volume(2 * radii) / volume(radii)
    expect(my_factor_of_copies, twice, {
        "Copies: the cluster does not grow, but the paper's sum does, with every image.": 1.0,
    }, "Copies: what does every term of the sum do?")  # fmt: skip
    expect(my_factor_of_distance, doubled, {
        "Distance: r enters as a cube.": 2.0,
    }, "Distance: look at the power of r in the paper's formula.")  # fmt: skip
    return "A sum counts images, and a cube is the volume of another space."


def factors(my_factors: Answer) -> str:
    """10.3: share inside, and balls around an inside image over k."""
    k = 5
    manifold = ReferenceManifold(k).fit(small.reference().reshape(-1, 64))
    images, _ = small.digits(200)
    noise = 0.1 * np.random.default_rng(19).choice([-1, 1], size=images.shape)
    moved = np.clip(images + noise, 0, 1).reshape(200, -1)
    counts = manifold.ball_counts(moved)
    share, around = called(my_factors, counts, k, shape=(2,))
    truth = float((counts > 0).mean())
    require(not close([share, around], [counts[counts > 0].mean() / k, truth]), "The share inside comes first.")
    expect(share, truth, {
        "The share inside is one of *images*, not of balls.": (counts > 0).sum() / 800,
    }, f"A share of {truth:.3f} lies in at least one ball, not {share:.3f}.")  # fmt: skip
    density = manifold.density(moved)
    expect(around, density / truth, {
        "The second factor is a mean over the images that lie inside, not over all.": counts.mean() / k,
        "Divide the number of balls by k.": counts[counts > 0].mean(),
    }, f"Their product must be the density, {density:.3f}.")  # fmt: skip
    nothing = called(my_factors, np.zeros(10, dtype=np.int64), k, shape=(2,), finite=False)
    require(np.array_equal(nothing, [0, 0]), "With no image in any ball both factors are 0; an empty mean is NaN.")
    return f"{share:.2f} × {around:.2f} is the density, {share * around:.2f}."
