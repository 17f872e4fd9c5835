"""Why G17's numbers are what they are: one cause at a time, each with its effect in numbers.

A rerun of Table 1's MNIST row from which one thing at a time is changed (`one_at_a_time`), the plateau at any λ grid
(`plateau_by_lambda`), the direction of FGSM where the softmax is saturated (`directions`), and what the printed
intervals say about themselves (`pooled_intervals`, `real_real_across_tables`).

References
----------
L. Gondara, arXiv:1705.02224 (2017).
T. Kanamori, S. Hido and M. Sugiyama, JMLR 10 (2009) 1391–1445, for uLSIF and its leave-one-out error.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from advlib import attacks, models
from advlib.models import as_tensor
from advlib.progress import track
from advlib.ulsif import DEFAULT_GRID, GridEdgeWarning, fit_batch_indices
from compendium.claims import published
from compendium.common import g17, vs22
from compendium.common.causes import short
from compendium.common.g17 import AS_PUBLISHED, CORRECTED, all_and_attacked, test_images
from compendium.common.protocol import disjoint_mean_ratio, draw_indices, mean_ratios
from compendium.common.size_sweeps import COMBINED
from compendium.common.splits import held_out

# ---------------------------------------------------------------------------------------------- one at a time


@dataclass(frozen=True)
class Variant:
    """How MNIST's row of Table 1 is computed.

    Attributes
    ----------
    name : str
    kernel : str
        "unsquared" or "gaussian".
    clip : (float, float) or None
        Range that FGSM keeps images in.
    over : "numerator" or "denominator"
        Sample over which the ratio is averaged.
    lambdas : tuple of float
        Grid of λ; σ always has the default grid.
    selection : "exact" or "densratio"
        Leave-one-out score by which (σ, λ) is chosen, see `densratio_scores`.
    network : str
        Name for `advlib.models.load_trained`.
    direction : "float32" or "exact"
        FGSM's direction as float32 has it, or `vs22.margin_signs`.
    """

    name: str
    kernel: str = AS_PUBLISHED.kernel
    clip: tuple[float, float] | None = AS_PUBLISHED.clip
    over: Literal["numerator", "denominator"] = "numerator"
    lambdas: tuple[float, ...] = DEFAULT_GRID
    selection: Literal["exact", "densratio"] = "exact"
    network: str = AS_PUBLISHED.networks["mnist"]
    direction: Literal["float32", "exact"] = "float32"


def lambda_grid(smallest: float) -> tuple[float, ...]:
    """Grid from `smallest` to 10, two values a decade as in the default one."""
    return tuple(np.logspace(np.log10(smallest), 1, round(2 * (1 - np.log10(smallest))) + 1).tolist())


BASE = Variant("as published")
DENSRATIO = "densratio's leave-one-out"
VARIANTS = (
    BASE,
    replace(BASE, name="squared distance in the kernel", kernel="gaussian"),
    replace(BASE, name="clipped to [0, 1]", clip=(0.0, 1.0)),
    replace(BASE, name="mean over the denominator", over="denominator"),
    replace(BASE, name="λ grid from 0.01", lambdas=lambda_grid(1e-2)),
    replace(BASE, name="λ grid from 0.0001", lambdas=lambda_grid(1e-4)),
    replace(BASE, name=DENSRATIO, selection="densratio"),
    replace(BASE, name="VS22's network", network=CORRECTED.networks["mnist"]),
    replace(BASE, name="VS22's network, exact direction", network=CORRECTED.networks["mnist"], direction="exact"),
    Variant("corrected", CORRECTED.kernel, CORRECTED.clip, network=CORRECTED.networks["mnist"]),
)


def one_at_a_time(
    epsilons: Sequence[float],
    *,
    images: int,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
    variants: Sequence[Variant] = VARIANTS,
) -> pandas.DataFrame:
    """Rerun MNIST's row of Table 1 in every variant, on the same draws.

    Parameters
    ----------
    epsilons : sequence of float
        FGSM sizes, L∞, pixels in [0, 1].
    images : int
        Test images attacked, 0 for all; numerators come from all.
    draws, batch_size : int
        t and m of Algorithm 1.
    rng : numpy.random.Generator
    variants : sequence of Variant

    Returns
    -------
    pandas.DataFrame
        A row a variant, ε and draw: mean ratio of clean against attacked, and the σ and λ chosen; ε = 0 is R2.
    """
    everything, real, labels = all_and_attacked("mnist", images)
    a = draw_indices(len(everything), draws, batch_size, rng)
    b = draw_indices(len(real), draws, batch_size, rng)
    clean = vs22.flat(everything)
    rows, signs = [], {}
    for variant in track(variants, "one cause at a time"):
        key = variant.network, variant.direction
        if key not in signs:
            find = vs22.margin_signs if variant.direction == "exact" else attacks.gradient_signs
            signs[key] = find(models.load_trained(variant.network), real, labels)
        for epsilon in (*epsilons, 0.0):
            moved = real + np.float32(epsilon) * signs[key]
            moved = moved if variant.clip is None else moved.clip(*variant.clip)
            rows += [(variant.name, epsilon, *fit) for fit in _fits(variant, clean, vs22.flat(moved), a, b)]
    return pandas.DataFrame(rows, columns=["variant", "ε", "ratio", "σ", "λ"])


def _fits(
    variant: Variant, clean: np.ndarray, moved: np.ndarray, a: np.ndarray, b: np.ndarray
) -> Iterator[tuple[float, float, float]]:
    """Give mean ratio, σ and λ of each draw."""
    if variant.selection == "densratio":
        for rows, others in zip(a, b, strict=True):
            scores = densratio_scores(clean[rows], moved[others], lambdas=variant.lambdas, kernel=variant.kernel)
            i, j = np.unravel_index(scores.argmin(), scores.shape)
            chosen = {"sigmas": DEFAULT_GRID[i], "lambdas": variant.lambdas[j]}
            (ratio,) = mean_ratios(clean, moved, rows[None], others[None], variant.kernel, **chosen)
            yield ratio, *chosen.values()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        fit = fit_batch_indices(clean, moved, a, b, kernel=variant.kernel, lambdas=variant.lambdas)
    ratios = fit.mean_ratio_
    if variant.over == "denominator":
        ratios = [
            (kernel_values(moved[others], clean[rows][fit.center_indices_], sigma, variant.kernel) @ theta).mean()
            for rows, others, sigma, theta in zip(a, b, fit.sigma_, fit.theta_, strict=True)
        ]
    yield from zip(ratios, fit.sigma_, fit.lambda_, strict=True)


def kernel_values(points: np.ndarray, centres: np.ndarray, sigma: float, kernel: str) -> np.ndarray:
    """Kernel matrix (n, b) of points (n, d) and centres (b, d) by its definition, "gaussian" or "unsquared"."""
    distance = cdist(points, centres, "sqeuclidean" if kernel == "gaussian" else "euclidean")
    return np.exp(-distance / (2 * sigma**2))


def densratio_scores(
    numerator: np.ndarray,
    denominator: np.ndarray,
    sigmas: Sequence[float] = DEFAULT_GRID,
    lambdas: Sequence[float] = DEFAULT_GRID,
    kernel: str = "gaussian",
    *,
    defect: bool = True,
) -> np.ndarray:
    """Leave-one-out error as the Python package `densratio` (0.1.4 to 0.4.0) computes it.

    In the correction for the left-out pair the package forgets one division: with the notation of Kanamori et al.,
    B₁ = B⁻¹X' + B⁻¹X diag(1ᵀ(X' ∗ B⁻¹X)) where it must be B⁻¹X diag(1ᵀ(X' ∗ B⁻¹X) / d), d = n_de − 1ᵀ(X ∗ B⁻¹X).

    Parameters
    ----------
    numerator, denominator : (n, d), (m, d) float array
        All numerator points are centres.
    sigmas, lambdas : sequence of float
    kernel : str
        "gaussian" or "unsquared".
    defect : bool
        False puts the division back.

    Returns
    -------
    (n_sigmas, n_lambdas) float64 array
        Smaller is better.
    """
    n_nu, n_de = len(numerator), len(denominator)
    n = min(n_nu, n_de)
    scores = np.empty((len(sigmas), len(lambdas)))
    for i, sigma in enumerate(sigmas):
        phi_nu = kernel_values(numerator, numerator, sigma, kernel)
        phi_de = kernel_values(denominator, numerator, sigma, kernel)
        gram, h = phi_de.T @ phi_de / n_de, phi_nu.mean(0)
        x, x_nu = phi_de[:n].T, phi_nu[:n].T
        for j, lambda_ in enumerate(lambdas):
            b = gram + lambda_ * (n_de - 1) / n_de * np.eye(n_nu)
            solved = np.linalg.solve(b, np.hstack([x, h[:, None], x_nu]))
            b_x, b_h, b_nu = solved[:, :n], solved[:, n], solved[:, n + 1 :]
            d = n_de - (x * b_x).sum(0)
            b0 = b_h[:, None] + b_x * (h @ b_x / d)
            b1 = b_nu + b_x * ((x_nu * b_x).sum(0) / (1.0 if defect else d))
            b2 = np.maximum(0, (n_de - 1) / (n_de * (n_nu - 1)) * (n_nu * b0 - b1))
            scores[i, j] = ((x * b2).sum(0) ** 2).mean() / 2 - (x_nu * b2).sum(0).mean()
    return scores


def by_epsilon(found: pandas.DataFrame, column: str = "ratio") -> pandas.DataFrame:
    """Summarise `one_at_a_time` over the draws, a row a variant and a column an ε: mean ratio, or median of σ or λ."""
    statistic = "mean" if column == "ratio" else "median"
    return found.pivot_table(column, "variant", "ε", statistic, sort=False)


# ---------------------------------------------------------------------------------------------- plateau

PLATEAU_ROWS = {
    row: (image_set, 0 if part == "combined" else int(part.removeprefix("channel ")))
    for row, (image_set, part) in g17.TABLE1.items()
    if row != COMBINED
}
"""Row of Table 1 that shows one channel → image set and channel."""


def plateau_by_lambda(
    smallest: Sequence[float], *, images: int, draws: int, batch_size: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """Predict and measure where the as-published R1 stops growing, for grids that begin at another λ.

    Parameters
    ----------
    smallest : sequence of float
        λ_min of each grid, see `lambda_grid`; the default grid's must be among them.
    images, draws, batch_size, rng
        As for `one_at_a_time`.

    Returns
    -------
    pandas.DataFrame
        A row a row of Table 1 and λ_min: predicted, ‖ĥ‖²/λ_min from clean images alone with σ as chosen with the
        default grid; measured, mean R1 against images in which a coin flip of ±1 moves every pixel.
    """
    default = min(DEFAULT_GRID)
    at_default = np.isclose(smallest, default)
    if not at_default.any():
        raise ValueError(f"smallest must hold the default grid's {default:g}, but is {list(smallest)}")
    found = []
    for row, (image_set, channel) in track(PLATEAU_ROWS.items(), "plateaus", len(PLATEAU_ROWS)):
        clean = vs22.flat(test_images(image_set, images)[0][:, channel])
        moved = clean + rng.choice(np.float32([-1, 1]), clean.shape)
        a, b = (draw_indices(len(clean), draws, batch_size, rng) for _ in range(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GridEdgeWarning)
            fits = [
                fit_batch_indices(clean, moved, a, b, kernel=AS_PUBLISHED.kernel, lambdas=lambda_grid(lambda_))
                for lambda_ in smallest
            ]
        sigma = float(np.median(fits[int(at_default.argmax())].sigma_))
        # ‖ĥ‖², which the clean images and σ fix.
        height = np.mean([disjoint_mean_ratio(clean[i], sigma, 1.0, AS_PUBLISHED.kernel) for i in a])
        found += [
            {"row": row, "smallest λ": lambda_, "predicted": height / lambda_, "measured": fit.mean_ratio_.mean()}
            for lambda_, fit in zip(smallest, fits, strict=True)
        ]
    return pandas.DataFrame(found)


def plateau_table(plateaus: pandas.DataFrame) -> pandas.DataFrame:
    """Show `plateau_by_lambda`, rounded, for the default, the finest and the coarsest grid, and what is printed.

    Parameters
    ----------
    plateaus : pandas.DataFrame
        From `plateau_by_lambda`.
    """
    ours = plateaus.pivot(index="row", columns="smallest λ", values=["predicted", "measured"]).loc[list(PLATEAU_ROWS)]
    finest, *_, coarsest = sizes = ours.columns.unique("smallest λ")
    default = min(sizes, key=lambda size: abs(size - min(DEFAULT_GRID)))
    shown = {f"{kind}, λ from {size:g}": ours[kind, size] for size in (default, finest, coarsest)
             for kind in ("predicted", "measured")}  # fmt: skip
    table = pandas.DataFrame(shown)
    table.insert(2, "printed at ε = 1", [g17.printed_r1(row, 1.0) for row in table.index])
    return table.round().astype(int).rename_axis(None).T


# ---------------------------------------------------------------------------------------------- FGSM's direction


def directions(networks: Sequence[str], epsilon: float, *, images: int) -> pandas.DataFrame:
    """Show what float32 does to FGSM's direction, network by network, on images that the network has not seen.

    Parameters
    ----------
    networks : sequence of str
    epsilon : float
        At which the accuracies are compared, clipped to [0, 1].
    images : int
        Held-out images of each, 0 for all.

    Returns
    -------
    pandas.DataFrame
        Shares from 0 to 1: pixels whose float32 gradient is exactly zero; images whose softmax rounds to 1 for the
        true class; pixels whose direction differs from the exact one among those that the exact one moves; accuracy
        after FGSM along either direction.
    """
    rows = {}
    for name in track(networks, "directions"):
        real, labels = held_out(name, images)
        model = models.load_trained(name)
        found, exact = attacks.gradient_signs(model, real, labels), vs22.margin_signs(model, real, labels)
        float32, logits = (
            models.accuracy(model, (real + np.float32(epsilon) * signs).clip(0, 1), labels) for signs in (found, exact)
        )
        rows[name] = {
            "zero pixels": float((found == 0).mean()),
            "saturated images": saturated_share(model, real, labels),
            "wrong direction": float((found != exact)[exact != 0].mean()),
            "accuracy, float32": float32,
            "accuracy, exact": logits,
        }
    return pandas.DataFrame.from_dict(rows, orient="index")


def saturated_share(model: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose float32 softmax is exactly 1 for the true class."""
    logits = as_tensor(models.logits(model, images)).float()
    own = logits.softmax(1).gather(1, as_tensor(labels)[:, None])
    return float((own == 1).double().mean())


# ---------------------------------------------------------------------------------------------- printed intervals

_DRAWS = 100  # behind each printed interval


def _half(entry: published.Published) -> float:
    return (entry.high - entry.low) / 2


def pooled_intervals() -> pandas.DataFrame:
    """Compare the printed intervals of the combined rows with what their channels' rows allow.

    From a channel's mean and 95 % interval over 100 draws follows its standard deviation s_c. The combined row could be
    the mean of a draw's three channels: its half-width is then between that of independent channels and that of
    channels that go together entirely. Or all 300 ratios were thrown into one pot: then

        s² = mean of s_c² + variance of the three means,   half-width = t(299) s / √300.

    Returns
    -------
    pandas.DataFrame
        Half-widths: printed (half of the printed interval), pooled, independent, together; and the correlation of
        the channels with which the mean of three would have the printed one. A row for each printed R1 of the combined
        estimate in Tables 1 and 2.
    """
    rows = []
    for entry in published.load("g17"):
        if entry.row != COMBINED or not entry.column.startswith("R1"):
            continue
        channels = [
            published.lookup("g17", entry.item, f"CIFAR-10 ({name})", entry.column) for name in ("red", "green", "blue")
        ]
        halves = np.array([_half(channel) for channel in channels])
        deviations = halves * np.sqrt(_DRAWS) / stats.t.ppf(0.975, _DRAWS - 1)
        spread = np.sqrt((deviations**2).mean() + np.var([channel.value for channel in channels]))
        pooled = stats.t.ppf(0.975, 3 * _DRAWS - 1) * spread / np.sqrt(3 * _DRAWS)
        printed, independent, together = _half(entry), np.sqrt((halves**2).sum()) / 3, halves.mean()
        correlation = (printed**2 - independent**2) / (together**2 - independent**2)
        rows.append((entry.item, entry.column, printed, pooled, independent, together, correlation))
    columns = ["item", "column", "printed", "pooled", "independent", "together", "correlation"]
    return pandas.DataFrame(rows, columns=columns).set_index(columns[:2])


def real_real_across_tables() -> pandas.DataFrame:
    """Compare MNIST's printed R2 in Tables 1 and 2: same data, same m and t, no attack in it.

    Returns
    -------
    pandas.DataFrame
        For each R2 of Table 2, its value, the mean of Table 1's four, their difference in standard errors (from the
        printed intervals), and the two-sided p-value of so large a difference.
    """
    first, second = (
        [entry for entry in published.load("g17", item) if entry.row == "MNIST" and entry.column.startswith("R2")]
        for item in ("Table 1", "Table 2")
    )
    quantile = stats.t.ppf(0.975, _DRAWS - 1)
    # The four are means over the same images and perhaps the same draws: one error counts, not half of it.
    mean, error = np.mean([entry.value for entry in first]), np.mean([_half(entry) for entry in first]) / quantile
    table = pandas.DataFrame({"row": [e.column for e in second], "Table 2": [e.value for e in second], "Table 1": mean})
    errors = np.hypot(error, [_half(entry) / quantile for entry in second])
    table["standard errors apart"] = (mean - table["Table 2"]) / errors
    table["p"] = 2 * stats.norm.sf(table["standard errors apart"].abs())
    return table.set_index("row")


# ---------------------------------------------------------------------------------------------- causes and record


def numbers(found: pandas.DataFrame, plateaus: pandas.DataFrame, directed: pandas.DataFrame) -> dict[str, Any]:
    """Give what the texts of G17's causes name in curly brackets.

    Parameters
    ----------
    found : pandas.DataFrame
        From `one_at_a_time`, over `VARIANTS`.
    plateaus, directed : pandas.DataFrame
        From `plateau_by_lambda` and `directions`.
    """
    means = by_epsilon(found).drop(columns=0.0)
    second, largest = means.columns[1], means.columns[-1]
    mnist = plateaus[plateaus["row"] == "MNIST"]
    default = mnist.loc[(mnist["smallest λ"] - min(DEFAULT_GRID)).abs().idxmin()]
    half_widths = pooled_intervals()
    off = {name: (half_widths["printed"] - half_widths[name]).abs().max() for name in ("pooled", "independent")}
    return {
        "sizes": (second, largest),
        "second": means[second].map(short),
        "largest": means[largest].map(short),
        "clipped": short(means.loc["clipped to [0, 1]", second]),  # no key of a text, for its brackets
        "plateau": default,
        "printed": g17.printed_r1("MNIST", second),
        "worst": directed.loc[directed["wrong direction"].idxmax()],
        "off": off,
        "correlation": half_widths["correlation"].agg(["min", "max"]),
        "across": real_real_across_tables().agg(["min", "max"]),
    }


def record_g17(run: Any, found: pandas.DataFrame, plateaus: pandas.DataFrame, directed: pandas.DataFrame) -> None:
    """Put every number behind G17's causes into a run's record; arguments as for `numbers`."""
    for variant, means in by_epsilon(found).iterrows():
        for epsilon, mean in means.items():
            run.metric(f"g17.{variant}.r1 eps={epsilon:g}" if epsilon else f"g17.{variant}.r2", mean)
    for row, plateau in plateaus.groupby("row", sort=False):
        for name in ("predicted", "measured"):
            run.metric(f"plateau.{row}.{name}", plateau[name].tolist())
    for network, row in directed.iterrows():
        for column, value in row.items():
            run.metric(f"direction.{network}.{column}", value)
