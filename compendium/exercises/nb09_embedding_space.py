"""Checks of the exercises of notebook 09."""

import numpy as np

from advlib.prdc import ReferenceManifold, expected_coverage
from compendium.exercises.feedback import Answer, called, close, expect, mistaken, require


def harmless_map(my_harmless_map: Answer) -> str:
    """09.1: every number changes, no ball count does."""
    for seed, d in ((14, 2), (15, 10)):
        points = np.random.default_rng(seed).normal(size=(160, d))
        moved = called(my_harmless_map, points, shape=points.shape)
        again = called(my_harmless_map, points, shape=points.shape)
        require(close(moved, again), "Called twice it gives two results: references and queries must go the same way.")
        still = np.mean(np.abs(moved - points) < 1e-9)
        require(still == 0, f"{still:.0%} of the numbers are what they were.")
        halves = [called(my_harmless_map, part, shape=part.shape) for part in (points[:100], points[100:])]
        require(
            close(np.concatenate(halves), moved),
            "Where a point goes depends on which others come along: references and queries would be moved differently.",
        )
        before = ReferenceManifold(5).fit(points[:100]).ball_counts(points[100:])
        spread = np.ptp(moved, axis=0).max()
        require(spread > 0, "All points fall together: no ball is left.")
        after = ReferenceManifold(5).fit(moved[:100]).ball_counts(moved[100:])
        changed = np.mean(before != after)
        require(
            changed == 0,
            f"{changed:.0%} of the queries lie in another number of balls: some distances grow more than others.",
        )
    return "Every number is another one, and every query lies in as many balls as before."


def moves(my_moves: Answer) -> str:
    """09.2: ε‖w‖₁ and ε‖w‖₂."""
    epsilon, d = 0.05, 784
    rng = np.random.default_rng(16)
    w = rng.normal(size=d)
    given = called(my_moves, w, epsilon, shape=(2,))
    one, two = epsilon * np.abs(w).sum(), epsilon * np.linalg.norm(w)
    expect(given[0], one, {
        "FGSM: the signs of w do not cancel; each pixel goes the way that raises z: take absolute values.":
            epsilon * w.sum(),
        "FGSM: that is the move of a step along w of length ε; every pixel goes by ε.": two,
        "FGSM: multiply by ε.": one / epsilon,
    }, f"FGSM: z moves by {one:.2f} in the check, not by {given[0]:.2f}.")  # fmt: skip
    tossed = (epsilon * rng.choice([-1, 1], size=(4000, d)) @ w).std()
    mistaken(given[1], two, {
        "Coin flips: independent moves partly cancel; variances add up, not sizes.": one,
        "Coin flips: that is the variance; take its root.": two**2,
        "Coin flips: multiply by ε.": two / epsilon,
    })  # fmt: skip
    require(abs(given[1] / tossed - 1) < 0.05, f"Coin flips: 4,000 tosses have a deviation of {tossed:.2f}.")
    return f"{one / two:.0f} times as far as coin flips of the same size, with {d} pixels."


def mean_coverage(my_mean_coverage: Answer) -> str:
    """09.3: simulated coverage of exchangeable points, held against the closed form."""
    n, m, k, repeats = 60, 30, 3, 60
    wanted, found = expected_coverage(n, m, k), {}
    for name, d in (("1 dimension", 1), ("20 dimensions", 20)):
        rng, drawn = np.random.default_rng(17 + d), []

        def draw(size: int, d: int = d, rng: np.random.Generator = rng, drawn: list[int] = drawn) -> np.ndarray:
            drawn.append(int(size))
            return rng.standard_exponential(size=(int(size), d))

        found[name] = float(called(my_mean_coverage, draw, n, m, k, repeats))
        require(
            drawn.count(n) >= repeats, f"References were drawn {drawn.count(n)} times; draw them anew in each repeat."
        )
        require(drawn.count(m) >= repeats, f"Queries were drawn {drawn.count(m)} times; draw them anew in each repeat.")
        # The spread of one coverage is about 0.06 here; four standard errors of the mean.
        require(
            abs(found[name] - wanted) < 4 * 0.06 / np.sqrt(repeats),
            f"In {name} you measure {found[name]:.3f}, the closed form gives {wanted:.3f}. Take the mean of all.",
        )
    measured = " and ".join(f"{value:.2f} in {name}" for name, value in found.items())
    return f"{measured}; the closed form gives {wanted:.2f}."
