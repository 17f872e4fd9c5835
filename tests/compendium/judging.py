"""What the rule says of a single run's sentence, for the tests of the notebooks' modules."""

from compendium.claims import rule, table

AGREES, DISAGREES = rule.AGREES, rule.DISAGREES


def says(run, row, paper="g17"):
    """Mode → outcome of a sentence that a run has recorded."""
    key = (paper, "claim", row, "")
    bounds = table.criteria()[key]["bounds"]
    return {
        mode: rule.judge_sentence(bounds, {name: {"0": [value]} for name, value in found.items()}).says
        for mode, found in run.comparisons[key]["statistics"].items()
    }
