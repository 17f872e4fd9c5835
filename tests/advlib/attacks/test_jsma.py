"""JSMA against a direct implementation."""

import dataclasses
import importlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import CHANNELS, CLASSES, SIDE, batch, linear_model
from torch import nn

from advlib import attacks, models

jsma_module = importlib.import_module("advlib.attacks.jsma")  # the package's attribute of this name is the attack


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


@settings(max_examples=150)
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
        patch.setattr(jsma_module, "_PAIR_ELEMENTS", elements)
        chosen = jsma_module._best_pair(*map(torch.from_numpy, (a, b, free))).numpy()
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
    p, q = jsma_module._best_pair(a, b, torch.ones(1, d, dtype=torch.bool))[0]
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
