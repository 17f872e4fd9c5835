"""Checks of the exercises of notebook 11."""

import tracemalloc

import numpy as np
from scipy.spatial.distance import cdist

from compendium.exercises.feedback import Answer, called, expect, mistaken, require


def squared_distances(my_squared_distances: Answer) -> str:
    """11.1: values, sign and memory of all squared distances."""
    rng = np.random.default_rng(20)
    x, y = rng.normal(size=(300, 100)), rng.normal(size=(200, 100))
    y[:50] = x[:50]
    tracemalloc.start()
    try:
        given = called(my_squared_distances, x, y, shape=(300, 200))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    truth = cdist(x, y, "sqeuclidean")
    mistaken(given, truth, {
        "Those are the distances; leave the root out.": np.sqrt(truth),
        "The product counts twice: − 2 x · y.": (x**2).sum(1)[:, None] + (y**2).sum(1) - x @ y.T,
    })  # fmt: skip
    require(np.abs(given - truth).max() < 1e-9 * truth.max(), "The numbers are not ‖x_i − y_j‖².")
    require(given.min() >= 0, f"The smallest is {given.min():.1g}, below 0 by rounding: cut it off with np.maximum.")
    whole = x.nbytes * len(y)
    require(peak < whole / 3, f"{peak / 1e6:.0f} MB at the peak: that is an array of all differences; use `x @ y.T`.")
    return f"{peak / 1e6:.1f} MB at the peak, where all differences would take {whole / 1e6:.0f} MB."


def safe_squared_distances(my_safe_squared_distances: Answer) -> str:
    """11.2: float32, far from the origin."""
    rng = np.random.default_rng(21)
    near = [rng.normal(size=(n, 64)).astype(np.float32) for n in (120, 90)]
    x, y = (points + np.float32(3000) for points in near)
    tracemalloc.start()
    try:
        given = called(my_safe_squared_distances, x, y, shape=(120, 90))  # as float64
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    kind = np.asarray(my_safe_squared_distances(x.copy(), y.copy())).dtype
    require(kind == np.float32, f"The result is {kind}: do it in float32.")
    whole = x.nbytes * len(y)
    require(peak < whole / 3, f"{peak / 1e6:.1f} MB at the peak: that is an array of all differences; use `x @ y.T`.")
    error = np.abs(given / cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean") - 1).max()
    require(
        error < 1e-3, f"At 3,000 from the origin a distance is off by {error:.0%}: move both sets to the origin first."
    )
    return f"No distance is off by more than {max(error, 1e-6):.0e} of itself, at 3,000 from the origin."


def growth(my_factor: float, my_gigabytes: float) -> str:
    """11.3: n²."""
    expect(my_factor, (50_000 / 5_000) ** 2, {
        "Work: every query meets every reference, and both grow.": 10.0,
        "Work: n², not n³.": 1000.0,
    }, "Work: how many pairs are there at each n?")  # fmt: skip
    size = 50_000**2 * np.dtype(np.float64).itemsize / 1e9
    expect(my_gigabytes, size, {
        "Memory: a float64 takes 8 bytes.": size / 8,
        "Memory: that is float32; a float64 takes 8 bytes.": size / 2,
    }, "Memory: how many numbers has the matrix, and how many bytes has each?", rtol=0.01)  # fmt: skip
    return "Both grow as n²."
