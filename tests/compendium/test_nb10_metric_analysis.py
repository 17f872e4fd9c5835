"""The metric analysis on a small image set: its parts against the plain functions, its verdicts by hand."""

from dataclasses import replace

import numpy as np
import pytest
from recorded import Recorder, criteria_of, says
from scipy.spatial.distance import cdist

from advlib import models
from compendium import nb10_metric_analysis
from compendium.common import vs22
from compendium.nb10_metric_analysis import figures, geometry, judge, measure

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
    assert result.centres.start_difference > 0
    clean = geometry.centres(result.attacked.clean, result.attacked.labels, 10)
    assert result.centres.spacing == pytest.approx(cdist(clean, clean)[np.triu_indices(10, 1)].mean())
    assert result.centres.shifts[measure.CORRECTED][-1] > result.centres.threshold


def test_onset_is_where_the_shift_stays_above(result):
    moves = replace(result.centres, shifts={"x": np.array([0.0, 3, 1, 3, 3])}, threshold=2.0)
    assert moves.onset("x") == 0.75
    assert replace(moves, threshold=5.0).onset("x") is None
    assert replace(moves, threshold=-1.0).onset("x") == 0.0
    assert moves.beyond_chance("x", [0.3, 1]) == 1.5 and moves.beyond_chance("x", [0.5, 1]) == 0.5


def test_maps_and_joint_map(result):
    (panel,) = measure.maps(result.attacked, np.random.default_rng(0), [0.5])
    assert panel["places"].shape == (120, 2) and panel["epsilon"] == 0.5
    assert panel["chance"] == pytest.approx(((np.bincount(panel["predicted"]) / 120) ** 2).sum())
    joint = measure.joint_map(result.attacked, 0.0, np.random.default_rng(0))
    assert joint["real"].shape == joint["adversarial"].shape == (60, 2)
    # At ε = 0 both halves are clean: the nearest neighbour is of either half, in three binomial standard deviations.
    assert all(abs(share - 0.5) < 3 * np.sqrt(0.25 / 60) for share in joint["nearest_is_clean"])
    assert len(joint["real_labels"]) == len(joint["adversarial_predicted"]) == 60


def stand_in(result, name, label):
    """The analysis of another image set with the same points, all turned to one class from the third of five ε on."""
    truth = np.tile(np.arange(10), 12)
    turned = np.stack([truth, truth, *(np.full(120, label),) * 3])
    predicted = dict.fromkeys(("as published", "corrected"), turned)
    return replace(result, attacked=replace(result.attacked, image_set=vs22.SETS[name], predicted=predicted))


def test_every_number_and_sentence_of_the_sets_that_are_there_is_recorded(result):
    sets = [stand_in(result, name, label) for name, label in (("mnist", 8), ("organamnist", 3))]
    run = Recorder()
    judge.judge(run, sets)
    assert run.ours("Appendix C", "MNIST", "dominant class") == (8, 8)
    assert run.ours("Appendix C", "MNIST", "dominant class from eps") == (0.5, 0.5)
    path = {"class-2-dominates-path", "path-cluster-volumes-shrink", "path-classes-confined"}
    assert run.sentences() == criteria_of("10_metric_analysis") - path
    for row in ("class-8-dominates", "organ-labels-like-mnist", "always-a-particular-class"):
        assert run.says(row) == "agrees"
    run = Recorder()
    judge.judge(run, [*sets, stand_in(result, "pathmnist", 2)])
    assert run.sentences() == criteria_of("10_metric_analysis")
    assert run.ours("Appendix C", "PathMNIST", "dominant class") == (2, 2)


def sentences(mnist, organ=None, mode="corrected"):
    found = judge.sentences({"MNIST": mnist, "OrganMNIST": organ or mnist})
    return {row: says(row, statistics[mode]) for row, statistics in found.items() if mode in statistics}


def test_sentences_about_classes_follow_the_predictions(result):
    eights, threes = stand_in(result, "mnist", 8), stand_in(result, "mnist", 3)
    assert sentences(threes)["class-8-dominates"] == "disagrees"
    assert sentences(threes)["always-a-particular-class"] == "agrees"
    truth = np.tile(np.arange(10), 12)
    split = replace(
        eights, attacked=replace(eights.attacked, predicted=dict.fromkeys(judge.MODES, np.stack([truth] * 5)))
    )
    for row in ("always-a-particular-class", "organ-labels-like-mnist"):
        assert sentences(eights, split)[row] == "disagrees"


def test_sentences_about_centres_and_volumes_follow_the_geometry(result):
    base = stand_in(result, "mnist", 8)

    def centres(values):
        shifts = dict.fromkeys(judge.MODES, np.array(values, float))
        found = sentences(replace(base, centres=replace(base.centres, shifts=shifts, threshold=1.0)))
        return found["centres-move"], found["organ-centres-move-late"]

    assert centres([0, 3, 3, 3, 3]) == ("agrees", "disagrees")
    assert centres([0, 0.5, 0.9, 3, 3]) == ("disagrees", "agrees")
    assert centres([0, 0.5, 0.9, 0.9, 0.9]) == ("disagrees", "disagrees")

    def volume(values, mode="corrected"):
        grown = np.tile(np.array(values, float)[:, None], 10)
        volumes = {
            name: replace(found, sums=np.exp(grown), by_prediction=grown) for name, found in base.volumes.items()
        }
        return sentences(replace(base, volumes=volumes), mode=mode)["cluster-8-volume-grows"]

    for mode in judge.MODES:
        assert volume([0, 1, 2, 3, 4], mode) == "agrees"
        assert volume([4, 3, 2, 1, 0], mode) == volume([0, 5, 1, 4, 3], mode) == "disagrees"


def test_outliers_and_a_hold_out_elsewhere_are_noticed(result):
    near = judge.packed([result])
    manifold = result.attacked.manifold
    far = replace(result, attacked=replace(result.attacked, clean=result.attacked.clean + 9))
    assert judge.packed([far])["smallest share of the hold-out in a ball"] == 0
    assert near["largest share of far radii"] == geometry.far_share(np.asarray(manifold.radii_))
    statistics = {"largest share of far radii": 0.001, "smallest share of the hold-out in a ball": 0.97}
    assert says("manifold-packed-without-outliers", statistics) == "agrees"
    assert says("manifold-packed-without-outliers", statistics | {"largest share of far radii": 0.01}) == "disagrees"
    assert says("manifold-packed-without-outliers", statistics | judge.packed([far])) == "disagrees"


def test_sentences_on_pathmnist_follow_what_was_measured(result):
    path = stand_in(result, "pathmnist", 2)
    found = judge.sentences({"MNIST": path, "OrganMNIST": path, "PathMNIST": path})
    assert says("class-2-dominates-path", found["class-2-dominates-path"]["corrected"]) == "agrees"
    threes = stand_in(result, "pathmnist", 3)
    other = judge.sentences({"MNIST": threes, "OrganMNIST": threes, "PathMNIST": threes})
    assert says("class-2-dominates-path", other["class-2-dominates-path"]["corrected"]) == "disagrees"
    for value, word in ((-0.1, "agrees"), (0.1, "disagrees")):
        assert says("path-cluster-volumes-shrink", {"change of log volume": value}) == word
    confined = {"distance to the middle over clean": 0.9, "density": 2.1}
    assert says("path-classes-confined", confined) == "agrees"
    assert says("path-classes-confined", confined | {"density": 0.9}) == "disagrees"


def test_replicate_attacks_each_set_once_for_all_seeds(split, monkeypatch):
    calls, sweep = [], vs22.fgsm_images
    monkeypatch.setattr(vs22, "fgsm_images", lambda *a: calls.append(a) or sweep(*a))
    sets = {"mnist": split, "organamnist": replace(split, image_set=vs22.SETS["organamnist"])}
    monkeypatch.setattr(vs22, "reference_and_holdout", lambda name, *_: sets[name])
    measure.attacked_alone.cache.clear()
    for seed in (0, 1):
        run = Recorder(seed=seed, fgsm_sizes=5, images=0)
        nb10_metric_analysis.replicate(run)
        assert {"class-8-dominates", "centres-move", "organ-centres-move-late"} <= run.sentences()
        assert "manifold-packed-without-outliers" not in run.sentences() and len(calls) == 4


def test_figures_count_sizes_in_pixels(result):
    figure = figures.density_parts(result)
    sigma = result.attacked.image_set.std[0]
    drawn = [np.asarray(line.get_xdata()) for line in figure.axes[0].lines]
    ends = {round(float(sizes.max()), 4) for sizes in drawn if len(sizes) > 2}  # without legend and dashed line
    assert len(figure.axes) == 5 and ends == {figures.LARGEST_SHOWN, round(sigma, 4)}
    assert len(figures.cluster_volumes([result]).axes) == 2
    assert len(figures.scaled_centres(result).axes) == 7  # six matrices and the scale


def test_a_map_shows_its_middle_whatever_lies_far_out():
    far = np.vstack([np.random.default_rng(0).random((99, 2)), [[1e6, 1e6]]])
    panel = {"places": far, "predicted": np.zeros(100, int), "epsilon": 0.0, "agreement": 1.0, "chance": 1.0}
    axis = figures.distortion_maps({"MNIST": [panel]}, {"MNIST": 10}).axes[0]
    assert axis.get_xlim()[1] < 2 and axis.get_ylim()[1] < 2
