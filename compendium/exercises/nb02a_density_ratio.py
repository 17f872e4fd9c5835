"""Checks of the exercises of notebook 02a."""

import numpy as np
from scipy.optimize import nnls

from advlib.ulsif import ULSIF
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, close, expect, mistaken, require


def theta(my_theta: Answer) -> str:
    """02a.1: weights of one uLSIF fit: the library's, or the best of all non-negative ones."""
    lam = 0.01
    rng = np.random.default_rng(2)
    numerator, denominator = rng.normal(size=(60, 2)), rng.normal(0.4, 1.3, size=(40, 2))
    fit = ULSIF(sigmas=1.0, lambdas=lam, n_kernels=30, random_state=0).fit(numerator, denominator)
    phi_nu, phi_de = (small.kernels(points, fit.centers_) for points in (numerator, denominator))
    given = called(my_theta, phi_nu, phi_de, lam, shape=fit.theta_.shape)
    h, gram, eye = phi_nu.mean(axis=0), phi_de.T @ phi_de / len(phi_de), np.eye(len(fit.theta_))
    free = np.linalg.solve(gram + lam * eye, h)
    require(given.min() >= 0 or not close(given, free), "Nearly: negative weights are left; take max(0, …).")
    require(given.min() >= 0, "Some weights are negative, but a density ratio cannot be: take max(0, …).")
    wrong = {
        "Ĥ is a mean over the denominator: divide by its number of rows, not the numerator's.":
            np.linalg.solve(gram * len(phi_de) / len(phi_nu) + lam * eye, h),
        "Ĥ is a mean over the denominator: divide Φᵀ Φ by its number of rows.":
            np.linalg.solve(gram * len(phi_de) + lam * eye, h),
        "ĥ is the mean row of Φ_nu, not the sum.": free * len(phi_nu),
        "λ is missing: solve with Ĥ + λ I.": np.linalg.lstsq(gram, h, rcond=None)[0],
        "λ belongs on the diagonal: add λ I, not λ to every entry.": np.linalg.solve(gram + lam, h),
    }  # fmt: skip
    mistaken(given, fit.theta_, {words: np.maximum(0, weights) for words, weights in wrong.items()})

    if close(given, fit.theta_, 1e-5):
        return "The same weights as `advlib.ulsif.ULSIF`."
    # The other honest answer: the best non-negative weights, by non-negative least squares on a root of Ĥ + λ I.
    root = np.linalg.cholesky(gram + lam * eye)
    best = nnls(root.T, np.linalg.solve(root, h))[0]
    mine, theirs, least = (
        weights @ (gram + lam * eye) @ weights / 2 - h @ weights for weights in (given, fit.theta_, best)
    )
    off = np.abs(given - fit.theta_).max()
    require(mine <= least + 1e-6, f"Some weight differs from uLSIF's by {off:.2g}: look at Ĥ, ĥ and λ once more.")
    return f"These are the best weights without a negative one: objective {mine:.3f}, where uLSIF's have {theirs:.3f}."


def plateau(my_plateau: Answer) -> str:
    """02a.2: the mean ratio where nothing of the denominator is in reach."""
    numerator = small.reference()[:60].reshape(60, -1).astype(np.float64)
    phi, heights = small.kernels(numerator, numerator), {}
    h = phi.mean(axis=0)
    for lam in (1e-3, 1e-2):
        given = float(called(my_plateau, phi, lam))
        heights[lam] = ULSIF(sigmas=1.0, lambdas=lam).fit(numerator, numerator + 100).mean_ratio_
        expect(given, heights[lam], {
            "λ is missing: θ = ĥ / λ.": h @ h,
            "That is the mean weight. The mean ratio over the numerator is ĥ · θ.": h.mean() / lam,
            "That is the mean kernel value over λ, as if every weight were 1/λ; the weights are ĥ / λ.":
                h.sum() / lam,
            "That is ‖ĥ‖ / λ: square the norm.": np.sqrt(h @ h) / lam,
        }, f"λ = {lam:g}: a fit gives {heights[lam]:.3g}, your formula {given:.3g}.")  # fmt: skip
    return f"λ ten times as large, a tenth of the plateau: {heights[1e-3]:.1f} and {heights[1e-2]:.2f} on small digits."
