"""Balls by brute force, the peer package, and families of points that are hard in one way each."""

import contextlib
import io

import numpy as np
import prdc as peer

from advlib.prdc import ReferenceManifold


def distances(points, others):
    """The module's distance, written as anybody would: float64, direct differences."""
    points, others = np.asarray(points, float), np.asarray(others, float)
    return np.stack([np.sqrt(((point - others) ** 2).sum(axis=-1)) for point in points])


def brute_radii(reference, k):
    between = distances(reference, reference)
    np.fill_diagonal(between, np.inf)
    return np.sort(between, axis=1)[:, k - 1]


def brute_inside(reference, queries, k):
    """(M, N) bool: query strictly inside ball."""
    return distances(queries, reference) < brute_radii(reference, k)


def assert_exact(reference, queries, k, **settings):
    manifold = ReferenceManifold(k, **settings).fit(reference)
    inside = brute_inside(reference, queries, k)
    np.testing.assert_array_equal(manifold.radii_, brute_radii(reference, k))
    np.testing.assert_array_equal(manifold.ball_counts(queries), inside.sum(axis=1))
    np.testing.assert_array_equal(manifold.hits(queries).toarray(), inside)
    density, coverage = manifold.density_coverage(queries)
    assert density == 1 / k * inside.sum(axis=1).mean()
    assert coverage == inside.any(axis=0).mean()
    return manifold


def compute_peer(reference, queries, k):
    with contextlib.redirect_stdout(io.StringIO()):
        return peer.compute_prdc(np.asarray(reference, float), np.asarray(queries, float), k)


def gaussian(rng, n, d):
    return rng.normal(size=(n, d))


def offset(rng, n, d):
    """Far from the origin: ‖x‖² + ‖y‖² − 2x·y would lose its digits here."""
    return 1e4 + rng.normal(size=(n, d))


def tight_clusters(rng, n, d):
    """Every pair within a cluster is closer than the coarse rounding."""
    return 100.0 * rng.integers(0, 4, size=(n, 1)) + 1e-3 * rng.normal(size=(n, d))


def duplicated(rng, n, d):
    """Most points exist two to four times."""
    return rng.normal(size=(max(n // 3, 4), d))[rng.integers(0, max(n // 3, 4), size=n)]


def grid(rng, n, d):
    """Few distinct distances: ties at the radius everywhere."""
    return rng.integers(0, 3, size=(n, d)) / 4


def heavy_tailed(rng, n, d):
    return rng.standard_cauchy(size=(n, d)) ** 3


def pixels(rng, n, d):
    """Multiples of 1/255 with a spread like that of images, and off that grid for half of the points."""
    images = np.clip(rng.normal(0.2, 0.4, size=(n, d)), 0, 1)
    images[::2] = np.round(images[::2] * 255) / 255
    return images


FAMILIES = [gaussian, offset, tight_clusters, duplicated, grid, heavy_tailed, pixels]
