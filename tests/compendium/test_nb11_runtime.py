"""VS22 App. D: speed-ups are judged by what was timed, and drawn whatever was left out."""

import numpy as np
import pytest
from recorded import Recorder, criteria_of, says

from compendium import nb11_runtime as nb11
from compendium.claims import published


def timed(n, prdc, ours):
    return {"n": n, "fit_s": ours / 2, "score_s": ours / 2, "product_s": ours / 3, "prdc_s": prdc}


@pytest.mark.parametrize(("prdc", "word"), [(10, "disagrees"), (89, "disagrees"), (95, "agrees")])
def test_nearly_a_hundred_times_is_judged_by_the_largest_size_that_prdc_ran_at(prdc, word):
    run = Recorder()
    nb11.judge_runtime(run, [timed(1000, 500, 1), timed(5000, prdc, 1), timed(10_000, None, 3)])
    assert run.sentences() == criteria_of("11_runtime")
    assert run.says("runtime-100x") == word
    assert run.ours("Appendix D", "all", "speed-up over prdc") == (None, prdc)
    seconds = {key[2:]: row["corrected"] for key, row in run.comparisons.items() if key[1] == "Figure 13"}
    assert seconds == {("prdc", "seconds n=1000"): 500, ("prdc", "seconds n=5000"): prdc}


def test_the_stored_seconds_decide_as_published_and_flip_it(monkeypatch):
    times = [timed(1000, 50, 1), timed(5000, 10, 1)]
    run = Recorder()
    nb11.judge_runtime(run, times)
    stored = {n: nb11.published_seconds()["prdc"][n] / s for n, s in nb11.published_seconds()["n2gem GPU"].items()}
    assert nb11.published_speedups()["n2gem GPU"] == stored
    assert run.says("runtime-100x", "as published") == says(
        "runtime-100x", {"speed-up over prdc at the largest size": stored[max(stored)]}
    )
    slow = {
        name: {n: 2 * s if name != "prdc" else s for n, s in of.items()}
        for name, of in nb11.published_seconds().items()
    }
    monkeypatch.setattr(nb11, "published_seconds", lambda: {name: dict(of) for name, of in slow.items()})
    nb11.judge_runtime(run, times)
    assert run.says("runtime-100x", "as published") == "disagrees"


def test_growth_is_the_exponent():
    assert nb11.growth({10: 1.0, 100: 100.0, 30: 9.0}) == pytest.approx(2)
    run = Recorder()
    nb11.judge_runtime(run, [timed(1000, 1, 1), timed(4000, 16, 4)])
    assert run.metrics["growth exponent, here"] == pytest.approx({"prdc": 2, "ours": 1})
    assert set(run.metrics["growth exponent, stored seconds"]) == {
        entry.row for entry in published.load("vs22", "Figure 13")
    }


def test_ours_and_prdc_agree_and_contenders_are_timed():
    rows = nb11.manifold_times([200, 300], 8, 200, 1, np.random.default_rng(0))
    assert [row["agree"] for row in rows] == [True, None] and rows[1]["prdc_s"] is None
    assert all(row[name] > 0 for row in rows for name in ("fit_s", "score_s", "product_s"))
    assert len(nb11.speedups(rows, nb11.published_speedups()).axes) == 2


def test_every_line_of_the_figure_has_its_colour_and_the_published_ones_are_there_in_seconds_too():
    rows = [timed(1000, 10, 1), timed(5000, None, 2)]
    gpu = [{"n": 1000, "gpu_s": 0.1, "prdc_s": 1.0}, {"n": 50_000, "gpu_s": 1.0, "prdc_s": None}]
    beta, seconds = nb11.speedups(rows, nb11.published_speedups(), gpu).axes
    drawn = {tuple(np.round(line.get_ydata(), 6)): line.get_color() for line in seconds.lines if len(line.get_ydata())}
    for name, values in nb11.published_seconds().items():
        there = tuple(np.round(list(values.values()), 6))
        assert (there in drawn) is (name != "prdc") and drawn.get(there, "#000000") == "#000000"
    assert drawn[(1.0, 2.0)] == drawn[(0.1, 1.0)] == nb11.CORRECTED and drawn[(10.0,)] == nb11.AS_PUBLISHED
    assert [tick.get_text() for tick in beta.get_xticklabels()] == ["1,000", "5,000", "10,000", "25,000", "50,000"]
    assert all(axis.get_ylabel() for axis in (beta, seconds))


def test_what_is_said_of_a_row_is_in_it(tmp_path, monkeypatch):
    assert nb11.in_words(timed(5000, 10.0, 2.0)) == (
        "n =   5000: fit 1 s, score 1 s, bare products 0.67 s; prdc 10 s, β = 5"
    )
    assert nb11.in_words(timed(50_000, None, 2.0)).endswith("prdc not run")
    assert nb11.in_words(timed(5000, 123.4, 1.0)).endswith("prdc 120 s, β = 120")  # no exponent
    fit = {"n": 25, "ours_s": 0.001, "densratio_s": 0.05}
    assert nb11.in_words(fit) == "n =   25: ours 1 ms a fit, densratio 50 ms"
    manifold, ulsif = nb11.stored_rows()
    assert {"fit_s", "prdc_s"} <= set(manifold[0]) and {"ours_s", "densratio_s"} <= set(ulsif[0])
    monkeypatch.setattr(nb11.record, "reference_path", lambda *_: tmp_path / "none.json")
    assert nb11.stored_rows() == ([], [])


def test_the_ratio_of_the_fits_is_drawn_beside_their_seconds():
    times = [{"n": 25, "ours_s": 0.001, "densratio_s": 0.05}, {"n": 50, "ours_s": 0.002, "densratio_s": 0.2}]
    seconds, ratio = nb11.ulsif_speedups(times).axes
    drawn = [list(line.get_ydata()) for line in ratio.lines if len(line.get_ydata())]
    assert [pytest.approx([50, 100])] == drawn
    assert "seconds" in seconds.get_title() and "densratio" in ratio.get_title()
