"""Notebook 12a_forensics_g17: its experiments, its causes, its figure."""
