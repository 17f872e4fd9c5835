import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from advlib import models, training
from advlib.training import Recipe

NAME = "mnist-vs22"


def digits(n, seed=0):
    """n images (1, 28, 28) of ten kinds: a bright row each, in noise. Easy to tell apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    images = rng.random((n, 1, 28, 28), dtype=np.float32) * 0.2
    images[np.arange(n), 0, 4 + 2 * labels] += 0.8
    return images, labels


@pytest.fixture
def synthetic(monkeypatch):
    """Stand in for the data set, so that `train` runs in a second."""
    train, holdout = digits(400), digits(60, seed=1)
    data = models.Partition(*train, np.arange(400), *holdout, np.arange(60))
    monkeypatch.setattr(models, "partition", lambda name: data)
    return data


def small(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))


def train(folder, **kwargs):
    return training.train(NAME, folder=folder, progress=False, device="cpu", **({"epochs": 2} | kwargs))


# --- fit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bfloat16", [False, True])
def test_fit_learns(bfloat16):
    model = small()
    recipe = Recipe(epochs=8, max_lr=1e-2, batch_size=50, bfloat16=bfloat16)
    history = training.fit(model, *digits(400), recipe, holdout=digits(60, seed=1), progress=False)
    assert history[-1]["accuracy"] == models.accuracy(model, *digits(60, seed=1)) > 0.95
    assert [row["epoch"] for row in history] == list(range(1, 9))
    losses = [row["train_loss"] for row in history]
    assert losses[-1] < 0.2 * losses[0]
    assert not model.training and all(p.dtype == torch.float32 for p in model.parameters())


def test_learning_rate_goes_up_and_down_once():
    history = training.fit(small(), *digits(100), Recipe(10, 1e-2, 20), progress=False)
    rates = np.array([row["learning_rate"] for row in history])
    peak = rates.argmax()
    assert 0 < peak < 5 and (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()
    assert rates.max() <= 1e-2 and rates[-1] < 1e-4
    assert "accuracy" not in history[0]


def test_fit_is_seeded_and_leaves_global_generators_alone():
    def weights(seed):
        model = small()
        training.fit(model, *digits(100), Recipe(2, 1e-2, 30, shift=1, flip=True), seed=seed, progress=False)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  (the legacy state must stay as it is, too)
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = weights(3)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002
    torch.manual_seed(99)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))


def test_bad_training_sets_are_refused():
    images, labels = digits(10)
    with pytest.raises(ValueError, match=r"labels must be one an image, shape \(10,\), but has shape \(9,\)"):
        training.fit(small(), images, labels[:9], Recipe(1, 1e-2), progress=False)
    with pytest.raises(ValueError, match="images must be a non-empty"):
        training.fit(small(), images[:0], labels[:0], Recipe(1, 1e-2), progress=False)


def test_a_loss_that_is_no_number_stops_the_training():
    images, labels = digits(10)
    model = small()
    nn.init.constant_(model[-1].bias, np.nan)
    with pytest.raises(FloatingPointError, match="loss became nan in epoch 1"):
        training.fit(model, images, labels, Recipe(3, 1e-2), progress=False)
    with pytest.raises(ValueError, match="images must be finite, but 7840"):
        training.fit(small(), images * np.nan, labels, Recipe(3, 1e-2), progress=False)


def test_descent_with_momentum_learns_and_its_rate_is_a_triangle():
    recipe = Recipe(epochs=10, max_lr=0.1, batch_size=20, momentum=0.8, smoothing=0.1)
    history = training.fit(small(), *digits(400), recipe, holdout=digits(60, seed=1), progress=False)
    assert history[-1]["accuracy"] > 0.95
    rates = np.array([row["learning_rate"] for row in history])
    # Up to the peak in 23 % of the steps, then down to 7 % of it in equal steps.
    np.testing.assert_allclose(np.diff(rates[2:]), -0.093 / 7.7, rtol=0.02)
    assert rates[-1] == pytest.approx(0.007, rel=0.02)


def test_biases_of_batch_normalisation_learn_faster_and_decay_alike():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3))
    model[1].weight.requires_grad_(False)
    optimizer, _ = training._optimizers(model, Recipe(1, 0.5, weight_decay=0.01, momentum=0.9), 10)
    fast, slow = optimizer.param_groups
    assert fast["nesterov"] and slow["nesterov"]
    assert fast["params"] == [model[1].bias] and len(slow["params"]) == 4
    assert fast["max_lr"] == 64 * slow["max_lr"] == 32
    assert fast["max_lr"] * fast["weight_decay"] == pytest.approx(slow["max_lr"] * slow["weight_decay"])


def test_lookahead_draws_the_weights_to_their_average_and_ends_in_it():
    model, rng = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), np.random.default_rng(0)
    weight, mean = model[0].weight, model[1].running_mean
    average = torch.cat([weight.detach().flatten(), mean])
    lookahead = training._Lookahead(model, 22)
    for step in range(1, 23):
        with torch.no_grad():
            weight += torch.from_numpy(rng.standard_normal((2, 3))).float()
            mean += 1
        here = torch.cat([weight.detach().flatten(), mean])
        lookahead()
        if step % 5 == 0 or step == 22:
            kept = 0.95**5 * (step / 22) ** 3 if step < 22 else 1.0
            average = kept * average + (1 - kept) * here
            torch.testing.assert_close(torch.cat([weight.detach().flatten(), mean]), average)
        else:
            assert torch.equal(torch.cat([weight.detach().flatten(), mean]), here)
    assert model[1].num_batches_tracked.dtype == torch.int64


def test_a_recipe_with_lookahead_ends_elsewhere_than_one_without():
    def weights(**options):
        model = small()
        training.fit(model, *digits(100), Recipe(2, 0.05, 20, momentum=0.8, **options), progress=False)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert not torch.allclose(weights(), weights(lookahead=True), atol=1e-4)


def test_smoothed_labels_leave_a_loss():
    recipe = Recipe(epochs=10, max_lr=0.1, batch_size=20, momentum=0.8)
    images, labels = digits(400)
    entropy = -(0.91 * np.log(0.91) + 9 * 0.01 * np.log(0.01))  # of a label of which a tenth is spread over ten classes
    recipes = recipe, dataclasses.replace(recipe, smoothing=0.1)
    plain, smoothed = (training.fit(small(), images, labels, r, progress=False)[-1]["train_loss"] for r in recipes)
    assert plain < 0.5 * entropy and smoothed > entropy


@pytest.mark.parametrize(
    ("field", "value"), [("momentum", 1.0), ("momentum", -0.1), ("smoothing", 1.0), ("smoothing", np.nan)]
)
def test_recipes_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        training.fit(small(), *digits(10), Recipe(1, 0.1, **{field: value}), progress=False)
    with pytest.raises(ValueError, match="lookahead needs momentum"):
        training.fit(small(), *digits(10), Recipe(1, 0.1, lookahead=True), progress=False)


@pytest.mark.parametrize(("shift", "flip"), [(0, False), (1, False), (0, True), (2, True)])
def test_augmentation_gives_every_shift_and_mirror_and_nothing_else(shift, flip):
    image = torch.rand(1, 2, 6, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    possible = set()
    for mirrored in (image, image.flip(3))[: 1 + flip]:
        padded = nn.functional.pad(mirrored, (shift,) * 4)
        for row in range(2 * shift + 1):
            for column in range(2 * shift + 1):
                possible.add(padded[0, :, row : row + 6, column : column + 5].numpy().tobytes())
    recipe = Recipe(1, 1.0, shift=shift, flip=flip)
    out = training._augment(image.repeat(1500, 1, 1, 1), recipe, torch.Generator().manual_seed(1))
    counts = {}
    for one in out:
        counts[one.numpy().tobytes()] = counts.get(one.numpy().tobytes(), 0) + 1
    assert set(counts) == possible and len(possible) == (2 * shift + 1) ** 2 * (1 + flip)
    expected = 1500 / len(possible)
    assert all(abs(count - expected) <= 5 * np.sqrt(expected) for count in counts.values())


# --- train ------------------------------------------------------------------------------------------------------


def test_every_network_has_a_recipe():
    assert set(training.RECIPES) == set(models.SPECS) - set(models.AUTHORS)
    with pytest.raises(ValueError, match="mnist-n2gem is its authors' own"):
        training.train("mnist-n2gem")


def test_the_same_seed_gives_the_same_file(synthetic, tmp_path):
    cards = [train(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    contents = [models.files(NAME, tmp_path / str(i))[0].read_bytes() for i in range(3)]
    assert contents[0] == contents[1] != contents[2]
    assert cards[0]["sha256"] == cards[1]["sha256"] != cards[2]["sha256"]


def test_a_recipe_goes_before_the_networks_own_and_epochs_before_both(synthetic, tmp_path):
    recipe = Recipe(epochs=1, max_lr=1e-3, batch_size=50, bfloat16=True)
    assert train(tmp_path, recipe=recipe, epochs=None)["recipe"] == dataclasses.asdict(recipe)
    assert train(tmp_path, recipe=recipe)["recipe"] == dataclasses.asdict(recipe) | {"epochs": 2}
    with pytest.raises(ValueError, match="epochs must be at least 1, but is 0"):
        train(tmp_path, recipe=dataclasses.replace(recipe, epochs=0), epochs=None)


def test_what_is_written_can_be_loaded_and_is_what_the_card_says(synthetic, tmp_path):
    card = train(tmp_path, epochs=6)
    model = models.load_trained(NAME, folder=tmp_path)
    assert models.card(NAME, tmp_path) == card == json.loads(json.dumps(card))
    assert card["accuracy"] == models.accuracy(model, synthetic.holdout_images, synthetic.holdout_labels)
    assert card["accuracy"] > 0.5 and len(card["history"]) == card["recipe"]["epochs"] == 6
    assert card["split"]["train_size"] == 400 and card["split"]["holdout_size"] == 60
    assert card["holdout"] == "a stratified 3% hold-out" and card["split"]["seed"] == 42
    assert sorted(os.listdir(tmp_path)) == [f"{NAME}.json", f"{NAME}.safetensors"]
    # Stored parameters are float16; what is loaded is those very numbers.
    assert all(torch.equal(p, p.half().float()) for p in model.parameters())


def test_statistics_of_batch_norm_are_not_rounded():
    model = models.build("bloodmnist-vs22")
    stored = training._stored(model)
    for key, value in model.state_dict().items():
        is_parameter = key in dict(model.named_parameters())
        assert stored[key].dtype == (torch.float16 if is_parameter else value.dtype)


def test_unknown_names_and_epochs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="name must be one of"):
        training.train("lenet", folder=tmp_path)
    with pytest.raises(ValueError, match="epochs must be at least 1, but is 0"):
        training.train(NAME, epochs=0, folder=tmp_path)


@pytest.mark.parametrize("moment", ["training", "renaming"])
def test_an_interrupted_training_leaves_what_was_there(synthetic, tmp_path, monkeypatch, moment):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    def attempt():
        with monkeypatch.context() as patch:
            patch.setattr(*((models, "accuracy") if moment == "training" else (os, "replace")), interrupt)
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, seed=5)

    attempt()
    assert list(tmp_path.iterdir()) == []
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    attempt()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_killed_training_leaves_nothing(tmp_path):
    script = """
        import sys, numpy as np
        from advlib import models, training
        rng = np.random.default_rng(0)
        part = rng.random((64, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 64)
        models.partition = lambda name: models.Partition(*part, np.arange(64), *part, np.arange(64))
        measured = models.accuracy
        models.accuracy = lambda *args: print("epoch", flush=True) or measured(*args)
        training.train("mnist-vs22", epochs=10**6, folder=sys.argv[1], progress=False, device="cpu")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert [process.stdout.readline() for _ in range(2)] == ["epoch\n"] * 2  # it is under way
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_progress_is_drawn_on_standard_error_alone(synthetic, capsys):
    training.fit(small(), *digits(100), Recipe(2, 1e-2, 50), holdout=digits(20), progress=True, description="here")
    out, err = capsys.readouterr()
    assert out == "" and "here" in err and "hold-out" in err
    training.fit(small(), *digits(100), Recipe(1, 1e-2, 50), progress=False)
    assert capsys.readouterr() == ("", "")


def test_recipes_are_plain_numbers():
    for recipe in training.RECIPES.values():
        assert json.loads(json.dumps(dataclasses.asdict(recipe))) == dataclasses.asdict(recipe)


def test_a_network_of_whitened_patches_takes_its_filters_from_the_images():
    images = np.random.default_rng(0).random((300, 3, 32, 32), dtype=np.float32)
    images[:, :, 1:] = (images[:, :, 1:] + images[:, :, :-1]) / 2  # neighbours are alike
    model = training._fresh("cifar10-airbench", 0, images)
    filters = model.hidden[0]
    patches = nn.functional.conv2d(model.normalize(torch.from_numpy(images)), filters.weight).detach()
    rows = patches.permute(0, 2, 3, 1).reshape(-1, 24)[:, :12]
    second = rows.T @ rows / len(rows)
    torch.testing.assert_close(second, torch.eye(12), atol=0.02, rtol=0)  # 5e-4 was added to each eigenvalue
    assert torch.equal(patches[:, :12], -patches[:, 12:])
    before = filters.weight.clone()
    recipe = dataclasses.replace(training.RECIPES["cifar10-airbench"], epochs=1, batch_size=100)
    training.fit(model, images, np.arange(300) % 10, recipe, progress=False)
    assert torch.equal(filters.weight, before)
