"""Balls around a reference set: density, coverage, precision and recall, exact and fast.

The reference manifold of Naeem et al. (2020) [1]_ puts around every reference point a ball that reaches to its k-th
nearest *other* reference point. Density counts in how many balls a query falls, coverage how many balls hold a query.

**What is exact.** One distance decides everything: ``sqrt(sum((a - b)**2))`` in float64, differences taken directly,
summed by NumPy along the features. Radii and queries go through the same arithmetic, so a query that equals the k-th
neighbour lies on the ball's edge, and under the strict ``<`` outside. Every count equals that of a brute force over
this distance.

**What makes it fast.** Nearly all pairs are far from any edge, and a coarse product proves it. Points are centred
and rounded to bfloat16, x ≈ x̂ with a measured residual e(x) = ‖x − x̂‖. The triangle inequality gives

    | ‖q − x‖ − ‖q̂ − x̂‖ | ≤ e(q) + e(x),

and products of bfloat16 numbers are exact in float32, so the matrix product of the x̂ is wrong by at most the rounding
of its sum, γ ‖q̂‖ ‖x̂‖ with γ ≈ d·2⁻²⁴ [2]_. Norms and radii ride along as six more columns, so that the sign of the
product answers "can q lie in the ball of x?" and one comparison is all that each pair costs. The few pairs
inside the proved band go on to the distance above. Where the bands are wide for many pairs at once (tight clusters far
apart) a float64 product of the tile narrows them first. Radii start from an upper bound that a sample of the columns
gives, so that fitting, too, asks one question per pair.

**What was tried** (timed in `benchmarks/manifold.py`; table in `results/reference/benchmarks.md`). bfloat16 products
against float32 ones, float64 tiles, and the coarse product as a whole earn their lines. faiss' flat search is slower
than this module: it multiplies in float32 and sorts neighbours that nobody asks for. An int8 grid is exact on
images of whole grey levels, but elsewhere one step for all numbers makes the bands far wider than bfloat16's (about ten
times for Gaussian data). Principal components rule out points early on images, yet leave several pairs a query
undecided, which costs what the shorter product saves until N is some ten thousand. Half of the symmetric product in
`fit` would need a second comparison of every pair, and comparing is what costs most beside the product.

References
----------
.. [1] M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi and J. Yoo, "Reliable fidelity and diversity metrics for generative
   models", ICML 2020, PMLR 119:7176-7185, eqs. 3-4.
.. [2] N. J. Higham, "Accuracy and stability of numerical algorithms", 2nd ed., SIAM 2002, §3.1 (γ_n bounds),
   doi:10.1137/1.9780898718027.
"""

from advlib.prdc.manifold import DensityCoverage, ReferenceManifold
from advlib.prdc.metrics import expected_coverage, prdc

__all__ = ["DensityCoverage", "ReferenceManifold", "expected_coverage", "prdc"]
