"""The one rule by which a rerun agrees with what a paper prints; docs/verdicts.md explains it in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

AGREES, DISAGREES, SHOWS_NOTHING, UNDECIDED = "agrees", "disagrees", "shows nothing", "undecided"

LEVEL = 0.95
LEAST_RUNS = 3


@dataclass(frozen=True)
class Interval:
    """A closed interval; a centre that need not be its middle (printed intervals are not always symmetric)."""

    low: float
    high: float
    centre: float

    @property
    def width(self) -> float:
        """Of the whole interval."""
        return self.high - self.low

    def meets(self, other: "Interval") -> bool:
        """Whether the two share a point."""
        return self.low <= other.high and other.low <= self.high

    def scaled(self, factor: float) -> "Interval":
        """Return the interval with its ends `factor` times as far from its centre."""
        low, high = (self.centre + factor * (end - self.centre) for end in (self.low, self.high))
        return Interval(low, high, self.centre)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Outcome:
    """What one way of rerunning says about a printed number or sentence, and why in a few words."""

    says: str
    why: str


def prediction_interval(runs: Mapping[str, Sequence[float]]) -> Interval | None:
    """Where one more run with one more network would lie.

    Parameters
    ----------
    runs : dict
        Network → its values, one a seed. A single network: the interval is for one more seed.

    Returns
    -------
    Interval or None
        None with fewer than `LEAST_RUNS` runs (or networks, where there are several).

    Notes
    -----
    One-way random effects: a run's variance is that between networks plus that between seeds, the mean's comes on top.
    """
    groups = [np.asarray(values, float) for values in runs.values() if len(values)]
    if len(groups) == 1:
        groups = list(groups[0][:, None])  # each seed a group of its own
    if len(groups) < LEAST_RUNS:
        return None
    means = np.array([values.mean() for values in groups])
    inside = [values.var(ddof=1) for values in groups if len(values) > 1]
    within, between = float(np.mean(inside)) if inside else 0.0, means.var(ddof=1)
    seeds = min(len(values) for values in groups)
    variance = within + max(0.0, between - within / seeds) + between / len(groups)
    half, centre = float(stats.t.ppf((1 + LEVEL) / 2, len(groups) - 1) * math.sqrt(variance)), float(means.mean())
    return Interval(centre - half, centre + half, centre)


def judge_number(
    printed: Interval,
    ours: Interval | None,
    *,
    reference: float | None = None,
    our_reference: float | None = None,
    constant: float | None = None,
) -> Outcome:
    """Hold one way of rerunning against a printed number.

    Parameters
    ----------
    printed : Interval
        Widened by its rounding; the printed number is its centre.
    ours : Interval or None
        From `prediction_interval`.
    reference, our_reference : float, optional
        What the number would be without an effect, as printed and as in our rerun.
    constant : float, optional
        What follows without any experiment.
    """
    if ours is None:
        return Outcome(UNDECIDED, f"fewer than {LEAST_RUNS} runs")
    if not ours.meets(printed):
        return Outcome(DISAGREES, "our interval misses the printed one")
    if constant is not None and constant in printed:
        return Outcome(SHOWS_NOTHING, f"the constant {constant:.3g} agrees as well")
    if reference is not None:
        base = reference if our_reference is None else our_reference
        if (printed.centre - reference) * (ours.centre - base) < 0:
            return Outcome(DISAGREES, "on the other side of its reference")
        if ours.width >= abs(printed.centre - reference):
            return Outcome(SHOWS_NOTHING, "our interval is wider than the distance to the reference")
    return Outcome(AGREES, "our interval meets the printed one")


def judge_label(printed: float, runs: Mapping[str, Sequence[float]]) -> Outcome:
    """Hold a class label against the printed one: every run must give it."""
    given = [value == printed for values in runs.values() for value in values]
    if len(given) < LEAST_RUNS:
        return Outcome(UNDECIDED, f"fewer than {LEAST_RUNS} runs")
    words = f"{sum(given)} of {len(given)} runs give it"
    return Outcome(AGREES if all(given) else SHOWS_NOTHING if any(given) else DISAGREES, words)


@dataclass(frozen=True)
class Bound:
    """A bound on one statistic of a sentence's criterion.

    Attributes
    ----------
    statistic : str
        Its name in the record.
    at_least, at_most : float or None
        One of the two.
    reason : str
        Why this value.
    neutral : float or None
        The value that says nothing, from which the bound is moved when the rule is made stricter or looser.
    """

    statistic: str
    at_least: float | None = None
    at_most: float | None = None
    reason: str = ""
    neutral: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{self.statistic}: a bound must have at_least or at_most, and not both")
        if not self.reason:
            raise ValueError(f"{self.statistic}: a bound must have a reason")

    def moved(self, factor: float) -> "Bound":
        """Return the bound `factor` times as far from the value that says nothing; without one, as it is."""
        if self.neutral is None:
            return self
        ends = self.at_least, self.at_most
        least, most = (None if end is None else self.neutral + factor * (end - self.neutral) for end in ends)
        return Bound(self.statistic, least, most, self.reason, self.neutral)

    def judge(self, runs: Mapping[str, Sequence[float]]) -> Outcome:
        """Hold a statistic's runs against the bound; from the least to the largest where they are too few for more."""
        interval = prediction_interval(runs)
        if interval is None:
            values = [value for of in runs.values() for value in of]
            interval = Interval(min(values), max(values), float(np.mean(values)))
        side, end = ("at least", self.at_least) if self.at_most is None else ("at most", self.at_most)
        right = interval.low >= end if self.at_most is None else interval.high <= end
        wrong = interval.high < end if self.at_most is None else interval.low > end
        spread = "" if interval.width == 0 else f" ({interval.low:.3g} to {interval.high:.3g})"
        words = f"{self.statistic} {interval.centre:.3g}{spread}, {side} {end:.3g} asked"
        return Outcome(AGREES if right else DISAGREES if wrong else UNDECIDED, words)


def judge_sentence(bounds: Sequence[Bound], runs: Mapping[str, Mapping[str, Sequence[float]]]) -> Outcome:
    """Hold one way of rerunning against a sentence: every bound must hold.

    Parameters
    ----------
    bounds : sequence of Bound
    runs : dict
        Statistic → network → values.

    Raises
    ------
    ValueError
        For a statistic that the record lacks.
    """
    missing = [bound.statistic for bound in bounds if bound.statistic not in runs]
    if missing:
        raise ValueError(f"no statistic {', '.join(missing)}; the record has {', '.join(runs)}")
    found = [bound.judge(runs[bound.statistic]) for bound in bounds]
    said = {outcome.says for outcome in found}
    worst = next((says for says in (DISAGREES, UNDECIDED) if says in said), AGREES)
    return Outcome(worst, "; ".join(outcome.why for outcome in found))


def verdict(as_published: Outcome | None, corrected: Outcome | None) -> str:
    """Put the two ways of rerunning together; None: not run in this way."""
    said = {outcome.says for outcome in (as_published, corrected) if outcome}
    if not said:
        return "not run here"
    if corrected and corrected.says == AGREES:
        return "reproduced"
    if as_published and as_published.says == AGREES:
        return "undecided" if UNDECIDED in said else "reproduced by the papers' code only"
    if UNDECIDED in said:
        return "undecided"
    return "no evidence" if SHOWS_NOTHING in said else "not reproduced"
