"""A run that keeps what is recorded, and what one run says of a sentence by its criterion."""

import numpy as np

from compendium.claims import published, rule
from compendium.claims.table import criteria


class Recorder:
    """Stands in for `record.Run`."""

    def __init__(self, **parameters):
        self.parameters, self.network = {"seed": 0, **parameters}, "0"
        self.metrics, self.comparisons = {}, {}

    def metric(self, name, value):
        self.metrics[name] = value

    def compare(self, row):
        key = tuple(row[part] for part in ("paper", "item", "row", "column"))
        published.lookup(*key)
        self.comparisons[key] = row

    def rng(self, purpose):
        return np.random.default_rng(len(purpose))

    def ours(self, item, row, column):
        """What was recorded of a number: as published, corrected."""
        found = self.comparisons["vs22", item, row, column]
        return found["as_published"], found["corrected"]

    def says(self, row, mode="corrected"):
        """What a recorded sentence's statistics say by its criterion."""
        return says(row, self.comparisons["vs22", "claim", row, ""]["statistics"][mode])

    def sentences(self):
        return {row for _, item, row, _ in self.comparisons if item == "claim"}


def says(row, statistics):
    """What statistics say of a sentence of VS22 by its criterion."""
    bounds = criteria()["vs22", "claim", row, ""]["bounds"]
    return rule.judge_sentence(bounds, {name: {"0": [value]} for name, value in statistics.items()}).says


def criteria_of(notebook):
    """Sentences of VS22 with bounds that a notebook judges."""
    return {key[2] for key, entry in criteria().items() if entry["notebook"] == notebook and entry["bounds"]}
