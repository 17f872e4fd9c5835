"""The test of G17's mean density ratio: each permutation is a fit of its own."""

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from advlib.checks import whole_number
from advlib.datasets.large import LargeSamples
from advlib.detectors.feature_test import FeatureTest
from advlib.detectors.permutations import subsets
from advlib.detectors.results import Scores
from advlib.detectors.saving import finite
from advlib.ulsif import DEFAULT_GRID, ULSIF, GridEdgeWarning, fit_batch_indices


class DensityRatioTest(FeatureTest):
    """Test of G17's statistic: the mean density ratio p_clean / p_batch, fitted by uLSIF, over clean samples.

    The numerator is a fixed random choice of `n_numerator` reference samples; the denominator is the batch, or a
    permutation's choice. Each permutation is a full fit, with σ and λ chosen by leave-one-out.

    Parameters
    ----------
    n_numerator : int
        Clean samples above the line, and kernel centres. G17 use 100.
    sigmas, lambdas, kernel
        As in `ULSIF`.
    features : str or callable
        As in `DensityTest`.
    per_channel : bool
        One statistic a colour channel, as in G17, combined at a joint level.
    draws : int
        Permutations, one fit a channel each.
    alternative, ties, check, random_state
        As in `DensityTest`.

    Attributes
    ----------
    numerators_ : list of (n, d) float64 arrays
        One a channel.
    sigma_, lambda_ : list of float
        Medians of what is chosen on clean samples, one a channel: what a single image is judged by, since leave-one-out
        needs two samples.

    Notes
    -----
    `sample_scores` are the ratios p_clean / p_batch at each sample, low where samples like it are rare among clean
    ones; they come from fits on the other half of the batch, so that a sample is not judged by a fit to itself. The
    other attributes are those of `DensityTest`.
    """

    _label = "mean density ratio"
    _cheap = False

    def __init__(
        self,
        n_numerator: int = 100,
        *,
        sigmas: Sequence[float] | float = DEFAULT_GRID,
        lambdas: Sequence[float] | float = DEFAULT_GRID,
        kernel: str = "gaussian",
        features: str | Callable = "pixels",
        per_channel: bool = True,
        draws: int = 199,
        alternative: str = "two-sided",
        ties: str = "random",
        check: bool = True,
        random_state: int | np.random.Generator | None = 0,
    ):
        self.n_numerator = n_numerator
        self.sigmas = sigmas
        self.lambdas = lambdas
        self.kernel = kernel
        self.features = features
        self.per_channel = per_channel
        self.draws = draws
        self.alternative = alternative
        self.ties = ties
        self.check = check
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        whole_number(self.n_numerator, "n_numerator", 2)

    def _learn(self, reference: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> None:
        rng = np.random.default_rng(self.random_state if isinstance(self.random_state, int) else 0)
        chosen = np.sort(rng.choice(len(reference), min(self.n_numerator, len(reference)), replace=False))
        self.numerators_ = [matrix.astype(np.float64) for matrix in self._matrices(reference[chosen], {})]
        self.n_channels_ = len(self.numerators_)

    def _state(self, tensors: dict[str, np.ndarray], known: dict[int, list[str]]) -> dict[str, Any]:
        number = known.setdefault(id(self.numerators_), len(known))
        names = [f"numerators.{number}.{channel}" for channel in range(self.n_channels_)]
        tensors.update(zip(names, self.numerators_, strict=True))
        return {**super()._state(tensors, known), "numerators": names, "sigma": self.sigma_, "lambda": self.lambda_}

    def _restore(self, state: dict[str, Any], tensors: dict[str, np.ndarray], known: dict[str, Any]) -> None:
        self.numerators_ = [finite(tensors[name]) for name in state["numerators"]]
        self.sigma_, self.lambda_ = ([float(value) for value in state[key]] for key in ("sigma", "lambda"))
        self.n_channels_ = len(self.numerators_)

    def _parts(self, samples: np.ndarray, labels: np.ndarray | None, cache: dict[Hashable, Any]) -> list:
        if isinstance(samples, LargeSamples):  # every sample is needed for every fit
            return list(self._matrices(samples.in_memory(), {}))
        return list(self._matrices(samples, cache))

    def _calibrate(self, calibration: Scores) -> None:
        """Choose the σ and λ that single images are judged by."""
        n = len(calibration)
        self.sigma_, self.lambda_ = [], []
        size = min(n, self.n_numerator)
        if size < 2:
            raise ValueError(f"calibration must hold at least 2 samples for a density ratio, but holds {n}")
        rows = subsets(n, size, 9, np.random.default_rng(0))
        for numerator, matrix in zip(self.numerators_, calibration.parts, strict=True):
            fits = self._fits(numerator, matrix, rows)
            self.sigma_.append(float(np.median(fits.sigma_)))
            self.lambda_.append(float(np.median(fits.lambda_)))

    def _fits(self, numerator: np.ndarray, matrix: np.ndarray, rows: np.ndarray, **fixed: float):
        grid = {"sigmas": self.sigmas, "lambdas": self.lambdas, **fixed}
        own = np.broadcast_to(np.arange(len(numerator)), (len(rows), len(numerator)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GridEdgeWarning)
            return fit_batch_indices(numerator, matrix, own.copy(), rows, kernel=self.kernel, **grid)

    def _statistics(self, parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
        used, places = np.unique(rows, return_inverse=True)
        places = places.reshape(rows.shape)
        columns = []
        for channel, matrix in enumerate(parts):
            fixed = {}
            if rows.shape[1] == 1:
                fixed = {"sigmas": self.sigma_[channel], "lambdas": self.lambda_[channel]}
            fits = self._fits(self.numerators_[channel], matrix[used], places, **fixed)
            columns.append(fits.mean_ratio_)
        return np.stack(columns, axis=1)

    def _score_samples(
        self, batch: Scores, calibration: Scores, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        m = len(batch)
        halves = np.array_split(rng.permutation(m), 2)
        mine, theirs = np.empty((m, self.n_channels_)), np.zeros((len(calibration), self.n_channels_))
        for channel, numerator in enumerate(self.numerators_):
            pair, other = batch.parts[channel].astype(np.float64), calibration.parts[channel].astype(np.float64)
            for side in (0, 1):
                trained, judged = halves[side], halves[1 - side]
                if not len(trained):
                    # A single sample has no other half; clean samples stand in for it.
                    denominator = other[rng.permutation(len(other))[: self.n_numerator]]
                else:
                    denominator = pair[trained]
                grid = {"sigmas": self.sigmas, "lambdas": self.lambdas}
                if len(denominator) < 2:
                    grid = {"sigmas": self.sigma_[channel], "lambdas": self.lambda_[channel]}
                model = ULSIF(kernel=self.kernel, random_state=0, **grid)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", GridEdgeWarning)
                    model.fit(numerator, denominator)
                if len(judged):
                    mine[judged, channel] = model.predict(pair[judged])
                theirs[:, channel] += model.predict(other) / 2
        return mine, theirs

    def _notes(self, m: int) -> list[str]:
        if m > 1:
            return []
        pairs = ", ".join(f"σ = {s:.3g}, λ = {lam:.3g}" for s, lam in zip(self.sigma_, self.lambda_, strict=True))
        return [f"Leave-one-out needs two samples: for a single one, {pairs} are those chosen on clean samples."]
