"""G17's sweeps over the sample size: fits against single ones, closed forms, bands and verdicts as defined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advlib.ulsif import DEFAULT_GRID, ULSIF
from compendium import nb03_sample_size as nb03
from compendium.claims import published, record
from compendium.common import g17, protocol, size_sweeps
from compendium.nb05_real_life_m import judge, measure

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")

MODES = {mode.name: mode for mode in g17.MODES}


class Linear(nn.Module):
    def __init__(self, features):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(features, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.fixture
def toy(monkeypatch):
    """Image sets of random pixels and a linear network, so that a sweep takes no time."""
    rng = np.random.default_rng(0)
    sets = {"mnist": rng.random((60, 1, 6, 6), np.float32), "cifar10": rng.random((60, 3, 6, 6), np.float32)}
    labels = rng.integers(0, 10, 60)

    def images(name, count):
        return sets[name], sets[name][: count or None], labels[: count or None]

    monkeypatch.setattr(g17, "all_and_attacked", images)
    monkeypatch.setattr(
        size_sweeps.models, "load_trained", lambda name: Linear(108 if name.startswith("cifar10") else 36)
    )
    return sets


def result(r1, r2, mode="as published", size=10, row="MNIST", noise=None, lambdas=None, outside=1.0):
    r1, r2 = np.asarray(r1, float), np.asarray(r2, float)
    noise = r1 if noise is None else np.asarray(noise, float)
    lambda_ = np.full(len(r2), 0.01) if lambdas is None else np.asarray(lambdas, float)
    setting = np.stack([np.ones(len(r2)), lambda_], axis=1)
    return size_sweeps.SizeResult(
        row, mode, size, r1, r2, noise, dict.fromkeys(size_sweeps.SIDES, np.zeros(len(r1))),
        dict.fromkeys(size_sweeps.SIDES, setting), 0.99, 0.1, 0.6, outside,
    )  # fmt: skip


def apart(n=40):
    return np.linspace(20, 25, n), np.linspace(0.9, 1.1, n)


def together(n=40):
    values = np.linspace(0.9, 1.1, n)
    return values, values


# ---------------------------------------------------------------------------------------------- sweeps


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("numerator_size", [None, 12])
def test_each_draw_is_algorithm_1_written_out(toy, mode, numerator_size):
    sizes = [8, 3]
    found = size_sweeps.size_sweep(
        mode, sizes, epsilon=0.2, images=40, draws=3, rng=np.random.default_rng(4), numerator_size=numerator_size,
        image_sets=["mnist"],
    )  # fmt: skip
    assert [(r.row, r.mode, r.size) for r in found] == [("MNIST", mode.name, 8), ("MNIST", mode.name, 3)]
    again = np.random.default_rng(4)
    pools = size_sweeps.attacked_pools(mode, "mnist", 0.2, 40, again)
    a = np.stack([again.choice(60, numerator_size or 8, replace=False) for _ in range(3)])
    b = np.stack([again.choice(40, 8, replace=False) for _ in range(3)])
    for r in found:
        for t in range(3):
            x = pools.clean[a[t] if numerator_size else a[t, : r.size], 0]
            for side, pool in zip(size_sweeps.SIDES, (pools.adversarial, pools.real, pools.noise), strict=True):
                fit = ULSIF(kernel=mode.kernel).fit(x, pool[b[t, : r.size], 0])
                assert getattr(r, side)[t] == pytest.approx(np.mean(fit.predict(x)), rel=1e-9)
                assert r.settings[side][t] == pytest.approx([fit.sigma_, fit.lambda_])
                # Without its own kernel each point keeps the other centres' part.
                others = [fit.theta_ @ (phi * (np.arange(len(x)) != i)) for i, phi in enumerate(kernels(x, fit, mode))]
                assert getattr(r, side)[t] - r.own[side][t] == pytest.approx(np.mean(others), rel=1e-8, abs=1e-12)


def kernels(x, fit, mode):
    distance = np.linalg.norm(x[:, None].astype(float) - x[None], axis=2)
    return np.exp(-(distance ** (2 if mode.kernel == "gaussian" else 1)) / (2 * fit.sigma_**2))


def test_attack_and_noise_are_of_the_same_size_and_clipped_only_when_corrected(toy):
    for mode in g17.MODES:
        pools = size_sweeps.attacked_pools(mode, "cifar10", 0.3, 20, np.random.default_rng(0))
        assert pools.clean.shape == (60, 3, 36) and pools.real.shape == pools.adversarial.shape == (20, 3, 36)
        for pool in (pools.adversarial, pools.noise):
            assert np.abs(pool - pools.real).max() == pytest.approx(0.3, abs=1e-6)
            inside = (pool >= 0).all() and (pool <= 1).all()
            assert inside == (mode is g17.CORRECTED)
        assert pools.outside_share == (0.0 if mode is g17.CORRECTED else 1.0)
        assert 0 <= pools.adversarial_accuracy <= pools.clean_accuracy <= 1


def test_channels_come_with_their_mean(toy):
    found = size_sweeps.size_sweep(
        g17.CORRECTED, [6, 4], epsilon=0.1, images=0, draws=3, rng=np.random.default_rng(0), image_sets=["cifar10"]
    )
    assert [(r.row, r.size) for r in found] == [
        (row, size) for row in ("CIFAR-10 (red)", "CIFAR-10 (green)", "CIFAR-10 (blue)", "CIFAR-10 (combined)")
        for size in (6, 4)
    ]  # fmt: skip
    channels = [r for r in found if r.size == 4]
    np.testing.assert_allclose(channels[3].r1, np.mean([r.r1 for r in channels[:3]], axis=0))
    np.testing.assert_allclose(channels[3].own["noise"], np.mean([r.own["noise"] for r in channels[:3]], axis=0))
    assert not channels[3].settings


def test_one_suspect_is_given_twice(toy):
    (found,) = size_sweeps.size_sweep(
        g17.AS_PUBLISHED, [1], epsilon=0.3, images=0, draws=3, rng=np.random.default_rng(1), numerator_size=15,
        image_sets=["mnist"],
    )  # fmt: skip
    again = np.random.default_rng(1)
    pools = size_sweeps.attacked_pools(g17.AS_PUBLISHED, "mnist", 0.3, 0, again)
    a = np.stack([again.choice(60, 15, replace=False) for _ in range(3)])
    b = np.stack([again.choice(60, 1, replace=False) for _ in range(3)])
    for t in range(3):
        x, y = pools.clean[a[t], 0], pools.real[b[t, [0, 0]], 0]
        assert found.size == 1
        assert found.r2[t] == pytest.approx(ULSIF(kernel="unsquared").fit(x, y).mean_ratio_, rel=1e-9)


@pytest.mark.parametrize(
    ("sizes", "extra", "word"),
    [([], {}, "sizes"), ([5, 0], {}, "sizes"), ([61], {}, "size"), ([5], {"numerator_size": 61}, "numerator_size"),
     ([5], {"draws": 1}, "draws")],
)  # fmt: skip
def test_impossible_sweeps_are_named(toy, sizes, extra, word):
    arguments = {"epsilon": 0.1, "images": 0, "draws": 2, "rng": np.random.default_rng(0), "image_sets": ["mnist"]}
    with pytest.raises(ValueError, match=word):
        size_sweeps.size_sweep(g17.CORRECTED, sizes, **{**arguments, **extra})


def test_same_generator_same_numbers_and_smaller_sizes_share_the_draws(toy):
    def run(sizes):
        return size_sweeps.size_sweep(
            g17.CORRECTED, sizes, epsilon=0.1, images=0, draws=2, rng=np.random.default_rng(3), image_sets=["mnist"]
        )

    first, second = run([9, 5]), run([9, 5])
    np.testing.assert_array_equal(first[1].r1, second[1].r1)
    # The largest size rules the draws, so a size in between changes nothing.
    np.testing.assert_array_equal(run([9, 7, 5])[2].r2, first[1].r2)


def test_welch_and_usual_setting():
    differs = result(*apart())
    assert differs.p_value < 1e-20 and result(*together()).p_value == pytest.approx(1)
    tied = result([1, 1, 1, 1], [1, 1, 1, 1], lambdas=[0.1, 0.1, 0.01, 0.01])
    assert tied.usual_setting("r2") == (1.0, 0.01)
    assert result([1, 1, 1], [1, 1, 1], lambdas=[0.1, 0.1, 0.01]).usual_setting("r2") == (1.0, 0.1)


def test_a_sweep_is_recorded_from_the_largest_size_down():
    run = record.start("99_test", profile="quick", seed=0)
    size_sweeps.record_sweep(run, [result([3, 3], [1, 1], size=5), result([2, 2], [1, 1], size=50)], "sweep")
    assert run.metrics["sweep.as published.MNIST.r1"] == [2, 3]
    assert run.metrics["sweep.as published.MNIST.attack.auroc"] == [1, 1]
    assert run.metrics["sweep.as published.MNIST.accuracy"] == [0.99, 0.1, 0.6]


def test_accuracies_and_usual_settings_are_said_once_each():
    rows = [result([2, 2], [1, 1], row=row, size=n) for row in nb03.FIGURE3 for n in (9, 5)]
    assert size_sweeps.accuracy_lines(rows) == [
        f"{name}, as published: accuracy 0.99, under FGSM 0.10, under noise 0.60" for name in ("MNIST", "CIFAR-10")
    ]
    assert size_sweeps.usual_lines(rows[:1]) == ["MNIST, as published, 9 images: R1 σ 1, λ 0.01; R2 σ 1, λ 0.01"]


# ---------------------------------------------------------------------------------------------- one image


@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
def test_single_image_map_is_what_ulsif_gives(kernel):
    rng = np.random.default_rng(0)
    numerators, suspects = rng.normal(size=(3, 20, 7)), rng.normal(size=(3, 7)) + 0.5
    grid = (0.3, 1.0, 4.0), (0.001, 0.1, 10.0)
    found = measure.single_image_map(numerators, suspects, kernel, *grid)
    assert found.shape == (3, 3, 3)
    for t in range(3):
        for s, sigma in enumerate(grid[0]):
            for k, lambda_ in enumerate(grid[1]):
                fit = ULSIF([sigma], [lambda_], kernel=kernel).fit(numerators[t], suspects[t][None])
                assert found[t, s, k] == pytest.approx(fit.mean_ratio_, rel=1e-8)


def test_alternatives_for_one_image(toy):
    settings_ = {"batch_size": 12, "epsilon": 0.3, "images": 0, "draws": 4}
    found = measure.single_image_alternatives(g17.AS_PUBLISHED, **settings_, rng=np.random.default_rng(2))
    again = np.random.default_rng(2)
    pools = size_sweeps.attacked_pools(g17.AS_PUBLISHED, "mnist", 0.3, 0, again)
    a, b = (np.stack([again.choice(60, 12, replace=False) for _ in range(4)]) for _ in range(2))
    assert len(found.alternatives) == 6 and set(found.needs_answer) <= set(found.alternatives)
    own = found.alternatives["each draw's own, chosen on two images"]
    twice = found.alternatives["the image twice, leave-one-out as usual"]
    for t in range(4):
        x = pools.clean[a[t], 0]
        chosen = ULSIF(kernel="unsquared").fit(x, pools.adversarial[b[t, :2], 0])
        one = ULSIF([chosen.sigma_], [chosen.lambda_], kernel="unsquared").fit(x, pools.adversarial[b[t, :1], 0])
        assert own.r1[t] == pytest.approx(one.mean_ratio_, rel=1e-8)
        again_twice = ULSIF(kernel="unsquared").fit(x, pools.adversarial[b[t, [0, 0]], 0])
        assert twice.r1[t] == pytest.approx(again_twice.mean_ratio_, rel=1e-9)
    # Settings that serve both sides are one cell of the map for both.
    for what, both in found.alternatives.items():
        if what.endswith("for both"):
            cells = [
                (s, k) for s in range(9) for k in range(9)
                if np.allclose(found.maps["r1"][:, s, k], both.r1) and np.allclose(found.maps["r2"][:, s, k], both.r2)
            ]  # fmt: skip
            assert cells


def test_settings_in_both_bands_needs_both():
    (_, r1, r2) = measure.published_table3()[-1]
    maps = {side: np.full((2, 9, 9), 1e-6) for side in ("r1", "r2")}
    maps["r1"][:, 6, 0], maps["r2"][:, 6, 1] = r1.value, r2.value
    assert measure.SingleImage(maps, {}, ()).settings_in_both_bands() == []
    maps["r2"][:, 6, 0] = r2.value
    assert measure.SingleImage(maps, {}, ()).settings_in_both_bands() == [(DEFAULT_GRID[6], DEFAULT_GRID[0])]


# ---------------------------------------------------------------------------------------------- judgements


def test_table_3_is_whole():
    rows = measure.published_table3()
    assert [m for m, *_ in rows] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert (rows[0][1].value, rows[0][2].value, rows[-1][1].value, rows[-1][2].value) == (19.24, 1.55, 22.16, 6.48)
    # The bands say something: a ratio of 1 agrees with no printed R2.
    assert all(measure.table3_band(r2)[0] > 1 for _, _, r2 in rows)


@given(value=st.floats(0.5, 50), half=st.floats(0, 5))
@settings(max_examples=50, deadline=None)
def test_a_band_holds_both_reasons_to_differ(value, half):
    entry = published.Published("g17", "Table 3", "MNIST", "R1 m=9", value, value - half, value + half, "x")
    low, high = measure.table3_band(entry)
    reach = (high - low) / 2
    assert (low + high) / 2 == pytest.approx(value)
    assert reach >= g17.TOLERANCE * value * (1 - 1e-9) and reach >= math.sqrt(2) * half * (1 - 1e-9)
    assert reach <= g17.TOLERANCE * value + math.sqrt(2) * half + 1e-9
    edge = value + reach * 0.999
    assert judge.table3_verdict(entry, 0.0, edge) == "reproduced"
    assert judge.table3_verdict(entry, edge, value + reach * 1.001) == "reproduced as published only"
    assert judge.table3_verdict(entry, value + reach * 1.001, value - reach * 1.001) == "not reproduced"


def test_every_number_of_table_3_gets_a_comparison_with_a_cause():
    run = record.start("99_test", profile="quick", seed=0)
    results = []
    for m, r1, r2 in measure.published_table3():
        results.append(result([r1.value * 1.1] * 3, [r2.value] * 3, size=m, lambdas=[0.001, 0.01, 1]))
        results.append(result([1.0] * 3, [50.0] * 3, mode="corrected", size=m))
    twice = protocol.RatioComparison(np.full(3, 22.0), np.full(3, 6.5))
    other = protocol.RatioComparison(np.full(3, 22.0), np.full(3, 1.0))
    single = measure.SingleImage({}, {"twice": twice, "fixed": other}, ())
    judge.record_table3(run, results, single)
    assert len(run.comparisons) == 18
    rows = {c["column"]: c for c in run.comparisons.values()}
    assert {c["verdict"] for c in rows.values()} == {"reproduced as published only"}
    assert all(c["cause"] for c in rows.values())
    assert rows["R2 m=2"]["cause"].count("33%") == 1
    assert rows["R1 m=1"]["cause"].endswith("come out of: twice") and "twice" not in rows["R1 m=2"]["cause"]
    listed = judge.table3_causes(run)
    assert sum(line.count("m=") for line in listed) == 18 and listed[0].startswith("R1 m=9, R1 m=8, ")
    assert list(judge.table3_frame(run).index) == [
        measure.table3_column(s, m) for m in range(9, 0, -1) for s in ("r1", "r2")
    ]


def test_a_mean_that_few_draws_carry_is_named_and_a_miss_counted():
    run = record.start("99_test", profile="quick", seed=0)
    (m, r1, r2), single = measure.published_table3()[0], measure.SingleImage({}, {}, ())
    skewed = [1.0, 1.0, 3 * r2.value - 2]
    judge.record_table3(
        run, [result([r1.value * 2] * 3, [r2.value] * 3, size=m), result([1.0] * 3, skewed, "corrected", m)], single
    )
    rows = {c["column"]: c for c in run.comparisons.values()}
    assert rows["R2 m=9"]["verdict"] == "reproduced" and "median is 1.00" in rows["R2 m=9"]["cause"]
    assert rows["R1 m=9"]["verdict"] == "not reproduced" and "+100%" in rows["R1 m=9"]["cause"]


def test_a_number_that_agrees_without_a_difference_says_so_and_medians_are_joined():
    run = record.start("99_test", profile="quick", seed=0)
    results = []
    for k, (m, r1, r2) in enumerate(measure.published_table3()[:2]):
        few = [1.0, 1.0 + k / 10, 3 * r2.value - 2 - k / 10]
        results.append(result([r1.value * 2] * 3, [r2.value * 3] * 3, size=m))
        results.append(result([r1.value] * 3, few if k else [r1.value * 2] * 3, "corrected", m))
    judge.record_table3(run, results, measure.SingleImage({}, {}, ()))
    rows = {c["column"]: c for c in run.comparisons.values()}
    assert rows["R1 m=9"]["verdict"] == "reproduced" and "corrected R2 is no smaller" in rows["R1 m=9"]["cause"]
    assert rows["R1 m=8"]["cause"] == "as published it does not agree"
    assert rows["R2 m=8"]["cause"].endswith("its median is 1.10; as published it does not agree")
    run.compare(rows["R2 m=8"] | {"column": "R2 m=7", "cause": "a few: its median is 2.00"})
    run.compare(rows["R2 m=8"] | {"column": "R2 m=6", "cause": "a few: its median is 1.50"})
    assert judge.table3_causes(run)[-1] == "R2 m=7, R2 m=6: a few: its median is 1.50 to 2.00"


def test_figure_3_claims_by_their_definitions():
    def table(at_10, at_80, modes=("as published", "corrected")):
        return [
            result(*values, mode=mode, size=size, row=row)
            for mode in modes for row in nb03.FIGURE3 for size, values in ((10, at_10), (80, at_80))
        ]  # fmt: skip

    def verdicts(results):
        return {c["row"]: c["verdict"] for c in nb03.judge_figure3(results)}

    names = ["deteriorates-with-sample-size", "difference-persists", "ten-samples-suffice"]
    r1, r2 = apart()
    assert verdicts(table((r1, r2), (r1 / 5, r2))) == dict.fromkeys(names, "reproduced")
    assert verdicts(table(together(), together())) == dict.fromkeys(names, "not reproduced")
    # Means far apart, and yet a fifth of the batches is not flagged.
    mixed = np.where(np.arange(40) % 5 == 0, 1.0, r1)
    found = verdicts(table((mixed, r2), (r1 / 5, r2)))
    assert found["ten-samples-suffice"] == "not reproduced" and found["difference-persists"] == "reproduced"
    # R1 below R2 is no difference of the kind the paper means.
    assert verdicts(table((r2, r1), (r2, r1)))["difference-persists"] == "not reproduced"
    both = table((r1, r2), (r1 / 5, r2), ["as published"]) + table(together(), together(), ["corrected"])
    assert set(verdicts(both).values()) == {"reproduced as published only"}
    other = table(together(), together(), ["as published"]) + table((r1, r2), (r1 / 5, r2), ["corrected"])
    for claim in nb03.judge_figure3(other):
        assert claim["verdict"] == "reproduced" and claim["cause"].startswith("as published it does not hold; ")


def test_real_life_claims_by_their_definitions():
    def verdicts(one, many, other):
        mnist = [
            result(*values, mode=mode, size=size)
            for mode in MODES for size, values in ((9, many), (1, one))
        ]  # fmt: skip
        cifar = [result(*other, mode=mode, size=9, row="CIFAR-10 (combined)") for mode in MODES]
        return [c["verdict"] for c in judge.judge_table3(mnist, cifar)]

    assert verdicts(apart(), apart(), apart()) == ["reproduced", "reproduced"]
    assert verdicts(together(), apart(), apart()) == ["not reproduced", "reproduced"]
    assert verdicts(apart(), apart(), together()) == ["reproduced", "not reproduced"]
    with pytest.raises(ValueError, match="mnist must hold a size of 1"):
        judge.judge_table3([result(*apart(), size=2)], [])


def test_claims_name_rows_of_the_published_file():
    mnist = [result(*apart(), mode=mode, size=1) for mode in MODES]
    cifar = [result(*apart(), mode=mode, size=1, row="CIFAR-10 (combined)") for mode in MODES]
    figure3 = [result(*apart(), mode=mode, size=n, row=row) for mode in MODES for row in nb03.FIGURE3 for n in (10, 80)]
    run = record.start("99_test", profile="quick", seed=0)
    for comparison in nb03.judge_figure3(figure3) + judge.judge_table3(mnist, cifar):
        run.compare(comparison)
        assert published.lookup("g17", "claim", comparison["row"]).source and comparison["cause"]


def test_r2_is_split_by_lambda_without_loss():
    r2 = np.array([1.0, 2.0, 9.0, 30.0])
    one = result(r2, r2, size=1, lambdas=[1.0, 0.01, 0.003, 0.001])
    table = measure.clean_r2_by_lambda([one])
    assert table["contribution"].sum() == pytest.approx(r2.mean()) and table["share"].sum() == pytest.approx(1)
    assert table.set_index("lambda").loc[0.001, "mean"] == 30
    # The grid's own 0.01 is not below 0.01, whatever its last bit.
    grid = result(r2, r2, lambdas=[DEFAULT_GRID[2], DEFAULT_GRID[1], DEFAULT_GRID[0], DEFAULT_GRID[3]])
    assert measure.out_of_reach_share(grid) == 0.5


def test_frames_have_a_line_for_each_result():
    results = [result(*apart(), mode=mode, size=n) for mode in MODES for n in (20, 10)]
    assert len(size_sweeps.size_frame(results)) == 4
    parts = nb03.parts_frame(results[:2])
    # Nothing is taken off here, and all draws chose one λ.
    assert list(parts["AUROC of R"]) == list(parts["AUROC without own kernels"]) == ["1.00", "1.00"]
    assert list(parts["AUROC of the chosen λ"]) == ["0.50", "0.50"]
    single = measure.SingleImage({}, {"twice": results[0].attack, "each side's": results[0].attack}, ("each side's",))
    frame = measure.alternatives_frame({"as published": single})
    assert list(frame["AUROC"]) == ["", "1.00", "needs the answer"]
