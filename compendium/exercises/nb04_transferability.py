"""Checks of the exercises of notebook 04."""

import numpy as np

from advlib import attacks
from advlib.models import predict
from compendium.common import protocol
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, close, expect, require


def tgsm(my_tgsm: Answer) -> str:
    """04.1: targeted steps, projected onto ball and range."""
    epsilon, steps, ball = 0.05, 6, 0.12
    images, labels = small.digits(100)
    targets = (labels + 1) % 10
    calls = []

    def gradient_of(points: np.ndarray) -> np.ndarray:
        calls.append(np.array(points))
        return small.loss_gradient(points, targets)

    moved = called(my_tgsm, images, gradient_of, epsilon, steps, ball, shape=images.shape)
    require(len(calls) > 0, "`gradient_of` was never called: it gives the direction of each step.")
    require(
        len(calls) == steps,
        f"`gradient_of` was called {len(calls)} times in {steps} steps: ask once a step, at the images reached so far.",
    )
    require(
        not close(calls[-1], images), "You ask for the gradient at the clean images again; go on from where you are."
    )
    outside = np.mean((moved < -1e-6) | (moved > 1 + 1e-6))
    require(outside == 0, f"{outside:.0%} of the pixels leave [0, 1]: clip after the step.")
    far = np.abs(moved - images).max()
    require(far <= ball + 1e-6, f"A pixel is {far:.2f} away from the clean image, outside the ball of {ball}.")
    network = small.network()
    truth = attacks.tgsm(network, images, labels, epsilon, steps=steps, targets=targets, ball=ball)
    reached = np.mean(predict(network, moved.astype(np.float32)) == targets)
    start = np.mean(predict(network, images) == targets)
    require(reached > start, f"{reached:.0%} are read as their target: step against the gradient of the target's loss.")
    same = np.mean(np.abs(moved - truth.images) < 1e-4)
    require(
        same > 0.999, f"{1 - same:.0%} of the pixels differ from `attacks.tgsm`: project onto the ball after each step."
    )
    return f"The images are those of `attacks.tgsm`; {reached:.0%} of them are read as their target."


def noise_of_equal_size(my_noise: Answer) -> str:
    """04.2: noise with the L2 norm of the attack, image by image."""
    images, labels = small.digits(80)
    attacked = attacks.fgsm(small.network(), images, labels, 0.15).images
    # Attacks of different sizes, so that one factor for all cannot do.
    attacked = images + (attacked - images) * np.linspace(0.2, 1, 80, dtype=np.float32)[:, None, None, None]
    noisy, again = (
        called(my_noise, images, attacked, np.random.default_rng(seed), shape=images.shape) - images for seed in (0, 1)
    )
    change = (attacked - images).reshape(80, -1).astype(np.float64)
    noise, norms = noisy.reshape(80, -1), np.linalg.norm(change, axis=1)
    found = np.linalg.norm(noise, axis=1)
    require(found.max() > 1e-9, "Nothing was added.")
    require(not close(noisy, again), "Two generators give the same noise: draw it from `rng`.")
    along = np.abs((noise * change).sum(axis=1)) / (found * norms + 1e-12)
    require(
        along.mean() < 0.5, "Your noise goes the attack's own way: draw it, and take from the attack only its size."
    )
    whole = np.isclose(np.linalg.norm(found), np.linalg.norm(norms), rtol=1e-3)
    spread = f"the ratio of the two norms runs from {(found / norms).min():.2f} to {(found / norms).max():.2f}"
    require(not whole or close(found, norms, 1e-3), f"The batch as a whole fits, but {spread}: scale image by image.")
    require(close(found, norms, 1e-3), f"Noise and attack differ in size: {spread}; it must be 1 for every image.")
    return "Every image gets noise as large as its attack, in a direction of its own."


def shared_images(my_shared_of_1000: float, my_shared_of_10000: float) -> str:
    """04.3: m²/N, held against draws."""
    m, counted = 100, []
    for n, value in zip((1_000, 10_000), (my_shared_of_1000, my_shared_of_10000), strict=True):
        sets = protocol.draw_indices(n, 2000, m, np.random.default_rng(n))
        counted.append(np.mean([np.isin(a, b).sum() for a, b in zip(sets[::2], sets[1::2], strict=True)]))
        expect(value, m * m / n, {
            f"N = {n:,}: that is the share of a batch; how many images are that?": m / n,
            f"N = {n:,}: the batches are drawn independently, so they do share images.": 0.0,
        }, f"N = {n:,}: 1,000 pairs of batches shared {counted[-1]:.1f} images on average.")  # fmt: skip
    return f"m²/N. 1,000 pairs of batches shared {counted[0]:.1f} and {counted[1]:.1f} images on average."
