"""14: attacks keep bounds, thresholds their level, worst cases are the worst, attackers hide from what they know."""

import json
import math

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from advlib.detectors.aim import changes
from compendium.nb14_league import adaptive, attacks, detectors, device, draw, images, measure, stored
from compendium.nb14_league.attacks import Effort

RNG = np.random.default_rng(0)


class Small(nn.Module):
    """A linear network with a hidden layer, like the library's."""

    def __init__(self, channels=1, side=12):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner = nn.Linear(channels * side**2, 16)
        self.inner.weight.data = torch.randn(16, channels * side**2, generator=generator) / 4
        self.head = nn.Linear(16, 4)
        self.head.weight.data = torch.randn(4, 16, generator=generator)
        self.eval().requires_grad_(False)

    def features(self, x):
        return self.inner(x.flatten(1) - 0.5).relu()

    def forward(self, x):
        return self.head(self.features(x))


def pictures(n=40, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    coarse = changes.field(torch.zeros(n, channels, 12, 12), rng, channels, 4)
    fine = torch.from_numpy(rng.standard_normal((n, channels, 12, 12)).astype(np.float32))
    return changes.rounded(0.5 + 0.15 * coarse + 0.05 * fine)


MODEL = Small()
IMAGES = pictures()
LABELS = MODEL(IMAGES).argmax(1)
CATALOGUE = attacks.catalogue(Effort(steps=6, search=8, queries=120))
BOUNDED = [name for name, (_, slow) in CATALOGUE.items() if not slow and name not in measure.FREE]


@pytest.mark.parametrize("name", BOUNDED)
def test_an_attack_with_a_bound_keeps_it_and_turns_answers(name):
    found = attacks.craft(CATALOGUE[name][0], MODEL, IMAGES, LABELS, 0.1, np.random.default_rng(1))
    assert found.tried == 40 and found.success > 0.2, found.success
    change = (found.images - IMAGES[found.rows]).abs().max()
    assert change <= 0.1 + 0.5 / 255 + 1e-6
    assert (MODEL(found.images).argmax(1) != LABELS[found.rows]).all()
    assert torch.equal(found.images, changes.rounded(found.images))


@pytest.mark.parametrize("name", ["spatial", "DeepFool", "C&W", "boundary"])
def test_an_attack_without_a_bound_turns_answers(name):
    found = attacks.craft(CATALOGUE[name][0], MODEL, IMAGES, LABELS, 0.1, np.random.default_rng(1))
    assert found.success > 0.2 and found.images.min() >= 0 and found.images.max() <= 1


def test_more_effort_turns_more_and_the_ensemble_is_its_parts_together():
    def crafted(name, epsilon):
        return attacks.craft(CATALOGUE[name][0], MODEL, IMAGES, LABELS, epsilon, np.random.default_rng(1))

    weak, strong = crafted("APGD, cross-entropy", 0.02), crafted("APGD, cross-entropy", 0.1)
    assert weak.success < strong.success
    parts = [weak, crafted("Square", 0.1)]
    both = attacks.ensemble(parts, IMAGES)
    assert set(both.rows.tolist()) == set(parts[0].rows.tolist()) | set(parts[1].rows.tolist())
    assert torch.equal(both.images[np.isin(both.rows, weak.rows)], weak.images)
    nothing = attacks.ensemble([attacks.measured(IMAGES[:0], IMAGES, torch.zeros(0, dtype=torch.long), 40)], IMAGES)
    assert nothing.success == 0 and len(nothing.images) == 0


def test_dlr_does_not_depend_on_the_scale_of_logits():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5).repeat(2)[:6]
    assert torch.allclose(
        attacks.difference_of_logits(logits, labels), attacks.difference_of_logits(100 * logits, labels), atol=1e-4
    )


@pytest.mark.parametrize("what", ["texture", "scales", "hidden layer"])
def test_an_attacker_who_knows_hides_better(what):
    penalty = adaptive.penalties(MODEL, IMAGES, LABELS, pictures(80, seed=3), None)[what]
    options = {"steps": 24, "restarts": 1}
    knowing = adaptive.evade(MODEL, IMAGES, LABELS, 0.2, np.random.default_rng(0), penalty, **options)
    blind = adaptive.evade(MODEL, IMAGES, LABELS, 0.2, np.random.default_rng(0), lambda x: 0 * penalty(x), **options)
    turned = [MODEL(moved).argmax(1) != LABELS for moved in (knowing, blind)]
    both = turned[0] & turned[1]
    assert turned[0].float().mean() > 0.8 and (knowing - IMAGES).abs().max() <= 0.2 + 1 / 255
    assert penalty(knowing)[both].median() < penalty(blind)[both].median()


def test_soft_texture_is_the_texture_with_slopes():
    """Both order the same images alike: the share of small differences falls with noise."""
    rng = np.random.default_rng(0)
    noisy = [changes.make(IMAGES, "white noise", size, rng) for size in (0.02, 0.1)]
    levels = [adaptive.soft_texture(moved).mean().item() for moved in (IMAGES, *noisy)]
    assert levels[0] > levels[1] > levels[2]


@pytest.mark.parametrize("two_sided", [True, False])
def test_clean_batches_are_flagged_at_the_level(two_sided):
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found.append(measure.flagged(rng.normal(size=(99, 1)), rng.normal(size=(50, 1)), two_sided, rng))
    assert np.mean(found) == pytest.approx(0.05 if not two_sided else 0.04, abs=0.006)
    high = measure.flagged(RNG.normal(size=(99, 1)), RNG.normal(size=(50, 1)) + 9, two_sided, RNG)
    low = measure.flagged(RNG.normal(size=(99, 1)), RNG.normal(size=(50, 1)) - 9, two_sided, RNG)
    assert high == 1 and low == (1 if two_sided else 0)
    shift = np.array([0, 0, 9])
    several = measure.flagged(RNG.normal(size=(99, 3)), RNG.normal(size=(50, 3)) + shift, True, RNG)
    assert several == 1


def test_batches_hold_no_image_twice():
    drawn = measure.batches(np.arange(100, 130), 25, 40, RNG)
    assert drawn.shape == (40, 25) and all(len(set(row)) == 25 for row in drawn.tolist())
    singles = measure.batches(np.arange(30), 1, 30, RNG)
    assert sorted(singles[:, 0].tolist()) == list(range(30))


def test_detectors_of_the_field_see_what_they_were_made_for():
    league = detectors.League(MODEL, pictures(300, seed=5), MODEL(pictures(300, seed=5)).argmax(1))
    clean, far = league.look(pictures(60, seed=6)), league.look(torch.rand(60, 1, 12, 12).round())
    for name in ("kernel density (Feinman 2017)", "Mahalanobis (Lee 2018)"):
        assert np.median(far.scores[name]) > np.median(clean.scores[name]), name
    rows = np.stack([RNG.choice(60, 20, replace=False) for _ in range(12)])
    for pool in (clean, far):
        pool.measured = detectors.measure(league, pool, {})
    here, there = (detectors.statistics(league, pool, pool.measured, rows) for pool in (clean, far))
    assert all(values.shape[0] == 12 and np.isfinite(values).all() for values, _ in here.values())
    for name in ("MMD · pixels", "energy · pixels", "LSDD · pixels"):
        assert there[name][0].min() > here[name][0].max(), name


def test_a_league_is_measured_pool_by_pool_until_time_is_up(monkeypatch):
    scale = measure.Scale(
        halves=2, clean=19, draws=10, checked=16, images=40, slow=8, changed=20, evading=20, learned=24, calibrated=24,
        permutations=39, batches=(1, 5), attacks=("PGD", "knows aim", "C&W"), effort=Effort(2, 2, 20),
    )  # fmt: skip
    parts = [pictures(seed=seed) for seed in range(4)]
    reference, calibration, test, foreign = parts
    drawn = images.Images(reference, MODEL(reference).argmax(1), calibration, test, MODEL(test).argmax(1), foreign)
    setting = measure.prepare(drawn, MODEL, None, (0.1, 0.2), scale)
    written = []
    asked, rank = [], measure.AimTest.p_values

    def spied(test, measured, batches):
        asked.append(batches.shape)
        return rank(test, measured, batches)

    monkeypatch.setattr(measure.AimTest, "p_values", spied)
    result = measure.run(setting, lambda so_far: written.append(len(so_far["pools"])), math.inf)
    assert written[:-1] == list(range(1, len(result["pools"]) + 1)) and not result["failed"]
    assert {"nothing", "PGD-2, ε = 0.1", "knows aim, ε = 0.2", "blur 0.08", "C&W"} <= set(result["pools"])
    assert "FGSM, ε = 0.2" in result["left out"]
    flagged = result["flagged"]
    assert set(flagged["density · pixels"]["5"]) >= {"nothing", "PGD-2, ε = 0.2"}
    # Of changes *aimed* is asked about sixteen batches over both halves, of attacks about ten of each.
    assert asked[:2] == [(16, 1), (16, 5)] and {(20, 1), (20, 5)} <= set(asked)
    assert set(flagged[stored.LEFT_OUT]["1"]) == {pool for pool, about in result["pools"].items() if "family" in about}
    late = measure.run(setting, written.append, 0.0)
    assert late["pools"] == {} and set(late["not reached"]) == set(result["pools"])


def toy_league():
    pools = {
        "nothing": {"kind": "change"}, "PGD": {"kind": "attack", "success": 0.9}, "C&W": {"kind": "attack"},
        "blur 0.1": {"kind": "change", "family": "blur", "images": 9}, "knows aim": {"kind": "adaptive"},
    }  # fmt: skip
    shares = {"nothing": [0.0], "PGD": [1.0, 0.8], "C&W": [0.2, 0.4], "blur 0.1": [0.1, 0.1], "knows aim": [0.5]}
    return {"mnist": {"pools": pools, "flagged": {stored.AIM: {"25": shares}, "density · pixels": {"25": shares}}}}


def test_the_worst_case_is_the_least_flagged_attack_and_the_most_flagged_change():
    table = stored.frame(toy_league())
    row = stored.worst(table).iloc[0]
    assert (row["attack"], row["attack pool"]) == (pytest.approx(0.3), "C&W")
    assert (row["change"], row["change pool"]) == (0.1, "blur 0.1") and row["adaptive"] == 0.5
    assert set(table[table.kind == "odd"].pool) == {"nothing"}
    assert stored.separating(stored.worst(table), 25) == {stored.AIM: ["MNIST"], "density · pixels": ["MNIST"]}
    assert stored.separating(stored.worst(table).assign(change=0.4), 25) == {}
    assert stored.metrics(table)[f"MNIST.{stored.AIM}.25.attack"] == 0.3
    assert len(stored.summary(stored.worst(table), 25)) == 1
    figure = draw.worst_cases(stored.worst(table), 25)
    assert [axis.get_title() for axis in figure.axes] == ["MNIST"]


@pytest.mark.parametrize("name", images.PLANS)
def test_half_the_images_of_a_change_make_a_batch_of_25(name):
    scale = device.SCALES["core"][name]
    rng = np.random.default_rng(0)
    halves = [rng.permutation(scale.images)[: scale.images // 2] for _ in range(scale.halves)]
    assert min((half < scale.changed).sum() for half in halves) >= 25
    assert min((half < scale.evading).sum() for half in halves) >= 25


def test_levels_count_changes_alone():
    league = toy_league()
    league["mnist"]["checked"] = 1000
    league["mnist"]["flagged"][stored.LEFT_OUT] = {"25": {"blur 0.1": [0.3]}}
    (row,) = stored.levels(stored.frame(league), league).to_dict("records")
    assert row["changes"] == 1 and row["largest"] == row["median"] == pytest.approx(0.1) and row["which"] == "blur 0.1"
    assert row["largest, family left out"] == pytest.approx(0.3) and row["batches"] == 1000


def test_the_stored_league_is_whole():
    league = stored.read()
    table = stored.frame(league)
    assert set(league) <= set(images.PLANS) and league and table.flagged.between(0, 1).all()
    for name, result in league.items():
        assert not result["failed"], name
        assert set(result["flagged"]["density · pixels"]["25"]) <= set(result["pools"])
    known = json.loads(stored.record.reference_path(stored.NOTEBOOK, "paper").read_text(encoding="utf-8"))["metrics"]
    assert {name: known[name] for name in stored.metrics(table)} == stored.metrics(table)
    assert isinstance(stored.summary(stored.worst(table), 25), pandas.DataFrame)


def test_joined_files_are_one(tmp_path):
    for name in ("mnist", "cifar10"):
        (tmp_path / f"league_{name}.json").write_text(json.dumps({"set": name}))
        np.savez(tmp_path / f"looks_{name}.npz", PGD=np.ones(3))
    whole = json.loads(device.join(tmp_path).read_text(encoding="utf-8"))
    assert list(whole) == ["mnist", "cifar10"] and not list(tmp_path.glob("league_*"))
    assert set(np.load(tmp_path / "looks.npz").files) == {"mnist|PGD", "cifar10|PGD"}
