"""Notebook 05_real_life_m: its experiment, its verdicts, its figures."""
