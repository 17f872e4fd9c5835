"""Algorithm 2 against brute force, the gradient against differences, and the two attackers against each other."""

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from advlib import attacks, models
from advlib.ulsif import ULSIF
from compendium.common.protocol import density_ratio_comparison
from compendium.nb06_crafting import search
from compendium.nb06_crafting.search import ToleranceNotMet, Trial, differentiable_mean_ratio

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
        result = search.fgsm_under_tolerance(
            *setting(channels), tolerance=tolerance, clip=clip, step=0.03, resolution=0.001, rng=rng(), **SETTINGS
        )
        assert result.gap <= tolerance
        # The brute force knows the answer to 0.005, the search to 0.001.
        assert -0.001 <= result.epsilon - expected < 0.005


def test_result_says_what_was_crafted():
    model, images, labels = setting()
    result = search.fgsm_under_tolerance(
        model, images, labels, tolerance=0.5, step=0.05, resolution=0.01, rng=rng(), **SETTINGS
    )
    same = attacks.fgsm(model, images, labels, result.epsilon)
    np.testing.assert_array_equal(result.images, same.images)
    assert (result.accuracy, result.adversarial_accuracy) == (same.clean_accuracy, same.adversarial_accuracy)
    assert result.gap == abs(result.r1.mean() - result.r2.mean()) == pytest.approx(gap_at(result.epsilon, rng()))
    assert result.comparison.auroc >= 0.5
    trial = next(trial for trial in result.trace if trial.epsilon == result.epsilon)
    assert (trial.gap, trial.accuracy) == (result.gap, result.adversarial_accuracy)
    assert result.trace[0].epsilon == 0.3
    tensors = search.fgsm_under_tolerance(
        model, torch.from_numpy(images), torch.from_numpy(labels),
        tolerance=0.5, step=0.05, resolution=0.01, rng=rng(), **SETTINGS,
    )  # fmt: skip
    assert isinstance(tensors.images, torch.Tensor) and tensors.epsilon == result.epsilon


@pytest.mark.parametrize("redraw", [False, True])
def test_fixed_step_is_the_papers_loop(redraw):
    generator, epsilon = rng(), 0.3
    tried = []
    while not tried or tried[-1] > 0.1:  # G17's loop: lower, attack, draw, fit, compare
        epsilon = 0.3 - 0.04 * len(tried)
        tried.append(gap_at(epsilon, generator if redraw else rng()))
    result = search.fgsm_under_tolerance(
        *setting(), tolerance=0.1, search="fixed step", step=0.04, redraw=redraw, rng=rng(), **SETTINGS
    )
    assert result.epsilon == epsilon and len(tried) > 2
    np.testing.assert_allclose([trial.gap for trial in result.trace], tried, rtol=1e-9)


def test_initial_epsilon_is_the_answer_where_it_meets_the_tolerance():
    result = search.fgsm_under_tolerance(*setting(), tolerance=1e6, initial_epsilon=0.2, rng=rng(), **SETTINGS)
    assert result.epsilon == 0.2 and len(result.trace) == 1


def test_curve_rises_with_the_tolerance_and_equals_single_searches():
    options = {"step": 0.06, "resolution": 0.005} | SETTINGS
    tolerances = [0.3, 0.02, 1.0, 0.3]
    curve = search.tolerance_curve(*setting(), tolerances=tolerances, rng=rng(), **options)
    assert [result.tolerance for result in curve] == tolerances
    by_tolerance = sorted(curve, key=lambda result: result.tolerance)
    assert np.all(np.diff([result.epsilon for result in by_tolerance]) >= 0)
    assert by_tolerance[0].epsilon < by_tolerance[-1].epsilon
    assert all(result.gap <= result.tolerance and result.images is None for result in curve)
    for result in curve[:2]:
        alone = search.fgsm_under_tolerance(*setting(), tolerance=result.tolerance, rng=rng(), **options)
        assert (alone.epsilon, alone.gap) == (result.epsilon, result.gap)
    tried = [trial.epsilon for trial in curve[0].trace]
    assert len(tried) == len(set(tried))  # each ε once


class Scripted:
    """Trials whose R1 − R2 is a given function of ε."""

    def __init__(self, difference):
        self.difference, self.trace = difference, []

    def at(self, epsilon):
        known = [trial for trial in self.trace if trial.epsilon == epsilon]
        if not known:
            self.trace.append(Trial(epsilon, self.difference(epsilon), 0.0))
        return (known or self.trace)[-1]

    def best(self, tolerance):
        return max((trial.epsilon for trial in self.trace if trial.gap <= tolerance), default=None)


def scripted(difference, tolerances, step=0.02, resolution=1e-4):
    trials = Scripted(difference)
    plan = search._Search(0.3, "monotone", step, resolution, False)
    for tolerance in tolerances:
        plan.first_from_above(tolerance, trials)
    return [trials.best(tolerance) for tolerance in tolerances]


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
    ("options", "word"), [({}, "finer resolution"), ({"search": "fixed step", "redraw": True}, "finer step")]
)
def test_unmet_tolerance_is_said_with_the_best_that_was_found(options, word):
    with pytest.raises(
        ToleranceNotMet, match=rf"tolerance must be met .* but is 1e-12, .* at best, .* {word}"
    ) as caught:
        search.fgsm_under_tolerance(
            *setting(), tolerance=1e-12, step=0.1, resolution=0.02, rng=rng(), **SETTINGS, **options
        )
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
        ({"search": "fast"}, "search must be 'monotone' or 'fixed step', but is 'fast'"),
        ({"redraw": True}, "redraw must be False for search='monotone'"),
        ({"batch_size": 61}, "must lie between 1 and the 60 images"),
        ({"kernel": "cubic"}, "kernel must be one of"),
    ],
)
def test_unusable_arguments_of_algorithm_2_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        search.fgsm_under_tolerance(*setting(), **({"tolerance": 0.1, "rng": rng()} | SETTINGS | change))


# ---------------------------------------------------------------------------------------------- gradient


@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
@pytest.mark.parametrize("n_kernels", [100, 6])
def test_differentiable_ratio_equals_ulsif(kernel, n_kernels):
    generator = np.random.default_rng(3)
    numerator, denominator = generator.random((14, 9)), generator.random((11, 9)) * 1.2
    denominator[:3] = numerator[:3]  # shared images, as in Algorithm 1's draws
    for sigma, lambda_ in [(0.3, 0.1), (1.0, 0.001), (0.001, 1.0)]:
        u = ULSIF(sigma, lambda_, n_kernels=n_kernels, kernel=kernel).fit(numerator, denominator)
        ratio = differentiable_mean_ratio(
            torch.from_numpy(numerator), torch.from_numpy(denominator), sigma, lambda_, kernel,
            torch.from_numpy(u.center_indices_),
        )  # fmt: skip
        assert ratio.dtype == torch.float64
        assert float(ratio) == pytest.approx(u.mean_ratio_, rel=1e-9)


@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
def test_gradient_equals_finite_differences(kernel):
    generator = torch.Generator().manual_seed(0)
    numerator, denominator = (torch.rand(3, 8, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    sigma, lambda_ = torch.tensor([0.4, 0.8, 1.5]), torch.tensor([0.1, 0.01, 1.0])

    def ratio(y):
        return differentiable_mean_ratio(numerator, y, sigma, lambda_, kernel)

    values = ratio(denominator)
    assert values.shape == (3,)
    each = [
        differentiable_mean_ratio(x, y, s, r, kernel)
        for x, y, s, r in zip(numerator, denominator, sigma, lambda_, strict=True)
    ]
    torch.testing.assert_close(values, torch.stack(each), rtol=1e-12, atol=0)
    y = denominator.clone().requires_grad_()
    (slope,) = torch.autograd.grad(ratio(y).sum(), y)
    assert slope.abs().max() > 1e-3
    expected = torch.zeros_like(slope)
    for index in np.ndindex(*slope.shape):
        step = torch.zeros_like(slope)
        step[index] = 1e-6
        expected[index] = (ratio(denominator + step) - ratio(denominator - step)).sum() / 2e-6
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
def test_gradient_is_finite_where_points_coincide(kernel):
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(differentiable_mean_ratio(x, y, 0.5, 0.1, kernel), y)
    assert slope.isfinite().all()


def test_unknown_kernel_is_named():
    with pytest.raises(ValueError, match="kernel must be one of 'gaussian', 'unsquared', but is 'cubic'"):
        differentiable_mean_ratio(torch.zeros(2, 2), torch.zeros(2, 2), 1.0, 1.0, "cubic")


def test_channels_of_the_attackers_ratio_are_combined_as_in_equation_4():
    generator = torch.Generator().manual_seed(2)
    numerators, clean, suspects = (torch.rand(2, 7, 3, 4, 4, generator=generator) for _ in range(3))
    estimator = {"sigmas": [0.5, 2.0], "lambdas": [0.1, 1.0], "random_state": 0}
    difference, slope = search._difference_gradient(numerators, clean, suspects, estimator)

    def ratio(denominators):
        fits = [
            ULSIF(**estimator).fit(x[:, c].flatten(1).numpy(), y[:, c].flatten(1).numpy()).mean_ratio_
            for x, y in zip(numerators, denominators, strict=True)
            for c in range(3)
        ]
        return np.mean(fits)

    assert difference == pytest.approx(ratio(suspects) - ratio(clean), rel=1e-6)
    direction = torch.rand(suspects.shape, generator=generator)
    step = 1e-3  # float32 images
    moved = (ratio(suspects + step * direction) - ratio(suspects - step * direction)) / (2 * step)
    assert float((slope * direction).sum()) == pytest.approx(moved, rel=1e-2)


# ---------------------------------------------------------------------------------------------- knowing attacker

PGD = {"steps": 25, "searches": 4, "confidence": 0.5}


def test_knowing_attacker_beats_algorithm_2_at_equal_tolerance():
    model, images, labels = setting()
    [row] = search.compare_attackers(
        model, images, labels, tolerances=[0.1], fgsm_options={"step": 0.05}, pgd_options=PGD, rng=rng(), **SETTINGS
    )
    assert row.fgsm.gap <= 0.1 and row.pgd.gap <= 0.1
    assert row.fgsm.accuracy == row.pgd.accuracy == models.accuracy(model, images, labels) > 0.95
    assert row.advantage > 0.2
    assert row.advantage == row.fgsm.adversarial_accuracy - row.pgd.adversarial_accuracy
    assert models.accuracy(model, row.pgd.images, labels) == row.pgd.adversarial_accuracy
    assert row.pgd.images.dtype == np.float32 and row.pgd.images.shape == images.shape
    assert row.pgd.images.min() >= 0 and row.pgd.images.max() <= 1
    assert np.abs(row.pgd.images - images).max() <= 0.3 + 1e-6
    # The defender meets both with the same clean batches.
    np.testing.assert_array_equal(row.fgsm_defended.r2, row.pgd_defended.r2)
    assert not np.array_equal(row.pgd_defended.r1, row.pgd.r1)


@pytest.mark.parametrize(("first", "weights"), [(1.0, [0, 1, 4, 2, 2**0.5]), (4.0, [0, 4, 1, 2, 2**0.5])])
def test_penalty_is_searched_between_what_breaks_and_what_keeps_the_tolerance(monkeypatch, first, weights):
    model, images, labels = setting()

    def weaker_with_penalty(judge, *arguments):
        return torch.from_numpy(attacks.fgsm(model, images, labels, 0.3 / (1 + arguments[6])).images)

    monkeypatch.setattr(search, "_evade", weaker_with_penalty)
    result = search.pgd_under_tolerance(
        model, images, labels, tolerance=0.5, penalty=first, searches=4, rng=rng(), **SETTINGS
    )
    # gap_at passes 0.5 between ε = 0.135 and 0.14, where w = 1.2.
    np.testing.assert_allclose([trial.penalty for trial in result.trace], weights)
    assert [trial.gap <= 0.5 for trial in result.trace] == [weight > 1.2 for weight in weights]
    assert result.penalty == pytest.approx(2**0.5)  # the least that keeps it leaves the lowest accuracy
    assert result.adversarial_accuracy == min(trial.accuracy for trial in result.trace if trial.gap <= 0.5)
    assert (
        result.gap
        == abs(result.r1.mean() - result.r2.mean())
        == min(trial.gap for trial in result.trace if trial.penalty == result.penalty)
    )


def test_attacker_without_penalty_is_enough_where_it_keeps_the_tolerance():
    result = search.pgd_under_tolerance(*setting(), tolerance=9.0, epsilon=0.1, steps=5, rng=rng(), **SETTINGS)
    assert result.penalty == 0 and len(result.trace) == 1


def test_knowing_the_detector_narrows_the_gap():
    # So little room that the classifier's term never falls silent: only the penalty holds the ratio. One σ and λ, or
    # the choice among them would jump over a tolerance this small.
    options = SETTINGS | {"epsilon": 0.1, "steps": 15, "confidence": 10.0, "draws": 20, "sigmas": 0.7, "lambdas": 0.03}
    blind = search.pgd_under_tolerance(*setting(), tolerance=9.0, rng=rng(), **options)
    tolerance = 0.7 * blind.gap
    knowing = search.pgd_under_tolerance(*setting(), tolerance=tolerance, searches=4, rng=rng(), **options)
    assert knowing.penalty > 0 and knowing.gap <= tolerance
    assert knowing.adversarial_accuracy <= blind.adversarial_accuracy + 0.1
    again = search.pgd_under_tolerance(*setting(), tolerance=tolerance, searches=4, rng=rng(), **options)
    np.testing.assert_array_equal(again.images, knowing.images)
    assert again.trace == knowing.trace


def test_unmet_tolerance_of_the_knowing_attacker_is_said():
    options = {"tolerance": 0.0, "searches": 2, "steps": 2} | SETTINGS
    with pytest.raises(ToleranceNotMet, match=r"tolerance must be kept .* up to 4, but is 0, .* searches") as caught:
        search.pgd_under_tolerance(*setting(), rng=rng(), **options)
    assert [trial.penalty for trial in caught.value.trace] == [0.0, 1.0, 4.0]


def test_model_is_left_as_it_was():
    model, images, labels = setting()
    model = nn.Sequential(copy.deepcopy(model), nn.Dropout(0.5)).train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    search.pgd_under_tolerance(model, images, labels, tolerance=9.0, steps=1, searches=1, rng=rng(), **SETTINGS)
    assert all(module.training for module in model.children())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": -1}, "tolerance must be a finite number of at least 0, but is -1"),
        ({"confidence": -1}, "confidence must be a finite number of at least 0, but is -1"),
        ({"epsilon": 0}, "epsilon must be a finite number above 0"),
        ({"penalty": 0}, "penalty must be a finite number above 0"),
        ({"step": 0}, "step must be a finite number above 0"),
        ({"steps": 0}, "steps must be at least 1, but is 0"),
        ({"searches": 0}, "searches must be at least 1, but is 0"),
        ({"reference": np.zeros((30, 1, 7, 8), np.float32)}, r"reference must hold .* but has shape \(30, 1, 7, 8\)"),
        ({"reference": np.zeros((19, 1, 8, 8), np.float32)}, "reference must hold at least batch_size=20 images"),
    ],
)
def test_unusable_arguments_of_the_knowing_attacker_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        search.pgd_under_tolerance(*setting(), **({"tolerance": 0.1, "rng": rng()} | SETTINGS | change))


# ---------------------------------------------------------------------------------------------- numerators, curve


def test_numerators_come_from_their_own_pool():
    model, images, labels = setting()
    pool = stripes(80, 9)[0]
    expected = density_ratio_comparison(
        images, attacks.fgsm(model, images, labels, 0.1).images, numerators=pool, rng=rng(), **SETTINGS
    )["combined"]
    (trial,) = search.gap_curve(model, images, labels, epsilons=[0.1], numerators=pool, rng=rng(), **SETTINGS)
    assert trial.difference == pytest.approx(expected.r1.mean() - expected.r2.mean(), rel=1e-9)
    (own,) = search.gap_curve(model, images, labels, epsilons=[0.1], rng=rng(), **SETTINGS)
    assert own.difference != trial.difference
    result = search.fgsm_under_tolerance(
        model, images, labels, tolerance=1e6, initial_epsilon=0.1, numerators=pool, rng=rng(), **SETTINGS
    )
    np.testing.assert_allclose(result.r1, expected.r1, rtol=1e-9)
    with pytest.raises(ValueError, match="numerators must hold images of shape"):
        search.gap_curve(model, images, labels, epsilons=[0.1], numerators=pool[..., :7], rng=rng(), **SETTINGS)


def test_curve_over_epsilon_is_the_searchs_own_trace():
    result = search.fgsm_under_tolerance(
        *setting(), tolerance=0.1, search="fixed step", step=0.05, rng=rng(), **SETTINGS
    )
    tried = [trial.epsilon for trial in result.trace]
    assert search.gap_curve(*setting(), epsilons=tried, rng=rng(), **SETTINGS) == list(result.trace)


def test_attackers_share_the_numerators_with_the_defender():
    model, images, labels = setting()
    pool = stripes(80, 9)[0]
    options = {"tolerances": [0.3], "fgsm_options": {"step": 0.1, "resolution": 0.02}}
    options |= {"pgd_options": {"steps": 3, "searches": 1}} | SETTINGS
    try:
        rows = search.compare_attackers(model, images, labels, numerators=pool, rng=rng(), **options)
    except ToleranceNotMet:
        pytest.fail("the attackers must meet this tolerance, or the test shows nothing")
    own = search.compare_attackers(model, images, labels, rng=rng(), **options)
    assert not np.array_equal(rows[0].fgsm_defended.r2, own[0].fgsm_defended.r2)
