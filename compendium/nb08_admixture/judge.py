"""What notebook 08_admixture records: Tables 4 and 5, statistics of its sentences, and tables to show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas

from compendium.claims import verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED
from compendium.nb08_admixture.experiment import Admixture
from compendium.nb08_admixture.mixtures import SHARES, TABLES, Mixture
from compendium.nb08_admixture.power import CLAIMED, FLAGGED, nearest_share, smallest_share

MODES = (AS_PUBLISHED, CORRECTED)
LOOKED_AT = (0.25, 0.5, 0.75, 1.0)
"""Sizes of FGSM at which mixtures are judged, or those of the grid that are nearest."""
APART = 0.2
"""Share of the clean value by which an attacked batch must differ from it, so that steps towards it are no chance."""


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
            run.metric(f"{prefix}.{name}.boundary.images", result.boundary[name].n_queries)
            for kind, found in (("fgsm", result.fgsm[name]), ("boundary", result.boundary[name])):
                run.metric(f"{prefix}.{name}.{kind}.density", found.density.ravel())
                run.metric(f"{prefix}.{name}.{kind}.coverage", found.coverage.ravel())
            for title, power in result.maps[name].items():
                for statistic in TABLES:
                    values = [None if np.isnan(value) else value for value in power[statistic].to_numpy().ravel()]
                    run.metric(f"{prefix}.{name}.power.{title}.{statistic}", values)
        if result.image_set.in_paper:
            record_tables(run, result)
    record_sentences(run, [result for result in results if result.image_set.in_paper])


def record_tables(run: Any, result: Admixture) -> None:
    """Record Tables 4 and 5 on one image set, from the boundary attack's mixtures."""
    for statistic, item in TABLES.items():
        counts = " and ".join(str(found.n_queries) for found in result.boundary.values())
        steps = f"{counts} attacked images, {result.boundary_steps} steps"
        for s, share in enumerate(SHARES[:-1]):
            values = {name: getattr(result.boundary[name], statistic)[0, s] for name in MODES}
            if not share:
                values = dict.fromkeys(MODES, result.clean[list(TABLES).index(statistic)])
            key = ("vs22", item, result.image_set.title, f"share={share:g}")
            verdicts.number(run, key, values, steps if share else "untouched images of the hold-out")


def record_sentences(run: Any, results: Sequence[Admixture]) -> None:
    """Record the number of §6 and the sentences for which the attacks were run.

    Parameters
    ----------
    run : record.Run
    results : sequence of Admixture
        Of the paper's own image sets.
    """
    smallest = {}
    for name in MODES:
        shares = [detected_from(power) for result in results for power in _fgsm(result, name)]
        smallest[name] = "never" if None in shares or not shares else max(shares)
    verdicts.number(run, ("vs22", "§6", "all", "smallest share flagged"), smallest, "against FGSM of every size run")
    for row, statistics in sentences(results).items():
        verdicts.sentence(run, "vs22", row, statistics)


def sentences(results: Sequence[Admixture]) -> dict[str, dict[str, dict[str, float]]]:
    """Measure what decides the sentences of §5.3 and §6: sentence → mode → statistic → value.

    A sentence about the boundary attack is left out where that was not run.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in MODES:
        fgsm = [_fgsm(result, name) for result in results]
        every = [power for maps in fgsm for power in maps]
        walked = [list(result.maps[name].values())[-1] for result in results if result.boundary]
        steps = [least_step(result.fgsm[name], statistic) for result in results for statistic in TABLES]
        values = {
            "admixture-progressive": {"smallest step": _least(steps)},
            "admixture-25-percent-flagged": {"smallest power at 25 %": _lowest(every, np.maximum)},
            "admixture-25-percent-diverges": {
                "power at 25 %, largest FGSM": _lowest([maps[-1] for maps in fgsm if maps], np.minimum)
            },
        }
        if walked:
            values["boundary-admixture-told-apart"] = {"smallest power at 25 %": _lowest(walked, np.maximum)}
            values["both-attacks-detected"] = {
                "smallest power, FGSM": _lowest(every, np.minimum, 1.0),
                "smallest power, boundary attack": _lowest(walked, np.minimum, 1.0),
            }
        for row, statistics in values.items():
            if None not in statistics.values():
                found.setdefault(row, {})[name] = statistics
    return found


def _fgsm(result: Admixture, name: str) -> list[pandas.DataFrame]:
    return [power for attack, power in result.maps[name].items() if attack.startswith("FGSM")]


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _lowest(maps: Sequence[pandas.DataFrame], either: np.ufunc, share: float = CLAIMED) -> float | None:
    """Lowest power at a share, in the largest batches that could be drawn, by the better or the worse statistic."""
    known = [
        either(power["density"], power["coverage"]).loc[nearest_share(power, share)].dropna().tolist() for power in maps
    ]
    return _least([powers[-1] if powers else None for powers in known])


def looked_at(x: np.ndarray) -> np.ndarray:
    """Return where in a grid of FGSM's sizes the entries of `LOOKED_AT` lie."""
    return np.unique([np.abs(np.asarray(x) - size).argmin() for size in LOOKED_AT])


def least_step(found: Mixture, statistic: str) -> float | None:
    """Smallest step that a larger share makes towards the attacked batch, as a share of the whole way.

    A straight line makes steps of 0.25. None where no attacked batch differs from the clean one by `APART` of it.
    """
    values = getattr(found, statistic)[looked_at(found.x)]
    way = values[:, -1] - values[0, 0]
    judged = np.abs(way) > APART * values[0, 0]
    return float((np.diff(values[judged], axis=1) / way[judged, None]).min()) if judged.any() else None


def missed(results: Sequence[Admixture], name: str) -> list[str]:
    """Return which attacks are missed at a share of 25 % in the largest batches, by density and by coverage."""
    powers = {
        f"{result.image_set.title} {attack}": _lowest([power], np.maximum)
        for result in results
        for attack, power in result.maps[name].items()
    }
    return [attack for attack, power in powers.items() if power is not None and power < FLAGGED]


def detected_from(power: pandas.DataFrame) -> float | None:
    """Smallest share detected by either statistic, in the largest batches of which a quarter could be attacked.

    In larger ones the share that is asked about is missing, and nothing could be detected.
    """
    asked = power["density"][power.index >= min(CLAIMED, power.index.max())].dropna(axis=1, how="all")
    if asked.empty:
        return None
    shares = [smallest_share(power[statistic, asked.columns[-1]]) for statistic in TABLES]
    return min((share for share in shares if share is not None), default=None)


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
