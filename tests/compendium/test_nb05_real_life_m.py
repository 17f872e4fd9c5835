"""Notebook 05: closed forms for one suspect, what is recorded of Table 3 and of the sentences."""

import numpy as np
import pytest
from judging import AGREES, DISAGREES, says
from size_results import MODES, apart, result, together, use_toy_images

from advlib.ulsif import DEFAULT_GRID, ULSIF
from compendium import nb05_real_life_m as nb05
from compendium.claims import record
from compendium.common import g17, protocol, size_sweeps
from compendium.nb05_real_life_m import judge, measure

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


@pytest.fixture
def toy(monkeypatch):
    use_toy_images(monkeypatch)


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
    own = found.alternatives["σ, λ of each draw, chosen with a second image"]
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


def test_least_off_counts_the_worse_of_both_numbers_up_or_down():
    (_, r1, r2) = measure.published_table3()[-1]
    assert measure.off_by(r1.value, r2.value) == 1
    assert measure.off_by(r1.value * 2, r2.value) == pytest.approx(2)
    assert measure.off_by(r1.value * 2, r2.value / 3) == pytest.approx(3)
    maps = {side: np.full((2, 9, 9), 1e-6) for side in ("r1", "r2")}
    maps["r1"][:, 6, 0], maps["r2"][:, 6, 1] = r1.value, r2.value  # each alone helps nothing
    maps["r1"][:, 3, 2], maps["r2"][:, 3, 2] = r1.value * 2, r2.value
    pairs = {
        "one side": protocol.RatioComparison(np.full(3, r1.value), np.ones(3)),
        "both, nearly": protocol.RatioComparison(np.full(3, r1.value * 1.5), np.full(3, r2.value)),
    }
    single = measure.SingleImage(maps, pairs, ())
    assert single.best_fixed() == (DEFAULT_GRID[3], DEFAULT_GRID[2], pytest.approx(2))
    assert single.least_off() == "both, nearly"


# ---------------------------------------------------------------------------------------------- what is recorded


def test_table_3_is_whole():
    rows = measure.published_table3()
    assert [m for m, *_ in rows] == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert (rows[0][1].value, rows[0][2].value, rows[-1][1].value, rows[-1][2].value) == (19.24, 1.55, 22.16, 6.48)


def test_every_number_of_table_3_is_recorded_as_it_is():
    run = record.Run("05_real_life_m", {"profile": "quick", "seed": 0})
    results = []
    for m, r1, r2 in measure.published_table3():
        results.append(result([r1.value, r1.value, r1.value + 0.003], [r2.value] * 3, size=m))
        results.append(result([1.0] * 3, [1.0, 1.0, 58.0], mode="corrected", size=m))
    judge.record_table3(run, results)
    assert len(run.comparisons) == 18
    rows = {c["column"]: c for c in run.comparisons.values()}
    for m, r1, r2 in measure.published_table3():
        assert rows[f"R1 m={m}"]["as_published"] == pytest.approx(r1.value + 0.001, abs=1e-9)  # not rounded
        assert rows[f"R2 m={m}"]["as_published"] == pytest.approx(r2.value)
        assert rows[f"R2 m={m}"]["corrected"] == pytest.approx(20)
    assert rows["R2 m=9"]["cause"] == "median of the draws: as published 1.55, corrected 1.00"
    assert [c for c in rows if "twice" in rows[c]["cause"]] == ["R1 m=1", "R2 m=1"]
    assert list(rows) == [f"{side} m={m}" for m in range(9, 0, -1) for side in ("R1", "R2")]


def test_real_life_sentences_by_their_criteria():
    def outcomes(one, many, other, mode="corrected"):
        mnist = [
            result(*values, mode=mode, size=size)
            for mode in MODES for size, values in ((9, many), (1, one))
        ]  # fmt: skip
        cifar = [result(*other, mode=mode, size=9, row="CIFAR-10 (combined)") for mode in MODES]
        run = record.Run("05_real_life_m", {"profile": "quick", "seed": 0})
        judge.record_claims(run, mnist, cifar)
        return [says(run, row)[mode] for row in ("single-adversarial-sample", "same-on-other-data")]

    assert outcomes(apart(), apart(), apart()) == [AGREES, AGREES]
    assert outcomes(together(), apart(), apart()) == [DISAGREES, AGREES]
    assert outcomes(apart(), apart(), together()) == [AGREES, DISAGREES]
    assert outcomes(apart(), together(), apart()) == [AGREES, DISAGREES]  # better on the other data is not similar
    r1, r2 = apart()
    for share, expected in ((0.5, AGREES), (0.45, DISAGREES)):
        mixed = np.where(np.arange(40) < 40 * share, r1, 1.0)
        assert outcomes((mixed, r2), apart(), apart())[0] == expected
    with pytest.raises(ValueError, match="mnist must hold a size of 1"):
        run = record.Run("05_real_life_m", {"profile": "quick", "seed": 0})
        judge.record_claims(run, [result(*apart(), size=2)], [])


def test_a_replicate_records_the_table_and_both_sentences(toy, monkeypatch):
    monkeypatch.setattr(nb05, "REPLICATED_IMAGES", 0)
    sizes = [9, 8, 7, 6, 5, 4, 3, 2, 1]
    given = {"suspect_sizes": sizes, "batch_size": 12, "epsilon": 0.3, "draws": 3, "images": 0}
    run = record.Run("05_real_life_m", {"seed": 0, "cifar_sizes": sizes, "cifar_draws": 2, **given}, "1")
    nb05.replicate(run)
    assert len(run.comparisons) == 18 + 2
    words = run.comparisons["g17", "claim", "same-on-other-data", ""]["corrected"]
    assert [f"m = {m}" in words for m in (9, 5, 1, 8)] == [True, True, True, False]
    assert run.comparisons["g17", "claim", "single-adversarial-sample", ""]["cause"] == ""  # no control was drawn


def test_r2_is_split_by_lambda_without_loss():
    r2 = np.array([1.0, 2.0, 9.0, 30.0])
    one = result(r2, r2, size=1, lambdas=[1.0, 0.01, 0.003, 0.001])
    table = measure.clean_r2_by_lambda([one])
    assert table["contribution"].sum() == pytest.approx(r2.mean()) and table["share"].sum() == pytest.approx(1)
    assert table.set_index("lambda").loc[0.001, "contribution"] == 7.5  # a quarter of 30
    # The grid's own 0.01 is not below 0.01, whatever its last bit.
    grid = result(r2, r2, lambdas=[DEFAULT_GRID[2], DEFAULT_GRID[1], DEFAULT_GRID[0], DEFAULT_GRID[3]])
    assert measure.out_of_reach_share(grid) == 0.5


def test_alternatives_are_shown_with_what_they_need():
    pair = result(*apart()).attack
    single = measure.SingleImage({}, {"twice": pair, "each side's": pair}, ("each side's",))
    frame = measure.alternatives_frame({"as published": single})
    assert list(frame["AUROC"]) == ["", "1.00", "knows the side"]
    assert frame["R1"].iloc[0] == "22 (21 to 23)"
