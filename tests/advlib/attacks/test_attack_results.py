"""What all attacks share: errors, kinds of arrays, joined results."""

import dataclasses

import numpy as np
import pytest
import torch
from small_networks import CLASSES, batch, linear_model, network
from torch import nn

from advlib import attacks, datasets, models


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
