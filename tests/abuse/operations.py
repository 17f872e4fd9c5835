"""What gets killed: each operation does one thing in a folder, and `check` says that the thing is whole.

They run in forks of a server that has everything imported, so that a hundred kills take seconds.
"""

import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import tarfile
import warnings

import nbformat
import numpy as np
from rich.console import Console

from advlib import attacks, cli, detectors, models, paths, training
from advlib.attacks.stored import stored_attack
from advlib.cli import detection  # noqa: F401 (imported once, in the server)
from advlib.datasets.downloads import Archive, Downloader, File, FileSet
from compendium import paths as places
from compendium import runner
from compendium.claims import record  # noqa: F401 (likewise)
from compendium.site import build

CONTENT = [np.random.default_rng(i).integers(0, 256, 150_000, dtype=np.uint8).tobytes() for i in range(4)]


def sha(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


MOVED = {paths: ("DOWNLOADS", "CACHE"), places: ("NOTEBOOKS", "RUNS", "REFERENCE", "PROFILES")}
FILES = tuple(File("set", f"part{i}.bin", sha(content), len(content)) for i, content in enumerate(CONTENT))
NETWORK = "mnist-cleverhans"


def images(n, seed=0, size=12):
    return np.random.default_rng(seed).random((n, 1, size, size), dtype=np.float32)


def home():
    """Return where everything is."""
    return {(module, name): getattr(module, name) for module, names in MOVED.items() for name in names}


def go(where):
    for (module, name), folder in where.items():
        setattr(module, name, folder)


HOUSE = home()


def moved(folder):
    """Point everything at a folder, as the environment does before an import."""
    for module, name in HOUSE:
        setattr(module, name, folder / name.lower())
        if module is places:
            (folder / name.lower()).mkdir(exist_ok=True)


# ------------------------------------------------------------------ operations: do(folder, argument)


def download(folder, url):
    one = Archive(FILES[0].name, FILES[0].digest, FILES[0].size, {"": FILES[0]}, urls=(f"{url}/part0.bin",))
    with Downloader(progress=False) as downloader:
        downloader.fetch(FileSet("one file", FILES[:1], (one,), ()))


def packed():
    """An archive with all files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for file, content in zip(FILES, CONTENT, strict=True):
            info = tarfile.TarInfo(file.name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpack(folder, _):
    content = (folder / "all.tar.gz").read_bytes()
    archive = Archive(
        "all.tar.gz", sha(content), len(content), {file.name: file for file in FILES}, urls=("http://[::1]:9/",)
    )
    with Downloader(progress=False) as downloader:
        downloader.fetch(FileSet("packed files", FILES, (archive,), ()))


def train(folder, _):
    digits = images(60, size=28), np.arange(60) % 10
    models.partition = lambda name: models.Partition(*digits, np.arange(60), *digits, np.arange(60))
    training.train(NETWORK, epochs=1, folder=folder / "weights", device="cpu", progress=False)


def attack(folder, _):
    batch = stored_attack(
        attacks.fgsm, NETWORK, images(12, size=28), np.arange(12) % 10, chunk=2, folder=folder / "attacked", epsilon=0.1
    )
    return batch.images.tobytes()


def boundary(folder, _):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        batch = stored_attack(
            attacks.boundary, NETWORK, images(6, size=28), np.full(6, 8), chunk=2, folder=folder / "attacked", seed=0,
            steps=10, directions=20,
        )  # fmt: skip
    return batch.images.tobytes()


def command(folder, arguments):
    """`advlib`, as a person calls it."""
    os.chdir(folder)
    sys.argv = ["advlib", *arguments]
    cli.main()


def notebook(folder, _):
    (outcome,) = runner.run_all(["99"], "quick", {}, Console(file=io.StringIO()))
    assert outcome.status in ("ran", "reused"), outcome.message


def store(folder, _):
    runner.store_reference(places.NOTEBOOKS / "99_toy.ipynb", "quick")


def report(folder, _):
    """The site over what the repository stores; only its pages go into the folder."""
    go({(module, name): where for (module, name), where in HOUSE.items() if module is places and name != "RUNS"})
    build.write_site("quick")


# ------------------------------------------------------------------ what is there before


def toy(folder):
    """A notebook that says which number it drew, and a finished run of it."""
    cells = [
        nbformat.v4.new_markdown_cell("# 99 · Toy"),
        nbformat.v4.new_code_cell("from compendium.claims import record"),
        nbformat.v4.new_code_cell('profile = "quick"\nseed = 0', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell('run = record.start("99_toy", profile=profile, seed=seed)'),
        nbformat.v4.new_code_cell("run.metric('x', float(run.rng('x').random()))\nrun.finish()"),
    ]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    moved(folder)
    nbformat.write(book, places.NOTEBOOKS / "99_toy.ipynb")
    (places.PROFILES / "quick.yaml").write_text("profile: quick\nseed: 0\n")
    run = places.RUNS / "quick" / "99_toy"
    run.mkdir(parents=True, exist_ok=True)
    return book, run


def fitted(folder):
    """Pictures to fit on, and a detector fitted before."""
    np.savez(folder / "reference.npz", images=(images(120) * 255).astype(np.uint8)[:, 0])
    np.save(folder / "batch.npy", images(8, seed=3))


# ------------------------------------------------------------------ whole afterwards: check(folder, result)


def whole_files(count):
    def check(folder, _):
        moved(folder)
        there = sorted(path.name for path in (paths.DOWNLOADS / "set").iterdir())
        assert there == [file.name for file in FILES[:count]], there
        for file, content in zip(FILES[:count], CONTENT, strict=False):
            assert file.path.read_bytes() == content
        assert not list(paths.DOWNLOADS.glob(".advlib-partial*"))

    return check


def whole_weights(folder, _):
    assert sorted(path.name for path in (folder / "weights").iterdir()) == [f"{NETWORK}.json", f"{NETWORK}.safetensors"]
    models.load_trained(NETWORK, folder=folder / "weights")


def whole_detector(folder, _):
    test = detectors.load(folder / "d.safetensors")
    assert test.n_reference_ == 96
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name.endswith("d.safetensors")]


def whole_run(folder, _):
    moved(folder)
    run = places.RUNS / "quick" / "99_toy"
    assert json.loads((run / "metrics.json").read_text())["metrics"].keys() == {"x"}
    assert nbformat.read(run / "99_toy.ipynb", as_version=4).cells


def whole_reference(folder, _):
    moved(folder)
    assert json.loads((places.REFERENCE / "99_toy.quick.json").read_text()) == {"metrics": {"x": 1}}
    assert nbformat.read(places.NOTEBOOKS / "99_toy.ipynb", as_version=4).metadata["advlib"]["profile"] == "quick"


# ------------------------------------------------------------------ in a child


def child(pipe, do, folder, argument):
    """Run an operation in a fork: say "ready", do it, send what it returned."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
    with (
        (folder / "said").open("w", buffering=1) as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        cli.errors.file = cli.console.file = said
        moved(folder)
        pipe.send("ready")
        pipe.send(do(folder, argument))
