"""Retrained networks: what is trained, what is kept, what the record says."""

import json
import threading

import numpy as np
import pytest

from advlib import models, training
from compendium import networks

NAME = "mnist-vs22"


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Training on a few random images, in a folder of its own; gives the list of trainings."""
    rng = np.random.default_rng(0)
    part = rng.random((40, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 40)
    data = models.Partition(*part, np.arange(40), *part, np.arange(40))
    monkeypatch.setattr(models, "partition", lambda name: data)
    monkeypatch.setattr(networks, "FOLDER", tmp_path / "networks")
    monkeypatch.setattr(networks, "RECORD", tmp_path / "retrained.json")
    monkeypatch.setitem(training.RECIPES, NAME, training.Recipe(epochs=1, max_lr=1e-3))
    trained, train = [], training.train
    monkeypatch.setattr(training, "train", lambda name, **k: trained.append((name, k["seed"])) or train(name, **k))
    return trained


def test_recipes_are_the_networks_own_in_bfloat16():
    assert set(networks.SEEDS) < set(models.SPECS) and all(min(seeds) == 1 for seeds in networks.SEEDS.values())
    for name in networks.SEEDS:
        own, again = training.RECIPES[name], networks.recipe(name)
        assert again.bfloat16 and (again.max_lr, again.batch_size) == (own.max_lr, own.batch_size)
        assert again.epochs == (5 if name == "cifar10-resnet" else own.epochs)


def test_what_is_there_is_not_trained_again(quick):
    first = networks.retrain(NAME, 1, progress=False)
    assert networks.retrain(NAME, 1, progress=False) == first == models.card(NAME, networks.folder(1))
    assert first["seed"] == 1 and first["recipe"]["bfloat16"]
    other = networks.retrain(NAME, 2, progress=False)
    assert other["sha256"] != first["sha256"] and quick == [(NAME, 1), (NAME, 2)]
    assert networks.seeds(NAME) == (1, 2) and networks.seeds("cifar10-resnet") == ()
    with models.weights_from(networks.folder(2)):
        assert models.card(NAME)["sha256"] == other["sha256"]


def test_two_who_want_the_same_network_train_it_once(quick):
    threads = [threading.Thread(target=networks.retrain, args=(NAME, 3), kwargs={"progress": False}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert quick == [(NAME, 3)] and networks.seeds(NAME) == (3,)


def test_damaged_weights_are_not_taken_for_a_network(quick):
    networks.retrain(NAME, 1, progress=False)
    weights, _ = models.files(NAME, networks.folder(1))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="must have the sha256 on their card"):
        networks.retrain(NAME, 1, progress=False)


def test_the_record_has_what_is_on_disk_and_keeps_what_is_not(quick, capsys):
    networks.main([NAME, "--seeds", "1", "2"])
    networks.main(["--record"])
    assert "2 networks" in capsys.readouterr().out
    entries = networks.record()
    assert [(entry["name"], entry["seed"]) for entry in entries] == [(NAME, 1), (NAME, 2)]
    card = models.card(NAME, networks.folder(1))
    assert all(entries[0][key] == card[key] for key in entries[0]) and "history" not in entries[0]
    for file in models.files(NAME, networks.folder(1)):
        file.unlink()
    assert networks.seeds(NAME) == (2,) and networks.write_record() == entries == networks.record()


def test_bad_names_and_seeds_are_refused(quick, capsys):
    with pytest.raises(ValueError, match=r"name must be one of mnist-vs22, .*but is 'lenet'"):
        networks.retrain("lenet", 1)
    with pytest.raises(ValueError, match="seed must be at least 1, but is 0; seed 0 is the network that comes with"):
        networks.retrain(NAME, 0)
    for arguments in (["lenet"], [NAME, "--seeds", "0"]):
        with pytest.raises(SystemExit):
            networks.main(arguments)
        assert "must be" in capsys.readouterr().err
    assert quick == []


def test_the_stored_record_is_of_known_networks():
    if not networks.RECORD.is_file():
        pytest.skip("not recorded yet")
    entries = networks.record()
    assert entries and len({entry["sha256"] for entry in entries}) == len(entries)
    for entry in entries:
        assert entry["seed"] >= 1 and 0.5 < entry["accuracy"] < 1
        assert training.Recipe(**entry["recipe"]) == networks.recipe(entry["name"])
        if entry["name"] in models.NAMES:
            assert entry["sha256"] != json.loads(models.files(entry["name"])[1].read_text())["sha256"]
