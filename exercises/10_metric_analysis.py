"""Exercises of notebook 10: volumes in many dimensions, the paper's volume, density taken apart."""

# %% [markdown]
# **1 · Write (10 min).** Write the logarithm of the volume of a ball in d dimensions, $\log V = \tfrac d2 \log\pi -
# \log\Gamma(\tfrac d2+1) + d \log r$. It must work in 784 dimensions, where V itself is too small for a float.

# %%
import math

from compendium import exercises


def my_log_volume(radius, dimension):
    """Radius > 0 and number of dimensions; returns log V, one number."""
    # solution instead of: return None  # math.lgamma is the logarithm of Γ
    return dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1) + dimension * math.log(radius)
    # end of solution


exercises.check("10.1", my_log_volume)

# %% [markdown] solution
# In 784 dimensions the volume of the unit ball is too small for any float (the check prints its logarithm), and twice
# the radius makes it $2^{784}$ times as large. The paper's $\tfrac43\pi r^3$ is right in three dimensions only.

# %% [markdown]
# **2 · Predict (5 min).** The paper's "volume" of a cluster is $\sum_i \tfrac43\pi r_i^3$ over the images of a
# predicted class, $r_i$ the distance to the 25th nearest clean image. By which factor does it grow if every image of
# the class is there twice? And if, instead, every image lies twice as far from the clean ones?

# %%
# solution instead of: my_factor_of_copies, my_factor_of_distance = None, None  # two numbers
my_factor_of_copies, my_factor_of_distance = 2, 2**3
# end of solution
exercises.check("10.2", my_factor_of_copies, my_factor_of_distance)

# %% [markdown] solution
# It is a sum, so it counts images: twice as many, twice the "volume", while no cluster became larger. And it is a
# cube, 8-fold, where 784 dimensions would make it $2^{784}$-fold.

# %% [markdown]
# **3 · Write (10 min).** Density taken apart: it is the share of images that lie in any ball, times the mean number
# of balls around *such* an image over k. Write both factors. If no image lies in any ball, both are 0.

# %%
import numpy as np


def my_factors(counts, k):
    """Number of balls around each image (m,); returns the pair (share inside, balls around an inside image over k)."""
    # solution instead of: return None  # counts > 0 are the images inside
    inside = counts > 0
    return inside.mean(), np.mean(counts[inside]) / k if inside.any() else 0.0
    # end of solution


exercises.check("10.3", my_factors)

# %% [markdown] solution
# The product is the density. A hump can come from the second factor alone, images that lie in more balls each, while
# the first already falls. `np.array([]).mean()` is NaN: an empty mean needs a rule of its own.
