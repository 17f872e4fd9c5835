"""The metric analysis on a small image set: its parts against the plain functions, its verdicts by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from advlib import models
from compendium.claims import published
from compendium.common import vs22
from compendium.nb10_metric_analysis import geometry, judge, measure

EPSILONS = np.linspace(0, 1, 5)


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    images = rng.random((320, 1, 28, 28), dtype=np.float32) ** 4
    labels = np.tile(np.arange(10), 32)
    return vs22.Split(
        vs22.SETS["mnist"], images[:200], labels[:200], np.arange(200), images[200:], labels[200:], np.arange(200, 320)
    )


@pytest.fixture(scope="module")
def result(split):
    return measure.analyse(split, EPSILONS, np.random.default_rng(1))


def test_attacked_images_are_the_sweeps_and_the_network_is_asked_both_ways(split, result):
    model = models.load_trained("mnist-vs22")
    batches = list(vs22.fgsm_sweep(vs22.AS_PUBLISHED, split.image_set, model, split.images, split.labels, EPSILONS))
    attacked = result.attacked
    for place, batch in enumerate(batches):
        images = np.asarray(batch.images)
        np.testing.assert_array_equal(attacked.points[measure.AS_PUBLISHED][place], images.reshape(120, 784))
        np.testing.assert_array_equal(attacked.predicted[measure.AS_PUBLISHED][place], models.predict(model, images))
    # In pixels, nothing is done at ε = 0.
    np.testing.assert_array_equal(attacked.points[measure.CORRECTED][0], attacked.clean)
    assert attacked.classes == 10 and attacked.class_counts.tolist() == [12] * 10


def test_at_takes_the_nearest_size(result):
    assert [result.attacked.at(value) for value in (0, 0.3, 0.9, 1)] == [0, 1, 4, 4]


def test_volumes_are_the_plain_functions(result):
    attacked, volume = result.attacked, result.volumes[measure.CORRECTED]
    predicted = attacked.predicted[measure.CORRECTED]
    np.testing.assert_array_equal(volume.counts.sum(axis=1), 120)
    expected = geometry.ball_sums(attacked.clean, attacked.points[measure.CORRECTED][2], predicted[2], 10)
    np.testing.assert_allclose(volume.sums[2], expected)
    assert (volume.sums[volume.counts == 0] == 0).all()
    assert volume.mean_change[0] == 0
    assert -1 <= volume.count_correlation <= 1


def test_density_is_the_product_it_is_taken_apart_into(result):
    for lines in result.balls.values():
        np.testing.assert_allclose(lines["density"], lines["inside"] * lines["balls"] / vs22.K)
    manifold, points = result.attacked.manifold, result.attacked.points[measure.CORRECTED][1]
    assert result.balls[measure.CORRECTED]["density"][1] == pytest.approx(manifold.density(points))


def test_centres_compare_clean_with_attacked(result):
    first = result.centres.scaled[0]
    assert first["distances"].shape == (10, 10)
    assert result.centres.map_changes[0] == 0 < result.centres.start_difference
    clean = geometry.centres(result.attacked.clean, result.attacked.labels, 10)
    assert result.centres.spacing == pytest.approx(cdist(clean, clean)[np.triu_indices(10, 1)].mean())
    assert result.centres.shifts[measure.CORRECTED][-1] > result.centres.threshold


def test_onset_is_where_the_shift_stays_above(result):
    moves = replace(result.centres, shifts={"x": np.array([0.0, 3, 1, 3, 3])}, threshold=2.0)
    assert moves.onset("x", EPSILONS) == 0.75
    assert replace(moves, threshold=5.0).onset("x", EPSILONS) is None
    assert replace(moves, threshold=-1.0).onset("x", EPSILONS) == 0.0


def test_maps_and_joint_map(result):
    (panel,) = measure.maps(result.attacked, np.random.default_rng(0), [0.5])
    assert panel["places"].shape == (120, 2) and panel["epsilon"] == 0.5
    assert panel["chance"] == pytest.approx(((np.bincount(panel["predicted"]) / 120) ** 2).sum())
    joint = measure.joint_map(result.attacked, 0.0, np.random.default_rng(0))
    assert joint["real"].shape == joint["adversarial"].shape == (60, 2)
    # At ε = 0 both halves are clean: the nearest neighbour is of either half, in three binomial standard deviations.
    assert all(abs(share - 0.5) < 3 * np.sqrt(0.25 / 60) for share in joint["nearest_is_clean"])
    assert sorted(np.concatenate([joint["real_labels"], joint["adversarial_labels"]])) == sorted(result.attacked.labels)


def stand_in(result, name, **predicted):
    """The analysis of another image set with the same points, and given predictions."""
    attacked = replace(result.attacked, image_set=vs22.SETS[name], predicted={**result.attacked.predicted, **predicted})
    return replace(result, attacked=attacked)


def words(label):
    """Predictions that turn to one class after the third of five sizes."""
    truth = np.tile(np.arange(10), 12)
    return np.stack([truth, truth, np.full(120, label), np.full(120, label), np.full(120, label)])


def judged(results):
    """What the judge records, in order."""
    rows = []
    judge.judge(SimpleNamespace(notebook="10_metric_analysis", compare=rows.append), results)
    return rows


def test_judge_speaks_about_every_sentence_of_its_part(result):
    eights = {"as published": words(8), "corrected": words(8)}
    results = [stand_in(result, "mnist", **eights), stand_in(result, "organamnist", **eights)]
    rows = {(row["item"], row["row"], row["column"]): row for row in judged(results)}
    assert rows["Appendix C", "MNIST", "dominant class"]["verdict"] == "reproduced"
    assert rows["Appendix C", "MNIST", "dominant class from eps"]["verdict"] == "reproduced"
    assert rows["claim", "class-8-dominates", ""]["verdict"] == "reproduced"
    assert rows["claim", "organ-labels-like-mnist", ""]["verdict"] == "reproduced"
    for claim in ("class-2-dominates-path", "path-cluster-volumes-shrink", "path-classes-confined"):
        assert rows["claim", claim, ""]["verdict"] == "not run here"
    mine = {entry.key[1:] for entry in published.load("vs22", "Appendix C")}
    assert mine <= set(rows)
    published.claims_table([{"notebook": "x", "profile": "quick", "comparisons": list(rows.values())}])


def test_judge_with_pathmnist_leaves_nothing_out(result):
    threes, twos = ({mode: words(label) for mode in ("as published", "corrected")} for label in (3, 2))
    results = [
        stand_in(result, "mnist", **threes),
        stand_in(result, "organamnist"),
        stand_in(result, "pathmnist", **twos),
    ]
    rows = {(row["item"], row["row"]): row for row in judged(results)}
    assert rows["claim", "class-8-dominates"]["verdict"] == "not reproduced"
    assert rows["claim", "class-8-dominates"]["cause"]
    assert rows["claim", "class-2-dominates-path"]["verdict"] == "reproduced"
    assert all(row["verdict"] != "not run here" for row in rows.values())
    assert len(judged(results)) == len(judged(results[:2]))
    published.claims_table([{"notebook": "x", "profile": "quick", "comparisons": judged(results)}])
