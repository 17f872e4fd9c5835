"""Notebook 02_primary_results: its experiment, its verdicts, its figures."""
