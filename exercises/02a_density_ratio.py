"""Exercises of notebook 02a: uLSIF by hand, and its plateau."""

# %% [markdown]
# **1 · Write (15 min).** Write [uLSIF](../docs/glossary.md#ulsif) for one σ and one λ. You get the kernel values of
# numerator and denominator as arrays $\Phi_{nu}$ and $\Phi_{de}$: a row a sample, a column a centre. $n_{de}$ is the
# number of rows of $\Phi_{de}$. With $\hat H = \Phi_{de}^\top \Phi_{de} / n_{de}$ and $\hat h$ the mean row of
# $\Phi_{nu}$, return $\theta = \max(0, (\hat H + \lambda I)^{-1} \hat h)$.

# %%
import numpy as np

from compendium import exercises


def my_theta(phi_numerator, phi_denominator, lam):
    """Kernel values (n_nu, b) and (n_de, b), λ > 0; returns the weights (b,)."""
    # solution instead of: return None  # three lines; np.linalg.solve solves a linear system
    h = phi_numerator.mean(axis=0)
    gram = phi_denominator.T @ phi_denominator / len(phi_denominator)
    return np.maximum(0, np.linalg.solve(gram + lam * np.eye(len(h)), h))
    # end of solution


exercises.check("02a.1", my_theta)

# %% [markdown] solution
# Without the bound, θ minimises $\tfrac12 \theta^\top \hat H \theta - \hat h^\top \theta + \tfrac\lambda2
# \lVert\theta\rVert^2$, which is (up to a constant) half the squared error of the ratio over the denominator, plus
# the penalty. A ratio cannot be negative, so uLSIF cuts negative weights off *afterwards*. That is not the best
# non-negative θ, only a cheap one; whoever solves the constrained problem gets a lower value and also passes the
# check.

# %% [markdown]
# **2 · Write (10 min).** The denominator is out of every kernel's reach, so that $\hat H = 0$. Write the mean ratio
# over the numerator, the [plateau](../docs/glossary.md#plateau). Before you run the check, predict: G17 prints 34 for
# MNIST at ε = 1. What would it be if the smallest λ of the grid were $10^{-2}$ instead of $10^{-3}$?


# %%
def my_plateau(phi_numerator, lam):
    """Kernel values (n, b) of the numerator at the centres, λ > 0; returns the mean ratio, one number."""
    # solution instead of: return None  # two lines
    h = phi_numerator.mean(axis=0)
    return h @ h / lam
    # end of solution


exercises.check("02a.2", my_plateau)

# %% [markdown] solution
# $\theta = \hat h / \lambda$, and the mean of $\varphi(x)\cdot\theta$ over the numerator is $\hat h \cdot \theta =
# \lVert\hat h\rVert^2 / \lambda$. Ten times the λ, a tenth of the plateau, if leave-one-out goes on choosing the same
# σ. No attack enters: the number measures clean images and a grid.
