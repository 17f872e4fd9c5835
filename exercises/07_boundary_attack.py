"""Exercises of notebook 07: clipping alone, a crowd that raises density, one step of the boundary attack."""

# %% [markdown]
# **1 · Write (10 min).** Write *clipping alone*: the published program without its step. Every number of x goes
# towards [0, 1], but by no more than ε.

# %%
import numpy as np

from compendium import exercises


def my_clip_alone(x, epsilon):
    """Normalised images x (n, d), epsilon a number; returns (n, d)."""
    # solution instead of: return None  # one line with two clips
    return x + np.clip(np.clip(x, 0, 1) - x, -epsilon, epsilon)
    # end of solution


exercises.check("07.1", my_clip_alone)

# %% [markdown] solution
# The inner clip says where the number ought to go, the outer one how far it may. Negative numbers, half of all
# normalised pixels or more, rise towards 0, the mean of the data. No network was asked.

# %% [markdown]
# **2 · Build (10 min).** Raise [density](../docs/glossary.md#density) without an attack. `small.reference()` are 800
# digits; build a batch of 50 whose density is at least 1.5, and whose [coverage](../docs/glossary.md#coverage) is at
# most 0.1.

# %%
from compendium.exercises import small

# solution instead of: my_crowd = None  # images (50, 1, 8, 8) in [0, 1]
my_crowd = np.repeat(small.reference().mean(axis=0, keepdims=True), 50, axis=0)
# end of solution
exercises.check("07.2", my_crowd)

# %% [markdown] solution
# The mean image lies in many balls at once, although no digit looks like it: a hub. Fifty copies have the density of
# one, and the coverage of one. (50 copies of a single digit in a crowded place do as well.) Density is a mean over
# queries, coverage counts *different* balls.

# %% [markdown]
# **3 · Write (15 min).** The boundary attack's first move goes *sideways*: a random direction, at a right angle to
# the way from the current image to the original, of length 1. Write it for a batch of flattened images.


# %%
def my_sideways(direction, way):
    """Random directions and ways to the originals, both (n, d); returns unit vectors (n, d) at right angles to way."""
    # solution instead of: return None  # take the part along `way` off, then scale
    along = (direction * way).sum(axis=1, keepdims=True) / (way**2).sum(axis=1, keepdims=True)
    sideways = direction - along * way
    return sideways / np.linalg.norm(sideways, axis=1, keepdims=True)
    # end of solution


exercises.check("07.3", my_sideways)

# %% [markdown] solution
# The projection on `way` has the factor $(u \cdot w)/\lVert w\rVert^2$: the norm is squared, once for the angle and
# once because `way` itself is not of length 1. Sideways moves keep the distance to first order, so that the next
# step, towards the original, is what makes the image come nearer.
