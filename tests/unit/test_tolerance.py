"""G17 §5: what the sentences are judged by, distances against brute force, and the searches on a small stand-in."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn

from advlib.ulsif import ULSIF
from compendium.claims import record
from compendium.common import g17, tables
from compendium.nb06_crafting import measure, search
from compendium.nb06_crafting.search import CraftingResult


def result(tau: float, epsilon: float, accuracy: float) -> CraftingResult:
    ratios = np.array([1.0, 1.1])
    return CraftingResult(tau, epsilon, ratios, ratios, 0.0, 1.0, accuracy, ())


@pytest.fixture(scope="module")
def setting():
    """Give a stand-in: noisy squares of two sizes and a linear network that tells them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    images = 0.15 * rng.random((120, 1, 6, 6)).astype(np.float32)
    images[labels == 1, :, 1:5, 1:5] += 0.5
    images[labels == 0, :, 2:4, 2:4] += 0.5
    weight = np.zeros((2, 1, 6, 6), np.float32)
    weight[1, :, 1:5, 1:5] = 1
    weight[1, :, 2:4, 2:4] = 0
    weight[0] = 0.05
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=True))
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(weight.reshape(2, 36)))
        model[1].bias.copy_(torch.tensor([3.0, 0.0]))
    mode = g17.Mode("corrected", "gaussian", (0.0, 1.0), {})
    return measure.Setting("MNIST", mode, model.eval(), images[:60], labels[:60], images)


SMALL = {"epsilon": 0.3, "step": 0.1, "draws": 3, "batch_size": 20}


def test_relative_distance_is_that_of_all_pairs():
    rng = np.random.default_rng(1)
    clean, moved = rng.random((30, 1, 4, 4)), 0.8 * rng.random((25, 1, 4, 4)) + 0.3
    pairs = cdist(clean.reshape(30, -1), moved.reshape(25, -1), "sqeuclidean").mean()
    own = cdist(clean.reshape(30, -1), clean.reshape(30, -1), "sqeuclidean").mean()  # with itself, as in Algorithm 1
    assert measure.relative_distance(clean, moved) == pytest.approx(pairs / own)
    assert measure.relative_distance(clean, clean) == pytest.approx(1)


def test_moves_towards_the_middle_bring_images_nearer_and_others_do_not():
    rng = np.random.default_rng(2)
    clean = rng.integers(0, 2, (200, 1, 5, 5)).astype(float)  # black and white, as digits nearly are
    step = 0.1 * rng.choice([-1.0, 1.0], clean.shape)
    assert measure.relative_distance(clean, (clean + step).clip(0, 1)) < 0.99
    assert measure.relative_distance(clean, clean + step) > 1.01


def test_both_curves_see_the_same_draws_and_start_at_no_difference(setting):
    curves = measure.clipped_and_unclipped(setting, [0.0, 0.3], draws=3, batch_size=20, rng=np.random.default_rng(0))
    for curve in curves:
        assert curve.differences[0] == 0 and curve.accuracies[0] == 1
        # At ε = 0 all that is left is that the attacked images are half of the numerators.
        assert curve.distances[0] == pytest.approx(1, abs=0.02)
    clipped, free = curves
    assert clipped.distances[1] < free.distances[1]
    assert list(clipped.epsilons) == [0.0, 0.3]


@pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")  # of the engine called directly
def test_curves_and_searches_are_the_engines(setting):
    found = measure.curves([setting], [0.1, 1e6], rng=np.random.default_rng(3), **SMALL)
    direct = search.tolerance_curve(
        setting.model, setting.images, setting.labels, tolerances=[0.1, 1e6], initial_epsilon=0.3, step=0.1,
        resolution=0.02, **setting.options(3, 20, np.random.default_rng(3)),
    )  # fmt: skip
    assert [r.epsilon for r in found["MNIST, corrected"]] == [r.epsilon for r in direct]
    outcomes = measure.searches(setting, [1e6], repeats=2, rng=np.random.default_rng(4), **SMALL)
    assert [o.search for o in outcomes] == ["monotone", "fixed step", "fixed step, new draws"]
    assert all(np.array_equal(o.epsilons, [0.3, 0.3]) and np.array_equal(o.attacks, [1, 1]) for o in outcomes)
    (never, *_) = measure.searches(setting, [0.0], repeats=2, rng=np.random.default_rng(4), **SMALL)
    assert np.isnan(never.epsilons).all() and (never.attacks > 1).all()
    assert measure.never_smaller(outcomes[0], never) and not measure.never_smaller(never, outcomes[0])
    frame = measure.searches_frame([never])
    assert frame.iloc[0]["ε found"] == "none" and frame.iloc[0]["without an answer"] == "2 of 2"


def test_attackers_meet_at_the_same_tolerance(setting):
    options = SMALL | {"steps": 3, "searches": 1}
    compared = measure.attackers([setting], [1e6], rng=np.random.default_rng(5), **options)
    (row,) = compared["MNIST, corrected"]
    assert row.fgsm.gap <= 1e6 and row.pgd.gap <= 1e6 and row.fgsm.epsilon == 0.3
    frame = measure.attackers_frame([setting], compared)
    assert len(frame) == 2 and (frame["largest change"] <= 0.3 + 1e-6).all()
    assert list(frame["weight w it ended with"]) == ["–", f"{row.pgd.penalty:.3g}"]
    assert measure.without_detector(compared).endswith(f"in {int(row.pgd.penalty == 0)} of 1 rows")
    labels, rows = measure.example_rows(setting, row, 4)
    assert len(rows) == 3 and all(images.shape == (4, 1, 6, 6) for _, images, _ in rows)
    assert np.array_equal(rows[0][2], labels)  # those that are read rightly


@pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")
def test_usual_pairs_are_those_of_single_fits(setting):
    lines = measure.usual_pairs(setting, [0.0, 0.3], draws=4, batch_size=20, rng=np.random.default_rng(6))
    again = np.random.default_rng(6)
    a, b = ([again.choice(n, 20, replace=False) for _ in range(4)] for n in (120, 60))
    clean, attacked = setting.numerators.reshape(120, -1), setting.images.reshape(60, -1)
    fits = [ULSIF(kernel="gaussian").fit(clean[i], attacked[j]) for i, j in zip(a, b, strict=True)]
    pairs = Counter((fit.sigma_, fit.lambda_) for fit in fits)
    (sigma, lambda_), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
    assert lines[0] == f"ε = 0: σ = {sigma:.2g}, λ = {lambda_:.2g} in {count} of 4 draws"
    assert len(lines) == 2 and lines[1].startswith("ε = 0.3: ")


@pytest.mark.parametrize(
    ("accuracies", "fooled", "risen"), [((0.5, 0.4), True, 0.1), ((0.51, 0.0), False, 0.51), ((0.0, 0.0), True, 0.0)]
)
def test_words_of_the_sentences(accuracies, fooled, risen):
    curve = [result(5.0, 0.3, accuracies[1]), result(0.05, 0.1, accuracies[0])]
    assert measure.fools(curve[1]) is fooled
    assert measure.rise(curve) == pytest.approx(risen)
    assert measure.falls(curve)
    assert not measure.falls([result(5.0, 0.1, 0), result(0.05, 0.1, 0)])
    assert not measure.falls([result(0.05, 0.1, 0), result(1.0, 0.05, 0), result(5.0, 0.2, 0)])


def names():
    return [f"{title}, {mode.name}" for title in measure.IMAGE_SETS for mode in g17.MODES]


def test_a_sentence_needs_one_data_set_in_both_modes():
    published, corrected, other_published, other_corrected = names()
    nowhere = dict.fromkeys(names(), False)
    assert measure.judge(nowhere) == "not reproduced"
    assert measure.judge(nowhere | {published: True}) == "reproduced as published only"
    assert measure.judge(nowhere | {published: True, other_corrected: True}) == "reproduced as published only"
    assert measure.judge(nowhere | {corrected: True}) == "not reproduced"
    assert measure.judge(nowhere | {other_published: True, other_corrected: True}) == "reproduced"


def test_record_holds_every_sentence_of_section_5():
    run = record.Run("06_crafting", {"profile": "quick", "seed": 0})
    found = {name: [result(5.0, 0.3, 0.05), result(0.05, 0.1, 0.1)] for name in names()}
    found[names()[0]] = [result(5.0, 0.3, 0.05), result(0.05, 0.1, 0.9)]
    measure.record_curves(run, found)
    frame = tables.claims_frame(run)
    assert list(frame.index) == ["tolerance-lowers-eps", "accuracy-rises-little", "tolerance-0.05-fools-model"]
    assert set(frame["verdict"]) == {"reproduced"}
    text = tables.wrapped(frame, "claims").to_html()
    assert frame["cause"].iloc[2] in text and text == tables.wrapped(frame, "claims").to_html()
    assert "not so for MNIST, as published" in frame.loc["tolerance-0.05-fools-model", "cause"]
    assert frame.loc["tolerance-0.05-fools-model", "cause"].startswith("in both modes on CIFAR-10 (grey) only; ")
    assert frame.loc["tolerance-lowers-eps", "cause"].startswith("in both modes on MNIST and CIFAR-10 (grey); ")
    # The plain text is the whole table, and no address.
    assert frame["cause"].iloc[2] in repr(tables.wrapped(frame, "claims"))
    assert " at 0x" not in repr(tables.wrapped(frame, "claims"))
    assert run.metrics["MNIST, as published.tolerance=0.05.accuracy"] == 0.9
    row = SimpleNamespace(
        tolerance=0.05, fgsm=found[names()[0]][0], pgd=found[names()[0]][1],
        fgsm_defended=found[names()[0]][0].comparison, pgd_defended=found[names()[0]][0].comparison,
    )  # fmt: skip
    measure.record_attackers(run, {"MNIST, corrected": [row]})
    assert run.metrics["attackers.MNIST, corrected.tolerance=0.05.knowing.accuracy"] == 0.9
