"""Radii from disk are those of a fit, and a damaged file is no source of them."""

import numpy as np
import pytest

from advlib.prdc import ReferenceManifold
from compendium.common.kept import kept_manifold

POINTS = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture
def fits(monkeypatch):
    """Count the fits."""
    done, fit = [], ReferenceManifold.fit
    monkeypatch.setattr(ReferenceManifold, "fit", lambda self, points: done.append(self.k) or fit(self, points))
    return done


def test_radii_are_found_once_for_each_reference_and_k(tmp_path, fits):
    fresh = ReferenceManifold(5).fit(POINTS)
    for _ in range(2):
        kept = kept_manifold(POINTS, 5, tmp_path)
        assert (kept.radii_ == fresh.radii_).all() and kept.density_coverage(QUERIES) == fresh.density_coverage(QUERIES)
    kept_manifold(POINTS, 3, tmp_path), kept_manifold(POINTS[:-1], 5, tmp_path)
    kept_manifold(POINTS.astype(np.float64), 5, tmp_path), kept_manifold(POINTS[:, ::-1], 5, tmp_path)
    assert fits == [5, 5, 3, 5, 5, 5] and len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:-1], lambda b: b[:40] + b"x" + b[41:], lambda b: b + b"x"]
)
def test_a_damaged_file_is_written_anew(tmp_path, fits, damage):
    fresh = kept_manifold(POINTS, 5, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert (kept_manifold(POINTS, 5, tmp_path).radii_ == fresh.radii_).all()
    assert file.read_bytes() == whole and len(fits) == 2
