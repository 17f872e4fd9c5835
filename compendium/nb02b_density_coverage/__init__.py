"""Notebook 02b_density_coverage: its experiment, what it compares with the papers, its figure."""

from typing import Any

from compendium.common import vs22
from compendium.nb02b_density_coverage import fgsm, judge_fgsm


def replicate(run: Any) -> None:
    """Measure again what the notebook compares with VS22: §5.1 on the paper's own image sets.

    Parameters
    ----------
    run : record.Run
        With the parameters queries, batch_size and seed.
    """
    options = {name: run.parameters[name] for name in ("queries", "batch_size")}
    sets = [vs22.SETS["mnist"], vs22.SETS["organamnist"]]
    judge_fgsm.compare_fgsm(run, [fgsm.judged(one, **options, rng=run.rng(f"fgsm {one.name}")) for one in sets])
