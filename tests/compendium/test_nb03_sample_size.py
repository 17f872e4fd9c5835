"""Notebook 03: the sentences of G17 §4.3 are judged by their definitions."""

import numpy as np
from size_results import MODES, apart, result, together

from compendium import nb03_sample_size as nb03
from compendium.claims import published, record


def judged(results):
    run = record.start("03_sample_size", profile="quick", seed=0)
    nb03.judge(run, results)
    return {comparison["row"]: comparison for comparison in run.comparisons.values()}


def test_figure_3_claims_by_their_definitions():
    def table(at_10, at_80, modes=("as published", "corrected")):
        return [
            result(*values, mode=mode, size=size, row=row)
            for mode in modes for row in nb03.FIGURE3 for size, values in ((10, at_10), (80, at_80))
        ]  # fmt: skip

    def verdicts(results):
        return {row: c["verdict"] for row, c in judged(results).items()}

    names = ["deteriorates-with-sample-size", "difference-persists", "ten-samples-suffice"]
    r1, r2 = apart()
    assert verdicts(table((r1, r2), (r1 / 5, r2))) == dict.fromkeys(names, "reproduced")
    assert verdicts(table(together(), together())) == dict.fromkeys(names, "not reproduced")
    # Means far apart, and yet a fifth of the batches is not flagged.
    mixed = np.where(np.arange(40) % 5 == 0, 1.0, r1)
    found = verdicts(table((mixed, r2), (r1 / 5, r2)))
    assert found["ten-samples-suffice"] == "not reproduced" and found["difference-persists"] == "reproduced"
    # R1 below R2 is no difference of the kind the paper means.
    assert verdicts(table((r2, r1), (r2, r1)))["difference-persists"] == "not reproduced"
    both = table((r1, r2), (r1 / 5, r2), ["as published"]) + table(together(), together(), ["corrected"])
    assert set(verdicts(both).values()) == {"reproduced as published only"}
    other = table(together(), together(), ["as published"]) + table((r1, r2), (r1 / 5, r2), ["corrected"])
    for claim in judged(other).values():
        assert claim["verdict"] == "reproduced" and claim["cause"].startswith("as published it does not hold; ")


def test_claims_name_rows_of_the_published_file():
    figure3 = [result(*apart(), mode=mode, size=n, row=row) for mode in MODES for row in nb03.FIGURE3 for n in (10, 80)]
    for row, comparison in judged(figure3).items():
        assert published.lookup("g17", "claim", row).source and comparison["cause"]


def test_parts_of_the_ratio_are_told_apart():
    parts = nb03.parts_frame([result(*apart(), size=n) for n in (20, 10)])
    # Nothing is taken off here, and all draws chose one λ.
    assert list(parts["AUROC of R"]) == list(parts["AUROC without own kernels"]) == ["1.00", "1.00"]
    assert list(parts["AUROC of the chosen λ"]) == ["0.50", "0.50"]
