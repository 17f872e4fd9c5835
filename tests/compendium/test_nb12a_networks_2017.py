"""Networks of 2017 against their sources, one tiny training, the criterion on made-up lines, the stored record."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from advlib import models
from compendium import paths as places
from compendium.claims import published
from compendium.common import g17, protocol
from compendium.nb12a_forensics_g17 import figures, networks_2017, recipes_2017

BY_KEY = {network.key: network for network in recipes_2017.NETWORKS}
PERCEPTRON = BY_KEY["mnist-perceptron"]


def layers(model, *kinds):
    return [layer for layer in model.modules() if isinstance(layer, kinds)]


# ---------------------------------------------------------------------------------------------- against the sources


@pytest.mark.parametrize(
    ("key", "names", "parameters"),
    [
        ("mnist-cleverhans-adadelta", "CCCD", 64 * 65 + 128 * (64 * 36 + 1) + 128 * (128 * 25 + 1) + 10 * 129),
        ("cifar10-cleverhans-dropout", "-CCC-D",
         64 * (3 * 64 + 1) + 128 * (64 * 36 + 1) + 128 * (128 * 25 + 1) + 10 * (128 * 4 + 1)),
        ("mnist-tensorflow-adversarial", "CCP-D-D", 32 * 10 + 32 * 289 + 128 * (32 * 144 + 1) + 10 * 129),
        ("mnist-keras-example", "CCP-D-D", 32 * 10 + 64 * 289 + 128 * (64 * 144 + 1) + 10 * 129),
        ("cifar10-keras-example", "CCP-CCP-D-D",
         32 * 28 + 32 * 289 + 64 * 289 + 64 * 577 + 512 * (64 * 36 + 1) + 10 * 513),
        ("mnist-perceptron", "D-D-D-D", 100 * 785 + 2 * 100 * 101 + 10 * 101),
    ],
)  # fmt: skip
def test_layers_and_parameters_are_those_of_the_source(key, names, parameters):
    model = recipes_2017.build(BY_KEY[key])
    letters = {nn.Conv2d: "C", nn.Linear: "D", nn.MaxPool2d: "P", nn.Dropout: "-"}
    assert "".join(letters[type(layer)] for layer in layers(model, *letters)) == names
    assert sum(p.numel() for p in model.parameters()) == parameters
    # Keras' models print the same count for these inputs, for instance 1,199,882 for mnist_cnn.py.
    assert key != "mnist-keras-example" or parameters == 1_199_882


def test_dropout_is_the_sources():
    shares = {key: [layer.p for layer in layers(recipes_2017.build(BY_KEY[key]), nn.Dropout)] for key in BY_KEY}
    assert shares["mnist-cleverhans-adadelta"] == []
    assert shares["mnist-cleverhans-dropout"] == [0.2, 0.5]
    assert shares["mnist-tensorflow-adversarial"] == shares["mnist-keras-example"] == [0.25, 0.5]
    assert shares["cifar10-keras-example"] == [0.25, 0.25, 0.5] and shares["mnist-perceptron"] == [0.5] * 3
    first = recipes_2017.build(BY_KEY["cifar10-cleverhans-dropout"]).hidden[0]
    assert isinstance(first, nn.Dropout) and first.p == 0.2, "at the input"


@pytest.mark.parametrize("key", BY_KEY)
def test_weights_start_as_keras_does_and_give_ten_logits(key):
    model = recipes_2017.build(BY_KEY[key])
    for layer in layers(model, nn.Conv2d, nn.Linear):
        area = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
        bound = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()
    images, _ = g17_shape(BY_KEY[key].image_set)
    assert model.eval()(images).shape == (2, 10)
    assert torch.equal(model.normalize(images), images), "pixels as they are"


def g17_shape(image_set, n=2):
    shape = {"mnist": (n, 1, 28, 28), "cifar10": (n, 3, 32, 32), "cifar10-grey": (n, 1, 32, 32)}[image_set]
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.random(shape, dtype=np.float32)), rng.integers(0, 10, n)


def test_recipes_are_the_sources():
    tutorial = BY_KEY["mnist-cleverhans-adadelta"]
    optimizer = recipes_2017._optimizer(tutorial, recipes_2017.build(tutorial))
    assert isinstance(optimizer, torch.optim.Adadelta)
    assert {key: optimizer.defaults[key] for key in ("lr", "rho", "eps")} == {"lr": 0.1, "rho": 0.95, "eps": 1e-8}
    assert (tutorial.epochs, tutorial.source_epochs, tutorial.batch_size, tutorial.smoothing) == (6, 6, 128, 0.1)
    assert BY_KEY["cifar10-cleverhans-adadelta"].source_epochs == 10
    ex_00 = BY_KEY["mnist-tensorflow-adversarial"]
    assert (ex_00.optimizer, ex_00.rate, ex_00.batch_size, ex_00.source_epochs) == ("adam", 1e-3, 64, 10)
    assert (BY_KEY["mnist-keras-example"].rate, BY_KEY["cifar10-keras-example"].optimizer) == (1.0, "rmsprop")
    assert all(network.epochs <= network.source_epochs for network in recipes_2017.NETWORKS)


def test_smoothed_labels_are_cleverhanss():
    """Y.clip(0.1 / 9, 1 − 0.1) of a one-hot label: 0.9 and nine times 0.1/9."""
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 3, 9])
    targets = nn.functional.one_hot(labels, 10).float().clip(0.1 / 9, 0.9)
    ours = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1 * 10 / 9)
    torch.testing.assert_close(ours, nn.functional.cross_entropy(logits, targets))


# ---------------------------------------------------------------------------------------------- training


@pytest.fixture
def stripes(monkeypatch, tmp_path):
    """Ten kinds of images, told apart by a bright row, in place of the data sets; weights go to a test folder."""

    def part(n, seed):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 10, n)
        images = rng.random((n, 1, 28, 28), dtype=np.float32) * 0.2
        images[np.arange(n), 0, 4 + 2 * labels] += 0.8
        return images, labels

    train, held = part(600, 0), part(80, 1)
    data = models.Partition(*train, np.arange(600), *held, np.arange(80))
    monkeypatch.setattr(models, "partition", lambda name: data)
    monkeypatch.setattr(networks_2017.g17, "test_images", lambda image_set, count: held)
    monkeypatch.setattr(recipes_2017, "FOLDER", tmp_path)
    return data


@pytest.mark.parametrize(("optimizer", "rate"), [("adadelta", 1.0), ("adam", 3e-3), ("rmsprop", 1e-3)])
def test_a_tiny_training_learns_and_is_kept(stripes, optimizer, rate):
    small = replace(PERCEPTRON, optimizer=optimizer, rate=rate, epochs=8, batch_size=20, smoothing=0.1)
    card = recipes_2017.train(small)
    assert card["accuracy"] > 0.5
    model = recipes_2017.load(small)
    assert models.accuracy(model, stripes.holdout_images, stripes.holdout_labels) == card["accuracy"]
    assert card["parameters"] == sum(p.numel() for p in model.parameters()) and card["layers"] == "perceptron"


def test_a_training_is_not_done_twice_unless_the_recipe_changed(stripes, monkeypatch):
    fits, fit = [], recipes_2017.fit
    monkeypatch.setattr(recipes_2017, "fit", lambda network, *rest: fits.append(network) or fit(network, *rest))
    small = replace(PERCEPTRON, epochs=1)
    first = recipes_2017.train(small)
    assert recipes_2017.train(small) == first and fits == [small]
    again = recipes_2017.train(replace(small, rate=0.2))
    assert len(fits) == 2 and again["sha256"] != first["sha256"]
    assert recipes_2017.train(small)["sha256"] == first["sha256"], "the seed fixes the weights"


def test_a_loss_that_is_no_number_stops_the_training(stripes):
    images = stripes.train_images * np.float32(np.nan)
    with pytest.raises(FloatingPointError, match="the training loss of perceptron became nan"):
        recipes_2017.fit(PERCEPTRON, recipes_2017.build(PERCEPTRON), images, stripes.train_labels)


# ---------------------------------------------------------------------------------------------- attack and measures


def test_dropout_left_on_stops_a_fifth_of_the_pixels_and_off_none():
    model = recipes_2017.build(BY_KEY["mnist-cleverhans-dropout"]).eval()
    images, labels = g17_shape("mnist", 20)
    signs = {
        way: networks_2017.signs_of(model, images.numpy(), labels, way)
        for way in (networks_2017.TRUE, networks_2017.DROPOUT)
    }
    assert (signs[networks_2017.TRUE] == 0).mean() < 0.01
    share = (signs[networks_2017.DROPOUT] == 0).mean()
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / signs[networks_2017.DROPOUT].size) ** 0.5
    assert np.array_equal(
        signs[networks_2017.DROPOUT], networks_2017.signs_of(model, images.numpy(), labels, networks_2017.DROPOUT)
    )


def test_own_predictions_are_attacked():
    model = recipes_2017.build(PERCEPTRON).eval()
    images, labels = g17_shape("mnist", 12)
    images, own = images.numpy(), models.predict(model, images)
    found = networks_2017.signs_of(model, images, labels, networks_2017.OWN)
    assert np.array_equal(found, networks_2017.signs_of(model, images, own, networks_2017.TRUE))
    wrong = own != labels
    assert wrong.any()
    assert not np.array_equal(found[wrong], networks_2017.signs_of(model, images, labels, networks_2017.TRUE)[wrong])


def test_neighbours_agree_in_stripes_and_not_by_chance():
    stripes = np.tile(np.int8([1, 1, -1, -1]), 8)[None, None, None].repeat(16, axis=2)
    assert networks_2017.neighbours_agree(stripes) == pytest.approx(1 / 31)
    assert networks_2017.neighbours_agree(np.ones((1, 1, 4, 4), np.int8)) == 1
    chance = np.random.default_rng(0).choice(np.int8([-1, 0, 1]), (4, 1, 100, 100))
    assert abs(networks_2017.neighbours_agree(chance)) < 0.03
    assert networks_2017.neighbours_agree(np.zeros((1, 1, 4, 4), np.int8)) == 0


def test_lines_are_mean_ratios_of_channels_and_coin_flips_keep_the_unmoved_pixels(monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.random((40, 3, 6, 6), dtype=np.float32), rng.integers(0, 10, 40)
    monkeypatch.setattr(networks_2017.g17, "test_images", lambda image_set, count: (images, labels))
    bench = networks_2017.Bench("cifar10", draws=3, batch_size=20)
    signs = rng.choice(np.int8([-1, 0, 1]), images.shape)
    lines = {(line["row"], line["epsilon"]): line for line in bench.lines(signs)}
    assert set(lines) == {(row, e) for row in g17.TABLE1 if row.startswith("CIFAR-10 (") for e in networks_2017.EPSILONS
                          if "grey" not in row}  # fmt: skip
    red, blue = (lines[f"CIFAR-10 ({name})", 0.3] for name in ("red", "blue"))
    a, b = bench._draws
    clean = images[:, 2].reshape(40, -1)
    direct = protocol.mean_ratios(clean, clean + np.float32(0.3) * signs[:, 2].reshape(40, -1), a, b, "unsquared")
    assert blue["r1"] == pytest.approx(direct.mean()) and blue["zero_share"] == np.mean(signs[:, 2] == 0)
    channels = [lines[f"CIFAR-10 ({name})", 0.3]["r1"] for name in ("red", "green", "blue")]
    assert lines[networks_2017.COMBINED, 0.3]["r1"] == pytest.approx(np.mean(channels))
    assert red["r1_low"] < red["r1"] < red["r1_high"] and red["coin_flips"] != red["r1"]
    still = bench.lines(np.zeros_like(signs))
    assert all(line["coin_flips"] == pytest.approx(line["r1"]) for line in still), "nothing moves, by coin or gradient"


# ---------------------------------------------------------------------------------------------- the criterion


def made_up(changes):
    """A study in which all variants give the printed R1 to the digit, but for `changes` {(variant, row, ε): factor}."""
    lines, spread = [], []
    for row in g17.TABLE1:
        for epsilon in networks_2017.EPSILONS:
            printed = published.value("g17", "Table 1", row, f"R1 eps={epsilon:g}")
            spread.append({"row": row, "epsilon": epsilon, "low": printed, "high": 1.2 * printed, "seeds": [0, 1]})
            for variant in ("one", networks_2017.ADAM):
                r1 = printed * changes.get((variant, row, epsilon), 1 if variant == "one" else 2)
                lines.append({
                    "variant": variant, "attack": networks_2017.TRUE, "row": row, "epsilon": epsilon, "accuracy": 0.9,
                    "zero_share": 0.1, "neighbours_agree": 0, "r1": r1, "r1_low": r1, "r1_high": r1, "coin_flips": r1,
                })  # fmt: skip
    return {"lines": lines, "spread": spread}


def test_both_small_sizes_must_hit_and_the_plateau_counts_for_nothing():
    changes = {("one", "MNIST", 0.1): 1.15, ("one", "CIFAR-10 (red)", 0.3): 1.3, ("one", "CIFAR-10 (grey)", 1.0): 9}
    table = networks_2017.rows(made_up(changes))
    one = table.xs("one", level="variant").droplevel("attack")
    expected = {row: row not in ("MNIST", "CIFAR-10 (red)") for row in g17.TABLE1 if row != networks_2017.COMBINED}
    assert one.in_intervals.to_dict() == expected, "one hit of two is none"
    assert one.within_spread["MNIST"] and not one.within_spread["CIFAR-10 (red)"]
    assert one.off["MNIST"] == pytest.approx(0.15) and one.off["CIFAR-10 (grey)"] == pytest.approx(0)
    assert not table.xs(networks_2017.ADAM, level="variant").in_intervals.any()


def test_verdicts_name_the_variants_that_match_and_say_when_none_does():
    whole, lower, coins = networks_2017.verdicts(made_up({}))
    table = networks_2017.nearest(made_up({}))
    assert len(table) == 5 and (table["in the printed intervals"] == "one").all()
    assert (table["nearest"] == "one").all() and (table["which is off by up to"] == "0%").all()
    assert whole == "In all 5 rows: one."
    assert lower.endswith("in 5 cases.") and coins.startswith("In 5 of them coin flips")
    assert networks_2017.called("one", networks_2017.DROPOUT) == "one (dropout on)"
    changes = {("one", row, 0.1): 3 for row in g17.TABLE1}
    whole, *_ = networks_2017.verdicts(made_up(changes))
    assert set(networks_2017.nearest(made_up(changes))["in the printed intervals"]) == {"none"}
    assert whole == "No recipe agrees in all 5 rows; the best one agrees in 0."


# ---------------------------------------------------------------------------------------------- the stored record


def test_the_stored_study_is_of_these_networks():
    found = networks_2017.stored()
    assert json.loads((places.REFERENCE / networks_2017.STORED).read_text(encoding="utf-8")) == found
    cards = {card["image_set"] + card["name"]: card for card in found["networks"]}
    for network in recipes_2017.NETWORKS:
        card = cards[network.image_set + network.name]
        assert {key: card[key] for key in recipes_2017.description(network)} == recipes_2017.description(network)
        assert len(card["sha256"]) == 64 and 0.1 < card["accuracy"] < 1
    assert len({card["sha256"] for card in found["networks"]}) == len(recipes_2017.NETWORKS)
    lines = networks_2017.judged(found)
    assert not lines.duplicated(["variant", "attack", "row", "epsilon"]).any()
    assert set(lines.epsilon) == set(networks_2017.EPSILONS) and set(lines.row) == set(g17.TABLE1)
    assert (lines.r1_low <= lines.r1).all() and (lines.r1 <= lines.r1_high).all()
    assert lines.zero_share.between(0, 1).all() and set(lines.attack) == {
        networks_2017.TRUE, networks_2017.OWN, networks_2017.DROPOUT
    }  # fmt: skip
    assert found["settings"]["draws"] >= 30 and all(len(entry["seeds"]) > 1 for entry in found["spread"])


def test_the_stored_study_is_shown():
    found = networks_2017.stored()
    assert len(networks_2017.verdicts(found)) == 3 and len(networks_2017.nearest(found)) == 5
    first, *others = figures.networks_2017(networks_2017.judged(found)).axes
    assert len(others) == 4 and len(first.get_yticks()) == networks_2017.counts(found)["recipes"]
    assert (places.REFERENCE / networks_2017.STORED).with_suffix(".png").is_file()
