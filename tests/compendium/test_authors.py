"""The rerun with the authors' networks: its parts on made-up images, and the stored record."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from advlib import models
from advlib.prdc import ReferenceManifold
from compendium import authors
from compendium.claims import published, record, stored
from compendium.common import boundary, vs22
from compendium.common.vs22 import AS_PUBLISHED, CORRECTED, Split

MODES = {AS_PUBLISHED.name, CORRECTED.name}


def split(title="MNIST", references=400, queries=160, seed=0):
    rng = np.random.default_rng(seed)
    name = authors.NETWORKS[title]
    spec = models.spec(name)
    chosen = vs22.with_network(vs22.image_set(spec.dataset), name)
    images = rng.random((references + queries, spec.channels, 28, 28), dtype=np.float32)
    labels = rng.integers(spec.classes, size=len(images))
    cut = np.arange(len(images))
    return Split(chosen, images[:references], labels[:references], cut[:references], images[references:],
                 labels[references:], cut[references:])  # fmt: skip


@pytest.fixture
def fresh(monkeypatch):
    """A network with fresh weights in place of the authors'."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.build("mnist-n2gem").eval().requires_grad_(False)
    monkeypatch.setattr(vs22, "network", lambda chosen: network)
    return network


def test_fgsm_gives_every_number_of_its_sections_in_both_modes(fresh, monkeypatch):
    parts = split(references=150, queries=60), split(references=150, queries=60, seed=1)
    parts = parts[0], dataclasses.replace(parts[0], reference=parts[1].reference)

    def references(title):
        for seed, part in enumerate(parts):
            manifold = ReferenceManifold(vs22.K).fit(authors.points(part, part.reference))
            yield seed, part, manifold

    monkeypatch.setattr(authors, "references", references)
    values, about = authors.fgsm("MNIST")
    expected = {
        " | ".join(entry.key)
        for item in ("§5", "§5.1", "Figure 12", "stored results", "Appendix C")
        for entry in published.load("vs22", item)
        if entry.row == "MNIST"
    }
    assert set(values.found) == expected and all(set(found) == MODES for found in values.found.values())
    density = values.found["vs22 | §5.1 | MNIST | reference density"]
    for seed, part in enumerate(parts):
        direct = ReferenceManifold(vs22.K).fit(vs22.flat(part.reference)).density(vs22.flat(part.images))
        for by_seed in density.values():
            assert by_seed[str(seed)] == pytest.approx(direct, rel=1e-4)
    assert density[CORRECTED.name]["0"] != density[CORRECTED.name]["1"]
    accuracy = values.found["vs22 | §5 | MNIST | accuracy (%)"]
    once = 100 * models.accuracy(fresh, parts[0].images, parts[0].labels)
    again = AS_PUBLISHED.to_attack(parts[0].image_set, parts[0].images)
    twice = 100 * models.accuracy(fresh, again, parts[0].labels)
    assert accuracy[CORRECTED.name]["0"] == pytest.approx(once, abs=1e-3)
    assert accuracy[AS_PUBLISHED.name]["0"] == pytest.approx(twice, abs=1e-3)
    assert set(about["curves"]) == set(about["class shares"]) == MODES
    assert len(about["curves"][CORRECTED.name]["1"]["coverage"]) == 20
    np.testing.assert_allclose(np.sum(about["class shares"][AS_PUBLISHED.name], axis=1), 1, atol=1e-3)


def test_the_boundary_attack_gives_every_number_of_its_section_and_tables(monkeypatch):
    whole = split()

    def attack(mode, part, steps):
        signs = np.zeros(part.images.shape, np.int8)
        right = np.arange(len(part.images)) % 4 > 0
        moved = np.where(right[:, None, None, None], 0.5 * part.images + 0.25, part.images).astype(np.float32)
        said = np.where(right, (part.labels + 1) % 10, part.labels)
        return [vs22.as_batch(part.images, moved, part.labels, said, right, signs)]

    monkeypatch.setattr(vs22, "reference_and_holdout", lambda *_, **__: whole)
    monkeypatch.setattr(boundary, "attack", attack)
    monkeypatch.setitem(authors.BOUNDARY_IMAGES, "MNIST", dict.fromkeys(MODES, 40))
    values, about = authors.boundary_attack("MNIST")
    entries = [e for item in ("§5.2", "Table 4", "Table 5") for e in published.load("vs22", item) if e.row == "MNIST"]
    assert set(values.found) == {" | ".join(entry.key) for entry in entries}
    assert about[AS_PUBLISHED.name]["scored"] == 40 and about[CORRECTED.name]["scored"] == 30
    # Images and references in the ratio of the whole hold-out to the whole model set, 160 to 400.
    assert about[AS_PUBLISHED.name]["references for coverage"] == 100
    assert about[CORRECTED.name]["references for coverage"] == 75
    manifold = ReferenceManifold(vs22.K).fit(vs22.flat(whole.reference))
    density, coverage = manifold.density_coverage(vs22.flat(whole.images))
    for key, expected in (("Table 4 | MNIST | share=0", density), ("§5.2 | MNIST | reference coverage", coverage)):
        for found in values.found[f"vs22 | {key}"].values():
            assert set(found) == {str(seed) for seed in authors.SEEDS}
            assert list(found.values()) == pytest.approx([expected] * len(found), rel=1e-4)
    first = {name: found[AS_PUBLISHED.name]["0"] for name, found in values.found.items()}
    assert first["vs22 | §5.2 | MNIST | reference density smallest"] < density
    assert first["vs22 | §5.2 | MNIST | reference density largest"] > density
    # Grey images lie among all balls: the more of them, the denser the batch.
    assert first["vs22 | Table 4 | MNIST | share=0.75"] > first["vs22 | Table 4 | MNIST | share=0.25"] > density


def test_tiles_are_divided_in_the_papers_ratio(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "tiles.npz"
    images = rng.integers(256, size=(60, 28, 28, 3), dtype=np.uint8)
    more = rng.integers(256, size=(140, 28, 28, 3), dtype=np.uint8)
    names = np.array([f"class {i}" for i in range(9)])
    labels = np.arange(60, dtype=np.uint8) % 9
    np.savez(path, images=images, labels=labels, unlabelled_images=more, class_names=names)
    first, second = (authors.tiles_split(path, np.random.default_rng(seed)) for seed in (0, 1))
    assert len(first.images) == 30 and len(first.reference) == 170  # 200 in the ratio 5,359 to 30,547
    assert first.image_set.network == "pathmnist-n2gem" and not np.array_equal(first.index, second.index)
    np.testing.assert_array_equal(first.labels, labels[first.index])
    assert not set(first.index) & set(first.reference_index)
    assert len({image.tobytes() for image in np.concatenate([first.images, first.reference])}) == 200
    np.savez(path, images=images[:20], labels=labels[:20], unlabelled_images=more, class_names=names)
    with pytest.raises(ValueError, match="must hold at least 24 labelled images for 160 in all, but has 20"):
        authors.tiles_split(path, rng)


def test_the_folder_of_tiles_is_named_by_a_setting(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(authors.TILES, raising=False)
    assert authors.tiles_file() is None
    path = authors.run([("fgsm", "PathMNIST")], tmp_path / "authors.json")
    assert not path.exists() and authors.TILES in capsys.readouterr().out
    monkeypatch.setenv(authors.TILES, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"must name a folder with one \.npz file, but .* has 0"):
        authors.tiles_file()


def test_a_part_renews_its_own_numbers_alone(tmp_path, monkeypatch):
    def part(number):
        def run(title):
            values = authors.Values()
            values.add(("vs22", "§5", title, "accuracy (%)"), CORRECTED, 0, number)
            return values, {"curves": {}, "class shares": {}, "queries": number}

        return run

    path = tmp_path / "authors.json"
    monkeypatch.setattr(authors, "fgsm", part(1.0))
    authors.run([("fgsm", "MNIST"), ("fgsm", "OrganMNIST")], path)
    monkeypatch.setattr(authors, "fgsm", part(2.0))
    authors.run([("fgsm", "OrganMNIST")], path)
    found = record.read(path)
    numbers = {key: by_mode[CORRECTED.name]["0"] for key, by_mode in found["values"].items()}
    assert numbers == {"vs22 | §5 | MNIST | accuracy (%)": 1.0, "vs22 | §5 | OrganMNIST | accuracy (%)": 2.0}
    assert found["settings"]["sizes"] == {"fgsm MNIST": {"queries": 1.0}, "fgsm OrganMNIST": {"queries": 2.0}}
    with pytest.raises(ValueError, match=r"a part must be one of fgsm MNIST, .*, but is fgsm CIFAR-10"):
        authors.run([("fgsm", "CIFAR-10")], path)


def test_keys_that_are_not_printed_are_refused():
    with pytest.raises(published.NotPublishedError):
        authors.Values().add(("vs22", "§5", "MNIST", "accuracy"), CORRECTED, 0, 1.0)


def test_the_stored_record_has_printed_keys_both_modes_and_numbers():
    kept = record.read(authors.STORED)
    assert {"generated_by", "settings", "values", "environment"} <= set(kept)
    keys = {" | ".join(entry.key) for entry in published.load("vs22")}
    assert set(kept["values"]) <= keys and kept["values"]
    for by_mode in kept["values"].values():
        assert set(by_mode) == MODES
        for found in by_mode.values():
            assert found and all(value is None or np.isfinite(value) for value in found.values())
    json.dumps(kept, allow_nan=False)
    # The attack is theirs to the image where the network reads as many rightly as they stored, at every ε.
    stored_accuracy = stored.load({"file": "fgsm/mnist/FGSM_attack_density.dat", "what": "accuracy"})["value"]
    found = kept["curves"]["MNIST"][AS_PUBLISHED.name]["0"]["accuracy"]
    np.testing.assert_allclose(found, stored_accuracy, atol=2.5 / 2100)


def test_their_stored_curves_come_out_at_every_epsilon():
    """Density and coverage of MNIST at all 20 sizes of FGSM; which 20,000 images were the reference is not known."""
    runs = record.read(authors.STORED)["curves"]["MNIST"][AS_PUBLISHED.name].values()
    for what, atol in (("density", 0.02), ("coverage", 0.006)):  # a fiftieth of the clean value
        file = f"fgsm/mnist/FGSM_attack_{what}.dat"
        theirs = stored.load({"file": file, "what": what, "kind": "adversarial"})["value"]
        np.testing.assert_allclose(np.mean([run[what] for run in runs], axis=0), theirs, atol=atol)
