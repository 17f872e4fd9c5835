"""Gondara 2017's reruns: the two modes, the image sets, and what Table 1 prints.

Two modes run everywhere. *As published* is what the author most likely ran: density-ratio packages of 2017 with the
distance not squared in the kernel, CleverHans of 2017 with FGSM unclipped, CleverHans' tutorial network. *Corrected*
is the method as the paper describes it: Gaussian kernel, images that stay images, a network of today's accuracy.

References
----------
L. Gondara, "Detecting adversarial samples using density ratio estimates", arXiv:1705.02224 (2017).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas

from advlib import datasets
from compendium.claims import published


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
    {"mnist": "mnist-vs22-official", "cifar10": "cifar10-resnet", "cifar10-grey": "cifar10-grey-cleverhans"},
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


def test_images(image_set: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` (0: all) test images (n, c, h, w) float32 and labels (n,) of one of G17's sets.

    Sets are "mnist", "cifar10" and "cifar10-grey", its luma. A part is taken at even steps through the whole: the first
    half of MNIST's test images was written by other people than the second.
    """
    return all_and_attacked(image_set, count)[1:]


@lru_cache(maxsize=2)
def _test_part(name: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Read a data set's title, test images and labels once: to decode CIFAR-10 takes over a second."""
    data = datasets.load(name)
    return data.title, data.test_images, data.test_labels


def all_and_attacked(image_set: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all test images, from which numerators are drawn, and what `test_images` returns, in one reading."""
    title, everything, labels = _test_part(image_set.removesuffix("-grey"))
    if count > len(everything):
        raise ValueError(f"images must be at most {len(everything)}, the test images of {title}, but is {count}")
    # A copy, so that whoever writes into it changes no later reading.
    everything = datasets.grey(everything) if image_set.endswith("-grey") else everything.copy()
    chosen = np.arange(count) * len(everything) // count if count else slice(None)
    return everything, everything[chosen], labels[chosen]


def printed_r1(name: str, epsilon: float) -> float:
    """Mean R1 of a row of Table 1 as printed."""
    return published.value("g17", "Table 1", name, f"R1 eps={epsilon:g}")


def printed_r2(name: str) -> list[float]:
    """Mean R2 of a row of Table 1 as printed, one for each ε."""
    entries = published.load("g17", "Table 1")
    return [entry.value for entry in entries if entry.row == name and entry.column.startswith("R2")]


def printed_ratios(item: str) -> pandas.DataFrame:
    """Tabulate printed R1 and R2 with their intervals ("R1 low", …), a line for each row and `what` its columns name.

    Parameters
    ----------
    item : str
        "Table 1", whose columns are "R1 eps=0.1" and so on, or "Table 2".
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in published.load("g17", item):
        side, what = entry.column.split(" ", 1)
        line = lines.setdefault((entry.row, what), {"row": entry.row, "what": what})
        line |= {side: entry.value, f"{side} low": entry.low, f"{side} high": entry.high}
    return pandas.DataFrame(lines.values())
