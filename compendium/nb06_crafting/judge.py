"""What notebook 06 records of Algorithm 2, and by what the sentences of G17 §5 are judged.

The paper names no data set, so a sentence is meant of every one: the worse of both counts, in each mode by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas

from compendium.claims import published, verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED
from compendium.nb06_crafting.measure import ALGORITHM_2, similarity_frame

FOOLED = 0.5
"""A model counts as fooled where the attack leaves at most this share of its accuracy."""

Pick = Callable[[list[float]], float]


def falls(curve: pandas.DataFrame) -> bool:
    """Whether ε at the smallest τ is smaller than at the largest, and never larger on the way down."""
    epsilons = curve.sort_values("tolerance")["epsilon"].values
    return bool(epsilons[0] < epsilons[-1] and (np.diff(epsilons) >= 0).all())


def rise(curve: pandas.DataFrame, column: str) -> float:
    """How much higher a column stands at the smallest τ than at the largest."""
    values = curve.sort_values("tolerance")[column].values
    return float(values[0] - values[-1])


def left(row: pandas.Series) -> float:
    """Share of the clean accuracy that the attack of one row leaves."""
    return float(row["accuracy"] / row["clean accuracy"])


def fools(row: pandas.Series) -> bool:
    """Whether the attack of one row leaves at most `FOOLED` of the clean accuracy."""
    return left(row) <= FOOLED


def record_curves(run: Any, curves: pandas.DataFrame) -> None:
    """Put Fig. 4's two curves of every setting, and what the sentences about them are judged by, into a run's record.

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
    lines = []
    for (title, mode), curve in curves.groupby(["image set", "mode"], sort=False):
        strictest = curve.loc[(curve["tolerance"] - smallest).abs().idxmin()]
        lines.append({
            "image set": title, "mode": mode, "epsilon": strictest["epsilon"], "largest": curve["epsilon"].max(),
            "fall": -rise(curve, "epsilon"), "rise": rise(curve, "accuracy"), "left": left(strictest),
            "accuracy": strictest["accuracy"],
        })  # fmt: skip
    found = pandas.DataFrame(lines)
    risen = ("largest rise of accuracy from the largest tolerance to the smallest", "rise", max)
    fallen = ("least fall of epsilon from the largest tolerance to the smallest", "fall", min)
    share = ("largest share of the clean accuracy left at the smallest tolerance", "left", max)
    _sentence(run, "tolerance-lowers-eps", found, "ε {epsilon:.2f} to {largest:.2f}", fallen)
    _sentence(run, "accuracy-rises-little", found, "by {rise:.2f}", risen)
    _sentence(run, "tolerance-0.05-fools-model", found, "accuracy {accuracy:.2f}, risen by {rise:.2f}", share, risen)


def record_similarity(run: Any, similar: pandas.DataFrame) -> None:
    """Put the energy distances of `measure.similarity`, and what two sentences are judged by, into a run's record."""
    for name, rows in similar[~similar["crafted"]].groupby("setting", sort=False):
        for column in ("epsilon", "gap", "energy"):
            run.metric(f"similarity.{name}.{column}", rows[column].tolist())
    frame = similarity_frame(similar)
    columns = {"agreement in order": "agreement", "energy left": "energy_left", "power": "power"}
    for name, row in frame.iterrows():
        for column, word in columns.items():
            run.metric(f"similarity.{name}.{word}", row[column])
    found = frame.rename(columns=columns)
    gamma = ("least agreement in order of the gap and the energy distance over epsilon", "agreement", min)
    near = (
        "largest energy distance at the smallest tolerance, as a share of that at the first epsilon",
        "energy_left",
        max,
    )
    seen = ("largest power of the energy distance at the smallest tolerance", "power", max)
    _sentence(run, "smaller-tolerance-more-similar", found, "agreement in order {agreement:.2f}", gamma)
    words = "{energy_left:z.0%} of the distance left, power {power:.2f}"
    _sentence(run, "crafted-closer-in-density", found, words, near, seen)


def _sentence(run: Any, row: str, found: pandas.DataFrame, words: str, *statistics: tuple[str, str, Pick]) -> None:
    """Record a sentence: for each mode the worse image set's statistics (name, column, min or max), words for both."""
    tables = {mode: found[found["mode"] == mode] for mode in (AS_PUBLISHED, CORRECTED)}
    verdicts.sentence(
        run, "g17", row,
        {mode: {name: pick(table[column].tolist()) for name, column, pick in statistics}
         for mode, table in tables.items()},
        {mode: "; ".join(f"{m['image set']}: {words.format(**m)}" for m in table.to_dict("records"))
         for mode, table in tables.items()},
    )  # fmt: skip


def record_attackers(run: Any, compared: pandas.DataFrame) -> None:
    """Put both attackers' accuracies and what a decision sees of them into a run's record."""
    columns = {"accuracy": "accuracy", "AUROC": "auroc", "power at 5 % false alarms": "tpr_at_5_fpr"}
    for (setting, tolerance, attacker), row in compared.iterrows():
        who = "algorithm2" if attacker == ALGORITHM_2 else "knowing"
        for column, name in columns.items():
            run.metric(f"attackers.{setting}.tolerance={tolerance:g}.{who}.{name}", row[column])
