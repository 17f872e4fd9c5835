"""Embedding spaces against the layers they are, curves against the plain manifold, verdicts by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from recorded import Recorder, criteria_of, says

from advlib import models
from advlib.prdc import ReferenceManifold, expected_coverage
from compendium import nb09_embedding_space
from compendium.claims import published, record
from compendium.common import vs22
from compendium.common.vs22 import Curve, Score
from compendium.nb09_embedding_space import figures, judge, measure

EPSILONS = [0.0, 0.2, 0.6]


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    images = rng.random((260, 1, 28, 28), dtype=np.float32) ** 4
    labels = rng.integers(0, 10, 260)
    return vs22.Split(
        vs22.SETS["mnist"], images[:200], labels[:200], np.arange(200), images[200:], labels[200:], np.arange(200, 260)
    )


@pytest.fixture(scope="module")
def result(split):
    return measure.space_curves(split, EPSILONS, 20, np.random.default_rng(1))


def curve(density, coverage, success=None, clean=(1.0, 0.4), spread=0.1, epsilons=None):
    """Build a curve whose sub-batches spread evenly around given values."""

    def score(d, c, s):
        offsets = np.linspace(-spread, spread, 41)
        return Score(d, c, d + offsets, c + offsets * 0.1, 0.0, None, s)

    success = [None] * len(density) if success is None else success
    x = np.linspace(0, 1, len(density)) if epsilons is None else np.asarray(epsilons, float)
    scores = tuple(map(score, density, coverage, success))
    return Curve("test", x, score(*clean, None), scores, 1000, 200, 50, 5)


def test_embeddings_are_the_layers_they_are_named_after(split):
    model = models.load_trained("mnist-vs22")
    found = measure.embeddings(model, split.images)
    assert list(found) == ["pixels", "last hidden layer", "logits"]
    np.testing.assert_array_equal(found["pixels"], split.images.reshape(60, 784))
    # Another batch size sums in another order.
    np.testing.assert_allclose(found["last hidden layer"], models.embed(model, split.images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["logits"], models.logits(model, split.images), rtol=1e-4, atol=1e-4)


def test_curves_equal_the_plain_manifold(split, result):
    model = models.load_trained("mnist-vs22")
    for mode in vs22.MODES:
        batches = list(vs22.fgsm_sweep(mode, split.image_set, model, split.images, split.labels, EPSILONS))
        for space, found in result.by_mode()[mode.name].items():
            manifold = ReferenceManifold(5).fit(measure.embeddings(model, split.reference)[space])
            for index, batch in enumerate(batches):
                points = measure.embeddings(model, np.asarray(batch.images))[space]
                expected = manifold.density_coverage(points)
                assert found.density[index] == pytest.approx(expected.density)
                assert found.coverage[index] == pytest.approx(expected.coverage)
                assert found.accuracy[index] == pytest.approx(batch.adversarial_accuracy)
            assert found.expected_coverage == expected_coverage(200, 60, 5)


def test_corrected_at_zero_is_the_clean_batch_in_every_space(result):
    for found in (*result.corrected.values(), *result.noise.values()):
        assert found.density[0] == pytest.approx(found.clean.density)
        np.testing.assert_allclose(found.scores[0].batch_coverage, found.clean.batch_coverage)


def test_curves_repeat_with_the_seed_and_share_their_batches(split, result):
    again = measure.space_curves(split, EPSILONS, 20, np.random.default_rng(1))
    for space in result.noise:
        for score, before in zip(again.noise[space].scores, result.noise[space].scores, strict=True):
            np.testing.assert_array_equal(score.batch_density, before.batch_density)
    assert {c.scores[0].batch_density.shape for c in result.corrected.values()} == {(42,)}


def test_power_takes_the_better_statistic():
    found = measure.power(curve([1.0, 3.0, 1.0], [0.4, 0.4, 0.1]))
    np.testing.assert_array_equal(found[1:], [1, 1])
    assert found[0] <= 0.05


def test_power_where_it_works_looks_at_the_sizes_that_turn_images():
    strong = curve([1.0, 1.0, 3.0], [0.4, 0.4, 0.4], success=[0.0, 0.2, 0.9])
    assert measure.power_where_it_works(strong) == 1.0
    assert measure.power_where_it_works(replace(strong, scores=strong.scores[:2])) is None
    blind = curve([1.0, 1.0, 3.0], [0.4, 0.4, 0.4], success=[0.0, 0.5, 0.9])
    assert measure.power_where_it_works(blind) <= 0.05


def test_attack_beyond_noise_finds_the_size_and_compares_one_statistic_with_itself():
    attack = curve([1, 3, 3, 3], [0.4, 0.4, 0.4, 0.4], epsilons=[0, 0.1, 0.3, 0.5])
    noise = curve([1, 1, 3, 1], [0.4, 0.1, 0.4, 0.4], epsilons=[0, 0.1, 0.3, 0.5])
    found = measure.attack_beyond_noise(
        measure.SpaceCurves(vs22.SETS["mnist"], {}, {"pixels": attack}, {"pixels": noise})
    )
    # Coverage flags the noise at 0.1, density flags the attack: by density alone the gap is whole.
    assert found["pixels"] >= 0.95


def fig12(density, coverage, density_end, coverage_end, success=None):
    """Curves that pass through the given values at ε of 6/19 and 1."""
    line = curve([1.0, density, density_end], [0.4, coverage, coverage_end], success, epsilons=[0, 6 / 19, 1])
    return {"logits": line}


def test_fig12_values_are_read_at_the_published_sizes():
    curves = fig12(1.3, 0.3, 0.8, 0.02)
    assert judge.fig12_value(curves, "reference density") == 1.0
    assert judge.fig12_value(curves, "adversarial density eps=0.316") == pytest.approx(1.3, abs=1e-3)
    assert judge.fig12_value(curves, "adversarial coverage eps=1") == pytest.approx(0.02)


def recorded(**curves):
    """What is recorded of MNIST with given curves: as published, corrected, and other fields."""
    run = Recorder()
    judge.judge(run, [measure.SpaceCurves(vs22.SETS["mnist"], noise={}, **curves)])
    return run


def test_values_of_both_modes_layers_and_sentences_are_recorded():
    seen = {"success": [0, 0.6, 0.9]}
    run = recorded(
        as_published=fig12(1.288, 0.281, 0.1, 0.016), corrected=fig12(0.5, 0.281, 0.1, 0.5, **seen), shared=0.2
    )
    found = run.ours("Figure 12", "MNIST", "adversarial density eps=0.316")
    assert found == pytest.approx((1.288, 0.5), abs=1e-3)
    assert run.ours("Figure 12", "MNIST", "reference coverage") == (0.4, 0.4)
    printed = [entry for entry in published.load("vs22", "Figure 12") if entry.row == "MNIST"]
    layers = [entry for item in ("Table 1", "Table 2") for entry in published.load("vs22", item)]
    judged = len(criteria_of("09_embedding_space"))
    assert len(run.comparisons) == len(printed) + len(layers) + judged
    assert run.says("embeddings-tell-apart") == "agrees"
    assert run.comparisons["vs22", "claim", "embeddings-tell-apart", ""]["as_published"] is None  # nothing was turned


def test_sentences_follow_what_was_measured():
    seen = {"success": [0, 0.6, 0.9]}
    blind, strong = fig12(1.0, 0.4, 1.0, 0.4, **seen), fig12(1.3, 0.3, 0.8, 0.1, **seen)
    for curves, word in ((blind, "disagrees"), (strong, "agrees")):
        assert recorded(as_published=blind, corrected=curves).says("embeddings-tell-apart") == word
    for shared, word in ((0.6, "disagrees"), (0.4, "agrees")):
        run = recorded(as_published=blind, corrected=blind, shared=shared)
        assert run.says("embedding-morphology-differs") == word
    assert says("embedding-morphology-differs", {"largest share of neighbours in common": 0.5}) == "agrees"


@pytest.mark.parametrize(("accuracy", "word"), [(0.95, "agrees"), (0.94, "disagrees")])
def test_accuracy_is_on_par_within_a_point_of_the_benchmarks_best(monkeypatch, accuracy, word):
    names = ("organamnist-vs22", "organamnist-vs22-official")
    entries = [{"name": name, "accuracy": accuracy} for name in names for _ in range(2)]
    monkeypatch.setattr(judge.networks, "record", lambda: entries)
    run = recorded(as_published=fig12(1, 0.4, 1, 0.4), corrected=fig12(1, 0.4, 1, 0.4), shared=0.2)
    assert run.says("accuracy-on-par") == word and run.metrics["accuracy.organamnist-vs22-official"] == [accuracy] * 2


def test_neighbours_are_shared_by_the_same_space_and_not_by_another():
    rng = np.random.default_rng(0)
    queries, references = rng.normal(size=(40, 6)), rng.normal(size=(300, 6))
    assert measure.shared_neighbours((queries, 2 * queries), (references, 2 * references)) == 1
    others = rng.permutation(references)
    assert measure.shared_neighbours((queries, queries), (references, others)) < 0.1
    assert 0.3 < measure.shared_neighbours((queries, queries[:, :5]), (references, references[:, :5])) < 1


def test_the_logits_alone_are_those_of_all_spaces(split, result):
    found = measure.logit_curves(split, EPSILONS, 20, np.random.default_rng(1))
    assert found.shared == pytest.approx(result.shared)
    for mode in vs22.MODES:
        alone, all_spaces = (curves.by_mode()[mode.name]["logits"] for curves in (found, result))
        np.testing.assert_allclose(alone.density, all_spaces.density)
        np.testing.assert_allclose(alone.accuracy, all_spaces.accuracy)
        for score, other in zip(alone.scores, all_spaces.scores, strict=True):
            np.testing.assert_allclose(score.batch_coverage, other.batch_coverage)


def test_replicate_attacks_each_set_once_for_all_seeds(split, monkeypatch):
    small = replace(split, images=split.images[:40], labels=split.labels[:40], index=split.index[:40])
    sets = {"mnist": small, "organamnist": replace(small, image_set=vs22.SETS["organamnist"])}
    calls, sweep = [], vs22.fgsm_sweep
    monkeypatch.setattr(vs22, "fgsm_sweep", lambda *a: calls.append(a) or sweep(*a))
    monkeypatch.setattr(vs22, "reference_and_holdout", lambda name, queries, rng: sets[name])
    for seed in (0, 1):
        run = Recorder(seed=seed, fgsm_sizes=3, images=0, batch_size=20)
        nb09_embedding_space.replicate(run)
        assert len(run.comparisons) >= 13 and len(calls) == 4


def test_stored_fig12_holds_two_sizes_a_set():
    assert judge.stored_fig12("density")["MNIST"] == {0.316: 1.288, 1.0: 0.807}
    assert all(len(points) == 2 for points in judge.stored_fig12("coverage").values())


def test_accuracy_is_the_networks_under_every_change(split, result):
    kept = {}
    frame = judge.accuracy_frame(SimpleNamespace(metric=kept.__setitem__), [result])
    predicted = models.predict(models.load_trained("mnist-vs22"), split.images)
    clean = float(np.mean(predicted == split.labels))
    assert kept["mnist.corrected.accuracy"][0] == kept["mnist.noise.accuracy"][0] == pytest.approx(clean)
    assert len(kept) == 3 and frame.shape == (3, 7) and list(frame.index.get_level_values(0)) == ["MNIST"] * 3


def test_curves_as_published_are_drawn_in_pixels(result):
    figure = figures.space_curves([result], "density", {"MNIST": {1.0: 0.8}})
    ends = {round(float(np.max(line.get_xdata())), 4) for line in figure.axes[0].lines if len(line.get_xdata()) > 2}
    sigma = result.image_set.std[0]
    assert round(0.6 * sigma, 4) in ends and len(figure.axes) == 3
    assert any(list(line.get_xdata()) == [pytest.approx(sigma)] for line in figure.axes[2].lines)


def test_stored_power_is_that_of_the_record(monkeypatch):
    names = [f"{n}.{s}.{k}.power.coverage" for n in ("mnist", "organamnist") for s in judge.SPACES
             for k in ("corrected", "noise")]  # fmt: skip
    metrics = {name: [index / 100, 1 - index / 100] for index, name in enumerate(names)}
    monkeypatch.setattr(record, "references", lambda profile: [{"notebook": "x", "metrics": metrics}])
    frame = judge.stored_power(SimpleNamespace(notebook="x"), "coverage")
    assert frame.shape == (6, 4)
    assert frame.loc[("OrganMNIST", "pixels")].tolist() == [0.06, 0.07, 0.94, 0.93]
    assert judge.stored_power(SimpleNamespace(notebook="y"), "coverage").empty


def layers():
    run = Recorder()
    judge.judge_layers(run)
    return {key: row["corrected"] for key, row in run.comparisons.items()}


def test_the_networks_have_the_layers_of_the_papers_tables():
    found = layers()
    assert len(found) == 15
    assert found == {key: published.value(*key) for key in found}


def test_a_layer_of_another_width_is_noticed(monkeypatch):
    build = models.build
    monkeypatch.setattr(models, "build", lambda name: build("bloodmnist-vs22" if name == "pathmnist-vs22" else name))
    wrong = [key[2:] for key, size in layers().items() if size != published.value(*key)]
    assert wrong == [("7 Dense", "size PathMNIST")]
