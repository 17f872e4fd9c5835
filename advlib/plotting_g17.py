"""G17's figures of notebooks 03 to 06 and 12: sample size, transferability, real life, crafting, forensics.

Every function takes results and returns a matplotlib Figure; style and colours are those of `advlib.plotting`.
"""
