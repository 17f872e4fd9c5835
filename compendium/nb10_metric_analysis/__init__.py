"""Notebook 10_metric_analysis: its experiment, its verdicts, its figures."""
