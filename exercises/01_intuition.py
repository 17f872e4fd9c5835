"""Exercises of notebook 01: FGSM, density and coverage by hand; what a mean density ratio is."""

# %% [markdown]
# **1 · Write (10 min).** Write [FGSM](../docs/glossary.md#fgsm) within [0, 1]. You get images, the gradient of the
# loss at each image, and ε. The check runs it on 200 small digits and compares it with `advlib.attacks.fgsm`.

# %%
import numpy as np

from compendium import exercises


def my_fgsm(images, gradient, epsilon):
    """Images and gradient (n, 1, 8, 8), epsilon a number; returns images (n, 1, 8, 8)."""
    # solution instead of: return None  # one line
    return np.clip(images + epsilon * np.sign(gradient), 0, 1)
    # end of solution


exercises.check("01.1", my_fgsm)

# %% [markdown] solution
# The sign makes every pixel move by the same ε: that is the largest change of a linear loss that L∞ allows. Where the
# gradient is exactly 0 its sign is 0, and the pixel stays. The clip comes last, so that the result is an image again;
# G17's software of 2017 left it out.

# %% [markdown]
# **2 · Write (15 min).** Write [density](../docs/glossary.md#density) and [coverage](../docs/glossary.md#coverage),
# with the [balls](../docs/glossary.md#knn-ball). `cdist(a, b)` is the matrix of distances. Mind that each reference
# point is its own nearest neighbour, at distance 0.

# %%
from scipy.spatial.distance import cdist


def my_density_coverage(reference, queries, k):
    """Reference (N, d), queries (m, d); returns the pair (density, coverage)."""
    # solution instead of: return None  # radii first, then which query lies in which ball
    radii = np.sort(cdist(reference, reference), axis=1)[:, k]
    inside = cdist(queries, reference) < radii
    return inside.sum() / (k * len(queries)), inside.any(axis=0).mean()
    # end of solution


exercises.check("01.2", my_density_coverage)

# %% [markdown] solution
# Column 0 of the sorted distances is the point itself, so column k is its k-th *other* neighbour. `inside` has a row
# a query and a column a ball. Density counts all its entries. Coverage asks of each *column* whether any entry is
# true; asked of each row, it would be precision, the share of queries that lie in some ball.

# %% [markdown]
# **3 · Predict (10 min).** $p_a$ is uniform on [0, 1] and $p_b$ is uniform on [0, 2]. What is the mean of the true
# ratio $p_a/p_b$ over points drawn from the numerator $p_a$? And over points drawn from the denominator $p_b$?

# %%
# solution instead of: my_mean_over_a, my_mean_over_b = None, None  # two numbers
my_mean_over_a, my_mean_over_b = 2, 1
# end of solution
exercises.check("01.3", my_mean_over_a, my_mean_over_b)

# %% [markdown] solution
# On [0, 1] the ratio is 1 / ½ = 2, elsewhere 0. Over the denominator the mean is $\int p_b\, p_a / p_b = \int p_a =
# 1$, whatever the densities are: it can say nothing. Over the numerator it is $\int p_a^2 / p_b$, and by
# Cauchy–Schwarz $1 = \left(\int \tfrac{p_a}{\sqrt{p_b}} \sqrt{p_b}\right)^2 \le \int p_a^2 / p_b$. So the true mean
# is never below 1. An *estimate* can be, and in notebook 02a it is.
