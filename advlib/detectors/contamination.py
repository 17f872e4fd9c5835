"""Which share of a batch does not fit, from the ranks of its samples among calibration samples.

References
----------
.. [1] J. D. Storey, "A direct approach to false discovery rates", J. R. Stat. Soc. B 64 (2002) 479-498,
   doi:10.1111/1467-9868.00346.
.. [2] G. Blanchard, G. Lee and C. Scott, "Semi-supervised novelty detection", JMLR 11 (2010) 2973-3009.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

_LAMBDAS = (0.01, 0.05, 0.1, 0.2, 0.5)  # tail shares at which a lower bound of the contamination is sought


@dataclass(frozen=True)
class Contamination:
    """Share of a batch that does not fit.

    Attributes
    ----------
    share : float
        Storey's estimate [1]_: of clean samples half have a p-value above ½, so a lack of such samples is a surplus of
        others. It assumes that misfits are among the more unusual half; misfits that are not make it too small.
    low, high : float
        Interval at `level`, with the error of calibration counted in. The lower end assumes nothing about the misfits
        (the bound of [2]_ at five tail shares at once), the upper end what `share` does.
    level : float
    """

    share: float
    low: float
    high: float
    level: float = 0.95


def contamination(p: np.ndarray, n: int, level: float = 0.95) -> Contamination:
    """Estimate the share of misfits from sample p-values (m,) that were ranked among n calibration samples."""
    m = len(p)
    error = (1 - level) / 4  # two ends, and for each the batch's error and the calibration's
    low = 0.0
    for cut in _LAMBDAS:
        small = int((p <= cut + 1e-12).sum())
        if small:
            least = stats.beta.ppf(error / len(_LAMBDAS), small, m - small + 1)
            clean = _clean_share(cut, n, 1 - error / len(_LAMBDAS))
            if clean < 1:
                low = max(low, (least - clean) / (1 - clean))
    large = int((p > 0.5).sum())
    clean = 1 - _clean_share(0.5, n, error)
    least = stats.beta.ppf(error, large, m - large + 1) if large else 0.0
    high = max(low, 1 - least / clean)
    share = min(max(1 - 2 * large / m, low), high)
    return Contamination(float(share), float(low), float(high), level)


def _clean_share(cut: float, n: int, quantile: float) -> float:
    """Quantile of the share of clean samples with p ≤ cut, over calibration sets of n: a beta distribution."""
    a = cut * (n + 1)
    return float(stats.beta.ppf(quantile, max(a, 1e-9), n + 1 - a)) if a < n + 1 else 1.0
