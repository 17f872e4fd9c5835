"""VS22 §5.2: what is scored, verdicts by definition, density without an attack, and the study of a file of tiles."""

import json
from dataclasses import replace

import numpy as np
import pytest
from recorded import Recorder, criteria_of, says

from advlib.prdc import ReferenceManifold
from compendium import paths as places
from compendium.claims import published
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
    monkeypatch.setattr(measure, "CLEAN_BATCHES", 100)
    monkeypatch.setattr(measure, "_fgsm_density", lambda mode, split, manifold: 0.5)

    def run(mode, sizes=(10, 20)):
        rng = np.random.default_rng(1)
        return measure.outcome(mode, split, measure.clean_holdout(split, sizes, rng), [0, 100, 300], rng)

    return run


def test_as_published_scores_every_image_and_corrected_the_adversarial_ones(walked):
    both = walked(vs22.AS_PUBLISHED), walked(vs22.CORRECTED)
    assert [result.counts["scored"] for result in both] == [40, 37]
    for result in both:
        assert result.counts["misread before"] == 1 and result.counts["without a start"] == 1
        assert list(result.attacked) == [10, 20] and len(result.medians("coverage")) == 2
        assert (np.diff(result.l2) < 0).all()
        assert result.by_steps.density[-1] == pytest.approx(result.attacked[20].density)
        assert result.balls.mean() == pytest.approx(result.by_steps.density[-1])
        assert result.attacked[10].batch_density.shape == (result.counts["scored"] // 10,)
    kept = np.arange(3, 40)
    assert both[1].by_steps.density[-1] == pytest.approx(MANIFOLD.density(vs22.flat(IMAGES[kept] * np.float32(0.8))))
    assert both[0].noise is None and both[1].noise is not None
    distance = np.linalg.norm(vs22.flat(IMAGES[kept]), axis=1)
    median = IMAGES[kept][np.argsort(distance)[len(kept) // 2]]
    np.testing.assert_array_equal(both[1].examples[0][0], median)


def test_batches_larger_than_the_scored_images_are_left_out(walked):
    assert list(walked(vs22.CORRECTED, sizes=(10, 38)).attacked) == [10]
    with pytest.raises(ValueError, match="at most 37, the scored images"):
        walked(vs22.CORRECTED, sizes=(38, 39))


def test_figures_are_drawn(walked):
    found = [walked(vs22.AS_PUBLISHED), walked(vs22.CORRECTED)]
    assert len(figures.batch_size_curves(found).axes) == len(figures.convergence(found).axes) == 2
    assert len(figures.boundary_examples(found).axes) == 6
    assert len(figures.tiles(pathmnist_tiles.stored()).axes) == 4


@pytest.fixture
def pair(walked):
    return [walked(vs22.AS_PUBLISHED), walked(vs22.CORRECTED)]


def test_all_that_the_section_prints_is_recorded_and_every_sentence(pair):
    run = Recorder()
    judge.record(run, pair, pathmnist_tiles.stored())
    assert {column for _, item, row, column in run.comparisons if item == "§5.2"} == {
        entry.column for entry in published.load("vs22", "§5.2") if entry.row == "MNIST"
    }
    assert run.sentences() == criteria_of("07_boundary_attack")
    for row in ("path-boundary-density-opposite", "path-density-not-like-mnist", "path-density-rise-is-confinement"):
        assert run.says(row) == "disagrees"
    assert run.says("path-density-not-like-mnist", "as published") == "agrees"
    assert run.says("boundary-references-unchanged") == "disagrees"


def test_ranges_are_quartiles_of_batches_of_the_papers_sizes(pair):
    found = judge.section_numbers(pair[0], np.random.default_rng(0))
    balls, normal = pair[0].balls, 0.674
    half = normal * balls.std() / np.sqrt(21)  # of the smallest batches, of 21 images
    assert found["adversarial density smallest"] == pytest.approx(balls.mean() - half, abs=0.3 * half)
    assert found["adversarial density largest"] == pytest.approx(balls.mean() + half, abs=0.3 * half)
    assert found["reference density"] == pair[0].clean.whole[0]


def test_few_attacked_images_meet_few_references():
    rng = np.random.default_rng(0)
    assert len(boundary.manifold_in_proportion(REFERENCE, 20, 3.0, rng).radii_) == 60
    assert len(boundary.manifold_in_proportion(REFERENCE, 40, 3.0, rng).radii_) == 90
    assert len(boundary.manifold_in_proportion(REFERENCE, 1, 3.0, rng).radii_) == vs22.K + 1


def test_disjoint_batches_share_no_image_and_p_values_are_two_sided():
    batches = boundary.disjoint(23, 5, np.random.default_rng(0))
    assert batches.shape == (4, 5) and len(np.unique(batches)) == 20
    null = np.arange(99.0)
    assert boundary.p_value(null, -1) == boundary.p_value(null, 100) == 0.02
    assert boundary.p_value(null, 49) == 1


def sentences(pair, **changes):
    """What the corrected run says where it is changed."""
    found = judge.sentences([pair[0], replace(pair[1], **changes)])
    return {row: says(row, statistics["corrected"]) for row, statistics in found.items()}


def test_sentences_follow_what_was_measured(pair):
    clean = replace(pair[1].clean, under_fgsm=pair[1].clean.whole)
    assert sentences(pair, clean=clean)["boundary-references-unchanged"] == "disagrees"  # the other mode's
    both = [replace(result, clean=clean) for result in pair]
    row = judge.sentences(both)["boundary-references-unchanged"]["corrected"]
    assert says("boundary-references-unchanged", row) == "agrees"
    for p, word in ((0.04, "agrees"), (0.06, "disagrees")):
        found = sentences(pair, p={"density": 0.01, "coverage": p})
        assert found["boundary-mnist-path-discernible"] == word
    before, after = pair[1].clean.whole[0], pair[1].by_steps.density[-1]
    for fgsm, word in ((before, "agrees"), (after**2 / before, "disagrees")):
        assert sentences(pair, fgsm_density=fgsm)["boundary-worse-than-fgsm"] == word
    still = {size: replace(score, batch_coverage=np.ones(3)) for size, score in pair[1].attacked.items()}
    assert sentences(pair)["boundary-coverage-grows-with-batch"] == "agrees"
    assert sentences(pair, attacked=still)["boundary-coverage-grows-with-batch"] == "disagrees"


def test_sentences_on_tiles_follow_the_study(pair):
    tiles = pathmnist_tiles.stored()
    moves = tiles["movements"]

    def found(mode="corrected", **changes):
        changed = tiles | {"movements": moves.assign(**changes)}
        return {row: says(row, of[mode]) for row, of in judge.tiles_sentences(changed, pair).items()}

    rising = found(density=1 + moves["x"], largest_class=0.9)
    assert rising["path-density-not-like-mnist"] == "agrees"
    assert rising["path-density-rise-is-confinement"] == "agrees"
    assert found(density=1 + moves["x"], largest_class=0.4)["path-density-rise-is-confinement"] == "disagrees"
    assert found(density=1 + 0.9 * moves["x"])["path-density-not-like-mnist"] == "disagrees"
    assert found()["path-boundary-density-opposite"] == "disagrees"
    mnist = pair[0].by_steps.density[-1] < pair[0].by_steps.clean.density
    assert found("as published")["path-boundary-density-opposite"] == ("agrees" if mnist else "disagrees")


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
