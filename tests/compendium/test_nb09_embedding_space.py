"""Embedding spaces against the layers they are, curves against the plain manifold, verdicts by hand."""

import hashlib
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from advlib import models
from advlib.prdc import ReferenceManifold, expected_coverage
from compendium.claims import published
from compendium.common import tables, vs22
from compendium.common.vs22 import Curve, Score
from compendium.nb09_embedding_space import judge, measure

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
        np.testing.assert_array_equal(again.noise[space].density_quantiles, result.noise[space].density_quantiles)
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
    assert found["pixels"][0] == 0.1
    assert found["pixels"][1] >= 0.95


def fig12(density, coverage, density_end, coverage_end, success=None):
    """Curves that pass through the given values at ε of 6/19 and 1."""
    line = curve([1.0, density, density_end], [0.4, coverage, coverage_end], success, epsilons=[0, 6 / 19, 1])
    return {"logits": line}


def test_fig12_values_are_read_at_the_published_sizes():
    curves = fig12(1.3, 0.3, 0.8, 0.02)
    assert judge.fig12_value(curves, "reference density") == 1.0
    assert judge.fig12_value(curves, "adversarial density eps=0.316") == pytest.approx(1.3, abs=1e-3)
    assert judge.fig12_value(curves, "adversarial coverage eps=1") == pytest.approx(0.02)


def judged(results, function=judge.judge):
    """What the judge records, by item, row and column."""
    rows = []
    run = SimpleNamespace(notebook="09_embedding_space", compare=rows.append)
    function(run, results) if results else function(run)
    return {(row["item"], row["row"], row["column"]): row for row in rows}


def test_judge_gives_each_verdict_where_it_belongs():
    old = fig12(1.288, 0.281, 0.1, 0.016)
    new = fig12(0.5, 0.281, 0.1, 0.5, success=[0, 0.6, 0.9])
    mnist = measure.SpaceCurves(vs22.SETS["mnist"], old, new, new)
    found = judged([mnist])
    assert found["Figure 12", "MNIST", "adversarial density eps=0.316"]["verdict"] == "reproduced as published only"
    assert found["Figure 12", "MNIST", "adversarial coverage eps=0.316"]["verdict"] == "reproduced"
    assert found["Figure 12", "MNIST", "adversarial density eps=1"]["verdict"] == "not reproduced"
    assert found["Figure 12", "PathMNIST", "reference density"]["verdict"] == "not run here"
    assert found["claim", "embeddings-tell-apart", ""]["verdict"] == "reproduced"
    table = published.claims_table([{"notebook": "x", "profile": "quick", "comparisons": list(found.values())}])
    items = ("Figure 12", "Table 1", "Table 2")
    printed = sum(len(published.load("vs22", item)) for item in items)
    assert len(found) == printed + 2 == sum(bool(c.notebook) for c in table)


def test_judge_does_not_call_a_blind_embedding_reproduced():
    blind = fig12(1.0, 0.4, 1.0, 0.4, success=[0, 0.6, 0.9])
    row = judged([measure.SpaceCurves(vs22.SETS["mnist"], blind, blind, blind)])["claim", "embeddings-tell-apart", ""]
    assert row["verdict"] == "not reproduced" and row["cause"]


def test_stored_fig12_holds_two_sizes_a_set():
    assert judge.stored_fig12("density")["MNIST"] == {0.316: 1.288, 1.0: 0.807}
    assert all(len(points) == 2 for points in judge.stored_fig12("coverage").values())


def test_comparison_frame_shows_the_printed_number():
    row = {"paper": "vs22", "item": "Figure 12", "row": "MNIST", "column": "reference density", "verdict": "reproduced"}
    frame = tables.comparison_frame(
        SimpleNamespace(comparisons={0: row | {"corrected": 1.0}}, shown=itemgetter("verdict"))
    )
    assert frame.loc[("Figure 12", "MNIST", "reference density"), "published"] == 0.981


def test_values_of_a_set_that_was_not_run_share_one_line():
    blind = fig12(1.0, 0.4, 1.0, 0.4, success=[0, 0.6, 0.9])
    found = judged([measure.SpaceCurves(vs22.SETS["mnist"], blind, blind, blind)])
    frame = tables.comparison_frame(SimpleNamespace(comparisons=found, shown=itemgetter("verdict")))
    rows = list(frame.index)
    assert [row for row in rows if row[1] == "PathMNIST"] == [("Figure 12", "PathMNIST", "all values")]
    assert sum(row[1] == "MNIST" for row in rows) == 6


def test_a_claim_that_only_the_corrected_attack_can_test_says_so():
    weak, strong = (fig12(1.3, 0.3, 0.8, 0.1, success=[0, share, share]) for share in (0.1, 0.9))
    row = judged([measure.SpaceCurves(vs22.SETS["mnist"], weak, strong, strong)])["claim", "embeddings-tell-apart", ""]
    assert row["verdict"] == "reproduced" and row["as_published"].startswith("not testable on MNIST")
    assert row["cause"].startswith("corrected only") and row["cause"].endswith("PathMNIST, OrganMNIST not run")


def test_accuracy_is_the_networks_under_every_change(split, result):
    kept = {}
    frame = judge.accuracy_frame(SimpleNamespace(metric=kept.__setitem__), [result])
    predicted = models.predict(models.load_trained("mnist-vs22"), split.images)
    clean = float(np.mean(predicted == split.labels))
    assert kept["mnist.corrected.accuracy"][0] == kept["mnist.noise.accuracy"][0] == pytest.approx(clean)
    assert len(kept) == 3 and frame.shape == (3, 7) and list(frame.index.get_level_values(0)) == ["MNIST"] * 3


def test_hubs_are_the_most_balls_that_hold_one_query(split, result):
    pixels = vs22.flat(split.images)
    manifold = ReferenceManifold(5).fit(vs22.flat(split.reference))
    distances = np.linalg.norm(pixels[:, None] - vs22.flat(split.reference)[None], axis=2)
    assert result.hubs["pixels"] == (distances < np.asarray(manifold.radii_)).sum(axis=1).max()


# ---------------------------------------------------------------- the ImageNet network


def test_without_weights_nothing_is_fetched_and_one_sentence_says_so(tmp_path):
    features, sentence = measure.imagenet_features(tmp_path)
    assert features is None and "not fetched" in sentence and "\n" not in sentence
    assert not list(tmp_path.iterdir())


def test_weights_with_another_digest_are_refused(tmp_path):
    (tmp_path / Path(ResNet18_Weights.DEFAULT.url).name).write_bytes(b"something else")
    features, sentence = measure.imagenet_features(tmp_path)
    assert features is None and "sha256" in sentence


def test_weights_on_disk_give_pooled_features(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    digest = hashlib.sha256((tmp_path / "plain.pth").read_bytes()).hexdigest()
    file = (tmp_path / "plain.pth").rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    monkeypatch.setattr(measure, "ResNet18_Weights", SimpleNamespace(DEFAULT=SimpleNamespace(url=f"x/{file.name}")))
    features, sentence = measure.imagenet_features(tmp_path)
    assert file.name in sentence
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    found = features(images)
    assert found.shape == (3, 512) and (found >= 0).all()
    np.testing.assert_allclose(features(images[1:2]), found[1:2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features(np.repeat(images, 3, axis=1)), found, rtol=1e-3, atol=1e-4)
    points = measure.embeddings(models.load_trained("mnist-vs22"), images, features)
    assert points["ImageNet ResNet-18"].shape == (3, 512)


def test_the_networks_have_the_layers_of_the_papers_tables():
    rows = judged([], judge.judge_layers).values()
    assert len(rows) == 15 and {row["verdict"] for row in rows} == {"reproduced"}
    for row in rows:
        published.lookup("vs22", row["item"], row["row"], row["column"])


def test_the_benchmarks_accuracy_is_not_compared_with_ours():
    blind = fig12(1.0, 0.4, 1.0, 0.4, success=[0, 0.6, 0.9])
    row = judged([measure.SpaceCurves(vs22.SETS["mnist"], blind, blind, blind)])["claim", "accuracy-on-par", ""]
    assert row["verdict"] == "not run here" and "%" in row["cause"]


def test_a_layer_of_another_width_is_noticed(monkeypatch):
    build = models.build
    monkeypatch.setattr(models, "build", lambda name: build("bloodmnist-vs22" if name == "pathmnist-vs22" else name))
    wrong = [row for row in judged([], judge.judge_layers).values() if row["verdict"] == "not reproduced"]
    assert [(row["row"], row["column"]) for row in wrong] == [("7 Dense", "size PathMNIST")]
