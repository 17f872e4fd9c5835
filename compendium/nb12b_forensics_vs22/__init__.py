"""Notebook 12b_forensics_vs22: its experiments, its causes, its figure."""
