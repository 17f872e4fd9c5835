"""FGSM against closed forms and cleverhans, and what every attack must do with its arguments."""

import dataclasses

import numpy as np
import pytest
import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import CHANNELS, CLASSES, SIDE, batch, exact_signs, linear_model, network
from torch import nn

from advlib import attacks, datasets, models
from advlib.attacks import base


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 1.0])
def test_equals_the_closed_form_on_a_linear_model(epsilon):
    images, labels = batch()
    model = linear_model()
    signs = exact_signs(model, images, labels)
    step = (np.float32(epsilon) * signs).astype(np.float32)
    unclipped = attacks.fgsm(model, images, labels, epsilon, clip=None)
    clipped = attacks.fgsm(model, images, labels, epsilon)
    np.testing.assert_array_equal(attacks.gradient_signs(model, images, labels), signs)
    np.testing.assert_array_equal(unclipped.images, images + step)
    np.testing.assert_array_equal(clipped.images, np.clip(images + step, 0, 1))
    assert unclipped.images.min() < 0 or epsilon < 0.1


@pytest.mark.parametrize("clip", [None, (0.0, 1.0), (-0.2, 1.1)])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3, 1.0])
def test_equals_cleverhans_to_the_bit(epsilon, clip):
    images, labels = batch()
    model = network().eval()
    low, high = clip or (None, None)
    theirs = fast_gradient_method(
        model, torch.from_numpy(images), epsilon, np.inf, low, high, y=torch.from_numpy(labels)
    )
    ours = attacks.fgsm(model, images, labels, epsilon, clip)
    np.testing.assert_array_equal(ours.images, theirs.detach().numpy())


def test_sweep_equals_single_attacks_to_the_bit_and_asks_for_one_gradient(monkeypatch):
    images, labels = batch(20)
    model = network()
    calls = []
    monkeypatch.setattr(base, "fast_gradient_method", lambda *a, **k: calls.append(1) or fast_gradient_method(*a, **k))
    epsilons = [0.5, 0.0, 0.1]
    sweep = list(attacks.fgsm_sweep(model, images, labels, epsilons, batch_size=7))
    assert len(calls) == 3  # ⌈20 / 7⌉ batches, not times three
    for epsilon, result in zip(epsilons, sweep, strict=True):
        single = attacks.fgsm(model, images, labels, epsilon, batch_size=7)
        for field in dataclasses.fields(single):
            np.testing.assert_array_equal(getattr(result, field.name), getattr(single, field.name), field.name)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), epsilon=st.floats(0, 2), clipped=st.booleans(), n=st.integers(1, 9))
def test_norms_bounds_and_success_hold_for_any_batch(seed, epsilon, clipped, n):
    images, labels = batch(n, seed)
    model = network(seed)
    result = attacks.fgsm(model, images, labels, epsilon, (0.0, 1.0) if clipped else None)
    change = (result.images - images).reshape(n, -1)
    np.testing.assert_allclose(result.linf, np.abs(change).max(1), rtol=1e-6)
    np.testing.assert_allclose(result.l2, np.sqrt((change.astype(float) ** 2).sum(1)), rtol=1e-5)
    assert (result.linf <= epsilon + 1e-6).all()
    if clipped:
        assert result.images.min() >= 0 and result.images.max() <= 1
    before, after = models.predict(model, images) == labels, models.predict(model, result.images) == labels
    np.testing.assert_array_equal(result.clean_correct, before)
    np.testing.assert_array_equal(result.success, before & ~after)
    assert result.clean_accuracy == before.mean() and result.adversarial_accuracy == after.mean()
    assert len(result) == n


def test_misread_images_are_no_success():
    images, _ = batch(30)
    model = linear_model()
    wrong = (models.predict(model, images) + 1) % CLASSES
    result = attacks.fgsm(model, images, wrong, 1.0)
    assert result.clean_accuracy == 0 and not result.success.any()


def test_epsilon_zero_changes_nothing_and_shares_no_memory():
    images, labels = batch()
    result = attacks.fgsm(network(), images, labels, 0.0, clip=None)
    np.testing.assert_array_equal(result.images, images)
    assert not np.shares_memory(result.images, images)
    assert not result.success.any() and result.clean_accuracy == result.adversarial_accuracy
    assert (result.linf == 0).all() and (result.l2 == 0).all()


def test_share_of_zero_gradients_is_counted_and_those_pixels_stay():
    model = linear_model()
    with torch.no_grad():
        model[1].weight.view(CLASSES, CHANNELS, SIDE, SIDE)[:, 0] = 0  # the model looks at the second channel alone
    images, labels = batch()
    result = attacks.fgsm(model, images, labels, 0.3)
    assert result.zero_gradient_share == 0.5
    np.testing.assert_array_equal(result.images[:, 0], images[:, 0])
    assert attacks.fgsm(linear_model(), images, labels, 0.3).zero_gradient_share == 0


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_batch_size_does_not_matter(batch_size):
    images, labels = batch()
    model = network()
    np.testing.assert_array_equal(
        attacks.fgsm(model, images, labels, batch_size=batch_size).images, attacks.fgsm(model, images, labels).images
    )


def test_dropout_is_off_and_the_model_is_left_as_it_was():
    images, labels = batch()
    model = network().train()
    model[0].weight.requires_grad_(False)
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = (attacks.fgsm(model, images, labels).images for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert [module.training for module in model] == [True, False, True, True, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_works_under_no_grad():
    images, labels = batch()
    with torch.no_grad():
        inside = attacks.fgsm(network(), images, labels)
    np.testing.assert_array_equal(inside.images, attacks.fgsm(network(), images, labels).images)


def test_result_has_the_kind_of_the_input():
    images, labels = batch()
    as_arrays = attacks.fgsm(network(), images, labels)
    as_tensors = attacks.fgsm(network(), torch.from_numpy(images).requires_grad_(), torch.from_numpy(labels))
    for name in ("images", "labels", "success", "clean_correct", "linf", "l2"):
        array, tensor = getattr(as_arrays, name), getattr(as_tensors, name)
        assert isinstance(array, np.ndarray) and isinstance(tensor, torch.Tensor) and not tensor.requires_grad
        np.testing.assert_array_equal(array, tensor.numpy())
    assert as_arrays.images.dtype == np.float32 and as_arrays.success.dtype == bool
    mixed = attacks.fgsm(network(), images.astype(np.float64), labels.astype(np.int32))
    np.testing.assert_array_equal(mixed.images, as_arrays.images)


def test_read_only_and_reversed_arrays_are_taken(recwarn):
    images, labels = batch()
    backwards = attacks.fgsm(network(), images[::-1], labels[::-1]).images
    np.testing.assert_array_equal(backwards[::-1], attacks.fgsm(network(), images, labels).images)
    images.flags.writeable = False
    attacks.fgsm(network(), images, labels)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": lambda x: x * 255}, r"images must lie in \[0, 1\].*divide by 255"),
        ({"images": lambda x: x - 0.5}, r"images must lie in \[0, 1\], but reach from -0\.\d+ to 0\.\d+$"),
        ({"images": lambda x: np.where(x == x.max(), np.float32(1.001), x)}, r"to 1\.001"),
        ({"images": lambda x: (x * 255).astype(np.uint8)}, "floating point.*uint8.*divide by 255"),
        ({"images": lambda x: (x > 0.5).astype(np.int64)}, "floating point.*int64"),
        ({"images": lambda x: np.where(x == x.max(), np.nan, x)}, "images must be finite, but 1 values"),
        ({"images": lambda x: np.where(x == x.max(), np.inf, x)}, "images must be finite, but 1 values"),
        ({"images": lambda x: x[:0], "labels": lambda y: y[:0]}, "images must be a non-empty"),
        ({"images": lambda x: x.reshape(len(x), -1)}, r"images must be a non-empty \(n, c, h, w\)"),
        ({"labels": lambda y: y[:-1]}, r"labels must be one an image, shape \(12,\), but has shape \(11,\)"),
        ({"labels": lambda y: y[:, None]}, "labels must be one an image"),
        ({"labels": lambda y: y.astype(float)}, "labels must be integers"),
        ({"labels": lambda y: y - 1}, "labels must be at least 0, but has -1"),
        ({"labels": lambda y: y + CLASSES}, "labels must be below the model's 3 classes"),
        ({"epsilon": lambda e: -0.1}, r"epsilon must be .* at least 0, but is -0\.1"),
        ({"epsilon": lambda e: float("nan")}, "epsilon must be a finite number"),
        ({"clip": lambda c: (1.0, 0.0)}, "clip must be a range"),
        ({"clip": lambda c: (0.0, 0.5)}, r"images must lie in \[0, 0\.5\]"),
        ({"clip": lambda c: None, "images": lambda x: x + 0.5}, r"images must lie in \[0, 1\]"),
        ({"batch_size": lambda b: 0}, "batch_size must be at least 1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    images, labels = batch()
    arguments = {"images": images, "labels": labels, "epsilon": 0.3, "clip": (0.0, 1.0), "batch_size": 500}
    arguments |= {name: function(arguments[name]) for name, function in change.items()}
    epsilon = arguments.pop("epsilon")
    with pytest.raises(ValueError, match=message):
        attacks.fgsm(network(), epsilon=epsilon, **arguments)
    with pytest.raises(ValueError, match=message):  # at the call, not when the first result is taken
        attacks.fgsm_sweep(network(), epsilons=[0.1, epsilon], **arguments)


def test_other_ranges_are_taken_when_stated():
    images, labels = batch()
    result = attacks.fgsm(linear_model(), images * 255, labels, 8.0, clip=(0, 255))
    assert result.images.max() > 1 and result.images.max() <= 255
    assert result.linf.max() == pytest.approx(8, abs=1e-4)


def test_both_ends_of_the_range_are_inside():
    images = np.zeros((2, CHANNELS, SIDE, SIDE), np.float32)
    images[1] = 1
    result = attacks.fgsm(linear_model(), images, np.array([0, 1]), 0.3)
    assert result.images.min() == 0 and result.images.max() == 1


def test_a_model_that_gives_nan_or_no_logits_is_named():
    images, labels = batch()
    broken = linear_model()
    with torch.no_grad():
        broken[1].weight.fill_(np.nan)
    with pytest.raises(ValueError, match="model must give finite logits"):
        attacks.fgsm(broken, images, labels)
    with pytest.raises(ValueError, match=r"model must give \(n, classes\) logits"):
        attacks.fgsm(nn.Identity(), images, labels)


def test_gradient_signs_take_any_range():
    images, labels = batch()
    signs = attacks.gradient_signs(linear_model(), (images - 0.5) * 6, labels)
    assert signs.dtype == np.int8 and set(np.unique(signs)) <= {-1, 0, 1}
    np.testing.assert_array_equal(signs, exact_signs(linear_model(), (images - 0.5) * 6, labels))


def test_random_sign_noise_is_as_large_as_fgsm_and_fair():
    images = np.full((200, CHANNELS, SIDE, SIDE), 0.5, np.float32)
    noisy = attacks.random_sign_noise(images, 0.1, np.random.default_rng(0))
    up = noisy > images
    np.testing.assert_array_equal(noisy, np.where(up, np.float32(0.6), np.float32(0.4)))
    assert abs(up.mean() - 0.5) < 4 * 0.5 / np.sqrt(up.size)
    again = attacks.random_sign_noise(images, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy, again)
    assert attacks.random_sign_noise(images, 1.0, np.random.default_rng(0)).max() == 1
    assert attacks.random_sign_noise(images, 1.0, np.random.default_rng(0), clip=None).max() == 1.5
    assert isinstance(attacks.random_sign_noise(torch.from_numpy(images), 0.1, np.random.default_rng(0)), torch.Tensor)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attacks.random_sign_noise(images * 255, 0.1, np.random.default_rng(0))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_runs_where_the_model_lives_and_answers_where_the_images_are():
    images, labels = batch()
    result = attacks.fgsm(network().cuda(), torch.from_numpy(images), torch.from_numpy(labels))
    assert result.images.device.type == "cpu"
    result = attacks.fgsm(network().cuda(), torch.from_numpy(images).cuda(), torch.from_numpy(labels).cuda())
    assert result.images.device.type == "cuda"


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist-vs22-official", "mnist-cleverhans"])
def test_fgsm_breaks_the_digit_networks_and_noise_of_the_same_size_does_not(name):
    try:
        data = datasets.load("mnist", download=False)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    images, labels = data.test_images[:500], data.test_labels[:500]
    model = models.load_trained(name)
    result = attacks.fgsm(model, images, labels, 0.2)
    noisy = attacks.random_sign_noise(images, 0.2, np.random.default_rng(0))
    assert result.clean_accuracy > 0.97
    lost_to_noise = result.clean_accuracy - models.accuracy(model, noisy, labels)
    assert lost_to_noise < 0.05 < 0.4 < result.clean_accuracy - result.adversarial_accuracy
    assert result.success.mean() == pytest.approx(result.clean_accuracy - result.adversarial_accuracy, abs=0.01)
