"""VS22's image sets: normalisation, splits by index, files of the reader's own."""

import hashlib

import numpy as np
import pytest

from advlib import datasets, models, paths, training
from advlib.prdc import expected_coverage
from compendium.common import splits, vs22

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", splits.SETS)
def test_sets_are_normalised_by_their_training_parts_own_statistics(name):
    chosen = splits.image_set(name)
    try:
        data = datasets.load(name)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    assert splits.own_statistics(data.train_images) == (chosen.mean, chosen.std)


@pytest.mark.parametrize("network", models.AUTHORS)
def test_the_authors_networks_bring_their_own_normalisation(network):
    spec = models.spec(network)
    chosen = splits.with_network(splits.image_set(spec.dataset), network)
    assert (chosen.network, chosen.mean, chosen.std) == (network, spec.mean, spec.std)
    assert chosen.title == splits.image_set(spec.dataset).title and chosen.queries > 0


def test_the_network_of_another_data_set_is_refused():
    with pytest.raises(ValueError, match="network must read mnist, but organmnist-n2gem reads organamnist"):
        splits.with_network(splits.image_set("mnist"), "organmnist-n2gem")


def test_a_channel_without_variation_is_refused():
    images = np.full((3, 3, 4, 4), 0.5, np.float32)
    images[:, :2] = RNG.random((3, 2, 4, 4))
    with pytest.raises(ValueError, match="must vary in every channel"):
        splits.own_statistics(images)


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A data set of 400 images whose first pixel is its number, with a hold-out of 20 that is stored by index."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "splits").mkdir()
    images = RNG.random((400, 1, 4, 4), dtype=np.float32)
    images[:, 0, 0, 0] = np.arange(400) / 400
    labels = np.arange(400) % 4
    held = RNG.permutation(400)[:20]
    np.save(folder / "splits" / "mnist.npy", held.astype(np.int32))
    data = datasets.Dataset(
        "mnist", "MNIST", images[:300], labels[:300], images[300:], labels[300:], ("a",) * 4, "", ""
    )
    return folder, data, images, held


def use(small_data, monkeypatch):
    folder, data, _, _ = small_data
    monkeypatch.setattr(datasets, "load", lambda name: data)
    monkeypatch.setattr(paths, "DATA", folder)


@pytest.mark.parametrize("name", ["mnist", "organamnist", "bloodmnist"])
def test_the_stored_split_is_the_one_that_the_network_was_trained_without(name):
    stored = np.load(paths.DATA / "splits" / f"{name}.npy", allow_pickle=False)
    split = models.card(splits.SETS[name].network)["split"]
    assert len(stored) == split["holdout_size"] == len(set(stored.tolist()))
    assert hashlib.sha256(stored.astype("<i8").tobytes()).hexdigest() == split["holdout_index_sha256"]


@pytest.mark.parametrize("rng", [None, 0], ids=["even steps", "drawn"])
@pytest.mark.parametrize(("references", "queries"), [(0, 0), (7, 5), (380, 20), (None, 10)])
def test_reference_and_holdout_are_disjoint_and_what_their_index_says(
    small_data, monkeypatch, references, queries, rng
):
    use(small_data, monkeypatch)
    _, _, images, held = small_data
    split = splits.reference_and_holdout(
        "mnist", references, queries, None if rng is None else np.random.default_rng(0)
    )
    assert len(split.images) == (queries or 20)
    assert len(split.reference) == {0: 380, None: 190}.get(references, references)
    assert set(split.index) <= set(held) and not set(split.reference_index) & set(held)
    np.testing.assert_array_equal(split.images, images[split.index])
    np.testing.assert_array_equal(split.reference, images[split.reference_index])
    np.testing.assert_array_equal(split.labels, split.index % 4)
    np.testing.assert_array_equal(split.reference_labels, split.reference_index % 4)


def test_more_images_than_there_are_are_refused_by_name(small_data, monkeypatch):
    use(small_data, monkeypatch)
    with pytest.raises(ValueError, match="queries must lie between 1 and 20"):
        splits.reference_and_holdout("mnist", queries=21)
    with pytest.raises(ValueError, match="references must lie between 1 and 380"):
        splits.reference_and_holdout("mnist", references=381)
    with pytest.raises(ValueError, match="name must be one of mnist"):
        splits.reference_and_holdout("imagenet")


def test_a_stored_split_of_other_data_is_refused(small_data, monkeypatch):
    use(small_data, monkeypatch)
    with pytest.raises(ValueError, match="must point to the 9 pooled images"):
        splits.holdout_index("mnist", 9, np.zeros(9, int))


def test_a_set_without_a_stored_split_is_split_as_the_paper_does(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    labels = np.arange(1000) % 9
    expected = datasets.stratified_holdout(labels, 0.05, seed=42)[1]
    np.testing.assert_array_equal(splits.holdout_index("pathmnist", 1000, labels), expected)


def test_paper_sizes_and_their_ratio():
    assert splits.references_for(splits.SETS["mnist"], 2100, 67900, 2100) == 20000
    assert splits.references_for(splits.SETS["mnist"], 420, 67900, 2100) == 4000
    assert splits.references_for(splits.SETS["organamnist"], 4707, 54123, 4707) == 54123
    # A share of the queries keeps the coverage that exchangeable images would have.
    assert expected_coverage(4000, 420, 5) == pytest.approx(expected_coverage(20000, 2100, 5), abs=0.001)


def test_a_file_of_the_readers_own_takes_the_third_place(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    file = tmp_path / "spots.npz"
    labels = np.arange(80) % 2
    images = (rng.integers(0, 90, (80, 28, 28, 3)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(file, images=images, labels=labels)
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setitem(training.RECIPES, "bloodmnist-vs22", training.Recipe(epochs=1, max_lr=1e-3))
    registries = (datasets.OWN, models.SPECS, training.RECIPES, splits.SETS)
    before = [dict(registry) for registry in registries]
    try:
        sets, sentence = splits.image_sets(file)
        own = sets[2]
        assert own.title == "spots" and not own.in_paper and sentence.startswith("spots is used in place of PathMNIST")
        split = splits.reference_and_holdout(own.name, 0)
        assert (len(split.reference), len(split.images)) == (56, 24)  # 30 % held out, as 400 images are not there
        split = splits.reference_and_holdout(own.name, 6000, 300, rng)  # more than there are
        assert (len(split.reference), len(split.images)) == (56, 24)
        assert models.card(own.network)["split"]["holdout_size"] == 24
        (batch,) = vs22.fgsm_sweep(vs22.CORRECTED, own, splits.network(own), split.images, split.labels, [0.1])
        assert batch.linf.max() <= 0.1 + 1e-6
        monkeypatch.setattr(training, "train", lambda name: pytest.fail("trained twice on the same file"))
        assert splits.image_sets(file)[0][2] == own
    finally:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)


def test_a_file_with_images_of_another_size_is_refused(tmp_path):
    np.savez(tmp_path / "large.npz", images=np.zeros((9, 32, 32), np.uint8), labels=np.arange(9) % 2)
    with pytest.raises(ValueError, match="28 × 28 pixels, as the paper's network reads, but has 32 × 32"):
        splits.image_sets(tmp_path / "large.npz")


def test_the_colour_set_goes_by_its_own_name(monkeypatch):
    class Found:
        name = "bloodmnist"

    monkeypatch.setattr(datasets, "rgb_medical", lambda: (Found, "BloodMNIST is used"))
    sets, sentence = splits.image_sets()
    assert [s.title for s in sets] == ["MNIST", "OrganMNIST", "BloodMNIST"] and sentence
    assert [s.in_paper for s in sets] == [True, True, False]
    Found.name = "pathmnist"
    assert splits.image_sets()[0][2].title == "PathMNIST"
