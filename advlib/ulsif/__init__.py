"""Density ratios by uLSIF: one fit, or many at once with the whole grid scored by exact leave-one-out.

The ratio p_numerator / p_denominator is modelled as a sum of kernels, φ(x)·θ, with b centres drawn from the
numerator. With Φ_nu (n_nu, b) and Φ_de (n_de, b) the kernel values of the two samples,

    Ĥ = Φ_deᵀ Φ_de / n_de,   ĥ = mean of the rows of Φ_nu,   θ = max(0, (Ĥ + λ I)⁻¹ ĥ),

and (σ, λ) minimise the leave-one-out error over the first n = min(n_nu, n_de) pairs, which has a closed form.

What makes it fast, all of it exact to rounding:

- one distance matrix a draw serves every σ;
- with B = Ĥ + cλ I, c = (n_de − 1)/n_de, and z_i = Σ_{k≠i} φ(numerator_k), the left-out θ of pair i is the positive
  part of B⁻¹(z_i + s_i x_i) up to a constant, s_i = z_iᵀB⁻¹x_i / (n_de − x_iᵀB⁻¹x_i): one right-hand side a pair
  instead of three; an eigendecomposition of Ĥ turns all λ of one σ into one matrix product each;
- a weight is clamped only if it is negative. Where a bound shows that none can be, the error of each λ is a quadratic
  form of B⁻¹, which costs a hundredth of a matrix product (bound at `leave_one_out`);
- where Ĥ is so small that one or two terms of B⁻¹ = Σ_k (−Ĥ)ᵏ/(cλ)ᵏ⁺¹ are exact to machine precision, no matrix is
  factorised (proof at `leave_one_out.loo_scores`);
- the eigenvectors of the best σ give θ as well;
- draws are worked in chunks that fit the cache, one chunk a thread.

References
----------
T. Kanamori, S. Hido and M. Sugiyama, "A least-squares approach to direct importance estimation",
JMLR 10 (2009) 1391–1445, https://jmlr.org/papers/v10/kanamori09a.html, section 3 and figure 2.
"""

from advlib.ulsif.batch import BatchFit, fit_batch, fit_batch_indices
from advlib.ulsif.estimator import ULSIF
from advlib.ulsif.settings import DEFAULT_GRID, KERNELS, GridEdgeWarning

__all__ = [
    "DEFAULT_GRID",
    "KERNELS",
    "ULSIF",
    "BatchFit",
    "GridEdgeWarning",
    "fit_batch",
    "fit_batch_indices",
]
