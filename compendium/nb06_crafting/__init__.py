"""Notebook 06_crafting: its experiment, its verdicts, its figures."""
