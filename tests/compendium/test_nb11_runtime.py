"""VS22 App. D: speed-ups are judged by what was timed, and drawn whatever was left out."""

import numpy as np
import pytest

from compendium import nb11_runtime as nb11
from compendium.claims import published


class Recorder:
    notebook = "11_runtime"

    def __init__(self):
        self.comparisons = {}

    def compare(self, row):
        self.comparisons[tuple(row[part] for part in ("paper", "item", "row", "column"))] = row


def timed(n, prdc, ours):
    return {"n": n, "fit_s": ours / 2, "score_s": ours / 2, "product_s": ours / 3, "prdc_s": prdc}


@pytest.mark.parametrize(
    ("prdc", "word"), [(10, "reproduced as published only"), (89, "reproduced as published only"), (95, "reproduced")]
)
def test_nearly_a_hundred_times_is_judged_by_the_largest_size_that_prdc_ran_at(prdc, word):
    run = Recorder()
    cause = nb11.judge_runtime(run, [timed(1000, 500, 1), timed(5000, prdc, 1), timed(10_000, None, 3)])
    sentence = run.comparisons["vs22", "claim", "runtime-100x", ""]
    number = run.comparisons["vs22", "Appendix D", "all", "speed-up over prdc"]
    assert sentence["verdict"] == number["verdict"] == word
    assert sentence["corrected"] == number["corrected"] == prdc
    assert sentence["cause"] == number["cause"] == cause and f"ours gives {prdc} at n = 5,000" in cause
    for key in run.comparisons:
        published.lookup(*key)
    seconds = [key for key in run.comparisons if key[1] == "Figure 13"]
    assert ("vs22", "Figure 13", "prdc", "seconds n=10000") not in seconds and len(seconds) == 5
    assert {run.comparisons[key]["verdict"] for key in seconds} == {"not run here"}


def test_ours_and_prdc_agree_and_contenders_are_timed():
    rows = nb11.manifold_times([200, 300], 8, 200, 1, np.random.default_rng(0))
    assert [row["agree"] for row in rows] == [True, None] and rows[1]["prdc_s"] is None
    assert all(row[name] > 0 for row in rows for name in ("fit_s", "score_s", "product_s"))
    assert len(nb11.speedups(rows, nb11.published_speedups()).axes) == 2


def test_a_ratio_is_written_beside_each_fit():
    times = [{"n": 25, "ours_s": 0.001, "densratio_s": 0.05}, {"n": 50, "ours_s": 0.002, "densratio_s": 0.2}]
    (axis,) = nb11.ulsif_speedups(times).axes
    assert [text.get_text() for text in axis.texts] == ["× 50", "× 100"]
