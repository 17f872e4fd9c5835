"""The one rule: intervals hold what they promise, and every clause of docs/verdicts.md decides something."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compendium.claims import rule
from compendium.claims.rule import AGREES, DISAGREES, SHOWS_NOTHING, UNDECIDED, Bound, Interval, Outcome


def runs(*groups):
    return {str(i): list(values) for i, values in enumerate(groups)}


@pytest.mark.parametrize(
    ("networks", "seeds", "between"), [(5, 3, 1.0), (5, 3, 0.0), (5, 3, 5.0), (3, 5, 1.0), (1, 5, 0.0)]
)
def test_a_further_run_lies_in_the_interval_as_often_as_promised(networks, seeds, between):
    # 1,500 experiments: the share's standard error is 0.0056, and 0.93 lies more than three below the promised 0.95.
    rng = np.random.default_rng(networks * 100 + seeds)
    inside = 0
    for _ in range(1500):
        means = 10 + between * rng.standard_normal((networks, 1))
        interval = rule.prediction_interval(runs(*(means + rng.standard_normal((networks, seeds)))))
        one_more = (means[0, 0] if networks == 1 else 10 + between * rng.standard_normal()) + rng.standard_normal()
        inside += one_more in interval
    assert inside / 1500 >= 0.93


def test_an_interval_is_no_wider_than_its_formula_says():
    interval = rule.prediction_interval(runs([1, 1, 1], [2, 2, 2], [3, 3, 3]))
    assert interval.centre == pytest.approx(2)
    assert interval.high - 2 == pytest.approx(4.302653 * np.sqrt(1 + 1 / 3), rel=1e-6)  # t with 2 degrees of freedom
    alone = rule.prediction_interval(runs([1, 2, 3]))
    assert alone.high - 2 == pytest.approx(4.302653 * np.sqrt(1 + 1 / 3), rel=1e-6)


@pytest.mark.parametrize("few", [runs(), runs([1.0]), runs([1.0, 2.0]), runs([1, 2, 3], [2, 3, 4])])
def test_too_few_runs_give_no_interval(few):
    assert rule.prediction_interval(few) is None
    assert rule.judge_number(Interval(1, 1, 1), rule.prediction_interval(few)).says == UNDECIDED


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=3, max_size=6), st.floats(-1e3, 1e3))
def test_an_interval_moves_with_its_values(groups, shift):
    first, second = (rule.prediction_interval(runs(*g)) for g in (groups, np.asarray(groups) + shift))
    assert second.low == pytest.approx(first.low + shift, abs=1e-3) and first.low <= first.centre <= first.high


def number(ours, printed=(1.8, 1.9, 1.85), **options):
    return rule.judge_number(Interval(*printed), Interval(*ours), **options).says


@pytest.mark.parametrize(
    ("ours", "options", "says"),
    [
        ((1.7, 2.0, 1.85), {}, AGREES),
        ((1.95, 2.1, 2.0), {}, DISAGREES),
        ((1.7, 2.0, 1.85), {"reference": 1.3}, AGREES),
        ((1.7, 2.0, 1.85), {"reference": 1.6}, SHOWS_NOTHING),  # 0.3 wide, 0.25 away
        ((1.7, 2.0, 1.85), {"reference": 1.3, "our_reference": 1.95}, DISAGREES),  # below our own reference
        ((0.9, 1.9, 1.4), {"reference": 2.5, "our_reference": 1.2}, DISAGREES),
        ((1.7, 2.0, 1.85), {"constant": 1.85}, SHOWS_NOTHING),
        ((1.7, 2.0, 1.85), {"constant": 1.5}, AGREES),
        ((2.0, 2.1, 2.05), {"constant": 1.85}, DISAGREES),  # a constant is no excuse for a miss
    ],
)
def test_each_clause_of_the_rule_decides(ours, options, says):
    assert number(ours, **options) == says


def test_a_label_must_come_from_every_run():
    assert rule.judge_label(8, runs([8, 8], [8, 8])).says == AGREES
    assert rule.judge_label(8, runs([8, 8], [8, 3])).says == SHOWS_NOTHING
    assert rule.judge_label(8, runs([1, 1], [2, 3])).says == DISAGREES
    assert rule.judge_label(8, runs([8])).says == UNDECIDED


TEN = Bound("growth", at_least=10, reason="ten times", neutral=1)


@pytest.mark.parametrize(
    ("values", "says"),
    [([50, 51, 52], AGREES), ([2, 2.1, 2.2], DISAGREES), ([9, 10, 11], UNDECIDED), ([12], AGREES), ([9], DISAGREES)],
)
def test_a_bound_is_decided_by_the_whole_interval(values, says):
    assert TEN.judge(runs(values)).says == says
    at_most = Bound("growth", at_most=10, reason="ten times")
    flipped = {AGREES: DISAGREES, DISAGREES: AGREES, UNDECIDED: UNDECIDED}
    assert at_most.judge(runs(values)).says == flipped[says]


@pytest.mark.parametrize(
    ("few", "says"),
    [(runs([12, 9], [13, 14]), UNDECIDED), (runs([12, 11], [13, 14]), AGREES), (runs([9], [8, 2]), DISAGREES)],
)
def test_without_an_interval_all_runs_must_be_on_one_side(few, says):
    assert rule.prediction_interval(few) is None and TEN.judge(few).says == says


def test_a_stricter_rule_moves_the_bound_away_from_what_says_nothing():
    assert TEN.moved(1.5).at_least == pytest.approx(14.5) and TEN.moved(0.5).at_least == pytest.approx(5.5)
    assert Bound("p", at_most=0.05, reason="usual").moved(2).at_most == 0.05


@pytest.mark.parametrize("ends", [{}, {"at_least": 1, "at_most": 2}])
def test_a_bound_has_one_end_and_a_reason(ends):
    with pytest.raises(ValueError, match="at_least or at_most"):
        Bound("x", reason="because", **ends)
    with pytest.raises(ValueError, match="reason"):
        Bound("x", at_least=1)


def test_every_bound_of_a_sentence_must_hold():
    low = Bound("share", at_most=0.5, reason="half")
    good = {"growth": runs([20, 21, 22]), "share": runs([0.1, 0.1, 0.1])}
    assert rule.judge_sentence([TEN, low], good).says == AGREES
    assert rule.judge_sentence([TEN, low], good | {"share": runs([0.8, 0.8, 0.8])}).says == DISAGREES
    assert rule.judge_sentence([TEN, low], good | {"share": runs([0.4, 0.5, 0.6])}).says == UNDECIDED
    with pytest.raises(ValueError, match="no statistic share"):
        rule.judge_sentence([TEN, low], {"growth": runs([20])})


@pytest.mark.parametrize(
    ("as_published", "corrected", "word"),
    [
        (None, None, "not run here"),
        (None, AGREES, "reproduced"),
        (DISAGREES, AGREES, "reproduced"),
        (AGREES, DISAGREES, "reproduced by the papers' code only"),
        (AGREES, SHOWS_NOTHING, "reproduced by the papers' code only"),
        (AGREES, UNDECIDED, "undecided"),
        (DISAGREES, DISAGREES, "not reproduced"),
        (None, DISAGREES, "not reproduced"),
        (DISAGREES, SHOWS_NOTHING, "no evidence"),
        (SHOWS_NOTHING, SHOWS_NOTHING, "no evidence"),
        (DISAGREES, UNDECIDED, "undecided"),
    ],
)
def test_two_ways_of_rerunning_make_one_verdict(as_published, corrected, word):
    assert rule.verdict(*(Outcome(says, "") if says else None for says in (as_published, corrected))) == word
