"""What advlib.prdc promises to its callers: many batches, closed form, scikit-learn, errors, files, memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from prdc_oracles import FAMILIES, assert_exact, brute_radii
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from advlib.prdc import ReferenceManifold, expected_coverage, prdc


def test_batches_from_one_pass_equal_single_calls():
    rng = np.random.default_rng(0)
    manifold = ReferenceManifold(5).fit(rng.normal(size=(400, 6)))
    queries = rng.normal(size=(300, 6))
    hits = manifold.hits(queries)
    same_size = rng.integers(0, 300, size=(20, 42))
    ragged = [[0], np.arange(300), [5, 5, 5], rng.choice(300, 100, replace=False)]
    for batches in (same_size, ragged):
        density, coverage = manifold.subset_density_coverage(hits, batches)
        each = [manifold.density_coverage(queries[batch]) for batch in batches]
        np.testing.assert_allclose(density, [one.density for one in each], rtol=1e-14)
        np.testing.assert_array_equal(coverage, [one.coverage for one in each])


def test_hits_of_queries_that_hit_nothing():
    manifold = ReferenceManifold(2).fit(np.arange(12.0).reshape(6, 2))
    hits = manifold.hits(np.full((3, 2), 1e3))
    assert hits.shape == (3, 6) and hits.nnz == 0
    assert [values.tolist() for values in manifold.subset_density_coverage(hits, [[0], [1, 2]])] == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("n", "m", "k", "published"),
    [(20000, 2100, 5, 0.39), (67900, 2100, 5, 0.14), (54142, 4708, 5, 0.34), (30547, 5359, 5, None)],
)
def test_expected_coverage_of_the_papers_settings(n, m, k, published):
    value = expected_coverage(n, m, k)
    assert value == pytest.approx({0.39: 0.393, 0.14: 0.141, 0.34: 0.341, None: 0.554}[published], abs=5e-4)
    if published is not None:
        assert round(value, 2) == published


@pytest.mark.parametrize(("n", "m", "k"), [(60, 10, 1), (40, 40, 5), (12, 1, 11)])
def test_expected_coverage_by_simulation(n, m, k):
    """Uniform points in a square (no ties); the band is four standard errors of the simulated mean."""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(200):
        points = rng.random((n + m, 2))
        draws.append(ReferenceManifold(k).fit(points[:n]).density_coverage(points[n:]))
    error = 4 * np.std(draws, axis=0) / np.sqrt(len(draws))
    density, coverage = np.mean(draws, axis=0)
    assert abs(coverage - expected_coverage(n, m, k)) < error[1]
    assert abs(density - 1) < error[0]


def test_expected_coverage_at_its_ends():
    assert expected_coverage(2, 1, 1) == pytest.approx(0.5)
    assert expected_coverage(10, 10**9, 1) == pytest.approx(1.0, abs=1e-7)
    for wrong in ((5, 10, 5), (5, 0, 2), (5, 1, 0), (5.5, 1, 1), (5, 1, True)):
        with pytest.raises(ValueError, match=r"(n_reference|n_queries|k) must be .*at least \d+, but"):
            expected_coverage(*wrong)


def test_scikit_learn_conventions():
    manifold = ReferenceManifold(7, memory_gb=0.5)
    assert manifold.get_params() == {"k": 7, "memory_gb": 0.5, "device": None, "partial": None}
    assert clone(manifold).set_params(k=3).k == 3
    with pytest.raises(NotFittedError):
        manifold.ball_counts(np.zeros((1, 2)))
    points = np.random.default_rng(0).normal(size=(50, 4))
    assert manifold.fit(points) is manifold
    assert manifold.n_features_in_ == 4
    assert not hasattr(clone(manifold), "radii_")
    refitted = manifold.set_params(k=2).fit(points[:30])
    np.testing.assert_array_equal(refitted.radii_, brute_radii(points[:30], 2))


GOOD = np.random.default_rng(0).normal(size=(20, 3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(5), r"must be a \(n, d\) array, but has shape \(5,\)"),
        (np.zeros((5, 2, 2)), r"must be a \(n, d\) array, but has shape \(5, 2, 2\)"),
        (np.zeros((0, 3)), "must not be empty"),
        (np.full((20, 3), np.nan), "must be finite, but 60 of its 60"),
        (np.full((20, 3), np.inf), "must be finite"),
        (np.zeros((20, 3), complex), "must hold real numbers"),
        (np.array([["a", "b"]]), "must hold real numbers"),
    ],
)
def test_bad_matrices_are_named(values, message):
    with pytest.raises(ValueError, match="reference " + message):
        ReferenceManifold(2).fit(values)
    manifold = ReferenceManifold(2).fit(GOOD)
    for ask in (manifold.ball_counts, manifold.density, manifold.coverage, manifold.density_coverage, manifold.hits):
        with pytest.raises(ValueError, match="queries " + message):
            ask(values)
    with pytest.raises(ValueError, match="queries " + message):
        prdc(GOOD, values, 2)


def test_bad_parameters_are_named():
    for k in (0, -1, 2.5, "5", None, True):
        with pytest.raises(ValueError, match=r"k must be .*at least 1, but is"):
            ReferenceManifold(k).fit(GOOD)
    for k in (20, 21):
        with pytest.raises(ValueError, match=f"k must be smaller .* points in reference, 20, but is {k}"):
            ReferenceManifold(k).fit(GOOD)
    with pytest.raises(ValueError, match="number of points in queries, 4, but is 4"):
        prdc(GOOD, GOOD[:4], 4)
    for memory in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="memory_gb must be a positive number"):
            ReferenceManifold(2, memory_gb=memory).fit(GOOD)
    manifold = ReferenceManifold(2).fit(GOOD)
    with pytest.raises(ValueError, match=r"queries .*3 features, but .*\(7, 4\)"):
        manifold.ball_counts(np.zeros((7, 4)))
    hits = manifold.hits(GOOD)
    with pytest.raises(ValueError, match="hits must have 20 columns"):
        manifold.subset_density_coverage(hits[:, :5], [[0]])
    for batch in ([], [0.5], [[0]], [True]):
        with pytest.raises(ValueError, match="batches must hold non-empty lists of row indices, but number 1"):
            manifold.subset_density_coverage(hits, [[0], batch])
    for batch in ([-1], [20]):
        with pytest.raises(ValueError, match="batches must point to the 20 rows of hits, but number 0"):
            manifold.subset_density_coverage(hits, [batch])


def test_duplicates_are_never_a_silent_zero():
    with pytest.raises(ValueError, match="reference must have points with fewer than k = 2 exact copies"):
        ReferenceManifold(2).fit(np.ones((10, 3)))
    with pytest.raises(ValueError, match="every radius is 0"):
        ReferenceManifold(1).fit(np.repeat(GOOD, 2, axis=0))
    ReferenceManifold(2).fit(np.repeat(GOOD, 2, axis=0))  # one copy each: the second neighbour is another point
    some = np.vstack([GOOD, np.zeros((4, 3))])
    with pytest.warns(UserWarning, match="4 of the 24 points in reference have k = 3 or more exact copies"):
        manifold = ReferenceManifold(3).fit(some)
    assert (manifold.radii_ == 0).sum() == 4
    assert manifold.hits(np.zeros((1, 3))).toarray()[0, 20:].sum() == 0
    with pytest.warns(UserWarning, match="6 of the 6 points in queries"):
        assert prdc(GOOD, np.zeros((6, 3)), 3)["recall"] == 0


def test_save_and_load(tmp_path):
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        reference, queries = rng.normal(size=(200, 9)).astype(dtype), rng.normal(size=(30, 9))
        manifold = ReferenceManifold(4).fit(reference)
        path = tmp_path / "balls.safetensors"
        manifold.save(path)
        again = ReferenceManifold.load(path, k=4, reference=reference, memory_gb=0.2)
        assert (again.k, again.memory_gb, again.n_features_in_) == (4, 0.2, 9)
        assert again.reference_.dtype == dtype
        np.testing.assert_array_equal(again.radii_, manifold.radii_)
        np.testing.assert_array_equal(again.hits(queries).toarray(), manifold.hits(queries).toarray())
    assert os.listdir(tmp_path) == ["balls.safetensors"]


def test_files_that_do_not_match_are_refused_by_name(tmp_path):
    path = tmp_path / "balls.safetensors"
    manifold = ReferenceManifold(4).fit(GOOD)
    manifold.save(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"balls\.safetensors was fitted with k = 4, but k = 5 was asked for"):
        ReferenceManifold.load(path, k=5)
    for other in (GOOD + 1, GOOD[:-1], GOOD.astype(np.float32)):
        with pytest.raises(ValueError, match=r"balls\.safetensors was fitted to another reference: .*\(20, 3\)"):
            ReferenceManifold.load(path, reference=other)
    # Every byte matters: one flipped bit anywhere, or a cut anywhere, and the file is refused. The header's keys have
    # another order in each process, so all of its bytes are tried.
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(header), *range(header), *rng.integers(header, len(content), 150), len(content) - 1]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            again = ReferenceManifold.load(path)
        except ValueError as error:
            assert "balls.safetensors" in str(error)
        else:  # a changed blank or the order of keys in the header: nothing that was saved
            np.testing.assert_array_equal(again.radii_, manifold.radii_)
            np.testing.assert_array_equal(again.reference_, manifold.reference_)
            assert again.k == 4
    for length in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"balls\.safetensors"):
            ReferenceManifold.load(path)
    save_file({"weights": GOOD}, path)
    with pytest.raises(ValueError, match=r"balls\.safetensors is no saved reference manifold"):
        ReferenceManifold.load(path)
    with pytest.raises(FileNotFoundError):
        ReferenceManifold.load(tmp_path / "absent.safetensors")


def test_an_interrupted_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "balls.safetensors"
    ReferenceManifold(4).fit(GOOD).save(path)
    before = path.read_bytes()

    def fail(self, content):
        self.touch()
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        ReferenceManifold(3).fit(GOOD).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["balls.safetensors"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("family", ["gaussian", "one_cluster"])
def test_memory_stays_within_the_budget(family):
    """Peak memory of a process of its own: 8,000 × 8,000 pairs in 32 MiB, where one bool each would take 61."""
    code = f"""
import numpy as np
from advlib.prdc import ReferenceManifold

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

rng = np.random.default_rng(0)
make = {{"gaussian": lambda n: rng.normal(size=(n, 24)),
        "one_cluster": lambda n: np.r_[[np.full(24, 1e3)], rng.normal(size=(n - 1, 24)) * 1e-3]}}["{family}"]
ReferenceManifold(5).fit(make(3000)).density_coverage(make(3000))  # loads what is loaded once
reference, queries = make(8000).astype("f4"), make(8000).astype("f4")
before = peak()
manifold = ReferenceManifold(5, memory_gb=32 / 1024).fit(reference)
manifold.density_coverage(queries)
holders = manifold, manifold._balls, manifold._balls.points
arrays = {{id(x): x.nbytes for holder in holders for x in vars(holder).values() if hasattr(x, "nbytes")}}
state = sum(arrays.values()) / 2**20
print(peak() - before, state)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, state = map(float, run.stdout.split())
    assert state < 10
    assert grown < 32 + state


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*exact copies")
def test_a_gpu_gives_the_same_results(family):
    rng = np.random.default_rng(0)
    pool = family(rng, 3000, 100).astype(np.float32)
    on_cpu = ReferenceManifold(5).fit(pool[:2000])
    on_gpu = ReferenceManifold(5).fit(torch.from_numpy(pool[:2000]).cuda())
    np.testing.assert_array_equal(on_gpu.radii_, on_cpu.radii_)
    for queries in (pool[2000:], torch.from_numpy(pool[2000:]).cuda()):
        np.testing.assert_array_equal(on_gpu.ball_counts(queries), on_cpu.ball_counts(pool[2000:]))
        assert on_gpu.density_coverage(queries) == on_cpu.density_coverage(pool[2000:])
    assert_exact(pool[:400], pool[2000:2100], 5, device="cuda")
