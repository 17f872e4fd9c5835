import contextvars
import dataclasses
import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from advlib import datasets, models, paths, training

FLOORS = {
    "mnist-vs22": 0.99,
    "mnist-vs22-official": 0.99,
    "mnist-cleverhans": 0.985,
    "organamnist-vs22": 0.98,
    "bloodmnist-vs22": 0.95,
    "cifar10-resnet": 0.85,
    "cifar10-airbench": 0.93,
    "cifar10-cleverhans": 0.55,
    "cifar10-grey-cleverhans": 0.50,
}


def fresh(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.build(name).eval()


def layers(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def images_for(name, n=3, seed=0):
    s = models.spec(name)
    return np.random.default_rng(seed).random((n, s.channels, s.size, s.size), dtype=np.float32)


@pytest.fixture
def copied(tmp_path):
    """A folder with a copy of one network's files, to be damaged."""
    for path in models.files("bloodmnist-vs22"):
        shutil.copy(path, tmp_path)
    return tmp_path


# --- Architectures against the papers' tables -------------------------------------------------------------------


def conv(inputs, outputs, kernel=3):
    return outputs * inputs * kernel**2 + outputs


def dense(*widths):
    return sum(a * b + b for a, b in pairwise(widths))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mnist-vs22", conv(1, 16) + conv(16, 32) + dense(800, 512, 64, 10)),
        (
            "organamnist-vs22",
            conv(1, 32) + conv(32, 32) + conv(32, 64) + 2 * conv(64, 64)
            + 2 * (32 + 32 + 64 + 64 + 64) + dense(64 * 4 * 4, 128, 64, 11),
        ),
        (
            "pathmnist-vs22",
            conv(3, 32) + conv(32, 32) + conv(32, 64) + 2 * conv(64, 64)
            + 2 * (32 + 32 + 64 + 64 + 64) + dense(64 * 4 * 4, 128, 64, 9),
        ),
        ("mnist-cleverhans", conv(1, 64, 8) + conv(64, 128, 6) + conv(128, 128, 5) + dense(128, 10)),
        ("cifar10-cleverhans", conv(3, 64, 8) + conv(64, 128, 6) + conv(128, 128, 5) + dense(128 * 2 * 2, 10)),
        ("cifar10-grey-cleverhans", conv(1, 64, 8) + conv(64, 128, 6) + conv(128, 128, 5) + dense(512, 10)),
    ],
)  # fmt: skip
def test_parameter_counts_are_those_of_the_tables(name, count):
    assert sum(p.numel() for p in fresh(name).parameters()) == count


def test_vs22_mnist_is_table_1():
    model = fresh("mnist-vs22")
    convolutions, linear = layers(model, nn.Conv2d), layers(model, nn.Linear)
    assert [c.out_channels for c in convolutions] == [16, 32]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    assert [(d.in_features, d.out_features) for d in linear] == [(800, 512), (512, 64), (64, 10)]
    assert [type(layer).__name__ for layer in model.hidden] == [
        "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Dropout", "Flatten",
        "Linear", "ReLU", "Dropout", "Linear", "ReLU",
    ]  # fmt: skip
    assert {layer.p for layer in layers(model, nn.Dropout)} == {0.5}


def test_vs22_medmnist_is_table_2():
    model = fresh("pathmnist-vs22")
    convolutions = layers(model, nn.Conv2d)
    assert [c.out_channels for c in convolutions] == [32, 32, 64, 64, 64]
    assert [c.padding for c in convolutions] == [(0, 0)] * 4 + [(1, 1)]
    assert [b.num_features for b in layers(model, nn.BatchNorm2d)] == [32, 32, 64, 64, 64]
    assert [d.out_features for d in layers(model, nn.Linear)] == [128, 64, 9]
    assert fresh("organamnist-vs22").head.out_features == 11


def test_cleverhans_same_padding_is_tensorflows():
    # TensorFlow's "SAME": ⌈size / stride⌉ outputs, padding (outputs − 1)·stride + kernel − size, half on each side.
    for name in ("mnist-cleverhans", "cifar10-cleverhans"):
        size, first = models.spec(name).size, layers(fresh(name), nn.Conv2d)[0]
        outputs = -(-size // 2)
        assert 2 * first.padding[0] == (outputs - 1) * 2 + 8 - size
        assert first(torch.zeros(1, models.spec(name).channels, size, size)).shape[-1] == outputs
    assert not layers(fresh("mnist-cleverhans"), nn.MaxPool2d)


@pytest.mark.parametrize("name", models.SPECS)
def test_normalisation_comes_first_and_the_head_last(name):
    model, s = fresh(name), models.spec(name)
    x = torch.from_numpy(images_for(name))
    assert next(model.children()) is model.normalize
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (s.mean, s.std))
    by_hand = model.hidden((x - mean) / std)
    torch.testing.assert_close(model.features(x), by_hand)
    torch.testing.assert_close(model(x), model.head(by_hand))
    assert model(x).shape == (3, s.classes) and model.features(x).ndim == 2
    assert {"normalize.mean", "normalize.std"} <= set(model.state_dict()) - {n for n, _ in model.named_parameters()}


def test_cross_entropy_of_logits_is_the_papers_loss():
    model = fresh("mnist-vs22")
    labels = torch.tensor([1, 2, 3])
    gradients = []
    for loss in (nn.CrossEntropyLoss(), lambda z, y: nn.NLLLoss()(nn.LogSoftmax(1)(z), y)):
        x = torch.from_numpy(images_for("mnist-vs22")).requires_grad_()
        loss(model(x), labels).backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_unknown_names_are_refused_with_the_names_there_are():
    for call in (models.build, models.spec, models.card, models.load_trained, models.partition, models.files):
        with pytest.raises(ValueError, match=r"name must be one of .*mnist-vs22.*but is 'lenet'"):
            call("lenet")


# --- Shipped weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.NAMES)
def test_shipped_network_loads_frozen_and_matches_its_card(name):
    model, card = models.load_trained(name), models.card(name)
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert card["name"] == name and card["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["accuracy"] >= FLOORS[name]
    assert card["history"][-1]["epoch"] == len(card["history"]) == card["recipe"]["epochs"]
    # Cards are older than some options, which are off by default.
    assert vars(training.Recipe(**card["recipe"])) == dataclasses.asdict(training.RECIPES[name]), (
        "retrain: the recipe is not that of the weights"
    )
    assert {"seed", "duration_s", "versions", "hardware", "split", "holdout", "data"} <= set(card)
    assert card["size_bytes"] == models.files(name)[0].stat().st_size


def test_shipped_weights_stay_small():
    weights = [models.files(name)[0] for name in models.NAMES]
    assert sum(path.stat().st_size for path in weights) < 15e6
    assert {path.stem for path in paths.WEIGHTS.glob("*.safetensors")} == set(models.NAMES)


def test_missing_weights_and_cards_are_named(copied, tmp_path_factory):
    weights, card = models.files("bloodmnist-vs22", copied)
    assert isinstance(models.load_trained("bloodmnist-vs22", folder=copied), models.Classifier)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights of bloodmnist-vs22 at .*bloodmnist-vs22\.safetensors"):
        models.load_trained("bloodmnist-vs22", folder=copied)
    card.unlink()
    with pytest.raises(FileNotFoundError, match=r"no card of bloodmnist-vs22.*advlib train bloodmnist-vs22"):
        models.load_trained("bloodmnist-vs22", folder=copied)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:5000] + b"\0" + b[5001:]])
def test_corrupt_weights_are_refused(copied, damage):
    weights, _ = models.files("bloodmnist-vs22", copied)
    contents = weights.read_bytes()
    weights.write_bytes(damage(contents))
    assert weights.read_bytes() != contents
    with pytest.raises(ValueError, match=r"bloodmnist-vs22\.safetensors must have the sha256 on their card"):
        models.load_trained("bloodmnist-vs22", folder=copied)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"accuracy": 1}'])
def test_unreadable_cards_are_refused(copied, text):
    models.files("bloodmnist-vs22", copied)[1].write_text(text)
    with pytest.raises(ValueError, match=r"the card .*bloodmnist-vs22\.json must"):
        models.load_trained("bloodmnist-vs22", folder=copied)


@pytest.mark.parametrize("change", ["missing", "shape", "garbage"])
def test_weights_of_another_architecture_are_refused_though_the_checksum_matches(copied, change):
    weights, card = models.files("bloodmnist-vs22", copied)
    state = load_file(weights)
    if change == "garbage":
        weights.write_bytes(b"no safetensors")
    else:
        state.pop("head.bias")
        if change == "shape":
            state["head.bias"] = torch.zeros(3)
        save_file(state, weights)
    contents = json.loads(card.read_text())
    contents["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    card.write_text(json.dumps(contents))
    with pytest.raises(ValueError, match="must fit the architecture of bloodmnist-vs22"):
        models.load_trained("bloodmnist-vs22", folder=copied)


# --- Other weights ----------------------------------------------------------------------------------------------


@pytest.fixture
def retrained(tmp_path):
    """A folder with an untrained bloodmnist-vs22 in the place of a retrained one."""
    name = "bloodmnist-vs22"
    weights, card = models.files(name, tmp_path)
    save_file(fresh(name).state_dict(), weights)
    card.write_text(json.dumps({"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}))
    return tmp_path


def digest(name="bloodmnist-vs22"):
    """Of the card; the weights must be those of the card."""
    models.load_trained(name)
    return models.card(name)["sha256"]


def test_weights_from_a_folder_go_before_the_packages_where_the_folder_has_them(retrained):
    own, other = digest(), models.card("bloodmnist-vs22", retrained)["sha256"]
    bias = models.load_trained("bloodmnist-vs22").head.bias
    with models.weights_from(retrained):
        assert digest() == other != own
        torch.testing.assert_close(models.load_trained("bloodmnist-vs22").head.bias, fresh("bloodmnist-vs22").head.bias)
        assert digest("mnist-vs22") == models.card("mnist-vs22", paths.WEIGHTS)["sha256"]
        assert models.card("bloodmnist-vs22", paths.WEIGHTS)["sha256"] == own, "an explicit folder goes before"
        assert models.files("bloodmnist-vs22")[0].parent == paths.WEIGHTS, "trainings write where they always do"
    assert digest() == own and torch.equal(models.load_trained("bloodmnist-vs22").head.bias, bias)


def test_weights_from_is_undone_after_an_error_and_nests(retrained, tmp_path_factory):
    own, empty = digest(), tmp_path_factory.mktemp("empty")
    with pytest.raises(KeyError), models.weights_from(retrained):
        with models.weights_from(empty):
            assert digest() == own
        assert digest() != own
        raise KeyError
    assert digest() == own


def test_half_a_network_is_missed_aloud(retrained):
    with models.weights_from(retrained):
        models.files("bloodmnist-vs22", retrained)[1].unlink()
        with pytest.raises(FileNotFoundError, match="no card of bloodmnist-vs22"):
            models.load_trained("bloodmnist-vs22")
    with pytest.raises(ValueError, match="folder must be a folder with weights, but there is no"):
        models.weights_from(retrained / "nowhere").__enter__()


def test_other_threads_keep_their_weights(retrained):
    own = digest()
    with ThreadPoolExecutor(1) as pool, models.weights_from(retrained):
        assert pool.submit(digest).result() == own
        assert pool.submit(contextvars.copy_context().run, digest).result() == digest() != own


# --- Real data --------------------------------------------------------------------------------------------------


def partition(name):
    try:
        datasets.load(models.spec(name).dataset, download=False)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    return models.partition(name)


@pytest.mark.data
@pytest.mark.parametrize("name", models.NAMES)
def test_accuracy_on_images_never_seen_is_that_of_the_card(name):
    data, card = partition(name), models.card(name)
    digest = hashlib.sha256(data.holdout_index.astype("<i8").tobytes()).hexdigest()
    assert card["split"]["holdout_index_sha256"] == digest
    assert card["split"]["train_size"] == len(data.train_images) and card["split"]["holdout_size"] == len(
        data.holdout_images
    )
    # The wide networks are measured on a part; four standard errors of that part's accuracy is its band.
    part = 1500 if name.startswith("cifar") or name.endswith("cleverhans") else len(data.holdout_labels)
    found = models.accuracy(models.load_trained(name), data.holdout_images[:part], data.holdout_labels[:part])
    if part == len(data.holdout_labels):
        assert found == pytest.approx(card["accuracy"], abs=1.5 / part)  # one image may sit on the fence elsewhere
        assert found >= FLOORS[name]
    else:
        assert abs(found - card["accuracy"]) < 4 * np.sqrt(card["accuracy"] * (1 - card["accuracy"]) / part)


@pytest.mark.data
def test_pooled_partition_is_vs22s_and_official_is_g17s():
    pooled, official = partition("mnist-vs22"), partition("mnist-vs22-official")
    assert (len(pooled.train_images), len(pooled.holdout_images)) == (67900, 2100)
    assert np.intersect1d(pooled.train_index, pooled.holdout_index).size == 0
    assert (len(official.train_images), len(official.holdout_images)) == (60000, 10000)
    data = datasets.load("mnist")
    np.testing.assert_array_equal(official.holdout_images, data.test_images)
    inside = pooled.holdout_index < 60000
    np.testing.assert_array_equal(pooled.holdout_images[inside], data.train_images[pooled.holdout_index[inside]])
    share = np.bincount(pooled.holdout_labels) / np.bincount(pooled.train_labels)
    assert np.ptp(share) < 0.0005  # stratified: the same share of every digit


@pytest.mark.data
def test_grey_partition_is_grey():
    data, colour = partition("cifar10-grey-cleverhans"), partition("cifar10-resnet")
    assert data.holdout_images.shape == (10000, 1, 32, 32)
    np.testing.assert_array_equal(data.holdout_images[:50], datasets.grey(colour.holdout_images[:50]))


# --- Running a model --------------------------------------------------------------------------------------------


def test_a_cpu_is_given_no_more_images_than_its_cache_holds():
    seen = []

    class Sums(torch.nn.Module):
        def forward(self, images):
            seen.append(len(images))
            return images.flatten(1).sum(1, keepdim=True)

    images = np.random.default_rng(0).random((230, 1, 2, 2), dtype=np.float32)
    np.testing.assert_allclose(models.logits(Sums(), images)[:, 0], images.sum((1, 2, 3)), rtol=1e-6)
    assert seen == [100, 100, 30]
    seen.clear()
    models.logits(Sums(), images, batch_size=60)
    assert seen == [60, 60, 60, 50]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_do_not_matter(batch_size):
    model, images = fresh("mnist-vs22"), images_for("mnist-vs22", 7)
    with torch.no_grad():
        whole = model(torch.from_numpy(images)).numpy()
        hidden = model.features(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(models.logits(model, images, batch_size), whole, atol=1e-5)
    np.testing.assert_allclose(models.embed(model, images, batch_size), hidden, atol=1e-5)
    np.testing.assert_array_equal(models.predict(model, images, batch_size), whole.argmax(1))
    assert models.accuracy(model, images, whole.argmax(1), batch_size) == 1
    half = np.where(np.arange(7) < 3, whole.argmax(1), -1)
    assert models.accuracy(model, torch.from_numpy(images), torch.from_numpy(half), batch_size) == 3 / 7


def test_prediction_is_in_evaluation_mode_and_leaves_the_model_as_it_was():
    model = fresh("organamnist-vs22").train()
    model.hidden[1].eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = images_for("organamnist-vs22", 5)
    first, second = models.logits(model, images), models.logits(model, images[::-1])
    np.testing.assert_allclose(first, second[::-1], atol=1e-5)
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_model_is_restored_when_it_fails():
    model = fresh("mnist-vs22").train()
    with pytest.raises(models.DoesNotFit, match=r"images of shape \(3, 28, 28\) must fit the model"):
        models.predict(model, np.zeros((1, 3, 28, 28), np.float32))
    assert model.training and all(p.requires_grad for p in model.parameters())


def test_bad_arguments_are_named():
    model, images = fresh("mnist-vs22"), images_for("mnist-vs22")
    with pytest.raises(ValueError, match=r"images must be a non-empty \(n, c, h, w\) array, but has shape \(3, 784\)"):
        models.predict(model, images.reshape(3, -1))
    with pytest.raises(ValueError, match="images must be a non-empty"):
        models.predict(model, images[:0])
    with pytest.raises(ValueError, match="batch_size must be at least 1, but is 0"):
        models.predict(model, images, 0)
    with pytest.raises(ValueError, match=r"labels must be one an image, shape \(3,\), but has shape \(2,\)"):
        models.accuracy(model, images, [0, 1])
