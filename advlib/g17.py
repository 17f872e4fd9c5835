"""Gondara 2017's tables as functions: which data, network, attack and estimator stand behind each row.

Two modes run everywhere. *As published* is what the author most likely ran: density-ratio packages of 2017 with the
distance not squared in the kernel, CleverHans of 2017 with FGSM unclipped, CleverHans' tutorial network. *Corrected*
is the method as the paper describes it: Gaussian kernel, images that stay images, a network of today's accuracy.

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from advlib import attacks, datasets, models, published
from advlib.progress import track
from advlib.protocol import RatioComparison, Summary, density_ratio_comparison


@dataclass(frozen=True)
class Mode:
    """How a table is rerun: kernel, clipping and networks.

    Attributes
    ----------
    kernel : str
        "gaussian" or "unsquared", see `advlib.ulsif`.
    clip : tuple of float, optional
        Range that FGSM keeps images in, None for none.
    networks : dict
        Image set → name of the attacked network.
    """

    name: str
    kernel: str
    clip: tuple[float, float] | None
    networks: dict[str, str]


AS_PUBLISHED = Mode(
    "as published",
    "unsquared",
    None,
    {"mnist": "mnist-cleverhans", "cifar10": "cifar10-cleverhans", "cifar10-grey": "cifar10-grey-cleverhans"},
)
CORRECTED = Mode(
    "corrected",
    "gaussian",
    (0.0, 1.0),
    {"mnist": "mnist-vs22-official", "cifar10": "cifar10-resnet", "cifar10-grey": "cifar10-grey-resnet"},
)
MODES = (AS_PUBLISHED, CORRECTED)

# Table 1's rows: image set, and which of density_ratio_comparison's results the row shows.
TABLE1 = {
    "MNIST": ("mnist", "combined"),
    "CIFAR-10 (grey)": ("cifar10-grey", "combined"),
    "CIFAR-10 (red)": ("cifar10", "channel 0"),
    "CIFAR-10 (green)": ("cifar10", "channel 1"),
    "CIFAR-10 (blue)": ("cifar10", "channel 2"),
    "CIFAR-10 (combined)": ("cifar10", "combined"),
}

TOLERANCE = 0.25
"""A rerun number agrees with a printed one when they differ by at most this share of the printed one. The paper's
network is unknown; see `notebooks/02_primary_results` for how far retrained networks spread."""


def test_images(image_set: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `count` (0: all) test images (n, c, h, w) float32 and labels (n,) of one of G17's sets.

    Sets are "mnist", "cifar10" and "cifar10-grey", its luma.
    """
    data = datasets.load(image_set.removesuffix("-grey"))
    images, labels = data.test_images, data.test_labels
    if count > len(images):
        raise ValueError(f"images must be at most {len(images)}, the test images of {data.title}, but is {count}")
    if count:
        images, labels = images[:count], labels[:count]
    return (datasets.grey(images) if image_set.endswith("-grey") else images), labels


@dataclass(frozen=True)
class RatioRow:
    """One row of a density-ratio table, rerun in one mode.

    Attributes
    ----------
    row, epsilon, mode : str, float, str
        As in the paper, and which rerun this is ("published" for the paper's own).
    r1, r2 : Summary
        Mean ratio with 95 % interval: real against adversarial, real against real.
    auroc, tpr_at_5_fpr : float or None
        What a decision about one batch gets; the paper does not say.
    clean_accuracy, adversarial_accuracy : float or None
        Of the attacked network before and after.
    zero_gradient_share : float or None
        Share of pixels whose gradient is exactly zero, which FGSM does not move.
    """

    row: str
    epsilon: float
    mode: str
    r1: Summary
    r2: Summary
    auroc: float | None = None
    tpr_at_5_fpr: float | None = None
    clean_accuracy: float | None = None
    adversarial_accuracy: float | None = None
    zero_gradient_share: float | None = None


def column(side: str, epsilon: float) -> str:
    """Name a column of Table 1 as `data/published/g17.csv` does: "R1 eps=0.1"."""
    return f"{side} eps={epsilon:g}"


def published_table1() -> list[RatioRow]:
    """Table 1 as printed."""
    rows = []
    for name in TABLE1:
        for epsilon in (0.1, 0.3, 0.5, 1.0):
            sides = []
            for side in ("R1", "R2"):
                entry = published.lookup("g17", "Table 1", name, column(side, epsilon))
                sides.append(Summary(entry.value, entry.low, entry.high))
            rows.append(RatioRow(name, epsilon, "published", *sides))
    return rows


def rerun_table1(
    mode: Mode, epsilons: Sequence[float], *, images: int, draws: int, batch_size: int, rng: np.random.Generator
) -> list[RatioRow]:
    """Attack, draw and fit everything behind Table 1 in one mode.

    Parameters
    ----------
    mode : Mode
        `AS_PUBLISHED` or `CORRECTED`.
    epsilons : sequence of float
        L∞ sizes of FGSM; the direction is computed once for all of them.
    images : int
        Test images that are attacked and drawn from, 0 for all.
    draws, batch_size : int
        t and m of Algorithm 1.
    rng : numpy.random.Generator
        Source of the draws.
    """
    rows = []
    for image_set, network in mode.networks.items():
        real, labels = test_images(image_set, images)
        model = models.load_trained(network)
        sweep = attacks.fgsm_sweep(model, real, labels, epsilons, clip=mode.clip)
        for epsilon, batch in zip(epsilons, track(sweep, f"{mode.name}: {image_set}", len(epsilons)), strict=True):
            results = density_ratio_comparison(
                real, batch.images, draws=draws, batch_size=batch_size, rng=rng, kernel=mode.kernel
            )
            rows += [
                _row(name, epsilon, mode.name, results[part], batch)
                for name, (needed, part) in TABLE1.items()
                if needed == image_set
            ]
    order = list(TABLE1)
    return sorted(rows, key=lambda row: (order.index(row.row), row.epsilon))


def _row(name: str, epsilon: float, mode: str, result: RatioComparison, batch: attacks.AdversarialBatch) -> RatioRow:
    return RatioRow(
        name,
        epsilon,
        mode,
        result.r1_summary,
        result.r2_summary,
        result.auroc,
        result.tpr_at_5_fpr,
        batch.clean_accuracy,
        batch.adversarial_accuracy,
        batch.zero_gradient_share,
    )


def agrees(value: float, printed: float) -> bool:
    """Whether a rerun number lies within `TOLERANCE` of a printed one."""
    return abs(value - printed) <= TOLERANCE * abs(printed)


def verdict(printed: float, as_published: float, corrected: float) -> str:
    """Judge one printed number by our two."""
    if agrees(corrected, printed):
        return "reproduced"
    return "reproduced as published only" if agrees(as_published, printed) else "not reproduced"
