"""Verdicts and steps of a stream as records for JSON, and records as lines for a reader."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from advlib.detectors import AimTest, AimVerdict, Step, Verdict
from advlib.detectors.samples import extremes


def range_note(values: np.ndarray, value_range: tuple[float, float]) -> list[str]:
    """Return a sentence where images leave the reference's range by more than a twentieth, else nothing."""
    low, high = value_range
    slack = (high - low) / 20
    mine = extremes(values)
    if values.ndim == 2 or (mine[0] >= low - slack and mine[1] <= high + slack):
        return []
    return [
        f"The values of the batch run from {mine[0]:.3g} to {mine[1]:.3g}, outside the reference's {low:.3g} to "
        f"{high:.3g}: normalised, or not clipped? That alone makes a batch differ."
    ]


def verdict_record(
    verdict: Verdict, names: Sequence[str], source: str, alpha: float, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a verdict in JSON's types, samples in the order of suspicion."""
    return {
        "batch": source,
        "n_samples": len(names),
        "flagged": verdict.reject(alpha),
        "alpha": alpha,
        "p_value": verdict.p_value,
        "statistic": verdict.statistic,
        "draws": verdict.draws,
        "parts": [
            {"name": part.name, "statistic": part.statistic, "expected": part.expected, "p_value": part.p_value}
            for part in verdict.parts
        ],
        "contamination": asdict(verdict.contamination),
        "samples": [
            {
                "name": str(names[i]),
                "p_value": float(verdict.sample_p_values[i]),
                "score": float(verdict.sample_scores[i]),
            }
            for i in np.argsort(verdict.sample_p_values, kind="stable")
        ],
        "assumed": [*verdict.assumed, *notes],
    }


def aim_record(verdict: AimVerdict, test: AimTest, alpha: float) -> dict[str, Any]:
    """Return the answer to the second question in JSON's types."""
    return {
        "aimed": verdict.reject(alpha),
        "p_value": verdict.p_value,
        "statistic": verdict.statistic,
        "network": test.network,
        "likeliest_change": {"family": verdict.least[0], "size": verdict.least[1]},
        "fitting_changes": [{"family": family, "size": size} for family, size in verdict.fitting],
        "families": list(dict.fromkeys(family for family, _ in test.bank_.cells)),
        "sizes": [float(size) for size in test.sizes],
        "sample_p_values": verdict.sample_p_values.tolist(),
        "assumed": list(verdict.assumed),
    }


def aim_lines(aim: dict[str, Any] | None, changed: bool, alpha: float) -> list[str]:
    """Return the second answer, and what both together mean, as lines for a reader.

    Parameters
    ----------
    aim : dict or None
        From `aim_record`; None where the detector was fitted without a network.
    changed : bool
        The first answer.
    alpha : float
        Level of both.
    """
    if aim is None:
        return ["not asked whether a change aims at a network: fit with --network to ask."]
    family, size = aim["likeliest_change"]["family"], aim["likeliest_change"]["size"]
    change = "no change" if family == "nothing" else f"{family} of {size:g}"
    comparison = f"p = {aim['p_value']:.3g} {'≤' if aim['aimed'] else '>'} {alpha:g}"
    if aim["aimed"]:
        kinds = len(aim["fitting_changes"])
        words = f"no change without an aim explains what {aim['network']} says around these images"
        lines = [f"AIMED  {words} ({comparison}; {kinds} fit their size and spectrum, the likeliest is {change})."]
    else:
        words = f"what {aim['network']} says around these images is explained by {change}"
        lines = [f"no aim seen  {words} ({comparison})."]
    meaning = {
        (True, True): "Changed, and towards the network's errors: treat it as an attack.",
        (True, False): "Changed, as far as can be seen without an aim: look for noise, a camera, compression first.",
        (False, True): "Aimed, though the images themselves look clean: a small or smooth attack looks so.",
        (False, False): "Neither changed nor aimed, as far as can be seen; an attacker who knows both tests is not.",
    }  # fmt: skip
    return [*lines, meaning[changed, aim["aimed"]]]


def verdict_lines(record: dict[str, Any], shown: int = 10) -> list[str]:
    """Return what `verdict_record` holds as lines for a reader, the verdict first.

    Parameters
    ----------
    record : dict
        From `verdict_record`.
    shown : int
        Samples in the ranking.
    """
    p, alpha, m = record["p_value"], record["alpha"], record["n_samples"]
    many = f"{m} samples" if m > 1 else "one sample"
    comparison = f"p = {p:.3g} {'≤' if record['flagged'] else '>'} {alpha:g}"
    word, like = ("FLAGGED", "unlike the calibration set") if record["flagged"] else (
        "clean", "as the calibration set would give")  # fmt: skip
    lines = [
        f"{word}  {record['batch']}: {many} {like} ({comparison}).",
        *aim_lines(record.get("aim"), record["flagged"], alpha),
        "",
        f"  {'statistic':<28} {'batch':>9} {'expected':>9} {'p alone':>9}",
    ]
    lines += [
        f"  {part['name']:<28} {part['statistic']:>9.4g} {part['expected']:>9.4g} {part['p_value']:>9.3g}"
        for part in record["parts"]
    ]
    share = record["contamination"]
    lines += [
        "",
        f"  At least {share['low']:.0%} do not fit ({share['level']:.0%} confidence); estimated {share['share']:.0%}, "
        "if all that do not are unusual.",
        "",
        f"  {'least fitting':<28} {'p alone':>9}",
    ]
    lines += [f"  {sample['name']:<28} {sample['p_value']:>9.3g}" for sample in record["samples"][:shown]]
    if m > shown:
        lines.append(f"  … and {m - shown} more")
    sentences = [*record["assumed"], *((record.get("aim") or {}).get("assumed", []))]
    return [*lines, "", *(f"  · {sentence}" for sentence in sentences)]


def step_record(step: Step, source: str, alpha: float) -> dict[str, Any]:
    """Return one step of a stream in JSON's types."""
    return {
        "batch": source,
        "number": step.number,
        "n_samples": step.size,
        "p_value": step.p_value,
        "e_value": step.e_value,
        "evidence": step.evidence,
        "threshold": 1 / alpha,
        "alarm": step.alarm,
        "first_alarm": step.first_alarm,
    }


def step_line(record: dict[str, Any]) -> str:
    """Return one line about one step of a stream."""
    mark = "ALARM" if record["alarm"] else "     "
    digits = 0 if record["evidence"] >= 100 else 2
    evidence = f"{record['evidence']:.{digits}f}" if math.isfinite(record["evidence"]) else "∞"
    return (
        f"{mark} {record['number']:>5}  {record['batch']}  {record['n_samples']} samples  p = {record['p_value']:.3g}  "
        f"evidence {evidence} of {record['threshold']:g}"
    )
