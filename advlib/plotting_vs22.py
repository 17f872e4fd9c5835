"""VS22's figures of notebooks 02 (part B) and 07 to 10: density and coverage under attack.

Every function takes results and returns a matplotlib Figure; style and colours are those of `advlib.plotting`.
"""
