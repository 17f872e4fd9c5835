"""Timings of advlib's engines side by side with their peers, in one process. Never part of the tests."""
