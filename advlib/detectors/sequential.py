"""A stream of batches: false alarms controlled over all time, not batch by batch.

At 5 % a batch, a clean stream of 1,000 batches is flagged fifty times. What is wanted is one number that may be looked
at after every batch and that exceeds 1/α, at any time, with probability at most α.

**Independent p-values.** p-values of many batches against *one* calibration set depend on each other: if that set
happens to lie low, every batch looks high, and no bound holds for a product. So each batch is compared
with the calibration samples *and all earlier batches*, and joins them afterwards. If everything is exchangeable, a
batch is a random subset of all that was seen until then, whatever happened before: the p-values are independent and
uniform, exactly, for any size of the calibration set [1]_. (Where the pool outgrows `max_samples` it is thinned at
random, without looking, which leaves that argument as it is.)

**Evidence.** A small p-value becomes an e-value by a mixture of power calibrators [2]_,

    e(p) = ∫₀¹ κ p^(κ−1) dκ = (1 − p + p ln p) / (p (ln p)²),

whose mean under the null is at most 1. A change may come at any batch s, so the evidence is the weighted sum of
products that begin at each s, with weights w_s = 1/(s (s + 1)) that add up to 1:

    E_t = Σ_{s ≤ t} w_s Π_{i = s..t} e(p_i) + Σ_{s > t} w_s.

E is a non-negative martingale (or less) that begins at 1, so that P(E_t ≥ 1/α at any time t) ≤ α by Ville's inequality
[3]_. Long quiet does not use it up: only the weight of a late beginning is smaller, at batch 1,000 by what five or six
extreme p-values make good.

References
----------
.. [1] V. Vovk, I. Nouretdinov and A. Gammerman, "Testing exchangeability on-line", ICML 2003, 768-775; V. Vovk, A.
   Gammerman and G. Shafer, "Algorithmic learning in a random world", 2nd ed., Springer 2022, ch. 8,
   doi:10.1007/978-3-031-06649-8.
.. [2] V. Vovk and R. Wang, "E-values: calibration, combination and applications", Ann. Stat. 49 (2021) 1736-1754, eq.
   2, doi:10.1214/20-AOS2020.
.. [3] J. Ville, "Étude critique de la notion de collectif", Gauthier-Villars 1939; G. Shafer et al., "Test martingales,
   Bayes factors and p-values", Stat. Sci. 26 (2011) 84-101, doi:10.1214/10-STS347.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.utils.validation import check_is_fitted

from advlib.checks import ArrayLike, checked_seed, plain_array, whole_number
from advlib.detectors.base import BatchTest
from advlib.detectors.permutations import p_values, permuted_rows
from advlib.detectors.results import Scores
from advlib.detectors.samples import level

_CHEAP_DRAWS = 9_999


@dataclass(frozen=True)
class Step:
    """What a stream says after one more batch.

    Attributes
    ----------
    number : int
        Of the batch, from 1.
    size : int
        Its samples.
    p_value : float
        Of this batch against all that came before it.
    e_value : float
        The same as a bet's pay-out; its mean is at most 1 on clean streams.
    evidence : float
        E_t of the module; an alarm is raised where it reaches 1/α.
    alarm : bool
        Whether it has, at this batch or before.
    first_alarm : int or None
        The batch at which it did first.
    """

    number: int
    size: int
    p_value: float
    e_value: float
    evidence: float
    alarm: bool
    first_alarm: int | None


class StreamTest:
    """Test batch after batch with one bound on false alarms for the whole stream.

    Parameters
    ----------
    test : fitted test
        Any of `advlib.detectors`. It is not changed.
    alpha : float
        Probability that a clean stream, however long, ever raises an alarm is at most this.
    draws : int, optional
        Permutations a batch. By default 9,999 where the statistic costs little, else the test's own: the smallest
        p-value, 1/(1 + draws), bounds what one batch can add to the evidence.
    max_samples : int
        Samples that a batch is compared with; beyond, a random choice is kept.
    random_state : int or None
        Of permutations, ties and thinning.

    Attributes
    ----------
    evidence : float
        E_t of the module; 1 before the first batch.
    number : int
        Batches seen.
    first_alarm : int or None
        Batch at which the evidence reached 1/α first.

    Examples
    --------
    >>> import numpy as np
    >>> from advlib.detectors import DensityTest
    >>> rng = np.random.default_rng(0)
    >>> test = DensityTest().fit(rng.normal(size=(500, 4)), rng.normal(size=(200, 4)))
    >>> stream = StreamTest(test)
    >>> [stream.update(shift + rng.normal(size=(50, 4))).alarm for shift in (0, 0, 3, 3)]
    [False, False, False, True]
    """

    def __init__(
        self,
        test: BatchTest,
        *,
        alpha: float = 0.05,
        draws: int | None = None,
        max_samples: int = 20_000,
        random_state: int | None = 0,
    ):
        check_is_fitted(test)
        self.test = test
        self.alpha = level("alpha", alpha)
        self.draws = (
            whole_number(draws, "draws", 1) if draws is not None else _CHEAP_DRAWS if test._cheap else test.draws
        )
        self.max_samples = whole_number(max_samples, "max_samples", 2)
        self.number = 0
        self.first_alarm: int | None = None
        self._running, self._waiting = 0.0, 1.0
        self._pool = test.calibration_
        checked_seed(random_state)
        self._rng = (
            random_state
            if isinstance(random_state, np.random.Generator)
            else np.random.default_rng(None if random_state is None else [random_state, 2])
        )

    @property
    def evidence(self) -> float:
        """E_t of the module."""
        return self._running + self._waiting

    def update(self, batch: ArrayLike | Scores, labels: ArrayLike | None = None) -> Step:
        """Look at the next batch.

        Parameters
        ----------
        batch : (m, c, h, w) or (m, d) array or tensor, or Scores
            As for the test's own `test`. Sizes may differ from batch to batch.
        labels : (m,) integer array, optional
            Classes, if the test was fitted with labels.

        Returns
        -------
        Step

        Raises
        ------
        ValueError
            As the test's own `test`; the stream is then as it was before.
        """
        scores = batch if isinstance(batch, Scores) else self.test.measure(batch, labels)
        self.test._check_scores(scores)
        if not len(scores):
            raise ValueError("batch must hold at least one sample, but is empty")
        m, n = len(scores), len(self._pool)
        joined = Scores.stack([scores, self._pool])
        rows = np.arange(m), np.arange(m, m + n)
        sets = permuted_rows(*rows, joined.labels, self.draws, self._rng, self.test._cheap)
        values = self.test._statistics(joined.parts, sets)
        p, _ = p_values(values, self.test.alternative, self.test.ties, self._rng)
        if m + n > self.max_samples:
            joined = joined[np.sort(self._rng.permutation(m + n)[: self.max_samples])]
        self._pool = joined
        self.number += 1
        e = float(e_value(p))
        weight = 1 / (self.number * (self.number + 1))
        self._running = e * (self._running + weight)
        self._waiting = 1 / (self.number + 1)
        if self.first_alarm is None and self.evidence >= 1 / self.alpha:
            self.first_alarm = self.number
        return Step(self.number, m, p, e, self.evidence, self.first_alarm is not None, self.first_alarm)


def e_value(p: ArrayLike) -> np.ndarray:
    """Turn p-values into e-values by the mixture of power calibrators (Vovk & Wang 2021, eq. 2).

    Parameters
    ----------
    p : array
        In (0, 1].

    Returns
    -------
    array of the same shape
        From ½ at p = 1 upwards; the integral over p is 1. Below the smallest normal number p counts as that number:
        e is as large as a float can well hold, and never more than it should be.

    Raises
    ------
    ValueError
        If a p-value is not in (0, 1].
    """
    p = plain_array(p, "p").astype(np.float64)
    if not p.size:
        raise ValueError(f"p must not be empty, but has shape {p.shape}")
    if not ((p > 0) & (p <= 1)).all():
        raise ValueError(f"p must lie in (0, 1], but ranges over {p.min():g} … {p.max():g}")
    p = np.maximum(p, np.finfo(np.float64).tiny)
    log = np.log(p)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (1 - p + p * log) / (p * log**2)
    # Near 1 numerator and denominator vanish together: e = ½ − log(p)/6 + …
    return np.where(log > -1e-4, 0.5 - log / 6, value)


def evidence(p: ArrayLike) -> np.ndarray:
    """Evidence of whole streams of independent p-values, as `StreamTest` accumulates it.

    Parameters
    ----------
    p : (..., T) array
        p-values of T batches, in order.

    Returns
    -------
    (..., T) float64 array
        E_1 … E_T.
    """
    e = e_value(p)
    if not e.ndim:
        raise ValueError("p must have an axis of batches, but is a single number")
    out, running = np.empty_like(e), np.zeros(e.shape[:-1])
    with np.errstate(over="ignore"):  # more evidence than a number can hold is infinite
        for t in range(e.shape[-1]):
            running = e[..., t] * (running + 1 / ((t + 1) * (t + 2)))
            out[..., t] = running + 1 / (t + 2)
    return out
