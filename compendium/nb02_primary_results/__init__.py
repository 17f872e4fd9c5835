"""Notebook 02_primary_results: its experiments, what it compares with the papers, its figures."""

from typing import Any

import pandas

from compendium.common import g17, vs22
from compendium.nb02_primary_results import fgsm, judge_fgsm, table1


def replicate(run: Any) -> None:
    """Measure again what the notebook compares with the papers: Table 1 and §5.1 on the papers' own image sets.

    Parameters
    ----------
    run : record.Run
        With the parameters images, draws, batch_size, queries and seed; ε are the papers'.
    """
    sizes = {name: run.parameters[name] for name in ("images", "draws", "batch_size")}
    epsilons = table1.printed_table1().epsilon.unique().tolist()
    rerun = pandas.concat(
        [table1.rerun_table1(mode, epsilons, **sizes, rng=run.rng(mode.name), accuracies=False) for mode in g17.MODES],
        ignore_index=True,
    )
    table1.compare_numbers(run, rerun)
    table1.compare_sentences(run, rerun)
    options = {name: run.parameters[name] for name in ("queries", "batch_size")}
    sets = [vs22.SETS["mnist"], vs22.SETS["organamnist"]]
    judge_fgsm.compare_fgsm(run, [fgsm.judged(one, **options, rng=run.rng(f"fgsm {one.name}")) for one in sets])
