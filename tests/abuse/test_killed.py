"""SIGKILL and Ctrl-C at random moments: the next call ends well, nothing finished is lost, nothing half is taken."""

import contextlib
import http.server
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import operations
import pytest
from tally import case, times

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["operations"])
MOMENTS = times(3, 100)
SECONDS = 300


@pytest.fixture(scope="module", autouse=True)
def server():
    """Start the server that has everything imported; in Python 3.11 it sees no path but the environment's."""
    with pytest.MonkeyPatch.context() as patch:
        here = Path(__file__).resolve().parent
        patch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OMP_NUM_THREADS", "1")  # a fork of several OpenMP threads waits for those that it has not
        forkserver.ensure_running()


@pytest.fixture(autouse=True)
def home():
    """Put back after a test where everything is: what is made before a kill, and the checks after it, move it."""
    here = operations.home()
    yield
    operations.go(here)


class Run:
    """An operation in a fork."""

    def __init__(self, do, folder, argument=None):
        self.pipe, there = SERVER.Pipe()
        self.process = SERVER.Process(target=operations.child, args=(there, do, folder, argument))
        self.process.start()
        there.close()
        assert self.pipe.poll(SECONDS) and self.pipe.recv() == "ready"

    def wait(self):
        """Return the exit status and what the operation returned."""
        result = None
        with contextlib.suppress(EOFError):
            result = self.pipe.recv() if self.pipe.poll(SECONDS) else None
        self.process.join(SECONDS)
        return self.process.exitcode, result

    def kill(self, number):
        if self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


class Slow(http.server.BaseHTTPRequestHandler):
    """Serves the first file in pieces, over a tenth of a second."""

    def do_GET(self):
        content = operations.CONTENT[0]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            for start in range(0, len(content), 15_000):
                self.wfile.write(content[start : start + 15_000])
                time.sleep(0.01)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def nothing(folder):
    pass


def archive(folder):
    (folder / "downloads" / "set").mkdir(parents=True)
    content = operations.packed()
    for place in (folder, folder / "downloads" / "set"):
        (place / "all.tar.gz").write_bytes(content)


def finished(folder):
    book, run = operations.toy(folder)
    operations.nbformat.write(book, run / "99_toy.ipynb")
    (run / "metrics.json").write_text(json.dumps({"metrics": {"x": 1}}))


def unpacked(folder, result):
    (folder / "downloads" / "set" / "all.tar.gz").unlink()
    operations.whole_files(4)(folder, result)


def same(folder, result):
    """What comes after a kill is what comes without one."""
    assert result == EXPECTED[folder.parent.name.rstrip("0123456789")]


EXPECTED = {}
FIT = ["fit", "reference.npz", "-o", "d.safetensors", "--draws", "99"]
CASES = {
    "download": (nothing, operations.download, None, operations.whole_files(1)),
    "unpacking": (archive, operations.unpack, None, unpacked),
    "training": (nothing, operations.train, None, operations.whole_weights),
    "attack": (nothing, operations.attack, None, same),
    "boundary": (nothing, operations.boundary, None, same),
    "fit": (operations.fitted, operations.command, FIT, operations.whole_detector),
    "update-reference": (finished, operations.store, None, operations.whole_reference),
}


@pytest.mark.parametrize("name", CASES)
def test_killed_at_random_moments(name, tmp_path, url):
    """One folder, killed again and again where it stands; then the operation is let run, and must be whole."""
    before, do, argument, check = CASES[name]
    argument = url if name == "download" else argument
    untouched = tmp_path / "untouched"
    untouched.mkdir()
    before(untouched)
    run, began = Run(do, untouched, argument), time.monotonic()
    status, expected = run.wait()
    lasts = time.monotonic() - began
    assert status == 0
    rng, killed = np.random.default_rng(len(name)), 0
    for moment in range(4 * MOMENTS):
        if moment >= MOMENTS:
            if killed >= MOMENTS / 3:
                break
            # The kills came too late: on a busy machine the first run took longer than the others do.
            lasts = max(0.7 * lasts, 0.2)
        folder = tmp_path / f"killed{moment}"
        folder.mkdir()
        before(folder)
        for _ in range(1 + moment % 2):  # every other one twice, the second time in what the first one left
            run = Run(do, folder, argument)
            time.sleep(rng.uniform(0, lasts))
            run.kill(signal.SIGKILL)
            status, _ = run.wait()
            killed += status == -signal.SIGKILL
        status, result = Run(do, folder, argument).wait()
        assert status == 0, (folder / "said").read_text()
        if check is same:
            assert result == expected
        else:
            check(folder, result)
        shutil.rmtree(folder)
        case()
    assert killed >= MOMENTS / 3, "hardly any kill came before the end"


@pytest.mark.parametrize("moments", [times(1, 100)])
def test_a_notebook_run_killed_at_random_moments(moments, tmp_path):
    rng = np.random.default_rng(0)
    operations.toy(tmp_path)
    for _ in range(moments):
        run = Run(operations.notebook, tmp_path)
        time.sleep(rng.uniform(0, 6))
        run.kill(signal.SIGKILL)
        run.wait()
        case()
    assert Run(operations.notebook, tmp_path).wait()[0] == 0, (tmp_path / "said").read_text()
    operations.whole_run(tmp_path, None)


# ------------------------------------------------------------------ Ctrl-C


@pytest.fixture
def place(tmp_path):
    operations.toy(tmp_path)
    operations.fitted(tmp_path)
    assert Run(operations.command, tmp_path, FIT).wait()[0] == 0
    return tmp_path


COMMANDS = {
    "fit": (FIT, 0.5),
    "detect": (["detect", "d.safetensors", "batch.npy"], 0.5),
    "stream": (["detect", "d.safetensors", *["batch.npy"] * 40], 0.5),
    "data fetch": (["data", "fetch", "pathmnist"], 0.3),
    "train": (["train", "mnist-cleverhans", "--output", "weights"], 1.0),
    "run": (["run", "99"], 3.0),
    "update-reference": (["run", "99", "--update-reference"], 4.0),
    "report": (["report"], 4.0),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_with_one_sentence_and_status_130(name, place):
    arguments, most = COMMANDS[name]
    rng, interrupted = np.random.default_rng(1), 0
    for _ in range(times(2, 6 if name in ("run", "train") else 25)):
        run = Run(operations.command, place, arguments)
        time.sleep(rng.uniform(0, most))
        run.kill(signal.SIGINT)
        status, _ = run.wait()
        said = (place / "said").read_text()
        assert "Traceback" not in said, said
        if status == 130:
            interrupted += 1
            assert said.count("advlib: interrupted;") == 1, said
        else:
            assert status in (0, 1), (status, said)  # it was done before, or never had a network
        case()
    assert Run(operations.command, place, FIT).wait()[0] == 0
    operations.whole_detector(place, None)


# ------------------------------------------------------------------ watch and report


def test_a_watch_killed_at_random_moments(place):
    """A watch keeps nothing on disk: the next one looks at every file anew, in order."""
    folder = place / "batches"
    folder.mkdir()
    for number in range(20):
        np.save(folder / f"{number:03d}.npy", operations.images(4, seed=number))
    (folder / ".half.npy").write_bytes(b"\x93NUMPY")
    arguments = ["detect", "d.safetensors", "--watch", "batches", "--interval", "0.01", "--idle", "0.3",
                 "--alpha", "1e-9", "--json"]  # fmt: skip
    rng = np.random.default_rng(2)
    for _ in range(times(2, 100)):
        run = Run(operations.command, place, arguments)
        time.sleep(rng.uniform(0, 1.5))
        run.kill(signal.SIGKILL)
        run.wait()
        case()
    status, _ = Run(operations.command, place, arguments).wait()
    steps = [json.loads(line) for line in (place / "said").read_text().splitlines()]
    assert status == 0 and [step["batch"][-7:] for step in steps] == [f"{number:03d}.npy" for number in range(20)]


def test_a_report_killed_at_random_moments(tmp_path):
    folder = tmp_path / "runs" / "quick" / "report"
    rng = np.random.default_rng(3)
    for _ in range(times(1, 100)):
        run = Run(operations.report, tmp_path)
        time.sleep(rng.uniform(1, 12))
        run.kill(signal.SIGKILL)
        run.wait()
        for page in folder.glob("[!.]*.html"):
            assert page.read_text(encoding="utf-8").rstrip().endswith("</html>"), page
        case()
    assert Run(operations.report, tmp_path).wait()[0] == 0, (tmp_path / "said").read_text()
    assert (folder / "index.html").is_file() and len(list(folder.glob("[!.]*.html"))) > 20
