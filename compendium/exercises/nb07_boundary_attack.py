"""Checks of the exercises of notebook 07."""

from typing import Any

import numpy as np

from advlib.prdc import ReferenceManifold
from compendium.common import vs22
from compendium.exercises import small
from compendium.exercises.feedback import Answer, Open, called, close, mistaken, require


def clip_alone(my_clip_alone: Answer) -> str:
    """07.1: towards [0, 1] by at most ε, held against the published program with a zero gradient."""
    x = np.random.default_rng(8).normal(0.3, 1, size=(40, 25)).astype(np.float32)
    nearer = []
    for epsilon in (0.1, 0.4):
        given = called(my_clip_alone, x, epsilon, shape=x.shape)
        program = vs22.clipped_step(x, np.zeros_like(x), epsilon)
        mistaken(given, program, {
            "Every number has jumped into [0, 1] at once: it may go by ε at most.": np.clip(x, 0, 1),
            "Nothing has moved.": x,
            "You keep numbers between −ε and ε: the outer clip bounds the *way*, which is then added to x.":
                np.clip(x, -epsilon, epsilon),
            "You return the way; add x to it.": np.clip(np.clip(x, 0, 1) - x, -epsilon, epsilon),
        }, rtol=1e-4)  # fmt: skip
        still = (x >= 0) & (x <= 1)
        require(close(given[still], x[still], 1e-5), "Numbers that were in [0, 1] have moved: they are there already.")
        far = np.abs(given - x).max()
        require(far < epsilon + 1e-5, f"With ε = {epsilon} a number has gone {far:.2f} far.")
        require(close(given, program, 1e-4, 1e-6), f"With ε = {epsilon} some numbers outside [0, 1] go another way.")
        nearer.append(np.abs(given).mean() / np.abs(x).mean())
    return (
        f"As the published program without a gradient. Mean |x| falls to {nearer[0]:.2f} and {nearer[1]:.2f} of itself."
    )


def crowd(my_crowd: Any) -> str:
    """07.2: a batch of high density and low coverage."""
    if my_crowd is None:
        raise Open("Set `my_crowd` to an array of 50 images, shape (50, 1, 8, 8).")
    batch = np.asarray(my_crowd, dtype=np.float64)
    require(batch.shape == (50, 1, 8, 8), f"`my_crowd` must have the shape (50, 1, 8, 8), but has {batch.shape}.")
    require(np.isfinite(batch).all() and batch.min() >= 0 and batch.max() <= 1, "Pixels must lie in [0, 1].")
    found = ReferenceManifold(5).fit(small.reference().reshape(-1, 64)).density_coverage(batch.reshape(50, -1))
    values = f"density {found.density:.2f}, coverage {found.coverage:.3f}"
    require(found.density > 0, f"The batch has {values}: it lies in no ball at all. Stay near the digits.")
    require(found.density >= 1.5, f"The batch has {values}. Where do the balls of many digits overlap?")
    require(found.coverage <= 0.1, f"The batch has {values}. Density is high; now let fewer *different* balls be hit.")
    return f"The batch has {values}, and no attack made it."


def sideways(my_sideways: Answer) -> str:
    """07.3: unit vectors at right angles to the way."""
    rng = np.random.default_rng(9)
    direction, way = rng.normal(size=(2, 20, 64))
    way = 3 * way + 0.5 * direction
    given = called(my_sideways, direction, way, shape=direction.shape)
    angles = (given * way).sum(axis=1) / (np.linalg.norm(given, axis=1) * np.linalg.norm(way, axis=1) + 1e-300)
    worst = np.abs(angles).max()
    halfway = direction - (direction * way).sum(1, keepdims=True) / np.linalg.norm(way, axis=1, keepdims=True) * way
    unit = halfway / np.linalg.norm(halfway, axis=1, keepdims=True)
    mistaken(given, None, {
        "Divide by ‖way‖ squared: `way` has another length than 1.": unit,
        "That is the direction itself, of length 1: take its part along `way` off.":
            direction / np.linalg.norm(direction, axis=1, keepdims=True),
    })  # fmt: skip
    require(worst < 1e-8, f"Not at a right angle: the cosine of the angle to `way` reaches {worst:.2g}.")
    lengths = np.linalg.norm(given, axis=1)
    require(close(lengths, np.ones(20)), f"Lengths run from {lengths.min():.2f} to {lengths.max():.2f}: make them 1.")
    require(np.all((given * direction).sum(axis=1) > 0), "At a right angle, but not the part of the given direction.")
    return "At a right angle to the way, of length 1, and as near to the drawn direction as that allows."
