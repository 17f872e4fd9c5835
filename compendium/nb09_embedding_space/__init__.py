"""Notebook 09_embedding_space: its experiment, its verdicts, its figures."""
