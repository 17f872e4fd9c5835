"""Exercises of notebook 04: TGSM within a ball, noise of the attack's size, shared images."""

# %% [markdown]
# **1 · Write (15 min).** Write [TGSM](../docs/glossary.md#tgsm) as Kurakin et al. describe it: `steps` steps of ε
# *toward* a target class. After each step, bring the images back to within `ball` of the clean ones, pixel by pixel,
# and to within [0, 1]. `gradient_of(images)` is the gradient of the target's loss at these images.

# %%
import numpy as np

from compendium import exercises


def my_tgsm(images, gradient_of, epsilon, steps, ball):
    """Images (n, 1, 8, 8), gradient_of a function of images; returns images (n, 1, 8, 8)."""
    # solution instead of: return None  # a loop of three lines
    moved = images
    for _ in range(steps):
        moved = moved - epsilon * np.sign(gradient_of(moved))
        moved = np.clip(moved, images - ball, images + ball)
        moved = np.clip(moved, 0, 1)
    return moved
    # end of solution


exercises.check("04.1", my_tgsm)

# %% [markdown] solution
# The loss is that of the class the attack wants, so it goes *down*: the sign is minus. The repository that G17
# adapted has no ball. There twelve steps of 0.05 may move a pixel by 0.6, and the printed ε says little about the
# size.

# %% [markdown]
# **2 · Write (10 min).** A control must be as large as the attack. Write Gaussian noise whose
# [L2](../docs/glossary.md#norms) norm is, image by image, that of the attack's change. Do not clip.


# %%
def my_noise(images, attacked, rng):
    """Images and attacked (n, 1, 8, 8), rng a NumPy generator; returns noisy images (n, 1, 8, 8)."""
    # solution instead of: return None  # rng.normal(size=…) draws noise; scale it image by image
    noise = rng.normal(size=images.shape)
    size, wanted = (np.sqrt((change**2).sum(axis=(1, 2, 3))) for change in (noise, attacked - images))
    return images + noise * (wanted / size)[:, None, None, None]
    # end of solution


exercises.check("04.2", my_noise)

# %% [markdown] solution
# With one factor for the whole batch, images that the attack moved far would get too little noise and others too
# much. `advlib.attacks.gaussian_noise` also keeps the norm after clipping, which needs a search for the factor.

# %% [markdown]
# **3 · Predict (5 min).** Two batches of 100 images are drawn independently from the same N images. How many images
# lie in both, on average, if N = 1,000? And if N = 10,000?

# %%
# solution instead of: my_shared_of_1000, my_shared_of_10000 = None, None  # two numbers of images
my_shared_of_1000, my_shared_of_10000 = 100 * 100 / 1_000, 100 * 100 / 10_000
# end of solution
exercises.check("04.3", my_shared_of_1000, my_shared_of_10000)

# %% [markdown] solution
# Each of the 100 images of the first batch is in the second with probability 100/N. Shared images make clean batches
# alike, so R2 falls as N falls: that may be why Table 2 prints a smaller R2 for MNIST than Table 1.
