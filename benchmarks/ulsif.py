"""Batched uLSIF against `densratio`: seconds a fit over the full 9 × 9 grid, in one process on the same cores.

Both sides choose σ and λ by leave-one-out on the default grid with 100 kernels, in float64. The peer is timed on a
few fits between ours, so that a busy machine slows both; medians are reported. NumPy's thread pool sometimes costs
the peer more than it gives, so it runs each fit with one thread and with all, and the faster median counts.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from densratio import densratio
from threadpoolctl import threadpool_limits

from advlib import datasets
from advlib.ulsif import GridEdgeWarning, fit_batch
from benchmarks.rows import row

SAMPLES = 100
EPSILON = 0.3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sign_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each pixel by ±ε or, as where a gradient is exactly 0, not at all, and stay in [0, 1]."""
    return np.clip(images + np.float32(EPSILON) * rng.integers(-1, 2, images.shape, dtype=np.int8), 0, 1)


def image_draws(name: str, draws: int, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray], str]:
    """Return disjoint numerators and denominators, (draws, 100, d) float32 a channel, and what they are."""
    try:
        images, what = datasets.load(name).train_images, name
    except datasets.DataUnavailable:
        # As large, and about as far apart, as the images that are missing: the same σ are real work.
        channels, side = (1, 28) if name == "mnist" else (3, 32)
        images = rng.normal(0.5, 0.25, (2_000, channels, side, side)).astype(np.float32)
        what = f"Gaussian data in place of {name}"
    rows = np.stack([rng.choice(len(images), 2 * SAMPLES, replace=False) for _ in range(draws)])
    stacks = [images[rows, channel].reshape(draws, 2 * SAMPLES, -1) for channel in range(images.shape[1])]
    return [stack[:, :SAMPLES] for stack in stacks], [stack[:, SAMPLES:] for stack in stacks], what


def compare(numerators: list[np.ndarray], denominators: list[np.ndarray], what: str, repeats: int, **options) -> dict:
    """Time T fits of ours on each channel's stacks, with one fit of the peer after each repeat."""
    channels, draws = len(numerators), len(numerators[0])
    ours, peer = [], {threads: [] for threads in {1, torch.get_num_threads()}}

    def all_ours():
        for numerator, denominator in zip(numerators, denominators, strict=True):
            fit_batch(numerator, denominator, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        fit_batch(numerators[0][:8], denominators[0][:8], **options)
        densratio(numerators[0][0], denominators[0][0], verbose=False)
        for repeat in range(repeats):
            ours.append(seconds(all_ours) / (draws * channels))
            channel, draw = repeat % channels, repeat % draws
            numerator = numerators[channel][draw].astype(np.float64)
            denominator = denominators[channel][draw].astype(np.float64)
            for threads, times in peer.items():
                with threadpool_limits(threads, user_api="blas"):
                    times.append(seconds(partial(densratio, numerator, denominator, verbose=False)))
    ours_s = statistics.median(ours)
    peer_s, peer_threads = min((statistics.median(times), threads) for threads, times in peer.items())
    size = *numerators[0].shape[1:2], *denominators[0].shape[1:], draws
    peer_name = f"densratio {version('densratio')}"
    return row("advlib.ulsif.fit_batch", peer_name, what, size, ours_s, peer_s, peer_threads=peer_threads)


def measure(quick: bool = True) -> list[dict]:
    """Return one row a comparison; `ours_s` and `peer_s` are seconds a fit (one channel of one draw)."""
    repeats = 5 if quick else 15
    rng = np.random.default_rng(0)
    rows = []
    for name, channels in (("mnist", "one channel"), ("cifar10", "three channels")):
        real, other, what = image_draws(name, 200, rng)
        noisy = [sign_noise(stack, rng) for stack in other]
        what = f"{what}, {channels}, real against"
        rows.append(compare(real, other, f"{what} real", repeats))
        rows.append(compare(real, noisy, f"{what} ±{EPSILON} sign noise", repeats))
        unsquared = f"{what} ±{EPSILON} sign noise, ours with the unsquared kernel"
        rows.append(compare(real, noisy, unsquared, repeats, kernel="unsquared"))
    return rows


if __name__ == "__main__":
    for result in measure():
        print({key: round(value, 5) if isinstance(value, float) else value for key, value in result.items()})
