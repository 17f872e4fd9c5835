"""Algorithm 2 against brute force, and the two attackers against each other."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from advlib import attacks, models
from compendium.common.protocol import density_ratio_comparison
from compendium.nb06_crafting import search
from compendium.nb06_crafting.search import Defender, EpsilonSearch, ToleranceNotMet, Trial

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")

SETTINGS = {"draws": 4, "batch_size": 20, "sigmas": [0.3, 1.0, 3.0], "lambdas": [0.01, 0.1, 1.0]}


def stripes(n: int, seed: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Noisy stripes in three directions, 8 × 8, in [0, 1], and which direction."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 8))
    shapes = np.stack([np.sin(7 * axis) for axis in (across, down, across + down)])
    labels = rng.integers(0, 3, n)
    clean = 0.5 + 0.3 * shapes[labels][:, None] * rng.uniform(0.5, 1.1, (n, 1, 1, 1))
    return np.clip(clean + 0.1 * rng.normal(size=(n, channels, 8, 8)), 0, 1).astype(np.float32), labels


@cache
def setting(channels: int = 1) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """Give a classifier trained on other stripes, images and labels."""
    images, labels = (torch.from_numpy(values) for values in stripes(400, 1, channels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval().requires_grad_(False).zero_grad()
    return model, *stripes(60, 2, channels)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def defender(channels: int = 1, **changed) -> Defender:
    return Defender(*setting(channels), **({"rng": rng()} | SETTINGS | changed))


def algorithm_2(tolerance: float, **options):
    (result,) = search.fgsm_under_tolerance(defender(), [tolerance], **options)
    return result


def gap_at(epsilon: float, generator: np.random.Generator, clip=(0.0, 1.0), channels=1) -> float:
    """|mean R1 − mean R2| as Algorithm 1's own function gives it."""
    model, images, labels = setting(channels)
    attacked = attacks.fgsm(model, images, labels, epsilon, clip).images
    result = density_ratio_comparison(images, attacked, rng=generator, **SETTINGS)["combined"]
    return abs(result.r1.mean() - result.r2.mean())


# ---------------------------------------------------------------------------------------------- Algorithm 2


@pytest.mark.parametrize(("clip", "channels"), [((0.0, 1.0), 1), (None, 1), ((0.0, 1.0), 2)])
def test_algorithm_2_finds_the_largest_epsilon_of_a_brute_force_scan(clip, channels):
    grid = np.arange(1, 61) / 200  # 0.005 … 0.3
    gaps = np.array([gap_at(epsilon, rng(), clip, channels) for epsilon in grid])
    for tolerance in (0.05, 0.5):
        expected = grid[gaps <= tolerance].max()
        assert expected < 0.3  # or the test could not fail
        (result,) = search.fgsm_under_tolerance(defender(channels, clip=clip), [tolerance], step=0.03, resolution=0.001)
        assert result.gap <= tolerance
        # The brute force knows the answer to 0.005, the search to 0.001.
        assert -0.001 <= result.epsilon - expected < 0.005


def test_result_says_what_was_crafted():
    model, images, labels = setting()
    result = algorithm_2(0.5, step=0.05, resolution=0.01)
    same = attacks.fgsm(model, images, labels, result.epsilon)
    np.testing.assert_array_equal(defender().fgsm()(result.epsilon), same.images)
    assert (result.clean_accuracy, result.adversarial_accuracy) == (same.clean_accuracy, same.adversarial_accuracy)
    ratios = result.comparison
    assert result.gap == abs(ratios.r1.mean() - ratios.r2.mean()) == pytest.approx(gap_at(result.epsilon, rng()))
    assert ratios.auroc >= 0.5
    trial = next(trial for trial in result.trace if trial.epsilon == result.epsilon)
    assert (trial.gap, trial.adversarial_accuracy) == (result.gap, result.adversarial_accuracy)
    assert result.trace[0].epsilon == 0.3


@pytest.mark.parametrize("redraw", [False, True])
def test_fixed_step_is_the_papers_loop(redraw):
    generator, epsilon = rng(), 0.3
    tried = []
    while not tried or tried[-1] > 0.1:  # G17's loop: lower, attack, draw, fit, compare
        epsilon = 0.3 - 0.04 * len(tried)
        tried.append(gap_at(epsilon, generator if redraw else rng()))
    result = algorithm_2(0.1, resolution=None, step=0.04, redraw=redraw)
    assert result.epsilon == epsilon and len(tried) > 2
    np.testing.assert_allclose([trial.gap for trial in result.trace], tried, rtol=1e-9)


def test_initial_epsilon_is_the_answer_where_it_meets_the_tolerance():
    result = algorithm_2(1e6, initial_epsilon=0.2)
    assert result.epsilon == 0.2 and len(result.trace) == 1


def test_curve_rises_with_the_tolerance_and_equals_single_searches():
    options = {"step": 0.06, "resolution": 0.005}
    tolerances = [0.3, 0.02, 1.0, 0.3]
    curve = search.fgsm_under_tolerance(defender(), tolerances, **options)
    assert [result.tolerance for result in curve] == tolerances
    by_tolerance = sorted(curve, key=lambda result: result.tolerance)
    assert np.all(np.diff([result.epsilon for result in by_tolerance]) >= 0)
    assert by_tolerance[0].epsilon < by_tolerance[-1].epsilon
    assert all(result.gap <= result.tolerance and result.images is None for result in curve)
    for result in curve[:2]:
        alone = algorithm_2(result.tolerance, **options)
        assert (alone.epsilon, alone.gap) == (result.epsilon, result.gap)
    tried = [trial.epsilon for trial in curve[0].trace]
    assert len(tried) == len(set(tried))  # each ε once


def scripted(difference, tolerances, step=0.02, resolution=1e-4):
    """Largest ε found for each tolerance where R1 − R2 is a given function of ε."""
    plan = EpsilonSearch(lambda epsilon: Trial(epsilon, difference(epsilon), 0.0), 0.3, step, resolution)
    for tolerance in tolerances:
        plan.lower(tolerance)
    return [plan.best(tolerance).epsilon for tolerance in tolerances]


def dip(epsilon):  # R1 falls 0.1 below R2 before it rises: the gap is 0.05 at 0.033, 0.167 and 0.218
    return -0.1 * math.sin(math.pi * epsilon / 0.2) if epsilon < 0.2 else 20 * (epsilon - 0.2) ** 1.5


def test_a_gap_that_is_small_at_three_places_gives_the_largest():
    epsilons = np.linspace(0, 0.3, 300_001)
    gaps = np.abs([dip(epsilon) for epsilon in epsilons])
    for tolerance in (0.01, 0.05, 0.09, 0.3):
        expected = epsilons[gaps <= tolerance].max()
        assert scripted(dip, [tolerance]) == pytest.approx([expected], abs=1.1e-4)
    # Plain bisection for 0.05 would see a gap of 0.07 at 0.15, go on below it and end at 0.033.
    together = scripted(dip, [0.3, 0.09, 0.05, 0.01])
    assert together == pytest.approx([scripted(dip, [tolerance])[0] for tolerance in (0.3, 0.09, 0.05, 0.01)])


def test_a_difference_that_changes_sign_within_a_step_is_not_missed():
    def steep(epsilon):  # meets 0.01 only between 0.2499 and 0.2501, far from the scan's 0.24 and 0.26
        return 100 * (epsilon - 0.25) if epsilon > 0.2 else -5.0

    [found] = scripted(steep, [0.01], resolution=1e-5)
    assert found == pytest.approx(0.2501, abs=2e-5)


def test_a_band_that_is_jumped_over_is_entered_from_the_other_side_within_the_same_step():
    def jump(epsilon):  # 0.4 → −0.08 at 0.132, −0.05 at 0.1265, 0 at 0.12
        return 0.4 if epsilon > 0.132 else -(epsilon - 0.12) / 0.0065 * 0.05

    [found] = scripted(jump, [0.05], step=0.03, resolution=1e-5)
    assert found == pytest.approx(0.1265, abs=2e-5)


def test_a_jump_over_the_tolerance_is_passed_by():
    def jump(epsilon):
        return 1.0 if epsilon > 0.25 else -1.0 if epsilon > 0.101 else 0.0

    [found] = scripted(jump, [0.5])
    assert found == pytest.approx(0.101, abs=1e-4)


def test_an_answer_below_the_last_step_is_found():
    assert scripted(lambda epsilon: 10 * epsilon, [0.05]) == pytest.approx([0.005], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "word"), [({}, "finer resolution"), ({"resolution": None, "redraw": True}, "finer step")]
)
def test_unmet_tolerance_is_said_with_the_best_that_was_found(options, word):
    with pytest.raises(
        ToleranceNotMet, match=rf"tolerance must be met .* but is 1e-12, .* at best, .* {word}"
    ) as caught:
        algorithm_2(1e-12, **({"step": 0.1, "resolution": 0.02} | options))
    smallest = min(caught.value.trace, key=lambda trial: trial.gap)
    assert f"was {smallest.gap:.3g} at best, at ε = {smallest.epsilon:.3g}" in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": -0.1}, "tolerance must be a finite number of at least 0, but is -0.1"),
        ({"tolerance": math.nan}, "tolerance must be a finite number of at least 0, but is nan"),
        ({"initial_epsilon": 0.0}, "initial_epsilon must be a finite number above 0"),
        ({"step": -1}, "step must be a finite number above 0"),
        ({"resolution": 0}, "resolution must be a finite number above 0"),
        ({"redraw": True}, "redraw must be False where the search bisects"),
    ],
)
def test_unusable_arguments_of_algorithm_2_are_named(change, message):
    options = {"tolerance": 0.1} | change
    with pytest.raises(ValueError, match=message):
        algorithm_2(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batch_size": 61}, "must lie between 1 and the 60 images"), ({"kernel": "cubic"}, "kernel must be one of")],
)
def test_unusable_arguments_of_the_defender_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        defender(**change)


# ---------------------------------------------------------------------------------------------- knowing attacker

PGD = {"steps": 25, "searches": 4, "confidence": 0.5}


def test_knowing_attacker_beats_algorithm_2_at_equal_tolerance():
    model, images, labels = setting()
    [(fgsm, pgd)] = search.compare_attackers(defender(), [0.1], fgsm_options={"step": 0.05}, pgd_options=PGD)
    assert fgsm.gap <= 0.1 and pgd.gap <= 0.1
    assert fgsm.clean_accuracy == pgd.clean_accuracy == models.accuracy(model, images, labels) > 0.95
    assert fgsm.adversarial_accuracy - pgd.adversarial_accuracy > 0.2
    for result in (fgsm, pgd):
        assert models.accuracy(model, result.images, labels) == result.adversarial_accuracy
        assert result.images.dtype == np.float32 and result.images.shape == images.shape
        assert result.images.min() >= 0 and result.images.max() <= 1
        assert np.abs(result.images - images).max() <= 0.3 + 1e-6
    # The defender meets both with the same clean batches, which neither had.
    np.testing.assert_array_equal(fgsm.defended.r2, pgd.defended.r2)
    assert not np.array_equal(pgd.defended.r1, pgd.comparison.r1)
    assert not np.array_equal(fgsm.comparison.r2, pgd.comparison.r2)


@pytest.mark.parametrize(("first", "weights"), [(1.0, [0, 1, 4, 2, 2**0.5]), (4.0, [0, 4, 1, 2, 2**0.5])])
def test_weight_is_searched_between_what_breaks_and_what_keeps_the_tolerance(monkeypatch, first, weights):
    model, images, labels = setting()

    def weaker_with_weight(*_, weight, **__):
        return attacks.fgsm(model, images, labels, 0.3 / (1 + weight))

    monkeypatch.setattr(search, "pgd_against_density_ratio", weaker_with_weight)
    result = search.pgd_under_tolerance(defender(), 0.5, first_weight=first, searches=4)
    # gap_at passes 0.5 between ε = 0.135 and 0.14, where w = 1.2.
    np.testing.assert_allclose([trial.weight for trial in result.trace], weights)
    assert [trial.gap <= 0.5 for trial in result.trace] == [weight > 1.2 for weight in weights]
    assert result.weight == pytest.approx(2**0.5)  # the least that keeps it leaves the lowest accuracy
    assert result.adversarial_accuracy == min(trial.adversarial_accuracy for trial in result.trace if trial.gap <= 0.5)
    assert (
        result.gap
        == abs(result.comparison.r1.mean() - result.comparison.r2.mean())
        == min(trial.gap for trial in result.trace if trial.weight == result.weight)
    )


def test_attacker_without_weight_is_enough_where_it_keeps_the_tolerance():
    result = search.pgd_under_tolerance(defender(), 9.0, epsilon=0.1, steps=5)
    assert result.weight == 0 and len(result.trace) == 1


def test_knowing_the_detector_narrows_the_gap():
    # So little room that the classifier's term never falls silent: only the weight holds the ratio. One σ and λ, or
    # the choice among them would jump over a tolerance this small.
    estimator = {"draws": 20, "sigmas": 0.7, "lambdas": 0.03}
    options = {"epsilon": 0.1, "steps": 15, "confidence": 10.0}
    blind = search.pgd_under_tolerance(defender(**estimator), 9.0, **options)
    tolerance = 0.7 * blind.gap
    knowing = search.pgd_under_tolerance(defender(**estimator), tolerance, searches=4, **options)
    assert knowing.weight > 0 and knowing.gap <= tolerance
    assert knowing.adversarial_accuracy <= blind.adversarial_accuracy + 0.1
    again = search.pgd_under_tolerance(defender(**estimator), tolerance, searches=4, **options)
    np.testing.assert_array_equal(again.images, knowing.images)
    assert again.trace == knowing.trace


def test_unmet_tolerance_of_the_knowing_attacker_is_said():
    with pytest.raises(ToleranceNotMet, match=r"tolerance must be kept .* up to 4, but is 0, .* searches") as caught:
        search.pgd_under_tolerance(defender(), 0.0, searches=2, steps=2)
    assert [trial.weight for trial in caught.value.trace] == [0.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": -1}, "tolerance must be a finite number of at least 0, but is -1"),
        ({"first_weight": 0}, "first_weight must be a finite number above 0"),
        ({"searches": 0}, "searches must be at least 1, but is 0"),
    ],
)
def test_unusable_arguments_of_the_knowing_attacker_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        search.pgd_under_tolerance(defender(), **({"tolerance": 0.1} | change))


# ---------------------------------------------------------------------------------------------- numerators, curve


def test_numerators_come_from_their_own_pool():
    model, images, labels = setting()
    pool = stripes(80, 9)[0]
    expected = density_ratio_comparison(
        images, attacks.fgsm(model, images, labels, 0.1).images, numerators=pool, rng=rng(), **SETTINGS
    )["combined"]
    other = defender(numerators=pool)
    trial = other.judge(other.fgsm()(0.1), 0.1)
    assert trial.difference == pytest.approx(expected.r1.mean() - expected.r2.mean(), rel=1e-9)
    own = defender().judge(other.fgsm()(0.1), 0.1)
    assert own.difference != trial.difference
    (result,) = search.fgsm_under_tolerance(defender(numerators=pool), [1e6], initial_epsilon=0.1)
    np.testing.assert_allclose(result.comparison.r1, expected.r1, rtol=1e-9)
    with pytest.raises(ValueError, match="numerators must hold images of shape"):
        defender(numerators=pool[..., :7])


def test_curve_over_epsilon_is_the_searchs_own_trace():
    result = algorithm_2(0.1, resolution=None, step=0.05)
    again = defender()
    moved = again.fgsm()
    assert [again.judge(moved(trial.epsilon), trial.epsilon) for trial in result.trace] == list(result.trace)


def test_attackers_share_the_numerators_with_the_defender():
    pool = stripes(80, 9)[0]
    options = {"tolerances": [0.3], "fgsm_options": {"step": 0.1, "resolution": 0.02}}
    options |= {"pgd_options": {"steps": 3, "searches": 1}}
    try:
        [(fgsm, _)] = search.compare_attackers(defender(numerators=pool), **options)
    except ToleranceNotMet:
        pytest.fail("the attackers must meet this tolerance, or the test shows nothing")
    [(own, _)] = search.compare_attackers(defender(), **options)
    assert not np.array_equal(fgsm.defended.r2, own.defended.r2)
