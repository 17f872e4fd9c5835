"""Exercises of notebook 11: all distances by one matrix product, what float32 loses, how work and memory grow."""

# %% [markdown]
# **1 · Write (10 min).** Write all squared distances of two sets by one matrix product, $\lVert x\rVert^2 + \lVert
# y\rVert^2 - 2\,x\cdot y$, without a loop and without an array of all differences (n × m × d numbers). The check
# watches the memory.

# %%
import numpy as np

from compendium import exercises


def my_squared_distances(x, y):
    """Two sets (n, d) and (m, d); returns the matrix (n, m) of squared distances, none below 0."""
    # solution instead of: return None  # two or three lines
    squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.maximum(0, squared)
    # end of solution


exercises.check("11.1", my_squared_distances)

# %% [markdown] solution
# The product does the work of n · m · d multiplications at the speed of a matrix product, and needs memory for n × m
# numbers. Rounding can leave a small negative number where two points are equal, hence the maximum.

# %% [markdown]
# **2 · Change (10 min).** The same in float32, for points that lie far from the origin: the check adds 3,000 to every
# number, which changes no distance. Norms are then large, and their difference loses its digits. Mend it, in float32.


# %%
def my_safe_squared_distances(x, y):
    """Two float32 sets (n, d) and (m, d) far from the origin; returns float32 squared distances (n, m)."""
    # solution instead of: return None  # move both sets first
    center = x.mean(axis=0)
    return my_squared_distances(x - center, y - center)
    # end of solution


exercises.check("11.2", my_safe_squared_distances)

# %% [markdown] solution
# Distances do not change when both sets are moved together, and near the origin the norms are as small as the
# distances. `advlib.prdc` centres, bounds what rounding can do to each pair, and decides the few pairs that the bound
# leaves open by differences in float64.

# %% [markdown]
# **3 · Predict (5 min).** From n = 5,000 to n = 50,000 references and as many queries: by which factor does the work
# of the matrix products grow? And how many gigabytes ($10^9$ bytes) does one n × n matrix of float64 take at n =
# 50,000?

# %%
# solution instead of: my_factor, my_gigabytes = None, None  # two numbers
my_factor, my_gigabytes = 10**2, 50_000**2 * 8 / 1e9
# end of solution
exercises.check("11.3", my_factor, my_gigabytes)

# %% [markdown] solution
# Work and memory grow as n². `prdc` holds three such matrices; whoever never makes one is limited by time alone. And
# since both sides' work grows as n², the speed-up levels off in the end; up to n = 50,000 it does not yet.
