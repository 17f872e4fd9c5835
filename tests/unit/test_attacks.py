import dataclasses
import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torchvision
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advlib import attacks, datasets, models

CHANNELS, SIDE, CLASSES = 2, 5, 3


def linear_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIDE * SIDE, CLASSES))


def network(seed=0):
    """Everything that could go wrong: dropout, batch norm, pooling, parameters that want gradients."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(CHANNELS, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(4, CLASSES),
        )  # fmt: skip


def batch(n=12, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.random((n, CHANNELS, SIDE, SIDE), dtype=np.float32)
    return images, rng.integers(0, CLASSES, n)


def exact_signs(model, images, labels):
    """Sign of the gradient of a linear model's cross-entropy in closed form: Wᵀ(softmax(z) − onehot(y)), in float64."""
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    z = images.reshape(len(images), -1).astype(float) @ weight.T + bias
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return np.sign((p - np.eye(CLASSES)[labels]) @ weight).reshape(images.shape)


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
    monkeypatch.setattr(
        attacks, "fast_gradient_method", lambda *a, **k: calls.append(1) or fast_gradient_method(*a, **k)
    )
    epsilons = [0.5, 0.0, 0.1]
    sweep = list(attacks.fgsm_sweep(model, images, labels, epsilons, batch_size=7))
    assert len(calls) == 3  # ⌈20 / 7⌉ batches, not times three
    for epsilon, result in zip(epsilons, sweep, strict=True):
        single = attacks.fgsm(model, images, labels, epsilon, batch_size=7)
        for field in dataclasses.fields(single):
            np.testing.assert_array_equal(getattr(result, field.name), getattr(single, field.name), field.name)


@settings(max_examples=30, deadline=None)
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


# --- Several steps along the sign of the gradient: TGSM and PGD ---


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
    monkeypatch.setattr(
        attacks, "fast_gradient_method", lambda *a, **k: calls.append(1) or fast_gradient_method(*a, **k)
    )
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


@settings(max_examples=20, deadline=None)
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


# --- JSMA ---


def jacobian(model, image):
    """∂ logits / ∂ features of one image, (classes, d), one backward pass a class."""
    x = torch.from_numpy(image)[None].requires_grad_()
    logits = model(x)[0]
    return np.stack([torch.autograd.grad(z, x, retain_graph=True)[0].numpy().ravel() for z in logits]).astype(float)


def direct_jsma(model, image, target, theta, iterations, pairs, softmax=False, stop=True):
    """Papernot et al., algorithms 2 and 3, with loops over all pairs; the images after each iteration."""
    x, states = image.copy(), []
    for _ in range(iterations):
        z = models.logits(model, x[None])[0].astype(float)
        if stop and z.argmax() == target:
            break
        derivative = jacobian(model, x)
        if softmax:
            p = np.exp(z - z.max())
            p /= p.sum()
            derivative = p[:, None] * (derivative - p @ derivative)
        alpha, beta = derivative[target], np.delete(derivative, target, 0).sum(0)
        domain = np.flatnonzero(x.ravel() < 1 if theta > 0 else x.ravel() > 0)
        candidates = itertools.combinations(domain, 2) if pairs else ((p,) for p in domain)
        largest, chosen = 0.0, None
        for features in candidates:
            a, b = alpha[list(features)].sum() * np.sign(theta), beta[list(features)].sum() * np.sign(theta)
            if a > 0 > b and -a * b > largest:
                largest, chosen = -a * b, features
        if chosen is None:
            break
        for feature in chosen:
            x.ravel()[feature] = np.clip(x.ravel()[feature] + np.float32(theta), 0, 1)
        states.append(x.copy())
    return states


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("saliency", ["logits", "softmax"])
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("theta", [1.0, 0.3, -1.0, -0.4])
def test_jsma_chooses_the_features_of_a_direct_implementation(theta, pairs, saliency, stop):
    images, labels = batch(5, seed=3)
    images[:3] = np.round(images[:3])  # some features at the edge from the start
    model = smooth_network().eval()
    targets = (models.predict(model, images) + 1) % CLASSES
    d, width = images[0].size, 1 + pairs
    budgets = range(d // width // 3 + 1)
    sweep = attacks.jsma_sweep(
        model, images, labels, [k * width / d for k in budgets], theta=theta, pairs=pairs, saliency=saliency,
        targets=targets, stop_at_target=stop,
    )  # fmt: skip
    steps = np.stack([result.images for result in sweep])
    lengths = []
    for i, target in enumerate(targets):
        states = direct_jsma(model, images[i], target, theta, budgets[-1], pairs, saliency == "softmax", stop)
        states = [images[i], *states]
        lengths.append(len(states))
        for k in budgets:
            np.testing.assert_array_equal(steps[k, i], states[min(k, len(states) - 1)])
    assert max(lengths) > 4


def smooth_network(seed=0):
    """Unlike `network`, without pooling and ReLU: all gradients differ, so that no two pairs tie."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(CHANNELS, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(54, CLASSES))


@pytest.mark.parametrize("pairs", [True, False])
def test_jsma_on_a_linear_model_takes_features_in_order_of_their_saliency(pairs):
    model = linear_model()
    weight = model[1].weight.detach().double().numpy()
    alpha, beta = weight[1], weight[0] + weight[2]
    images, labels = np.full((1, CHANNELS, SIDE, SIDE), 0.5, np.float32), np.array([0])
    result = attacks.jsma(
        model, images, labels, 0.2, pairs=pairs, theta=0.5, targets=1, stop_at_target=False
    )  # 10 features of 50
    changed = result.images.ravel() != 0.5
    if not pairs:
        score = np.where((alpha > 0) & (beta < 0), -alpha * beta, 0)
        np.testing.assert_array_equal(np.flatnonzero(changed), np.sort(np.argsort(-score)[:10]))
    assert changed.sum() == 10 and (result.images.ravel()[changed] == 1).all()
    assert result.l0.tolist() == [10]


def best_pair_by_loops(a, b, free):
    best, chosen = 0.0, (-1, -1)
    for p, q in itertools.combinations(np.flatnonzero(free), 2):
        if a[p] + a[q] > 0 and b[p] + b[q] > 0 and (a[p] + a[q]) * (b[p] + b[q]) > best:
            best, chosen = (a[p] + a[q]) * (b[p] + b[q]), (p, q)
    return best, chosen


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 25),
    kind=st.sampled_from(["free", "ties", "front", "negative"]),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    elements=st.sampled_from([1, 7, 2**22]),
)
def test_best_pair_is_that_of_all_pairs(seed, d, kind, share, elements):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 3, d))
    if kind == "ties":
        a, b = np.round(2 * a), np.round(2 * b)
    elif kind == "front":  # nobody beats anybody: every feature is a candidate
        a = np.sort(a, axis=1)
        b = -np.sort(-b, axis=1)
    elif kind == "negative":
        a, b = a - 1.5, b - 1.5
    free = rng.random((3, d)) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks, "_PAIR_ELEMENTS", elements)
        chosen = attacks._best_pair(*map(torch.from_numpy, (a, b, free))).numpy()
    for row in range(3):
        best, expected = best_pair_by_loops(a[row], b[row], free[row])
        if kind == "ties":  # any of the best will do
            p, q = chosen[row]
            assert (p < 0) == (best == 0)
            if best:
                assert p < q and free[row, p] and free[row, q]
                assert (a[row, p] + a[row, q]) * (b[row, p] + b[row, q]) == best
        else:
            assert tuple(chosen[row]) == expected


def test_best_pair_at_full_colour_size_needs_no_matrix_of_pairs():
    d = 3 * 224 * 224  # all pairs would take 180 GB
    rng = np.random.default_rng(0)
    a, b = torch.from_numpy(rng.standard_normal((2, 1, d)))
    p, q = attacks._best_pair(a, b, torch.ones(1, d, dtype=torch.bool))[0]
    best = (a[0, p] + a[0, q]) * (b[0, p] + b[0, q])
    partners = (a[0] + a[0, p]).clamp_min(0) * (b[0] + b[0, p]).clamp_min(0)
    partners[p] = 0
    assert partners.max() == best
    corner = torch.stack([a[0].topk(1000).indices, b[0].topk(1000).indices]).ravel()
    scores = (a[0, corner, None] + a[0, corner]).clamp_min(0) * (b[0, corner, None] + b[0, corner]).clamp_min(0)
    scores[corner[:, None] == corner] = 0
    assert scores.max() <= best


def test_jsma_keeps_its_budget_and_changes_in_one_direction():
    images, labels = batch(20)
    for theta, pairs in itertools.product([1.0, 0.2, -1.0], [True, False]):
        for gamma in [0.0, 0.02, 0.1, 0.5, 1.0]:
            result = attacks.jsma(smooth_network(), images, labels, gamma, theta=theta, pairs=pairs)
            change = (result.images - images) * np.sign(theta)
            assert change.min() >= 0 and change.max() <= 1
            assert result.images.min() >= 0 and result.images.max() <= 1
            np.testing.assert_array_equal(result.l0, (change != 0).reshape(20, -1).sum(1))
            assert result.l0.max() <= gamma * images[0].size
            if abs(theta) < 1:
                assert (change[change > 0] > 0).all()
    assert result.l0.max() > 0


def test_jsma_leaves_alone_what_is_read_as_its_target():
    images, labels = batch(20)
    model = smooth_network()
    said = models.predict(model, images)
    result = attacks.jsma(model, images, labels, 0.5, targets=said)
    np.testing.assert_array_equal(result.images, images)
    other = attacks.jsma(model, images, said, 1.0, targets=(said + 1) % CLASSES)
    assert other.targeted_success > 0.5
    reached = other.predictions == other.targets
    np.testing.assert_array_equal(other.success, other.predictions != said)
    assert reached[other.l0 < images[0].size // 2].any()


def test_jsma_does_not_depend_on_the_batch_and_budget_sweeps_equal_single_runs():
    images, labels = batch(20)
    gammas = [0.3, 0.0, 0.1]
    sweep = list(attacks.jsma_sweep(smooth_network(), images, labels, gammas, batch_size=7))
    for gamma, result in zip(gammas, sweep, strict=True):
        single = attacks.jsma(smooth_network(), images, labels, gamma)
        for field in dataclasses.fields(single):
            np.testing.assert_array_equal(getattr(result, field.name), getattr(single, field.name), field.name)


def test_softmax_saliency_survives_probabilities_that_underflow():
    model = linear_model()
    with torch.no_grad():
        model[1].bias[1] -= 500  # its probability is 0 in float32
    images, labels = batch()
    result = attacks.jsma(model, images, labels, 0.1, targets=1, saliency="softmax")
    assert (result.l0 == 4).all()  # ⌊0.1 · 50 / 2⌋ pairs


def test_dead_features_are_never_chosen_alone_and_a_constant_model_changes_nothing():
    images, labels = batch()
    model = linear_model()
    with torch.no_grad():
        model[1].weight.zero_()
    for pairs in (True, False):
        assert attacks.jsma(model, images, labels, 1.0, pairs=pairs, targets=1).l0.max() == 0


def test_random_targets_are_never_the_label_and_come_from_the_generator():
    images, labels = batch(60)
    draws = [
        attacks.jsma(smooth_network(), images, labels, 0, targets="random", rng=np.random.default_rng(seed)).targets
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any() and (draws[0] != labels).all()
    assert set(np.unique((draws[0] - labels) % CLASSES)) == {1, 2}


@pytest.mark.parametrize(
    ("attack", "arguments", "message"),
    [
        ("jsma", {"gamma": 1.1}, "gamma must be a share"),
        ("jsma", {"gamma": float("nan")}, "gamma must be a share"),
        ("jsma", {"theta": 0.0}, "theta must be a finite number other than 0"),
        ("jsma", {"saliency": "probabilities"}, "saliency must be"),
        ("jsma", {"clip": None}, "clip must be a range"),
        ("jsma", {"batch_size": 0}, "batch_size must be at least 1"),
        ("tgsm", {"steps": -1}, "steps must be at least 0"),
        ("tgsm", {"ball": -0.1}, "ball must be"),
        ("tgsm", {"epsilon": -0.1}, "epsilon must be"),
        ("pgd", {"epsilon": float("inf")}, "epsilon must be"),
        ("pgd", {"step": -0.1}, "step must be"),
        ("pgd", {"steps": -1}, "steps must be at least 0"),
    ],
)
def test_bad_arguments_of_other_attacks_are_named(attack, arguments, message):
    images, labels = batch()
    with pytest.raises(ValueError, match=message):
        getattr(attacks, attack)(network(), images, labels, **arguments)


@pytest.mark.parametrize("attack", [attacks.jsma, attacks.tgsm])
def test_bad_targets_and_images_are_named(attack):
    images, labels = batch()
    for targets, message in [
        ("likely", "targets must be 'least_likely'"),
        ("random", "rng must be"),
        (CLASSES, "targets must be classes 0 to 2, but reach from 3 to 3"),
        (-1, "targets must be classes"),
        (labels[:-1], "targets must be one class or one an image"),
        (labels.astype(float), "targets must be integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            attack(network(), images, labels, targets=targets)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        attack(network(), images * 255, labels)
    with pytest.raises(ValueError, match="labels must be below"):
        attack(network(), images, labels + CLASSES)
    with pytest.raises(ValueError, match=r"model must give \(n, classes\) logits"):
        attack(nn.Identity(), images, labels)


def test_every_attack_takes_tensors_under_no_grad_and_leaves_the_model_as_it_was():
    images, labels = batch()
    for attack in (attacks.jsma, attacks.tgsm, attacks.pgd):
        model = network().train()
        with torch.no_grad():
            result = attack(model, torch.from_numpy(images), torch.from_numpy(labels))
        assert isinstance(result.images, torch.Tensor) and isinstance(result.l0, torch.Tensor)
        assert all(module.training for module in model) and all(p.requires_grad for p in model.parameters())
        np.testing.assert_array_equal(result.images, attack(network(), images, labels).images)


def test_join_of_parts_is_the_whole():
    images, labels = batch(20)
    for attack in (attacks.fgsm, attacks.tgsm, attacks.jsma):
        whole = attack(linear_model(), images, labels)
        parts = [attack(linear_model(), images[rows], labels[rows]) for rows in (slice(0, 3), slice(3, 20))]
        joined = attacks.join(parts)
        for field in dataclasses.fields(whole):
            np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name), field.name)
    with pytest.raises(ValueError, match="batches must hold at least one"):
        attacks.join([])
    with pytest.raises(ValueError, match="one attack"):
        attacks.join([attacks.fgsm(linear_model(), images, labels), whole])


# --- Harmless changes of the same size ---


def l2(images, changed):
    return np.sqrt(((np.asarray(changed, float) - images) ** 2).reshape(len(images), -1).sum(1))


def pictures(n=12, seed=0, height=20, width=16):
    """Smooth images, as shifts and rotations want them."""
    noise = np.random.default_rng(seed).random((n, CHANNELS, height, width))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
def test_gaussian_noise_has_the_asked_norm_after_clipping(clip):
    images, _ = batch(30)
    images[:10] = np.round(images[:10])  # half of the noise on these is clipped away
    wanted = np.linspace(0, 3, 30)
    noisy = attacks.gaussian_noise(images, np.random.default_rng(0), l2=wanted, clip=clip)
    np.testing.assert_allclose(l2(images, noisy), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(noisy[0], images[0])
    largest = attacks.gaussian_noise(images, np.random.default_rng(0), linf=0.4, clip=clip)
    np.testing.assert_allclose(np.abs(largest - images).reshape(30, -1).max(1), 0.4, rtol=1e-5)
    if clip:
        assert noisy.min() >= 0 and noisy.max() <= 1
    tensors = torch.from_numpy(images), torch.from_numpy(wanted)
    again = attacks.gaussian_noise(tensors[0], np.random.default_rng(0), l2=tensors[1], clip=clip)
    np.testing.assert_array_equal(again.numpy(), noisy)


def test_gaussian_noise_is_gaussian():
    images = np.full((40, CHANNELS, SIDE, SIDE), 0.5, np.float32)
    noise = attacks.gaussian_noise(images, np.random.default_rng(0), l2=1.0, clip=None) - images
    assert scipy.stats.kstest((noise / noise.std()).ravel(), "norm").pvalue > 0.001


def test_norms_out_of_reach_are_said_and_the_largest_given():
    images, _ = batch(4)
    with pytest.warns(UserWarning, match="l2 could not be reached for 2 of 4 images"):
        noisy = attacks.gaussian_noise(images, np.random.default_rng(0), l2=[1.0, 100.0, 1.0, 100.0])
    assert set(np.unique(noisy[[1, 3]])) == {0, 1}
    np.testing.assert_allclose(l2(images, noisy)[[0, 2]], 1, rtol=1e-5)
    flat = np.full((2, 1, 8, 8), 0.3, np.float32)
    with pytest.warns(UserWarning, match="l2 could not be reached for 2 of 2 images"):
        np.testing.assert_array_equal(attacks.shifted(flat, l2=1.0), flat)


def test_match_l2_scales_any_change():
    images, labels = batch()
    attack = attacks.fgsm(linear_model(), images, labels, 0.1)
    noisy = attacks.random_sign_noise(images, 0.3, np.random.default_rng(0))
    matched = attacks.match_l2(images, noisy, attack.l2)
    np.testing.assert_allclose(l2(images, matched), attack.l2, rtol=1e-5)
    direction, change = noisy - images, matched - images
    inside = (matched > 0) & (matched < 1) & (noisy > 0) & (noisy < 1)
    assert (np.sign(change) == np.sign(direction))[inside].all()
    np.testing.assert_array_equal(attacks.match_l2(images, noisy, 0.0), images)
    mean = attacks.match_l2(images, noisy, float(attack.l2.mean()))
    np.testing.assert_allclose(l2(images, mean), attack.l2.mean(), rtol=1e-5)


def test_shift_by_whole_pixels_moves_them_exactly_and_repeats_the_border():
    images = pictures()
    np.testing.assert_array_equal(attacks.shifted(images, pixels=0.0), images)
    right = attacks.shifted(images, pixels=3.0)
    np.testing.assert_allclose(right[..., 3:], images[..., :-3], atol=1e-7)
    np.testing.assert_allclose(right[..., :3], np.repeat(images[..., :1], 3, -1), atol=1e-7)
    up = attacks.shifted(images, pixels=2.0, direction=90.0)
    np.testing.assert_allclose(up[..., :-2, :], images[..., 2:, :], atol=1e-7)


def test_shift_equals_scipy():
    images = pictures()
    pixels, direction = np.linspace(-2, 4, len(images)), np.linspace(0, 350, len(images))
    ours = attacks.shifted(images, pixels=pixels, direction=direction)
    for image, moved, distance, angle in zip(images, ours, pixels, np.deg2rad(direction), strict=True):
        offset = (0, -distance * np.sin(angle), distance * np.cos(angle))
        theirs = scipy.ndimage.shift(image.astype(float), offset, order=1, mode="nearest")
        np.testing.assert_allclose(moved, theirs, atol=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 7.5, -20.0, 90.0, 180.0])
def test_rotation_equals_torchvision(degrees):
    images = pictures()
    images[..., :3], images[..., -3:], images[..., :3, :], images[..., -3:, :] = 0, 0, 0, 0  # theirs fills with zeros
    theirs = torchvision.transforms.functional.rotate(
        torch.from_numpy(images), degrees, torchvision.transforms.InterpolationMode.BILINEAR
    ).numpy()
    np.testing.assert_allclose(attacks.rotated(images, degrees=degrees), theirs, atol=1e-4)


@pytest.mark.parametrize("change", [attacks.shifted, attacks.rotated])
def test_shift_and_rotation_reach_the_asked_norm_by_the_first_amount(change):
    images = pictures()
    name = "pixels" if change is attacks.shifted else "degrees"
    small = change(images, **{name: 1.3})
    wanted = l2(images, small)
    matched = change(images, l2=wanted)
    np.testing.assert_allclose(l2(images, matched), wanted, rtol=1e-5)
    np.testing.assert_allclose(matched, small, atol=1e-4)
    np.testing.assert_allclose(l2(images, change(images, l2=0.5)), 0.5, rtol=1e-5)
    np.testing.assert_array_equal(change(images, l2=0.0), images)
    as_tensor = change(torch.from_numpy(images), l2=torch.from_numpy(wanted))
    np.testing.assert_array_equal(as_tensor.numpy(), matched)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: attacks.gaussian_noise(x, np.random.default_rng(0)), "exactly one of l2 and linf"),
        (lambda x: attacks.gaussian_noise(x, np.random.default_rng(0), l2=1, linf=1), "exactly one of l2 and linf"),
        (lambda x: attacks.gaussian_noise(x, np.random.default_rng(0), l2=-1), "l2 must be at least 0"),
        (lambda x: attacks.gaussian_noise(x, np.random.default_rng(0), linf=np.nan), "linf must be finite"),
        (lambda x: attacks.gaussian_noise(x, np.random.default_rng(0), l2=[1, 2]), "l2 must be one number or one an"),
        (lambda x: attacks.gaussian_noise(x * 255, np.random.default_rng(0), l2=1), r"images must lie in \[0, 1\]"),
        (lambda x: attacks.match_l2(x, x[:, :1], 1.0), "changed must have the shape of images"),
        (lambda x: attacks.shifted(x), "exactly one of pixels and l2"),
        (lambda x: attacks.shifted(x * 2, pixels=1), r"images must lie in \[0, 1\]"),
        (lambda x: attacks.shifted(x, pixels=np.inf), "pixels must be finite"),
        (lambda x: attacks.rotated(x, degrees=1, l2=1), "exactly one of degrees and l2"),
        (lambda x: attacks.rotated(x, degrees=np.ones((12, 1))), "degrees must be one number or one an image"),
    ],
)
def test_bad_arguments_of_harmless_changes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(batch()[0])


@pytest.mark.data
def test_digits_fall_to_the_targeted_attacks_and_not_to_harmless_changes():
    try:
        data = datasets.load("mnist", download=False)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    images, labels = data.test_images[:20], data.test_labels[:20]
    model = models.load_trained("mnist-cleverhans")
    few = attacks.jsma(model, images, labels, 0.1)
    assert few.adversarial_accuracy < 0.3 and few.targeted_success > 0.5
    assert 10 < few.l0.mean() <= 78
    steps = attacks.tgsm(model, images, labels, 0.05, steps=6)
    assert steps.adversarial_accuracy < 0.3 and steps.targeted_success > 0.2
    assert models.accuracy(model, attacks.gaussian_noise(images, np.random.default_rng(0), l2=steps.l2), labels) > 0.9
    assert models.accuracy(model, attacks.shifted(images, pixels=1.0), labels) > 0.9
    assert models.accuracy(model, attacks.rotated(images, degrees=8.0), labels) > 0.9
