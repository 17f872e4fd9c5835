"""Checks of the exercises of notebook 14."""

import numpy as np

from compendium.exercises.feedback import Answer, called, expect, require


def berger_boos(my_p_value: Answer) -> str:
    """14.1: the largest p-value that is not contradicted, plus β."""
    each, contradicted = np.array([0.03, 0.7, 0.2, 0.9]), np.array([False, True, False, True])
    given = called(my_p_value, each, contradicted, 0.01)
    expect(given, 0.21, {
        "Add β: it pays for changes that were set aside wrongly.": 0.2,
        "Changes that the batch contradicts do not count.": 0.91,
        "Take the largest, not the smallest: any of these changes may be the true one.": 0.04,
    }, "It is not the largest p-value left, plus β.")  # fmt: skip
    high = called(my_p_value, np.array([0.995]), np.array([False]), 0.01)
    require(float(high) <= 1, "A p-value is at most 1.")
    return "A batch that only a contradicted change explains is flagged, at the price of β."


def same_size(my_same_size: Answer) -> str:
    """14.2: each image's own root mean square."""
    rng = np.random.default_rng(14)
    images = rng.random((5, 1, 6, 6))
    change = rng.normal(size=images.shape) * np.linspace(0.01, 0.2, 5)[:, None, None, None]
    given = called(my_same_size, images, images + change, 0.08, shape=images.shape)
    sizes = np.sqrt((change**2).mean(axis=(1, 2, 3), keepdims=True))
    truth = images + 0.08 * change / sizes
    expect(given, truth, {
        "One factor for all: take the mean over each image alone, `axis=(1, 2, 3)`.": images
        + 0.08 * change / np.sqrt((change**2).mean()),
        "That is the L2 norm: divide by the number of pixels inside the root.": images + 0.08 * change
        / np.sqrt((change**2).sum(axis=(1, 2, 3), keepdims=True)),
        "You returned the change alone: add it to the images.": 0.08 * change / sizes,
        "The root is missing: a mean square is not a size.": images + 0.08 * change / sizes**2,
    }, "The changes do not have the root mean square that was asked for.")  # fmt: skip
    return "All five changes are 0.08 large, whatever they were before."


def smallest_p(my_images: float, my_alarms: float) -> str:
    """14.3: how many calibration images, and two questions at once."""
    expect(my_images, 24, {
        "Images: β is added, so that the rank must give 0.04.": 19,
        "Images: the image itself counts, above and below.": 25,
    }, "Images: the smallest p-value is 1/(1 + n) + β.")  # fmt: skip
    expect(my_alarms, 100, {
        "Alarms: that is one question; both are asked.": 50,
        "Alarms: that holds for independent questions; at most, they never err together.": 97.5,
    }, "Alarms: at most the sum of both.")  # fmt: skip
    return "24 images; at most 100 of 1,000 clean batches."
