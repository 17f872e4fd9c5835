"""Notebook 07_boundary_attack: its experiment, its verdicts, its figures."""
