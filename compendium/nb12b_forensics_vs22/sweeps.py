"""How far VS22's numbers depend on settings that the paper fixes without a reason, one setting at a time.

These are the neighbours k and the number of reference images.
"""

from typing import Any

import numpy as np
import pandas

from advlib.prdc import ReferenceManifold, expected_coverage
from advlib.progress import track
from compendium.claims import verdicts
from compendium.common import vs22

NEIGHBOURS = (1, 2, 5, 10, 20)
REFERENCE_SHARES = (0.125, 0.25, 0.5, 1.0)
BALL_EPSILONS = (0.0, 0.1, 0.2)
"""FGSM sizes of `ball_sweep`, in pixels: none, and two at which density is neither the clean one's nor 0."""


def ball_sweep(*, references: int, queries: int, rng: np.random.Generator) -> pandas.DataFrame:
    """Density and coverage of MNIST, clean and under FGSM in pixels, for several k and numbers of references.

    Parameters
    ----------
    references, queries : int
        Most reference images, and hold-out images (0 for all).
    rng : numpy.random.Generator
        Draws both. A smaller reference is a part of the larger.

    Returns
    -------
    pandas.DataFrame
        A row a setting and ε: k, references, ε, density, coverage, and the closed form of clean coverage.
    """
    chosen = vs22.image_set("mnist")
    split = vs22.reference_and_holdout("mnist", references, queries, rng)
    sweep = vs22.fgsm_sweep(vs22.CORRECTED, chosen, vs22.network(chosen), split.images, split.labels, BALL_EPSILONS)
    attacked = [vs22.flat(batch.images) for batch in sweep]
    pool = rng.permutation(vs22.flat(split.reference))
    settings = dict.fromkeys(
        [(k, len(pool)) for k in NEIGHBOURS] + [(vs22.K, round(share * len(pool))) for share in REFERENCE_SHARES]
    )
    rows = []
    for k, size in track(settings, "k and references", len(settings)):
        manifold = ReferenceManifold(k).fit(pool[:size])
        expected = expected_coverage(size, len(split.images), k)
        for epsilon, images in zip(BALL_EPSILONS, attacked, strict=True):
            rows.append((k, size, epsilon, *manifold.density_coverage(images), expected))
    return pandas.DataFrame(rows, columns=["k", "references", "ε", "density", "coverage", "expected coverage"])


def coverage_sensitivity(balls: pandas.DataFrame) -> dict[str, float]:
    """By which factor clean coverage changes with twice the neighbours, and with half of the references.

    Parameters
    ----------
    balls : pandas.DataFrame
        From `ball_sweep`.
    """
    clean = balls[balls["ε"] == 0].set_index(["k", "references"])["coverage"]
    whole = balls["references"].max()
    factors = {
        "factor of clean coverage between k = 5 and k = 10": clean[2 * vs22.K, whole] / clean[vs22.K, whole],
        "factor of clean coverage between the references and half of them": (
            clean[vs22.K, round(whole / 2)] / clean[vs22.K, whole]
        ),
    }
    return {name: float(max(factor, 1 / factor)) for name, factor in factors.items()}


def record_balls(run: Any, balls: pandas.DataFrame) -> None:
    """Put the sweep into a run's record, and VS22's sentence about k beside it.

    Parameters
    ----------
    run : record.Run
    balls : pandas.DataFrame
        From `ball_sweep`.
    """
    for row in balls.to_dict("records"):
        for name in ("density", "coverage"):
            run.metric(f"balls.k={row['k']}.references={row['references']}.eps={row['ε']:g}.{name}", row[name])
    verdicts.sentence(run, "vs22", "sensitivity-to-k", {verdicts.CORRECTED: coverage_sensitivity(balls)})
