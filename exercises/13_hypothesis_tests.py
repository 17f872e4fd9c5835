"""Exercises of notebook 13: permutation p-values, both tails, what a flag means, streams."""

# %% [markdown]
# **1 · Write (10 min).** Write the [permutation p-value](../docs/glossary.md#permutation-p-value) for large values as
# extreme: `drawn` are the values of the statistic for random choices of the batch. Before you run it: what is the
# smallest p-value that 19 draws can give?

# %%
import numpy as np

from compendium import exercises


def my_p_value(value, drawn):
    """The batch's value, a number, and drawn (n,); returns p."""
    # solution instead of: return None  # one line
    return (1 + (drawn >= value).sum()) / (1 + len(drawn))
    # end of solution


exercises.check("13.1", my_p_value)

# %% [markdown] solution
# The batch itself is one of the equally likely choices, so it counts above and below the line. p is never 0: with 19
# draws it is at least 1/20. Equal values count against rejection (`>=`), which keeps the level when there are ties.

# %% [markdown]
# **2 · Write (10 min).** Both tails count: density may fall or rise. Write the two-sided p-value by doubling the
# smaller tail, and see to it that it is a probability.


# %%
def my_two_sided(value, drawn):
    """The batch's value and drawn (n,); returns the two-sided p."""
    # solution instead of: return None  # the two tails, then one line
    upper = (1 + (drawn >= value).sum()) / (1 + len(drawn))
    lower = (1 + (drawn <= value).sum()) / (1 + len(drawn))
    return min(1.0, 2 * min(upper, lower))
    # end of solution


exercises.check("13.2", my_two_sided)

# %% [markdown] solution
# Whoever looks at both tails and reports the smaller p has looked twice; doubling pays for it. In the middle of the
# distribution both tails hold more than half (the value itself is in both), hence the bound at 1.

# %% [markdown]
# **3 · Build (15 min).** What does a flag mean? Write a change of images that harms nobody: every pixel moves by at
# most 0.15, the network reads at least 95 % of the digits as before, and yet the test (density, batch of 150) flags
# the batch at 5 %.


# %%
def my_harmless_change(images):
    """Clean digits (150, 1, 8, 8) in [0, 1]; returns changed ones in [0, 1]."""
    # solution instead of: return None  # no gradient is needed
    coin = np.random.default_rng(0).choice([-1, 1], size=images.shape)
    return np.clip(images + 0.1 * coin, 0, 1)
    # end of solution


exercises.check("13.3", my_harmless_change)

# %% [markdown] solution
# Noise, less contrast, or a shift of all grey levels will do. The test says that the batch was not drawn as the
# calibration images were. It cannot say why: a new camera, another scanner, a compressed file and an attack look
# alike.

# %% [markdown]
# **4 · Predict (5 min).** A clean stream of 1,000 batches is tested at 5 %, batch by batch. How many alarms are
# raised on average? And with which probability does `StreamTest` with `alpha=0.05` raise any alarm at all in it, at
# most?

# %%
# solution instead of: my_alarms, my_bound = None, None  # a number of alarms, and a probability
my_alarms, my_bound = 1_000 * 0.05, 0.05
# end of solution
exercises.check("13.4", my_alarms, my_bound)

# %% [markdown] solution
# 5 % of 1,000 is 50: who watches for long needs another bound. The evidence of the stream begins at 1, does not grow
# on average while nothing happens, and so reaches 1/α with probability at most α, at any time (Ville's inequality).
