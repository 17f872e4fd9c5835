"""uLSIF by the plain formulas and by brute force, and the samples it is tried on."""

import numpy as np

from advlib.ulsif import (
    DEFAULT_GRID,
)

GRID = np.array(DEFAULT_GRID)


def kernel_matrix(points, centers, sigma, kernel):
    distances = np.linalg.norm(points[:, None] - centers[None], axis=2)
    return np.exp(-(distances**2 if kernel == "gaussian" else distances) / (2 * sigma**2))


def brute_force_scores(numerator, denominator, centers, kernel, sigmas=GRID, lambdas=GRID):
    """Leave out pair i, refit θ on the rest with the centres fixed, test on pair i. Also Σ of absolute terms."""
    n_nu, n_de = len(numerator), len(denominator)
    n = min(n_nu, n_de)
    scores, scale = np.zeros((2, len(sigmas), len(lambdas)))
    for a, sigma in enumerate(sigmas):
        nu, de = (kernel_matrix(points, centers, sigma, kernel) for points in (numerator, denominator))
        for b, lambda_ in enumerate(lambdas):
            for i in range(n):
                rest = np.delete(de, i, axis=0)
                gram = rest.T @ rest / (n_de - 1) + lambda_ * np.eye(len(centers))
                theta = np.maximum(0, np.linalg.solve(gram, np.delete(nu, i, axis=0).mean(axis=0)))
                terms = (de[i] @ theta) ** 2 / 2, nu[i] @ theta
                scores[a, b] += (terms[0] - terms[1]) / n
                scale[a, b] += (terms[0] + terms[1]) / n
    return scores, scale


def plain_scores(numerator, denominator, centers, kernel, sigmas=GRID, lambdas=GRID):
    """Kanamori et al. 2009, figure 2, written down as it stands. Also the sum of the absolute terms."""
    n_nu, n_de = len(numerator), len(denominator)
    n = min(n_nu, n_de)
    scores, scale = np.zeros((2, len(sigmas), len(lambdas)))
    for a, sigma in enumerate(sigmas):
        nu, de = (kernel_matrix(points, centers, sigma, kernel) for points in (numerator, denominator))
        gram, h = de.T @ de / n_de, nu.mean(axis=0)[:, None]
        x, x_nu = de[:n].T, nu[:n].T
        for b, lambda_ in enumerate(lambdas):
            matrix = gram + lambda_ * (n_de - 1) / n_de * np.eye(len(centers))
            inverse_x = np.linalg.solve(matrix, x)
            d = n_de - (x * inverse_x).sum(axis=0)
            b0 = np.linalg.solve(matrix, h @ np.ones((1, n))) + inverse_x * ((h.T @ inverse_x) / d)
            b1 = np.linalg.solve(matrix, x_nu) + inverse_x * ((x_nu * inverse_x).sum(axis=0) / d)
            b2 = np.maximum(0, (n_de - 1) / (n_de * (n_nu - 1)) * (n_nu * b0 - b1))
            w_de, w_nu = (x * b2).sum(axis=0), (x_nu * b2).sum(axis=0)
            scores[a, b] = (w_de**2).mean() / 2 - w_nu.mean()
            scale[a, b] = (w_de**2).mean() / 2 + w_nu.mean()
    return scores, scale


def assert_scores(actual, expected_and_scale, rtol=1e-8):
    """Relative to the size of the two terms whose difference the score is: the score itself may be 0.

    The unit of the score is that of a ratio (-1/2 for equal densities), so the absolute 1e-12 only covers rounding
    in scores that are nothing beside the others.
    """
    expected, scale = expected_and_scale
    assert actual.shape == expected.shape
    excess = np.abs(actual - expected) - rtol * scale
    assert excess.max() <= 1e-12, f"off by {np.abs(actual - expected).max()} where terms are {scale.max()}"


def samples(n_nu, n_de, d, seed=0, shift=0.4, spread=1.3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_nu, d)), rng.normal(shift, spread, size=(n_de, d))


def stacks(draws, n, m, d, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    # Every third draw lies far away, so that the draws of a chunk take different ways through the σ.
    shift = np.where(np.arange(draws) % 3 == 0, 5.0, 0.1)[:, None, None]
    return rng.normal(size=(draws, n, d)).astype(dtype), rng.normal(shift, 1.2, size=(draws, m, d)).astype(dtype)
