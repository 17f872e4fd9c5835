"""Gondara 2017's tables: rows complete, plateaus from closed form, verdict words by their definitions."""

import numpy as np
import pytest

from advlib.ulsif import ULSIF
from compendium import nb01_intuition as nb01
from compendium.claims import published, record
from compendium.common import g17
from compendium.common.protocol import Summary, disjoint_mean_ratio
from compendium.nb02_primary_results import table1

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


def row(name="MNIST", epsilon=0.1, mode="corrected", r1=2.0, r2=1.0):
    return g17.RatioRow(name, epsilon, mode, Summary(r1, r1, r1), Summary(r2, r2, r2), 1.0, 1.0, 0.99, 0.1, 0.02)


def toy(monkeypatch):
    """Image sets of random pixels, so that tables can be made in a second."""
    rng = np.random.default_rng(0)
    sets = {
        "mnist": rng.random((60, 1, 6, 6)),
        "cifar10-grey": rng.random((60, 1, 6, 6)),
        "cifar10": rng.random((60, 3, 6, 6)),
    }
    monkeypatch.setattr(g17, "test_images", lambda name, count: (sets[name], np.zeros(60, dtype=np.int64)))
    return sets


def test_published_table_is_whole():
    rows = g17.published_table1()
    assert len(rows) == 24 and {r.row for r in rows} == set(g17.TABLE1)
    first = rows[0]
    assert (first.r1.mean, first.r1.low, first.r1.high, first.r2.mean) == (1.83, 1.75, 1.91, 1.32)


def test_verdicts_by_definition():
    assert g17.agrees(75.0, 100.0) and g17.agrees(125.0, 100.0) and not g17.agrees(125.1, 100.0)
    assert g17.verdict(100, 1, 100) == "reproduced"
    assert g17.verdict(100, 100, 1) == "reproduced as published only"
    assert g17.verdict(100, 1, 1) == "not reproduced"


@pytest.mark.parametrize("kernel", ["gaussian", "unsquared"])
def test_disjoint_limit_is_what_ulsif_gives_out_of_reach(kernel):
    rng = np.random.default_rng(2)
    numerator = rng.normal(size=(30, 5))
    fit = ULSIF([1.5], [0.01], kernel=kernel).fit(numerator, rng.normal(size=(30, 5)) + 1e5)
    expected = disjoint_mean_ratio(numerator, 1.5, 0.01, kernel)
    assert np.mean(fit.predict(numerator)) == pytest.approx(expected, rel=1e-10)


def test_plateaus_combine_channels_by_their_mean(monkeypatch):
    toy(monkeypatch)
    found = table1.plateaus(batch_size=20, draws=4, images=0, rng=np.random.default_rng(0))
    assert list(found) == list(g17.TABLE1)
    channels = [found[f"CIFAR-10 ({colour})"] for colour in ("red", "green", "blue")]
    combined = found["CIFAR-10 (combined)"]
    assert combined.formula.mean == pytest.approx(np.mean([c.formula.mean for c in channels]))
    assert combined.coin_flips.mean == pytest.approx(np.mean([c.coin_flips.mean for c in channels]))


def test_every_printed_number_gets_a_comparison_with_a_cause(monkeypatch, tmp_path):
    run = record.start("99_test", profile="quick", seed=0)
    rows = [
        row(p.row, p.epsilon, mode, p.r1.mean * factor, p.r2.mean)
        for p in g17.published_table1()
        for mode, factor in (("as published", 1.1), ("corrected", 3.0))
    ]
    plateau = table1.Plateau(Summary(40, 39, 41), Summary(40, 39, 41), 1.0)
    table1.record_table1(run, rows, dict.fromkeys(g17.TABLE1, plateau), {})
    assert len(run.comparisons) == 48
    table = published.claims_table([{"notebook": "99_test", "comparisons": list(run.comparisons.values())}])
    mine = [claim for claim in table if claim.item == "Table 1" and claim.paper == "g17"]
    assert {c.verdict for c in mine if c.column.startswith("R1")} == {"reproduced as published only"}
    assert {c.verdict for c in mine if c.column.startswith("R2")} == {"reproduced"}
    assert all(c.cause for c in mine if c.verdict != "reproduced")
    assert any("plateau" in c.cause for c in mine) and any("unclipped" in c.cause for c in mine)
    assert table1.outside_tolerance(rows) == [] and len(table1.outside_tolerance(rows, "corrected")) == 24
    frame = table1.table1_frame(run)
    assert len(frame) == 48 and frame.loc[("MNIST", "R1 eps=0.1"), "band"] == "1.37 to 2.29"


def test_a_number_far_off_says_why():
    plateau = table1.Plateau(Summary(45, 0, 0), Summary(45, 0, 0), 1.0)
    off = row(mode="as published", r1=40.0)
    assert "about 30% of the pixels" in table1._cause("r1", row(r1=20.0), off, row(r1=90.0), plateau, {"MNIST": 0.3})
    assert "zero in 2%" in table1._cause("r1", row(r1=20.0), off, row(r1=90.0), plateau, {"MNIST": 0.3})
    assert "by chance" in table1._cause("r1", row(r1=44.0), off, row(r1=45.0), plateau, {})
    assert table1._cause("r1", row(r1=2.0), off, row(r1=2.1), plateau, {}) == ""
    assert "three channels" in table1._cause("r1", row(r1=20.0), off, row(r1=90.0), plateau, {})


def test_unmoved_share_is_read_off_a_falling_curve():
    shares = [0.0, 0.2, 0.4]
    assert table1.unmoved_share(np.array([30.0, 20.0, 10.0]), shares, 15.0) == pytest.approx(0.3)
    assert table1.unmoved_share(np.array([30.0, 20.0, 10.0]), shares, 99.0) == 0.0
    assert table1.unmoved_share(np.array([30.0, 20.0, 21.0]), shares, 20.0) == pytest.approx(0.3, abs=0.11)


def test_fewer_moved_pixels_give_smaller_ratios(monkeypatch):
    toy(monkeypatch)
    curves = table1.unmoved_pixel_curves(
        [0.0, 1.0], [0.5], batch_size=20, draws=3, images=0, rng=np.random.default_rng(0)
    )
    assert list(curves) == [name for name in g17.TABLE1 if "combined" not in name]
    assert all(curve.shape == (2, 1) and curve[0, 0] > curve[1, 0] for curve in curves.values())


def test_apart_is_two_sided():
    assert row(r1=2.0, r2=1.0).apart and row(r1=0.9, r2=1.0).apart and not row(r1=1.0, r2=1.0).apart


@pytest.mark.data
def test_too_many_images_are_refused():
    images, labels = g17.test_images("cifar10-grey", 7)
    assert images.shape == (7, 1, 32, 32) and labels.shape == (7,)
    with pytest.raises(ValueError, match="images must be at most 10000"):
        g17.test_images("mnist", 10_001)


@pytest.mark.data
def test_twins_are_misread(monkeypatch):
    (twin,) = nb01.example_twins({"mnist": 0.2}, np.random.default_rng(0))
    assert twin["said"] != twin["said_of_twin"]
    assert np.abs(twin["twin"] - twin["image"]).max() <= 0.2 + 1e-6


def table(changes=()):
    """Both modes of a table in which every sentence holds, but for what `changes` says of single rows."""
    rows = []
    for mode in ("as published", "corrected"):
        for name in g17.TABLE1:
            for r1, epsilon in zip((2.0, 20.0, 40.0, 39.0), (0.1, 0.3, 0.5, 1.0), strict=True):
                new = {"r1": Summary(r1, r1, r1), "r2": Summary(1.1, 1.1, 1.1), "p_value": 1e-9}
                new |= {"auroc": 1.0, "tpr_at_5_fpr": 1.0}
                new |= dict(changes).get((mode, name, epsilon), {})
                rows.append(g17.RatioRow(name, epsilon, mode, **new))
    return rows


@pytest.mark.parametrize(
    ("claim", "name", "epsilon", "change"),
    [
        ("real-real-near-one", "MNIST", 0.1, {"r2": Summary(0.4, 0.4, 0.4)}),
        ("ratio-deteriorates-with-eps", "MNIST", 0.1, {"r1": Summary(5, 5, 5)}),
        ("ratio-deteriorates-with-eps", "MNIST", 0.5, {"r1": Summary(10, 10, 10)}),
        ("all-comparisons-significant", "CIFAR-10 (red)", 1.0, {"p_value": 0.06}),
        ("combined-single-statistic", "CIFAR-10 (combined)", 0.3, {"tpr_at_5_fpr": 0.9}),
        ("combined-single-statistic", "CIFAR-10 (combined)", 0.3, {"auroc": 0.94}),
    ],
)
def test_a_sentence_falls_with_the_row_that_breaks_it(claim, name, epsilon, change):
    def verdicts(changes=()):
        return {c["row"]: c["verdict"] for c in table1.judge_table1(table(changes))}

    assert set(verdicts().values()) == {"reproduced"} and len(verdicts()) == 4
    one = verdicts({("corrected", name, epsilon): change})
    assert one.pop(claim) == "reproduced as published only" and set(one.values()) == {"reproduced"}
    both = {(mode, name, epsilon): change for mode in ("as published", "corrected")}
    assert verdicts(both)[claim] == "not reproduced"


def test_sentences_stand_among_the_papers_own():
    for comparison in table1.judge_table1(table()):
        assert published.lookup("g17", "claim", comparison["row"], comparison["column"]).source
        assert comparison["cause"] and comparison["as_published"] and comparison["corrected"]
