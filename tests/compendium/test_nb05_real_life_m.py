"""Notebook 05: closed forms for one suspect, bands of Table 3, verdicts by their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from size_results import MODES, apart, result, together, use_toy_images

from advlib.ulsif import DEFAULT_GRID, ULSIF
from compendium.claims import published, record
from compendium.common import g17, protocol, size_sweeps
from compendium.nb05_real_life_m import judge, measure

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


@pytest.fixture
def toy(monkeypatch):
    use_toy_images(monkeypatch)


def judged(mnist, cifar):
    run = record.start("05_real_life_m", profile="quick", seed=0)
    judge.judge_claims(run, mnist, cifar)
    return list(run.comparisons.values())


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
        chosen = ULSIF(kernel="unsquared").fit(x, pools.suspects["r1"][b[t, :2], 0])
        one = ULSIF([chosen.sigma_], [chosen.lambda_], kernel="unsquared").fit(x, pools.suspects["r1"][b[t, :1], 0])
        assert own.r1[t] == pytest.approx(one.mean_ratio_, rel=1e-8)
        again_twice = ULSIF(kernel="unsquared").fit(x, pools.suspects["r1"][b[t, [0, 0]], 0])
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
    assert measure.table3_agrees(edge, entry) and measure.table3_agrees(value - reach * 0.999, entry)
    assert not measure.table3_agrees(value + reach * 1.001, entry)
    assert not measure.table3_agrees(value - reach * 1.001, entry)


def test_every_number_of_table_3_gets_a_comparison_with_a_cause():
    run = record.start("99_test", profile="quick", seed=0)
    results = []
    for m, r1, r2 in measure.published_table3():
        results.append(result([r1.value * 1.1] * 3, [r2.value] * 3, size=m, lambdas=[0.001, 0.01, 1]))
        results.append(result([1.0] * 3, [50.0] * 3, mode="corrected", size=m))
    twice = protocol.RatioComparison(np.full(3, 22.0), np.full(3, 6.5))
    other = protocol.RatioComparison(np.full(3, 22.0), np.full(3, 1.0))
    single = measure.SingleImage({}, {"twice": twice, "fixed": other}, ())
    judge.judge_table3(run, results, single)
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
    judge.judge_table3(
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
    judge.judge_table3(run, results, measure.SingleImage({}, {}, ()))
    rows = {c["column"]: c for c in run.comparisons.values()}
    assert rows["R1 m=9"]["verdict"] == "reproduced" and "corrected R2 is no smaller" in rows["R1 m=9"]["cause"]
    assert rows["R1 m=8"]["cause"] == "as published it does not agree"
    assert rows["R2 m=8"]["cause"].endswith("its median is 1.10; as published it does not agree")
    run.compare(rows["R2 m=8"] | {"column": "R2 m=7", "cause": "a few: its median is 2.00"})
    run.compare(rows["R2 m=8"] | {"column": "R2 m=6", "cause": "a few: its median is 1.50"})
    assert judge.table3_causes(run)[-1] == "R2 m=7, R2 m=6: a few: its median is 1.50 to 2.00"


def test_real_life_claims_by_their_definitions():
    def verdicts(one, many, other):
        mnist = [
            result(*values, mode=mode, size=size)
            for mode in MODES for size, values in ((9, many), (1, one))
        ]  # fmt: skip
        cifar = [result(*other, mode=mode, size=9, row="CIFAR-10 (combined)") for mode in MODES]
        return [c["verdict"] for c in judged(mnist, cifar)]

    assert verdicts(apart(), apart(), apart()) == ["reproduced", "reproduced"]
    assert verdicts(together(), apart(), apart()) == ["not reproduced", "reproduced"]
    assert verdicts(apart(), apart(), together()) == ["reproduced", "not reproduced"]
    with pytest.raises(ValueError, match="mnist must hold a size of 1"):
        judged([result(*apart(), size=2)], [])


def test_r2_is_split_by_lambda_without_loss():
    r2 = np.array([1.0, 2.0, 9.0, 30.0])
    one = result(r2, r2, size=1, lambdas=[1.0, 0.01, 0.003, 0.001])
    table = measure.clean_r2_by_lambda([one])
    assert table["contribution"].sum() == pytest.approx(r2.mean()) and table["share"].sum() == pytest.approx(1)
    assert table.set_index("lambda").loc[0.001, "mean"] == 30
    # The grid's own 0.01 is not below 0.01, whatever its last bit.
    grid = result(r2, r2, lambdas=[DEFAULT_GRID[2], DEFAULT_GRID[1], DEFAULT_GRID[0], DEFAULT_GRID[3]])
    assert measure.out_of_reach_share(grid) == 0.5


def test_claims_name_rows_of_the_published_file():
    mnist = [result(*apart(), mode=mode, size=1) for mode in MODES]
    cifar = [result(*apart(), mode=mode, size=1, row="CIFAR-10 (combined)") for mode in MODES]
    for comparison in judged(mnist, cifar):
        assert published.lookup("g17", "claim", comparison["row"]).source and comparison["cause"]


def test_alternatives_are_shown_with_what_they_need():
    pair = result(*apart()).attack
    single = measure.SingleImage({}, {"twice": pair, "each side's": pair}, ("each side's",))
    frame = measure.alternatives_frame({"as published": single})
    assert list(frame["AUROC"]) == ["", "1.00", "needs the answer"]
