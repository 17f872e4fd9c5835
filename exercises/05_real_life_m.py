"""Exercises of notebook 05: one suspect in closed form, why few suspects scatter, a detector of one line."""

# %% [markdown]
# **1 · Write (15 min).** One suspect, σ and λ fixed. The denominator holds one row of kernel values φ, so $\hat H =
# \varphi\,\varphi^\top$. Write the mean ratio over the numerator, $\hat h^\top\theta$.

# %%
import numpy as np

from compendium import exercises


def my_single_suspect(phi_numerator, phi, lam):
    """Kernel values (n, b) of the numerator and (b,) of the suspect, λ > 0; returns one number."""
    # solution instead of: return None  # ĥ, then θ, then the mean ratio
    h = phi_numerator.mean(axis=0)
    theta = np.maximum(0, h - phi * (phi @ h) / (lam + phi @ phi)) / lam
    return h @ theta
    # end of solution


exercises.check("05.1", my_single_suspect)

# %% [markdown] solution
# The solution uses the formula of Sherman and Morrison for $(\varphi\varphi^\top + \lambda I)^{-1}$;
# `np.linalg.solve` with the whole matrix gives the same. Out of reach φ = 0, and what is left is the plateau
# $\lVert\hat h\rVert^2/\lambda$.

# %% [markdown]
# **2 · Predict (5 min).** Of clean images 20 % are so unusual that they lie out of the kernels' reach. In which share
# of draws are *all* suspects like that, with one, two and three suspects? (So often does a clean batch look
# attacked.)

# %%
# solution instead of: my_all_of_1, my_all_of_2, my_all_of_3 = None, None, None  # three shares from 0 to 1
my_all_of_1, my_all_of_2, my_all_of_3 = 0.2, 0.2**2, 0.2**3
# end of solution
exercises.check("05.2", my_all_of_1, my_all_of_2, my_all_of_3)

# %% [markdown] solution
# Independent draws multiply. Nine suspects are practically never all unusual, one often is: R2 of *clean* images
# leaps at m = 1, and with it the false alarms. (The large test set makes draws without replacement nearly
# independent.)

# %% [markdown]
# **3 · Write (5 min).** As published, FGSM was not clipped. Write a detector of one line that needs no reference and
# no estimator: which images are no images?


# %%
def my_flags(images):
    """Images (n, 1, 8, 8); returns n flags, True for an image with a pixel outside [0, 1]."""
    # solution instead of: return None  # one line
    return ((images < 0) | (images > 1)).any(axis=(1, 2, 3))
    # end of solution


exercises.check("05.3", my_flags)

# %% [markdown] solution
# It flags every unclipped attack and not one clean image, at any batch size. Before a detector is praised, ask what
# the simplest one does on the same data.
