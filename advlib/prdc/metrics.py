"""All four metrics of two sets at once, and the coverage to expect where there is no difference."""

import math
import warnings

import torch

from advlib.checks import ArrayLike, as_matrix, whole_number
from advlib.prdc.manifold import ReferenceManifold, density_of, float_type, zero_radii_words


def prdc(
    reference: ArrayLike,
    queries: ArrayLike,
    k: int = 5,
    *,
    memory_gb: float = 1.0,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Precision, recall, density and coverage, as `prdc.compute_prdc` of the package `prdc` returns them.

    Precision is the share of queries in any ball of the reference, recall the share of reference points in any ball
    of the queries (Kynkäänniemi et al. 2019, NeurIPS 32, eq. 2); density and coverage as in the package's [1]_.
    The peer computes distances as sqrt(‖x‖² + ‖y‖² − 2x·y), in the arrays' own precision: give it float64, and the
    numbers are equal unless a pair lies within that rounding of a ball's edge.

    Parameters
    ----------
    reference : (N, d) array or tensor
        N > k.
    queries : (M, d) array or tensor
        M > k: recall needs balls around the queries.
    k : int
        Neighbour that sets a ball's radius.
    memory_gb, device
        As in `ReferenceManifold`.

    Returns
    -------
    dict
        Keys precision, recall, density, coverage; floats.

    Raises
    ------
    ValueError
        As `ReferenceManifold.fit` and `ReferenceManifold.ball_counts`.
    """
    real = ReferenceManifold(k, memory_gb=memory_gb, device=device).fit(reference)
    points = as_matrix(queries, "queries", dtype=float_type(queries), device=device)
    matrix = real._as_queries(points)
    fake = ReferenceManifold(k, memory_gb=memory_gb, device=device)._fit_points(points, "queries")
    empty = int((fake.radii_ == 0).sum())
    if empty:
        warnings.warn(zero_radii_words("queries", empty, len(matrix), k), UserWarning, stacklevel=2)
    counts, covered = real._count(matrix)
    return {
        "precision": float((counts > 0).mean()),
        "recall": float((fake._count(real.reference_)[0] > 0).mean()),
        "density": density_of(counts, k),
        "coverage": float(covered.mean()),
    }


def expected_coverage(n_reference: int, n_queries: int, k: int) -> float:
    r"""Mean coverage where reference and queries are exchangeable (drawn alike, no ties).

    A ball is empty when the k points nearest to its centre, among the N − 1 other reference points and the m queries,
    are all reference points:

    .. math:: E[\text{coverage}] = 1 - \prod_{j=0}^{k-1} \frac{N - 1 - j}{N - 1 + m - j}

    It does not depend on the distribution. The mean density under the same null is 1.

    Parameters
    ----------
    n_reference : int
        N > k.
    n_queries : int
        m ≥ 1.
    k : int
        Neighbour that sets a ball's radius, k ≥ 1.

    Returns
    -------
    float
        In (0, 1).

    Raises
    ------
    ValueError
        Where the three do not fit together.
    """
    k = whole_number(k, "k", 1)
    others = whole_number(n_reference, "n_reference", k + 1) - 1
    m = whole_number(n_queries, "n_queries", 1)
    return 1.0 - math.prod((others - j) / (others + m - j) for j in range(k))
