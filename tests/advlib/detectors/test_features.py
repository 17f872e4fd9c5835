"""Feature maps against direct computation; names that lead back to the map; what texture and stability are for."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import uniform_filter

from advlib import models
from advlib.detectors import features


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((6, 2, 12, 11), dtype=np.float32)


def test_pixels_are_the_images(images):
    assert np.array_equal(features.pixels(images), images.reshape(6, -1))


def test_residual_equals_a_moving_average(images):
    inside = np.stack([uniform_filter(plane, 3, mode="constant") for plane in images.reshape(12, 12, 11)])
    share = uniform_filter(np.ones((12, 11)), 3, mode="constant")
    direct = np.abs(images.reshape(12, 12, 11) - inside / share)[:, :12, :8]
    direct = direct.reshape(12, 3, 4, 2, 4).mean(axis=(2, 4)).reshape(6, -1)
    np.testing.assert_allclose(features.residual(images), direct, atol=1e-6)


def test_texture_counts_small_differences(images):
    found = features.texture(images).reshape(6, 2, -1) ** 2
    assert found.shape == (6, 2, 8 + 6 * 9)
    plane = images[3, 1].astype(np.float64)
    assert found[3, 1, 2] == pytest.approx(np.mean(plane < 0.05), abs=1e-6)
    across = np.abs(plane[:, 1:] - plane[:, :-1])
    edges = np.geomspace(1 / 512, 0.5, 9)
    assert found[3, 1, 8 : 8 + 9] == pytest.approx([np.mean(across < edge) for edge in edges], abs=1e-6)
    both = plane - (np.roll(plane, 1, 1) + np.roll(plane, -1, 1)) / 2
    both = np.abs(both - (np.roll(both, 1, 0) + np.roll(both, -1, 0)) / 2)[1:-1, 1:-1]
    assert found[3, 1, -9:] == pytest.approx([np.mean(both < edge) for edge in edges], abs=1e-6)


def test_texture_of_many_images_is_that_of_each():
    many = np.random.default_rng(2).random((320, 2, 5, 6), dtype=np.float32)  # more planes than are looked at together
    alone = [features.texture(many[i : i + 1]) for i in (0, 149, 150, 319)]
    assert np.array_equal(features.texture(many)[[0, 149, 150, 319]], np.concatenate(alone))


def test_texture_forgets_where_things_lie_and_sees_noise(images):
    flipped = features.texture(images[:, :, ::-1, ::-1].copy())
    np.testing.assert_allclose(flipped, features.texture(images), atol=1e-6)
    flat = np.full((1, 1, 28, 28), 0.5, dtype=np.float32)
    assert np.all(features.texture(flat)[0, 8:] == 1)
    assert np.all(features.texture(flat + np.float32(0.01) * images[0, 0, 0, 0])[0, 8:] == 1)
    noisy = flat + 0.05 * np.random.default_rng(0).choice([-1, 1], flat.shape).astype(np.float32)
    assert np.all(features.texture(noisy)[0, 8 : 8 + 2] < 0.9)


@pytest.mark.parametrize("name", ["pixels", "residual", "texture", "hidden:mnist-vs22", "logits:mnist-vs22",
                                  "stability:mnist-vs22"])  # fmt: skip
def test_each_image_is_looked_at_by_itself_and_its_map_found_by_name(name):
    digits = np.random.default_rng(1).random((5, 1, 28, 28), dtype=np.float32)
    function = features.resolve(name)
    assert features.name_of(function) == name == features.name_of(features.resolve(features.name_of(function)))
    whole = features.apply(name, digits)
    assert whole.dtype == np.float32 and len(whole) == 5 and name in features.NAMES
    # A product over another number of rows may round its last digit otherwise, and a logarithm near zero shows it.
    np.testing.assert_allclose(
        features.apply(function, torch.from_numpy(digits[3:4])), whole[3:4], rtol=1e-3, atol=5e-3
    )


def test_network_maps_are_the_networks_layers():
    digits = np.random.default_rng(1).random((5, 1, 28, 28), dtype=np.float32)
    network = models.load_trained("mnist-vs22")
    np.testing.assert_allclose(features.apply("hidden:mnist-vs22", digits), models.embed(network, digits), rtol=1e-5)
    logits = models.logits(network, digits)
    np.testing.assert_allclose(features.apply("logits:mnist-vs22", digits), logits, rtol=1e-5)
    top = np.sort(logits, axis=1)
    stability = features.apply("stability:mnist-vs22", digits)
    np.testing.assert_allclose(stability[:, 0], (top[:, -1] - top[:, -2]) / 5, rtol=1e-4, atol=1e-4)
    assert np.all(stability[:, 1:] >= -6 - 1e-4) and np.all(stability[:, 1:] <= np.log10(2.001))


def test_a_map_of_your_own_is_found_by_its_name():
    def brightness(images):
        return images.mean(axis=(2, 3))

    assert features.resolve(brightness) is brightness
    assert features.name_of(brightness).endswith("brightness") and "." in features.name_of(brightness)
    try:
        assert features.register("brightness", brightness) is brightness
        assert features.resolve("brightness") is brightness and features.name_of(brightness) == "brightness"
    finally:
        features._REGISTERED.pop("brightness", None)
    with pytest.raises(ValueError, match="register"):
        features.resolve("brightness")


@pytest.mark.parametrize("name, words", [("pixels", "comes with the package"), ("a b", "letters"), ("", "letters"),
                                         ("hidden:mnist-vs22", "letters")])  # fmt: skip
def test_names_that_cannot_be_registered(name, words):
    with pytest.raises(ValueError, match=words):
        features.register(name, lambda images: images)


def test_other_weights_are_not_taken_from_what_was_kept_of_the_packages(tmp_path):
    digits = np.random.default_rng(1).random((5, 1, 28, 28), dtype=np.float32)
    own = features.apply("logits:mnist-vs22", digits)
    weights, card = models.files("mnist-vs22", tmp_path)
    save_file(models.build("mnist-vs22").state_dict(), weights)
    card.write_text(json.dumps({"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}))
    with models.weights_from(tmp_path):
        expected = models.logits(models.load_trained("mnist-vs22"), digits)
        np.testing.assert_allclose(features.apply("logits:mnist-vs22", digits), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(features.apply("logits:mnist-vs22", digits), own)
    assert np.abs(own - expected).max() > 1


@pytest.mark.parametrize("name", ["", "hidden", "hidden:nothing", "stability:", 3, None])
def test_unknown_names_are_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=r"features must be .* texture"):
        features.resolve(name)


def test_what_a_map_gives_is_checked(images):
    with pytest.raises(ValueError, match="one vector an image"):
        features.apply(lambda x: x, images)
    with pytest.raises(ValueError, match="one vector an image"):
        features.apply(lambda x: x.reshape(6, -1)[:5], images)
    with pytest.raises(ValueError, match="finite"):
        features.apply(lambda x: x.reshape(6, -1) / 0.0 - np.inf, images)
    with pytest.raises(ValueError, match=r"\(n, c, h, w\)"):
        features.apply("pixels", images[0])
    with pytest.raises(ValueError, match="3 pixels"):
        features.texture(images[:, :, :2])
    assert features.apply(lambda x: x.reshape(6, -1).astype(np.float64), images).dtype == np.float32
