"""G17's Table 2: printed rows, draws shared by all changes, scans read off correctly, verdicts by their definitions."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from advlib import attacks
from compendium.claims import published, record
from compendium.common import g17
from compendium.common.protocol import RatioComparison, density_ratio_comparison
from compendium.nb04_transferability import judge, measure

NO_EFFECT = measure.Effect(0.0, None, 0.0, 0.0, 0.0)
PUBLISHED_ROWS = [row for parts in measure.PARTS.values() for row in parts]


def measurement(
    r1, row="MNIST", attack="JSMA", amount=0.1, how="budget spent", mode="as published", r2=1.0, effect=NO_EFFECT
):
    pair = RatioComparison(np.array([r1, r1 * 1.001]) / 1.0005, np.array([r2, r2 * 1.001]) / 1.0005)
    return measure.Measurement(row, attack, mode, how, amount, pair, effect)


def whole_table(factor=1.0, mode="as published"):
    return [
        measurement(measure.printed(row, attack) * factor, row, attack, mode=mode)
        for row, attack in measure.table2_rows()
    ]


@pytest.fixture
def toy(monkeypatch):
    """Image sets of random pixels, so that a pool takes no time."""
    rng = np.random.default_rng(0)
    sets = {"mnist": rng.random((90, 1, 6, 6), np.float32), "cifar10": rng.random((90, 3, 5, 5), np.float32)}
    labels = rng.integers(0, 4, 90)
    monkeypatch.setattr(measure, "_everything", lambda name: (sets[name], labels))
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

    monkeypatch.setattr(measure, "crafted", uncached)
    return made


def pool(image_set="mnist", images=60, draws=3, size=30, seed=1):
    return measure.Pool.draw(image_set, images, draws=draws, batch_size=size, rng=np.random.default_rng(seed))


# ------------------------------------------------------------------------------------------------ the printed table


def test_rows_are_the_papers_and_every_one_is_measured():
    rows = measure.table2_rows()
    assert len(rows) == 11 and len(published.load("g17", "Table 2")) == 22
    measured = [
        (row, attack)
        for image_set, parts in measure.PARTS.items()
        for row in parts
        for attack in ["JSMA", *map(measure.tgsm_name, measure.TGSM_EPSILONS[image_set])]
    ]
    assert sorted(measured) == sorted(rows)
    assert measure.printed("MNIST", "TGSM eps=0.1") == 12.84 and measure.printed("MNIST", "JSMA", "R2") == 1.10


# ------------------------------------------------------------------------------------------------ draws


def test_a_pool_takes_images_at_even_steps_as_the_other_tables_do():
    assert measure._rows(10, 4).tolist() == [0, 2, 5, 7] and measure._rows(10, 0).tolist() == list(range(10))
    with pytest.raises(ValueError, match="images must be at most 10"):
        measure._rows(10, 11)


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
    rows = mine.measure(moved, SimpleNamespace(name="corrected", kernel=kernel), "x", "y", 0.5, NO_EFFECT)
    sets = iter([mine.a, mine.b])
    monkeypatch.setattr("advlib.protocol.draw_indices", lambda *_, **__: next(sets))
    other = density_ratio_comparison(
        mine.images, moved, numerators=mine.everything, draws=3, batch_size=30, rng=np.random.default_rng(0),
        kernel=kernel, random_state=0,
    )  # fmt: skip
    assert [m.row for m in rows] == list(measure.PARTS[image_set])
    names = ["combined"] if image_set == "mnist" else ["channel 0", "channel 1", "channel 2", "combined"]
    for m, name in zip(rows, names, strict=True):
        np.testing.assert_allclose(m.comparison.r1, other[name].r1, rtol=1e-9)
        np.testing.assert_allclose(m.comparison.r2, other[name].r2, rtol=1e-9)


def test_every_change_meets_the_same_draws(toy):
    mine = pool()
    first, second = (mine.measure(mine.images, g17.CORRECTED, "x", "y", 0, NO_EFFECT)[0] for _ in range(2))
    np.testing.assert_array_equal(first.comparison.r1, first.comparison.r2)  # nothing changed: R1 is R2
    np.testing.assert_array_equal(first.comparison.r2, second.comparison.r2)
    with pytest.raises(ValueError, match="suspects must have the shape"):
        mine.measure(mine.images[:-1], g17.CORRECTED, "x", "y", 0, NO_EFFECT)


def test_effect_of_an_attack_and_of_any_change_agree(toy_network, toy):
    mine = pool("cifar10")
    batch = attacks.fgsm(toy_network[3], mine.images, mine.labels, 0.2)
    one, other = (
        measure.Effect.of_attack(batch),
        measure.Effect.of_change(toy_network[3], mine.images, batch.images, mine.labels),
    )
    for key in ("fooled", "l0", "l2", "linf"):
        assert getattr(one, key) == pytest.approx(getattr(other, key), rel=1e-5), key
    assert 0 < one.fooled <= 1 and one.linf == pytest.approx(0.2, rel=1e-5)


# ------------------------------------------------------------------------------------------------ scans


def test_tgsm_scan_is_tgsm_row_by_row(toy, toy_network):
    pools = [pool("mnist"), pool("cifar10")]
    scan = measure.tgsm_scan(pools, [1, 3], g17.AS_PUBLISHED)
    assert len(scan) == 2 * (2 * 1 + 1 * 4)
    batch = attacks.tgsm(toy_network[1], pools[0].images, pools[0].labels, 0.05, steps=3)
    (mine,) = measure.chosen(scan, attack="TGSM eps=0.05", row="MNIST", amount=3)
    expected = pools[0].measure_attack(batch, g17.AS_PUBLISHED, mine.attack, mine.how, 3)[0]
    np.testing.assert_array_equal(mine.comparison.r1, expected.comparison.r1)
    assert mine.effect == expected.effect and mine.effect.linf == pytest.approx(0.15, rel=1e-4)


@pytest.mark.parametrize("how", measure.VARIANTS)
def test_jsma_scan_runs_every_way_within_its_budget(toy, toy_network, how):
    few = pool(images=40, size=20)
    scan = measure.jsma_scan([few], [0.1, 0.3], [how], g17.AS_PUBLISHED, seed=0)
    assert [m.amount for m in scan] == [0.1, 0.3] and {m.how for m in scan} == {how}
    assert all(m.effect.l0 <= m.amount * 36 for m in scan)
    assert scan[0].effect.l2 <= scan[1].effect.l2


def test_spent_budgets_are_spent_and_others_stop_at_the_target(toy, toy_network):
    few = pool(images=40, size=20)
    ways = ["budget spent", "until its target"]
    spent, stopped = (
        measure.chosen(measure.jsma_scan([few], [0.5], [way], g17.AS_PUBLISHED, seed=0), how=way)[0].effect
        for way in ways
    )
    assert spent.l0 > stopped.l0 and spent.l2 > stopped.l2 and stopped.targeted > 0


def test_unknown_way_of_jsma_is_refused(toy):
    with pytest.raises(ValueError, match="a way to run JSMA must be one of"):
        measure.jsma_scan([pool()], [0.1], ["by guess"], g17.AS_PUBLISHED, seed=0)


def test_the_ball_holds_and_without_it_steps_add_up(toy, toy_network):
    inside = measure.within_ball([pool("mnist"), pool("cifar10")], g17.CORRECTED)
    assert {(m.row, m.attack) for m in inside} == {key for key in measure.table2_rows() if key[1] != "JSMA"}
    for m in inside:
        assert m.effect.linf <= float(m.attack.split("=")[1]) + 1e-6 and m.mode == "corrected"


def test_worst_factor_counts_both_directions_and_no_mean_of_channels():
    rows = [
        measurement(measure.printed("MNIST", "JSMA") * 2),
        measurement(measure.printed("CIFAR-10 (red)", "JSMA") / 3, "CIFAR-10 (red)"),
    ]
    assert measure.worst_factor(rows) == pytest.approx(3, rel=1e-3)
    assert measure.worst_factor([*rows, measurement(1e9, "CIFAR-10 (combined)")]) == pytest.approx(3, rel=1e-3)
    assert math.isinf(measure.worst_factor([measurement(0.0)]))


def test_best_amount_is_that_of_the_best_worst_row():
    scan = [
        measurement(measure.printed(row, "JSMA") * factor, row, amount=amount)
        for amount, factors in ((0.1, (1.0, 4.0)), (0.2, (1.5, 2.0)), (0.3, (1.9, 2.1)))
        for row, factor in zip(("MNIST", "CIFAR-10 (red)"), factors, strict=True)
    ]
    assert measure.best_amount(scan) == 0.2


def test_crossing_is_exact_on_a_power_law_and_none_outside():
    goal = measure.printed("MNIST", "JSMA")
    line = [measurement(goal * (amount / 0.3) ** 2, amount=amount) for amount in (0.8, 0.1, 0.4)]  # in any order
    assert measure.crossing(line) == pytest.approx(0.3, rel=1e-3)
    assert measure.crossing([measurement(goal * 0.9, amount=0.1)]) is None  # never reached
    assert measure.crossing([measurement(goal * 1.1, amount=0.1)]) is None  # reached before the scan began
    with pytest.raises(ValueError, match="one row, one attack and one way"):
        measure.crossing([measurement(1.0), measurement(1.0, how="until its target")])
    with pytest.raises(ValueError, match="one row, one attack and one way"):
        measure.crossing([])


def test_crossings_name_every_row_and_way_once_and_metrics_skip_what_is_not_reached():
    goal = measure.printed("MNIST", "JSMA")
    scan = [
        measurement(goal * factor, amount=amount, how=how)
        for how, factors in (("budget spent", (0.5, 2.0)), ("until its target", (0.5, 0.9)))
        for amount, factor in zip((0.1, 0.2), factors, strict=True)
    ]
    frame = measure.crossings(scan)
    assert frame["way"].tolist() == ["budget spent", "until its target"]
    run = record.start("99_test", profile="quick", seed=0)
    judge.record_scan(run, scan)
    assert [name for name in run.metrics if name.startswith("crossing.")] == ["crossing.JSMA.budget spent.MNIST"]
    assert run.metrics["crossing.JSMA.budget spent.MNIST"] == pytest.approx(0.1 * 2**0.5, rel=1e-2)
    assert len([name for name in run.metrics if name.startswith("scan.")]) == 4


# ------------------------------------------------------------------------------------------------ controls and pools


def test_controls_are_as_large_as_the_attacks(toy, toy_network):
    pools = {name: (pool(name), pool(name, images=40)) for name in measure.PARTS}
    groups = measure.controls(pools, 0.2, g17.CORRECTED, seed=0, rng=np.random.default_rng(0))
    assert list(groups) == ["MNIST", "CIFAR-10 (combined)"]
    for title, line in groups.items():
        by_name = {m.attack.split(",")[0] + f" {m.amount}": m.effect for m in line}
        assert [m.how for m in line].count("attack") == 3 and len(line) == 10
        assert [m.amount for m in line] == sorted(m.amount for m in line)
        epsilon = 0.1 if title == "MNIST" else 0.05
        assert by_name[f"coin flips of ±{epsilon:g} 0"].linf == pytest.approx(epsilon, rel=1e-4)
        pgd, jsma = by_name[f"PGD within {epsilon:g} 0"], by_name["JSMA 1"]
        assert pgd.linf == pytest.approx(epsilon, rel=1e-4)
        for aimless in ("Gaussian noise", "shift", "rotation"):
            assert by_name[f"{aimless} 0"].l2 == pytest.approx(pgd.l2, rel=1e-2), aimless
            assert by_name[f"{aimless} 1"].l2 == pytest.approx(jsma.l2, rel=0.05), aimless


def test_shared_images_pull_real_real_down():
    """A batch against itself has nothing to be told apart; the fewer images are shared, the more room there is."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(60, 1, 1, 4)).astype(np.float32)
    labels = np.zeros(60, dtype=np.int64)
    rows = np.tile(np.arange(30), (2, 1))
    same = measure.Pool("mnist", points, points, labels, rows, rows).ratios(points, "gaussian")
    apart = measure.Pool("mnist", points, points, labels, rows, rows + 30).ratios(points + 3, "gaussian")
    assert np.all(np.abs(same - 1) < 0.1) and np.all(np.abs(apart - 1) > 0.5)


def test_pool_size_is_read_off_where_the_mean_first_reaches_the_value():
    curve = {100: 1.0, 1000: 1.2, 10000: 1.3}
    assert measure.shared_pool_size(curve, 1.1) == pytest.approx(10**2.5)
    assert measure.shared_pool_size(curve, 1.3) == pytest.approx(10000)
    assert measure.shared_pool_size(curve, 1.31) is None and measure.shared_pool_size(curve, 1.0) is None


def test_the_same_attack_on_several_networks(toy, toy_network):
    found = measure.by_network(pool(), 2, ["a", "b"], g17.MODES)
    assert list(found) == ["a", "b"]
    for line in found.values():
        assert [(m.mode, m.attack) for m in line] == [("as published", "TGSM eps=0.1"), ("corrected", "TGSM eps=0.1")]


# ------------------------------------------------------------------------------------------------ comparisons


def test_every_printed_number_gets_a_comparison_and_a_cause_where_it_needs_one():
    run = record.start("99_test", profile="quick", seed=0)
    judge.record_table2(run, whole_table(1.1), whole_table(0.5, "corrected"))
    assert len(run.comparisons) == 22
    table = published.claims_table([{"notebook": "99_test", "comparisons": list(run.comparisons.values())}])
    mine = [claim for claim in table if claim.item == "Table 2" and claim.paper == "g17"]
    assert {c.verdict for c in mine if c.column.startswith("R1")} == {"reproduced as published only"}
    assert {c.verdict for c in mine if c.column.startswith("R2")} == {"reproduced"}
    assert all(c.cause for c in mine if c.verdict != "reproduced")
    frame = judge.table2_frame(run)
    assert len(frame) == 22 and frame.loc[("MNIST", "R1 JSMA"), "band"] == "1.75 to 2.92"


@pytest.mark.parametrize(("as_published", "corrected", "word", "cause"), [
    (3.0, 3.0, "not reproduced", "suits the other rows"),
    (3.0, 1.0, "reproduced", "by chance"),
    (1.0, 1.0, "reproduced", "chosen by us"),
])  # fmt: skip
def test_causes_say_what_was_chosen(as_published, corrected, word, cause):
    run = record.start("99_test", profile="quick", seed=0)
    judge.record_table2(run, whole_table(as_published), whole_table(corrected, "corrected"))
    entries = [c for c in run.comparisons.values() if c["column"].startswith("R1")]
    assert {c["verdict"] for c in entries} == {word} and all(cause in c["cause"] for c in entries)


def detected(power, r2=1.0, **kwargs):
    """A measurement of 20 draws of which the share `power` lies far out, with R2 in a narrow range."""
    null = r2 * (1 + 0.01 * np.linspace(-1, 1, 20))
    values = null.copy()
    values[: round(20 * power)] = 9.0
    base = measurement(1.0, **kwargs)
    return measure.Measurement(
        base.row, base.attack, base.mode, base.how, base.amount, RatioComparison(values, null), base.effect
    )


def judged(power_as_published, power_corrected, real_real):
    run = record.start("99_test", profile="quick", seed=0)
    effect = measure.Effect(0.7, 0.5, 10, 2.0, 0.1)
    tables = [
        [detected(power, row=row, attack=attack, mode=mode, effect=effect) for row, attack in measure.table2_rows()]
        for mode, power in (("as published", power_as_published), ("corrected", power_corrected))
    ]
    control = {"MNIST": [detected(1.0, how="attack"), detected(1.0, how="aimless"), detected(0.1, how="aimless")]}
    network = [detected(1.0, attack="TGSM eps=0.1", mode=mode) for mode in ("as published", "corrected")]
    judge.record_claims(run, *tables, control, {"one": network, "other": network}, real_real)
    return run, {c["row"]: c for c in run.comparisons.values()}


def test_claims_are_judged_by_the_weakest_row():
    steady = {"as published": {1: 1.0, 2: 1.3}, "corrected": {1: 1.0, 2: 1.1}}
    run, claims = judged(1.0, 0.2, steady)
    assert {row: c["verdict"] for row, c in claims.items()} == {
        "transferable": "reproduced as published only",
        "irrespective-of-attack": "reproduced as published only",
        "real-real-stationary": "reproduced",
        "single-and-multi-channel": "reproduced as published only",
        "model-agnostic": "reproduced",
    }
    assert "1 of 2 aimless changes" in claims["transferable"]["cause"]
    assert "0.20" in claims["irrespective-of-attack"]["corrected"]
    assert len(judge.claims_frame(run)) == 5
    # Only the corrected run bears this sentence out, and the cause must say so.
    assert claims["real-real-stationary"]["cause"].startswith("corrected only, as published it fails")
    assert not claims["model-agnostic"]["cause"].startswith("corrected only")
    _, claims = judged(0.2, 0.2, {"as published": {1: 1.0, 2: 1.3}, "corrected": {1: 1.0, 2: 1.3}})
    assert {c["verdict"] for row, c in claims.items() if row != "model-agnostic"} == {"not reproduced"}
    _, claims = judged(1.0, 1.0, steady)
    assert {c["verdict"] for c in claims.values()} == {"reproduced"}


def test_power_is_judged_by_attacks_that_fool_someone():
    weak, strong = measure.Effect(0.1, 0.0, 10, 1.0, 0.1), measure.Effect(0.9, 0.9, 10, 5.0, 0.1)
    run = record.start("99_test", profile="quick", seed=0)
    tables = [
        [
            detected(*((0.1,) if (row, attack) == ("MNIST", "JSMA") else (1.0,)), row=row, attack=attack, mode=mode,
                     effect=weak if (row, attack) == ("MNIST", "JSMA") else strong)
            for row, attack in measure.table2_rows()
        ]
        for mode in ("as published", "corrected")
    ]  # fmt: skip
    network = [detected(1.0, attack="TGSM eps=0.1", mode=mode) for mode in ("as published", "corrected")]
    judge.record_claims(run, *tables, {}, {"one": network}, {"as published": {1: 1.0}, "corrected": {1: 1.0}})
    verdicts = {c["row"]: c["verdict"] for c in run.comparisons.values()}
    assert verdicts["irrespective-of-attack"] == "reproduced" and verdicts["transferable"] == "not reproduced"


def test_frames_and_panels_show_each_thing_once():
    table = whole_table()
    panels, values = measure.scan_panels(table)
    assert len(panels) == len(values) == 9 and not any("combined" in title for title in panels)
    assert len(measure.table2(table, whole_table(1.0, "corrected"))["published"]) == 11
    assert len(measure.sizes_frame(table)) == 5  # JSMA and TGSM of MNIST, three in all, and two of CIFAR-10
    run = record.start("99_test", profile="quick", seed=0)
    judge.record_measurements(run, "table2", table)
    assert run.metrics["table2.as published.MNIST.JSMA.r1"] == pytest.approx(2.34, rel=1e-2)
    assert "table2.as published.MNIST.JSMA.targeted" not in run.metrics
