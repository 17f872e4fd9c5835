"""What notebook 04_transferability records of Table 2 and of the paper's sentences, and how it shows it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas

from advlib.ulsif import BatchFit
from compendium.claims import published, verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED
from compendium.common import tables
from compendium.nb04_transferability.measure import PGD, crossing, with_printed

METRICS = {"r1": "R1", "r2": "R2", "auroc": "AUROC", "tpr_at_5_fpr": "power"} | {
    name: name for name in ("fooled", "targeted", "l0", "l2", "linf")
}
"""Name of a metric → column of a measurement."""

MOST = 0.5
"""An attack fools most where it makes the network misread at least this share of what it read rightly."""

Tables = Mapping[str, pandas.DataFrame]  # mode → measurements


def record_scan(run: Any, scan: pandas.DataFrame) -> None:
    """Keep every scanned R1 as a metric, and the amount at which each row takes its printed value, where it does."""
    for m in scan.to_dict("records"):
        run.metric("scan.{attack}.{how}.{row}.{amount:g}.r1".format(**m), m["R1"])
    for (row, attack, how), mine in with_printed(scan).groupby(["row", "attack", "how"], sort=False):
        reached = crossing(mine["amount"], mine["R1"], mine["printed R1"].iloc[0])
        if not np.isnan(reached):
            run.metric(f"crossing.{attack}.{how}.{row}", round(reached, 3))


def record_measurements(run: Any, prefix: str, measurements: pandas.DataFrame) -> None:
    """Keep R1, R2, decisions, success and sizes of measurements as metrics."""
    for m in measurements.to_dict("records"):
        for name, column in METRICS.items():
            if pandas.notna(m[column]):
                run.metric(f"{prefix}.{m['mode']}.{m['row']}.{m['attack']}.{name}", m[column])


def apart(measurements: pandas.DataFrame) -> pandas.Series:
    """Whether the 95 % intervals of R1 and R2 do not touch."""
    m = measurements
    return (m["R1 low"] > m["R2 high"]) | (m["R1 high"] < m["R2 low"])


def chosen_steps(run: Any) -> int:
    """Read how many steps of TGSM the stored run at paper scale chose, by looking at Table 2."""
    return tables.at_paper_scale(run)["best.steps"]


# ------------------------------------------------------------------------------------------------ Table 2


def record_table2(run: Any, measurements: pandas.DataFrame) -> None:
    """Record every number of Table 2 in both reruns, whose measurements these are."""
    lines = {(m["row"], m["attack"], m["mode"]): m for m in measurements.to_dict("records")}
    for entry in published.load("g17", "Table 2"):
        side, _, attack = entry.column.partition(" ")
        both = {mode: lines[entry.row, attack, mode] for mode in (AS_PUBLISHED, CORRECTED)}
        ways = "; ".join(f"{mode}: {m['amount']:g}, {m['how']}" for mode, m in both.items())
        verdicts.number(run, entry.key, {mode: m[side] for mode, m in both.items()}, ways if side == "R1" else "")


def record_real_real(run: Any, clean: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Record every R2 of Table 2 from draws that no attack enters: mode → row → (t,)."""
    for entry in published.load("g17", "Table 2"):
        if entry.column.startswith("R2"):
            verdicts.number(run, entry.key, {mode: rows[entry.row].mean() for mode, rows in clean.items()})


def pairs_frame(fit: BatchFit) -> pandas.DataFrame:
    """Show which pairs (σ, λ) leave-one-out picks most often, at most four, and the R2 of their draws."""
    draws = pandas.DataFrame({"σ": fit.sigma_, "λ": fit.lambda_, "R2": fit.mean_ratio_})
    groups = draws.groupby(["σ", "λ"])["R2"].agg(["size", "min", "max"]).nlargest(4, "size").reset_index()
    groups[["σ", "λ", "min", "max"]] = groups[["σ", "λ", "min", "max"]].map("{:.2g}".format)
    groups.columns = ["σ", "λ", "draws", "lowest R2", "highest R2"]
    return groups.set_index(["σ", "λ"])


def moved_frame(measurements: pandas.DataFrame) -> pandas.DataFrame:
    """Show how many images each attack fools and how far it moves them, both reruns side by side, by two digits."""
    names = {"fooled": "fooled", "l2": "L2", "linf": "L∞"}
    frame = measurements.assign(images=measurements["row"].str.split(" (", regex=False).str[0])
    frame = frame.drop_duplicates(["images", "attack", "mode"]).set_index(["images", "attack", "mode"])
    frame = frame[list(names)].rename(columns=names).round(2).unstack("mode")
    words = {AS_PUBLISHED: "as the papers' code did it", CORRECTED: "as the paper describes it"}
    return frame.rename(columns=words).map("{:.2g}".format)


# ------------------------------------------------------------------------------------------------ sentences


def by_mode(measurements: pandas.DataFrame, control: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """Split measurements by mode; PGD among the controls is one more attack, corrected."""
    tables = {mode: measurements[measurements["mode"] == mode] for mode in (AS_PUBLISHED, CORRECTED)}
    pgd = control[control["attack"].str.startswith(PGD)]
    return tables | {CORRECTED: pandas.concat([tables[CORRECTED], pgd], ignore_index=True)}


def fooling(table: pandas.DataFrame) -> pandas.DataFrame:
    """Keep the attacks that fool most, or all if none does: that one is missed which fools nobody is no objection."""
    strong = table[table["fooled"] >= MOST]
    return strong if len(strong) else table


def record_attacks(run: Any, tables: Tables, control: pandas.DataFrame) -> None:
    """Record the sentences about every attack: the least AUROC and the least power.

    Parameters
    ----------
    run : record.Run
    tables : dict
        From `by_mode`.
    control : pandas.DataFrame
        From `measure.controls`; its aimless changes are told beside.
    """
    aimless = control[control["how"] == "aimless"]
    flagged = (aimless["power"] >= 0.5).sum()
    also = f"{flagged} of {len(aimless)} aimless changes of the same size are flagged in most batches too"
    names = {"transferable": ("AUROC", "AUROC"), "irrespective-of-attack": ("power", "power at 5 % false alarms")}
    for row, (column, title) in names.items():
        least = {mode: table.loc[table[column].idxmin()] for mode, table in _strong(tables).items()}
        statistics = {mode: {f"least {column} over attacks that fool most": m[column]} for mode, m in least.items()}
        words = {mode: f"lowest {title} {m[column]:.2f} ({m['row']}, {m['attack']})" for mode, m in least.items()}
        verdicts.sentence(run, "g17", row, statistics, words, also if len(aimless) else "")


def _strong(tables: Tables) -> dict[str, pandas.DataFrame]:
    return {mode: fooling(table.reset_index(drop=True)) for mode, table in tables.items()}


def record_channels(run: Any, tables: Tables) -> None:
    """Record the sentences that set one channel beside colour; `tables` as for `record_attacks`."""
    one = _strong({mode: table[table["row"] == "MNIST"] for mode, table in tables.items()})
    colour = _strong({mode: table[table["row"] != "MNIST"] for mode, table in tables.items()})
    least = {mode: (one[mode]["AUROC"].min(), colour[mode]["AUROC"].min()) for mode in tables}
    verdicts.sentence(
        run, "g17", "single-and-multi-channel",
        {mode: {"least AUROC of one channel": a, "least AUROC of colour": b} for mode, (a, b) in least.items()},
        {mode: "lowest AUROC: one channel {:.2f}, colour {:.2f}".format(*pair) for mode, pair in least.items()},
    )  # fmt: skip
    statistics, words = {}, {}
    for mode in tables:
        both = pandas.concat([one[mode], colour[mode]])
        low, high, mean = both["power"].min(), both["power"].max(), both["AUROC"].mean()
        words[mode] = f"power {low:.2f} to {high:.2f}, mean AUROC {mean:.2f}"
        statistics[mode] = {
            "range of power over attacks and channels": high - low,
            "mean AUROC over attacks and channels": mean,
        }
    verdicts.sentence(run, "g17", "works-equally-well", statistics, words)


def record_stationary(run: Any, curves: pandas.DataFrame) -> None:
    """Record the range of R2 of clean MNIST over the numbers of images that it is drawn from (`real_real_by_pool`)."""
    low, high = curves.min(), curves.max()
    name = "range of R2 over the numbers of images drawn from"
    verdicts.sentence(
        run, "g17", "real-real-stationary",
        {mode: {name: high[mode] - low[mode]} for mode in curves},
        {mode: f"R2 on MNIST {low[mode]:.2f} to {high[mode]:.2f}, by the images drawn from" for mode in curves},
    )  # fmt: skip


def record_networks(run: Any, measurements: pandas.DataFrame) -> None:
    """Record the least AUROC under one attack on several networks (`measure.by_network`)."""
    tables = dict(list(measurements.drop_duplicates(["mode", "network"]).groupby("mode")))
    words = {
        mode: ", ".join("{AUROC:.2f} on {network} (R1 {R1:.1f})".format(**m) for m in table.to_dict("records"))
        for mode, table in tables.items()
    }
    verdicts.sentence(
        run, "g17", "model-agnostic",
        {mode: {"least AUROC over networks": table["AUROC"].min()} for mode, table in tables.items()},
        {mode: f"AUROC under one TGSM: {said}" for mode, said in words.items()},
    )  # fmt: skip
