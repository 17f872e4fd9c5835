"""The stored league as tidy frames and as a record; `python -m compendium.nb14_league.stored OUT` keeps a run.

The league is measured by a script (`device`), not by the notebook, which shows what is stored.
"""

import argparse
import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from advlib import figures
from advlib.paths import write_atomically
from compendium import paths as places
from compendium.claims import record
from compendium.nb14_league import draw
from compendium.nb14_league.images import PLANS

NOTEBOOK = "14_league"
ODD = ("nothing", "another data set", "half of one class")
"""Pools that are no change of an image: clean ones, other images, another mix."""

AIM = "aim · verdict"
LEFT_OUT = "aim · verdict, family left out"
DEFAULT = "default: balls on four maps, mean of scales"


def frame(league: dict[str, Any]) -> pandas.DataFrame:
    """Return one row a set, detector, batch size and pool: kind, flagged (mean over the halves), spread, success."""
    rows = []
    for name, result in league.items():
        for detector, by_size in result["flagged"].items():
            for m, pools in by_size.items():
                for pool, shares in pools.items():
                    about = result["pools"][pool]
                    rows.append(
                        {
                            "dataset": PLANS[name].title, "detector": detector, "m": int(m), "pool": pool,
                            "kind": "odd" if pool in ODD else about["kind"], "flagged": float(np.mean(shares)),
                            "spread": float(np.std(shares, ddof=1)) if len(shares) > 1 else 0.0,
                            "success": about.get("success"), "family": about.get("family"),
                        }
                    )  # fmt: skip
    return pandas.DataFrame(rows)


def worst(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row a set, detector and batch size: the worst case of each kind, and which pool it is.

    Attacks and adaptive attacks by the least that is flagged, changes without an aim by the most.
    """
    rows = []
    for (dataset, detector, m), part in table.groupby(["dataset", "detector", "m"], sort=False):
        row: dict[str, Any] = {"dataset": dataset, "detector": detector, "m": m}
        for kind, pick in (("attack", "idxmin"), ("adaptive", "idxmin"), ("change", "idxmax")):
            some = part[part.kind == kind]
            if len(some):
                found = some.loc[getattr(some.flagged, pick)()]
                row |= {kind: found.flagged, f"{kind} pool": found.pool, f"{kind}s": len(some)}
                row[f"median {kind}"] = float(some.flagged.median())
        rows.append(row)
    return pandas.DataFrame(rows)


def separating(worst_cases: pandas.DataFrame, m: int) -> dict[str, list[str]]:
    """Return on which image sets a detector flags its least flagged attack more often than any change.

    Attackers who know a detector are left out, and so are detectors that do so nowhere.
    """
    some = worst_cases[(worst_cases.m == m) & (worst_cases.attack > worst_cases.change)]
    return {name: list(part.dataset) for name, part in some.groupby("detector", sort=False)}


def read() -> dict[str, Any]:
    """Read the stored league, image set → result."""
    return json.loads((places.REFERENCE / "league.json").read_text(encoding="utf-8"))


def summary(worst_cases: pandas.DataFrame, m: int) -> pandas.DataFrame:
    """Return the notebook's table: a row a set and question, its worst cases with batches of m; at most eight rows."""
    wanted = {AIM: "aimed", DEFAULT: "changed"}
    some = worst_cases[(worst_cases.m == m) & worst_cases.detector.isin(list(wanted))]
    rows = [
        {
            "image set": row["dataset"], "question": wanted[row["detector"]],
            "least flagged attack": row.get("attack pool"), "share": row.get("attack"),
            "least flagged that knows a detector": row.get("adaptive pool"), "its share": row.get("adaptive"),
            "most flagged change": row.get("change pool"), "that share": row.get("change"),
        }
        for row in some.to_dict("records")
    ]  # fmt: skip
    return pandas.DataFrame(rows).set_index(["image set", "question"])


def levels(table: pandas.DataFrame, league: dict[str, Any]) -> pandas.DataFrame:
    """Return how often changes without an aim are called aimed at 5 %, a row a set and batch size.

    Columns: changes that were tried, images and batches of each, the median and the largest share, which change that
    is, and the largest share where the calibration had no change of that family.
    """
    sets = {PLANS[name].title: result for name, result in league.items()}
    rows = []
    for (dataset, m), part in table[table.family.notna()].groupby(["dataset", "m"], sort=False):
        own, without = (part[part.detector == detector] for detector in (AIM, LEFT_OUT))
        if not len(own):
            continue
        most, result = own.loc[own.flagged.idxmax()], sets[dataset]
        rows.append(
            {
                "image set": dataset, "m": m, "changes": len(own), "images": result["pools"][most.pool]["images"],
                "batches": result["checked"], "median": own.flagged.median(), "largest": most.flagged,
                "which": most.pool,
                "largest, family left out": without.flagged.max(),
            }
        )  # fmt: skip
    return pandas.DataFrame(rows)


def metrics(table: pandas.DataFrame) -> dict[str, float]:
    """Return what prose may say: worst cases, by set, detector, batch size."""
    found = {}
    for row in worst(table).to_dict("records"):
        for kind in ("attack", "adaptive", "change"):
            if isinstance(row.get(f"{kind} pool"), str):
                found[f"{row['dataset']}.{row['detector']}.{row['m']}.{kind}"] = round(row[kind], 4)
    return found


def keep(out: Path) -> None:
    """Store a run's league, its figure and its record among the references."""
    league = json.loads((out / "league.json").read_text(encoding="utf-8"))
    write_atomically(places.REFERENCE / "league.json", json.dumps(league, ensure_ascii=False) + "\n")
    table = frame(league)
    figures.save_figure(draw.worst_cases(worst(table), 25), places.REFERENCE / f"{NOTEBOOK}.paper.worst.png")
    seconds = sum(
        pool["crafted_s"] + pool["scored_s"] for result in league.values() for pool in result["pools"].values()
    ) + sum(sum(result["seconds"].values()) for result in league.values())
    content = {
        "generated_by": "python -m compendium.nb14_league.device",
        "notebook": NOTEBOOK,
        "profile": "paper",
        "parameters": {"profile": "paper", "seed": 0},
        "metrics": metrics(table)
        | {
            f"{PLANS[name].title}.{what}": result[what]
            for name, result in league.items()
            for what in ("accuracy", "test", "clean", "draws", "halves", "checked")
            if what in result
        },
        "verdicts": {},
        "comparisons": [],
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "duration_s": round(seconds, 1),
        "environment": next(iter(league.values()))["environment"],
    }
    path = record.reference_path(NOTEBOOK, "paper")
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where `device` wrote league.json")
    keep(parser.parse_args().out)
