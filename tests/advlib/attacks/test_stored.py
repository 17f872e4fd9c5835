"""Attacked images on disk: what names a set, damage, interruption."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from advlib import attacks, models
from advlib.attacks import stored

NAME = "mnist-vs22"


@pytest.fixture
def weights(tmp_path):
    """An untrained network in the place of a trained one; its card holds the one thing that is read."""
    return untrained(tmp_path / "weights")


def untrained(folder, seed=0):
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = models.build(NAME)
    file, card = models.files(NAME, folder)
    save_file(model.state_dict(), file)
    card.write_text(json.dumps({"sha256": stored.hashlib.sha256(file.read_bytes()).hexdigest()}))
    return folder


def digits(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, n)


@pytest.fixture
def make(weights, tmp_path):
    def call(attack, *data, **options):
        options = {"chunk": 5, "folder": tmp_path / "cache", "weights": weights} | options
        return stored.stored_attack(attack, NAME, *(data or digits()), **options)

    return call


@pytest.fixture
def counted(monkeypatch):
    """Count the chunks that are attacked, by their images."""
    sizes = []
    attack = attacks.fgsm

    def fgsm(model, images, labels, *args, **kwargs):
        sizes.append(len(images))
        return attack(model, images, labels, *args, **kwargs)

    fgsm.version = attack.version
    fgsm.sizes = sizes
    return fgsm


def same(first, second):
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if field.name == "zero_gradient_share":  # a mean of means
            assert one == other or one == pytest.approx(other, rel=1e-12)
        else:
            np.testing.assert_array_equal(one, other, field.name)


def files(tmp_path):
    return sorted((tmp_path / "cache").glob("*/*.safetensors"))


def test_a_set_is_what_the_attack_gives_and_is_computed_once(make, counted, weights):
    images, labels = digits()
    direct = attacks.fgsm(models.load_trained(NAME, folder=weights), images, labels, epsilon=0.1)
    first = make(counted, images, labels, epsilon=0.1)
    assert counted.sizes == [5, 5, 2]
    same(first, direct)
    second = make(counted, images, labels, epsilon=0.1)
    assert counted.sizes == [5, 5, 2]
    same(second, direct)
    assert isinstance(second.images, np.ndarray) and second.success.dtype == bool


def test_sweeps_and_targets_are_kept_as_well(make, weights):
    images, labels = digits()
    targets = (labels + 1) % 10
    options = {"steps": [0, 2], "epsilon": 0.02, "targets": targets}
    direct = list(attacks.tgsm_sweep(models.load_trained(NAME, folder=weights), images, labels, **options))
    for _ in range(2):
        kept = make(attacks.tgsm_sweep, images, labels, **options)
        assert len(kept) == 2
        for one, other in zip(kept, direct, strict=True):
            same(one, other)


def test_random_attacks_have_their_seed_in_the_name(make):
    options = {"steps": 1, "epsilon": 0.1}
    first, again, other = (make(attacks.pgd, **options, seed=seed) for seed in (0, 0, 1))
    same(first, again)
    assert (first.images != other.images).any()
    fixed = make(attacks.pgd, **options)
    assert (first.images != fixed.images).any()


def test_anything_that_matters_makes_another_set_and_nothing_else(make, counted, tmp_path, monkeypatch):
    images, labels = digits()

    def sets(**options):
        arguments = {"images": images, "labels": labels, "epsilon": 0.1} | options
        make(counted, arguments.pop("images"), arguments.pop("labels"), **arguments)
        return len(list((tmp_path / "cache").iterdir()))

    assert sets() == 1
    assert sets(images=torch.from_numpy(images), labels=torch.from_numpy(labels), epsilon=np.float64(0.1)) == 1
    assert sets(images=images[:, :, :, ::-1][:, :, :, ::-1]) == 1
    assert sets(epsilon=0.2) == 2
    assert sets(images=np.where(images == images.max(), np.float32(0), images)) == 3
    assert sets(labels=labels[::-1]) == 4
    assert sets(clip=None) == 5
    assert sets(chunk=6) == 6
    assert sets(weights=untrained(tmp_path / "others", seed=1)) == 7
    monkeypatch.setattr(counted, "version", counted.version + 1)
    assert sets() == 8
    monkeypatch.setattr(counted, "__module__", "elsewhere")  # where the code stands does not matter
    assert sets() == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        lambda content: content.replace(b"several", b"sEveral", 1),
        lambda content: os.urandom(len(content)),
    ],
    ids=["half", "empty", "one bit", "metadata", "noise"],
)
def test_a_damaged_file_is_named_and_computed_again_alone(make, counted, tmp_path, damage):
    whole = make(counted, epsilon=0.1)
    victim = files(tmp_path)[1]
    content = victim.read_bytes()
    assert damage(content) != content
    victim.write_bytes(damage(content))
    counted.sizes.clear()
    with pytest.warns(UserWarning, match=f"{victim.name} is damaged and is computed again"):
        same(make(counted, epsilon=0.1), whole)
    assert counted.sizes == [5]
    assert victim.read_bytes() == content
    same(make(counted, epsilon=0.1), whole)


def test_a_chunk_of_another_set_is_not_taken(make, counted, tmp_path):
    whole = make(counted, epsilon=0.1)
    victim = files(tmp_path)[0]
    make(counted, epsilon=0.2)
    other = next(file for file in files(tmp_path) if file.parent != victim.parent and file.name == victim.name)
    victim.write_bytes(other.read_bytes())
    with pytest.warns(UserWarning, match="belongs to another set"):
        same(make(counted, epsilon=0.1), whole)


def test_an_attack_that_fails_keeps_what_was_finished(make, counted, tmp_path):
    images, labels = digits()

    def failing(model, images_, *args, **kwargs):
        if len(images_) == 2:
            raise RuntimeError("out of memory")
        return counted(model, images_, *args, **kwargs)

    failing.__name__, failing.version = counted.__name__, counted.version
    with pytest.raises(RuntimeError, match="out of memory"):
        make(failing, images, labels, epsilon=0.1)
    assert len(files(tmp_path)) == 2
    counted.sizes.clear()
    make(counted, images, labels, epsilon=0.1)
    assert counted.sizes == [2]


def test_a_killed_process_loses_only_the_chunk_it_was_at(make, counted, weights, tmp_path):
    images, labels = digits(20)
    script = f"""
        import sys, time
        import numpy as np
        from pathlib import Path
        from advlib import attacks
        from advlib.attacks import stored

        original, calls = attacks.fgsm, []
        def fgsm(*args, **kwargs):
            calls.append(1)
            if len(calls) == 3:
                print("third", flush=True)
                time.sleep(600)
            return original(*args, **kwargs)
        fgsm.version = original.version
        rng = np.random.default_rng(0)
        images, labels = rng.random((20, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 20)
        stored.stored_attack(fgsm, {NAME!r}, images, labels, epsilon=0.1, chunk=5,
                             folder=Path({str(tmp_path / "cache")!r}), weights=Path({str(weights)!r}))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    try:
        while "third" not in (line := process.stdout.readline()):
            assert line or process.poll() is None, "the process ended early"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(files(tmp_path)) == 2
    half_written = files(tmp_path)[0].with_name(".123.00000010.safetensors")
    half_written.write_bytes(b"half")
    began = time.monotonic()
    whole = make(counted, images, labels, epsilon=0.1)
    assert time.monotonic() - began < 60  # the dead process's lock does not hold
    assert counted.sizes == [5, 5]
    assert not half_written.exists()
    same(whole, attacks.fgsm(models.load_trained(NAME, folder=weights), images, labels, epsilon=0.1))


def test_bad_arguments_are_named(make, tmp_path):
    images, labels = digits()
    for data, options, message in [
        ((images, labels[:-1]), {}, "labels must be one an image"),
        ((images[:0], labels[:0]), {}, "images not empty"),
        ((images, labels), {"chunk": 0}, "chunk must be at least 1"),
        ((images, labels), {"rng": np.random.default_rng(0)}, "rng must be a number.*give a seed instead"),
        ((images, labels), {"epsilon": object()}, "epsilon must be a number"),
        ((images * 255, labels), {}, r"images must lie in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(attacks.fgsm, *data, **options)
    with pytest.raises(ValueError, match="same has no version"):
        make(same)
    assert not files(tmp_path)


def test_the_record_beside_a_set_says_what_it_is(make, tmp_path):
    make(attacks.fgsm, epsilon=0.1)
    (record,) = (tmp_path / "cache").glob("*/origin.json")
    origin = json.loads(record.read_text())
    assert origin["attack"] == "fgsm" and origin["version"] == attacks.fgsm.version
    assert origin["parameters"] == {"epsilon": 0.1}
    assert origin["network"] == NAME


def test_other_weights_of_the_same_name_are_another_network(tmp_path, counted):
    folder, images = tmp_path / "cache", digits()
    found = []
    for place in (untrained(tmp_path / "one"), untrained(tmp_path / "two", seed=1), tmp_path / "one"):
        with models.weights_from(place):
            found.append(stored.stored_attack(counted, NAME, *images, folder=folder, epsilon=0.1))
    assert len(list(folder.iterdir())) == len(counted.sizes) == 2
    np.testing.assert_array_equal(found[0].images, found[2].images)
    assert not np.array_equal(found[0].images, found[1].images)
