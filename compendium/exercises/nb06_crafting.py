"""Checks of the exercises of notebook 06."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from compendium.exercises import small
from compendium.exercises.feedback import Answer, Off, Open, called, close, expect, require


def _asked(function: Callable[[float], float]) -> tuple[Callable[[float], float], list[float]]:
    """Return a gap function that notes where it is asked, and refuses to be asked for ever."""
    tried: list[float] = []

    def gap(epsilon: float) -> float:
        tried.append(float(epsilon))
        if len(tried) > 100:
            raise Off(f"Your loop has asked for the gap 100 times, last at ε = {tried[-1]:.3g}: it does not end.")
        return function(float(epsilon))

    return gap, tried


def crafting(my_crafting: Answer) -> str:
    """06.1: the first ε from above whose gap is within the tolerance, or 0."""
    cases = {
        "a gap of 10 ε": (lambda e: 10 * e, 1.2, 0.1),
        "a gap that meets the tolerance at once": (lambda e: e, 1.2, 0.3),
        "a gap that dips at ε = 0.2": (lambda e: 10 * abs(e - 0.2) + 0.01, 0.05, 0.2),
        "a gap that never meets the tolerance": (lambda e: 5.0, 1.2, 0.0),
    }
    for words, (function, tolerance, wanted) in cases.items():
        gap, tried = _asked(function)
        found = float(called(my_crafting, gap, 0.3, 0.05, tolerance))
        require(len(tried) > 0, "`gap` was never asked.")
        said = f"With {words} you return ε = {found:.3g}"
        if wanted == 0:
            require(abs(found) < 1e-9, f"{said}; no positive ε is left, so return 0.")
            continue
        enough = found <= 0 or function(found) <= tolerance + 1e-9
        require(enough, f"{said}, where the gap is still above the tolerance of {tolerance}.")
        require(found <= wanted + 1e-9, f"{said}; start at 0.3 and go down by the step.")
        require(found >= wanted - 1e-9, f"{said}, but ε = {wanted} would do: ask for the gap before you lower ε.")
    return "It stops at the first ε from above that meets the tolerance, in a blind spot too."


def mean_squared_distance(my_mean_squared_distance: Answer) -> str:
    """06.2: over all pairs; then clipped and unclipped noise on black-and-white digits."""
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(30, 5)), rng.normal(1, 2, size=(30, 5))
    pairs = cdist(x, y)
    given = float(called(my_mean_squared_distance, x, y))
    expect(given, (pairs**2).mean(), {
        "You compare each image with one partner; take all pairs (i, j).": ((x - y) ** 2).sum(axis=1).mean(),
        "That is the mean distance; square the distances before you take the mean.": pairs.mean(),
        "That is the squared mean distance; square first, then take the mean.": pairs.mean() ** 2,
        "Sum over the pixels, do not take their mean.": (pairs**2).mean() / 5,
        "That is the distance of the two mean images; the spread of the batches counts as well.":
            ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum(),
    }, f"Over all 900 pairs it is {(pairs**2).mean():.3f}, not {given:.3f}.")  # fmt: skip
    uneven = float(called(my_mean_squared_distance, x[:7], y))
    require(close(uneven, (pairs[:7] ** 2).mean()), "With batches of different sizes it goes wrong.")
    black_white = (small.reference() > 0.5).reshape(-1, 64).astype(np.float64)
    clean, other = black_white[:400], black_white[400:]
    noisy = clean + 0.2 * rng.choice([-1, 1], size=clean.shape)
    base, clipped, free = (
        float(called(my_mean_squared_distance, batch, other)) for batch in (clean, np.clip(noisy, 0, 1), noisy)
    )
    return (
        f"Coin flips of ±0.2 on black-and-white digits: {clipped / base:.2f} of the clean distance when clipped, "
        f"{free / base:.2f} when not."
    )


def changing(my_changing: set[str] | None) -> str:
    """06.3: what of a fit depends on the denominator, found by changing it."""
    if my_changing is None:
        raise Open("Set `my_changing` to a set of names.")
    names = {"h", "H", "theta", "R1"}
    wrong_kind = f'`my_changing` must be a set of names such as {{"h", "R1"}}, but is {my_changing!r}.'
    require(isinstance(my_changing, (set, frozenset, list, tuple)), wrong_kind)
    unknown = sorted(set(map(str, my_changing)) - names)
    require(not unknown, f"{', '.join(unknown)}: the names are {', '.join(sorted(names))}.")
    rng = np.random.default_rng(7)
    clean, suspects = rng.normal(size=(20, 3)), rng.normal(size=(15, 3))
    before, after = (_parts_of_a_fit(clean, points) for points in (suspects, suspects + 0.1))
    moves = {name for name in names if not close(before[name], after[name])}
    extra, missing = sorted(set(my_changing) - moves), sorted(moves - set(my_changing))
    require(not extra, f"A fit with other suspects has the same {', '.join(extra)}. Over which images is it a mean?")
    require(not missing, f"Something is missing: {len(missing)} more of the four change when the suspects do.")
    return "The attack enters through Ĥ alone, and from there reaches θ and R1."


def _parts_of_a_fit(clean: np.ndarray, suspects: np.ndarray) -> dict[str, Any]:
    phi_nu, phi_de = (small.kernels(points, clean) for points in (clean, suspects))
    h, gram = phi_nu.mean(axis=0), phi_de.T @ phi_de / len(phi_de)
    theta = np.maximum(0, np.linalg.solve(gram + 0.1 * np.eye(len(h)), h))
    return {"h": h, "H": gram, "theta": theta, "R1": h @ theta}
