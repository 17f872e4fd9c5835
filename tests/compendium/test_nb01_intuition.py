"""Notebook 01: distances, maps, a ratio whose truth is known, and twins that are misread."""

import numpy as np
import pytest
from judging import AGREES, DISAGREES, says

from compendium import nb01_intuition as nb01
from compendium.claims import record

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


def images(rng, n=40, channels=1, size=4):
    return rng.random((n, channels, size, size)).astype(np.float32)


def test_distances_to_clean_images_see_noise_that_neighbours_do_not():
    rng = np.random.default_rng(0)
    real, other = images(rng, 100, size=16), images(rng, 100, size=16)
    assert nb01.clean_distance_auroc(real, other + rng.choice([-0.5, 0.5], other.shape)) > 0.99
    # Mann–Whitney's standard error under equality is √((2n + 1) / (12 n²)); the clean distances share neighbours.
    assert abs(nb01.clean_distance_auroc(real, other) - 0.5) < 2 * 3.29 * np.sqrt(201 / (12 * 100**2))
    assert nb01.clean_distance_auroc(real, real) == 0.0  # each image's twin lies at distance zero


def test_one_dimension_knows_its_truth():
    result = nb01.ratio_in_one_dimension(400, np.random.default_rng(0))
    area = np.trapezoid(result["p_numerator"], result["x"])
    assert area == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(result["true_ratio"] * result["p_denominator"], result["p_numerator"])
    # ∫ p²/q for N(0, 1) over N(μ, s²): s²/√(2s²−1) · exp(μ²/(2s²−1)), here 1.3²/√2.38 · e^(0.64/2.38).
    closed = 1.69 / np.sqrt(2.38) * np.exp(0.64 / 2.38)
    assert result["mean_true_ratio"] == pytest.approx(closed, rel=0.06)
    assert result["correlation"] > 0.9


def test_points_enter_and_leave_the_balls():
    steps = nb01.points_through_balls([0.0, 50.0], np.random.default_rng(0))
    assert steps[0]["density"] > 0 and steps[1]["density"] == 0 and steps[1]["coverage"] == 0


def test_joint_maps_have_a_point_for_every_image():
    rng = np.random.default_rng(0)
    batch = {"real": images(rng, 60), "adversarial": images(rng, 60), "originals": images(rng, 60)}
    found = nb01.joint_maps({"toy": batch}, rng)["toy"]
    assert found["real"].shape == found["adversarial"].shape == (60, 2)
    assert np.isfinite(found["real"]).all() and set(found) == {"real", "adversarial"}


def test_independent_changes_add_once_to_clean_images_and_twice_among_themselves():
    rng = np.random.default_rng(0)
    before, real = images(rng, 200, size=16), images(rng, 200, size=16)
    signs = rng.choice([-0.5, 0.5], before.shape)
    # 256 pixels and 200 images leave a relative error of about 2 / √(256 · 200) in each of the four mean distances.
    np.testing.assert_allclose(nb01.added_distances(before, before + signs, real), (1, 2), atol=0.05)
    # Images that all become one image have no distance left among themselves.
    to_clean, among = nb01.added_distances(before, np.full_like(before, 0.5), real)
    assert among == pytest.approx(-2, rel=0.02) and to_clean == pytest.approx(-1, rel=0.02)


@pytest.mark.data
def test_twins_are_misread():
    (twin,) = nb01.example_twins({"mnist": 0.2}, np.random.default_rng(0))
    assert twin["said"] != twin["said_of_twin"]
    assert np.abs(twin["twin"] - twin["image"]).max() <= 0.2 + 1e-6


TITLES = ("MNIST", "CIFAR-10 (grey)")


def map_of(rng, apart):
    """Points of both kinds: two far clusters, or one."""
    points = rng.normal(size=(2, 50, 2))
    return {"real": points[0], "adversarial": points[1] + 50 * apart}


@pytest.mark.parametrize("mixed", [None, *TITLES])
@pytest.mark.parametrize("near", [None, *TITLES])
def test_densities_differ_if_map_and_distances_say_so_on_every_set(mixed, near):
    rng, run = np.random.default_rng(0), record.Run("01_intuition", {"profile": "quick", "seed": 0})
    maps = {title: map_of(rng, title != mixed) for title in TITLES}
    own = nb01.record_densities(run, maps, {title: 0.6 if title == near else 0.99 for title in TITLES})
    expected = AGREES if mixed is near is None else DISAGREES
    assert says(run, "tsne-densities-differ") == {"corrected": expected}
    assert all(min(shares) == 1 for title, shares in own.items() if title != mixed)
