"""G17's Table 2: printed rows, draws shared by all changes, scans read off correctly, what is recorded."""

import math
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from judging import AGREES, DISAGREES, says
from torch import nn

from advlib import attacks
from compendium import nb04_transferability as nb04
from compendium.claims import published, record
from compendium.common import g17
from compendium.common.protocol import RatioComparison, density_ratio_comparison
from compendium.nb04_transferability import figures, judge, measure

NO_EFFECT = {"fooled": 0.0, "targeted": None, "l0": 0.0, "l2": 0.0, "linf": 0.0}
ROWS = [tuple(row) for row in measure.printed_table2()[["row", "attack"]].to_numpy()]


def printed(row, attack, side="R1"):
    return published.value("g17", "Table 2", row, f"{side} {attack}")


def as_measured(
    comparison, row="MNIST", attack="JSMA", amount=0.1, how="budget spent", mode="as published", effect=NO_EFFECT
):
    """One row as `Pool.measure` gives it, with these draws."""
    summaries = {"R1": comparison.r1_summary, "R2": comparison.r2_summary}
    ratios = {f"{side}{end}": value for side, s in summaries.items()
              for end, value in (("", s.mean), (" low", s.low), (" high", s.high))}  # fmt: skip
    decision = {"AUROC": comparison.auroc, "power": comparison.tpr_at_5_fpr}
    return {"row": row, "attack": attack, "mode": mode, "how": how, "amount": amount, **ratios, **decision, **effect}


def measurement(r1, *args, r2=1.0, **kwargs):
    """The same with R1 and R2 that hardly spread; `args` from `row` on."""
    pair = RatioComparison(np.array([r1, r1 * 1.001]) / 1.0005, np.array([r2, r2 * 1.001]) / 1.0005)
    return as_measured(pair, *args, **kwargs)


def whole_table(factor=1.0, mode="as published"):
    return pandas.DataFrame([measurement(printed(*key) * factor, *key, mode=mode) for key in ROWS])


def both_tables(as_published, corrected):
    return measure.joined([whole_table(as_published), whole_table(corrected, "corrected")])


@pytest.fixture
def toy(monkeypatch):
    """Image sets of random pixels, so that a pool takes no time."""
    rng = np.random.default_rng(0)
    sets = {"mnist": rng.random((90, 1, 6, 6), np.float32), "cifar10": rng.random((90, 3, 5, 5), np.float32)}
    labels = rng.integers(0, 4, 90)

    def images(name, count):
        rows = np.arange(count or 90) * 90 // (count or 90)
        return sets[name], sets[name][rows], labels[rows]

    monkeypatch.setattr(g17, "all_and_attacked", images)
    return sets


@pytest.fixture
def toy_network(monkeypatch):
    """One linear network of four classes, whatever is asked for."""
    torch.manual_seed(0)
    made = {1: nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), 3: nn.Sequential(nn.Flatten(), nn.Linear(75, 4))}
    monkeypatch.setattr(measure.models, "load_trained", lambda name: made[3 if "cifar" in name else 1])

    def uncached(attack, network, images, labels, *, seed=None, chunk=500, **parameters):
        if seed is not None:
            parameters["rng"] = np.random.default_rng(seed)
        result = attack(measure.models.load_trained(network), images, labels, **parameters)
        return result if isinstance(result, attacks.AdversarialBatch) else list(result)

    monkeypatch.setattr(measure, "stored_attack", uncached)
    return made


def pool(image_set="mnist", images=60, draws=3, size=30, seed=1):
    return measure.Pool.draw(image_set, images, draws=draws, batch_size=size, rng=np.random.default_rng(seed))


# ------------------------------------------------------------------------------------------------ the printed table


def test_rows_are_the_papers_and_every_one_is_measured():
    rows = ROWS
    assert len(rows) == 11 and len(published.load("g17", "Table 2")) == 22
    measured = [
        (row, attack)
        for image_set, parts in measure.PARTS.items()
        for row in parts
        for attack in ["JSMA", *map(measure.tgsm_name, measure.TGSM_EPSILONS[image_set])]
    ]
    assert sorted(measured) == sorted(rows)
    table = measure.printed_table2().set_index(["row", "attack"])
    assert table.loc[("MNIST", "TGSM eps=0.1"), "R1"] == 12.84 and table.loc[("MNIST", "JSMA"), "R2"] == 1.10


# ------------------------------------------------------------------------------------------------ draws


@pytest.mark.data
def test_a_pool_is_what_g17_takes():
    mine, (images, labels) = pool(images=150), g17.test_images("mnist", 150)
    np.testing.assert_array_equal(mine.images, images)
    np.testing.assert_array_equal(mine.labels, labels)


@pytest.mark.parametrize("image_set", ["mnist", "cifar10"])
@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
def test_measurements_are_those_of_algorithm_1(toy, image_set, kernel, monkeypatch):
    """The same draws through `protocol.density_ratio_comparison`, which fits every pair by itself."""
    mine = pool(image_set)
    moved = np.clip(mine.images + 0.3, 0, 1)
    found = mine.compare(moved, kernel)
    sets = iter([mine.a, mine.b])
    monkeypatch.setattr("compendium.common.protocol.draw_indices", lambda *_, **__: next(sets))
    other = density_ratio_comparison(
        mine.images, moved, numerators=mine.everything, draws=3, batch_size=30, rng=np.random.default_rng(0),
        kernel=kernel, random_state=0,
    )  # fmt: skip
    assert list(found) == list(measure.PARTS[image_set])
    names = ["combined"] if image_set == "mnist" else ["channel 0", "channel 1", "channel 2", "combined"]
    rows = mine.measure(moved, SimpleNamespace(name="corrected", kernel=kernel), "x", "y", 0.5, NO_EFFECT)
    for (row, ours), name, line in zip(found.items(), names, rows.to_dict("records"), strict=True):
        np.testing.assert_allclose(ours.r1, other[name].r1, rtol=1e-9)
        np.testing.assert_allclose(ours.r2, other[name].r2, rtol=1e-9)
        assert line == as_measured(ours, row, "x", 0.5, "y", "corrected")


def test_every_change_meets_the_same_draws(toy):
    mine = pool()
    first, second = (mine.compare(mine.images, "gaussian")["MNIST"] for _ in range(2))
    np.testing.assert_array_equal(first.r1, first.r2)  # nothing changed: R1 is R2
    np.testing.assert_array_equal(first.r2, second.r2)
    with pytest.raises(ValueError, match="suspects must have the shape"):
        mine.measure(mine.images[:-1], g17.CORRECTED, "x", "y", 0, NO_EFFECT)


def test_effect_of_an_attack_and_of_any_change_agree(toy_network, toy):
    mine = pool("cifar10")
    batch = attacks.fgsm(toy_network[3], mine.images, mine.labels, 0.2)
    one = measure.effect_of_attack(batch)
    other = measure.effect_of_change(toy_network[3], mine.images, batch.images, mine.labels)
    for key in ("fooled", "l0", "l2", "linf"):
        assert one[key] == pytest.approx(other[key], rel=1e-5), key
    assert 0 < one["fooled"] <= 1 and one["linf"] == pytest.approx(0.2, rel=1e-5)


# ------------------------------------------------------------------------------------------------ scans


def test_tgsm_scan_is_tgsm_row_by_row(toy, toy_network):
    pools = [pool("mnist"), pool("cifar10")]
    scan = measure.tgsm_scan(pools, [1, 3], g17.AS_PUBLISHED)
    assert len(scan) == 2 * (2 * 1 + 1 * 4)
    batch = attacks.tgsm(toy_network[1], pools[0].images, pools[0].labels, 0.05, steps=3)
    (mine,) = scan[(scan["attack"] == "TGSM eps=0.05") & (scan["row"] == "MNIST") & (scan["amount"] == 3)].to_dict(
        "records"
    )
    (expected,) = pools[0].measure_attack(batch, g17.AS_PUBLISHED, mine["attack"], mine["how"], 3).to_dict("records")
    assert mine == expected and mine["linf"] == pytest.approx(0.15, rel=1e-4)


@pytest.mark.parametrize("how", measure.VARIANTS)
def test_jsma_scan_runs_every_way_within_its_budget(toy, toy_network, how):
    few = pool(images=40, size=20)
    scan = measure.jsma_scan([few], [0.1, 0.3], [how], g17.AS_PUBLISHED, seed=0)
    assert scan["amount"].tolist() == [0.1, 0.3] and set(scan["how"]) == {how}
    assert (scan["l0"] <= scan["amount"] * 36).all()
    assert scan["l2"].is_monotonic_increasing


def test_spent_budgets_are_spent_and_others_stop_at_the_target(toy, toy_network):
    few = pool(images=40, size=20)
    ways = ["budget spent", "until its target"]
    scan = measure.jsma_scan([few], [0.5], ways, g17.AS_PUBLISHED, seed=0).set_index("how")
    spent, stopped = (scan.loc[way] for way in ways)
    assert spent["l0"] > stopped["l0"] and spent["l2"] > stopped["l2"] and stopped["targeted"] > 0


def test_unknown_way_of_jsma_is_refused(toy):
    with pytest.raises(ValueError, match="a way to run JSMA must be one of"):
        measure.jsma_scan([pool()], [0.1], ["by guess"], g17.AS_PUBLISHED, seed=0)


def test_the_ball_holds_and_without_it_steps_add_up(toy, toy_network):
    inside = measure.within_ball([pool("mnist"), pool("cifar10")], g17.CORRECTED)
    assert set(zip(inside["row"], inside["attack"], strict=True)) == {key for key in ROWS if key[1] != "JSMA"}
    assert (inside["linf"] <= inside["attack"].str.split("=").str[1].astype(float) + 1e-6).all()
    assert (inside["mode"] == "corrected").all()


def test_worst_factor_counts_both_directions_and_no_mean_of_channels():
    rows = [
        measurement(printed("MNIST", "JSMA") * 2),
        measurement(printed("CIFAR-10 (red)", "JSMA") / 3, "CIFAR-10 (red)"),
    ]
    combined = measurement(1e9, "CIFAR-10 (combined)")
    assert measure.worst_factor(pandas.DataFrame(rows)) == pytest.approx(3, rel=1e-3)
    assert measure.worst_factor(pandas.DataFrame([*rows, combined])) == pytest.approx(3, rel=1e-3)
    assert math.isinf(measure.worst_factor(pandas.DataFrame([measurement(0.0)])))


def test_best_amount_is_that_of_the_best_worst_row():
    scan = [
        measurement(printed(row, "JSMA") * factor, row, amount=amount)
        for amount, factors in ((0.1, (1.0, 4.0)), (0.2, (1.5, 2.0)), (0.3, (1.9, 2.1)))
        for row, factor in zip(("MNIST", "CIFAR-10 (red)"), factors, strict=True)
    ]
    assert measure.best_amount(pandas.DataFrame(scan)) == 0.2


def test_crossing_is_exact_on_a_power_law_and_none_outside():
    amounts = np.array([0.8, 0.1, 0.4])  # in any order
    assert measure.crossing(amounts, 5 * (amounts / 0.3) ** 2, 5) == pytest.approx(0.3, rel=1e-12)
    assert math.isnan(measure.crossing([0.1], [4.5], 5))  # never reached
    assert math.isnan(measure.crossing([0.1], [5.5], 5))  # reached before the scan began


def test_metrics_of_crossings_skip_what_is_not_reached():
    goal = printed("MNIST", "JSMA")
    scan = pandas.DataFrame(
        [
            measurement(goal * factor, amount=amount, how=how)
            for how, factors in (("budget spent", (0.5, 2.0)), ("until its target", (0.5, 0.9)))
            for amount, factor in zip((0.1, 0.2), factors, strict=True)
        ]
    )
    run = record.start("99_test", profile="quick", seed=0)
    judge.record_scan(run, scan)
    assert [name for name in run.metrics if name.startswith("crossing.")] == ["crossing.JSMA.budget spent.MNIST"]
    assert run.metrics["crossing.JSMA.budget spent.MNIST"] == pytest.approx(0.1 * 2**0.5, rel=1e-2)
    assert len([name for name in run.metrics if name.startswith("scan.")]) == 4


# ------------------------------------------------------------------------------------------------ controls and pools


def test_controls_are_as_large_as_the_attacks(toy, toy_network):
    pools = {name: (pool(name), pool(name, images=40)) for name in measure.PARTS}
    found = measure.controls(pools, 0.2, g17.CORRECTED, seed=0, rng=np.random.default_rng(0))
    assert found["row"].unique().tolist() == ["MNIST", "CIFAR-10 (combined)"]
    for title, line in found.groupby("row"):
        by_name = {f"{m['attack'].split(',')[0]} {m['amount']}": m for m in line.to_dict("records")}
        assert line["how"].tolist().count("attack") == 3 and len(line) == 10
        assert line["amount"].is_monotonic_increasing
        epsilon = 0.1 if title == "MNIST" else 0.05
        assert by_name[f"coin flips of ±{epsilon:g} 0"]["linf"] == pytest.approx(epsilon, rel=1e-4)
        pgd, jsma = by_name[f"PGD within {epsilon:g} 0"], by_name["JSMA 1"]
        assert pgd["linf"] == pytest.approx(epsilon, rel=1e-4)
        for aimless in ("Gaussian noise", "shift", "rotation"):
            assert by_name[f"{aimless} 0"]["l2"] == pytest.approx(pgd["l2"], rel=1e-2), aimless
            assert by_name[f"{aimless} 1"]["l2"] == pytest.approx(jsma["l2"], rel=0.05), aimless


def test_shared_images_pull_real_real_down():
    """A batch against itself has nothing to be told apart; the fewer images are shared, the more room there is."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(60, 1, 1, 4)).astype(np.float32)
    labels = np.zeros(60, dtype=np.int64)
    rows = np.tile(np.arange(30), (2, 1))
    same = measure.Pool("mnist", points, points, labels, rows, rows).ratios(points, "gaussian")
    apart = measure.Pool("mnist", points, points, labels, rows, rows + 30).ratios(points + 3, "gaussian")
    assert np.all(np.abs(same - 1) < 0.1) and np.all(np.abs(apart - 1) > 0.5)


def test_the_same_attack_on_several_networks(toy, toy_network):
    found = measure.by_network(pool(), 2, ["a", "b"], g17.MODES)
    assert found["network"].unique().tolist() == ["a", "b"]
    for _, line in found.groupby("network"):
        expected = [("as published", "TGSM eps=0.1"), ("corrected", "TGSM eps=0.1")]
        assert list(zip(line["mode"], line["attack"], strict=True)) == expected


# ------------------------------------------------------------------------------------------------ comparisons


def test_every_printed_number_is_recorded_as_it_is(monkeypatch):
    monkeypatch.setattr(record, "_stored_verdicts", dict)
    run = new_run()
    judge.record_table2(run, both_tables(1.1, 0.5))
    assert len(run.comparisons) == 22
    for key, comparison in run.comparisons.items():
        if key[3].startswith("R1"):
            expected = published.value(*key)
            assert comparison["as_published"] == pytest.approx(1.1 * expected, rel=1e-9)  # not rounded
            assert comparison["corrected"] == pytest.approx(0.5 * expected, rel=1e-9)
            assert comparison["cause"] == "as published: 0.1, budget spent; corrected: 0.1, budget spent"
        else:
            assert comparison["as_published"] == pytest.approx(1) and comparison["cause"] == ""


def detected(power, r2=1.0, **kwargs):
    """A measurement of 20 draws of which the share `power` lies far out, with R2 in a narrow range."""
    null = r2 * (1 + 0.01 * np.linspace(-1, 1, 20))
    values = null.copy()
    values[: round(20 * power)] = 9.0
    return as_measured(RatioComparison(values, null), **kwargs)


SENTENCES = ("transferable", "irrespective-of-attack", "single-and-multi-channel", "works-equally-well")
STRONG = NO_EFFECT | {"fooled": 0.7, "l2": 2.0}
NO_CONTROL = pandas.DataFrame(columns=["row", "attack", "how", "power", "fooled", "mode"])


def new_run(network="0"):
    return record.Run("04_transferability", {"profile": "quick", "seed": 0}, network)


def attacked(change=lambda row, attack: {}, mode="corrected", **kwargs):
    """Table 2 in both modes, every batch told apart but where `change` gives other arguments of `detected`."""
    lines = []
    for name in ("as published", "corrected"):
        for row, attack in ROWS:
            other = change(row, attack) if name == mode else {}
            lines.append(
                detected(**{"power": 1.0, "effect": STRONG, "mode": name, "row": row, "attack": attack} | other)
            )
    return pandas.DataFrame(lines)


def outcomes(table, control=NO_CONTROL, mode="corrected"):
    run, tables = new_run(), judge.by_mode(table, control)
    judge.record_attacks(run, tables, control)
    judge.record_channels(run, tables)
    return [says(run, row)[mode] == AGREES for row in SENTENCES]


def test_sentences_about_every_attack_need_each_of_them():
    weak = {"power": 0.2}
    assert outcomes(attacked()) == [True] * 4
    assert outcomes(attacked(lambda *_: weak)) == [False] * 4
    missed = attacked(lambda row, attack: weak if attack == "JSMA" and row != "MNIST" else {})
    assert outcomes(missed) == [False] * 4
    assert outcomes(missed, mode="as published") == [True] * 4
    digits = attacked(lambda row, attack: weak if row == "MNIST" else {})
    assert outcomes(digits) == [False] * 4
    # Equal blindness is not "equally well", and nearly equal powers are.
    assert outcomes(attacked(lambda row, attack: {"power": 0.95 if row == "MNIST" else 1.0}))[3]


def test_attacks_that_fool_nobody_are_no_objection_and_pgd_counts_corrected():
    harmless = {"power": 0.2, "effect": NO_EFFECT | {"fooled": 0.1}}
    assert outcomes(attacked(lambda row, attack: harmless if attack == "JSMA" else {})) == [True] * 4
    # Where none of the attacks on one kind of image fools most, all of them count.
    only = attacked(lambda row, attack: harmless if row == "MNIST" else {})
    assert outcomes(only) == [True, True, False, False]
    pgd = detected(0.2, attack="PGD within 0.05", how="attack", mode="corrected", effect=STRONG)
    control = pandas.DataFrame([pgd, pgd | {"attack": "coin flips of ±0.05", "how": "aimless"}])
    assert outcomes(attacked(), control) == [False] * 4
    assert outcomes(attacked(), control, "as published") == [True] * 4
    control["fooled"] = 0.1
    assert outcomes(attacked(), control) == [True] * 4
    run = new_run()
    judge.record_attacks(run, judge.by_mode(attacked(), control), control)
    assert "0 of 1 aimless changes" in run.comparisons["g17", "claim", "transferable", ""]["cause"]


@pytest.mark.parametrize(
    ("curve", "expected"), [([1.0, 1.1], AGREES), ([1.0, 1.2], DISAGREES), ([1.2, 1.0], DISAGREES)]
)
def test_real_real_estimates_that_move_are_not_stationary(curve, expected):
    run = new_run()
    judge.record_stationary(run, pandas.DataFrame({"as published": [1.0, 1.0], "corrected": curve}))
    assert says(run, "real-real-stationary") == {"as published": AGREES, "corrected": expected}


@pytest.mark.parametrize(("power", "expected"), [(1.0, AGREES), (0.5, DISAGREES)])
def test_a_network_on_which_the_attack_is_missed_counts(power, expected):
    run, network = new_run(), {"one": 1.0, "other": power}
    lines = [detected(share, mode="corrected") | {"network": name} for name, share in network.items()]
    judge.record_networks(run, pandas.DataFrame(lines))
    assert says(run, "model-agnostic") == {"corrected": expected}


def test_a_replicate_records_real_real_and_what_needs_no_jsma(toy, toy_network, monkeypatch):
    monkeypatch.setattr(nb04, "REPLICATED_IMAGES", 40)
    monkeypatch.setattr(measure, "POOL_SIZES", (40, 90))
    monkeypatch.setattr(judge, "chosen_steps", lambda run: 2)
    run = new_run("1")
    run.parameters |= {"draws": 3, "batch_size": 20, "images": 0, "colour_network": "cifar"}
    nb04.replicate(run)
    numbers = {key[2:] for key in run.comparisons if key[1] == "Table 2"}
    assert numbers == {(row, f"R2 {attack}") for row, attack in ROWS}
    rows = {key[2] for key in run.comparisons if key[1] == "claim"}
    assert rows == {"transferable", "irrespective-of-attack", "real-real-stationary", "model-agnostic"}


def test_the_stored_run_says_how_many_steps_it_chose():
    assert judge.chosen_steps(new_run()) in record.profile_parameters("paper")["tgsm_steps"]


@pytest.mark.usefixtures("toy", "toy_network")
def test_images_that_are_kept_give_what_the_scan_gives():
    pools = [pool("mnist"), pool("cifar10")]
    pandas.testing.assert_frame_equal(
        measure.free_steps(pools, 3, g17.AS_PUBLISHED), measure.tgsm_scan(pools, [3], g17.AS_PUBLISHED)
    )
    names = measure.pgd_within_ball(pools, g17.CORRECTED)[["row", "attack"]].to_numpy().tolist()
    assert names == [["MNIST", "PGD within 0.1"], ["CIFAR-10 (combined)", "PGD within 0.05"]]


def test_frames_show_each_thing_once():
    table = whole_table()
    assert len(measure.printed_table2()) == 11
    moved = judge.moved_frame(both_tables(1.1, 0.5))
    # JSMA and TGSM of MNIST, three in all, and two of CIFAR-10.
    assert moved.shape == (5, 6) and moved.loc[("MNIST", "JSMA"), ("L2", "as the paper describes it")] == "0"
    run = record.start("99_test", profile="quick", seed=0)
    judge.record_measurements(run, "table2", table)
    assert run.metrics["table2.as published.MNIST.JSMA.r1"] == pytest.approx(2.34, rel=1e-2)
    assert "table2.as published.MNIST.JSMA.targeted" not in run.metrics


def test_the_pairs_of_single_draws_are_counted(toy):
    a, b, fit = measure.clean_fits(toy["mnist"], g17.AS_PUBLISHED, 6, 30, np.random.default_rng(0))
    assert a.shape == b.shape == (6, 30)
    again = measure.mean_ratios(*(toy["mnist"].reshape(90, -1),) * 2, a, b, "unsquared")
    np.testing.assert_allclose(fit.mean_ratio_, again)
    frame = judge.pairs_frame(fit)
    pairs = set(zip(fit.sigma_.tolist(), fit.lambda_.tolist(), strict=True))
    assert len(frame) == min(4, len(pairs)) and frame["draws"].sum() <= 6 and frame["draws"].is_monotonic_decreasing


def test_intervals_are_apart_where_they_do_not_touch():
    ends = pandas.DataFrame({"R1 low": [2, 1, 1], "R1 high": [3, 2, 3], "R2 low": [0, 3, 2], "R2 high": [1, 4, 4]})
    assert judge.apart(ends).tolist() == [True, True, False]


def test_the_scan_has_a_panel_for_each_row_but_the_mean_of_the_channels():
    titles = [panel.get_title() for panel in figures.attack_scan(whole_table(), "amount").axes]
    assert len(titles) == 9 and not any("combined" in title for title in titles)
