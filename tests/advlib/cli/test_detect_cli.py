"""advlib fit and advlib detect: files in, verdicts and exit statuses out; whatever is wrong gets one sentence."""

import io
import json
import os
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from advlib import cli
from advlib.datasets import files

RNG = np.random.default_rng(11)
RUN = CliRunner()


def draw(n, channels=1, seed=0):
    """Smooth grey-level images as bytes, (n, h, w, c)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 4, 4, channels))
    return np.kron(coarse, np.ones((1, 3, 3, 1))).astype(np.uint8)


def shaken(images, seed=0):
    noise = np.random.default_rng(seed).choice([-60, 60], images.shape)
    return np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    np.savez(folder / "reference.npz", images=draw(500)[..., 0])
    np.save(folder / "clean.npy", draw(40, seed=1)[..., 0])
    np.save(folder / "bad.npy", shaken(draw(40, seed=2))[..., 0])
    result = RUN.invoke(cli.app, ["fit", str(folder / "reference.npz"), "-o", str(folder / "d.safetensors")])
    assert result.exit_code == 0, result.output + result.stderr
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def call(*arguments):
    result = RUN.invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(result, words):
    """Exit status 2, nothing on standard output, and one sentence on standard error."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert words in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


# ------------------------------------------------------------------ verdicts


def test_a_clean_batch(home, here):
    result = call("detect", home / "d.safetensors", home / "clean.npy")
    assert result.exit_code == 0, result.output
    assert (
        result.stdout.startswith("clean") and "p = " in result.stdout and "do not fit (95% confidence)" in result.stdout
    )
    assert (here / "clean-verdict.png").stat().st_size > 10_000


def test_a_changed_batch(home, here):
    result = call("detect", home / "d.safetensors", home / "bad.npy", "--figure", "sub/f.svg", "--show", "3")
    assert result.exit_code == 1
    assert result.stdout.startswith("FLAGGED") and "… and 37 more" in result.stdout
    assert "<svg" in (here / "sub/f.svg").read_text() and not (here / "bad-verdict.png").exists()


def test_json_is_all_that_is_printed(home, here):
    result = call("detect", home / "d.safetensors", home / "bad.npy", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and told["flagged"] and told["p_value"] <= 0.05 and told["n_samples"] == 40
    p = [sample["p_value"] for sample in told["samples"]]
    assert p == sorted(p) and len(p) == 40 and told["figure"] is None and not list(here.iterdir())
    assert {part["name"] for part in told["parts"]} >= {"density of pixels", "nearest ball of residual"}


@pytest.mark.parametrize("kind", ["density", "coverage", "nearest"])
def test_fit_says_what_it_made(home, here, kind):
    result = call(
        "fit", home / "reference.npz", "-o", "t", "--test", kind, "--calibration", home / "clean.npy", "--json"
    )
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["n_reference"] == 500 and told["n_calibration"] == 40
    assert told["sample_shape"] == [1, 12, 12] and len(told["statistics"]) == 1


def test_formats_of_one_batch_agree(home, here):
    images = np.load(home / "clean.npy")
    (here / "folder").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(here / "folder" / f"{number}.png")
    (here / "folder" / "notes.txt").write_text("not a picture")
    np.savez(here / "med.npz", train_images=images[:1], train_labels=np.zeros(1, int), test_images=images)
    np.savez_compressed(here / "one.npz", anything=images[..., None])
    np.save(here / "float.npy", images.astype(np.float32) / np.float32(255))
    np.savez(here / "keys.npz", a=images, b=images[:2])
    outcomes = []
    for arguments in (
        ["folder"],
        ["med.npz"],
        ["one.npz"],
        ["float.npy"],
        ["keys.npz", "--key", "a"],
        [home / "clean.npy"],
    ):
        told = json.loads(call("detect", home / "d.safetensors", *arguments, "--json").stdout)
        outcomes.append((told["p_value"], told["n_samples"]))
    assert len(set(outcomes)) == 1
    told = json.loads(call("detect", home / "d.safetensors", "folder", "--json").stdout)
    assert {sample["name"] for sample in told["samples"]} == {f"{number}.png" for number in range(40)}


def test_one_picture(home, here):
    Image.fromarray(draw(1, seed=5)[0, ..., 0]).save(here / "one.png")
    told = json.loads(call("detect", home / "d.safetensors", "one.png", "--json").stdout)
    assert told["n_samples"] == 1 and 0 < told["p_value"] <= 1


def test_by_class(here):
    labels = np.arange(400) % 2
    np.savez(here / "r.npz", images=draw(400)[..., 0], labels=labels)
    np.savez(here / "b.npz", images=draw(20, seed=4)[..., 0], labels=labels[:20])
    np.save(here / "b.npy", draw(20, seed=4)[..., 0])
    assert call("fit", "r.npz", "-o", "d", "--test", "density", "--by-class").exit_code == 0
    assert call("detect", "d", "b.npz", "--json").exit_code in (0, 1)
    refused(call("detect", "d", "b.npy"), "has no labels")
    np.save(here / "r.npy", draw(400)[..., 0])
    refused(call("fit", "r.npy", "-o", "e", "--by-class"), "--by-class needs labels")
    assert not (here / "e").exists()


def test_values_outside_the_range_are_said(home, here):
    np.save(here / "n.npy", (np.load(home / "clean.npy") / np.float32(255) - np.float32(0.5)) / np.float32(0.25))
    result = call("detect", home / "d.safetensors", "n.npy")
    assert result.exit_code == 1 and "normalised, or not clipped?" in result.stdout


# ------------------------------------------------------------------ what is refused


def hostile(path):
    """Pickled code, which would leave a file behind if it ran."""

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / "harm"),)

    array = np.empty(1, dtype=object)
    array[0] = Harm()
    np.save(path, array, allow_pickle=True)


def header_of(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


CASES = {
    "empty.npy": (lambda p: np.save(p, np.zeros((0, 12, 12), np.uint8)), "at least one sample"),
    "wide.npy": (lambda p: np.save(p, np.zeros((3, 14, 12), np.uint8)), "reference's shape (n, 1, 12, 12)"),
    "colour.npy": (lambda p: np.save(p, draw(3, 3)), "3 colour channels in place of 1"),
    "channels.npy": (lambda p: np.save(p, np.zeros((3, 12, 12, 5), np.uint8)), "1 or 3 channels"),
    "five.npy": (lambda p: np.save(p, np.zeros((3, 1, 1, 12, 12), np.uint8)), "its shape is (3, 1, 1, 12, 12)"),
    "bytes.npy": (lambda p: np.save(p, draw(3)[..., 0].astype(np.float32)), "look like bytes, divide by 255"),
    "ints.npy": (lambda p: np.save(p, draw(3)[..., 0].astype(np.int64)), "bytes (uint8, 0 to 255)"),
    "words.npy": (lambda p: np.save(p, np.array([["a"]])), "plain real numbers"),
    "complex.npy": (lambda p: np.save(p, np.zeros((3, 12, 12), complex)), "plain real numbers"),
    "flat.npy": (lambda p: np.save(p, np.zeros((3, 144), np.float32)), "unflatten the images"),
    "nan.npy": (lambda p: np.save(p, np.full((3, 12, 12), np.nan, np.float32)), "432 of its 432 values are NaN"),
    "number.npy": (lambda p: np.save(p, np.float32(3)), "its shape is ()"),
    "pickled.npy": (hostile, "pickled objects"),
    "pickle.npy": (lambda p: p.write_bytes(pickle.dumps([1])), "NumPy's format"),
    "cut.npy": (lambda p: p.write_bytes(header_of((9, 12, 12)) + b"1234"), "promises 5184 bytes"),
    "huge.npy": (lambda p: p.write_bytes(header_of((10**9, 12, 12))), "promises 576000000000 bytes"),
    "negative.npy": (lambda p: p.write_bytes(header_of((-1, 12, 12)) + b"1234"), "negative.npy"),
    "nothing.npy": (lambda p: p.write_bytes(b""), "NumPy's format"),
    "text.npz": (lambda p: p.write_text("hello"), "not a complete zip archive"),
    "cut.npz": (lambda p: (np.savez(p, images=draw(3)), p.write_bytes(p.read_bytes()[:-40])), "complete zip archive"),
    "none.npz": (lambda p: zipfile.ZipFile(p, "w").close(), "holds nothing"),
    "two.npz": (lambda p: np.savez(p, a=draw(3), b=draw(3)), "--key picks one"),
    "split.npz": (lambda p: np.savez(p, train_images=draw(3)), "--split picks another part"),
    "labels.npz": (lambda p: np.savez(p, images=draw(3)[..., 0], labels=np.zeros(2, int)), "each of its 3 samples"),
    "name[red].npz": (lambda p: p.write_text("hello"), "name[red].npz"),
    "unknown.csv": (lambda p: p.write_text("1,2"), ".npz or .npy file, a picture, or a folder"),
    "broken.png": (lambda p: p.write_bytes(b"\x89PNG broken"), "no picture that can be read"),
    "none": (lambda p: p.mkdir(), "but holds none"),
}


@pytest.mark.parametrize("name", CASES)
def test_batches_that_cannot_be_used(home, here, name):
    make, words = CASES[name]
    make(here / name)
    refused(call("detect", home / "d.safetensors", name), words)
    assert [path.name for path in here.iterdir()] == [name]


def test_pickles_inside_archives_do_not_run(home, here):
    hostile(here / "x.npy")
    with zipfile.ZipFile(here / "x.npz", "w") as archive:
        archive.write(here / "x.npy", "images.npy")
    refused(call("detect", home / "d.safetensors", "x.npz"), "pickled objects")
    assert not (here / "harm").exists()


def test_damaged_archives_and_pictures(home, here):
    np.savez_compressed(here / "d.npz", images=shaken(draw(30))[..., 0])
    content = bytearray((here / "d.npz").read_bytes())
    content[200:220] = bytes(20)
    (here / "d.npz").write_bytes(content)
    refused(call("detect", home / "d.safetensors", "d.npz"), "images in d.npz")
    (here / "f").mkdir()
    Image.fromarray(draw(1)[0, ..., 0]).save(here / "f/a.png")
    (here / "f/b.png").write_bytes((here / "f/a.png").read_bytes()[:60])
    refused(call("detect", home / "d.safetensors", "f"), "b.png is")
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(here / "f/b.png")
    refused(call("detect", home / "d.safetensors", "f"), "must have one size")
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(here / "f/b.png")
    refused(call("detect", home / "d.safetensors", "f"), "8 bits a pixel")


def test_wrong_calls(home, here):
    d, clean = home / "d.safetensors", home / "clean.npy"
    refused(call("detect", d), "one of the two")
    refused(call("detect", d, clean, "--watch", "."), "one of the two")
    refused(call("detect", d, "none.npy"), "there is no file none.npy")
    refused(call("detect", "none", clean), "none")
    refused(call("detect", clean, clean), "no whole safetensors file")
    refused(call("detect", d, clean, "--show", "-1"), "show must be")
    refused(call("detect", d, clean, "--alpha", "2"), "alpha must be a number between 0 and 1")
    refused(call("detect", d, clean, "--alpha", "1e-6"), "fit with more draws")
    refused(call("detect", d, clean, "--split", "third"), "split must be one of")
    refused(call("detect", d, home / "reference.npz", "--key", "z"), "must hold an array 'z'")
    refused(call("detect", d, clean, "--key", "z"), "--key picks a part of an .npz file, but")
    refused(call("detect", d, ".", "--split", "test"), "--split picks a part of an .npz file, but . is none")
    refused(call("fit", clean, "-o", "e.safetensors", "--split", "test"), "--split picks a part of an .npz file, but")
    refused(call("detect", d, "--watch", "nowhere"), "there is no folder nowhere")
    refused(call("detect", d, "--watch", ".", "--interval", "0"), "interval must be a positive number")
    refused(call("fit", clean, "-o", "."), "is a folder")
    refused(call("fit", clean, "-o", "d", "--test", "best"), "test must be one of")
    refused(call("fit", clean, "-o", "d", "--features", "best"), "features must be")
    refused(call("fit", clean, "-o", "d", "-k", "0"), "k must be at least 1")
    refused(call("fit", clean, "-o", "d", "-k", "60"), "at least 61 samples")
    refused(call("fit", clean, "-o", "d", "--calibration", "none.npy"), "there is no file")
    assert not list(here.iterdir())


def test_what_is_no_regular_file(home, here):
    os.mkfifo(here / "pipe.npy")
    (here / "f").mkdir()
    (here / "f/loop.png").symlink_to("loop.png")
    refused(call("detect", home / "d.safetensors", "pipe.npy"), "a device or a pipe")
    refused(call("detect", "pipe.npy", home / "clean.npy"), "a device or a pipe")
    refused(call("detect", ".", home / "clean.npy"), "is a folder")
    refused(call("detect", home / "d.safetensors", "f"), "a link to nothing")
    refused(call("fit", home / "clean.npy", "-o", "pipe.npy"), "is a folder or a device")
    assert (here / "pipe.npy").is_fifo()


def test_damaged_detectors(home, here):
    content = (home / "d.safetensors").read_bytes()
    for number, damaged in enumerate((b"", content[:100], content[:-1], b"\xff" * 8 + content[8:])):
        (here / f"{number}").write_bytes(damaged)
        refused(call("detect", f"{number}", home / "clean.npy"), "no whole safetensors file")
    (here / "flipped").write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    refused(call("detect", "flipped", home / "clean.npy"), "is damaged")


def test_references_that_cannot_be_used(home, here):
    images = np.load(home / "clean.npy")
    np.save(here / "one.npy", images[:1])
    np.save(here / "seven.npy", images[:7])
    np.save(here / "same.npy", np.zeros((50, 12, 12), np.uint8))
    np.save(here / "bytes.npy", images.astype(np.float32))
    np.save(here / "nan.npy", np.where(images > 250, np.nan, images / 255).astype(np.float32))
    np.savez(here / "classes.npz", images=images, labels=np.arange(40))
    for name, words in (
        ("one", "at least 2 samples"),
        ("seven", "besides those held out"),
        ("same", "every radius is 0"),
        ("bytes", "divide by 255"),
        ("nan", "are NaN"),
    ):
        refused(call("fit", f"{name}.npy", "-o", "d"), words)
    refused(call("fit", "classes.npz", "-o", "d", "--by-class"), "of each class")
    refused(
        call("fit", home / "clean.npy", "-o", "d", "--features", "hidden:mnist-vs22"), "cannot take images of shape"
    )
    refused(call("fit", home / "clean.npy", "-o", "one.npy/d"), "one.npy/d cannot be written")
    refused(call("fit", home / "clean.npy", "-o", "d", "--draws", "0"), "draws must be")
    refused(call("fit", home / "clean.npy", "-o", "d", "--seed", "-1"), "seed must be")
    assert not (here / "d").exists()


def test_a_killed_fit_leaves_the_old_detector(home, here, monkeypatch):
    (here / "d").write_bytes((home / "d.safetensors").read_bytes())

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    assert call("fit", home / "clean.npy", "-o", "d").exit_code == 130
    monkeypatch.undo()
    assert (here / "d").read_bytes() == (home / "d.safetensors").read_bytes()


def test_a_figure_that_cannot_be_written(home, here):
    refused(call("detect", home / "d.safetensors", home / "clean.npy", "--figure", "f.nothing"), "nothing")
    assert not list(here.iterdir())


def test_errors_that_nobody_thought_of_are_not_taken_for_flags(home, here, monkeypatch):
    monkeypatch.setattr(files, "read", lambda *a, **k: 1 / 0)
    refused(call("detect", home / "d.safetensors", home / "clean.npy"), "unexpected ZeroDivisionError")


# ------------------------------------------------------------------ streams


def test_many_files_are_a_stream(home, here):
    np.save(here / "bad2.npy", shaken(draw(40, seed=8))[..., 0])
    clean = [home / "clean.npy"]
    for seed in (20, 21):
        np.save(here / f"c{seed}.npy", draw(30, seed=seed)[..., 0])
        clean.append(here / f"c{seed}.npy")
    result = call("detect", home / "d.safetensors", *clean, "--json")
    steps = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and [step["number"] for step in steps] == [1, 2, 3]
    result = call("detect", home / "d.safetensors", *clean, home / "bad.npy", "bad2.npy", "--figure", "s.png")
    assert result.exit_code == 1 and "ALARM" in result.stdout.splitlines()[-1]
    assert "ALARM" not in "".join(result.stdout.splitlines()[:3]) and (here / "s.png").exists()
    result = call("detect", home / "d.safetensors", clean[0], "none.npy")
    assert result.exit_code == 2 and "there is no file none.npy" in result.stderr


def test_watching_a_folder(home, here):
    folder = here / "in"
    folder.mkdir()
    (folder / "0.npy").write_text("no array")

    def fill():
        for number, seed in enumerate((30, 31)):
            np.save(folder / f".{number}.part", draw(30, seed=seed)[..., 0])
            os.replace(folder / f".{number}.part.npy", folder / f"{number + 1}.npy")

    writer = threading.Timer(0.15, fill)
    writer.start()
    result = call("detect", home / "d.safetensors", "--watch", "in", "--interval", "0.05", "--idle", "0.8", "--json")
    writer.join()
    names = [Path(json.loads(line)["batch"]).name for line in result.stdout.splitlines()]
    assert sorted(names) == ["1.npy", "2.npy"]
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "0.npy" in result.stderr
    (folder / "0.npy").unlink()
    for number in range(3, 8):
        np.save(folder / f"{number}.npy", shaken(draw(40, seed=number))[..., 0])
    result = call("detect", home / "d.safetensors", "--watch", "in", "--interval", "0.05", "--idle", "0.4")
    assert result.exit_code == 1 and result.stdout.count("ALARM") == 1


def test_files_still_being_written_are_left_alone(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"1")
    growing = files.arriving(tmp_path, interval=0.02, idle=0.2)
    stop = threading.Event()

    def grow():
        while not stop.wait(0.005):
            with path.open("ab") as stream:
                stream.write(b"1")

    writer = threading.Thread(target=grow)
    writer.start()
    timer = threading.Timer(0.15, stop.set)
    timer.start()
    assert next(growing) == path
    assert stop.is_set()
    writer.join()
    assert list(growing) == []


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("shape", "hint", "expected"),
    [
        ((5, 12, 12), None, (5, 1, 12, 12)),
        ((5, 12, 12, 3), None, (5, 3, 12, 12)),
        ((5, 3, 12, 12), None, (5, 3, 12, 12)),
        ((5, 3, 12, 3), (3, 3, 12), (5, 3, 3, 12)),
        ((5, 3, 12, 3), None, (5, 3, 12, 3)),
        ((5, 12), None, (5, 12)),
    ],
)
def test_where_the_channels_are(tmp_path, shape, hint, expected):
    values = RNG.random(shape, dtype=np.float32)
    np.save(tmp_path / "a.npy", values)
    found = files.read(tmp_path / "a.npy", shape=hint).values
    assert found.shape == expected
    assert found.flat[0] == values.flat[0] and np.sort(found.ravel()).tolist() == np.sort(values.ravel()).tolist()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, "<f4", ">f4", np.float64, np.float16])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, order, dtype):
    values = np.asarray(RNG.integers(0, 2, (4, 5, 6)), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    found = files.read(tmp_path / "a.npy").values
    expected = values / np.float32(255) if dtype == np.uint8 else values  # bytes become float32, as images are
    np.testing.assert_array_equal(found[:, 0], expected)
    assert found.flags.c_contiguous


def test_splits_of_a_medmnist_file(tmp_path):
    parts = {f"{name}_images": draw(n, 3, n) for name, n in (("train", 4), ("val", 3), ("test", 2))}
    labels = {key.replace("images", "labels"): np.arange(len(v))[:, None] for key, v in parts.items()}
    np.savez(tmp_path / "m.npz", **parts, **labels)
    for split, n in (("train", 4), ("val", 3), ("test", 2), (None, 2), ("all", 9)):
        samples = files.read(tmp_path / "m.npz", split=split)
        assert samples.values.shape == (n, 3, 12, 12) and samples.labels.shape == (n,)
    np.testing.assert_array_equal(samples.values[0], parts["train_images"][0].transpose(2, 0, 1) / np.float32(255))


def test_pictures_come_in_the_order_a_person_expects(tmp_path):
    for number in (10, 9, 100, 1):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(tmp_path / f"img{number}.png")
    Image.fromarray(np.full((4, 4, 3), 50, np.uint8)).save(tmp_path / "img2.png")
    samples = files.read(tmp_path)
    assert samples.names == ["img1.png", "img2.png", "img9.png", "img10.png", "img100.png"]
    assert samples.values.shape == (5, 3, 4, 4) and samples.values[3, 0, 0, 0] == np.float32(10) / np.float32(255)
