"""Forensics of VS22: closed forms, brute force, and the printed numbers as they stand."""

import numpy as np
import pandas
import pytest

from advlib import models
from compendium.claims import published, record
from compendium.claims import table as claims
from compendium.common import causes, vs22
from compendium.nb12b_forensics_vs22 import figures, sweeps, vs22_causes

# ---------------------------------------------------------------------------------------------- printed numbers


def test_coverage_of_the_stored_sizes():
    table = vs22_causes.coverage_by_size()
    exchangeable = table.drop("PathMNIST", level="image set")
    assert (exchangeable["expected"] - exchangeable["printed"]).abs().max() < 0.005
    path = table.xs("PathMNIST", level="image set")
    assert (path["expected"] - path["printed"]).min() > 0.05
    density, coverage = vs22_causes.printed_path_point()
    assert density == 0.83 and coverage == pytest.approx(0.49 / 0.5544, rel=1e-3)


def test_counts_that_do_not_add_up():
    facts = vs22_causes.printed_facts()
    assert list(facts["equal"]) == [False, False, True, False, False]
    assert (facts["left"].iloc[0], facts["right"].iloc[0]) == ("70000", "69100")


def test_admixture_follows_the_line_but_for_path():
    ratio = vs22_causes.admixture_lines()["ratio"]
    assert (ratio.loc[["MNIST", "OrganMNIST"]] - 1).abs().max() < 0.02
    assert (ratio.loc["PathMNIST"] - 1).abs().max() > 0.05


# ---------------------------------------------------------------------------------------------- the experiments


def test_bounds_alone_are_the_published_attack_up_to_the_kink():
    epsilons = [0.0, 0.2, 0.4, 0.8]
    curve = vs22_causes.bounds_alone("mnist", epsilons, references=300, queries=40, rng=np.random.default_rng(0))
    density = curve.pivot(index="ε", columns="attack", values="density")
    published_density, alone = (density[name].values for name in ("as published", vs22_causes.BOUNDS_ALONE))
    assert vs22.image_set("mnist").kink == pytest.approx(0.1307 / 0.3081)
    assert published_density[0] == alone[0] == density["corrected"].iloc[0]  # ε = 0 changes nothing
    untouched = curve[curve["attack"] == vs22_causes.UNTOUCHED]
    assert (untouched["density"] == 1).all() and untouched["coverage"].nunique() == 1
    np.testing.assert_allclose(published_density[:3], alone[:3], rtol=0.15)
    assert abs(published_density[3] - alone[3]) > 0.3


def test_accuracy_of_twice_normalised_images():
    table = vs22_causes.normalised_twice(["mnist"], images=60)
    row = table.loc["MNIST"]
    chosen = vs22.image_set("mnist")
    held = models.partition(chosen.network)
    part = np.arange(60) * len(held.holdout_images) // 60
    again = (held.holdout_images[part] - np.float32(0.1307)) / np.float32(0.3081)
    expected = models.accuracy(models.load_trained(chosen.network), again, held.holdout_labels[part])
    assert row["twice"] == expected and row["printed"] == pytest.approx(0.992)
    assert row["stored by the authors"] == pytest.approx(0.9895)


def test_normalisations_are_told_apart_by_the_stored_densities(monkeypatch):
    """On a small reference the curve of one normalisation, taken as the stored one, is found again."""
    whole = vs22.reference_and_holdout
    monkeypatch.setattr(vs22, "reference_and_holdout", lambda name: whole(name, 800, 200))
    first = vs22_causes.normalisations(np.random.default_rng(0))
    own = first.iloc[2, :-1].tolist()
    sizes = iter(own)
    stored = {epsilon: next(sizes) for epsilon in (vs22.EPSILONS[i] for i in (3, 6, 10, 19))}
    monkeypatch.setattr(vs22_causes, "stored_densities", lambda title: stored)
    table = vs22_causes.normalisations(np.random.default_rng(0))
    assert table["off by up to"].iloc[2] < 1e-12 < 0.05 < table["off by up to"].iloc[:2].min()
    assert table.iloc[3, :-1].tolist() == own and first.iloc[3, 0] == 1.17


def test_shifts_start_at_the_untouched_holdout():
    found = vs22_causes.shifts("mnist", references=150, queries=40, rng=np.random.default_rng(0))
    spaces = {space: rows for space, rows in found.groupby("space")}
    assert set(spaces) == {vs22_causes.PIXELS, vs22_causes.INSIDE}
    for rows in spaces.values():
        untouched, *others = (part for _, part in rows.groupby("change", sort=False))
        assert len(untouched) == 1 and len(others) == 1 + len(vs22_causes.CHANGES)
        for part in others:
            assert len(part) == 4 and part["strength"].iloc[0] == 0
            assert part["density"].iloc[0] == untouched["density"].iloc[0]
            assert part["coverage"].iloc[0] == untouched["coverage"].iloc[0]
    sharper, flatter = (
        vs22_causes.first_and_last(found, f"{word} contrast, all images", vs22_causes.PIXELS)["density"]
        for word in ("more", "less")
    )
    assert sharper["last"] < sharper["first"] == flatter["first"] < flatter["last"]
    source = vs22_causes.other_sources(["mnist"], references=150, queries=40, rng=np.random.default_rng(0))
    assert len(source) == 1 and 0 < source["coverage"].iloc[0] < 2


def test_record_holds_what_is_behind_the_causes():
    columns = ["once", "twice", "twice, cut to (0, 1)", "stored by the authors", "printed"]
    rows = {"MNIST": [0.99, 0.98, 0.98, 0.9895, 0.992], "BloodMNIST": [0.95, 0.1, 0.1, None, None]}
    twice = pandas.DataFrame.from_dict(rows, orient="index", columns=columns)
    run = record.Run("12b_forensics_vs22", {"profile": "quick", "seed": 0})
    bounds = pandas.DataFrame([("x", 0.0, 1.0, 0.4)], columns=["attack", "ε", "density", "coverage"])
    shifted = pandas.DataFrame(
        [("y", 0.0, "pixels", 0.9, 0.8)], columns=["change", "strength", "space", *bounds.columns[2:]]
    )
    by_constants = pandas.DataFrame({"off by up to": [0.8, 0.2, 0.1]})
    vs22_causes.record_vs22(run, twice, by_constants, bounds, shifted, shifted.iloc[:0])
    assert run.metrics["bounds.x.coverage"] == [0.4] and run.metrics["shift.y.density"] == [0.9]
    assert run.metrics["normalised.BloodMNIST.twice"] == 0.1 and not run.comparisons
    assert run.metrics["normaliser.MNIST.std"] == 0.3081


def test_both_ways_share_an_axis_of_pixels():
    rows = [(name, e, 1.0, 0.4) for name in ("as published", vs22_causes.BOUNDS_ALONE, "corrected") for e in (0.0, 1.0)]
    figure = figures.bounds_alone(pandas.DataFrame(rows, columns=["attack", "ε", "density", "coverage"]), 0.4, 0.25)
    ends = {line.get_label(): line.get_xdata()[-1] for line in figure.axes[0].lines if len(line.get_xdata())}
    assert ends["as the papers' code did it"] == ends[vs22_causes.BOUNDS_ALONE] == 0.25
    assert ends["as the paper describes it"] == 1
    assert ends["black pixels reach the bound: 0.40 σ, 0.10 in pixels"] == 0.1


# ---------------------------------------------------------------------------------------------- settings


def test_balls_of_every_setting_are_those_of_the_reference():
    found = sweeps.ball_sweep(references=160, queries=40, rng=np.random.default_rng(0))
    settings = found[["k", "references"]].drop_duplicates()
    assert set(settings["k"]) == set(sweeps.NEIGHBOURS) and set(settings["references"]) == {20, 40, 80, 160}
    assert len(settings) == len(sweeps.NEIGHBOURS) + len(sweeps.REFERENCE_SHARES) - 1
    by_k = found[(found["references"] == 160) & (found["ε"] == 0)].set_index("k")
    assert by_k["coverage"].is_monotonic_increasing and by_k["expected coverage"].is_monotonic_increasing
    np.testing.assert_allclose(by_k["coverage"], by_k["expected coverage"], atol=0.12)
    whole = found[(found["k"] == 5) & (found["references"] == 160)].set_index("ε")["density"]
    assert whole[0.2] != whole[0.0] and (found["density"] >= 0).all()


def test_sensitivity_to_k_is_read_off_clean_coverage():
    def verdict(at_5, at_10, of_half):
        rows = [(5, 1000, 0.0, at_5), (10, 1000, 0.0, at_10), (5, 500, 0.0, of_half), (5, 500, 0.1, 0.0)]
        balls = pandas.DataFrame(rows, columns=["k", "references", "ε", "coverage"]).assign(density=1.0)
        run = record.Run("12b_forensics_vs22", {"profile": "quick", "seed": 0})
        sweeps.record_balls(run, balls)
        assert run.metrics["balls.k=10.references=1000.eps=0.coverage"] == at_10
        key = ("vs22", "claim", "sensitivity-to-k", "")
        found = claims.measured([{"notebook": "12b_forensics_vs22", "comparisons": list(run.comparisons.values())}])
        return claims.judge(published.lookup(*key), found)[0]

    assert verdict(0.4, 0.6, 0.6) == "reproduced"
    assert verdict(0.4, 0.42, 0.6) == verdict(0.4, 0.6, 0.42) == "not reproduced"


def test_every_cause_finds_its_numbers():
    """The texts and the numbers, from frames as the notebook makes them."""
    twice = pandas.DataFrame(
        [(0.99, 0.41, 0.405, 0.991)],
        index=["OrganMNIST"],
        columns=["once", "twice", "stored by the authors", "printed"],
    )
    by_constants = pandas.DataFrame({"off by up to": [0.8, 0.2, 0.1, np.nan]})
    bounds = pandas.DataFrame(
        [(name, e, 1 + e, 0.4) for name in ("as published", vs22_causes.BOUNDS_ALONE) for e in (0.0, 0.4, 0.9)],
        columns=["attack", "ε", "density", "coverage"],
    )
    moved = pandas.DataFrame(
        [(vs22_causes.NOISE, s, space, 1 - s, 1.0) for space in ("pixels", "last hidden layer") for s in (0.0, 0.02)],
        columns=["change", "strength", "space", "density", "coverage"],
    )
    numbers = vs22_causes.numbers(twice, by_constants, bounds, moved, moved.iloc[:1])
    frame = causes.causes_frame("12b_forensics_vs22", numbers).loc["VS22"]
    assert len(frame) == 8 and not frame["effect"].str.contains("[{}]").any()
    assert frame.loc["counts that do not add up", "effect"] == "4 of 5 equalities broken"
    assert frame.loc["images normalised twice", "effect"].startswith("OrganMNIST accuracy 0.99 → 0.41; ")
    assert frame.iloc[2]["effect"].startswith("density up to 1.4 with no attack at all; ")
