"""Notebook 04_transferability: its experiment, its verdicts, its figures."""
