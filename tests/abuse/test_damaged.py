"""Every kind of stored file cut, flipped, emptied, replaced: refused by name or made again, never used."""

import contextlib
import hashlib
import shutil
import warnings

import nbformat
import numpy as np
import pytest
from PIL import Image
from tally import case, times

from advlib import attacks, datasets, detectors, models, paths
from advlib.attacks.stored import stored_attack
from advlib.datasets import files
from advlib.datasets.downloads import DataUnavailable, File, FileSet
from advlib.detectors import CombinedTest, CoverageTest, DensityTest
from advlib.prdc import ReferenceManifold
from compendium import paths as places
from compendium import runner
from compendium.claims import published, record

FLIPS = times(25, 200)
RNG = np.random.default_rng(0)
POINTS, OTHERS = RNG.normal(size=(60, 3)), RNG.normal(size=(30, 3))
IMAGES = RNG.random((4, 1, 28, 28), dtype=np.float32)
NETWORK = "mnist-cleverhans"


def weights(folder):
    for path in models.files(NETWORK):
        shutil.copy(path, folder)
    return folder / f"{NETWORK}.safetensors", lambda: models.load_trained(NETWORK, folder=folder).state_dict()


def card(folder):
    path, load = weights(folder)
    return path.with_suffix(".json"), lambda: (load(), models.card(NETWORK, folder)["sha256"])[1]


def detector(folder):
    path = folder / "d.safetensors"
    CombinedTest([DensityTest(2), CoverageTest(2)], draws=19).fit(POINTS, OTHERS).save(path)
    return path, lambda: detectors.load(path).test(OTHERS[:5]).p_value


def manifold(folder):
    path = folder / "manifold"
    ReferenceManifold(2).fit(POINTS).save(path)
    return path, lambda: ReferenceManifold.load(path).radii_


def crafted(folder):
    def make():
        return stored_attack(attacks.fgsm, NETWORK, IMAGES, np.arange(4), chunk=4, folder=folder, epsilon=0.1).images

    make()
    (path,) = folder.rglob("0*.safetensors")
    return path, make


def data(folder):
    content = RNG.integers(0, 256, 2000, dtype=np.uint8).tobytes()
    file = File("set", "a.bin", "sha256:" + hashlib.sha256(content).hexdigest(), len(content))
    file.path.parent.mkdir(parents=True)
    file.path.write_bytes(content)
    return file.path, FileSet("a set", (file,), (), ()).read


def npz(folder):
    path = folder / "own.npz"
    bytes_ = (IMAGES * 255).astype(np.uint8)[:, 0]
    np.savez_compressed(path, train_images=bytes_, train_labels=np.arange(4))
    return path, lambda: datasets.load_npz(path).train_images


def batch(folder):
    path = folder / "batch.npz"
    np.savez(path, images=IMAGES)
    return path, lambda: files.read(path).values


def array(folder):
    path = folder / "batch.npy"
    np.save(path, IMAGES)
    return path, lambda: files.read(path).values


def picture(folder):
    path = folder / "one.png"
    Image.fromarray((IMAGES[0, 0] * 255).astype(np.uint8)).save(path)
    return path, lambda: files.read(path).values


def notebook(folder):
    path = folder / "99_toy.ipynb"
    cell = nbformat.v4.new_code_cell('profile = "quick"\nseed = 0', metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path, lambda: runner.defaults(path)


def reference(folder):
    path = folder / "99_toy.quick.json"
    path.write_text((places.REFERENCE / "03_sample_size.quick.json").read_text(encoding="utf-8"), encoding="utf-8")
    return path, lambda: record.read(path, whole=True)["metrics"]


def claims(folder):
    path = folder / "claims.csv"
    path.write_bytes((places.RESULTS / "claims.csv").read_bytes()[:6000].rpartition(b"\n")[0] + b"\n")
    return path, lambda: published.read_claims(path)


SEALED = {
    "weights": weights, "card": card, "detector": detector, "manifold": manifold, "crafted set": crafted,
    "data set": data, "own npz": npz, "own batch": batch,
}  # fmt: skip
"""A checksum covers these: whatever is read after damage is what was written."""
OPEN = {"npy": array, "picture": picture, "notebook": notebook, "record": reference, "claims": claims}
"""No checksum: what can still be read as its kind may have changed, what cannot is refused."""
KINDS = {**SEALED, **OPEN}
# A card's free words and an uncompressed zip's own bookkeeping may change without a change of what they hold.


@pytest.fixture(params=KINDS)
def stored(request, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
    path, load = KINDS[request.param](tmp_path)
    return request.param, path, load


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(np.array_equal(np.asarray(a), np.asarray(b))) if not isinstance(a, list) else a == b


def attempt(name, path, load, content):
    """Write the content and load it: refused in words that name the file, or made again, or unharmed."""
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loaded = load()
        except (ValueError, FileNotFoundError, DataUnavailable) as error:
            words = str(error)
            assert path.name in words or NETWORK in words, words
            assert "Traceback" not in words
            return None
    assert not [w for w in caught if not issubclass(w.category, UserWarning)], [str(w.message) for w in caught]
    return loaded


def test_truncated(stored):
    name, path, load = stored
    content, expected = path.read_bytes(), load()
    for size in sorted({0, 1, 7, *RNG.integers(0, len(content), times(8, 60)).tolist(), len(content) - 1}):
        loaded = attempt(name, path, load, content[:size])
        case()
        if loaded is not None and name in SEALED:
            assert same(loaded, expected), f"cut at {size} of {len(content)} and used"


def test_one_bit_flipped(stored):
    name, path, load = stored
    content, expected = path.read_bytes(), load()
    for at in RNG.integers(0, 8 * len(content), FLIPS).tolist():
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        loaded = attempt(name, path, load, bytes(changed))
        case()
        if loaded is not None and name in SEALED:
            assert same(loaded, expected), f"bit {at} was flipped and the file used"


def test_every_bit_of_an_archives_directory_flipped(tmp_path):
    """Offsets before the first byte, members that overlap, other counts: few bits of a file, and the worst ones."""
    path = tmp_path / "own.npz"
    np.savez_compressed(path, train_images=(IMAGES[:1, 0] * 255).astype(np.uint8), train_labels=np.arange(1))
    content, expected = path.read_bytes(), datasets.load_npz(path).train_images
    for at in range(8 * content.index(b"PK\x01\x02"), 8 * len(content)):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        loaded = attempt("own npz", path, lambda: datasets.load_npz(path).train_images, bytes(changed))
        case()
        assert loaded is None or same(loaded, expected), f"bit {at} was flipped and the file used"


def test_replaced_by_another_kind(stored, tmp_path_factory):
    name, path, load = stored
    expected = load()
    for other, make in KINDS.items():
        if other in (name, "data set"):
            continue
        foreign, _ = make(tmp_path_factory.mktemp("other"))
        loaded = attempt(name, path, load, foreign.read_bytes())
        case()
        if loaded is not None and name in SEALED and {name, other} != {"own npz", "own batch"}:
            assert same(loaded, expected), f"{other} was taken for {name}"
    for content in (
        b"",
        b"\0" * 5000,
        b"<html><body>Proxy says no</body></html>",
        b"{}",
        b"[]",
        b"null",
        b"PK\x05\x06" + b"\0" * 18,
    ):
        loaded = attempt(name, path, load, content)
        case()
        if loaded is not None and name in SEALED:
            assert same(loaded, expected)


def test_replaced_by_a_folder(stored):
    _, path, load = stored
    path.unlink()
    path.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            load()
        except (ValueError, FileNotFoundError, DataUnavailable) as error:
            assert path.name in str(error) or NETWORK in str(error), error
    case()


def test_the_house_reads_records_in_one_way():
    """Whoever reads a record says which file is damaged."""
    damaged = places.REFERENCE / "nowhere.json"
    with pytest.raises(ValueError, match="nowhere"), contextlib.suppress(FileNotFoundError):
        record.read(damaged)
