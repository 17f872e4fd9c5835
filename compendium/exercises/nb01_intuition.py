"""Checks of the exercises of notebook 01."""

import numpy as np
from scipy.spatial.distance import cdist

from advlib import attacks
from advlib.models import accuracy
from advlib.prdc import ReferenceManifold
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, close, expect, require


def fgsm(my_fgsm: Answer) -> str:
    """01.1: FGSM within [0, 1], bounds, size and direction."""
    epsilon = 0.2
    images, labels = small.digits(200)
    gradient = small.loss_gradient(images, labels)
    moved = called(my_fgsm, images, gradient, epsilon, shape=images.shape)
    change = moved - images
    require(np.abs(change).max() > 1e-6, "No pixel moves.")
    outside = np.mean((moved < -1e-6) | (moved > 1 + 1e-6))
    require(outside == 0, f"{outside:.0%} of the pixels leave [0, 1]: clip the result.")
    far = np.abs(change).max()
    require(far < epsilon + 1e-6, f"With ε = {epsilon} a pixel moves by {far:.2g}: every step must have the size ε.")
    require(
        np.all(np.abs(change[gradient == 0]) < 1e-6), "Pixels without gradient move: sign(0) is 0, as in `np.sign`."
    )
    free = (images >= epsilon) & (images <= 1 - epsilon) & (gradient != 0)
    agreement = np.mean(np.sign(change[free]) == np.sign(gradient[free]))
    require(agreement > 0.5, "You go against the gradient, which lowers the loss. An attack raises it: add the step.")
    least = np.abs(change[free]).min()
    require(least > epsilon - 1e-6, f"Pixels move by different sizes, some by {least:.1g}: take the gradient's sign.")
    found = attacks.fgsm(small.network(), images, labels, epsilon).images
    require(
        close(moved, found, atol=1e-5), "Bounds, size and direction are right, but `attacks.fgsm` gives other images."
    )
    before, after = (accuracy(small.network(), x, labels) for x in (images, moved.astype(np.float32)))
    return (
        f"The images are those of `attacks.fgsm`; the network reads {after:.0%} of them rightly, before {before:.0%}."
    )


def density_coverage(my_density_coverage: Answer) -> str:
    """01.2: density and coverage with their balls."""
    k = 3
    points = np.random.default_rng(1).normal(size=(110, 4))
    reference, queries = points[:70], 0.8 * points[70:]
    given = called(my_density_coverage, reference, queries, k, shape=(2,))
    truth = ReferenceManifold(k).fit(reference).density_coverage(queries)
    n, m = len(reference), len(queries)
    off = "{} is {:.3f}, but ought to be {:.3f} on the test points."
    own = cdist(queries, reference) < np.sort(cdist(reference, reference), axis=1)[:, k - 1]
    inside = cdist(queries, reference) < np.sort(cdist(reference, reference), axis=1)[:, k]
    expect(given[0], truth.density, {
        "Your balls are too small: the nearest neighbour that you count is the point itself, at distance 0.":
            own.sum() / (k * m),
        "Density: divide by k as well; it is 1, not k, for a batch like the reference.": truth.density * k,
        "Density: you divided by the size of the reference; it is a mean over the queries.": truth.density * m / n,
    }, off.format("Density", given[0], truth.density))  # fmt: skip
    expect(given[1], truth.coverage, {
        "Coverage: you took the share of queries that lie in some ball (precision). Ask each ball for a query.":
            inside.any(axis=1).mean(),
        "Coverage: you divided by the number of queries; it is a share of the balls.": truth.coverage * n / m,
    }, off.format("Coverage", given[1], truth.coverage))  # fmt: skip
    return (
        f"Density {truth.density:.2f} and coverage {truth.coverage:.2f} on the test points, as `advlib.prdc` has them."
    )


def mean_true_ratio(my_mean_over_a: float, my_mean_over_b: float) -> str:
    """01.3: the true mean ratio over numerator and denominator."""
    middle = (np.arange(2000) + 0.5) / 1000  # midpoints of [0, 2]
    p_a, p_b = (middle < 1).astype(float), np.full(2000, 0.5)
    means = [float(np.mean(p * p_a / p_b) * 2) for p in (p_a, p_b)]
    expect(my_mean_over_a, means[0], {
        "Over the numerator: you took p_b / p_a. On [0, 1] the ratio is 1 divided by one half.": 0.5,
    }, "Over the numerator: all its points lie in [0, 1]. What is the ratio there?")  # fmt: skip
    expect(my_mean_over_b, means[1], {
        "Over the denominator: half of its points lie where p_a, and with it the ratio, is 0.": means[0],
    }, "Over the denominator: which share of its points lies in [0, 1], and the others?")  # fmt: skip
    return "Over the denominator the mean is 1 for any two densities; over the numerator it is never below 1."
