"""A reference in blocks equals the reference in one piece: on every radius, count and hit, whatever the blocks."""

import functools
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from prdc_oracles import FAMILIES, brute_inside, brute_radii, gaussian

from advlib import chunks
from advlib.prdc import ReferenceManifold, blocked, nearest, rounded
from advlib.prdc.rounded import RoundedPoints

ROOT = Path(__file__).resolve().parents[3]
ODD = (1, 2, 97, 180, 17)


@pytest.fixture(autouse=True)
def no_bars(monkeypatch):
    monkeypatch.setenv("ADVLIB_PROGRESS", os.devnull)


def in_chunks(values, sizes=ODD, width=3):
    sizes = (*sizes, len(values) - sum(sizes))
    return da.from_array(values, chunks=(sizes, width))


def assert_same(whole, parts, queries):
    np.testing.assert_array_equal(whole.radii_, parts.radii_)
    for asked in (queries, in_chunks(queries, (1, 5))):
        np.testing.assert_array_equal(whole.ball_counts(queries), parts.ball_counts(asked))
        assert whole.density_coverage(queries) == parts.density_coverage(asked)
        assert (whole.hits(queries) != parts.hits(asked)).nnz == 0
        np.testing.assert_array_equal(whole.ball_counts(queries), whole.ball_counts(asked))
        assert whole.density_coverage(queries) == whole.density_coverage(asked)
        assert (whole.hits(queries) != whole.hits(asked)).nnz == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*exact copies")
def test_odd_chunks_equal_one_piece(family, monkeypatch):
    cases = [(5, 5, np.float32, torch.bfloat16), (300, 12, np.float64, torch.float32)]
    for seed, (d, k, dtype, storage) in enumerate(cases):
        monkeypatch.setattr(rounded, "product_type", lambda device, storage=storage: storage)
        pool = family(np.random.default_rng(seed), 360, d).astype(dtype)
        whole = ReferenceManifold(k).fit(pool[:330])
        assert_same(whole, ReferenceManifold(k).fit(in_chunks(pool[:330])), pool[330:])


@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1e12, 1e30])
def test_blocks_agree_on_the_scale(scale):
    """Each block alone would be scaled by its own largest value."""
    rng = np.random.default_rng(0)
    points = scale * rng.standard_normal((330, 6)) * np.repeat([1e-3, 1.0, 10.0], 110)[:, None]
    whole = ReferenceManifold(3).fit(points)
    assert_same(whole, ReferenceManifold(3).fit(in_chunks(points)), scale * rng.standard_normal((40, 6)))


def test_blocks_in_one_strip_or_in_many(monkeypatch):
    points = gaussian(np.random.default_rng(1), 360, 20)
    whole = ReferenceManifold(4).fit(points[:330])
    for strip in (1, 2, 100):
        monkeypatch.setattr(blocked, "STRIP", strip)
        assert_same(whole, ReferenceManifold(4).fit(in_chunks(points[:330])), points[330:])


def test_the_largest_k_and_a_single_block():
    points = gaussian(np.random.default_rng(2), 20, 4)
    for sizes in ((20,), (1,) * 20, (19, 1)):
        parts = ReferenceManifold(19).fit(da.from_array(points, chunks=(sizes, 4)))
        np.testing.assert_array_equal(parts.radii_, brute_radii(points, 19))
    np.testing.assert_array_equal(parts.hits(points[:9] + 0.1).toarray(), brute_inside(points, points[:9] + 0.1, 19))


@pytest.mark.parametrize("tile", [0.0, 1e9])
def test_the_k_smallest_of_a_block_are_those_of_brute_force(tile, monkeypatch):
    monkeypatch.setattr(rounded, "worth_a_tile", lambda pairs: tile)  # all pairs at once, or one by one
    rng = np.random.default_rng(3)
    block, left = rng.standard_normal((200, 7)), rng.standard_normal((50, 7))
    points = RoundedPoints(torch.from_numpy(block), 1.0)
    distance = np.sort(np.sqrt(((left[:, None] - block) ** 2).sum(-1)), axis=1)
    for bound in (np.full(50, np.inf), distance[:, 9], distance[:, 1], np.where(np.arange(50) % 2, np.inf, 0.5)):
        found = nearest.between(points, left, bound, 4)
        within = distance[:, :4] <= bound[:, None]
        np.testing.assert_array_equal(found[within], distance[:, :4][within])


def test_files_and_functions_are_read_by_blocks(tmp_path):
    points = gaussian(np.random.default_rng(4), 400, 8).astype(np.float32)
    whole = ReferenceManifold(5).fit(points[:350])
    np.save(tmp_path / "points.npy", points[:350])
    stored = zarr.create_array(str(tmp_path / "points.zarr"), shape=(350, 8), chunks=(60, 8), dtype="float32")
    stored[:] = points[:350]
    parts = [functools.partial(points.__getitem__, slice(lo, min(lo + 90, 350))) for lo in range(0, 350, 90)]
    for values in (
        chunks.rows_of(tmp_path / "points.npy", "reference", 100),
        chunks.rows_of(np.load(tmp_path / "points.npy", mmap_mode="r"), "reference", 100),
        chunks.rows_of(str(tmp_path / "points.zarr"), "reference"),
        chunks.rows_of(parts, "reference"),
        chunks.rows_of(points[:350], "reference", 64),
        zarr.open_array(str(tmp_path / "points.zarr"), mode="r"),
        da.from_zarr(str(tmp_path / "points.zarr")),
    ):
        found = ReferenceManifold(5).fit(values)
        assert len(found.reference_.blocks) > 3
        np.testing.assert_array_equal(found.radii_, whole.radii_)
        again = ReferenceManifold.from_radii(5, values, found.radii_)
        np.testing.assert_array_equal(again.ball_counts(points[350:]), whole.ball_counts(points[350:]))


def test_what_was_found_is_taken_up_again(tmp_path, monkeypatch):
    points = gaussian(np.random.default_rng(5), 330, 5)
    whole, calls = ReferenceManifold(3).fit(points), []

    def counting(find):
        def counted(asked, setting):
            calls.append(asked)
            if len(calls) == 9:
                raise KeyboardInterrupt
            return find(asked, setting)

        return counted

    for name in ("_own", "_beyond"):
        monkeypatch.setattr(blocked, name, counting(getattr(blocked, name)))
    with pytest.raises(KeyboardInterrupt):
        ReferenceManifold(3, partial=tmp_path).fit(in_chunks(points))
    kept = sorted(tmp_path.rglob("*.distances"))
    assert len(kept) == 8
    kept[0].write_bytes(kept[0].read_bytes()[:-5])  # cut
    kept[1].write_bytes(kept[1].read_bytes()[:-8] + b"12345678")  # changed
    np.testing.assert_array_equal(ReferenceManifold(3, partial=tmp_path).fit(in_chunks(points)).radii_, whole.radii_)
    assert len(calls) == 9 + 6 * 2 - 8 + 2
    ReferenceManifold(3, partial=tmp_path).fit(in_chunks(points))
    assert len(calls) == 9 + 6 * 2 - 8 + 2, "all was there"
    ReferenceManifold(4, partial=tmp_path).fit(in_chunks(points))
    points[0] += 1
    ReferenceManifold(3, partial=tmp_path).fit(in_chunks(points))
    assert len(list(tmp_path.iterdir())) == 3, "another k and other points are other folders"


def broken(row, column):
    points = np.ones((330, 5)) * np.arange(330)[:, None]
    points[row, column] = np.nan
    return in_chunks(points)


def chunk(shape, dtype=float):
    return functools.partial(np.ones, shape, dtype)


@pytest.mark.parametrize(
    ("reference", "k", "words"),
    [
        (broken(50, 2), 5, "finite, but row 47 of chunk 2 .row 50 of all. holds NaN or infinity"),
        (broken(329, 0), 5, "row 32 of chunk 5 .row 329 of all."),
        (da.ones((5, 3), chunks=2), 5, "k must be smaller than the number of points in reference, 5, but is 5"),
        (da.ones((5, 3, 2), chunks=2), 1, r"must be an \(n, d\) array, but has shape \(5, 3, 2\)"),
        ((chunk((4, 3)), chunk((4, 2))), 1, "chunk 0 has 3 columns of float64 and chunk 1 has 2 of float64"),
        ((chunk((4, 3)), chunk((4, 3), "f4")), 1, "chunk 0 has 3 columns of float64 and chunk 1 has 3 of float32"),
        ((chunk((4, 3)), chunk((0, 3))), 1, r"must not be empty, but chunk 1 has shape \(0, 3\)"),
        ((chunk((4, 3), complex),), 1, r"real numbers, but chunk 0 has shape \(4, 3\) and dtype complex128"),
    ],
)
def test_what_cannot_be_used_gets_a_sentence(reference, k, words):
    with pytest.raises(ValueError, match=words):
        ReferenceManifold(k).fit(reference if hasattr(reference, "blocks") else chunks.rows_of(reference, "reference"))


def test_more_sentences(tmp_path):
    points = gaussian(np.random.default_rng(6), 330, 5)
    manifold = ReferenceManifold(5).fit(in_chunks(points))
    with pytest.raises(ValueError, match="reference's 5 features"):
        manifold.ball_counts(in_chunks(points[:, :4]))
    with pytest.raises(ValueError, match="queries must be finite, but row 0 of chunk 1"):
        manifold.ball_counts(da.from_array(np.where(np.arange(330)[:, None] == 100, np.inf, points), chunks=(100, 5)))
    with pytest.raises(ValueError, match="must be saved by its radii_"):
        manifold.save(tmp_path / "manifold.safetensors")
    with pytest.raises(ValueError, match=r"memory_gb = 0\.0001 must hold two chunks, .* rechunk to at most \d+ rows"):
        ReferenceManifold(5, memory_gb=1e-4).fit(da.ones((2000, 100), chunks=(1000, 100)))
    with pytest.warns(UserWarning, match="reference has dtype uint8 and was converted to float32 unscaled"):
        ReferenceManifold(1).fit(da.from_array(np.arange(40, dtype=np.uint8).reshape(20, 2), chunks=(7, 2)))
    with pytest.raises(ValueError, match="every radius is 0"):
        ReferenceManifold(2).fit(da.ones((9, 2), chunks=(2, 2)))
    np.save(tmp_path / "points.npy", points)
    with pytest.raises(ValueError, match=r"memory map, which Dask copies whole into every task: give the \.npy"):
        ReferenceManifold(2).fit(da.from_array(np.load(tmp_path / "points.npy", mmap_mode="r"), chunks=(100, 5)))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        chunks.rows_of(tmp_path / "none.npy", "reference")
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"bad\.npy must hold a plain array"):
        chunks.rows_of(tmp_path / "bad.npy", "reference")
    with pytest.raises(ValueError, match="must be a zarr array or an"):
        chunks.rows_of(tmp_path, "reference")


def test_memory_stays_in_its_bound():
    """NumPy's share of it, which tracemalloc sees: far less than the 49 MB of all rows."""
    n, d, rows, memory_gb = 24_000, 512, 800, 16 / 1024
    readers = [functools.partial(_rows, number, rows, d) for number in range(n // rows)]
    reference = chunks.rows_of(readers[:6], "reference")
    tracemalloc.start()
    try:
        ReferenceManifold(5, memory_gb=memory_gb).fit(reference).ball_counts(_rows(99, 100, d))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < memory_gb * 2**30


def _rows(number, rows, d):
    return np.random.default_rng(number).standard_normal((rows, d), dtype=np.float32)


def test_without_a_cluster_nothing_of_dask_is_imported():
    code = (
        "import sys, numpy as np\n"
        "import advlib.attacks.stored, advlib.detectors, advlib.cli.detection, compendium.cli, compendium.runner\n"
        "from advlib import chunks\nfrom advlib.prdc import ReferenceManifold\n"
        "rows = chunks.rows_of(np.random.default_rng(0).normal(size=(60, 3)), 'reference', 20)\n"
        "ReferenceManifold(2).fit(rows).ball_counts(rows)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('dask', 'distributed', 'zarr')])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
