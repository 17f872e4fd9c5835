"""What notebook 07_boundary_attack records: the numbers of §5.2, and the statistics of its sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compendium.claims import published, verdicts
from compendium.common import boundary, vs22
from compendium.nb07_boundary_attack.measure import STATISTICS, Outcome

Statistics = dict[str, dict[str, float]]
LEAST = 1e-3
"""Density below which logarithms stop."""


def record(run: Any, found: Sequence[Outcome], tiles: Mapping[str, Any]) -> None:
    """Keep the numbers of §5.2 and of its sentences.

    Parameters
    ----------
    run : record.Run
    found : sequence of Outcome
        From `measure.outcomes`.
    tiles : mapping
        From `pathmnist_tiles.stored`.
    """
    for result in found:
        for name, value in _metrics(result).items():
            run.metric(f"{result.title}.{result.mode.name}.{name}", value)
        run.metric(f"{result.title}.reference.boundary", result.clean.whole)
        run.metric(f"{result.title}.reference.fgsm", result.clean.under_fgsm)
    for name, value in tiles_gains(tiles).items():
        run.metric(f"tiles.{name}", value)
    for name, value in tiles["authors"].items():
        run.metric(f"tiles.authors.{name}", value)
    papers = [result for result in found if result.image_set.in_paper]
    _record_numbers(run, papers)
    for row, statistics in (sentences(papers) | tiles_sentences(tiles, papers)).items():
        verdicts.sentence(run, "vs22", row, statistics)


def _metrics(result: Outcome) -> dict[str, float]:
    curve, smallest = result.by_steps, min(result.attacked)
    metrics: dict[str, float] = {f"images.{key}": count for key, count in result.counts.items()}
    for steps, l2, density in zip(result.steps, result.l2, curve.density, strict=True):
        metrics |= {f"l2.{steps}": l2, f"density.{steps}": density}
    metrics |= {"clean_density": curve.clean.density, "clean_coverage": curve.clean.coverage}
    metrics["coverage_in_proportion"] = result.coverage
    for name in STATISTICS:
        metrics |= {f"p.{name}": result.p[name], f"flagged.{name}": result.flagged(name, smallest)}
    if result.noise is not None:
        metrics["noise_density"] = result.noise.density
    if result.fgsm_density is not None:
        metrics["fgsm_density"] = result.fgsm_density
    return metrics


def _record_numbers(run: Any, papers: Sequence[Outcome]) -> None:
    numbers = {r: section_numbers(r, run.rng(f"quartiles {r.title}, {r.mode.name}")) for r in papers}
    for entry in published.load("vs22", "§5.2"):
        mine = [result for result in papers if result.title == entry.row]
        if mine:
            count = mine[-1].counts["attacked"] if entry.column.startswith("adv") else mine[-1].clean.hits.shape[0]
            ours = {result.mode.name: numbers[result][entry.column] for result in mine}
            verdicts.number(run, entry.key, ours, f"{count} images, {len(mine[-1].clean.manifold.radii_)} references")


def section_numbers(result: Outcome, rng: np.random.Generator) -> dict[str, float]:
    """Return what §5.2 prints of an image set: column → our number.

    Parameters
    ----------
    result : Outcome
        Of one of the paper's image sets.
    rng : numpy.random.Generator
        Draws the batches behind the quartiles.
    """
    found = {
        "reference density": result.clean.whole[0],
        "adversarial density": result.by_steps.density[-1],
        "reference coverage": result.clean.whole[1],
        "adversarial coverage": result.coverage,
    }
    for kind, balls in (("reference", result.clean.balls), ("adversarial", result.balls)):
        low, high = boundary.quartile_range(balls, boundary.PAPER_BATCHES[result.title], rng)
        found |= {f"{kind} density smallest": low, f"{kind} density largest": high}
    return found


def _far(density: float, clean: float) -> float:
    """Base-2 logarithm of a density over the clean one."""
    return float(np.log2(max(density, LEAST) / max(clean, LEAST)))


def growth(result: Outcome) -> float:
    """Smallest exponent with which median coverage grows from a batch size to the next, clean and attacked.

    1: in proportion to the batch; 0: not at all.
    """
    sizes = np.log(list(result.attacked))
    medians = [np.maximum(result.medians("coverage", which), 1e-9) for which in ("clean", "attacked")]
    return float(min((np.diff(np.log(median)) / np.diff(sizes)).min() for median in medians))


def sentences(papers: Sequence[Outcome]) -> dict[str, Statistics]:
    """Measure what decides the sentences of §5.2: sentence → mode → statistic → value.

    Parameters
    ----------
    papers : sequence of Outcome
        Of the paper's own image sets, in both modes.
    """
    changes = {
        statistic: max(abs(r.clean.whole[i] / r.clean.under_fgsm[i] - 1) for r in papers)
        for i, statistic in enumerate(STATISTICS)
    }
    found: dict[str, Statistics] = {
        "boundary-references-unchanged": {
            "corrected": {f"largest relative change of reference {name}": value for name, value in changes.items()}
        }
    }
    for mode in (mode.name for mode in vs22.MODES):
        mine = [result for result in papers if result.mode.name == mode]
        several = [growth(result) for result in mine if result.counts["adversarial"] and len(result.attacked) > 1]
        beyond = [_beyond_fgsm(result) for result in mine if result.fgsm_density is not None]
        p = {f"p-value of {name}": result.p[name] for result in mine if result.title == "MNIST" for name in STATISTICS}
        values = {
            "boundary-coverage-grows-with-batch": {"smallest growth exponent of coverage": min(several, default=None)},
            "boundary-mnist-path-discernible": p,
            "boundary-worse-than-fgsm": {"smallest lead over FGSM": min(beyond, default=None)},
        }
        for row, statistics in values.items():
            if statistics and None not in statistics.values():
                found.setdefault(row, {})[mode] = statistics
    return found


def _beyond_fgsm(result: Outcome) -> float:
    """How much further from clean density is than under FGSM, in powers of two."""
    clean = result.clean.whole[0]
    return abs(_far(result.by_steps.density[-1], clean)) - abs(_far(result.fgsm_density, clean))


def tiles_gains(tiles: Mapping[str, Any]) -> dict[str, float]:
    """Density over the clean one of tiles clipped without a network: as far as some ε allows, and to the bounds."""
    moves, bounds = tiles["movements"], tiles["boundary"]["own statistics"]
    alone = moves[(moves["way"] == "own statistics") & (moves["name"] == "clipped alone")]["density"].to_numpy()
    gain = float(bounds["clipped_density"] / bounds["clean_density"])
    return {"clipped_gain": float(alone.max() / alone[0]), "bounds_gain": gain}


def tiles_sentences(tiles: Mapping[str, Any], papers: Sequence[Outcome]) -> dict[str, Statistics]:
    """Measure what decides the sentences on PathMNIST, by the stored study of its tiles: as `sentences`.

    Under the boundary attack the tiles are clipped to its bounds alone as published, and attacked by FGSM as corrected.

    Parameters
    ----------
    tiles : mapping
        From `pathmnist_tiles.stored`.
    papers : sequence of Outcome
        For the direction of MNIST's density.
    """
    moves = {key: move.reset_index() for key, move in tiles["movements"].groupby(["way", "name"])}
    gains = {name: _far(gain, 1) for name, gain in tiles_gains(tiles).items()}
    ways = {
        "as published": (moves["own statistics", "FGSM as published"], moves["one half", "FGSM as published"]),
        "corrected": (moves["corrected", "FGSM corrected"],) * 2,
    }
    found = {}
    for mode, (own, elsewhere) in ways.items():
        tile = gains["bounds_gain"] if mode == "as published" else _rise(own)
        opposite = {"log2 of density over clean, tiles": tile}
        mnist = [result.by_steps for result in papers if (result.title, result.mode.name) == ("MNIST", mode)]
        if mnist:
            opposite["log2 of density over clean, MNIST"] = _far(mnist[0].density[-1], mnist[0].clean.density)
        found[mode] = {
            "path-boundary-density-opposite": opposite,
            "path-density-not-like-mnist": {"log2 of density over clean at eps = 1": _rise(own)},
            "path-density-rise-is-confinement": {
                "largest class at eps = 1": float(own["largest_class"].iloc[-1]),
                "log2 of density over clean where the largest class grows": _rise(elsewhere),
                "log2 of density over clean, clipped without a network": gains["clipped_gain"],
            },
        }
    return {row: {mode: of[row] for mode, of in found.items()} for row in found["corrected"]}


def _rise(moves: Any) -> float:
    return _far(moves["density"].iloc[-1], moves["density"].iloc[0])
