"""Exercises of notebook 08: the straight line backwards, a fair threshold, shares and batch sizes."""

# %% [markdown]
# **1 · Write (5 min).** Density of a mixture is a straight line in the share of attacked images. Turn it round: which
# share does a printed density imply?

# %%
import numpy as np

from compendium import exercises


def my_share(density, clean, attacked):
    """Densities of the mixture, of the clean batch (share 0) and of the attacked one (share 1); returns the share."""
    # solution instead of: return None  # one line
    return (clean - density) / (clean - attacked)
    # end of solution


exercises.check("08.1", my_share)

# %% [markdown] solution
# $D = (1-s) D_0 + s D_1$, so $s = (D_0 - D)/(D_0 - D_1)$. It also holds where attacked images have the *higher*
# density. With two entries of a column known, every further one checks the table.

# %% [markdown]
# **2 · Write (15 min).** Write the decision about one batch: it is flagged if its density is among the lowest or
# among the highest 2.5 % of the clean batches'. Return the share of batches that are flagged, the
# [power](../docs/glossary.md#power).


# %%
def my_flagged_share(clean, batches):
    """Densities of clean batches (n,) and of batches in question (m,); returns a share from 0 to 1."""
    # solution instead of: return None  # np.quantile gives the two thresholds
    low, high = np.quantile(clean, [0.025, 0.975])
    return ((batches < low) | (batches > high)).mean()
    # end of solution


exercises.check("08.2", my_flagged_share)

# %% [markdown] solution
# Two tails of 2.5 % make 5 % false alarms. Equal tails, and not equal distances from the median: where a few clean
# images have a very high density, clean batches have a long tail upwards, and a fall to zero can be shorter than it.

# %% [markdown]
# **3 · Predict (5 min).** From the same 100 images *as published* draws 50 that stay clean and, independently, 50
# to be attacked. How many different images does the batch hold on average, if an image and its
# attacked twin count as one?

# %%
# solution instead of: my_different = None  # a number of images
my_different = 100 * (1 - 0.5 * 0.5)
# end of solution
exercises.check("08.3", my_different)

# %% [markdown] solution
# An image is missing from both halves with probability ½ · ½, so 75 of 100 are in. The batch looks smaller than it
# is: coverage with "50 %" is lower before anything was attacked.

# %% [markdown]
# **4 · Predict (5 min).** A share of 40 % is just detected in batches of 25. Which share is just detected in batches
# of 100, if the spread of clean batches falls as $1/\sqrt m$?

# %%
# solution instead of: my_smallest_share = None  # a share from 0 to 1
my_smallest_share = 0.4 * np.sqrt(25 / 100)
# end of solution
exercises.check("08.4", my_smallest_share)

# %% [markdown] solution
# The shift of the mean is $s\,(D_1 - D_0)$ and must exceed a multiple of $1/\sqrt m$. Four times the images, half the
# share. "25 % are enough" is a statement about one attack and one batch size.
