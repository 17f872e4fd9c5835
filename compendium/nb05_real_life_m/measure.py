"""The experiment of notebook 05_real_life_m."""

import math
from collections import Counter
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
from compendium.common.size_sweeps import SIDES, SizeResult, _fit, _twice_if_single, attacked_pools

SMALL_LAMBDA = 0.01
"""A chosen λ below this says that, for the unsquared kernel, denominator and numerator hardly overlap: leave-one-out
then has nothing to lose by a large ratio."""


def out_of_reach_share(result: SizeResult, side: str = "r2") -> float:
    """Share of draws that chose a λ below `SMALL_LAMBDA`."""
    # The grid's 0.01 is a rounded power of ten.
    return float((result.settings[side][:, 1] < SMALL_LAMBDA * (1 - 1e-9)).mean())


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
        A row a size and λ: share of draws, their mean R2, and their contribution to the mean.
    """
    lines = []
    for r in results:
        lambdas = r.settings["r2"][:, 1]
        for value in np.unique(lambdas):
            chosen = lambdas == value
            lines.append({
                "size": r.size,
                "lambda": float(value),
                "share": float(chosen.mean()),
                "mean": float(r.r2[chosen].mean()),
                "contribution": float(r.r2[chosen].sum() / len(chosen)),
            })  # fmt: skip
    return pandas.DataFrame(lines)


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

    def settings_in_both_bands(self) -> list[tuple[float, float]]:
        """List each σ, λ of the grid with which both printed numbers of m = 1 come out."""
        _, *printed = published_table3()[-1]
        inside = np.ones(self.maps["r1"].shape[1:], dtype=bool)
        for side, entry in zip(SIDES, printed, strict=False):
            low, high = table3_band(entry)
            mean = self.maps[side].mean(axis=0)
            inside &= (mean >= low) & (mean <= high)
        return [(DEFAULT_GRID[s], DEFAULT_GRID[k]) for s, k in np.argwhere(inside)]


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
    a = draw_indices(len(pools.clean), draws, batch_size, rng)
    b = draw_indices(len(pools.real), draws, batch_size, rng)
    clean, suspects, sides = pools.clean[:, 0], pools.denominators(0), ("r1", "r2")
    single = b[:, :1]

    def fit(side: str, indices: np.ndarray) -> Any:
        return _fit(clean, suspects[side], a, indices, kernel=mode.kernel)

    at_many, at_two = ({side: fit(side, b[:, :m]) for side in sides} for m in (batch_size, 2))
    maps = {side: single_image_map(clean[a], suspects[side][single[:, 0]], mode.kernel) for side in sides}

    def usual(found: Any) -> tuple[int, int]:
        pairs = Counter(zip(_places(found.sigma_), _places(found.lambda_), strict=True))
        return min(pairs, key=lambda pair: (-pairs[pair], pair))

    def fixed(places: Mapping[str, tuple[int, int]]) -> RatioComparison:
        return RatioComparison(*(maps[side][:, *places[side]] for side in sides))

    def same(place: tuple[int, int]) -> RatioComparison:
        return fixed({"r1": place, "r2": place})

    own = [maps[s][np.arange(draws), _places(at_two[s].sigma_), _places(at_two[s].lambda_)] for s in sides]
    needs_answer = {
        f"fixed: each side's most frequent at m = {batch_size}": fixed({s: usual(f) for s, f in at_many.items()}),
        "fixed: each side's most frequent at m = 2": fixed({s: usual(f) for s, f in at_two.items()}),
    }
    alternatives = {
        f"fixed: the attacked side's at m = {batch_size}, for both": same(usual(at_many["r1"])),
        "fixed: the clean side's at m = 2, for both": same(usual(at_two["r2"])),
        "each draw's own, chosen on two images": RatioComparison(*own),
        "the image twice, leave-one-out as usual": RatioComparison(
            *(fit(side, _twice_if_single(single)).mean_ratio_ for side in sides)
        ),
    }
    return SingleImage(maps, {**needs_answer, **alternatives}, tuple(needs_answer))


def _places(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.asarray(DEFAULT_GRID), values)


def alternatives_frame(found: Mapping[str, SingleImage]) -> pandas.DataFrame:
    """Show what each alternative for m = 1 gives, by mode, beside the printed numbers."""
    _, r1, r2 = published_table3()[-1]
    lines = [{"mode": "published", "what was done": "", "R1": f"{r1.value:.2f} ({r1.low:.2f}, {r1.high:.2f})",
              "R2": f"{r2.value:.2f} ({r2.low:.2f}, {r2.high:.2f})", "in both bands": "", "AUROC": ""}]  # fmt: skip
    for mode, single in found.items():
        for what, result in single.alternatives.items():
            lines.append({
                "mode": mode,
                "what was done": what,
                "R1": str(result.r1_summary),
                "R2": str(result.r2_summary),
                "in both bands": "yes" if in_both_bands(result) else "no",
                "AUROC": "needs the answer" if what in single.needs_answer else f"{result.auroc:.2f}",
            })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["mode", "what was done"])


def in_both_bands(result: RatioComparison) -> bool:
    """Whether both means of an alternative agree with the printed row m = 1."""
    _, r1, r2 = published_table3()[-1]
    ends = [(*table3_band(entry), summary.mean)
            for entry, summary in ((r1, result.r1_summary), (r2, result.r2_summary))]  # fmt: skip
    return all(low <= mean <= high for low, high, mean in ends)


def table3_column(side: str, size: int) -> str:
    """Name a column of Table 3 as `data/published/g17.csv` does: "R1 m=9"."""
    return f"{side.upper()} m={size}"


def table3_band(entry: published.Published) -> tuple[float, float]:
    """Range in which a rerun of a number of Table 3 agrees with it.

    Two unrelated reasons make a faithful rerun differ, so they add in quadrature. The paper's network is unknown:
    `g17.TOLERANCE`, a share of the value, as for Table 1. And both numbers are means of 100 draws with a printed
    95 % interval of half-width h: the difference of two such means has √2 h. The rerun's own spread does not
    widen the band, so that few draws make agreement harder and not easier.

    Parameters
    ----------
    entry : published.Published
        With `low` and `high`.

    Returns
    -------
    low, high : float
    """
    half_width = (entry.high - entry.low) / 2
    reach = math.hypot(g17.TOLERANCE * entry.value, math.sqrt(2) * half_width)
    return entry.value - reach, entry.value + reach


def published_table3() -> list[tuple[int, published.Published, published.Published]]:
    """Table 3 as printed: m with R1 and R2, m falling."""
    return [
        (m, *(published.lookup("g17", "Table 3", "MNIST", table3_column(side, m)) for side in ("r1", "r2")))
        for m in range(9, 0, -1)
    ]
