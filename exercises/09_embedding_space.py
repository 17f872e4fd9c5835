"""Exercises of notebook 09: what balls do not notice, why a gradient step goes far, coverage in any space."""

# %% [markdown]
# **1 · Build (10 min).** Ball counts depend on *which* points are neighbours. Write a map of points that changes
# every number of every point, and yet leaves all ball counts as they are, when references and queries go through it.

# %%
import numpy as np

from compendium import exercises


def my_harmless_map(points):
    """Points (n, d), of which every number is to change; returns (n, d). It may use no randomness."""
    # solution instead of: return None  # one line
    return 10 * points + 3
    # end of solution


exercises.check("09.1", my_harmless_map)

# %% [markdown] solution
# Scaling, shifting, turning and mirroring keep the order of all distances, and ball counts know nothing else. So
# logits that are multiplied by ten have the same density. A map that stretches some coordinates more than others, as
# another normalisation for each channel does, changes who is whose neighbour.

# %% [markdown]
# **2 · Write (10 min).** One logit is $z = w \cdot x$. How far does it move when every pixel goes up or
# down by ε, as the gradient's sign says? And what is the standard deviation of its move when every pixel goes by ±ε at
# the toss of a coin?


# %%
def my_moves(w, epsilon):
    """Weights w (d,), size epsilon; returns the pair (move under FGSM, standard deviation under coin flips)."""
    # solution instead of: return None  # one line
    return epsilon * np.abs(w).sum(), epsilon * np.sqrt((w**2).sum())
    # end of solution


exercises.check("09.2", my_moves)

# %% [markdown] solution
# The gradient is w, its sign steps add up to $\varepsilon \lVert w\rVert_1$. Coin flips are independent, so variances
# add up: $\varepsilon \lVert w\rVert_2$. The quotient of the two is at most $\sqrt d$ with d pixels, and comes near
# it where the weights are of one size. Both changes have the same size in pixels: that is what an embedding sees and
# pixels do not.

# %% [markdown]
# **3 · Measure (15 min).** The expected coverage of clean batches is the same in every space. Measure it: draw
# references and queries anew each time, and take the mean of their coverage.
# `advlib.prdc.ReferenceManifold(k).fit(reference)` has a method `coverage(queries)`.

# %%
from advlib.prdc import ReferenceManifold


def my_mean_coverage(draw, n_reference, n_queries, k, repeats):
    """draw(n) gives n new points (n, d); returns the mean coverage over the repeats, one number."""
    # solution instead of: return None  # a loop over the repeats
    found = [ReferenceManifold(k).fit(draw(n_reference)).coverage(draw(n_queries)) for _ in range(repeats)]
    return np.mean(found)
    # end of solution


exercises.check("09.3", my_mean_coverage)

# %% [markdown] solution
# A ball is empty when the k points nearest to its centre, of all other references and the queries, are all
# references. Only ranks of distances among [exchangeable](../docs/glossary.md#exchangeable) points count, so neither
# the dimension nor the shape of the data enters.
