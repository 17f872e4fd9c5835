"""Verdicts and steps of a stream as records for JSON, and records as lines for a reader."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from advlib.detectors import Step, Verdict
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
    return [*lines, "", *(f"  · {sentence}" for sentence in record["assumed"])]


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
