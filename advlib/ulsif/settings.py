"""Hyperparameters of a fit, checked, and the warning about them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from advlib.checks import checked_seed, one_of, whole_number

DEFAULT_GRID = tuple(np.logspace(-3, 1, 9).tolist())
"""Nine values from 1e-3 to 10, two a decade: the grid of the `densratio` packages, for σ and for λ."""

KERNELS = ("gaussian", "unsquared")


class GridEdgeWarning(UserWarning):
    """The best σ or λ is the smallest or largest value of its grid, so a better one may lie outside."""


@dataclass(frozen=True)
class Settings:
    """Checked hyperparameters of one call; `center_indices` are rows of the numerator."""

    sigmas: tuple[float, ...]
    lambdas: tuple[float, ...]
    kernel: str
    center_indices: torch.Tensor

    @property
    def needs_selection(self) -> bool:
        """Whether there is more than one pair to choose from."""
        return len(self.sigmas) * len(self.lambdas) > 1


def checked_settings(
    n_numerator: int,
    n_denominator: int,
    denominator_name: str,
    sigmas: Sequence[float] | float,
    lambdas: Sequence[float] | float,
    n_kernels: int,
    kernel: str,
    random_state: int | np.random.Generator | None,
) -> Settings:
    """Return the hyperparameters as they are used, centres drawn, or raise a ValueError that names one."""
    one_of(kernel, "kernel", KERNELS)
    checked_seed(random_state)
    n_kernels = whole_number(n_kernels, "n_kernels", 1)
    sigma_grid, lambda_grid = _grid(sigmas, "sigmas"), _grid(lambdas, "lambdas")
    if n_kernels >= n_numerator:
        indices = np.arange(n_numerator)
    else:
        indices = np.sort(np.random.default_rng(random_state).choice(n_numerator, n_kernels, replace=False))
    settings = Settings(sigma_grid, lambda_grid, kernel, torch.as_tensor(indices))
    if n_denominator < 2 and settings.needs_selection:
        raise ValueError(
            f"{denominator_name} must hold at least 2 samples for leave-one-out, but holds {n_denominator}: "
            "add samples, or fix one value each in sigmas and lambdas (nothing is left out then)"
        )
    return settings


def _grid(values: Sequence[float] | float, name: str) -> tuple[float, ...]:
    try:
        grid = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be positive numbers, but is {values!r}") from None
    if grid.ndim != 1 or grid.size == 0 or not np.all(np.isfinite(grid) & (grid > 0)):
        raise ValueError(f"{name} must be a non-empty list of positive finite numbers, but is {values!r}")
    if not np.all((grid > 1e-100) & (grid < 1e100)):
        raise ValueError(
            f"{name} must lie between 1e-100 and 1e100, whose squares are still numbers, but is {values!r}"
        )
    return tuple(grid.tolist())


def warn_at_edges(sigma: torch.Tensor, lambda_: torch.Tensor, settings: Settings, stacklevel: int) -> None:
    """Warn once, with the counts, where chosen values (T,) lie at the edge of a grid."""
    found = []
    for name, chosen, grid in (("sigma", sigma, settings.sigmas), ("lambda", lambda_, settings.lambdas)):
        at_edge = int(((chosen == min(grid)) | (chosen == max(grid))).sum())
        if len(grid) > 1 and at_edge:
            found.append(f"{name} in {at_edge}")
    if found:
        warnings.warn(
            f"the best value is at the edge of its grid for {' and '.join(found)} of {len(sigma)} fits; "
            "a wider grid may fit better",
            GridEdgeWarning,
            stacklevel=stacklevel + 1,
        )
