"""Changes of the same size as an attack, without an aim."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torchvision
from small_networks import CHANNELS, SIDE, batch, linear_model

from advlib import attacks


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
        (lambda x: attacks.gaussian_noise(x, np.random.default_rng(0), l2=-1), "l2 must be at least 0"),
        (lambda x: attacks.gaussian_noise(x, np.random.default_rng(0), l2=np.nan), "l2 must be finite"),
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
