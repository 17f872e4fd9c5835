"""G17 §5: what the sentences are judged by, distances against brute force, and the searches on a small stand-in."""

from collections import Counter

import numpy as np
import pandas
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn

from advlib.ulsif import ULSIF
from compendium.claims import record, verdicts
from compendium.common import g17, tables
from compendium.nb06_crafting import judge, measure, search


def curve(*rows: tuple[float, float, float]) -> pandas.DataFrame:
    """Tolerance, ε and accuracy a row, as from `measure.curves`."""
    frame = pandas.DataFrame(rows, columns=["tolerance", "epsilon", "accuracy"])
    return frame.assign(**{"clean accuracy": 1.0, "AUROC": 0.5})


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
    return measure.Setting("MNIST", mode, 3, 20, model.eval(), images[:60], labels[:60], images)


SMALL = {"epsilon": 0.3, "step": 0.1}


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
    gaps = measure.clipped_and_unclipped(setting, [0.0, 0.3], np.random.default_rng(0))
    start = gaps[gaps["epsilon"] == 0]
    assert len(start) == 2 and (start["difference"] == 0).all() and (start["accuracy"] == 1).all()
    # At ε = 0 all that is left is that the attacked images are half of the numerators.
    assert start["distance"].values == pytest.approx(1, abs=0.02)
    distance = gaps.set_index(["FGSM", "epsilon"])["distance"]
    assert distance[measure.CLIPPED, 0.3] < distance[measure.NOT_CLIPPED, 0.3]
    assert list(gaps["epsilon"]) == [0.0, 0.3] * 2


def test_curves_and_searches_are_the_engines(setting):
    found = measure.curves([setting], [0.1, 1e6], rng=np.random.default_rng(3), **SMALL)
    direct = search.fgsm_under_tolerance(
        setting.defender(np.random.default_rng(3)), [0.1, 1e6], initial_epsilon=0.3, step=0.1, resolution=0.02
    )
    assert list(found["epsilon"]) == [r.epsilon for r in direct] and set(found["setting"]) == {"MNIST, corrected"}
    outcomes = measure.searches(setting, [1e6], repeats=2, rng=np.random.default_rng(4), **SMALL)
    assert list(outcomes["search"].unique()) == ["monotone", "fixed step", "fixed step, new draws"]
    assert len(outcomes) == 6 and (outcomes["ε"] == 0.3).all() and (outcomes["attacks"] == 1).all()
    never = measure.searches(setting, [0.0], repeats=2, rng=np.random.default_rng(4), **SMALL)
    never = never[never["search"] == measure.BISECTION].assign(search="never")
    assert never["ε"].isna().all() and (never["attacks"] > 1).all()
    both = pandas.concat([outcomes, never])
    assert measure.never_smaller(both, "monotone", "never") and not measure.never_smaller(both, "never", "monotone")
    frame = measure.searches_frame(both)
    assert list(frame.index) == [(name, 1e6) for name in outcomes["search"].unique()] + [("never", 0.0)]
    assert frame.iloc[-1]["ε found"] == "none" and frame.iloc[-1]["without an answer"] == "2 of 2"


def test_attackers_meet_at_the_same_tolerance(setting):
    options = SMALL | {"steps": 3, "searches": 1}
    compared = measure.attackers([setting], [1e6], rng=np.random.default_rng(5), **options)
    fgsm, pgd = compared.loc[("MNIST, corrected", 1e6), "result"]
    assert fgsm.gap <= 1e6 and pgd.gap <= 1e6 and fgsm.epsilon == 0.3
    frame = measure.attackers_frame(compared)
    assert len(frame) == 2 and (frame["largest change"] <= 0.3 + 1e-6).all()
    assert list(frame["weight w it ended with"]) == ["–", f"{pgd.weight:.3g}"]
    assert measure.without_detector(compared).endswith(f"in {int(pgd.weight == 0)} of 1 rows")
    labels, rows = measure.example_rows(setting, compared, 4)
    assert len(rows) == 3 and all(images.shape == (4, 1, 6, 6) for _, images, _ in rows)
    assert np.array_equal(rows[0][2], labels)  # those that are read rightly


@pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")
def test_usual_pairs_are_those_of_single_fits(setting):
    lines = measure.usual_pairs(setting, [0.0, 0.3], np.random.default_rng(6))
    again = np.random.default_rng(6)
    a, b = ([again.choice(n, 20, replace=False) for _ in range(3)] for n in (120, 60))
    clean, attacked = setting.numerators.reshape(120, -1), setting.images.reshape(60, -1)
    fits = [ULSIF(kernel="gaussian").fit(clean[i], attacked[j]) for i, j in zip(a, b, strict=True)]
    pairs = Counter((fit.sigma_, fit.lambda_) for fit in fits)
    (sigma, lambda_), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
    assert lines[0] == f"ε = 0: σ = {sigma:.2g}, λ = {lambda_:.2g} in {count} of 3 draws"
    assert len(lines) == 2 and lines[1].startswith("ε = 0.3: ")


@pytest.mark.parametrize(
    ("accuracies", "fooled", "risen"), [((0.5, 0.4), True, 0.1), ((0.51, 0.0), False, 0.51), ((0.0, 0.0), True, 0.0)]
)
def test_words_of_the_sentences(accuracies, fooled, risen):
    found = curve((5.0, 0.3, accuracies[1]), (0.05, 0.1, accuracies[0]))
    assert judge.fools(found.iloc[1]) is fooled
    assert judge.rise(found) == pytest.approx(risen)
    assert judge.falls(found)
    assert not judge.falls(curve((5.0, 0.1, 0), (0.05, 0.1, 0)))
    assert not judge.falls(curve((0.05, 0.1, 0), (1.0, 0.05, 0), (5.0, 0.2, 0)))


SETTINGS = [(title, mode.name) for title in measure.IMAGE_SETS for mode in g17.MODES]


def test_a_sentence_needs_one_data_set_in_both_modes():
    def verdict(*true):
        found = judge.over_image_sets({key: key in true for key in SETTINGS}, dict.fromkeys(SETTINGS, ""))
        return verdicts.verdict(found.holds)

    published, corrected, other_published, other_corrected = SETTINGS
    assert verdict() == "not reproduced"
    assert verdict(published) == "reproduced as published only"
    assert verdict(published, other_corrected) == "reproduced as published only"
    assert verdict(corrected) == "not reproduced"
    assert verdict(other_published, other_corrected) == "reproduced"


def test_record_holds_every_sentence_of_section_5():
    run = record.Run("06_crafting", {"profile": "quick", "seed": 0})
    found = [
        curve((5.0, 0.3, 0.05), (0.05, 0.1, 0.9 if (title, mode) == SETTINGS[0] else 0.1)).assign(
            **{"image set": title, "mode": mode, "setting": f"{title}, {mode}"}
        )
        for title, mode in SETTINGS
    ]
    judge.record_curves(run, pandas.concat(found))
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


def test_record_keeps_what_both_attackers_reach():
    run = record.Run("06_crafting", {"profile": "quick", "seed": 0})
    rows = [("MNIST, corrected", 0.05, attacker, 0.9, 0.6, 0.1) for attacker in ("Algorithm 2", "gradient steps")]
    columns = ["setting", "τ", "attacker", "accuracy", "AUROC", "power at 5 % false alarms"]
    judge.record_attackers(run, pandas.DataFrame(rows, columns=columns).set_index(columns[:3]))
    assert run.metrics["attackers.MNIST, corrected.tolerance=0.05.knowing.accuracy"] == 0.9
    assert run.metrics["attackers.MNIST, corrected.tolerance=0.05.algorithm2.tpr_at_5_fpr"] == 0.1
