"""Notebook 12_forensics: its experiment, its verdicts, its figures."""
