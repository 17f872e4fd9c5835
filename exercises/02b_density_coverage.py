"""Exercises of notebook 02b: what the published bounds do to pixels, and the step that they belong to."""

# %% [markdown]
# **1 · Predict (5 min).** VS22's program normalises OrganMNIST by μ = 0.468 and σ = 0.297, $x = (p - \mu)/\sigma$,
# and then lets the attack clip $x$ to [0, 1]. Pixels $p$ in one range can stay where they are; all others are pulled
# towards it *whatever the gradient says*. Which range is it?

# %%
from compendium import exercises

# solution instead of: my_darkest, my_brightest = None, None  # two numbers: from which p to which p
my_darkest, my_brightest = 0.468, 0.468 + 0.297
# end of solution
exercises.check("02b.1", my_darkest, my_brightest)

# %% [markdown] solution
# $0 \le x \le 1$ is $\mu \le p \le \mu + \sigma$. What is darker than the mean becomes lighter, what is brighter than
# one standard deviation above it becomes darker: a loss of contrast. See [double
# normalisation](../docs/glossary.md#double-normalisation).

# %% [markdown]
# **2 · Write (15 min).** Write the step of VS22's program. Pixels $p$ become $x = (p - \mu)/\sigma$. Add ε times the
# sign of the gradient to $x$ and clip the sum to [0, 1]. Let no value move by more than ε, and turn the result back
# into pixels. Before you run the check, predict: which pixels without a gradient (sign 0) move?

# %%
import numpy as np


def my_step(pixels, signs, epsilon, mean, std):
    """Pixels (n, c, h, w) and signs of the same shape, −1, 0 or 1; returns the moved pixels."""
    # solution instead of: return None  # np.clip, twice
    x = (pixels - mean) / std
    aim = np.clip(x + epsilon * signs, 0, 1)
    return mean + std * (x + np.clip(aim - x, -epsilon, epsilon))
    # end of solution


exercises.check("02b.2", my_step)

# %% [markdown] solution
# Without a gradient the step is the way to the bounds, cut off at ε. It moves every pixel outside of μ … μ + σ, and so
# most of a scan or of a digit's background: the rise of density needs no attack. With bounds on $p$ a pixel without
# a gradient stays where it is.
