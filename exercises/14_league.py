# %% [markdown]
# **1 · Write (10 min).** A batch may have gone through one of several changes without an aim; nobody knows which. Given
# a p-value for each change, and for each whether the batch's own size and spectrum contradict it (at level β), write
# the p-value of Berger and Boos: the largest of those that are not contradicted, plus β, and never above 1.

# %%
import numpy as np

from compendium import exercises


def my_p_value(each, contradicted, beta):
    """p-values (C,), bool (C,) and a level; returns one number. Not all changes are contradicted."""
    # solution instead of: return None  # one or two lines
    return min(1.0, np.max(each[~contradicted]) + beta)
    # end of solution


exercises.check("14.1", my_p_value)

# %% [markdown] solution
# Taking the largest over all changes would be right as well, and weaker: one violent change that unsettles the network
# would explain every attack. β pays for the chance that the true change is among those set aside.

# %% [markdown]
# **2 · Write (10 min).** Make noise as large as an attack: scale each image's change so that its root mean square is
# `size`. (Clipping to [0, 1] is left out here; the library's `changes.make` searches for the amount that reaches the
# size after clipping.)


# %%
def my_same_size(images, changed, size):
    """Images (n, c, h, w), what became of them, a number; returns images changed by that root mean square."""
    # solution instead of: return None  # the mean is one of each image, not of all
    change = changed - images
    return images + size * change / np.sqrt((change**2).mean(axis=(1, 2, 3), keepdims=True))
    # end of solution


exercises.check("14.2", my_same_size)

# %% [markdown] solution
# A detector that flags this as well has seen a change. Only what tells the two apart has seen an aim.

# %% [markdown]
# **3 · Predict (5 min).** A single image is ranked among n calibration images, p = (1 + number at least as
# extreme)/(1 + n), and β = 0.01 is added. How many calibration images does it take at the least so that p ≤ 0.05 can
# happen at all? And if both questions are asked at 5 %, in how many of 1,000 clean batches is at least one of them
# answered wrongly, at most, on average?

# %%
# solution instead of: my_images, my_alarms = None, None  # two whole numbers
my_images, my_alarms = 24, 100
# end of solution
exercises.check("14.3", my_images, my_alarms)

# %% [markdown] solution
# 1/(1 + n) + 0.01 ≤ 0.05 needs n ≥ 24. Two questions at 5 % are wrong together in at most 10 % of the batches: the sum
# of both, reached when they never err on the same batch.
