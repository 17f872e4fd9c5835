"""Why the published numbers are what they are: one cause at a time, each with its effect in numbers.

G17: a rerun of Table 1's MNIST row from which one thing at a time is changed (`one_at_a_time`), the plateau at any λ
grid (`plateau_by_lambda`), the direction of FGSM where the softmax is saturated (`directions`), and what the printed
intervals say about themselves (`pooled_intervals`, `real_real_across_tables`).

VS22: normalisation done twice (`normalised_twice`), its bounds without any gradient (`bounds_alone`), coverage by
closed form (`coverage_by_size`), and what moves a clean hold-out off it (`shifts`, `other_sources`).

References
----------
G17: L. Gondara, arXiv:1705.02224 (2017). VS22: D. K. Venkatesh, P. Steinbach, arXiv:2206.08738 (2022).
T. Kanamori, S. Hido and M. Sugiyama, JMLR 10 (2009) 1391–1445, for uLSIF and its leave-one-out error.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from advlib import attacks, datasets, models, published, vs22
from advlib.g17 import AS_PUBLISHED, CORRECTED, all_and_attacked, test_images
from advlib.models import as_tensor
from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from advlib.protocol import disjoint_mean_ratio, draw_indices, mean_ratios
from advlib.ulsif import DEFAULT_GRID, BatchFit, GridEdgeWarning, fit_batch_indices

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
        part = _evenly(len(held.holdout_images), images)
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


def _evenly(n: int, count: int) -> np.ndarray:
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


# ---------------------------------------------------------------------------------------------- VS22: normalised twice


def normalised_twice(names: Sequence[str], *, images: int) -> pandas.DataFrame:
    """Accuracy of our networks on hold-outs that are normalised on load and once more by the network; no attack.

    Parameters
    ----------
    names : sequence of str
        Keys of `vs22.SETS`.
    images : int
        Held-out images, 0 for all.

    Returns
    -------
    pandas.DataFrame
        Shares from 0 to 1: read rightly when normalised once, twice, and twice with the bounds (0, 1) between; the
        same from the authors' stored results at ε = 0 where there are any, and the paper's accuracy.
    """
    lines = []
    for name in track(names, "normalised twice"):
        chosen = vs22.image_set(name)
        held = models.partition(chosen.network)
        part = _evenly(len(held.holdout_images), images)
        real, labels = held.holdout_images[part], held.holdout_labels[part]
        model = vs22.network(chosen)
        again = vs22.AS_PUBLISHED.to_attack(chosen, real)
        lines.append({
            "image set": chosen.title,
            "once": models.accuracy(model, real, labels),
            "twice": models.accuracy(model, again, labels),
            "twice, cut to (0, 1)": models.accuracy(model, again.clip(0, 1), labels),
            "stored by the authors": _stored_accuracy(chosen.title),
            "printed": published.value("vs22", "§5", chosen.title, "accuracy (%)") / 100 if chosen.in_paper else None,
        })  # fmt: skip
    return pandas.DataFrame(lines).set_index("image set")


def normalisations(rng: np.random.Generator) -> pandas.DataFrame:
    """Ask what OrganMNIST was normalised by: the published program without its gradient, against its stored densities.

    The sign of each pixel's step is a coin flip, so no network is in it. The bounds (0, 1) of normalised images are
    pixels from μ to μ + σ, so the curve over ε depends on μ and σ alone. References and hold-out are whole, because
    the density of moved images depends on how dense the reference is.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of the coins, the same for every normalisation.

    Returns
    -------
    pandas.DataFrame
        Density at each ε that is stored, for three normalisations and as stored, and the largest deviation from the
        stored densities up to where the steps are those of noise (ε < 1), as a share of them.
    """
    chosen = vs22.image_set("organamnist")
    sizes = [epsilon for epsilon in vs22.EPSILONS if _stored_density(chosen.title, epsilon) is not None]
    stored = np.array([_stored_density(chosen.title, epsilon) for epsilon in sizes])
    split = vs22.reference_and_holdout(chosen.name)
    manifold = ReferenceManifold(vs22.K).fit(_rows(split.reference))
    seed = int(rng.integers(2**63))
    constants = {
        "0.5 and 0.5, as in MedMNIST's examples": ((0.5,), (0.5,)),
        "MNIST's, 0.1307 and 0.3081": (vs22.image_set("mnist").mean, vs22.image_set("mnist").std),
        f"its own, {chosen.mean[0]:g} and {chosen.std[0]:g}": (chosen.mean, chosen.std),
    }
    lines = []
    for name, (mean, std) in constants.items():
        coins = vs22.noise_sweep(
            split.images, sizes, np.random.default_rng(seed), vs22.AS_PUBLISHED, replace(chosen, mean=mean, std=std)
        )
        density = np.array([manifold.density(_rows(images)) for images in track(coins, name, len(sizes))])
        below = np.array(sizes) < 1
        lines.append([name, *density, np.abs(density / stored - 1)[below].max()])
    lines.append(["stored by the authors", *stored, np.nan])
    columns = ["normalised by", *(f"ε = {epsilon:.3f}" for epsilon in sizes), "off by up to"]
    return pandas.DataFrame(lines, columns=columns).set_index("normalised by")


def _stored_density(title: str, epsilon: float) -> float | None:
    try:
        return published.value("vs22", "stored results", title, f"adversarial density eps={round(epsilon, 3):g}")
    except published.NotPublishedError:
        return None


def _stored_accuracy(title: str) -> float | None:
    try:
        return published.value("vs22", "stored results", title, "robust accuracy (%) eps=0") / 100
    except published.NotPublishedError:
        return None


@dataclass(frozen=True)
class BoundsCurve:
    """Density and coverage over ε, with and without an attack.

    Attributes
    ----------
    epsilons : (n,) float64
    density, coverage : dict
        What was done → (n,) float64.
    expected : float
        Coverage of the untouched hold-out in the mean.
    kink : float
        μ/σ: the ε at which a black pixel has reached the lower bound.
    """

    epsilons: np.ndarray
    density: dict[str, np.ndarray]
    coverage: dict[str, np.ndarray]
    expected: float
    kink: float


def bounds_alone(
    name: str, epsilons: Sequence[float], *, references: int, queries: int, rng: np.random.Generator
) -> BoundsCurve:
    """Take the attack out of the published attack, and leave its misplaced bounds.

    A pixel that starts outside the bounds is pushed towards them by up to ε whatever the gradient says. Here it is set
    to zero, so no network is asked.

    Parameters
    ----------
    name : str
        Key of `vs22.SETS`.
    epsilons : sequence of float
        In the published attack's units, multiples of σ.
    references, queries : int
    rng : numpy.random.Generator
        Draws both.
    """
    chosen = vs22.image_set(name)
    split = vs22.reference_and_holdout(name, references, queries, rng)
    manifold = ReferenceManifold(vs22.K).fit(_rows(split.reference))
    model = vs22.network(chosen)
    start = vs22.AS_PUBLISHED.to_attack(chosen, split.images)

    def bounds(epsilon: float) -> np.ndarray:
        step = np.float32(epsilon)
        return vs22.AS_PUBLISHED.to_pixels(chosen, start + np.clip(np.clip(start, 0, 1) - start, -step, step))

    curves = {
        "as published": [
            batch.images
            for batch in vs22.fgsm_sweep(vs22.AS_PUBLISHED, chosen, model, split.images, split.labels, epsilons)
        ],
        "its bounds alone, no gradient": [bounds(epsilon) for epsilon in epsilons],
        "corrected": [
            batch.images
            for batch in vs22.fgsm_sweep(vs22.CORRECTED, chosen, model, split.images, split.labels, epsilons)
        ],
    }
    scores = {
        title: np.array(
            [manifold.density_coverage(_rows(images)) for images in track(moved, f"{chosen.title}, {title}")]
        )
        for title, moved in curves.items()
    }
    return BoundsCurve(
        np.array(epsilons, float),
        {title: score[:, 0] for title, score in scores.items()},
        {title: score[:, 1] for title, score in scores.items()},
        expected_coverage(len(split.reference), len(split.images), vs22.K),
        chosen.kink,
    )


# ---------------------------------------------------------------------------------------------- VS22: coverage


def coverage_by_size() -> pandas.DataFrame:
    """Give the mean coverage of an exchangeable hold-out for the authors' sizes, beside what they print.

    Returns
    -------
    pandas.DataFrame
        Reference images, queries, expected coverage at k = 5, printed coverage and density.
    """
    k = int(published.value("vs22", "setting", "metrics", "k"))
    lines = []
    for experiment, section in (("FGSM", "§5.1"), ("boundary attack", "§5.2")):
        for title in ("MNIST", "PathMNIST", "OrganMNIST"):
            references = int(published.value("vs22", "setting", title, f"references, {experiment}"))
            queries = int(published.value("vs22", "Table 3", title, "validation images"))
            lines.append({
                "experiment": experiment,
                "image set": title,
                "references": references,
                "queries": queries,
                "expected": expected_coverage(references, queries, k),
                "printed": published.value("vs22", section, title, "reference coverage"),
            })  # fmt: skip
    return pandas.DataFrame(lines).set_index(["experiment", "image set"])


@dataclass(frozen=True)
class Shift:
    """A hold-out that is changed or chosen more and more unlike the reference.

    Attributes
    ----------
    title : str
    strengths : (n,) float64
    density : (n,) float64
        1 in the mean where hold-out and reference are exchangeable.
    coverage : (n,) float64
        Over its closed-form mean, so likewise 1.
    embedded_density, embedded_coverage : (n,) float64 or None
        The same in the network's last hidden layer.
    """

    title: str
    strengths: np.ndarray
    density: np.ndarray
    coverage: np.ndarray
    embedded_density: np.ndarray | None = None
    embedded_coverage: np.ndarray | None = None


def _more_contrast(images: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    middle = images.mean(dtype=np.float64)
    return ((images - middle) * (1 + strength) + middle).astype(np.float32)


def _noise(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return (images + strength * rng.standard_normal(images.shape)).astype(np.float32)


def _less_contrast(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return _more_contrast(images, -strength, rng)


CHANGES: dict[str, tuple[Callable[[np.ndarray, float, np.random.Generator], np.ndarray], tuple[float, ...]]] = {
    "more contrast": (_more_contrast, (0.01, 0.02, 0.03)),
    "less contrast": (_less_contrast, (0.01, 0.02, 0.03)),
    "noise": (_noise, (0.005, 0.01, 0.02)),
}
"""What is done to every image of the hold-out, and how strongly: a factor 1 ± s on the contrast, or Gaussian noise of
standard deviation s, pixels in [0, 1]."""

THINNED = (0.5, 0.8, 0.95)
"""Share of the upper half of the classes that is taken out of the reference."""


def shifts(name: str, *, references: int, queries: int, rng: np.random.Generator) -> list[Shift]:
    """Move a hold-out off its reference in several ways, and see where density and coverage go, in pixels and inside.

    Parameters
    ----------
    name : str
        Key of `vs22.SETS`.
    references, queries : int
        Of the model set and the hold-out.
    rng : numpy.random.Generator
        Draws both, and the noise.
    """
    chosen = vs22.image_set(name)
    # Some more than are used, so that what thinning takes out can be replaced.
    split = vs22.reference_and_holdout(name, 2 * references, queries, rng)
    model = vs22.network(chosen)
    pool = {"pixels": _rows(split.reference), "inside": models.embed(model, split.reference)}
    first = np.arange(references)
    fitted = {space: ReferenceManifold(vs22.K).fit(points[first]) for space, points in pool.items()}
    expected = expected_coverage(references, len(split.images), vs22.K)

    def scored(manifolds: Mapping[str, ReferenceManifold], images: np.ndarray) -> list[float]:
        pixels = manifolds["pixels"].density_coverage(_rows(images))
        inside = manifolds["inside"].density_coverage(models.embed(model, images))
        return [pixels[0], pixels[1] / expected, inside[0], inside[1] / expected]

    def shift(title: str, strengths: Sequence[float], values: list[list[float]]) -> Shift:
        return Shift(title, np.array(strengths, float), *np.array(values).T)

    untouched = scored(fitted, split.images)
    found = [shift("untouched", [0.0], [untouched])]
    for title, (change, strengths) in track(CHANGES.items(), f"{chosen.title}: changed hold-outs", len(CHANGES)):
        values = [scored(fitted, change(split.images, strength, rng)) for strength in strengths]
        found.append(shift(f"{title}, all images", [0.0, *strengths], [untouched, *values]))
    upper = split.reference_labels >= (split.reference_labels.max() + 1) / 2
    chance = rng.random(len(upper))
    values = []
    for share in track(THINNED, f"{chosen.title}: thinned classes"):
        kept = np.flatnonzero(~upper | (chance >= share))[:references]
        if len(kept) < references:
            raise ValueError(
                f"references must leave enough images when classes are thinned, at most {len(kept)}, "
                f"but is {references}"
            )
        thinned = {space: ReferenceManifold(vs22.K).fit(points[kept]) for space, points in pool.items()}
        values.append(scored(thinned, split.images))
    found.append(shift("half of the classes thinned in the reference", [0.0, *THINNED], [untouched, *values]))
    return found


def other_sources(names: Sequence[str], *, references: int, queries: int, rng: np.random.Generator) -> list[Shift]:
    """Take reference and queries from a data set's official training and test part: other writers, other patients.

    Parameters
    ----------
    names : sequence of str
        Keys of `vs22.SETS`.
    references, queries, rng
        As for `shifts`; 0 queries for the whole test part.
    """
    found = []
    for name in track(names, "official parts"):
        data = datasets.load(name)
        reference = data.train_images[rng.permutation(len(data.train_images))[:references]]
        images = data.test_images[rng.permutation(len(data.test_images))[: queries or None]]
        density, coverage = ReferenceManifold(vs22.K).fit(_rows(reference)).density_coverage(_rows(images))
        expected = expected_coverage(len(reference), len(images), vs22.K)
        title = f"{vs22.image_set(name).title}: official test against official training part"
        found.append(Shift(title, np.zeros(1), np.array([density]), np.array([coverage / expected])))
    return found


def printed_path_point(item: str = "§5.1") -> tuple[float, float]:
    """Give PathMNIST's reference density, and its reference coverage over the closed form.

    Parameters
    ----------
    item : str
        "§5.1", printed, in pixels, or "Figure 12", stored by the authors, in the network's embedding.
    """
    expected = coverage_by_size().loc[("FGSM", "PathMNIST"), "expected"]
    density, coverage = (
        published.value("vs22", item, "PathMNIST", f"reference {name}") for name in ("density", "coverage")
    )
    return density, coverage / expected


# ---------------------------------------------------------------------------------------------- VS22: printed facts


@dataclass(frozen=True)
class PrintedFact:
    """Two things that a paper prints and that do not go together, or do.

    Attributes
    ----------
    statement : str
        What should be equal.
    one, other : float
        The two sides.
    """

    statement: str
    one: float
    other: float

    @property
    def agrees(self) -> bool:
        """Whether the two sides are equal, to 1 % for measured values."""
        return abs(self.one - self.other) <= 0.01 * max(abs(self.one), abs(self.other))

    @property
    def exact(self) -> bool:
        """Whether they are equal to the digit."""
        return self.one == self.other


def printed_facts() -> list[PrintedFact]:
    """List counts of VS22 that can be checked against each other or against the data sets as they are loaded today."""

    def table3(title: str, column: str) -> float:
        return published.value("vs22", "Table 3", title, column)

    organ = len(datasets.pooled(datasets.load("organamnist"))[0])
    step = published.value("vs22", "setting", "FGSM", "eps step")
    return [
        PrintedFact(
            "MNIST: images = model images + validation images (Table 3)",
            table3("MNIST", "images"),
            table3("MNIST", "model images") + table3("MNIST", "validation images"),
        ),
        PrintedFact(
            "MNIST: model images of §4.1 = model images of Table 3",
            published.value("vs22", "§4.1", "MNIST", "model images"),
            table3("MNIST", "model images"),
        ),
        PrintedFact(
            "OrganMNIST: images = model images + validation images (Table 3)",
            table3("OrganMNIST", "images"),
            table3("OrganMNIST", "model images") + table3("OrganMNIST", "validation images"),
        ),
        PrintedFact(
            "OrganMNIST: images (Table 3) = images in the file of today", table3("OrganMNIST", "images"), organ
        ),
        PrintedFact(
            "FGSM: number of ε = those from 0 to 1 in the printed steps",
            published.value("vs22", "setting", "FGSM", "number of eps"),
            round(1 / step) + 1,
        ),
    ]


def facts_frame(facts: Sequence[PrintedFact]) -> pandas.DataFrame:
    """Show printed facts as a table."""
    return pandas.DataFrame([
        {"should be equal": fact.statement, "one": f"{fact.one:g}", "other": f"{fact.other:g}", "equal": fact.exact}
        for fact in facts
    ]).set_index("should be equal")  # fmt: skip


def admixture_lines() -> pandas.DataFrame:
    """Compare Table 4 with the straight line that density follows when shares of one batch are mixed.

    Density is a mean over queries, so that of a mixture is the mixture of the densities: with a share s of attacked
    images, (1 − s) · clean + s · attacked, up to which images the attacked ones replace. The line
    is drawn through the printed 0 % and the printed density of the whole attacked batch (§5.2), where §5.2 prints one
    number; else through 0 and 75 %.

    Returns
    -------
    pandas.DataFrame
        Printed density, the line, and their ratio, for 25, 50 and 75 %.
    """
    lines = []
    whole = {"PathMNIST": published.value("vs22", "§5.2", "PathMNIST", "adversarial density")}
    for title in ("MNIST", "PathMNIST", "OrganMNIST"):
        clean = published.value("vs22", "Table 4", title, "share=0")
        slope = (
            whole[title] - clean
            if title in whole
            else (published.value("vs22", "Table 4", title, "share=0.75") - clean) / 0.75
        )
        for share in (0.25, 0.5, 0.75):
            printed = published.value("vs22", "Table 4", title, f"share={share:g}")
            line = clean + share * slope
            lines.append(
                {"image set": title, "share": share, "printed": printed, "line": line, "ratio": printed / line}
            )
    return pandas.DataFrame(lines).set_index(["image set", "share"])


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


def vs22_causes(
    twice: pandas.DataFrame,
    by_constants: pandas.DataFrame,
    bounds: BoundsCurve,
    moved: Sequence[Shift],
    sources: Sequence[Shift],
) -> list[Cause]:
    """Put VS22's causes into words, each with its effect as measured.

    Parameters
    ----------
    twice, by_constants : pandas.DataFrame
        From `normalised_twice` and `normalisations`.
    bounds : BoundsCurve
        From `bounds_alone` on MNIST.
    moved, sources : sequence of Shift
        From `shifts` and `other_sources`.
    """
    before = bounds.epsilons < bounds.kink
    apart = np.abs(bounds.density["as published"] - bounds.density["its bounds alone, no gradient"])[before].max()
    peak = bounds.density["its bounds alone, no gradient"][before].max()
    sizes = coverage_by_size()
    organ, off = twice.loc["OrganMNIST"], by_constants["off by up to"]
    path = printed_path_point()
    noise = next(shift for shift in moved if shift.title.startswith("noise"))
    lines = admixture_lines()["ratio"]
    return [
        Cause(
            "VS22",
            "images normalised twice",
            "normalise once more",
            f"OrganMNIST accuracy {organ['once']:.3f} → {organ['twice']:.3f}; stored by the authors "
            f"{organ['stored by the authors']:.3f}, printed {organ['printed']:.3f}",
            "our own network of the same architecture, without any attack",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "images normalised by their own mean and deviation",
            "0.5 and 0.5, or MNIST's",
            f"OrganMNIST's stored densities are met to {off.iloc[2]:.0%}; otherwise to {off.iloc[0]:.0%} and "
            f"{off.iloc[1]:.0%}",
            "no network is asked; MNIST's constants in the authors' code are its own, and PathMNIST's tiles rise by "
            "their own only (notebook 07)",
            LIKELY,
        ),
        Cause(
            "VS22",
            "bounds (0, 1) on normalised pixels make the hump in density",
            "bounds without any gradient",
            f"density up to {peak:.2f} with no attack at all; up to the kink the published attack differs by "
            f"{apart:.3f} at most",
            "no network is asked; the same curve comes out",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "kink at ε = μ/σ",
            "where black pixels reach the bound",
            f"μ/σ = {bounds.kink:.3f}",
            "from there on, and not before, the gradient can move the background",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "reference sets of different sizes",
            "closed form of coverage for each size",
            "; ".join(
                f"{title}, {experiment}: {row['expected']:.3f} (printed {row['printed']:g})"
                for (experiment, title), row in sizes.iterrows()
                if title != "PathMNIST"
            ),
            "exchangeability alone gives the printed coverage",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "PathMNIST's reference and hold-out are not exchangeable in pixels",
            "clean hold-outs moved off the reference",
            f"printed: density {path[0]:g}, coverage {path[1]:.2f} of its closed form; noise of "
            f"{noise.strengths[-1]:g}: {noise.density[-1]:.2f} and {noise.coverage[-1]:.2f}, inside the network "
            f"{noise.embedded_density[-1]:.2f} and {noise.embedded_coverage[-1]:.2f}",
            "the authors' values inside the network are those of exchangeable sets, so the same images were meant: "
            "a small difference in how pixels were prepared",
            LIKELY,
        ),
        Cause(
            "VS22",
            "another source would do it as well",
            "official test against official training part",
            "; ".join(
                f"{shift.title.split(':')[0]}: density {shift.density[0]:.2f}, coverage {shift.coverage[0]:.2f}"
                for shift in sources
            ),
            "but pooled and stratified, as the paper says, parts cannot differ",
            OPEN,
        ),
        Cause(
            "VS22",
            "counts that do not add up",
            "arithmetic on the printed counts",
            f"{sum(not fact.exact for fact in printed_facts())} of {len(printed_facts())} equalities broken",
            "whole numbers",
            CERTAIN,
        ),
        Cause(
            "VS22",
            "PathMNIST's row of Table 4 was not mixed from one batch",
            "arithmetic on the printed densities",
            f"off its straight line by up to {(lines.loc['PathMNIST'] - 1).abs().max():.0%}; the other two sets by "
            f"{(lines.drop('PathMNIST', level=0) - 1).abs().max():.0%} at most",
            "density of a mixture is the mixture of densities, up to which images were replaced: other subsets with "
            "very uneven densities, or other batches",
            LIKELY,
        ),
    ]


def record_results(
    run: Any,
    found: Sequence[VariantResult],
    plateaus: Sequence[PlateauByLambda],
    directed: pandas.DataFrame,
    twice: pandas.DataFrame,
    by_constants: pandas.DataFrame,
    bounds: BoundsCurve,
    moved: Sequence[Shift],
    sources: Sequence[Shift],
) -> None:
    """Put every number behind the causes into a run's record, and the authors' stored accuracies as comparisons.

    Parameters
    ----------
    run : advlib.record.Run
    found, plateaus, directed, twice, by_constants, bounds, moved, sources
        As for `g17_causes` and `vs22_causes`.
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
    for title in bounds.density:
        run.metric(f"bounds.{title}.density", bounds.density[title])
        run.metric(f"bounds.{title}.coverage", bounds.coverage[title])
    for shift in (*moved, *sources):
        run.metric(f"shift.{shift.title}.density", shift.density)
        run.metric(f"shift.{shift.title}.coverage", shift.coverage)
    for name, row in by_constants.iloc[:3].iterrows():
        run.metric(f"normalised by {name}", row.tolist())
    for title, row in twice.iterrows():
        for column in ("once", "twice", "twice, cut to (0, 1)"):
            run.metric(f"normalised.{title}.{column}", row[column])
        stored = row["stored by the authors"]
        if stored is None or np.isnan(stored):
            continue
        same, once = (abs(row[column] - stored) <= STORED_WITHIN for column in ("twice", "once"))
        run.compare({
            "paper": "vs22",
            "item": "stored results",
            "row": title,
            "column": "robust accuracy (%) eps=0",
            "as_published": round(100 * row["twice"], 1),
            "corrected": round(100 * row["once"], 1),
            "verdict": "reproduced" if once else "reproduced as published only" if same else "not reproduced",
            "cause": ""
            if once
            else "images normalised on load and by the attacked network again; no attack is needed"
            if same
            else "our network reads twice normalised images differently from theirs",
        })  # fmt: skip


STORED_WITHIN = 0.05
"""Accuracies of two networks of one architecture on images that neither was trained for may differ by so much."""
