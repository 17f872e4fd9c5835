"""Notebook 08_admixture: its experiment, its verdicts, its figures."""
