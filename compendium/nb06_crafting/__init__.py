"""Notebook 06_crafting: its experiment, what it records, its figures."""
