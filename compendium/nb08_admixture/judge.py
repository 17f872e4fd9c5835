"""Verdicts, tables and records of notebook 08_admixture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas

from advlib.prdc import expected_coverage
from compendium.claims import published
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED, Finding, compare, judge_sentences
from compendium.common import vs22
from compendium.common.boundary import PAPER_SIZES, PAPER_STEPS
from compendium.nb08_admixture.experiment import Admixture
from compendium.nb08_admixture.mixtures import SHARES, TABLES, Mixture
from compendium.nb08_admixture.power import CLAIMED, FLAGGED, by_the_better, nearest_share, smallest_share

MODES = (AS_PUBLISHED, CORRECTED)


def record_admixture(run: Any, results: Sequence[Admixture]) -> None:
    """Put §5.3 into a run's record: mixtures and maps as metrics, tables and sentences as comparisons.

    Parameters
    ----------
    run : record.Run
    results : sequence of Admixture
    """
    for result in results:
        prefix = f"admixture.{result.image_set.title}"
        for name in result.fgsm:
            for kind, found in (("fgsm", result.fgsm[name]), ("boundary", result.boundary[name])):
                run.metric(f"{prefix}.{name}.{kind}.density", found.density.ravel())
                run.metric(f"{prefix}.{name}.{kind}.coverage", found.coverage.ravel())
            for title, power in result.maps[name].items():
                for statistic in TABLES:
                    values = [None if np.isnan(value) else value for value in power[statistic].to_numpy().ravel()]
                    run.metric(f"{prefix}.{name}.power.{title}.{statistic}", values)
        if result.image_set.in_paper:
            _compare_tables(run, result)
    judge_sentences(run, findings(results))
    _compare_smallest_share(run, results)


def _compare_tables(run: Any, result: Admixture) -> None:
    """Compare with Tables 4 and 5, within three standard errors of our batch.

    What is attacked depends on an unknown network besides. Few images have wide errors, in which everything would lie:
    at most half of the printed value is allowed.
    """
    title, scored = result.image_set.title, {name: count["scored"] for name, count in result.boundary_counts.items()}
    steps = f"{result.boundary_steps} of {PAPER_STEPS} steps, {scored[AS_PUBLISHED]} images as published, "
    for statistic, item in TABLES.items():
        mixed = f"{steps}{scored[CORRECTED]} corrected"
        mixed += f", {result.boundary_references} references" if statistic == "density" else ""
        alone = f"{result.fgsm[CORRECTED].n_queries} clean images alone"
        alone += ", scaled to the paper's numbers by the closed form" if statistic == "coverage" else ""
        for s, share in enumerate(SHARES[:-1]):
            key = ("vs22", item, title, f"share={share:g}")
            printed, values, near, allowed = published.value(*key), {}, {}, 0.0
            for name in MODES:
                # Without an attack all queries, of which there are more than attacked ones.
                found = result.boundary[name] if share else result.fgsm[name]
                value = getattr(found, statistic)[0, s] * (1 if share else _to_papers_size(found, statistic, title))
                scale = 1 if statistic == "density" else found.coverage[0, 0] / found.density[0, 0]
                allowed = 3 * scale * found.density_error + 0.005 + (vs22.RELATIVE * printed if share else 0)
                allowed = min(allowed, 0.5 * printed)
                values[name], near[name] = round(float(value), 3), abs(value - printed) <= allowed
            run.compare(compare(key, values, near, f"band ± {allowed:.2g}; {mixed if share else alone}"))


def _to_papers_size(found: Mixture, statistic: str, title: str) -> float:
    """Factor from clean coverage at our numbers of references and queries to the paper's; density needs none."""
    if statistic == "density":
        return 1.0
    ours = expected_coverage(found.n_reference, found.n_queries, vs22.K)
    return expected_coverage(*PAPER_SIZES[title], vs22.K) / ours


def progressive(found: Mixture, statistic: str) -> bool:
    """Whether a statistic moves from the clean batch's towards the attacked one's with every larger share.

    Judged where the two ends differ by more than a fifth of the clean one's; steps back of up to a tenth of the way
    are chance.
    """
    values = getattr(found, statistic)
    way = values[:, -1] - values[0, 0]
    judged = np.abs(way) > 0.2 * values[0, 0]
    return bool((np.diff(values[judged], axis=1) / way[judged, None] > -0.1).all())


def missed(results: Sequence[Admixture], name: str) -> tuple[list[str], float]:
    """Return which attacks are missed at a share of 25 % in the largest batches, and the least power there."""
    powers = {}
    for result in results:
        for attack, power in result.maps[name].items():
            known = by_the_better(power).loc[nearest_share(power)].dropna()
            if len(known):
                powers[f"{result.image_set.title} {attack}"] = float(known.iloc[-1])
    return [attack for attack, power in powers.items() if power < FLAGGED], min(powers.values())


def detected_from(power: pandas.DataFrame) -> float | None:
    """Smallest share detected by either statistic, in the largest batches of which a quarter could be attacked.

    In larger ones the share that is asked about is missing, and nothing could be detected.
    """
    asked = power["density"][power.index >= min(CLAIMED, power.index.max())].dropna(axis=1, how="all")
    if asked.empty:
        return None
    shares = [smallest_share(power[statistic, asked.columns[-1]]) for statistic in TABLES]
    return min((share for share in shares if share is not None), default=None)


def _least_power(results: Sequence[Admixture], name: str) -> tuple[float, str]:
    """Power against the attack seen least, at the largest share and in the largest batches drawn; and which it is."""
    found = [(0.0, "none drawn")]
    for result in results:
        for attack, power in result.maps[name].items():
            known = by_the_better(power).iloc[-1].dropna()
            if len(known):
                found.append((float(known.iloc[-1]), f"{result.image_set.title} {attack}, m = {known.index[-1]}"))
    return min(found[1:] or found)


def findings(results: Sequence[Admixture]) -> dict[str, Finding]:
    """Judge the sentences of §5.3 and §6; see `data/published/sentences/08_admixture.yaml` for the criteria."""
    goes = {name: {s: all(progressive(r.fgsm[name], s) for r in results) for s in TABLES} for name in MODES}
    quarter = {name: missed(results, name) for name in MODES}
    whole = {name: _least_power(results, name) for name in MODES}
    shares = {
        name: {r.image_set.title: detected_from(list(r.maps[name].values())[-1]) for r in results} for name in MODES
    }
    words = {
        name: ", ".join(f"{title} {'never' if share is None else f'{share:.0%}'}" for title, share in found.items())
        for name, found in shares.items()
    }
    return {
        "progressive": Finding(
            {name: all(found.values()) for name, found in goes.items()},
            {name: ", ".join(f"{s} {'progressive' if ok else 'not progressive'}" for s, ok in found.items())
             for name, found in goes.items()},
        ),
        "quarter_flagged": Finding(
            {name: not attacks for name, (attacks, _) in quarter.items()},
            {name: f"least power at 25 % in the largest batches: {least:.2f}; missed: {', '.join(attacks) or 'none'}"
             for name, (attacks, least) in quarter.items()},
            {"flagged": FLAGGED},
        ),
        "boundary_flagged": Finding(
            {name: not any("boundary" in attack for attack in attacks) for name, (attacks, _) in quarter.items()},
            {name: f"share from which batches are detected, the largest that could be drawn: {words[name]}"
             for name in MODES},
            {"steps": results[0].boundary_steps, "paper_steps": PAPER_STEPS},
        ),
        "whole_batches_flagged": Finding(
            {name: power >= FLAGGED for name, (power, _) in whole.items()},
            {name: f"least power over the attacks {power:.2f}: {which}" for name, (power, which) in whole.items()},
            {"flagged": FLAGGED},
        ),
    }  # fmt: skip


def _compare_smallest_share(run: Any, results: Sequence[Admixture]) -> None:
    """Compare the share from which on every attack is detected with the quarter that §6 names."""
    smallest = {}
    for name in MODES:
        shares = [detected_from(power) for result in results for power in result.maps[name].values()]
        smallest[name] = None if None in shares else max(shares)
    holds = {name: share is not None and abs(share - CLAIMED) < 0.01 for name, share in smallest.items()}
    words = {name: "never" if share is None else share for name, share in smallest.items()}
    cause = (
        f"smallest share from which on every attack that was run is detected in the largest batches; power of at least "
        f"{FLAGGED:g} at 5 % false alarms by density or by coverage, two-sided; which share is detected depends on the "
        "attack and on the batch size, which the text leaves open"
    )
    run.compare(compare(("vs22", "§6", "all", "smallest share flagged"), words, holds, cause))


def detectable(results: Sequence[Admixture], name: str = CORRECTED) -> pandas.DataFrame:
    """Show from which share on a batch is detected, for each attack, statistic and batch size.

    Returns
    -------
    DataFrame
        Entries are shares, or "never"; "> 10%" where no larger share could be drawn for want of attacked images, "–"
        where none could.
    """

    def word(power: pandas.Series) -> str:
        share, drawn = smallest_share(power), power[power.index > 0].dropna().index
        if share is not None:
            return f"{share:.0%}"
        if not len(drawn):
            return "–"
        return "never" if drawn.max() == power.index.max() else f"> {drawn.max():.0%}"

    words = {
        (result.image_set.title, attack, statistic): power[statistic].apply(word)
        for result in results
        for attack, power in result.maps[name].items()
        for statistic in TABLES
    }
    frame = pandas.DataFrame(words).T.rename_axis(["image set", "attack", "statistic"])
    return frame.rename(columns="m = {}".format).rename_axis(columns=None)
