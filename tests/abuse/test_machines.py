"""Downloader and runner under any order of what can happen to them."""

import hashlib
import tempfile
import warnings
from pathlib import Path

import nbformat
import pytest
import requests
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tally import case, times

from advlib import paths
from advlib.datasets.downloads import Archive, DataUnavailable, Downloader, File, FileSet
from compendium import runner

RIGHT = [b"first content", b"second content"]
SETTINGS = settings(max_examples=times(15, 150), stateful_step_count=12)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


FILES = tuple(File("set", f"{i}.bin", digest(content), len(content)) for i, content in enumerate(RIGHT))
SET = FileSet(
    "a set", FILES,
    tuple(Archive(f.name, f.digest, f.size, {"": f}, urls=(f"http://data.example/{f.name}",)) for f in FILES), (),
)  # fmt: skip


class Answer:
    """What `requests.get` returns."""

    def __init__(self, content):
        self.content = content

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def raise_for_status(self):
        pass

    def iter_content(self, _):
        yield self.content


class Downloads(RuleBasedStateMachine):
    """A folder that anything may happen to, and a network that comes and goes."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(paths, "DOWNLOADS", Path(self.folder.name) / "d")
        self.patch.setattr(requests, "get", self.get)
        self.network = "up"
        case()

    def teardown(self):
        if hasattr(self, "patch"):
            self.patch.undo()
            self.folder.cleanup()

    def get(self, url, **_):
        if self.network == "down":
            raise requests.ConnectionError
        content = RIGHT[int(url[-5])]
        return Answer({"up": content, "lies": b"<html>", "cuts": content[:-1]}[self.network])

    @rule(state=st.sampled_from(["up", "down", "lies", "cuts"]))
    def change_network(self, state):
        self.network = state

    @rule(number=st.integers(0, 1), harm=st.sampled_from(["delete", "empty", "flip", "folder", "leftover", "right"]))
    def happen(self, number, harm):
        path = FILES[number].path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        if harm == "folder":
            path.mkdir()
        elif harm == "leftover":
            (paths.DOWNLOADS / ".advlib-partial-old").mkdir(exist_ok=True)
        elif harm != "delete":
            path.write_bytes({"empty": b"", "flip": b"x" + RIGHT[number][1:], "right": RIGHT[number]}[harm])

    def good(self):
        return [f.path.is_file() and f.path.read_bytes() == right for f, right in zip(FILES, RIGHT, strict=True)]

    @rule()
    def read(self):
        good = all(self.good())
        try:
            assert SET.read() == RIGHT and good
        except DataUnavailable:
            assert not good

    @rule()
    def fetch(self):
        before = self.good()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                with Downloader(progress=False) as downloader:
                    downloader.fetch(SET)
                assert SET.read() == RIGHT
            except DataUnavailable:
                assert self.network != "up"
        assert all(now or not was for was, now in zip(before, self.good(), strict=True)), "something good was lost"
        assert not list(paths.DOWNLOADS.glob(".advlib-partial-*"))


def test_the_downloader_under_any_order():
    run_state_machine_as_test(Downloads, settings=SETTINGS)


class Runs(RuleBasedStateMachine):
    """A finished run beside a notebook that is edited and files that are damaged."""

    @initialize()
    def begin(self):
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.source, self.seed, self.stood = "x = 1", 0, None
        self.write()
        case()

    def teardown(self):
        if hasattr(self, "place"):
            self.place.cleanup()

    def write(self, output=""):
        cells = [
            nbformat.v4.new_code_cell("seed = 0", id="parameters", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(self.source, id="body"),
        ]
        if output:
            cells[1].outputs = [nbformat.v4.new_output("stream", text=output)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), self.folder / "99_toy.ipynb")

    def digest(self):
        return runner.inputs_digest(self.folder / "99_toy.ipynb", {"seed": self.seed})

    @rule(source=st.sampled_from(["x = 1", "x = 2", "import advlib.paths", "x = 1 "]))
    def edit(self, source):
        self.source = source
        self.write()

    @rule(seed=st.integers(0, 2))
    def parameter(self, seed):
        self.seed = seed

    @rule(text=st.sampled_from(["", "a", "b"]))
    def outputs(self, text):
        self.write(text)

    @rule()
    def finish(self):
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        for name in ("99_toy.ipynb", "metrics.json"):
            (run / name).write_text("{}")
        (run / "inputs.sha256").write_text(self.digest())
        self.stood = (self.source, self.seed)

    @rule(name=st.sampled_from(["99_toy.ipynb", "metrics.json", "inputs.sha256"]))
    def lose(self, name):
        (self.folder / "run" / name).unlink(missing_ok=True)
        self.stood = None

    @rule(content=st.sampled_from(["", "0" * 64, "é"]))
    def damage_stamp(self, content):
        if (self.folder / "run").is_dir():
            (self.folder / "run" / "inputs.sha256").write_text(content)
            self.stood = None

    @rule()
    def ask(self):
        valid = runner._still_valid(self.folder / "run", "99_toy", self.digest())
        assert bool(valid) == (self.stood == (self.source, self.seed))


def test_the_runner_under_any_order():
    run_state_machine_as_test(Runs, settings=SETTINGS)
