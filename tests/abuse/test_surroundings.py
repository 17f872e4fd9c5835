"""A full disk, folders that cannot be written, names that nobody expects, no network or a lying one."""

import errno
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from tally import case, times

from advlib import detectors, paths
from advlib.datasets import downloads
from advlib.datasets.downloads import Archive, DataUnavailable, Downloader, File, FileSet
from advlib.detectors import DensityTest
from advlib.prdc import ReferenceManifold

CONTENT = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
FILE = File("set", "a.bin", "sha256:" + hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
RNG = np.random.default_rng(1)
POINTS, OTHERS = RNG.normal(size=(30, 3)), RNG.normal(size=(12, 3))
ROOT = Path(__file__).resolve().parents[2]

PLACES = [
    "with spaces and\ttabs", "quotes ' and \" and `", "größe-日本語-🙂", "x" * 200, "$HOME;rm -rf *", "-rf",
    "a%20b#c?d", "[bold]markup[bold]", "trailing.", "нет", "{braces}", "back\\slash",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
    return tmp_path


def fetch(url="http://127.0.0.1:9/a.bin"):
    archive = Archive(FILE.name, FILE.digest, FILE.size, {"": FILE}, urls=(url,))
    files = FileSet("a set", (FILE,), (archive,), ())
    with Downloader(progress=False) as downloader:
        downloader.fetch(files)
    return files.read()


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", PLACES)
def test_folders_with_unusual_names(name, folder, serving):
    """Downloads, detectors and manifolds are stored and found again under any name that the file system has."""
    place = folder / name
    place.mkdir()
    paths.DOWNLOADS = place / "downloads"
    assert fetch(serving(answer(CONTENT))) == [CONTENT]
    test = DensityTest(2, draws=19).fit(POINTS, OTHERS)
    test.save(place / "d")
    assert detectors.load(place / "d").test(OTHERS[:3]).p_value == test.test(OTHERS[:3]).p_value
    ReferenceManifold(2).fit(POINTS).save(place / "m")
    assert ReferenceManifold.load(place / "m").density(OTHERS) >= 0
    case(3)


def test_a_name_that_is_too_long_is_said(folder):
    with pytest.raises(OSError, match="too long"):
        DensityTest(2, draws=19).fit(POINTS, OTHERS).save(folder / ("x" * 300))
    with pytest.raises(OSError, match="too long"):  # the temporary name beside it is longer by a process number
        DensityTest(2, draws=19).fit(POINTS, OTHERS).save(folder / ("x" * 254))
    case(2)


def test_a_symlinked_data_folder_stays_a_link(folder, serving):
    (folder / "elsewhere").mkdir()
    (folder / "downloads").symlink_to(folder / "elsewhere")
    assert fetch(serving(answer(CONTENT))) == [CONTENT]
    assert (folder / "downloads").is_symlink() and (folder / "elsewhere" / "set" / "a.bin").is_file()
    case()


def test_a_link_to_nothing_and_a_loop_are_said(folder):
    (folder / "downloads").symlink_to(folder / "nowhere" / "deep")
    with pytest.raises(DataUnavailable, match="ADVLIB_DATA"):
        fetch()
    (folder / "downloads").unlink()
    (folder / "downloads").symlink_to(folder / "downloads")
    with pytest.raises((DataUnavailable, OSError), match=r"downloads|symbolic"):
        fetch()
    case(2)


# ------------------------------------------------------------------ disks


ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE]


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("at", ["write", "replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(number, at, folder, monkeypatch):
    """As a full, read-only or broken disk answers: at the first byte, or at the renaming."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    test = DensityTest(2, draws=19).fit(POINTS, OTHERS)
    test.save(folder / "d")
    before = (folder / "d").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "write_bytes") if at == "write" else (os, "replace")), fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            DensityTest(3, draws=19).fit(POINTS, OTHERS).save(folder / "d")
    assert (folder / "d").read_bytes() == before and [path.name for path in folder.iterdir()] == ["d"]
    case()


def small_disk(folder, size="64k"):
    """Mount a disk of 64 kB, or skip where that is not allowed."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip("no disk can be mounted here")


def test_a_full_disk_for_real(folder):
    place = folder / "small"
    small_disk(place)
    try:
        test = DensityTest(2, draws=19).fit(POINTS, OTHERS)
        test.save(place / "d")
        before = (place / "d").read_bytes()
        big = DensityTest(2, draws=19).fit(RNG.normal(size=(4000, 8)), RNG.normal(size=(40, 8)))
        with pytest.raises(OSError, match="No space left"):
            big.save(place / "d")
        assert (place / "d").read_bytes() == before and [path.name for path in place.iterdir()] == ["d"]
    finally:
        subprocess.run(["umount", place], check=True)
    case()


def test_a_data_folder_without_permission_is_said(folder):
    """As a user who owns nothing: root may write anywhere, so it steps down once everything is imported."""
    (folder / "data").mkdir(mode=0o755)
    for part in (folder, *folder.parents):
        if part.is_relative_to("/tmp") and part.stat().st_uid == os.getuid():
            part.chmod(part.stat().st_mode | 0o055)
    code = """
import os, requests
from advlib import datasets
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
(row,) = datasets.fetch(["pathmnist"], progress=False)
print(row.problem)"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ADVLIB_DATA": str(folder / "data"), "HOME": "/nonexistent"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, timeout=300
    )
    assert "could not be stored under" in found.stdout and "Permission denied" in found.stdout, (
        found.stdout + found.stderr
    )
    assert "make that folder writable" in found.stdout
    case()


def test_no_home_and_no_folder_to_write(folder):
    """HOME unset, everything read-only: the library still tests a batch."""
    code = """
import numpy as np
from advlib.detectors import DensityTest
rng = np.random.default_rng(0)
test = DensityTest(draws=19).fit(rng.normal(size=(50, 3)), rng.normal(size=(20, 3)))
print(test.test(rng.normal(size=(5, 3))).p_value > 0)"""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    environment |= {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": "/nonexistent"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, timeout=300
    )
    assert found.stdout.strip() == "True", found.stderr
    case()


def test_a_clock_set_back_changes_no_answer(folder, monkeypatch):
    """Dates decide nothing: a file from the future is checked like any other, and a watch goes on."""
    from advlib.datasets import files

    path = paths.DOWNLOADS / "set" / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    os.utime(path, (4e9, 4e9))
    assert FILE.status.check == "ok"
    monkeypatch.setattr(time, "time", lambda: 0.0)
    np.save(folder / "b.npy", OTHERS)
    os.utime(folder / "b.npy", (0, 0))
    assert [found.name for found in files.arriving(folder, interval=0.01, idle=0.05)] == ["b.npy"]
    case(2)


# ------------------------------------------------------------------ networks


def answer(content, status=200, length=None, kind="application/octet-stream", pause=0.0):
    def handle(self):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        time.sleep(pause)
        self.wfile.write(content)

    return handle


@pytest.fixture
def serving():
    servers = []

    def serve(handle):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                handle(self)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/a.bin"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


HTML = b"<html><body>Please log in to the network.</body></html>"


def redirect(self):
    self.send_response(302)
    self.send_header("Location", self.path)
    self.end_headers()


def hang_up(self):
    self.connection.close()


LIES = {
    "another file of the right size": answer(bytes(len(CONTENT))),
    "HTML in place of the file": answer(HTML, kind="text/html"),
    "HTML with an error": answer(HTML, status=403, kind="text/html"),
    "too long": answer(CONTENT + b"!"),
    "cut": answer(CONTENT[:-1]),
    "cut, and said to be longer": answer(CONTENT[:1000], length=len(CONTENT)),
    "empty": answer(b""),
    "a redirection without end": redirect,
    "hangs up": hang_up,
    "nothing there": answer(b"", status=404),
    "not now": answer(b"", status=503),
    "a password": answer(b"", status=407),
}


@pytest.mark.parametrize("name", LIES)
def test_a_network_that_lies_is_not_believed(name, folder, serving):
    with pytest.raises(DataUnavailable, match=r"127\.0\.0\.1") as caught:
        fetch(serving(LIES[name]))
    assert "put a.bin into" in str(caught.value)
    assert [path.name for path in paths.DOWNLOADS.rglob("*") if path.is_file()] == [".advlib.lock"]
    case()


def test_a_network_that_stalls_is_given_up(folder, serving, monkeypatch):
    monkeypatch.setattr(downloads, "_TIMEOUT", (0.3, 0.3))
    began = time.monotonic()
    with pytest.raises(DataUnavailable, match=r"cannot be reached|broke off"):
        fetch(serving(answer(CONTENT, pause=60)))
    assert time.monotonic() - began < 20
    case()


def test_a_proxy_that_answers_html_is_not_believed(folder, serving, monkeypatch):
    monkeypatch.setenv("http_proxy", serving(answer(HTML, kind="text/html")).removesuffix("/a.bin"))
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DataUnavailable, match=r"data\.example"):
        fetch("http://data.example/a.bin")
    case()


def test_no_network_at_all(folder, monkeypatch):
    def none(*_, **__):
        raise requests.ConnectionError("Temporary failure in name resolution")

    monkeypatch.setattr(requests, "get", none)
    with pytest.raises(DataUnavailable, match=r"cannot be reached.*put a\.bin into"):
        fetch("http://data.example/a.bin")
    case()


def test_what_is_there_already_needs_no_network(folder, monkeypatch):
    monkeypatch.setattr(requests, "get", lambda *_, **__: pytest.fail("asked the network"))
    path = paths.DOWNLOADS / "set" / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert fetch("http://data.example/a.bin") == [CONTENT]
    case()


def test_several_at_once_on_one_data_folder(folder, serving):
    """Threads stand for processes: the lock is a file. One downloads, the others find it there."""
    asked = []

    def count(self):
        asked.append(self.path)
        answer(CONTENT, pause=0.05)(self)

    url, results = serving(count), []
    together = [threading.Thread(target=lambda: results.append(fetch(url))) for _ in range(times(4, 12))]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert results == [[CONTENT]] * len(together) and len(asked) == 1
    case(len(together))
