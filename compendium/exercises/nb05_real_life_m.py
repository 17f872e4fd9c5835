"""Checks of the exercises of notebook 05."""

import numpy as np
from scipy import stats

from advlib import attacks
from advlib.ulsif import ULSIF
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, expect, require


def single_suspect(my_single_suspect: Answer) -> str:
    """05.1: the mean ratio against one suspect, held against fits."""
    lam = 0.1
    numerator = small.reference()[:60].reshape(60, -1).astype(np.float64)
    unseen = small.digits(3)[0].reshape(3, -1).astype(np.float64)
    phi_nu = small.kernels(numerator, numerator)
    h, found = phi_nu.mean(axis=0), []
    for suspect in (numerator[0], unseen[0], unseen[0] + 100):
        phi = small.kernels(suspect[None], numerator)[0]
        given = float(called(my_single_suspect, phi_nu, phi, lam))
        truth = ULSIF(sigmas=1.0, lambdas=lam).fit(numerator, suspect[None]).mean_ratio_
        free = np.linalg.solve(np.outer(phi, phi) + lam * np.eye(len(h)), h)
        theta = np.maximum(0, free)
        expect(given, truth, {
            "The suspect has no part in your ratio: that is the plateau, for one that lies out of reach.": h @ h / lam,
            "That is the ratio at the suspect, φ · θ. The mean over the numerator is ĥ · θ.": phi @ theta,
            "That is the mean weight. The mean ratio over the numerator is ĥ · θ.": theta.mean(),
            "Negative weights are left: θ = max(0, …).": h @ free,
        }, f"A fit with one suspect gives {truth:.4f}, your formula {given:.4f}.")  # fmt: skip
        found.append(truth)
    inside, clean, away = found
    return f"The ratio is {inside:.2f} for a digit of the numerator, {clean:.2f} for another, {away:.2f} out of reach."


def all_unusual(my_all_of_1: float, my_all_of_2: float, my_all_of_3: float) -> str:
    """05.2: pᵐ."""
    share = 0.2
    for m, value in enumerate((my_all_of_1, my_all_of_2, my_all_of_3), 1):
        wanted = float(stats.binom.pmf(m, m, share))
        require(0 <= value <= 1, f"{m} suspects: a share lies between 0 and 1, but yours is {value:g}; 20 % is 0.2.")
        expect(value, wanted, {
            f"{m} suspects: that is the share in which *at least one* is unusual.": 1 - (1 - share) ** m,
            f"{m} suspects: more of them do not divide the share; independent draws multiply.": share / m,
            f"{m} suspects: it does not stay the same; all of them must be unusual at once.": share,
        }, f"{m} suspects: with which probability is each of them unusual, and all of them?")  # fmt: skip
    return "It falls so fast that only one or two clean suspects are often mistaken for an attack."


def outside(my_flags: Answer) -> str:
    """05.3: images that leave [0, 1]."""
    images, labels = small.digits(150)
    batches = {
        "clean digits": images,
        "digits under FGSM, clipped": attacks.fgsm(small.network(), images, labels, 0.1).images,
        "digits under FGSM, not clipped": attacks.fgsm(small.network(), images, labels, 0.1, clip=None).images,
    }
    shares = {name: called(my_flags, batch, shape=(150,)).mean() for name, batch in batches.items()}
    clean, clipped, free = shares.values()
    require(clean == 0, f"{clean:.0%} of clean digits are flagged: 0 and 1 themselves are valid pixels.")
    require(clipped == 0, f"{clipped:.0%} of clipped images are flagged, but none of them leaves [0, 1].")
    low = np.mean((batches["digits under FGSM, not clipped"] < 0).any(axis=(1, 2, 3)))
    require(free > 0, "No unclipped image is flagged: look below 0 and above 1, and at every pixel.")
    require(free == 1, f"{free:.0%} of unclipped images are flagged; all of them leave [0, 1], {low:.0%} below 0.")
    return "All unclipped attacks are flagged, no clean image, and no clipped attack."
