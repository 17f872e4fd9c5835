"""Exercises of notebook 12a: how far a kernel reaches, and a gradient that float32 cannot round away."""

# %% [markdown]
# **1 · Predict (10 min).** A change of ε in each of a digit's 784 pixels has the length $d = 28\varepsilon$. Say that a
# kernel does not reach where its value is below 0.001, and take σ = 1. From which ε on is an attacked digit out of
# reach of the clean one, first for the kernel of 2017, $\exp(-d/2\sigma^2)$, then for the paper's,
# $\exp(-d^2/2\sigma^2)$?

# %%
import numpy as np

from compendium import exercises

# solution instead of: my_reach_2017, my_reach_paper = None, None  # two ε
my_reach_2017, my_reach_paper = 2 * np.log(1000) / 28, np.sqrt(2 * np.log(1000)) / 28
# end of solution
exercises.check("12a.1", my_reach_2017, my_reach_paper)

# %% [markdown] solution
# The value is 0.001 where the exponent is $-\ln 1000 = -6.9$: at $d = 13.8$ for the kernel of 2017, at $d = 3.7$ for
# the paper's. With the distance squared *and σ = 1 kept*, R1 would be on its plateau from the second ε of Table 1
# on; it begins at 0.5. (Leave-one-out takes a wider σ, so the figure differs.)

# %% [markdown]
# **2 · Write (15 min).** The cross-entropy's gradient carries a factor that float32 rounds to 0 where the network is
# very sure. The lead $u = \log\sum_{j\ne y} e^{z_j} - z_y$ of all other classes over the label has a gradient of the
# same sign, and no such factor. Write it so that it stays finite for logits of 1,000 and −1,000.


# %%
def my_lead(logits, labels):
    """Logits (n, c) and labels (n,); returns u (n,)."""
    # solution instead of: return None  # leave the label's logit out, then take the largest one off before np.exp
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    largest = others.max(axis=1)
    return largest + np.log(np.exp(others - largest[:, None]).sum(axis=1)) - logits[rows, labels]
    # end of solution


exercises.check("12a.2", my_lead)

# %% [markdown] solution
# Taking the largest logit off and adding it again changes nothing but the range of `exp`, which overflows above 709.
# The cross-entropy is $\log(1 + e^u)$ and rises with u, so FGSM along u is FGSM, with the digits that float32 had
# lost.
