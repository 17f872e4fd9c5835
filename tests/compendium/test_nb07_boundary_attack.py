"""VS22 §5.2: what is scored, verdicts by definition, density without an attack, and the study of a file of tiles."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from advlib.prdc import ReferenceManifold
from compendium import paths as places
from compendium.claims import published, verdicts
from compendium.common import boundary, vs22
from compendium.nb07_boundary_attack import figures, judge, measure, pathmnist_tiles, rising_density

RNG = np.random.default_rng(0)
REFERENCE = RNG.random((90, 1, 5, 5), np.float32)
IMAGES = RNG.random((40, 1, 5, 5), np.float32)
MANIFOLD = ReferenceManifold(5).fit(vs22.flat(REFERENCE))


@pytest.fixture
def walked(monkeypatch):
    """Stand in for the attack: after its steps images are moved, two are left alone, three are no adversarial ones."""
    nothing = np.zeros(40, np.int64)
    split = vs22.Split(vs22.SETS["mnist"], REFERENCE, nothing[:1], nothing[:1], IMAGES, nothing, np.arange(40))
    clean_correct, said = np.ones(40, bool), np.ones(40, np.int64)
    clean_correct[0], said[2] = False, 0
    said[0], said[1] = 1, 0  # misread before; no start

    def attack(mode, split, steps, *, seed):
        states = []
        for count in steps:
            moved = IMAGES * np.float32(0.5 + 0.001 * count)
            moved[:2] = IMAGES[:2]
            states.append(vs22.as_batch(IMAGES, moved, nothing, said, clean_correct))
        return states

    monkeypatch.setattr(boundary, "attack", attack)

    def run(mode, sizes=(10, 20)):
        rng = np.random.default_rng(1)
        clean = {size: vs22.score(MANIFOLD, IMAGES, vs22.sub_batches(40, size, rng)) for size in sizes}
        return measure.outcome(mode, split, MANIFOLD, clean, [0, 100, 300], rng)

    return run


def test_as_published_scores_every_image_and_corrected_the_adversarial_ones(walked):
    both = walked(vs22.AS_PUBLISHED), walked(vs22.CORRECTED)
    assert [result.counts["scored"] for result in both] == [40, 37]
    for result in both:
        assert result.counts["misread before"] == 1 and result.counts["without a start"] == 1
        assert list(result.attacked) == [10, 20] and len(result.medians("coverage")) == 2
        assert (np.diff(result.l2) < 0).all()
        assert result.by_steps.density[-1] == pytest.approx(result.attacked[20].density)
    kept = np.arange(3, 40)
    assert both[1].by_steps.density[-1] == pytest.approx(MANIFOLD.density(vs22.flat(IMAGES[kept] * np.float32(0.8))))
    assert both[0].noise is None and both[1].noise is not None
    distance = np.linalg.norm(vs22.flat(IMAGES[kept]), axis=1)
    median = IMAGES[kept][np.argsort(distance)[len(kept) // 2]]
    np.testing.assert_array_equal(both[1].examples[0], median)


def test_batches_larger_than_the_scored_images_are_left_out(walked):
    assert list(walked(vs22.CORRECTED, sizes=(10, 38)).attacked) == [10]
    with pytest.raises(ValueError, match="at most 37, the scored images"):
        walked(vs22.CORRECTED, sizes=(38, 39))


def test_figures_are_drawn(walked):
    found = [walked(vs22.AS_PUBLISHED), walked(vs22.CORRECTED)]
    assert len(figures.batch_size_curves(found).axes) == len(figures.convergence(found).axes) == 2
    assert len(figures.boundary_examples(found).axes) == 6
    assert len(figures.tiles(pathmnist_tiles.stored()).axes) == 4


class Recorder:
    notebook = "07_boundary_attack"

    def __init__(self):
        self.metrics, self.rows = {}, {}

    def metric(self, name, value):
        self.metrics[name] = value

    def compare(self, row):
        self.rows[row["item"], row["row"], row["column"]] = row


def test_every_row_is_one_of_the_papers_and_every_sentence_is_judged(walked):
    run, found = Recorder(), [walked(vs22.AS_PUBLISHED), walked(vs22.CORRECTED)]
    judge.record(run, found, (1.0, {"as published": 0.5, "corrected": 0.5}), pathmnist_tiles.stored())
    for key in run.rows:
        published.lookup("vs22", *key)
    sentences = [entry["row"] for entry in verdicts.sentences(run.notebook)]
    assert [row for item, row, _ in run.rows if item == "claim"] == sentences
    assert {column for item, row, column in run.rows if item == "§5.2"} == {
        entry.column for entry in published.load("vs22", "§5.2") if entry.row == "MNIST"
    }
    words = {row: entry["verdict"] for (_, row, _), entry in run.rows.items()}
    assert words["path-boundary-density-opposite"] == words["path-density-not-like-mnist"]
    assert words["path-density-not-like-mnist"] == "reproduced as published only"
    assert words["path-density-rise-is-confinement"] == words["boundary-references-unchanged"] == "not reproduced"


@pytest.mark.parametrize(
    ("aurocs", "word"),
    [((0.95, 0.95), "reproduced"), ((0.95, 0.5), "reproduced as published only"), ((0.5, 0.95), "not reproduced")],
)
def test_what_holds_corrected_alone_is_not_reproduced(aurocs, word):
    mnist = [
        SimpleNamespace(
            by_steps=SimpleNamespace(decisions=lambda statistic, auroc=auroc: ([auroc], [0])),
            attacked={8: 0},
            steps=(9,),
        )
        for auroc in aurocs
    ]
    found = judge.mnist_discernible(mnist)
    assert verdicts.verdict(found.holds) == word and found.numbers == {"size": 8, "steps": 9}


def test_shrunk_images_end_as_the_mean_and_clipped_ones_within_the_bounds():
    mean = REFERENCE.mean(0)
    moves = dict(list(rising_density.moved_without_attack(MANIFOLD, mean, IMAGES * 3 - 1, [0, 0.1, 5]).groupby("name")))
    shrunk, clipped = moves[rising_density.SHRUNK], moves[rising_density.CLIPPED]
    assert shrunk["density"].iloc[-1] == pytest.approx(MANIFOLD.density(vs22.flat(mean[None])))
    assert (np.diff(shrunk["distance"]) < 0).all() and shrunk["distance"].iloc[-1] == 0
    within = np.clip(IMAGES * 3 - 1, 0, 1)
    assert clipped["density"].iloc[-1] == pytest.approx(MANIFOLD.density(vs22.flat(within)))
    step = rising_density.clipped_alone(IMAGES * 3 - 1, 0.1)
    assert np.abs(step - (IMAGES * 3 - 1)).max() == pytest.approx(0.1, abs=1e-6)
    np.testing.assert_array_equal(rising_density.clipped_alone(IMAGES, 0.1), IMAGES)


def test_the_stored_study_comes_back_as_it_was_written():
    plain = json.loads((places.REFERENCE / pathmnist_tiles.STORED).read_text(encoding="utf-8"))["movements"]
    assert pathmnist_tiles.as_lists(pathmnist_tiles.stored()["movements"]) == plain


def test_a_file_is_studied(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = (rng.random((80, 28, 28, 3)) * 100 + 100 * labels[:, None, None, None]).astype(np.uint8)
    file = tmp_path / "tiles.npz"
    np.savez(file, train_images=images, train_labels=labels[:, None], unlabelled_images=images[:20])
    found = pathmnist_tiles.study(file, epochs=1, epsilons=[0, 0.5])
    assert found["counts"] == {"labelled": 80, "unlabelled": 20, "reference": 82, "queries": 18}
    moves = found["movements"].groupby(["way", "name"])
    assert len(moves) == 7 and set(found["accuracy"]) == set(found["boundary"]) == {"own statistics", "one half"}
    start = {key: move.iloc[0] for key, move in moves}
    for name in ("FGSM as published", "clipped alone", "shrunk toward the mean"):
        assert start["own statistics", name].density == pytest.approx(start["corrected", "FGSM corrected"].density)
    assert start["corrected", "FGSM corrected"].accuracy == pytest.approx(found["accuracy"]["own statistics"])
    assert found["boundary"]["own statistics"]["images"] == 18
    assert len(figures.tiles({"title": "noise"} | found).axes) == 4
