"""Verdicts, tables and records of notebook 08_admixture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advlib.prdc import expected_coverage
from compendium.claims import published
from compendium.common import vs22
from compendium.nb07_boundary_attack import measure
from compendium.nb08_admixture.measure import (
    CLAIMED,
    FLAGGED,
    SHARES,
    TABLES,
    Admixture,
    Mixture,
    PowerMap,
    worst_share,
)


def record_admixture(run: Any, results: Sequence[Admixture]) -> None:
    """Put §5.3 into a run's record: mixtures and maps as metrics, tables and sentences as comparisons.

    Parameters
    ----------
    run : advlib.record.Run
    results : sequence of Admixture
    """
    for result in results:
        prefix = f"admixture.{result.image_set.title}"
        for name in result.fgsm:
            for kind, found in (("fgsm", result.fgsm[name]), ("boundary", result.boundary[name])):
                run.metric(f"{prefix}.{name}.{kind}.density", found.density.ravel())
                run.metric(f"{prefix}.{name}.{kind}.coverage", found.coverage.ravel())
            for found in result.maps[name]:
                for statistic, power in found.power.items():
                    values = [None if np.isnan(value) else value for value in power.ravel()]
                    run.metric(f"{prefix}.{name}.power.{found.title}.{statistic}", values)
        if result.image_set.in_paper:
            _compare_tables(run, result)
    _compare_claims(run, results)


def _compare_tables(run: Any, result: Admixture) -> None:
    title = result.image_set.title
    for statistic, item in TABLES.items():
        for s, share in enumerate(SHARES[:-1]):
            printed = published.value("vs22", item, title, f"share={share:g}")
            values, near, allowed = {}, {}, 0.0
            for name, found in result.boundary.items():
                values[name] = float(getattr(found, statistic)[0, s])
                if not share:  # all queries, of which there are more than attacked ones
                    found = result.fgsm[name]
                    values[name] = getattr(found, f"clean_{statistic}") * _to_papers_size(found, statistic, title)
                scale = 1 if statistic == "density" else found.clean_coverage / found.clean_density
                # Three standard errors of our batch; what is attacked depends on an unknown network besides. Few images
                # have wide errors, in which everything would lie: at most half of the printed value is allowed.
                allowed = 3 * scale * found.density_error + 0.005 + (vs22.RELATIVE * printed if share else 0)
                allowed = min(allowed, 0.5 * printed)
                near[name] = abs(values[name] - printed) <= allowed
            corrected, as_published = near[vs22.CORRECTED.name], near[vs22.AS_PUBLISHED.name]
            word = "reproduced" if corrected else "reproduced as published only" if as_published else "not reproduced"
            counts = result.boundary_counts
            cause = f"band ± {allowed:.2g}; "
            if share:
                cause += (
                    f"{result.boundary_steps} of {measure.PAPER_STEPS} steps, "
                    f"{counts[vs22.AS_PUBLISHED.name]['scored']} images as published, "
                    f"{counts[vs22.CORRECTED.name]['scored']} corrected"
                )
                cause += f", {result.boundary_references} references" if statistic == "density" else ""
            else:
                cause += f"{result.fgsm[vs22.CORRECTED.name].n_queries} clean images alone"
                cause += ", scaled to the paper's numbers by the closed form" if statistic == "coverage" else ""
            run.compare({
                "paper": "vs22",
                "item": item,
                "row": title,
                "column": f"share={share:g}",
                "as_published": round(values[vs22.AS_PUBLISHED.name], 3),
                "corrected": round(values[vs22.CORRECTED.name], 3),
                "verdict": word,
                "cause": cause,
            })  # fmt: skip


def _to_papers_size(found: Mixture, statistic: str, title: str) -> float:
    """Factor from clean coverage at our numbers of references and queries to the paper's; density needs none."""
    if statistic == "density":
        return 1.0
    return expected_coverage(*measure.PAPER_SIZES[title], found.k) / expected_coverage(
        found.n_reference, found.n_queries, found.k
    )


def progressive(found: Mixture, statistic: str) -> bool:
    """Whether a statistic moves from the clean batch's towards the attacked one's with every larger share.

    Judged where the two ends differ by more than a fifth of the clean one's; steps back of up to a tenth of the way
    are chance.
    """
    clean = getattr(found, f"clean_{statistic}")
    values = getattr(found, statistic)
    way = getattr(found, f"attacked_{statistic}") - clean
    judged = np.abs(way) > 0.2 * clean
    steps = np.diff(values[judged], axis=1) / way[judged, None]
    return bool((steps > -0.1).all())


def _compare_claims(run: Any, results: Sequence[Admixture]) -> None:
    names = [mode.name for mode in vs22.MODES]

    def judge(row: str, holds: Mapping[str, bool], words: Mapping[str, str | float], cause: str, **key: str) -> None:
        at_once = {"paper": "vs22", "item": "claim", "row": row, "column": ""} | key
        word = (
            "reproduced"
            if holds[vs22.CORRECTED.name]
            else "reproduced as published only"
            if holds[vs22.AS_PUBLISHED.name]
            else "not reproduced"
        )
        run.compare(
            at_once
            | {
                "as_published": words[vs22.AS_PUBLISHED.name],
                "corrected": words[vs22.CORRECTED.name],
                "verdict": word,
                "cause": cause,
            }
        )

    goes = {name: {s: all(progressive(r.fgsm[name], s) for r in results) for s in TABLES} for name in names}
    judge(
        "admixture-progressive",
        {name: all(found.values()) for name, found in goes.items()},
        {
            name: ", ".join(f"{s} {'progressive' if ok else 'not progressive'}" for s, ok in found.items())
            for name, found in goes.items()
        },
        "density is linear in the share by its definition; coverage as published also falls because images are drawn "
        "twice, which it does at ε = 0 too",
    )
    worst = {mode.name: worst_share(results, mode) for mode in vs22.MODES}
    words = {
        name: f"least power at 25 % in the largest batches: {power:.2f}; missed: {', '.join(missed) or 'none'}"
        for name, (missed, power) in worst.items()
    }
    flagged = {name: not missed for name, (missed, _) in worst.items()}
    cause = (
        f"power of at least {FLAGGED:g} at 5 % false alarms by density or by coverage, two-sided; which share is "
        "detected depends on the attack and on the batch size, which the text leaves open"
    )
    judge("admixture-25-percent-flagged", flagged, words, cause)
    judge("admixture-25-percent-diverges", flagged, words, cause)
    shares = {}
    for mode in vs22.MODES:
        found = {r.image_set.title: _best_share(m) for r in results for m in r.maps[mode.name][-1:]}
        shares[mode.name] = ", ".join(f"{t} {'never' if s is None else f'{s:.0%}'}" for t, s in found.items())
    alone = {mode.name: [t for t in worst[mode.name][0] if "boundary" in t] for mode in vs22.MODES}
    judge(
        "boundary-admixture-told-apart",
        {name: not missed for name, missed in alone.items()},
        {
            name: f"share from which batches are detected, the largest that could be drawn: {shares[name]}"
            for name in names
        },
        f"after {results[0].boundary_steps} of {measure.PAPER_STEPS} steps, at a share of 25 %",
    )
    whole = {mode.name: _least_power(results, mode) for mode in vs22.MODES}
    judge(
        "both-attacks-detected",
        {name: power >= FLAGGED for name, (power, _) in whole.items()},
        {name: f"least power over the attacks {power:.2f}: {which}" for name, (power, which) in whole.items()},
        f"wholly adversarial batches, the largest that could be drawn; power of at least {FLAGGED:g} at 5 % alarms, "
        "by density or by coverage",
    )
    smallest = {mode.name: _all_detected_from(results, mode) for mode in vs22.MODES}
    judge(
        "all",
        {name: value is not None and abs(value - CLAIMED) < 0.01 for name, value in smallest.items()},
        {name: "never" if value is None else value for name, value in smallest.items()},
        "smallest share from which on every attack that was run is detected in the largest batches; " + cause,
        item="§6",
        column="smallest share flagged",
    )


def _best_share(found: PowerMap) -> float | None:
    """Smallest share detected by either statistic, in the largest batches of which a quarter could be attacked.

    In larger ones the share that is asked about is missing, and nothing could be detected.
    """
    asked = found.shares >= min(CLAIMED, found.shares.max())
    sizes = [int(size) for size in found.sizes if not np.isnan(found.column("density", size)[asked]).all()]
    shares = [found.smallest_share(statistic, sizes[-1]) for statistic in TABLES] if sizes else []
    known = [share for share in shares if share is not None]
    return min(known) if known else None


def _least_power(results: Sequence[Admixture], mode: vs22.Mode) -> tuple[float, str]:
    """Power against the attack seen least, at the largest share and in the largest batches drawn; and which it is."""
    found = []
    for result in results:
        for attack in result.maps[mode.name]:
            power = np.maximum(attack.power["density"][-1], attack.power["coverage"][-1])
            if not np.isnan(power).all():
                at = np.flatnonzero(~np.isnan(power))[-1]
                found.append((float(power[at]), f"{result.image_set.title} {attack.title}, m = {attack.sizes[at]}"))
    return min(found) if found else (0.0, "none drawn")


def _all_detected_from(results: Sequence[Admixture], mode: vs22.Mode) -> float | None:
    shares = [_best_share(found) for result in results for found in result.maps[mode.name]]
    return None if None in shares else max(shares)
