"""The authors' networks: their files read, checked and renamed. Made-up files do, and the real ones where they are."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from advlib import datasets, models, n2gem, paths

NOWHERE = "http://127.0.0.1:9/"  # the discard port: refused at once
SHAPES = {
    "mnist-n2gem": {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "fc1": (512, 800), "fc2": (64, 512),
                    "fc3": (10, 64)},
    "organmnist-n2gem": {"conv1.0": (32, 1, 3, 3), "conv2.0": (32, 32, 3, 3), "conv3.0": (64, 32, 3, 3),
                         "conv4.0": (64, 64, 3, 3), "conv5.0": (64, 64, 3, 3), "fc.0": (128, 1024),
                         "fc.2": (64, 128), "fc.4": (11, 64)},
    "pathmnist-n2gem": {"conv1.0": (32, 3, 3, 3), "conv2.0": (32, 32, 3, 3), "conv3.0": (64, 32, 3, 3),
                        "conv4.0": (64, 64, 3, 3), "conv5.0": (64, 64, 3, 3), "fc.0": (128, 1024),
                        "fc.2": (64, 128), "fc.4": (9, 64)},
}  # fmt: skip


def made_up(name):
    """Parameters under the authors' names, with random numbers."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for module, shape in SHAPES[name].items():
        state[f"{module}.weight"] = torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))
        state[f"{module}.bias"] = torch.randn(shape[0], generator=generator)
        if name != "mnist-n2gem" and module.startswith("conv"):
            norm, width = f"{module[:-1]}1", shape[0]
            state |= {f"{norm}.weight": torch.rand(width, generator=generator) + 0.5}
            state |= {f"{norm}.{key}": torch.randn(width, generator=generator) for key in ("bias", "running_mean")}
            state |= {f"{norm}.running_var": torch.rand(width, generator=generator) + 0.5}
            state |= {f"{norm}.num_batches_tracked": torch.tensor(7)}
    return state


def by_hand(name, state, images):
    """What the authors' `forward` does, log-softmax left out, from their parameters."""
    s = models.spec(name)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (s.mean, s.std))
    x = (images - mean) / std

    def layer(kind, module, x, **options):
        return kind(x, state[f"{module}.weight"], state[f"{module}.bias"], **options)

    if name == "mnist-n2gem":
        for module in ("conv1", "conv2"):
            x = functional.max_pool2d(functional.relu(layer(functional.conv2d, module, x)), 2)
        dense = ("fc1", "fc2", "fc3")
    else:
        for i in range(1, 6):
            x = layer(functional.conv2d, f"conv{i}.0", x, padding=int(i == 5))
            norm = {key: state[f"conv{i}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
            x = functional.relu(functional.batch_norm(x, **norm))
            x = functional.max_pool2d(x, 2) if i in (2, 5) else x
        dense = ("fc.0", "fc.2", "fc.4")
    x = x.flatten(1)
    for module in dense[:-1]:
        x = functional.relu(layer(functional.linear, module, x))
    return layer(functional.linear, dense[-1], x)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Write a state as the authors' file or as safetensors, and expect its checksum."""
    monkeypatch.delenv(n2gem.SETTING, raising=False)
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(n2gem, "_ADDRESS", NOWHERE)

    def write(name, state, converted=False, folder=tmp_path):
        weights = n2gem.WEIGHTS[name]
        path = folder / (weights.converted if converted else weights.original)
        path.parent.mkdir(parents=True, exist_ok=True)
        (save_file if converted else torch.save)(state, path)
        changed = {"converted_sha256" if converted else "sha256": sha256(path)}
        monkeypatch.setitem(n2gem.WEIGHTS, name, dataclasses.replace(weights, **changed))
        return path

    return write


@pytest.mark.parametrize("converted", [False, True], ids=["the authors' file", "safetensors"])
@pytest.mark.parametrize("name", models.AUTHORS)
def test_the_network_computes_what_the_authors_does(put, tmp_path, name, converted):
    state = made_up(name)
    put(name, state, converted)
    model, s = models.load_trained(name, folder=tmp_path), models.spec(name)
    images = torch.rand(4, s.channels, 28, 28, generator=torch.Generator().manual_seed(1))
    expected = by_hand(name, state, images)
    torch.testing.assert_close(model(images), expected)
    assert expected.std() > 0.1 and expected.shape == (4, s.classes)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_the_folder_comes_from_the_setting_too(put, tmp_path, monkeypatch):
    put("mnist-n2gem", made_up("mnist-n2gem"))
    monkeypatch.setenv(n2gem.SETTING, str(tmp_path))
    assert set(n2gem.read("mnist-n2gem")) == {
        f"{module}.{kind}"
        for module in ("hidden.0", "hidden.3", "hidden.8", "hidden.11", "head")
        for kind in ("weight", "bias")
    }


def test_what_was_fetched_before_is_read_from_the_downloads(put, tmp_path):
    put("mnist-n2gem", made_up("mnist-n2gem"), folder=tmp_path / "downloads" / "n2gem")
    assert isinstance(models.load_trained("mnist-n2gem"), models.Classifier)


@pytest.mark.parametrize("converted", [False, True])
def test_another_checksum_is_refused(put, tmp_path, converted):
    path = put("mnist-n2gem", made_up("mnist-n2gem"), converted)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=rf"{path.name} must have the sha256 [0-9a-f]+, but have [0-9a-f]+; put "):
        models.load_trained("mnist-n2gem", folder=tmp_path)


def test_code_in_a_file_is_not_run(put, tmp_path):
    put("mnist-n2gem", {"conv1.weight": Path("pickled")})
    with pytest.raises(Exception, match="Weights only load failed"):
        models.load_trained("mnist-n2gem", folder=tmp_path)


def test_parameters_of_another_network_are_refused(put, tmp_path):
    state = made_up("mnist-n2gem")
    put("mnist-n2gem", state | {"fc4.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"must have the modules conv1, .*, but have 'fc4\.weight'"):
        models.load_trained("mnist-n2gem", folder=tmp_path)
    state.pop("fc3.bias")
    put("mnist-n2gem", state)
    with pytest.raises(ValueError, match="the authors' weights must fit the architecture of mnist-n2gem"):
        models.load_trained("mnist-n2gem", folder=tmp_path)


def test_missing_weights_say_what_to_do(put, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights of mnist-n2gem in .*put fastai_MnNet_weights\.pth from"):
        models.load_trained("mnist-n2gem", folder=tmp_path)
    for fetch, reason in ((True, "cannot be reached"), (False, "is missing")):
        words = rf"no weights of mnist-n2gem.*{reason}.*put fastai_MnNet_weights\.pth into .*{n2gem.SETTING}"
        with pytest.raises(FileNotFoundError, match=words):
            n2gem.read("mnist-n2gem", fetch=fetch)


def test_the_card_names_origin_and_licence():
    for name in models.AUTHORS:
        card = models.card(name)
        assert card["name"] == name and card["licence"] == "MIT" and n2gem.COMMIT in card["origin"]
        assert len(card["sha256"]) == 64


# --- The real weights -------------------------------------------------------------------------------------------


def real(name):
    try:
        n2gem.read(name, fetch=False)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    return models.load_trained(name)


@pytest.mark.data
@pytest.mark.parametrize(("name", "once", "twice"), [("mnist-n2gem", 0.99, 0.9895), ("organmnist-n2gem", 0.998, 0.406)])
def test_accuracy_on_the_holdout_normalised_once_and_twice(name, once, twice):
    model, s = real(name), models.spec(name)
    try:
        datasets.load(s.dataset, download=False)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    data = models.partition(name)
    again = (data.holdout_images - np.float32(s.mean)) / np.float32(s.std)
    assert models.accuracy(model, data.holdout_images, data.holdout_labels, 50) == pytest.approx(once, abs=0.004)
    assert models.accuracy(model, again, data.holdout_labels, 50) == pytest.approx(twice, abs=0.004)
