"""Exercises of notebook 03: own kernels, and what a decision about one batch gets."""

# %% [markdown]
# **1 · Predict (5 min).** σ is so small that no image reaches any other, λ = 0.01, and both samples hold 10 images.
# What is the mean ratio over the numerator? And with 80 images?

# %%
from compendium import exercises

# solution instead of: my_ratio_of_10, my_ratio_of_80 = None, None  # two numbers
my_ratio_of_10, my_ratio_of_80 = 1 / (10 * 0.01), 1 / (80 * 0.01)
# end of solution
exercises.check("03.1", my_ratio_of_10, my_ratio_of_80)

# %% [markdown] solution
# Each image meets its own kernel alone, $\hat h_l = 1/n$ and $\theta_l = 1/(n\lambda)$; the ratio at an image is its
# own weight. So the mean ratio is $1/(n\lambda)$, clean or attacked, and rises as the samples shrink.

# %% [markdown]
# **2 · Write (10 min).** Write the mean ratio over the numerator *without* the images' kernels on themselves. The
# centres are the numerator's own images, in the same order.

# %%
import numpy as np


def my_ratio_without_own(kernels, theta):
    """Kernel values (n, n) of the numerator at its own images, weights (n,); returns one number."""
    # solution instead of: return None  # one line
    return ((kernels - np.eye(len(theta))) @ theta).mean()
    # end of solution


exercises.check("03.2", my_ratio_without_own)

# %% [markdown] solution
# The kernel of an image on itself is exp(0) = 1, so all own parts together add the mean of θ to the mean ratio.
# Taking the identity off the kernel matrix takes them off.

# %% [markdown]
# **3 · Measure (15 min).** Write the [AUROC](../docs/glossary.md#auroc) of single draws: the chance that an attacked
# draw scores above a clean one, where a tie counts one half. Then think: what happens to it if the same draws are
# repeated a hundred times, and what to the confidence interval of their mean? The check tries it.


# %%
def my_auroc(clean, attacked):
    """Scores (m,) of clean and (n,) of attacked draws; returns a number from 0 to 1."""
    # solution instead of: return None  # compare every attacked draw with every clean one
    above = attacked[:, None] > clean
    level = attacked[:, None] == clean
    return (above + level / 2).mean()
    # end of solution


exercises.check("03.3", my_auroc)

# %% [markdown] solution
# AUROC asks about *one* draw and stays where it is, however many draws there are. The interval of the mean shrinks
# with the root of their number. "The intervals do not overlap" therefore says nothing about whoever holds one batch.
