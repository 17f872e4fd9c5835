"""What notebook 06 records, and its verdicts on the sentences of G17 §5.

The paper names no data set, so a sentence counts for the corrected rerun where it holds in both modes on one set at
least, and for the published one where it holds on one at least in that mode.
"""

from typing import Any

import numpy as np
import pandas

from compendium.claims import published, verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED, Finding
from compendium.nb06_crafting.measure import ALGORITHM_2

FOOLED = 0.5
"""A model counts as fooled where the attack leaves at most this share of its accuracy: the paper does not say."""

LITTLE = 0.1
"""An accuracy rises "not by a significant margin" where it rises by at most this: the paper does not say."""


def falls(curve: pandas.DataFrame) -> bool:
    """Whether ε at the smallest τ is smaller than at the largest, and never larger on the way down."""
    epsilons = curve.sort_values("tolerance")["epsilon"].values
    return bool(epsilons[0] < epsilons[-1] and (np.diff(epsilons) >= 0).all())


def rise(curve: pandas.DataFrame) -> float:
    """How much higher the accuracy is at the smallest τ than at the largest."""
    accuracies = curve.sort_values("tolerance")["accuracy"].values
    return accuracies[0] - accuracies[-1]


def fools(row: pandas.Series) -> bool:
    """Whether the attack of one row leaves at most `FOOLED` of the clean accuracy."""
    return bool(row["accuracy"] <= FOOLED * row["clean accuracy"])


def record_curves(run: Any, curves: pandas.DataFrame) -> None:
    """Put Fig. 4's two curves of every setting, and the paper's three sentences about them, into a run's record.

    Parameters
    ----------
    run : record.Run
    curves : pandas.DataFrame
        From `measure.curves`, over all of `IMAGE_SETS` in both modes.
    """
    for row in curves.to_dict("records"):
        for name in ("epsilon", "accuracy", "AUROC"):
            run.metric(f"{row['setting']}.tolerance={row['tolerance']:g}.{name.lower()}", row[name])
    smallest = published.value("g17", "setting", "Algorithm 2", "smallest tolerance")
    by_setting = {key: curve for key, curve in curves.groupby(["image set", "mode"], sort=False)}
    strictest = {key: c.loc[(c["tolerance"] - smallest).abs().idxmin()] for key, c in by_setting.items()}
    holds = {
        "epsilon_falls": {key: falls(curve) for key, curve in by_setting.items()},
        "accuracy_rises_little": {key: rise(curve) <= LITTLE for key, curve in by_setting.items()},
        "fools_at_smallest_tolerance": {key: fools(row) for key, row in strictest.items()},
    }
    words = {
        "epsilon_falls": {
            key: f"ε {strictest[key]['epsilon']:.2f} to {curve['epsilon'].max():.2f}"
            for key, curve in by_setting.items()
        },
        "accuracy_rises_little": {key: f"by {rise(curve):.2f}" for key, curve in by_setting.items()},
        "fools_at_smallest_tolerance": {key: f"accuracy {row['accuracy']:.2f}" for key, row in strictest.items()},
    }
    verdicts.judge_sentences(run, {name: over_image_sets(holds[name], words[name]) for name in holds})


def over_image_sets(holds: dict[tuple[str, str], bool], words: dict[tuple[str, str], str]) -> Finding:
    """Join what was found in each setting, (image set, mode) → whether the sentence holds, and words for it."""
    titles = list(dict.fromkeys(title for title, _ in holds))
    both = [title for title in titles if holds[title, AS_PUBLISHED] and holds[title, CORRECTED]]
    broken = [", ".join(key) for key, true in holds.items() if not true]
    return Finding(
        {AS_PUBLISHED: any(holds[title, AS_PUBLISHED] for title in titles), CORRECTED: bool(both)},
        {mode: "; ".join(f"{title}: {words[title, mode]}" for title in titles) for mode in (AS_PUBLISHED, CORRECTED)},
        {
            "where": f"in both modes on {' and '.join(both) or 'neither'}{'' if both == titles else ' only'}",
            "exceptions": f"; not so for {' and '.join(broken)}" if broken else "",
            "little": LITTLE,
            "fooled": FOOLED,
        },
    )


def record_attackers(run: Any, compared: pandas.DataFrame) -> None:
    """Put both attackers' accuracies and what a decision sees of them into a run's record."""
    columns = {"accuracy": "accuracy", "AUROC": "auroc", "power at 5 % false alarms": "tpr_at_5_fpr"}
    for (setting, tolerance, attacker), row in compared.iterrows():
        who = "algorithm2" if attacker == ALGORITHM_2 else "knowing"
        for column, name in columns.items():
            run.metric(f"attackers.{setting}.tolerance={tolerance:g}.{who}.{name}", row[column])
