"""Exercises of notebook 06: Algorithm 2, why clipped digits move inwards, and what an attacker can reach."""

# %% [markdown]
# **1 · Write (10 min).** Write G17's Algorithm 2. `gap(epsilon)` runs attack and detector and returns
# $|\overline{R_1} - \overline{R_2}|$. Lower ε by the step until the gap is at most the tolerance, and return that ε;
# if no positive ε is left, return 0. (The paper's loop computes $\epsilon_i - \epsilon_\Delta$, the start less the
# step, with the same start $\epsilon_i$ each time. What would such a loop do?)

# %%
import numpy as np

from compendium import exercises


def my_crafting(gap, epsilon, step, tolerance):
    """A function gap of ε, where to start, how far to go down each time; returns an ε."""
    # solution instead of: return None  # a loop
    while epsilon > step / 2 and gap(epsilon) > tolerance:
        epsilon = epsilon - step
    return epsilon if epsilon > step / 2 else 0.0
    # end of solution


exercises.check("06.1", my_crafting)

# %% [markdown] solution
# As printed, the loop would compute the same ε for ever. Half a step as the bound keeps rounding from letting a 1e-17
# pass for a positive ε. If the gap is not monotone, the loop stops at the first ε that it meets from above, and that
# can be one in the blind spot.

# %% [markdown]
# **2 · Write (10 min).** Do attacked images lie nearer to clean ones than clean ones do (section 2, middle panel)?
# Write its measure, the mean squared distance over all pairs of two batches; if you can, without a loop and without an
# array of all pairs.


# %%
def my_mean_squared_distance(x, y):
    """Two batches (n, d) and (m, d); returns the mean of ‖x_i − y_j‖² over all i and j."""
    # solution instead of: return None  # one line is enough
    return np.sum(x**2, axis=1).mean() + np.sum(y**2, axis=1).mean() - 2 * x.mean(axis=0) @ y.mean(axis=0)
    # end of solution


exercises.check("06.2", my_mean_squared_distance)

# %% [markdown] solution
# $\lVert x - y\rVert^2 = \lVert x\rVert^2 + \lVert y\rVert^2 - 2\,x\cdot y$, and the mean of the products is the
# product of the means. The check then moves black-and-white digits by coin flips. Within [0, 1] every pixel can only
# move *inwards*, so the batch comes nearer to the clean one; without the clip it goes away. That is the blind spot.

# %% [markdown]
# **3 · Explain (5 min).** The attacker changes the suspect images (the denominator); clean images, centres, σ and λ
# stay. Which of "h" ($\hat h$), "H" ($\hat H$), "theta" (θ), "R1" (mean ratio over the numerator) can change?

# %%
# solution instead of: my_changing = None  # a set such as {"h", "R1"}
my_changing = {"H", "theta", "R1"}
# end of solution
exercises.check("06.3", my_changing)

# %% [markdown] solution
# $\hat h$ is a mean over the numerator alone. The attacked images enter through $\hat H$, from there into θ, and so
# into $\overline{R_1} = \hat h^\top \theta$. That chain is differentiable: it is what the knowing attacker descends.
