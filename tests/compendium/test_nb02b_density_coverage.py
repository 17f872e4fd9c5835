"""Notebook 02b: sentences that fall with the curves that break them, curves measured."""

import dataclasses

import numpy as np
import pytest

import compendium.nb02b_density_coverage as nb02b
from compendium import spread
from compendium.claims import published, record
from compendium.claims import table as claims
from compendium.common import vs22
from compendium.nb02b_density_coverage import fgsm, figures, judge_fgsm
from compendium.nb02b_density_coverage.fgsm import FgsmResult

NOTEBOOK = "02b_density_coverage"
MODES = ("as published", "corrected")


def says(run):
    """Sentence → verdict of the one rule on a run's comparisons."""
    found = claims.measured([{"notebook": NOTEBOOK, "comparisons": list(run.comparisons.values())}])
    sentences = [entry for entry in published.load(item="claim") if entry.key in run.comparisons]
    return {entry.row: claims.judge(entry, found)[0] for entry in sentences}


def curve(density, coverage, clean=(1.0, 0.4)):
    """Return a curve over ε of given density and coverage, whose sub-batches hardly spread."""

    def score(density, coverage):
        near = np.linspace(-0.01, 0.01, 41)
        return vs22.Score(density, coverage, density + near, (coverage + near).clip(0, 1) / 2, 0.01, 0.9)

    scores = tuple(score(*pair) for pair in zip(density, coverage, strict=True))
    return vs22.Curve("", np.linspace(0, 1, len(scores)), score(*clean), scores, 2000, 200, 100, 5)


def test_a_crossing_is_interpolated_where_a_raised_curve_first_falls_below():
    x = np.linspace(0, 1, 5)
    assert judge_fgsm.crossing(x, np.array([1.0, 2.0, 0.0, 2.0, 0.0]), 1.0) == pytest.approx(0.375)
    assert judge_fgsm.crossing(x, np.array([0.5, 0.9, 2.0, 3.0, 4.0]), 1.0) is None  # never comes back
    assert judge_fgsm.crossing(x, np.array([1.0, 0.9, 0.5, 0.4, 0.3]), 1.0) is None  # never above


HUMP = ([1.0, 1.5, 1.3, 0.2], [0.4, 0.5, 0.45, 0.05])


def results(density=HUMP[0], coverage=HUMP[1], clean=(1.0, 0.4), **changed):
    """Both sets of the paper that are here, in both modes, by default with a hump as VS22 draw it."""
    one = dataclasses.replace(curve(density, coverage, clean), n_reference=2000, n_queries=203)
    one = dataclasses.replace(one, **changed.pop("curve", {}))
    options = {"noise": dict.fromkeys(MODES, one), "spread": {mode: [1.0, 0.9, 0.9, 0.8] for mode in MODES}} | changed
    sets = vs22.SETS["mnist"], vs22.SETS["organamnist"]
    return {chosen.title: FgsmResult(chosen, dict.fromkeys(MODES, one), **options) for chosen in sets}


def falling(accuracy):
    """Curves with a score of another accuracy at each ε."""
    scores = [dataclasses.replace(score, accuracy=a) for score, a in zip(curve(*HUMP).scores, accuracy, strict=True)]
    return {"curve": {"scores": tuple(scores)}}


def with_organ(**changed):
    """Return results in which OrganMNIST alone is changed."""
    return results() | {"OrganMNIST": results(**changed)["OrganMNIST"]}


FAR = {"density": [1.5, 1.5, 1.4, 1.2], "coverage": [0.5, 0.5, 0.45, 0.43]}
FLIPS = {
    "accuracies-below-par": (results(**falling([0.99, 0.9, 0.6, 0.2])), results(**falling([0.99, 0.9, 0.8, 0.6]))),
    "fgsm-density-differs-at-every-eps": (results(**FAR), results()),
    "fgsm-both-differ-at-every-eps": (results(**FAR), with_organ(**FAR | {"coverage": [0.5, 0.5, 0.41, 0.45]})),
    "organ-density-like-mnist": (results(), with_organ(density=[1.0, 0.9, 0.4, 0.1])),
    "coverage-alike-on-all-data": (results(), with_organ(coverage=[0.4, 0.3, 0.35, 0.5])),
    "density-near-one-confirms-iid": (results(**FAR), results()),
    "density-rises-for-geometry": (
        results(), results(noise=dict.fromkeys(MODES, curve([1.0, 1.2, 1.1, 0.5], [0.4] * 4))),
    ),
    "large-eps-separates": (results(), with_organ(density=[1.0, 1.5, 1.3, 0.6])),
    "coverage-depends-on-sample-count": (results(), results(clean=(1.0, 0.3))),
    "density-unbounded-coverage-bounded": (results(), results(density=[0.5, 0.6, 0.7, 0.2], clean=(0.5, 0.4))),
    "coverage-fall-is-lost-diversity": (results(), results(spread={mode: [1.0] * 4 for mode in MODES})),
}  # fmt: skip


def measured(found):
    run = record.Run(NOTEBOOK, {"profile": "quick", "seed": 0})
    judge_fgsm.compare_fgsm(run, list(found.values()))
    return run


@pytest.mark.parametrize("row", FLIPS)
def test_a_sentence_on_fgsm_falls_with_the_curves(row):
    holds, fails = FLIPS[row]
    assert says(measured(holds))[row] == "reproduced"
    assert says(measured(fails))[row] == "not reproduced"


def test_a_second_bound_of_a_sentence_is_live_too():
    """What the first part of a sentence's criterion lets pass."""
    for row, found in {
        "density-near-one-confirms-iid": results(**FAR, clean=(0.7, 0.4)),
        "density-rises-for-geometry": with_organ(density=[1.0, 1.02, 0.9, 0.2]),
        "coverage-fall-is-lost-diversity": with_organ(coverage=[0.4, 0.5, 0.4, 0.3]),
        "organ-density-like-mnist": with_organ(density=[1.0, 1.5, 1.3, 0.55]),
        "coverage-depends-on-sample-count": results(curve={"clean": dataclasses.replace(
            curve(*HUMP).clean, batch_coverage=np.full(41, 0.39))}),
    }.items():  # fmt: skip
        assert says(measured(found))[row] == "not reproduced", row


def test_normalisers_that_give_the_printed_values_would_be_found():
    def word(sizes):
        return says(measured(results(clean=(1.0, 0.37), curve=sizes)))["normalisers-of-eqs-1-and-2"]

    assert word({"n_reference": 2000, "n_queries": 203}) == "not reproduced"
    assert word({"n_reference": 500, "n_queries": 500}) == "reproduced"


def test_numbers_of_fgsm_are_those_of_the_curves():
    run = measured(results())
    ours = {key[1:]: (row["as_published"], row["corrected"]) for key, row in run.comparisons.items()}
    assert ours["§5.1", "MNIST", "reference coverage"] == (0.4, 0.4)
    assert ours["§5.1", "OrganMNIST", "adversarial density peak"] == (1.5, 1.5)
    assert ours["§5.1", "MNIST", "density crossing eps"][0] == pytest.approx(2 / 3 + 0.3 / 1.1 / 3)
    assert ours["§5", "MNIST", "accuracy (%)"] == (None, 90.0)
    assert ours["stored results", "OrganMNIST", "robust accuracy (%) eps=0"] == (90.0, 90.0)
    assert ours["Table 3", "MNIST", "model images"][1] == 67900
    falls = measured(results(density=[1.0, 0.9, 0.5, 0.2])).comparisons
    assert falls["vs22", "§5.1", "MNIST", "density crossing eps"]["corrected"] == "never"
    notes = {key[1:]: row["cause"] for key, row in run.comparisons.items()}
    assert "0.0389" in notes["§5.1", "OrganMNIST", "adversarial coverage smallest"]
    assert "0.276" in notes["§5.1", "MNIST", "density crossing eps"]
    assert notes["§5.1", "OrganMNIST", "adversarial density at eps=1"] == ""
    assert "misprint" in notes["Table 3", "MNIST", "model images"]
    assert not any(key[2] == "PathMNIST" for key in run.comparisons)


def test_the_figure_shows_both_ways_in_pixels():
    run = record.Run(NOTEBOOK, {"profile": "quick", "seed": 0})
    found = results(
        **{"density": [1.0, *[0.5] * 19], "coverage": [0.4, *[0.2] * 19]}, spread={mode: [1.0] for mode in MODES}
    )
    for result in found.values():
        result.zero_gradient_share.update(dict.fromkeys(MODES, 0.0))
    judge_fgsm.record_fgsm(run, list(found.values()))
    sets = [result.image_set for result in found.values()]
    figure = figures.over_epsilon(run.metrics, sets)
    assert len(figure.axes) == 4
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    by_code, described = (lines[f"FGSM as the {way}"] for way in ("papers' code did it", "paper describes it"))
    assert by_code.get_xdata()[-1] == pytest.approx(0.3081) and described.get_xdata()[-1] == 1
    crossing = lines["crossing as printed in §5.1"]
    assert crossing.get_xdata()[0] == pytest.approx(0.38 * 0.3081) and crossing.get_ydata()[0] == 0.997
    assert run.metrics["fgsm.MNIST.std"] == [0.3081]
    covered = figures.over_epsilon(run.metrics, sets, "coverage", read=False)
    assert len(covered.axes) == 2 and covered.axes[0].get_ylabel() == "coverage"
    lines = {line.get_label(): line for line in covered.axes[0].lines}
    assert lines["FGSM as the paper describes it"].get_ydata()[1] == 0.2


def test_flag_rates_set_fgsm_beside_coin_flips():
    fallen, clean, coverage = [1.0, *[0.2] * 19], [1.0] * 20, [0.4] * 20
    attacked, tossed = (results(density=density, coverage=coverage) for density in (fallen, clean))
    found = [dataclasses.replace(attacked[title], noise=tossed[title].curves) for title in attacked]
    run = record.Run(NOTEBOOK, {"profile": "quick", "seed": 0})
    for result in found:
        result.zero_gradient_share.update(dict.fromkeys(MODES, 0.0))
        result.spread.update({mode: [1.0] for mode in MODES})
    judge_fgsm.record_fgsm(run, found)
    rates = judge_fgsm.flag_rates(run.metrics, {}, list(attacked))
    assert rates.columns.tolist() == ["ε = 0.05", "ε = 0.11", "ε = 0.16", "ε = 0.21"]
    assert list(rates.index) == [(title, what) for title in attacked for what in ("FGSM", "coin flips")]
    for title, result in attacked.items():
        power = result.curves["corrected"].decisions("density")[1]
        assert set(rates.loc[(title, "FGSM")]) == {f"{power[1]:.2f}"} != set(rates.loc[(title, "coin flips")])
    stored = {"fgsm.MNIST.corrected.density_power": [0.25] * 20}
    beside = judge_fgsm.flag_rates(run.metrics, stored, list(attacked))
    assert beside.loc[("MNIST", "FGSM"), "ε = 0.11"].endswith(" (0.25)")
    assert "(" not in beside.loc[("MNIST", "coin flips"), "ε = 0.11"]


# ---------------------------------------------------------------- once more, with other seeds and networks


def test_a_whole_set_is_run_once_for_each_network(monkeypatch):
    asked, weights = [], {"sha256": "0"}
    monkeypatch.setattr(fgsm, "fgsm_experiment", lambda chosen, **options: asked.append(chosen.name))
    monkeypatch.setattr(fgsm.models, "card", lambda name: weights)
    fgsm._whole.cache_clear()
    for digest in ("0", "1"):
        weights["sha256"] = digest
        for seed in range(2):
            for name in ("mnist", "organamnist"):
                fgsm.judged(vs22.SETS[name], queries=0, batch_size=100, rng=np.random.default_rng(seed))
    assert asked.count("mnist") == 4 and asked.count("organamnist") == 2
    fgsm._whole.cache_clear()


def test_only_what_is_judged_is_run_where_nothing_else_is_wanted():
    options = {"queries": 60, "batch_size": 20}
    whole, lean = (
        fgsm.fgsm_experiment(vs22.SETS["mnist"], **options, rng=np.random.default_rng(0), judged_only=only)
        for only in (False, True)
    )
    for mode in MODES:
        np.testing.assert_array_equal(whole.curves[mode].density, lean.curves[mode].density)
        (peak,) = lean.noise[mode].x
        assert peak == whole.curves[mode].x[1 + whole.curves[mode].density[1:].argmax()]
    assert len(whole.noise[MODES[0]].x) == 20


def test_replicate_compares_what_the_notebook_compares():
    assert spread.REPLICATES[NOTEBOOK] == "compendium.nb02b_density_coverage"
    small = {"queries": 60, "batch_size": 40}
    run = record.Run(NOTEBOOK, record.profile_parameters("paper") | small | {"seed": 1})
    nb02b.replicate(run)
    assert run.metrics == {}
    assert says(run).keys() == {*FLIPS, "normalisers-of-eqs-1-and-2"}
    items = {key[1] for key in run.comparisons}
    assert {"§4.1", "Table 3", "§5", "§5.1", "stored results"} < items and "Table 1" not in items
