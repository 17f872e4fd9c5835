"""What notebook 05_real_life_m records of Table 3 and of the sentences of G17 §4.5, and how it shows it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from compendium.claims import verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED
from compendium.common.size_sweeps import COMBINED, SizeResult, select
from compendium.nb05_real_life_m.measure import published_table3


def record_table3(run: Any, results: Sequence[SizeResult]) -> None:
    """Record our two values for every number of Table 3.

    Parameters
    ----------
    run : record.Run
    results : sequence of SizeResult
        Of MNIST, both modes; sizes that the table has not are left out.
    """
    for m, *entries in published_table3():
        found = {r.mode: r for r in select(results, row="MNIST", size=m)}
        for side, entry in zip(("r1", "r2"), entries, strict=True):
            draws = {mode: getattr(r, side) for mode, r in found.items()}
            if draws:
                medians = ", ".join(f"{mode} {np.median(values):.2f}" for mode, values in draws.items())
                note = f"median of the draws: {medians}" + "; the suspect is given twice" * (m == 1)
                verdicts.number(run, entry.key, {mode: values.mean() for mode, values in draws.items()}, note)


def record_claims(run: Any, mnist: Sequence[SizeResult], cifar: Sequence[SizeResult]) -> None:
    """Record what the two sentences of §4.5 are judged by, from sweeps in both modes.

    Raises
    ------
    ValueError
        When mnist has no size of 1.
    """
    single = {r.mode: r for r in select(mnist, row="MNIST", size=1)}
    if not single:
        raise ValueError(f"mnist must hold a size of 1 for this sentence, but holds {sorted({r.size for r in mnist})}")
    words = {
        mode: f"R1 = {r.r1.mean():.2f}, R2 = {r.r2.mean():.2f}; {r.attack.tpr_at_5_fpr:.0%} of single images flagged "
        f"at 5 % false alarms, AUROC {r.attack.auroc:.2f}"
        for mode, r in single.items()
    }
    noise = [f"{r.control.tpr_at_5_fpr:.0%} ({mode})" for mode, r in single.items() if r.noise is not None]
    note = f"random ±ε noise is flagged in {', '.join(noise)}" if noise else ""
    statistics = {mode: {"power with one suspect": r.attack.tpr_at_5_fpr} for mode, r in single.items()}
    verdicts.sentence(run, "g17", "single-adversarial-sample", statistics, words, note)
    statistics, words = {}, {}
    for mode in (AS_PUBLISHED, CORRECTED):
        ours = {r.size: r.attack.auroc for r in select(mnist, mode=mode, row="MNIST")}
        others = {r.size: r.attack.auroc for r in select(cifar, mode=mode, row=COMBINED) if r.size in ours}
        largest = max(abs(ours[size] - value) for size, value in others.items())
        statistics[mode] = {"largest difference of AUROC between MNIST and CIFAR-10": largest}
        pairs = [f"{ours[size]:.2f} and {value:.2f} at m = {size}" for size, value in others.items()]
        words[mode] = "AUROC on MNIST and CIFAR-10: " + ", ".join(pairs)
    verdicts.sentence(run, "g17", "same-on-other-data", statistics, words, "under FGSM alone")
