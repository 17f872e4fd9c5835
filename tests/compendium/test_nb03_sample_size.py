"""Notebook 03: the sentences of G17 §4.3 are judged by their criteria."""

import numpy as np
import pytest
from judging import AGREES, DISAGREES, says
from size_results import MODES, apart, result, together, use_toy_images

from compendium import nb03_sample_size as nb03
from compendium.claims import record

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")

NAMES = ("deteriorates-with-sample-size", "difference-persists", "ten-samples-suffice")


def table(at_10, at_80, modes=MODES):
    return [
        result(*values, mode=mode, size=size, row=row)
        for mode in modes for row in nb03.FIGURE3 for size, values in ((80, at_80), (10, at_10))
    ]  # fmt: skip


def judged(results, mode="corrected"):
    run = record.Run("03_sample_size", {"profile": "quick", "seed": 0})
    nb03.record_sentences(run, results)
    return {row: says(run, row)[mode] for row in NAMES}


def test_figure_3_sentences_by_their_criteria():
    r1, r2 = apart()
    near = (r1 / 5, r2)
    assert judged(table((r1, r2 * 3), near)) == dict.fromkeys(NAMES, AGREES)
    assert judged(table(together(), together())) == dict.fromkeys(NAMES, DISAGREES)
    # R1 alone deteriorates, or nothing but R2 does.
    assert judged(table((r1, r2), near))["deteriorates-with-sample-size"] == DISAGREES
    assert judged(table((r1 / 5, r2 * 3), near))["deteriorates-with-sample-size"] == DISAGREES
    # Means far apart, and yet a fifth of the batches is not flagged.
    mixed = np.where(np.arange(40) % 5 == 0, 1.0, r1)
    found = judged(table((mixed, r2), near))
    assert found["ten-samples-suffice"] == DISAGREES and found["difference-persists"] == AGREES
    # R1 below R2 is no difference of the kind the paper means.
    assert judged(table((r2, r1), (r2, r1)))["difference-persists"] == DISAGREES


def test_each_mode_is_measured_by_itself_and_the_weakest_panel_counts():
    r1, r2 = apart()
    good = (r1, r2 * 3), (r1 / 5, r2)
    both = table(*good, ["as published"]) + table(together(), together(), ["corrected"])
    assert set(judged(both, "as published").values()) == {AGREES} and set(judged(both).values()) == {DISAGREES}
    last = nb03.FIGURE3[-1]
    one_bad = [r for r in table(*good) if r.row != last] + [r for r in table(together(), together()) if r.row == last]
    assert set(judged(one_bad).values()) == {DISAGREES}


def test_a_replicate_records_the_sentences_by_the_sizes_it_says(monkeypatch):
    use_toy_images(monkeypatch)
    monkeypatch.setattr(nb03.size_sweeps, "REPLICATED_IMAGES", 0)
    run = record.Run(
        "03_sample_size", {"seed": 0, "sample_sizes": [30, 25, 20, 12], "epsilon": 0.1, "draws": 3, "images": 0}, "1"
    )
    nb03.replicate(run)
    assert {key[2] for key in run.comparisons} == set(NAMES)
    words = run.comparisons["g17", "claim", "difference-persists", ""]["corrected"]
    assert words.endswith(f"of {3 * len(nb03.FIGURE3)} means")  # 30, 20 and 12 images


def test_parts_of_the_ratio_are_told_apart():
    parts = nb03.parts_frame([result(*apart(), size=n) for n in (20, 10)])
    # Nothing is taken off here, and all draws chose one λ.
    assert list(parts["AUROC of R"]) == list(parts["AUROC without own kernels"]) == ["1.00", "1.00"]
    assert list(parts["AUROC of the chosen λ"]) == ["0.50", "0.50"]


def test_parts_are_shown_of_the_ends_alone():
    parts = nb03.parts_frame([result(*apart(), size=n) for n in (80, 40, 10)])
    assert list(parts.index) == [("MNIST", 80), ("MNIST", 10)]
