"""Notebook 02a_density_ratio: its experiment, what it compares with the papers, its figure."""

from typing import Any

import pandas

from compendium.common import g17
from compendium.nb02a_density_ratio import table1


def replicate(run: Any) -> None:
    """Measure again what the notebook compares with G17: Table 1.

    Parameters
    ----------
    run : record.Run
        With the parameters images, draws, batch_size and seed; ε are the paper's.
    """
    sizes = {name: run.parameters[name] for name in ("images", "draws", "batch_size")}
    epsilons = table1.printed_table1().epsilon.unique().tolist()
    rerun = pandas.concat(
        [table1.rerun_table1(mode, epsilons, **sizes, rng=run.rng(mode.name), accuracies=False) for mode in g17.MODES],
        ignore_index=True,
    )
    table1.compare_numbers(run, rerun)
    table1.compare_sentences(run, rerun)
