"""Forensics of G17: the peer's own choice, closed forms, brute force, and the printed intervals as they stand."""

import numpy as np
import pandas
import pytest
import torch
from scipy.special import softmax

from advlib.ulsif import DEFAULT_GRID, ULSIF
from compendium.common import causes
from compendium.nb12a_forensics_g17 import figures, g17_causes, sweeps
from compendium.nb12a_forensics_g17.g17_causes import BASE, VARIANTS

SIZES = (0.1, 0.3)


def two_samples(seed: int, n: int = 30, m: int = 30, d: int = 4, shift: float = 0.3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(shift, 1.2, (m, d))


# ---------------------------------------------------------------------------------------------- densratio's score


@pytest.mark.parametrize(("n", "m"), [(30, 30), (20, 35), (35, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_the_defective_score_makes_densratios_own_choice(seed, n, m):
    densratio = pytest.importorskip("densratio").densratio
    numerator, denominator = two_samples(seed, n, m)
    peer = densratio(numerator, denominator, alpha=0, kernel_num=n, verbose=False)
    scores = g17_causes.densratio_scores(numerator, denominator)
    i, j = np.unravel_index(scores.argmin(), scores.shape)
    assert (DEFAULT_GRID[i], DEFAULT_GRID[j]) == pytest.approx((peer.kernel_info.sigma, peer.lambda_))


@pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")
@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
def test_without_the_defect_it_is_the_exact_leave_one_out(kernel):
    numerator, denominator = two_samples(3, 25, 30)
    exact = ULSIF(kernel=kernel).fit(numerator, denominator).loocv_scores_
    whole = g17_causes.densratio_scores(numerator, denominator, kernel=kernel, defect=False)
    np.testing.assert_allclose(whole, exact, rtol=1e-6, atol=1e-9)
    assert not np.allclose(g17_causes.densratio_scores(numerator, denominator, kernel=kernel), exact, rtol=1e-3)


def test_the_defect_can_change_the_choice():
    """Or the test above could not tell one score from the other."""
    differs = 0
    for seed in range(40):
        numerator, denominator = two_samples(seed, 15, 15, 2)
        one, other = (g17_causes.densratio_scores(numerator, denominator, defect=defect) for defect in (True, False))
        differs += one.argmin() != other.argmin()
    assert differs > 0


# ---------------------------------------------------------------------------------------------- one at a time


@pytest.fixture
def small(monkeypatch):
    """Replace MNIST by stripes and its networks by a linear one."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    images = (0.2 + 0.1 * rng.random((60, 1, 5, 5))).astype(np.float32)
    images[labels == 1, :, :2] += 0.4
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(rng.normal(size=(2, 25)).astype(np.float32)))

    def attacked(name, count):
        return images, images[: count or None], labels[: count or None]

    monkeypatch.setattr(g17_causes, "all_and_attacked", attacked)
    monkeypatch.setattr(g17_causes, "test_images", lambda name, count: attacked(name, count)[1:])
    monkeypatch.setattr(g17_causes.models, "load_trained", lambda name: model)
    return model, images, labels


def rerun(variants):
    options = {"images": 40, "draws": 3, "batch_size": 12, "rng": np.random.default_rng(1)}
    return g17_causes.one_at_a_time(SIZES, variants=variants, **options)


@pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")
def test_means_over_both_samples_are_those_of_single_fits(small):
    _, images, labels = small
    found = rerun([VARIANTS[0], VARIANTS[3]])
    assert VARIANTS[3].over == "denominator"
    base, over = (found[(found["variant"] == v.name) & (found["ε"] == 0.3)] for v in (VARIANTS[0], VARIANTS[3]))
    rng = np.random.default_rng(1)
    a = np.stack([rng.choice(60, 12, replace=False) for _ in range(3)])
    b = np.stack([rng.choice(40, 12, replace=False) for _ in range(3)])
    signs = g17_causes.attacks.gradient_signs(small[0], images[:40], labels[:40])
    moved = (images[:40] + np.float32(0.3) * signs).reshape(40, -1)
    for t in range(3):
        fit = ULSIF(kernel="unsquared").fit(images.reshape(60, -1)[a[t]], moved[b[t]])
        assert base["ratio"].iloc[t] == pytest.approx(fit.mean_ratio_, rel=1e-6)
        assert over["ratio"].iloc[t] == pytest.approx(fit.predict(moved[b[t]]).mean(), rel=1e-6)
        assert tuple(base[["σ", "λ"]].iloc[t]) == pytest.approx((fit.sigma_, fit.lambda_))


def test_each_variant_changes_one_thing_and_all_see_the_same_draws(small):
    for variant in VARIANTS[1:-2]:
        changed = [name for name in vars(BASE) if name != "name" and getattr(variant, name) != getattr(BASE, name)]
        assert len(changed) == 1, variant.name
    found = rerun(VARIANTS)
    r2 = {name: rows["ratio"].values for name, rows in found[found["ε"] == 0].groupby("variant")}
    # R2 knows no attack, so what changes the attack alone leaves it alone.
    np.testing.assert_array_equal(r2["clipped to [0, 1]"], r2["as published"])
    np.testing.assert_array_equal(r2["VS22's network"], r2["as published"])
    assert not np.array_equal(r2["squared distance in the kernel"], r2["as published"])
    means = g17_causes.by_epsilon(found)
    assert means.loc["as published", 0.0] == pytest.approx(r2["as published"].mean())


def test_lambda_grids_keep_two_values_a_decade():
    assert g17_causes.lambda_grid(1e-3) == pytest.approx(DEFAULT_GRID)
    for smallest in (1e-4, 1e-2, 1.0):
        grid = g17_causes.lambda_grid(smallest)
        assert grid[0] == pytest.approx(smallest) and grid[-1] == pytest.approx(10)
        assert np.diff(np.log10(grid)) == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------------- plateau, direction


def test_plateau_goes_with_one_over_the_smallest_lambda():
    plateaus = g17_causes.plateau_by_lambda(
        [1e-4, 1e-3], images=150, draws=2, batch_size=60, rng=np.random.default_rng(0)
    )
    assert list(plateaus["row"].unique()) == list(g17_causes.PLATEAU_ROWS)
    np.testing.assert_allclose(plateaus["measured"], plateaus["predicted"], rtol=1e-3)
    for _, predicted in plateaus.groupby("row")["predicted"]:
        assert predicted.iloc[0] == pytest.approx(10 * predicted.iloc[1])
    with pytest.raises(ValueError, match=r"smallest must hold the default grid's 0\.001"):
        g17_causes.plateau_by_lambda([1e-2], images=50, draws=2, batch_size=10, rng=np.random.default_rng(0))


def test_saturated_share_counts_softmaxes_of_one():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [0.0]]))
    lead = np.array([5, 15, 18, 200, -200], np.float32)  # float32's softmax rounds to 1 from about 17 on
    share = g17_causes.saturated_share(model, lead.reshape(5, 1, 1, 1), np.zeros(5, int))
    rounded = softmax(np.stack([lead, 0 * lead], 1).astype(np.float64), axis=1)[:, 0].astype(np.float32) == 1
    assert share == rounded.mean() == 0.4


# ---------------------------------------------------------------------------------------------- printed numbers


def test_pooled_half_width_is_that_of_pooled_samples():
    rng = np.random.default_rng(0)
    samples = rng.normal([[1.0], [4.0], [6.0]], [[0.5], [1.0], [2.0]], (3, 100))
    # What the function computes from rounded summaries, here from the samples themselves.
    halves = g17_causes.stats.t.ppf(0.975, 99) * samples.std(1, ddof=1) / 10
    deviations = halves * 10 / g17_causes.stats.t.ppf(0.975, 99)
    spread = np.sqrt((deviations**2).mean() + np.var(samples.mean(1)))
    assert spread == pytest.approx(samples.std(), rel=0.01)


def test_printed_intervals_are_pooled_ones():
    r1 = g17_causes.pooled_intervals()
    assert len(r1) == 6
    # Printed intervals are rounded to 0.01, and so is each of the three they are computed from.
    assert ((r1["printed"] - r1["pooled"]).abs() <= 0.02).all()
    assert ((r1["printed"] - r1["independent"]).abs() > 0.02).any()
    assert (r1["independent"] <= r1["together"] + 1e-12).all()


def test_real_real_ratios_of_two_tables_do_not_go_together():
    table = g17_causes.real_real_across_tables()
    assert len(table) == 3 and (table["p"] < 0.001).all()
    np.testing.assert_allclose(table["Table 1"], 1.31)


def test_a_ratio_near_zero_is_drawn_at_the_edge_and_said():
    found = pandas.DataFrame([("v", 0.1, 0.001), ("v", 0.3, 20.0), ("v", 0.0, 1.0)], columns=["variant", "ε", "ratio"])
    (axis,) = figures.one_at_a_time(found, [1.8, 20.7]).axes
    assert [text.get_text() for text in axis.texts] == ["below 0.1"]
    assert axis.lines[0].get_xdata().tolist() == [1.8, 0.1]


# ---------------------------------------------------------------------------------------------- settings


@pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")
def test_every_estimator_sees_the_same_draws():
    options = {"images": 60, "draws": 3, "batch_size": 20}
    found = sweeps.ratio_sweep([0.3], **options, rng=np.random.default_rng(0))
    assert len(found) == 2 * len(sweeps.ESTIMATORS)
    r1 = found.set_index(["mode", "setting"])["R1"]["as published"]
    base = r1["as it is: 9 σ, 9 λ, 100 centres"]
    assert r1["50 centres"] == base  # 20 images are all centres in both
    assert r1["10 centres"] != base and r1["λ from 0.01"] < base
    shown = sweeps.ranges(found).loc["as the software of 2017 does it, ε = 0.3"]
    assert shown["R1"].endswith("(as it is)") and float(shown["smallest"].split()[0]) < float(shown["R1"].split()[0])
    assert len(sweeps.FINE) == 17 and set(np.round(DEFAULT_GRID, 12)) <= set(np.round(sweeps.FINE, 12))


def test_every_cause_finds_its_numbers():
    """The texts and the numbers, from frames as the notebook makes them."""
    epsilons = (0.1, 0.3, 0.5, 1.0, 0.0)
    found = pandas.DataFrame(
        [(variant.name, epsilon, 10 * epsilon, 1.0, 0.1) for variant in VARIANTS for epsilon in epsilons],
        columns=["variant", "ε", "ratio", "σ", "λ"],
    )
    plateaus = pandas.DataFrame([("MNIST", 1e-3, 35.6, 35.5)], columns=["row", "smallest λ", "predicted", "measured"])
    columns = ["wrong direction", "accuracy, float32", "accuracy, exact"]
    directed = pandas.DataFrame([(0.1, 0.5, 0.4), (0.2, 0.32, 0.13)], index=["a", "b"], columns=columns)
    frame = causes.causes_frame("12a_forensics_g17", g17_causes.numbers(found, plateaus, directed)).loc["G17"]
    assert len(frame) == 8 and set(frame["sure"]) == {"certain", "likely", "open"}
    assert frame.loc["distance not squared in the kernel", "effect"] == "R1 at ε = 1: 10 → 10"
    assert frame.loc["plateau ‖ĥ‖²/λ_min", "effect"].startswith("MNIST: 36 predicted, 36 measured; ")
    assert (
        "20% of pixels go the wrong way, accuracy 0.32 → 0.13" in frame.loc["float32 loses FGSM's direction", "effect"]
    )
