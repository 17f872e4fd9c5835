"""One density ratio, as a scikit-learn estimator."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from advlib.checks import ArrayLike, as_matrix, of_kind, same_columns
from advlib.ulsif import fitting, kernels
from advlib.ulsif.settings import DEFAULT_GRID, checked_settings, warn_at_edges


class ULSIF(BaseEstimator):
    """Density ratio of two samples by unconstrained least-squares importance fitting.

    Parameters
    ----------
    sigmas, lambdas : sequence of float or float
        Kernel widths and regularisation strengths to choose from, positive. Where both hold a single value nothing is
        chosen and no leave-one-out is computed; that is the way to fit a single denominator point (fix the values
        that were chosen on samples of usual size).
    n_kernels : int
        Number of kernel centres b, drawn without replacement from the numerator; all of it if that is smaller.
    kernel : {"gaussian", "unsquared"}
        exp(−‖x − c‖² / 2σ²), or exp(−‖x − c‖ / 2σ²) as the `densratio` packages computed until May 2019.
    random_state : int, numpy.random.Generator or None
        Draws the centres. An int gives the same rows at each fit.

    Attributes
    ----------
    centers_ : (b, d) float64
        Kernel centres, rows `center_indices_` (b,) of the numerator in ascending order.
    theta_ : (b,) float64
        Kernel weights, non-negative.
    sigma_, lambda_ : float
        Chosen pair: the smallest score, among equal scores the first in grid order (σ before λ).
    loocv_scores_ : (n_sigmas, n_lambdas) float64
        Leave-one-out error of each pair, up to a constant; NaN where both grids have a single value.
    mean_ratio_ : float
        Mean estimated ratio over the numerator.

    Notes
    -----
    Learned arrays are NumPy or torch (on its device) as the numerator was, float64 in either case. Kernel values
    below 1e-76 count as 0.

    References
    ----------
    Kanamori, Hido and Sugiyama, JMLR 10 (2009) 1391–1445.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> model = ULSIF().fit(rng.normal(0.0, 1.0, (500, 1)), rng.normal(0.0, 2.0, (500, 1)))
    >>> bool(model.predict(np.array([[0.0]]))[0] > model.predict(np.array([[3.0]]))[0])
    True
    """

    def __init__(
        self,
        sigmas: Sequence[float] | float = DEFAULT_GRID,
        lambdas: Sequence[float] | float = DEFAULT_GRID,
        n_kernels: int = 100,
        kernel: str = "gaussian",
        random_state: int | np.random.Generator | None = 0,
    ):
        self.sigmas = sigmas
        self.lambdas = lambdas
        self.n_kernels = n_kernels
        self.kernel = kernel
        self.random_state = random_state

    def fit(self, numerator: ArrayLike, denominator: ArrayLike) -> Self:
        """Choose (σ, λ) by leave-one-out and fit θ.

        Parameters
        ----------
        numerator : (n, d) array or tensor
            Sample of the density above the line, n ≥ 2.
        denominator : (m, d) array or tensor
            Sample of the density below the line, m ≥ 2, or m ≥ 1 if σ and λ are fixed.

        Returns
        -------
        ULSIF
            Itself, fitted.

        Raises
        ------
        ValueError
            Naming the argument or hyperparameter that cannot be used.

        Warns
        -----
        GridEdgeWarning
            If the best σ or λ lies at the edge of its grid.
        """
        numerator_matrix = as_matrix(numerator, "numerator", min_rows=2)
        denominator_matrix = as_matrix(denominator, "denominator", device=numerator_matrix.device)
        same_columns(numerator_matrix, "numerator", denominator_matrix, "denominator")
        sizes = len(numerator_matrix), len(denominator_matrix)
        settings = checked_settings(*sizes, "denominator", **self.get_params(deep=False))
        with kernels.one_blas_thread():
            result = fitting.fit_chunk(numerator_matrix[None], denominator_matrix[None], settings)
        warn_at_edges(result["sigma_"], result["lambda_"], settings, stacklevel=2)

        self.center_indices_ = of_kind(numerator, settings.center_indices)
        self.centers_ = of_kind(numerator, numerator_matrix[settings.center_indices.to(numerator_matrix.device)])
        for name in ("theta_", "loocv_scores_"):
            setattr(self, name, of_kind(numerator, result[name][0].clone()))
        for name in ("sigma_", "lambda_", "mean_ratio_"):
            setattr(self, name, float(result[name][0]))
        self.n_features_in_ = numerator_matrix.shape[1]
        return self

    def predict(self, points: ArrayLike) -> ArrayLike:
        """Estimate the ratio p_numerator / p_denominator at `points`.

        Parameters
        ----------
        points : (n, d) array or tensor
            Where to evaluate.

        Returns
        -------
        (n,) float64
            Ratios ≥ 0, NumPy or torch as `points` was.

        Raises
        ------
        ValueError
            If `points` is not a finite (n, d) matrix with the fitted d.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        matrix = as_matrix(points, "points")
        centers = torch.as_tensor(self.centers_, device=matrix.device)
        theta = torch.as_tensor(self.theta_, device=matrix.device)
        same_columns(matrix, "points", centers, "the fitted centers_")
        shift = centers[:1]
        centers = (centers - shift)[None]
        rows = max(1, kernels.CHUNK_BYTES // (8 * (matrix.shape[1] + 3 * len(theta))))
        ratios = []
        for block in matrix.split(rows):
            exponents = kernels.to_exponents(kernels.squared_distances((block - shift)[None], centers), self.kernel)
            ratios.append(kernels.kernel_values(exponents, self.sigma_)[0] @ theta)
        return of_kind(points, torch.cat(ratios))
