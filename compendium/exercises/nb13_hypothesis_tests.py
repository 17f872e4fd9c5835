"""Checks of the exercises of notebook 13."""

from functools import cache

import numpy as np

from advlib.detectors import DensityTest
from advlib.detectors.sequential import evidence
from advlib.models import predict
from compendium.exercises import small
from compendium.exercises.feedback import Answer, called, close, expect, require


def _each_once(function: Answer, values: np.ndarray) -> np.ndarray:
    """Return the p-values when each of n equally likely values is the batch's in turn: their level is exact."""
    return np.array([float(called(function, values[i], np.delete(values, i))) for i in range(len(values))])


def p_value(my_p_value: Answer) -> str:
    """13.1: never 0, and exactly level."""
    drawn = np.arange(19.0)
    given = float(called(my_p_value, 16.5, drawn))
    expect(given, 3 / 20, {
        "You look at the lower tail: large values are extreme here.": (1 + (drawn <= 16.5).sum()) / 20,
        "Divide by 1 + the number of draws: the batch itself is one of the choices.": 3 / 19,
        "The batch itself counts, above and below the line.": 2 / 19,
        "The batch itself counts above the line, too: 1 + count.": 2 / 20,
    }, f"2 of 19 draws are as large: p must be 3/20, not {given:.4f}.")  # fmt: skip
    least = float(called(my_p_value, 100.0, drawn))
    require(least > 0, "Above all draws p is 0, as if no chance were left: the batch itself counts.")
    tied = float(called(my_p_value, 1.0, np.ones(19)))
    require(close(tied, 1), f"Where all values are equal p must be 1, not {tied:.2f}: equal counts as extreme.")
    level = np.mean(_each_once(my_p_value, np.arange(40.0)) <= 0.05)
    require(level <= 0.05, f"A clean batch is rejected with probability {level:.3f} at 5 %.")
    return f"Never below 1/20 with 19 draws, and a clean batch is rejected with probability {level:.3f} at 5 %."


def two_sided(my_two_sided: Answer) -> str:
    """13.2: twice the smaller tail, at most 1."""
    drawn = np.arange(99.0)
    for value, words in ((200.0, "above"), (-5.0, "below")):
        given = float(called(my_two_sided, value, drawn))
        expect(given, 0.02, {
            "Both tails are looked at, so the smaller one must be doubled.": 0.01,
            f"A batch {words} all draws gets p = 1: take the smaller tail, not the larger.": 1.0,
        }, f"A batch {words} all 99 draws must get p = 0.02, not {given:.3f}.")  # fmt: skip
    middle = float(called(my_two_sided, 49.0, drawn))
    require(middle <= 1, f"In the middle p is {middle:.2f}: a probability is at most 1.")
    tied = float(called(my_two_sided, 1.0, np.ones(19)))
    require(tied == 1, f"Where all draws equal the batch p is 1, not {tied:.3f}: ties are as extreme.")
    level = np.mean(_each_once(my_two_sided, np.arange(200.0)) <= 0.05)
    require(level <= 0.05 + 1e-12, f"A clean batch is rejected with probability {level:.3f} at 5 %.")
    require(level >= 0.04, f"A clean batch is rejected with probability {level:.3f} only: the test wastes its level.")
    return f"Both tails are seen, and a clean batch is rejected with probability {level:.3f} at 5 %."


@cache
def _density_test() -> DensityTest:
    unseen = small.digits(997)[0]
    return DensityTest(k=5, draws=999, random_state=0, check=False).fit(small.reference(), unseen[150:])


def harmless_change(my_harmless_change: Answer) -> str:
    """13.3: a change that nobody minds, and that is flagged."""
    images, _ = small.digits(150)
    changed = called(my_harmless_change, images, shape=images.shape).astype(np.float32)
    require(changed.min() >= 0 and changed.max() <= 1, "Some pixels leave [0, 1]: clip them.")
    far = np.abs(changed - images).max()
    require(far <= 0.15 + 1e-6, f"A pixel moves by {far:.2f}; at most 0.15 is allowed.")
    same = np.mean(predict(small.network(), images) == predict(small.network(), changed))
    require(same >= 0.95, f"The network reads {same:.0%} of the digits as before, fewer than 95 %: do less.")
    p = _density_test().test(changed).p_value
    require(p <= 0.05, f"The batch passes, p = {p:.3f}: move more pixels, or all of them further.")
    return f"Flagged with p = {p:.3f}, though {same:.0%} of the digits are read as before and nobody attacked."


def stream(my_alarms: float, my_bound: float) -> str:
    """13.4: alarms batch by batch, and one bound for all time."""
    p = np.random.default_rng(23).random((400, 1000))
    each, ever = float((p <= 0.05).sum(axis=1).mean()), float((evidence(p) >= 20).any(axis=1).mean())
    expect(my_alarms, each, {
        "Alarms: at 5 % a clean batch in twenty is flagged; how many are that in 1,000?": 0.05,
    }, f"Alarms: 400 simulated streams raise {each:.1f} on average.", atol=1)  # fmt: skip
    expect(my_bound, 0.05, {
        "Bound: that is what single tests give; α bounds the alarms of the whole stream.": 1.0,
        "Bound: `alpha` is not divided by the number of batches; it holds for the whole stream.": 0.05 / 1000,
    }, "Bound: what does `alpha` promise in the documentation of `StreamTest`?")  # fmt: skip
    return f"Of 400 simulated clean streams {ever:.1%} ever raise an alarm; batch by batch each raises {each:.0f}."
