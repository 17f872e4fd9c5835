"""The figures of notebook 13: null distributions, calibration, power.

Every function takes results and returns a matplotlib Figure; style and colours are those of `advlib.plotting`.
"""
