"""At least which share of a batch does not fit, from the ranks of its samples among calibration samples.

Misfits may look like clean samples in whatever a test measures, so the share of them has no upper bound that data could
give; only a lower bound is identifiable [2]_. With F₀(t) and F(t) the shares of clean samples and of the batch's source
with p ≤ t, and π that of misfits in the source, F(t) ≤ (1 − π) F₀(t) + π, hence

    π ≥ (F(t) − F₀(t)) / (1 − F₀(t))   at each t.

F(t) has the exact binomial lower limit of the batch, F₀(t) the upper limit of its beta distribution over calibration
sets; five cuts t at once, errors added up (Bonferroni), so that the bound keeps its level for every kind of misfit.

References
----------
.. [1] J. D. Storey, "A direct approach to false discovery rates", J. R. Stat. Soc. B 64 (2002) 479-498,
   doi:10.1111/1467-9868.00346.
.. [2] G. Blanchard, G. Lee and C. Scott, "Semi-supervised novelty detection", JMLR 11 (2010) 2973-3009.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

_CUTS = (0.01, 0.05, 0.1, 0.2, 0.5)  # tail shares at which the lower bound is sought


@dataclass(frozen=True)
class Contamination:
    """Share of a batch that does not fit.

    Attributes
    ----------
    low : float
        Lower bound at `level`, whatever the misfits are: the true share lies below it in at most 1 − level of all
        batches and calibration sets. There is no upper bound: misfits that look clean are not seen.
    share : float
        Storey's point estimate [1]_, at least `low`: of clean samples half have a p-value above ½, so a lack of such
        samples is a surplus of others. It assumes that all misfits are among the more unusual half, and is too small
        where they are not; it has no interval.
    level : float
    """

    low: float
    share: float
    level: float = 0.95


def contamination(p: np.ndarray, n: int, level: float = 0.95) -> Contamination:
    """Bound and estimate the share of misfits from sample p-values (m,), ranked among n calibration samples."""
    m = len(p)
    error = (1 - level) / 2 / len(_CUTS)  # half for the batch, half for the calibration, at each cut
    low = 0.0
    for cut in _CUTS:
        small = int((p <= cut + 1e-12).sum())
        if small:
            least = stats.beta.ppf(error, small, m - small + 1)
            clean = _clean_share(cut, n, 1 - error)
            if clean < 1:
                low = max(low, (least - clean) / (1 - clean))
    share = max(low, 1 - 2 * int((p > 0.5).sum()) / m)
    return Contamination(float(low), float(share), level)


def _clean_share(cut: float, n: int, quantile: float) -> float:
    """Quantile of the share of clean samples with p ≤ cut, over calibration sets of n: a beta distribution."""
    a = cut * (n + 1)
    return float(stats.beta.ppf(quantile, max(a, 1e-9), n + 1 - a)) if a < n + 1 else 1.0
