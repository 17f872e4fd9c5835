"""TGSM and PGD against closed forms and cleverhans."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import CHANNELS, SIDE, batch, exact_signs, linear_model, network

from advlib import attacks, models
from advlib.attacks import base


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("ball", [None, 0.12])
@pytest.mark.parametrize("targets", [1, "least_likely"])
def test_tgsm_equals_the_closed_form_on_a_linear_model(targets, ball, clip):
    images, labels = batch()
    model = linear_model()
    aims = models.logits(model, images).argmin(1) if targets == "least_likely" else np.full(len(images), targets)
    moved = images
    for _ in range(5):
        moved = (moved - np.float32(0.05) * exact_signs(model, moved, aims)).astype(np.float32)
        if clip:
            moved = moved.clip(*clip)
        if ball:
            moved = (images + (moved - images).clip(-np.float32(ball), np.float32(ball))).astype(np.float32)
            moved = moved.clip(*clip) if clip else moved
    result = attacks.tgsm(model, images, labels, 0.05, clip, steps=5, targets=targets, ball=ball)
    np.testing.assert_array_equal(result.images, moved)
    np.testing.assert_array_equal(result.targets, aims)
    np.testing.assert_array_equal(result.predictions, models.predict(model, moved))
    reached = (result.predictions == aims)[aims != labels]
    assert result.targeted_success == pytest.approx(reached.mean())


def test_one_step_of_tgsm_is_targeted_fgsm_of_cleverhans():
    images, labels = batch()
    model = network().eval()
    x, y = torch.from_numpy(images), torch.full((len(images),), 2)
    theirs = fast_gradient_method(model, x, 0.1, np.inf, 0.0, 1.0, y=y, targeted=True)
    ours = attacks.tgsm(model, images, labels, 0.1, steps=1, targets=2)
    np.testing.assert_array_equal(ours.images, theirs.detach().numpy())


def test_without_a_ball_tgsm_goes_as_far_as_its_steps_and_with_one_no_farther():
    images = np.full((3, CHANNELS, SIDE, SIDE), 0.5, np.float32)
    labels = np.zeros(3, int)
    model = linear_model()
    sweep = attacks.tgsm_sweep(model, images, labels, [0, 1, 3, 10], 0.05, targets=1)
    assert [float(result.linf.max()) for result in sweep] == pytest.approx([0, 0.05, 0.15, 0.5], abs=1e-6)
    held = attacks.tgsm(model, images, labels, 0.05, steps=10, targets=1, ball=0.12)
    np.testing.assert_allclose(held.linf, 0.12, atol=1e-6)


def test_tgsm_reaches_its_target_and_pushes_an_image_of_the_target_deeper():
    images, labels = batch(30)
    model = linear_model()
    result = attacks.tgsm(model, images, labels, 0.1, steps=20, targets=2)
    assert result.targeted_success == 1 and (result.predictions == 2).all()
    np.testing.assert_array_equal(result.success, result.clean_correct & (labels != 2))
    own = labels == 2
    log_odds = [torch.from_numpy(models.logits(model, x)).log_softmax(1)[own, 2] for x in (images, result.images)]
    assert (log_odds[1] > log_odds[0]).all()


def test_sweep_over_steps_equals_single_attacks_to_the_bit_for_the_price_of_the_longest(monkeypatch):
    images, labels = batch(20)
    model = network()
    calls = []
    monkeypatch.setattr(base, "fast_gradient_method", lambda *a, **k: calls.append(1) or fast_gradient_method(*a, **k))
    steps = [0, 1, 2, 5]
    sweep = list(attacks.tgsm_sweep(model, images, labels, steps, 0.03, batch_size=7))
    assert len(calls) == 5 * 3
    for count, result in zip(steps, sweep, strict=True):
        single = attacks.tgsm(model, images, labels, 0.03, steps=count, batch_size=7)
        for field in dataclasses.fields(single):
            np.testing.assert_array_equal(getattr(result, field.name), getattr(single, field.name), field.name)


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize(("epsilon", "step", "steps"), [(0.1, 0.03, 7), (0.3, 0.3, 2), (0.05, 0.001, 3)])
def test_pgd_equals_cleverhans_to_the_bit(epsilon, step, steps, clip):
    images, labels = batch()
    model = network().eval()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    low, high = clip or (None, None)
    theirs = projected_gradient_descent(model, x, epsilon, step, steps, np.inf, low, high, y=y, rand_init=False)
    ours = attacks.pgd(model, images, labels, epsilon, clip, step=step, steps=steps)
    np.testing.assert_array_equal(ours.images, theirs.detach().numpy())
    assert ours.targets is None and ours.targeted_success is None


def test_pgd_starts_uniformly_in_its_ball_from_the_callers_generator_alone():
    images = np.full((200, CHANNELS, SIDE, SIDE), 0.5, np.float32)
    labels = np.zeros(200, int)
    before = torch.random.get_rng_state()
    start = attacks.pgd(linear_model(), images, labels, 0.2, steps=0, rng=np.random.default_rng(0)).images
    assert torch.equal(before, torch.random.get_rng_state())
    values = (start - images).ravel() / 0.2
    assert np.abs(values).max() <= 1 + 1e-6
    assert scipy.stats.kstest(values, scipy.stats.uniform(-1, 2).cdf).pvalue > 0.001
    again = attacks.pgd(linear_model(), images, labels, 0.2, steps=0, rng=np.random.default_rng(0), batch_size=7)
    np.testing.assert_array_equal(start, again.images)
    np.testing.assert_array_equal(attacks.pgd(linear_model(), images, labels, 0.2, steps=0).images, images)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    epsilon=st.floats(0, 2),
    step=st.floats(0, 3),
    clipped=st.booleans(),
    started=st.booleans(),
)
def test_pgd_stays_in_ball_and_range(seed, epsilon, step, clipped, started):
    images, labels = batch(4, seed)
    rng = np.random.default_rng(seed) if started else None
    result = attacks.pgd(
        network(seed), images, labels, epsilon, (0.0, 1.0) if clipped else None, step=step, steps=3, rng=rng
    )
    assert (result.linf <= epsilon * (1 + 1e-6) + 1e-6).all()
    if clipped:
        assert result.images.min() >= 0 and result.images.max() <= 1


def test_pgd_lowers_the_accuracy_at_least_as_far_as_fgsm():
    images, labels = batch(200)
    model = network()
    labels = models.predict(model, images)
    single = attacks.fgsm(model, images, labels, 0.1)
    many = attacks.pgd(model, images, labels, 0.1, steps=20)
    assert many.adversarial_accuracy < single.adversarial_accuracy < 1
