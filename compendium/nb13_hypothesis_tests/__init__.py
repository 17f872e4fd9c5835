"""Notebook 13_hypothesis_tests: its experiment, its verdicts, its figures."""
