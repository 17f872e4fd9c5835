"""The gradient of uLSIF's mean ratio against differences, and the descent that uses it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from advlib import models
from advlib.attacks.adaptive import difference_gradient, differentiable_mean_ratio, pgd_against_density_ratio
from advlib.ulsif import ULSIF

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


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
    with pytest.raises(ValueError, match="kernel must be one of gaussian, unsquared, but is 'cubic'"):
        differentiable_mean_ratio(torch.zeros(2, 2), torch.zeros(2, 2), 1.0, 1.0, "cubic")


def test_channels_of_the_attackers_ratio_are_combined_as_in_equation_4():
    generator = torch.Generator().manual_seed(2)
    numerators, clean, suspects = (torch.rand(2, 7, 3, 4, 4, generator=generator) for _ in range(3))
    estimator = {"sigmas": [0.5, 2.0], "lambdas": [0.1, 1.0], "random_state": 0}
    difference, slope = difference_gradient(numerators, clean, suspects, estimator)

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


# ---------------------------------------------------------------------------------------------- descent


def problem():
    """Give a linear classifier of left and right halves, images that it reads rightly, and their labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 40)
    images = generator.uniform(0.1, 0.5, (40, 1, 4, 4)).astype(np.float32)
    images[labels == 0, :, :, :2] += 0.3
    images[labels == 1, :, :, 2:] += 0.3
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    left = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(4)
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([left, 1 - left]))
    return model, images, labels


def attack(**changed):
    model, images, labels = problem()
    options = {"tolerance": 0.1, "steps": 4, "batch_size": 20, "rng": np.random.default_rng(1)}
    options |= {"sigmas": [1.0], "lambdas": [0.1]} | changed
    return pgd_against_density_ratio(model, images, labels, **options)


def test_result_is_that_of_other_attacks_and_stays_within_its_bounds():
    model, images, labels = problem()
    batch = attack(weight=0.0, epsilon=0.2, steps=20)
    assert batch.clean_accuracy == 1 and batch.adversarial_accuracy < 0.5
    assert batch.adversarial_accuracy == models.accuracy(model, batch.images, labels)
    assert batch.images.dtype == np.float32 and np.abs(batch.images - images).max() <= 0.2 + 1e-6
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    tensors = pgd_against_density_ratio(
        model, torch.from_numpy(images), torch.from_numpy(labels), tolerance=0.1, weight=0.0, epsilon=0.2, steps=20,
        batch_size=20, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert isinstance(tensors.images, torch.Tensor)
    np.testing.assert_array_equal(tensors.images.numpy(), batch.images)


def test_weight_draws_the_attack_towards_the_tolerance_and_the_same_seed_repeats_it():
    _, images, _ = problem()
    generator = np.random.default_rng(2)
    drawn, others = (np.stack([generator.choice(40, 20, replace=False) for _ in range(10)]) for _ in range(2))

    def gap(weight):
        moved = attack(weight=weight, tolerance=0.0, epsilon=0.1, confidence=10.0, steps=20).images
        batches = (torch.from_numpy(x) for x in (images[drawn], images[others], moved[others]))
        return abs(difference_gradient(*batches, {"sigmas": [1.0], "lambdas": [0.1]})[0])

    assert gap(1.0) < 0.9 * gap(0.0)
    np.testing.assert_array_equal(attack(weight=1.0).images, attack(weight=1.0).images)


def test_model_is_left_as_it_was():
    model, images, labels = problem()
    model = nn.Sequential(copy.deepcopy(model), nn.Dropout(0.5)).train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    options = {"tolerance": 0.1, "steps": 1, "batch_size": 20, "rng": np.random.default_rng(1)}
    pgd_against_density_ratio(model, images, labels, **options)
    assert all(module.training for module in model.children())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": -1}, "tolerance must be a finite number of at least 0, but is -1"),
        ({"weight": -1}, "weight must be a finite number of at least 0, but is -1"),
        ({"confidence": -1}, "confidence must be a finite number of at least 0, but is -1"),
        ({"epsilon": 0}, "epsilon must be a finite number above 0"),
        ({"step": 0}, "step must be a finite number above 0"),
        ({"steps": 0}, "steps must be at least 1, but is 0"),
        ({"references": np.zeros((30, 1, 3, 4), np.float32)}, r"references must hold .* but has shape \(30, 1, 3, 4\)"),
        ({"references": np.zeros((19, 1, 4, 4), np.float32)}, "references must hold at least batch_size=20 images"),
    ],
)
def test_unusable_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        attack(**change)
