"""What a stream of clean batches does under one calibration set, and under one that grows with the stream."""

import numpy as np
import pandas
from scipy import stats

from advlib.detectors import sequential


def clean_streams(
    *, streams: int, length: int, batch_size: int, n_calibration: int, alpha: float, rng: np.random.Generator
) -> pandas.Series:
    """Share of clean streams that ever raise an alarm, by what each batch is compared with.

    Samples are normal numbers, so that Student's two-sample test gives exact p-values at once where real tests need
    permutations. Evidence is that of `advlib.detectors.sequential`, and an alarm is raised where it reaches 1/α.

    Parameters
    ----------
    streams, length : int
        Streams, and batches in each.
    batch_size, n_calibration : int
        Numbers in a batch, and in a calibration set.
    alpha : float
    rng : numpy.random.Generator

    Returns
    -------
    Series
        "the calibration set alone" (p-values depend on each other through it, and no bound holds) and "and all earlier
        batches" (p-values are independent) → share of streams.
    """
    samples = rng.normal(size=(streams, n_calibration + length * batch_size))
    ends = n_calibration + batch_size * np.arange(length)
    p = {"the calibration set alone": [], "and all earlier batches": []}
    for end in ends:
        batch = samples[:, end : end + batch_size]
        for words, upto in zip(p, (n_calibration, end), strict=True):
            p[words].append(stats.ttest_ind(batch, samples[:, :upto], axis=1).pvalue)
    evidence = {words: sequential.evidence(np.stack(values, axis=1)) for words, values in p.items()}
    return pandas.Series({words: float((e.max(axis=1) >= 1 / alpha).mean()) for words, e in evidence.items()})
