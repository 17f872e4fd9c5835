"""Notebook 02a: Table 1 whole, plateaus from closed form, sentences that fall with what breaks them."""

import numpy as np
import pandas
import pytest

import compendium.nb02a_density_ratio as nb02a
from advlib import models
from compendium import spread
from compendium.claims import published, record
from compendium.claims import table as claims
from compendium.common import g17
from compendium.nb02a_density_ratio import table1

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")
NOTEBOOK = "02a_density_ratio"
MODES = ("as published", "corrected")
SENTENCES = {
    "real-real-near-one", "ratio-deteriorates-with-eps", "all-comparisons-significant", "combined-single-statistic"
}  # fmt: skip


def row(name="MNIST", epsilon=0.1, mode="corrected", r1=2.0, r2=1.0, **changed):
    """Return a line of a table as `rerun_table1` gives it; intervals have no width."""
    line = {"row": name, "epsilon": epsilon, "mode": mode, "p_value": 1e-9, "auroc": 1.0, "tpr_at_5_fpr": 1.0}
    line |= {"clean_accuracy": 0.99, "adversarial_accuracy": 0.1, "zero_gradient_share": 0.02}
    line |= {"r1": r1, "r1_low": r1, "r1_high": r1, "r2": r2, "r2_low": r2, "r2_high": r2}
    return line | changed


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


# ---------------------------------------------------------------- Table 1


def test_printed_table_is_whole():
    rows = table1.printed_table1()
    assert len(rows) == 24 and set(rows.row) == set(g17.TABLE1)
    first = rows.iloc[0]
    assert (first.r1, first.r1_low, first.r1_high, first.r2) == (1.83, 1.75, 1.91, 1.32)


def test_plateaus_combine_channels_by_their_mean(monkeypatch):
    toy(monkeypatch)
    found = table1.plateaus(batch_size=20, draws=4, images=0, rng=np.random.default_rng(0))
    assert list(found.index) == list(g17.TABLE1)
    channels = found.loc[[f"CIFAR-10 ({colour})" for colour in ("red", "green", "blue")]]
    combined = found.loc["CIFAR-10 (combined)"]
    assert combined.formula == pytest.approx(np.mean(channels.formula))
    assert combined.coin_flips == pytest.approx(np.mean(channels.coin_flips))


def test_plateaus_stand_beside_print_and_paper_scale(monkeypatch):
    found = pandas.DataFrame({"coin_flips": 35.4, "formula": 35.6}, index=list(g17.TABLE1))
    stored = {"notebook": NOTEBOOK, "metrics": {"plateau.MNIST.formula": 34.64}}
    monkeypatch.setattr(record, "references", lambda profile: [stored])
    frame = table1.plateau_frame(record.Run(NOTEBOOK, {"profile": "quick", "seed": 0}), found)
    assert frame.loc["MNIST"].tolist() == [34, 35, 36, 35]
    assert frame["printed R1 at ε = 1"].tolist() == [34, 51, 42, 46, 37, 41]
    assert frame.iloc[:, 1].isna().tolist() == [False, *[True] * 5]


def test_every_printed_number_is_recorded_unrounded():
    run = record.Run(NOTEBOOK, {"profile": "quick", "seed": 0})
    rows = pandas.DataFrame(
        row(p.row, p.epsilon, mode, p.r1 / 3 * factor, p.r2)
        for p in [*table1.printed_table1().itertuples(), *pandas.DataFrame([row(epsilon=0.2)]).itertuples()]
        for mode, factor in zip(MODES, (1.0, 3.0), strict=True)
    )
    table1.record_table1(run, rows)
    table1.compare_numbers(run, rows)
    assert len(run.comparisons) == 48  # 0.2 is not printed
    one = run.comparisons["g17", "Table 1", "MNIST", "R1 eps=0.1"]
    assert one["as_published"] == pytest.approx(0.61, abs=1e-9) and one["corrected"] == pytest.approx(1.83)
    assert run.metrics["table1.corrected.MNIST.eps=0.1.r1"] == pytest.approx(1.83)


def table(changes=()):
    """Both modes of a table in which every sentence holds, but for what `changes` says of single rows."""
    sizes = list(zip((2.0, 20.0, 40.0, 39.0), (0.1, 0.3, 0.5, 1.0), strict=True))
    return pandas.DataFrame(
        row(name, epsilon, mode, **{"r1": r1, "r2": 1.1} | dict(changes).get((mode, name, epsilon), {}))
        for mode in MODES
        for name in g17.TABLE1
        for r1, epsilon in sizes
    )


def says(run):
    """Sentence → verdict of the one rule on a run's comparisons."""
    found = claims.measured([{"notebook": NOTEBOOK, "comparisons": list(run.comparisons.values())}])
    sentences = [entry for entry in published.load(item="claim") if entry.key in run.comparisons]
    return {entry.row: claims.judge(entry, found)[0] for entry in sentences}


def judged(changes=()):
    run = record.Run(NOTEBOOK, {"profile": "quick", "seed": 0})
    table1.compare_sentences(run, table(changes))
    return says(run)


@pytest.mark.parametrize(
    ("claim", "name", "epsilon", "change"),
    [
        ("real-real-near-one", "MNIST", 0.1, {"r2": 0.4}),
        ("ratio-deteriorates-with-eps", "MNIST", 0.1, {"r1": 5.0}),
        ("ratio-deteriorates-with-eps", "MNIST", 0.5, {"r1": 10.0}),
        ("all-comparisons-significant", "CIFAR-10 (red)", 1.0, {"p_value": 0.01}),
        ("all-comparisons-significant", "CIFAR-10 (red)", 1.0, {"r1": 1.05}),
        ("combined-single-statistic", "CIFAR-10 (combined)", 0.3, {"tpr_at_5_fpr": 0.9}),
        ("combined-single-statistic", "CIFAR-10 (combined)", 0.3, {"auroc": 0.94}),
    ],
)
def test_a_sentence_falls_with_the_row_that_breaks_it(claim, name, epsilon, change):
    untouched = judged()
    assert set(untouched.values()) == {"reproduced"} and set(untouched) == SENTENCES
    assert judged({("corrected", name, epsilon): change})[claim] == "reproduced by the papers' code only"
    assert judged({(mode, name, epsilon): change for mode in MODES})[claim] == "not reproduced"


def test_table1_without_accuracies_has_the_same_ratios(monkeypatch):
    """FGSM from kept directions is FGSM; a network with other weights is asked anew."""
    sets = toy(monkeypatch)
    labels = np.arange(60) % 2
    everything = {name: (images.astype(np.float32),) * 2 + (labels,) for name, images in sets.items()}
    monkeypatch.setattr(g17, "all_and_attacked", lambda name, count: everything[name])
    weights = {"sha256": "0"}
    monkeypatch.setattr(table1.models, "card", lambda name: weights)

    def network(name):
        inputs = everything[next(s for s, n in g17.CORRECTED.networks.items() if n == name)][0][0].size
        model = models.nn.Sequential(models.nn.Flatten(), models.nn.Linear(inputs, 2))
        value = 1.0 if weights["sha256"] == "0" else -1.0
        with models.torch.no_grad():
            model[1].weight.copy_(value * models.torch.tensor([[1.0], [-1.0]]).expand(2, inputs) / 9)
        return model

    monkeypatch.setattr(table1.models, "load_trained", network)

    def rerun(accuracies):
        options = {"images": 0, "draws": 3, "batch_size": 15, "rng": np.random.default_rng(1)}
        return table1.rerun_table1(g17.CORRECTED, [0.1, 0.5], **options, accuracies=accuracies)

    table1._directions.cache_clear()
    whole, lean = rerun(True), rerun(False)
    pandas.testing.assert_frame_equal(whole[list(lean.columns)], lean)
    assert "adversarial_accuracy" in whole and "adversarial_accuracy" not in lean
    weights["sha256"] = "1"
    assert not np.array_equal(rerun(False).r1, lean.r1)
    table1._directions.cache_clear()


# ---------------------------------------------------------------- once more, with other seeds and networks


def test_replicate_compares_what_the_notebook_compares():
    assert spread.REPLICATES[NOTEBOOK] == "compendium.nb02a_density_ratio"
    small = {"images": 200, "draws": 3, "batch_size": 40}
    run = record.Run(NOTEBOOK, record.profile_parameters("paper") | small | {"seed": 1})
    nb02a.replicate(run)
    assert run.metrics == {}
    assert says(run).keys() == SENTENCES
    assert [key[1] for key in run.comparisons if key[1] != "claim"] == ["Table 1"] * 48
