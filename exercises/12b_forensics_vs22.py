"""Exercises of notebook 12b: coverage in closed form, and where a kink lies."""

# %% [markdown]
# **1 · Write (15 min).** Write the expected [coverage](../docs/glossary.md#coverage) for N references, m queries and
# k neighbours. What the check says then shows which reference VS22 used in which experiment.

# %%
from compendium import exercises


def my_expected_coverage(n_reference, n_queries, k):
    """Three whole numbers; returns a number between 0 and 1."""
    # solution instead of: return None  # one minus a product of k factors
    empty = 1.0
    for j in range(k):
        empty = empty * (n_reference - 1 - j) / (n_reference - 1 + n_queries - j)
    return 1 - empty
    # end of solution


exercises.check("12b.1", my_expected_coverage)

# %% [markdown] solution
# A ball is empty when the k nearest of its centre, among N − 1 other references and m queries, are all references:
# draw k without replacement. It is N − 1 because the centre is no neighbour of its own.

# %% [markdown]
# **2 · Predict (5 min).** In VS22's program a black pixel reaches the lower bound at ε = μ/σ, and the curve has its
# kink there. Where are the kinks of MNIST (μ = 0.1307, σ = 0.3081) and of OrganMNIST (μ = 0.468, σ = 0.2974)? Which
# of them lies on the axis of Fig. 3, which ends at ε = 1?

# %%
# solution instead of: my_kink_mnist, my_kink_organ = None, None  # two numbers
my_kink_mnist, my_kink_organ = 0.1307 / 0.3081, 0.468 / 0.2974
# end of solution
exercises.check("12b.2", my_kink_mnist, my_kink_organ)

# %% [markdown] solution
# Black is $x = -\mu/\sigma$, and a step of at most ε must bring it to 0. MNIST: 0.42, the kink that the paper
# explains by geometry. OrganMNIST: 1.57, beyond the axis, so its curve has none.
