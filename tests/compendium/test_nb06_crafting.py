"""G17 §5: what the sentences are judged by, distances against brute force, and the searches on a small stand-in."""

from collections import Counter

import numpy as np
import pandas
import pytest
import torch
from judging import AGREES, says
from scipy.spatial.distance import cdist, pdist
from torch import nn

from advlib.ulsif import ULSIF
from compendium.claims import record
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
    assert list(outcomes["search"].unique()) == [measure.BISECTION, "fixed step", "fixed step, new draws"]
    assert len(outcomes) == 6 and (outcomes["ε"] == 0.3).all() and (outcomes["attacks"] == 1).all()
    never = measure.searches(setting, [0.0], repeats=2, rng=np.random.default_rng(4), **SMALL)
    never = never[never["search"] == measure.BISECTION].assign(search="never")
    assert never["ε"].isna().all() and (never["attacks"] > 1).all()
    both = pandas.concat([outcomes, never])
    assert measure.never_smaller(both, measure.BISECTION, "never")
    assert not measure.never_smaller(both, "never", measure.BISECTION)
    frame = measure.searches_frame(both)
    assert list(frame.index) == [(name, 1e6) for name in outcomes["search"].unique()] + [("never", 0.0)]
    assert frame.iloc[0]["ε found"] == "0.300"  # one value, where all repeats agree
    assert frame.iloc[-1]["ε found"] == "none" and frame.iloc[-1]["without an answer"] == "2 of 2"


def test_attackers_meet_at_the_same_tolerance(setting):
    options = SMALL | {"steps": 3, "searches": 1}
    compared = measure.attackers([setting], [1e6], rng=np.random.default_rng(5), **options)
    fgsm, pgd = compared.loc[("MNIST, corrected", 1e6), "result"]
    assert fgsm.gap <= 1e6 and pgd.gap <= 1e6 and fgsm.epsilon == 0.3
    frame = measure.attackers_frame(compared)
    assert len(frame) == 2 and (frame["largest change"] <= 0.3 + 1e-6).all()
    assert list(frame["weight w it ended with"]) == ["–", f"{pgd.weight:.2g}"]
    assert measure.without_detector(compared).endswith(f"in {int(pgd.weight == 0)} of 1 rows of gradient steps")
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


def test_energy_distance_is_that_of_all_pairs_and_0_in_the_mean_without_a_difference():
    rng = np.random.default_rng(7)
    clean, moved = rng.random((40, 1, 3, 3)), rng.random((30, 1, 3, 3)) + 0.2
    a, b = (np.stack([rng.choice(n, 12, replace=False) for _ in range(3)]) for n in (40, 30))
    for t, found in enumerate(measure.energy_distances(clean, moved, a, b)):
        x, y = clean[a[t]].reshape(12, -1), moved[b[t]].reshape(12, -1)
        within = [pdist(batch).mean() for batch in (x, y)]
        assert found == pytest.approx(2 * cdist(x, y).mean() - sum(within), rel=1e-6)
    same = rng.normal(size=(400, 1, 3, 3))
    a, b = (np.stack([rng.choice(400, 20, replace=False) for _ in range(300)]) for _ in range(2))
    found = measure.energy_distances(same, same, a, b)
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(300)


def test_order_agreement_counts_pairs_and_leaves_ties_out():
    assert measure.order_agreement([1, 2, 3, 4], [2, 3, 5, 9]) == 1
    assert measure.order_agreement([1, 2, 3, 4], [9, 5, 3, 2]) == -1
    assert measure.order_agreement([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert measure.order_agreement([1, 1, 2], [5, 7, 9]) == 1
    assert measure.order_agreement([1, 1, 1], [1, 2, 3]) == 0


def test_similarity_sees_the_search_and_the_energy(setting):
    found = measure.curves([setting], [0.1, 1e6], rng=np.random.default_rng(3), **SMALL)
    similar = measure.similarity([setting], found, rng=np.random.default_rng(4), **SMALL)
    assert similar["epsilon"].tolist() == pytest.approx([0.3, 0.2, 0.1, found["epsilon"].min()])
    assert similar["crafted"].tolist() == [False, False, False, True]
    assert similar["energy"][:3].is_monotonic_decreasing  # a smaller step is nearer
    frame = measure.similarity_frame(similar)
    assert frame["energy left"].item() == pytest.approx(similar["energy"].iloc[-1] / similar["energy"].iloc[0])
    assert -1 <= frame["agreement in order"].item() <= 1 and 0 <= frame["power"].item() <= 1


SETTINGS = [(title, mode.name) for title in measure.IMAGE_SETS for mode in g17.MODES]
GOOD = curve((5.0, 0.3, 0.06), (1.0, 0.2, 0.08), (0.05, 0.1, 0.1))


def outcomes(bad, other, mode="corrected"):
    """What the rule says of the sentences, if one setting has other curves than the rest."""
    run = record.Run("06_crafting", {"profile": "quick", "seed": 0})
    curves = [
        (other if key == bad else GOOD).assign(**{"image set": key[0], "mode": key[1], "setting": ", ".join(key)})
        for key in SETTINGS
    ]
    judge.record_curves(run, pandas.concat(curves))
    rows = ("tolerance-lowers-eps", "accuracy-rises-little", "tolerance-0.05-fools-model")
    return [says(run, row)[mode] == AGREES for row in rows]


@pytest.mark.parametrize("title", measure.IMAGE_SETS)
def test_sentences_of_section_5_must_hold_on_each_data_set(title):
    bad = (title, "corrected")
    assert outcomes(None, None) == [True] * 3
    same_epsilon = curve((5.0, 0.1, 0.06), (0.05, 0.1, 0.1))
    assert outcomes(bad, same_epsilon) == [False, True, True]
    assert outcomes(bad, same_epsilon, mode="as published") == [True] * 3
    # Accuracy rises by more, and half of it is not left yet.
    assert outcomes(bad, curve((5.0, 0.3, 0.06), (0.05, 0.1, 0.2))) == [True, False, False]
    # It does not rise, and the network is hardly fooled.
    assert outcomes(bad, curve((5.0, 0.3, 0.6), (0.05, 0.1, 0.6))) == [True, True, False]
    assert outcomes(bad, curve((5.0, 0.3, 0.5), (0.05, 0.1, 0.5))) == [True, True, True]


def similar(bad, gaps=(0.1, 1.0, 2.0), crafted=(0.1, 0.2)):
    """Energy distances 1, 2 and 3 over three ε in each setting, with other gaps, energy left and power in one."""
    lines = []
    for title, mode in SETTINGS:
        chosen = (gaps, crafted) if (title, mode) == bad else ((0.1, 1.0, 2.0), (0.1, 0.2))
        place = {"setting": f"{title}, {mode}", "image set": title, "mode": mode}
        for k in range(3):
            lines.append(place | {"epsilon": 0.1 * (k + 1), "crafted": False, "gap": chosen[0][k], "energy": k + 1.0,
                                  "power": 1.0})  # fmt: skip
        lines.append(place | {"epsilon": 0.05, "crafted": True, "gap": 0.05, "energy": 3 * chosen[1][0],
                              "power": chosen[1][1]})  # fmt: skip
    return pandas.DataFrame(lines)


@pytest.mark.parametrize("title", measure.IMAGE_SETS)
@pytest.mark.parametrize(("change", "expected"), [
    ({}, (True, True)),
    ({"gaps": (2.0, 1.0, 0.1)}, (False, True)),
    ({"gaps": (1.0, 0.1, 2.0)}, (False, True)),
    ({"crafted": (0.6, 0.2)}, (True, False)),
    ({"crafted": (0.1, 0.6)}, (True, False)),
])  # fmt: skip
def test_sentences_about_similar_densities_flip_with_their_inputs(title, change, expected):
    run = record.Run("06_crafting", {"profile": "quick", "seed": 0})
    judge.record_similarity(run, similar((title, "corrected"), **change))
    rows = ("smaller-tolerance-more-similar", "crafted-closer-in-density")
    assert tuple(says(run, row)["corrected"] == AGREES for row in rows) == expected
    assert all(says(run, row)["as published"] == AGREES for row in rows)
    assert run.metrics["similarity.MNIST, as published.energy"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("accuracies", "fooled", "risen"), [((0.5, 0.4), True, 0.1), ((0.51, 0.0), False, 0.51), ((0.0, 0.0), True, 0.0)]
)
def test_words_of_the_sentences(accuracies, fooled, risen):
    found = curve((5.0, 0.3, accuracies[1]), (0.05, 0.1, accuracies[0]))
    assert judge.fools(found.iloc[1]) is fooled
    assert judge.rise(found, "accuracy") == pytest.approx(risen)
    assert judge.falls(found)
    assert not judge.falls(curve((5.0, 0.1, 0), (0.05, 0.1, 0)))
    assert not judge.falls(curve((0.05, 0.1, 0), (1.0, 0.05, 0), (5.0, 0.2, 0)))


def test_the_table_of_sentences_is_shown_whole(monkeypatch):
    monkeypatch.setattr(record, "_stored_verdicts", dict)
    run = record.Run("06_crafting", {"profile": "quick", "seed": 0})
    curves = [GOOD.assign(**{"image set": t, "mode": m, "setting": f"{t}, {m}"}) for t, m in SETTINGS]
    judge.record_curves(run, pandas.concat(curves))
    judge.record_similarity(run, similar(None))
    frame = pandas.DataFrame(run.comparisons.values())
    assert len(frame) == 5 and "MNIST: ε 0.10 to 0.30; CIFAR-10 (grey): ε 0.10 to 0.30" in frame["corrected"].iloc[0]
    text = tables.wrapped(frame, "claims").to_html()
    assert frame["corrected"].iloc[2] in text and text == tables.wrapped(frame, "claims").to_html()
    # The plain text is the whole table, and no address.
    assert frame["corrected"].iloc[2] in repr(tables.wrapped(frame, "claims"))
    assert " at 0x" not in repr(tables.wrapped(frame, "claims"))
    assert run.metrics["MNIST, as published.tolerance=0.05.accuracy"] == 0.1


def test_record_keeps_what_both_attackers_reach():
    run = record.Run("06_crafting", {"profile": "quick", "seed": 0})
    rows = [("MNIST, corrected", 0.05, attacker, 0.9, 0.6, 0.1) for attacker in ("Algorithm 2", "gradient steps")]
    columns = ["setting", "τ", "attacker", "accuracy", "AUROC", "power at 5 % false alarms"]
    judge.record_attackers(run, pandas.DataFrame(rows, columns=columns).set_index(columns[:3]))
    assert run.metrics["attackers.MNIST, corrected.tolerance=0.05.knowing.accuracy"] == 0.9
    assert run.metrics["attackers.MNIST, corrected.tolerance=0.05.algorithm2.tpr_at_5_fpr"] == 0.1
