"""Checks of the exercises of notebook 12b."""

import numpy as np

from advlib.prdc import expected_coverage
from compendium.common import vs22
from compendium.exercises.feedback import Answer, called, expect, mistaken, require


def coverage_in_closed_form(my_expected_coverage: Answer) -> str:
    """12b.1: expected coverage, held against the library's."""
    for n, m, k in ((40, 25, 3), (200, 50, 5)):
        given = float(called(my_expected_coverage, n, m, k))
        wanted = expected_coverage(n, m, k)
        others, places = n - 1, np.arange(k)
        expect(given, wanted, {
            "That is the share of *empty* balls: take it from 1.": 1 - wanted,
            "N − 1, not N: a centre is no neighbour of its own.": 1 - np.prod((n - places) / (n + m - places)),
            "One factor is missing: j runs from 0 to k − 1.":
                1 - np.prod((others - places[:-1]) / (others + m - places[:-1])),
            "One factor too many: j runs from 0 to k − 1.":
                1 - np.prod((others - np.arange(k + 1)) / (others + m - np.arange(k + 1))),
            "Neighbours are drawn without replacement: each factor has one point less.":
                1 - (others / (others + m)) ** k,
        }, f"N = {n}, m = {m}, k = {k}: the library has {wanted:.4f}, you have {given:.4f}.", rtol=1e-9)  # fmt: skip
    part, whole = (float(called(my_expected_coverage, n, 2_100, 5)) for n in (20_000, 67_900))
    return (
        f"VS22's 2,100 digits: {part:.2f} against 20,000 references, {whole:.2f} against all 67,900; both are printed."
    )


def kinks(my_kink_mnist: float, my_kink_organ: float) -> str:
    """12b.2: μ/σ."""
    found = []
    for value, name in zip((my_kink_mnist, my_kink_organ), ("mnist", "organamnist"), strict=True):
        chosen = vs22.image_set(name)
        (mean,), (std,) = chosen.mean, chosen.std
        mistaken(value, chosen.kink, {
            f"{chosen.title}: that is σ/μ.": std / mean,
            f"{chosen.title}: that is where a *white* pixel reaches its bound.": (1 - mean - std) / std,
            f"{chosen.title}: that is μ, in pixels; ε counts in units of σ.": mean,
        }, rtol=5e-3)  # fmt: skip
        require(abs(value - chosen.kink) < 0.005, f"{chosen.title}: black is x = −μ/σ; how far is it from 0?")
        found.append(chosen.kink)
    return f"{found[0]:.2f} lies on the axis, {found[1]:.2f} does not: OrganMNIST's curve has no kink."
