"""Detectors fitted to samples that stay on disk, and asked about such batches, say what those in memory say."""

import numpy as np
import pytest
import zarr
from PIL import Image

from advlib import detectors
from advlib.cli import detection
from advlib.datasets import files, large
from advlib.detectors import saving

LITTLE = 0.002  # GiB: a few blocks of these small samples


@pytest.fixture(autouse=True)
def no_bars(monkeypatch, tmp_path):
    monkeypatch.setenv("ADVLIB_PROGRESS", "/dev/null")


def images(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0.5 + shift, 0.15, (n, 1, 12, 12)), 0, 1).astype(np.float32)


def store(folder, name, values):
    np.save(folder / f"{name}.npy", values)
    array = zarr.create_array(
        str(folder / f"{name}.zarr"), shape=values.shape, chunks=(50, *values.shape[1:]), dtype=values.dtype
    )
    array[:] = values


def same(one, two):
    skipped = {"detector", "sentence", "batch", "figure", "assumed"}
    for name in one.keys() - skipped:
        assert one[name] == two[name], name


@pytest.mark.parametrize(
    ("kind", "suffix", "draws"), [("combined", "npy", 499), ("combined", "zarr", 499), ("ratio", "zarr", 39)]
)
def test_the_same_verdict_by_blocks(tmp_path, kind, suffix, draws):
    store(tmp_path, "reference", images(600, 0))
    store(tmp_path, "clean", images(60, 1))
    store(tmp_path, "moved", images(60, 2, shift=0.3))
    options = {"kind": kind, "draws": draws}
    whole = detection.fit(tmp_path / "reference.npy", tmp_path / "whole.safetensors", **options)
    parts = detection.fit(tmp_path / f"reference.{suffix}", tmp_path / "parts.safetensors", memory_gb=LITTLE, **options)
    same(whole, parts)
    for batch in ("clean", "moved"):
        one = detection.detect(tmp_path / "whole.safetensors", tmp_path / f"{batch}.npy")
        two = detection.detect(tmp_path / "parts.safetensors", tmp_path / f"{batch}.{suffix}", memory_gb=LITTLE)
        same(one, two)
        assert one["flagged"] == (batch == "moved")
        same(one, detection.detect(tmp_path / "parts.safetensors", tmp_path / f"{batch}.npy"))
    assert not list(tmp_path.glob(".advlib-*")), "nothing is left behind"


def test_a_detector_larger_than_memory_stays_on_disk(tmp_path):
    store(tmp_path, "reference", images(600, 0))
    detection.fit(tmp_path / "reference.npy", tmp_path / "test.safetensors", memory_gb=LITTLE, kind="combined", draws=9)
    test = detectors.load(tmp_path / "test.safetensors", memory_gb=LITTLE / 4)
    (manifold,) = test.tests_[0].balls_[0].manifolds.values()
    assert len(manifold.reference_.blocks) > 1
    content = bytearray((tmp_path / "test.safetensors").read_bytes())
    content[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its content is not what it was sealed with"):
        detectors.load(tmp_path / "damaged.safetensors", memory_gb=LITTLE / 4)
    assert (
        saving.read(tmp_path / "test.safetensors")[1].keys()
        == saving.read(tmp_path / "test.safetensors", 1e-6)[1].keys()
    )


def test_a_folder_of_pictures_by_blocks(tmp_path):
    pixels = (255 * images(150, 3)[:, 0]).astype(np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pixels):
        picture = Image.fromarray(picture)
        (picture.convert("RGB") if number == 140 else picture).save(tmp_path / "pictures" / f"{number}.png")
    wanted = files.read(tmp_path / "pictures")
    found, names = large.open_large(tmp_path / "pictures", tmp_path, LITTLE / 10)
    assert len(found.blocks()) > 3 and names == wanted.names and found.shape == wanted.values.shape
    np.testing.assert_array_equal(np.concatenate([block() for block in found.blocks()]), wanted.values)
    np.testing.assert_array_equal(found.take(np.array([5, 3]))[:], wanted.values[[5, 3]])
    assert found.extremes == (wanted.values.min(), wanted.values.max())


def test_what_cannot_be_used_gets_a_sentence(tmp_path):
    values = images(300, 0)
    values[222, 0, 3, 3] = np.nan
    store(tmp_path, "broken", values)
    with pytest.raises(ValueError, match=r"must be finite, but sample \d+ of block 1 holds NaN or infinity"):
        detection.fit(tmp_path / "broken.npy", tmp_path / "x.safetensors", memory_gb=LITTLE, draws=9, kind="density")
    store(tmp_path, "good", images(300, 0))
    with pytest.raises(ValueError, match="--by-class needs labels"):
        detection.fit(
            tmp_path / "good.npy", tmp_path / "x.safetensors", by_class=True, memory_gb=LITTLE, kind="density"
        )
    with pytest.raises(ValueError, match=r"would take .* GiB at once, more than half of memory_gb"):
        detection.fit(tmp_path / "good.npy", tmp_path / "x.safetensors", memory_gb=3e-5, kind="density")
    with pytest.raises(ValueError, match="memory_gb must be a positive number of GiB, but is -1"):
        detection.fit(tmp_path / "good.npy", tmp_path / "x.safetensors", memory_gb=-1.0, kind="density")
    (tmp_path / "none.zarr").mkdir()
    with pytest.raises(ValueError, match="must be a zarr array"):
        detection.fit(tmp_path / "none.zarr", tmp_path / "x.safetensors", kind="density")
    assert not (tmp_path / "x.safetensors").exists()
    detection.fit(tmp_path / "good.npy", tmp_path / "test.safetensors", memory_gb=LITTLE, draws=9999, kind="density")
    with pytest.raises(ValueError, match=r"9999 permutations of a batch of 300 would take .* in parts"):
        detection.detect(tmp_path / "test.safetensors", tmp_path / "good.zarr", memory_gb=LITTLE)
