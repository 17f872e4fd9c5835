"""Why the published numbers are what they are: one cause at a time, each with its effect in numbers.

G17: a rerun of Table 1's MNIST row from which one thing at a time is changed (`one_at_a_time`), the plateau at any λ
grid (`plateau_by_lambda`), the direction of FGSM where the softmax is saturated (`directions`), and what the printed
intervals say about themselves (`pooled_intervals`, `real_real_across_tables`).

VS22 has a module of its own, `advlib.forensics_vs22`; the type of a cause is here.

References
----------
G17: L. Gondara, arXiv:1705.02224 (2017).
T. Kanamori, S. Hido and M. Sugiyama, JMLR 10 (2009) 1391–1445, for uLSIF and its leave-one-out error.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from advlib import attacks, models
from advlib.models import as_tensor
from advlib.progress import track
from advlib.ulsif import DEFAULT_GRID, BatchFit, GridEdgeWarning, fit_batch_indices
from compendium.claims import published
from compendium.common import vs22
from compendium.common.g17 import AS_PUBLISHED, CORRECTED, all_and_attacked, test_images
from compendium.common.protocol import disjoint_mean_ratio, draw_indices, mean_ratios

CERTAIN, LIKELY, OPEN = "certain", "likely", "open"


@dataclass(frozen=True)
class Cause:
    """One cause of a published number.

    Attributes
    ----------
    paper, cause, change : str
        Whose number, what lies behind it, and what was changed to see that.
    effect : str
        In numbers.
    evidence : str
        What shows it, or what speaks against it.
    sure : str
        `CERTAIN`, `LIKELY` or `OPEN`.
    """

    paper: str
    cause: str
    change: str
    effect: str
    evidence: str
    sure: str


def causes_frame(causes: Sequence[Cause]) -> pandas.DataFrame:
    """Show causes as a table, a line each."""
    return pandas.DataFrame([vars(cause) for cause in causes]).set_index(["paper", "cause"])


# ---------------------------------------------------------------------------------------------- G17: one at a time


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
VARIANTS = (
    BASE,
    replace(BASE, name="squared distance in the kernel", kernel="gaussian"),
    replace(BASE, name="clipped to [0, 1]", clip=(0.0, 1.0)),
    replace(BASE, name="mean over the denominator", over="denominator"),
    replace(BASE, name="λ grid from 0.01", lambdas=lambda_grid(1e-2)),
    replace(BASE, name="λ grid from 0.0001", lambdas=lambda_grid(1e-4)),
    replace(BASE, name="densratio's leave-one-out", selection="densratio"),
    replace(BASE, name="VS22's network", network=CORRECTED.networks["mnist"]),
    replace(BASE, name="VS22's network, exact direction", network=CORRECTED.networks["mnist"], direction="exact"),
    Variant("corrected", CORRECTED.kernel, CORRECTED.clip, network=CORRECTED.networks["mnist"]),
)


@dataclass(frozen=True, eq=False)
class VariantResult:
    """Mean ratios of one variant.

    Attributes
    ----------
    variant : Variant
    epsilons : tuple of float
    r1 : (n, t) float64
        Mean ratio of each draw at each ε, clean against attacked.
    r2 : (t,) float64
        Clean against clean, same draws.
    sigmas, lambdas : (n + 1, t) float64
        Chosen at each ε; the last row belongs to R2.
    """

    variant: Variant
    epsilons: tuple[float, ...]
    r1: np.ndarray = field(repr=False)
    r2: np.ndarray = field(repr=False)
    sigmas: np.ndarray = field(repr=False)
    lambdas: np.ndarray = field(repr=False)

    @property
    def means(self) -> np.ndarray:
        """Mean R1 at each ε, (n,)."""
        return self.r1.mean(1)

    @property
    def usual_lambdas(self) -> np.ndarray:
        """Median λ at each ε, (n,)."""
        return np.median(self.lambdas[:-1], axis=1)


def one_at_a_time(
    epsilons: Sequence[float],
    *,
    images: int,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
    variants: Sequence[Variant] = VARIANTS,
) -> list[VariantResult]:
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
    """
    everything, real, labels = all_and_attacked("mnist", images)
    a = draw_indices(len(everything), draws, batch_size, rng)
    b = draw_indices(len(real), draws, batch_size, rng)
    clean = _rows(everything)
    found, signs = [], {}
    for variant in track(variants, "one cause at a time"):
        key = variant.network, variant.direction
        if key not in signs:
            model = models.load_trained(variant.network)
            find = vs22.margin_signs if variant.direction == "exact" else attacks.gradient_signs
            signs[key] = find(model, real, labels)
        values = []
        for epsilon in (*epsilons, 0.0):
            moved = real + np.float32(epsilon) * signs[key]
            moved = _rows(moved if variant.clip is None else moved.clip(*variant.clip))
            values.append(_ratios(variant, clean, moved, a, b))
        ratios, sigmas, lambdas = (np.array(part) for part in zip(*values, strict=True))
        found.append(VariantResult(variant, tuple(epsilons), ratios[:-1], ratios[-1], sigmas, lambdas))
    return found


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _ratios(
    variant: Variant, clean: np.ndarray, moved: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean ratio, σ and λ of each draw, (t,) each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridEdgeWarning)
        if variant.selection == "exact":
            fit = fit_batch_indices(clean, moved, a, b, kernel=variant.kernel, lambdas=variant.lambdas)
            means = (
                fit.mean_ratio_ if variant.over == "numerator" else _over_denominator(fit, variant, clean, moved, a, b)
            )
            return means, fit.sigma_, fit.lambda_
        means, sigmas, lambdas = [], [], []
        for rows, others in zip(a, b, strict=True):
            scores = densratio_scores(clean[rows], moved[others], DEFAULT_GRID, variant.lambdas, variant.kernel)
            i, j = np.unravel_index(scores.argmin(), scores.shape)
            sigmas.append(DEFAULT_GRID[i])
            lambdas.append(variant.lambdas[j])
            chosen = {"sigmas": sigmas[-1], "lambdas": lambdas[-1], "kernel": variant.kernel}
            means.append(float(mean_ratios(clean, moved, rows[None], others[None], **chosen)[0]))
        return np.array(means), np.array(sigmas), np.array(lambdas)


def _over_denominator(
    fit: BatchFit, variant: Variant, clean: np.ndarray, moved: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    means = []
    for t, (rows, others) in enumerate(zip(a, b, strict=True)):
        centres = clean[rows][fit.center_indices_]
        means.append(
            float((kernel_values(moved[others], centres, fit.sigma_[t], variant.kernel) @ fit.theta_[t]).mean())
        )
    return np.array(means)


def kernel_values(points: np.ndarray, centres: np.ndarray, sigma: float, kernel: str) -> np.ndarray:
    """Kernel matrix (n, b), by its definition.

    Parameters
    ----------
    points, centres : (n, d), (b, d) float array
    sigma : float
    kernel : str
        "gaussian" or "unsquared".
    """
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


def same_choice(first: VariantResult, second: VariantResult) -> float:
    """Share of fits (all ε and R2) in which two variants chose the same σ and λ."""
    return float(np.mean(np.isclose(first.sigmas, second.sigmas) & np.isclose(first.lambdas, second.lambdas)))


def variants_frame(found: Sequence[VariantResult]) -> pandas.DataFrame:
    """Show `one_at_a_time` as a table: R1 at every ε (with the λ chosen most), R2, beside the printed row."""
    epsilons = found[0].epsilons
    lines = [
        {"variant": "printed"}
        | {f"R1, ε = {e:g}": f"{published.value('g17', 'Table 1', 'MNIST', f'R1 eps={e:g}'):.2f}" for e in epsilons}
        | {"R2": f"{published.value('g17', 'Table 1', 'MNIST', 'R2 eps=0.1'):.2f}"}
    ]
    for result in found:
        line = {"variant": result.variant.name}
        for epsilon, mean, lambda_ in zip(epsilons, result.means, result.usual_lambdas, strict=True):
            line[f"R1, ε = {epsilon:g}"] = f"{mean:.2f} (λ {lambda_:.1g})"
        lines.append(line | {"R2": f"{result.r2.mean():.2f}"})
    return pandas.DataFrame(lines).set_index("variant")


# ---------------------------------------------------------------------------------------------- G17: plateau

PLATEAU_ROWS = {
    "MNIST": ("mnist", 0),
    "CIFAR-10 (grey)": ("cifar10-grey", 0),
    "CIFAR-10 (red)": ("cifar10", 0),
    "CIFAR-10 (green)": ("cifar10", 1),
    "CIFAR-10 (blue)": ("cifar10", 2),
}


@dataclass(frozen=True)
class PlateauByLambda:
    """One row of Table 1 at several λ grids.

    Attributes
    ----------
    row : str
    smallest : (g,) float64
        λ_min of each grid.
    predicted : (g,) float64
        ‖ĥ‖²/λ_min from clean images alone, σ as chosen with the default grid.
    measured : (g,) float64
        Mean R1 against images in which a coin flip of ±1 moves every pixel.
    sigmas : (g,) float64
        σ chosen most.
    """

    row: str
    smallest: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray
    sigmas: np.ndarray


def plateau_by_lambda(
    smallest: Sequence[float], *, images: int, draws: int, batch_size: int, rng: np.random.Generator
) -> list[PlateauByLambda]:
    """Predict and measure where the as-published R1 stops growing, for grids that begin at another λ.

    Parameters
    ----------
    smallest : sequence of float
        λ_min of each grid, see `lambda_grid`; the default grid's must be among them.
    images, draws, batch_size, rng
        As for `one_at_a_time`.
    """
    default = min(DEFAULT_GRID)
    if not np.isclose(smallest, default).any():
        raise ValueError(f"smallest must hold the default grid's {default:g}, but is {list(smallest)}")
    found = []
    for row, (image_set, channel) in track(PLATEAU_ROWS.items(), "plateaus", len(PLATEAU_ROWS)):
        real, _ = test_images(image_set, images)
        clean = real[:, channel].reshape(len(real), -1)
        moved = clean + rng.choice(np.float32([-1, 1]), clean.shape)
        a, b = (draw_indices(len(clean), draws, batch_size, rng) for _ in range(2))
        measured, sigmas = [], []
        for lambda_ in smallest:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GridEdgeWarning)
                fit = fit_batch_indices(clean, moved, a, b, kernel=AS_PUBLISHED.kernel, lambdas=lambda_grid(lambda_))
            measured.append(fit.mean_ratio_.mean())
            sigmas.append(float(np.median(fit.sigma_)))
        sigma = sigmas[int(np.argmin(np.abs(np.subtract(smallest, default))))]
        # ‖ĥ‖², which the clean images and σ fix.
        height = np.mean([disjoint_mean_ratio(clean[i], sigma, 1.0, AS_PUBLISHED.kernel) for i in a])
        lambdas = np.array(smallest, float)
        found.append(PlateauByLambda(row, lambdas, height / lambdas, np.array(measured), np.array(sigmas)))
    return found


# ---------------------------------------------------------------------------------------------- G17: FGSM's direction


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
    lines = []
    for name in track(networks, "directions"):
        held = models.partition(name)
        part = evenly(len(held.holdout_images), images)
        real, labels = held.holdout_images[part], held.holdout_labels[part]
        model = models.load_trained(name)
        in_float32, exact = attacks.gradient_signs(model, real, labels), vs22.margin_signs(model, real, labels)
        lines.append({
            "network": name,
            "zero pixels": float((in_float32 == 0).mean()),
            "saturated images": saturated_share(model, real, labels),
            "wrong direction": float((in_float32 != exact)[exact != 0].mean()),
            "zero pixels, exact": float((exact == 0).mean()),
            "accuracy": models.accuracy(model, real, labels),
            "accuracy, float32": _accuracy_along(model, real, labels, in_float32, epsilon),
            "accuracy, exact": _accuracy_along(model, real, labels, exact, epsilon),
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index("network")


def evenly(n: int, count: int) -> np.ndarray:
    """Take `count` (0 or more than there are: all) of n at even steps."""
    count = min(count or n, n)
    return np.arange(count) * n // count


def saturated_share(model: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose float32 softmax is exactly 1 for the true class."""
    logits = as_tensor(models.logits(model, images)).float()
    own = logits.softmax(1).gather(1, as_tensor(labels)[:, None])
    return float((own == 1).double().mean())


def _accuracy_along(
    model: torch.nn.Module, images: np.ndarray, labels: np.ndarray, signs: np.ndarray, epsilon: float
) -> float:
    return models.accuracy(model, (images + np.float32(epsilon) * signs).clip(0, 1), labels)


# ---------------------------------------------------------------------------------------------- G17: printed facts


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
        the channels with which the mean of three would have the printed one. A row for each printed R1 and R2 of the
        combined estimate in Tables 1 and 2.
    """
    draws = 100
    lines = []
    for entry in published.load("g17"):
        if entry.row != "CIFAR-10 (combined)":
            continue
        channels = [
            published.lookup("g17", entry.item, f"CIFAR-10 ({name})", entry.column) for name in ("red", "green", "blue")
        ]
        halves = np.array([(channel.high - channel.low) / 2 for channel in channels])
        deviations = halves * np.sqrt(draws) / stats.t.ppf(0.975, draws - 1)
        spread = np.sqrt((deviations**2).mean() + np.var([channel.value for channel in channels]))
        printed, independent, together = (entry.high - entry.low) / 2, np.sqrt((halves**2).sum()) / 3, halves.mean()
        lines.append({
            "item": entry.item,
            "column": entry.column,
            "printed": printed,
            "pooled": stats.t.ppf(0.975, 3 * draws - 1) * spread / np.sqrt(3 * draws),
            "independent": independent,
            "together": together,
            "correlation": (printed**2 - independent**2) / (together**2 - independent**2),
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["item", "column"])


def real_real_across_tables() -> pandas.DataFrame:
    """Compare MNIST's printed R2 in Tables 1 and 2: same data, same m and t, no attack in it.

    Returns
    -------
    pandas.DataFrame
        For each R2 of Table 2, its value, the mean of Table 1's four, their difference in standard errors (from the
        printed intervals), and the two-sided p-value of so large a difference.
    """
    first = [entry for entry in published.load("g17", "Table 1") if entry.row == "MNIST" and entry.column[:2] == "R2"]
    second = [entry for entry in published.load("g17", "Table 2") if entry.row == "MNIST" and entry.column[:2] == "R2"]
    quantile = stats.t.ppf(0.975, 99)

    def error(entry: published.Published) -> float:
        return (entry.high - entry.low) / 2 / quantile

    # The four are means over the same images and perhaps the same draws: one error counts, not half of it.
    mean, own = np.mean([entry.value for entry in first]), np.mean([error(entry) for entry in first])
    lines = []
    for entry in second:
        z = (mean - entry.value) / np.hypot(own, error(entry))
        lines.append({
            "row": entry.column,
            "Table 2": entry.value,
            "Table 1": mean,
            "standard errors apart": z,
            "p": 2 * stats.norm.sf(abs(z)),
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index("row")


# ---------------------------------------------------------------------------------------------- causes and record


def g17_causes(
    found: Sequence[VariantResult], plateaus: Sequence[PlateauByLambda], directed: pandas.DataFrame
) -> list[Cause]:
    """Put G17's causes into words, each with its effect as measured.

    Parameters
    ----------
    found : sequence of VariantResult
        From `one_at_a_time`, over `VARIANTS`.
    plateaus : sequence of PlateauByLambda
    directed : pandas.DataFrame
        From `directions`.
    """
    by = {result.variant.name: result for result in found}
    base, last = by[BASE.name], len(found[0].epsilons) - 1
    sizes = found[0].epsilons

    def at(name: str, index: int) -> str:
        return f"R1 at ε = {sizes[index]:g}: {_plain(base.means[index])} → {_plain(by[name].means[index])}"

    first = next(plateau for plateau in plateaus if plateau.row == "MNIST")
    default = int(np.argmin(np.abs(first.smallest - min(DEFAULT_GRID))))
    pooled, across = pooled_intervals(), real_real_across_tables()
    needed = pooled["correlation"][pooled.index.get_level_values("column").str.startswith("R1")]
    return [
        Cause(
            "G17",
            "distance not squared in the kernel",
            "Gaussian kernel",
            at("squared distance in the kernel", last),
            "both densratio packages until May 2019; only this kernel has the printed plateaus",
            CERTAIN,
        ),
        Cause(
            "G17",
            "FGSM not clipped",
            "clip to [0, 1]",
            at("clipped to [0, 1]", 1),
            "CleverHans of May 2017 clips only if asked; clipped, R1 at ε ≤ 0.5 lies far below the printed values",
            LIKELY,
        ),
        Cause(
            "G17",
            "mean over the numerator",
            "mean over the denominator",
            at("mean over the denominator", last),
            "over the denominator no ratio comes near the printed ones at any ε ≥ 0.3",
            CERTAIN,
        ),
        Cause(
            "G17",
            "plateau ‖ĥ‖²/λ_min",
            "another smallest λ",
            f"MNIST: {first.predicted[default]:.1f} predicted, {first.measured[default]:.1f} measured; with λ_min ten "
            f"times smaller {by['λ grid from 0.0001'].means[last]:.0f}",
            "Ĥ = 0 gives θ = ĥ/λ; predicted from clean images alone for five rows",
            CERTAIN,
        ),
        Cause(
            "G17",
            "R1 rises in steps of the λ grid",
            "which λ is chosen",
            "; ".join(
                f"ε = {epsilon:g}: λ {lambda_:.1g}, R1 {mean:.3g}"
                for epsilon, lambda_, mean in zip(sizes, base.usual_lambdas, base.means, strict=True)
            ),
            f"median σ {', '.join(f'{v:g}' for v in np.median(base.sigmas[:-1], axis=1))}: leave-one-out picks another "
            "pair (σ, λ) of the grid, of which λ falls",
            CERTAIN,
        ),
        Cause(
            "G17",
            "densratio's leave-one-out forgets a division",
            "the package's score",
            f"same σ and λ in {same_choice(base, by[DEFECT]):.0%} of the fits; " + at(DEFECT, 1),
            "equal to the package's own choice in a test; too small an effect to matter here",
            CERTAIN,
        ),
        Cause(
            "G17",
            "unknown network",
            "VS22's network instead of CleverHans' tutorial's",
            at("VS22's network", 1),
            f"printed {published.value('g17', 'Table 1', 'MNIST', 'R1 eps=0.3'):.2f}; "
            "pixels without gradient do not move, and notebook 02 reads the paper's share of them off R1",
            OPEN,
        ),
        Cause(
            "G17",
            "float32 loses FGSM's direction",
            "direction from logits",
            f"{at_exact(by, 1)}; worst network: {directed['wrong direction'].max():.0%} of pixels go the wrong way, "
            f"accuracy {directed.loc[directed['wrong direction'].idxmax(), 'accuracy, float32']:.2f} → "
            f"{directed.loc[directed['wrong direction'].idxmax(), 'accuracy, exact']:.2f}",
            "softmax rounds to 1 where the logits lead by about 17; both papers' tools compute so",
            CERTAIN,
        ),
        Cause(
            "G17",
            "combined intervals pool 300 ratios",
            "arithmetic on the printed intervals",
            f"R1 half-widths, largest deviation from pooled: {_worst(pooled):.3f}, from independent channels: "
            f"{_worst(pooled, 'independent'):.3f}",
            "the pooled formula gives every printed R1 interval without a free number; means of three channels would "
            f"need a correlation of its own in each row, {needed.min():.2f} to {needed.max():.2f}",
            LIKELY,
        ),
        Cause(
            "G17",
            "MNIST's R2 differs between Tables 1 and 2",
            "arithmetic on the printed intervals",
            f"{across['Table 1'].iloc[0]:.2f} against {across['Table 2'].min():.2f} to {across['Table 2'].max():.2f}, "
            f"{across['standard errors apart'].min():.1f} to {across['standard errors apart'].max():.1f} standard "
            "errors apart",
            "R2 knows no attack, so same images and m must give the same; a smaller pool of images would lower it "
            "(notebook 04); the paper does not say",
            LIKELY,
        ),
    ]


DEFECT = "densratio's leave-one-out"


def at_exact(by: Mapping[str, VariantResult], index: int) -> str:
    """R1 of VS22's network with float32's direction and with the exact one."""
    name = "VS22's network"
    epsilon = by[name].epsilons[index]
    exact = by[f"{name}, exact direction"]
    return f"R1 at ε = {epsilon:g}: {_plain(by[name].means[index])} → {_plain(exact.means[index])}"


def _plain(value: float) -> str:
    """Write a number with three digits and no power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3f}" if value < 0.1 else f"{value:.3g}"


def _worst(pooled: pandas.DataFrame, column: str = "pooled") -> float:
    """Largest difference between printed and computed half-width over the R1 rows."""
    rows = pooled[pooled.index.get_level_values("column").str.startswith("R1")]
    return float((rows["printed"] - rows[column]).abs().max())


def record_g17(
    run: Any, found: Sequence[VariantResult], plateaus: Sequence[PlateauByLambda], directed: pandas.DataFrame
) -> None:
    """Put every number behind G17's causes into a run's record.

    Parameters
    ----------
    run : advlib.record.Run
    found, plateaus, directed
        As for `g17_causes`.
    """
    for result in found:
        for epsilon, mean in zip(result.epsilons, result.means, strict=True):
            run.metric(f"g17.{result.variant.name}.r1 eps={epsilon:g}", mean)
        run.metric(f"g17.{result.variant.name}.r2", result.r2.mean())
    for plateau in plateaus:
        run.metric(f"plateau.{plateau.row}.predicted", plateau.predicted)
        run.metric(f"plateau.{plateau.row}.measured", plateau.measured)
    for name, row in directed.iterrows():
        for column in ("zero pixels", "saturated images", "wrong direction", "accuracy, float32", "accuracy, exact"):
            run.metric(f"direction.{name}.{column}", row[column])
