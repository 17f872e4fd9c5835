"""The experiment of notebook 05_real_life_m."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from scipy.spatial.distance import cdist

from advlib.ulsif import DEFAULT_GRID
from compendium.claims import published
from compendium.common import g17
from compendium.common.protocol import RatioComparison, draw_indices
from compendium.common.size_sweeps import SizeResult, attacked_pools, fit_draws, most_frequent

SMALL_LAMBDA = 0.01
"""A chosen λ below this says that, for the unsquared kernel, denominator and numerator hardly overlap: leave-one-out
then has nothing to lose by a large ratio."""


def out_of_reach_share(result: SizeResult) -> float:
    """Share of clean draws that chose a λ below `SMALL_LAMBDA`."""
    # The grid's 0.01 is a rounded power of ten.
    return float((result.settings["r2"][:, 1] < SMALL_LAMBDA * (1 - 1e-9)).mean())


def clean_r2_by_lambda(results: Sequence[SizeResult]) -> pandas.DataFrame:
    """Split mean R2 by the λ that clean draws chose: why R2 grows as the suspect sample shrinks.

    When no kernel of the numerator reaches the few denominator images, leave-one-out has nothing to lose by a small λ,
    and the ratio is ‖ĥ‖²/λ, whatever the images are.

    Parameters
    ----------
    results : sequence of SizeResult
        Of one mode and row, with settings.

    Returns
    -------
    pandas.DataFrame
        A row a size and λ: share of draws, and their contribution to mean R2.
    """
    draws = pandas.concat(
        pandas.DataFrame({"size": r.size, "lambda": r.settings["r2"][:, 1], "r2": r.r2, "share": 1 / len(r.r2)})
        for r in results
    )
    draws["contribution"] = draws["r2"] * draws["share"]
    return draws.groupby(["size", "lambda"], as_index=False)[["share", "contribution"]].sum()


def single_image_map(
    numerators: np.ndarray,
    suspects: np.ndarray,
    kernel: str,
    sigmas: Sequence[float] = DEFAULT_GRID,
    lambdas: Sequence[float] = DEFAULT_GRID,
) -> np.ndarray:
    """Mean ratio against a single denominator image, for every σ and λ of the grid, in closed form.

    With one denominator image Ĥ = φφᵀ, so by Sherman and Morrison θ = max(0, ĥ − φ·φᵀĥ/(λ + ‖φ‖²))/λ.
    All numerator images are kernel centres.

    Parameters
    ----------
    numerators : (t, n, d) float array
    suspects : (t, d) float array
        The image of each draw.
    kernel : str
        "gaussian" or "unsquared".
    sigmas, lambdas : sequence of float

    Returns
    -------
    (t, n_sigmas, n_lambdas) float64
    """
    metric = "sqeuclidean" if kernel == "gaussian" else "euclidean"
    lambda_ = np.asarray(lambdas, dtype=float)[:, None]
    found = np.empty((len(numerators), len(sigmas), len(lambdas)))
    for t, (numerator, suspect) in enumerate(zip(numerators, suspects, strict=True)):
        among, to = cdist(numerator, numerator, metric), cdist(suspect[None], numerator, metric)[0]
        for s, sigma in enumerate(sigmas):
            h, phi = np.exp(-among / (2 * sigma**2)).mean(axis=0), np.exp(-to / (2 * sigma**2))
            theta = np.maximum(0, h - phi * (phi @ h) / (lambda_ + phi @ phi)) / lambda_
            found[t, s] = theta @ h
    return found


@dataclass(frozen=True, eq=False)
class SingleImage:
    """What can stand in the row m = 1 of Table 3, where leave-one-out has nothing to leave out.

    Attributes
    ----------
    maps : dict of (t, n_sigmas, n_lambdas) float64
        Mean ratio with σ and λ fixed, for "r1" and "r2".
    alternatives : dict
        What was done → RatioComparison.
    needs_answer : tuple of str
        Alternatives that treat attacked and clean suspects differently: no detector can, and their AUROC means nothing.
    """

    maps: Mapping[str, np.ndarray]
    alternatives: Mapping[str, RatioComparison]
    needs_answer: tuple[str, ...]

    def best_fixed(self) -> tuple[float, float, float]:
        """Return σ and λ of the grid with which both printed numbers of m = 1 are least off, and the `off_by` of it."""
        means = [self.maps[side].mean(axis=0) for side in ("r1", "r2")]
        factors = off_by(*means)
        s, k = np.unravel_index(np.argmin(factors), factors.shape)
        return DEFAULT_GRID[s], DEFAULT_GRID[k], float(factors[s, k])

    def least_off(self) -> str:
        """Name the alternative with which both printed numbers of m = 1 are least off."""
        return min(self.alternatives, key=lambda what: off_by(*_means(self.alternatives[what])))


def single_image_alternatives(
    mode: g17.Mode, *, batch_size: int, epsilon: float, images: int, draws: int, rng: np.random.Generator
) -> SingleImage:
    """Try what could be done with one suspect MNIST image, where the defaults cannot choose σ and λ.

    Parameters
    ----------
    mode : g17.Mode
    batch_size : int
        Images in the numerator, and suspects in the fits that "m = batch_size" settings are taken from.
    epsilon, images, draws, rng
        As for `size_sweep`.

    Returns
    -------
    SingleImage
        Alternatives: σ, λ fixed where most fits of the same side chose them at m = batch_size, and at m = 2 (a
        detector cannot do that: it does not know the side); fixed for both sides where most clean fits chose them at
        m = 2, and where most attacked ones did at m = batch_size; each draw's own choice from two images, fitted to one
        of them; and the image given twice, with the usual leave-one-out.
    """
    pools = attacked_pools(mode, "mnist", epsilon, images, rng)
    clean, suspects = pools.clean[:, 0], {side: pools.suspects[side][:, 0] for side in ("r1", "r2")}
    a, b = (draw_indices(len(pool), draws, batch_size, rng) for pool in (clean, suspects["r2"]))

    def fits(m: int) -> dict[str, Any]:
        return {side: fit_draws(clean, pool, a, b[:, :m], mode.kernel) for side, pool in suspects.items()}

    chosen = {m: {side: _grid_places(fit) for side, fit in fits(m).items()} for m in (batch_size, 2)}
    usual = {(m, side): most_frequent(places) for m, found in chosen.items() for side, places in found.items()}
    maps = {side: single_image_map(clean[a], pool[b[:, 0]], mode.kernel) for side, pool in suspects.items()}

    def fixed(r1: tuple[int, int], r2: tuple[int, int]) -> RatioComparison:
        return RatioComparison(maps["r1"][:, *r1], maps["r2"][:, *r2])

    needs_answer = {
        f"σ, λ most chosen at m = {m}, each side its own": fixed(usual[m, "r1"], usual[m, "r2"])
        for m in (batch_size, 2)
    }
    own = (maps[side][np.arange(draws), *places.T] for side, places in chosen[2].items())
    alternatives = {
        f"σ, λ most chosen for attacked, m = {batch_size}, on both": fixed(*[usual[batch_size, "r1"]] * 2),
        "σ, λ most chosen for clean, m = 2, on both": fixed(*[usual[2, "r2"]] * 2),
        "σ, λ of each draw, chosen with a second image": RatioComparison(*own),
        "the image twice, leave-one-out as usual": RatioComparison(*(fit.mean_ratio_ for fit in fits(1).values())),
    }
    return SingleImage(maps, {**needs_answer, **alternatives}, tuple(needs_answer))


def _grid_places(fit: Any) -> np.ndarray:
    """Where the chosen σ and λ of each draw stand in the grid, (t, 2)."""
    return np.stack([np.searchsorted(np.asarray(DEFAULT_GRID), v) for v in (fit.sigma_, fit.lambda_)], axis=1)


def alternatives_frame(found: Mapping[str, SingleImage]) -> pandas.DataFrame:
    """Show what each alternative for m = 1 gives, by mode, beside the printed numbers."""
    columns = ["mode", "what was done", "R1", "R2", "off by a factor of", "AUROC"]
    lines = [["printed", "", *(_two_digits(e.value, e.low, e.high) for e in published_table3()[-1][1:]), "", ""]]
    for mode, single in found.items():
        for what, result in single.alternatives.items():
            factor = f"{off_by(*_means(result)):.1f}"
            auroc = "knows the side" if what in single.needs_answer else f"{result.auroc:.2f}"
            means = [_two_digits(s.mean, s.low, s.high) for s in (result.r1_summary, result.r2_summary)]
            lines.append([mode, what, *means, factor, auroc])
    return pandas.DataFrame(lines, columns=columns).set_index(["mode", "what was done"])


def _two_digits(mean: float, low: float, high: float) -> str:
    return f"{mean:.2g} ({low:.2g} to {high:.2g})"


def _means(result: RatioComparison) -> tuple[float, float]:
    return result.r1_summary.mean, result.r2_summary.mean


def off_by(r1: Any, r2: Any) -> Any:
    """By which factor, up or down, the worse of two numbers for m = 1 is off the print; of arrays, cell by cell."""
    ratios = [np.asarray(ours) / entry.value for ours, entry in zip((r1, r2), published_table3()[-1][1:], strict=True)]
    return np.maximum.reduce([np.maximum(ratio, 1 / ratio) for ratio in ratios])


def published_table3() -> list[tuple[int, published.Published, published.Published]]:
    """Table 3 as printed: m with R1 and R2, m falling."""
    return [
        (m, *(published.lookup("g17", "Table 3", "MNIST", f"{side} m={m}") for side in ("R1", "R2")))
        for m in range(9, 0, -1)
    ]
