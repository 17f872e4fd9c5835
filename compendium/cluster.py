"""Notebooks as tasks of a Dask cluster: data sent once, the run's files brought back, signs of life on the way.

A notebook's kernel runs beside a worker and leaves the worker's place free: the heavy parts of its experiment go to the
same cluster as tasks (`advlib.tasks.map_tasks`), and a kernel that waits for them must not hold the place they need.
"""

import hashlib
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from advlib import paths, tasks
from compendium import paths as places
from compendium.execution import Board, CellFailed, execute


class Order(NamedTuple):
    """A notebook as it is sent.

    Attributes
    ----------
    name, content : str
        File name and text of the notebook.
    folder : str
        Where it lies; the kernel works there, or in the worker's own notebooks.
    parameters : dict
    environment : dict
        Variables of the kernel.
    needed : dict
        Digests of data and weights, from `digests`.
    topic : str
        Under which signs of life are sent.
    """

    name: str
    content: str
    folder: str
    parameters: dict[str, Any]
    environment: dict[str, str]
    needed: dict[str, str]
    topic: str


class Answer(NamedTuple):
    """What came of it: files by their path under the runs' folder, the executed notebook, the error of a failed one."""

    files: dict[str, bytes]
    notebook: str
    error: str


class Cluster:
    """A cluster that notebooks are sent to.

    Attributes
    ----------
    client : distributed.Client
    address : str
        Of the scheduler, as a kernel beside a worker reaches it.
    workers : int
        When it was joined.
    """

    def __init__(self, client: Any):
        self.client = client
        self.address = client.scheduler.address
        self.workers = len(client.nthreads())
        self.needed = digests()

    def execute(
        self,
        notebook: Path,
        output: Path,
        parameters: dict[str, Any],
        board: Board,
        expected: float | None,
        environment: dict[str, str],
    ) -> None:
        """Execute a notebook as `compendium.execution.execute` does, on some worker; its records come back.

        Raises
        ------
        CellFailed
            As there.
        advlib.tasks.ClusterLost
            Where the scheduler is gone, or the notebook has ended several workers.
        """
        runs = Path(environment["ADVLIB_RUNS"])
        kernel = {"OMP_NUM_THREADS": "1", tasks.ADDRESS: self.address}
        order = Order(
            notebook.name, notebook.read_text(encoding="utf-8"), str(notebook.parent), parameters, kernel, self.needed,
            f"advlib-{uuid.uuid4().hex}",
        )  # fmt: skip
        status = output.with_name("status")
        with board.line(notebook.stem, expected, status) as line, self._heard(order.topic, line.on_cell, status):
            ((_, answer),) = tasks.map_tasks(_notebook, [order], notebook.stem, client=self.client, quiet=True)
        output.write_text(answer.notebook, encoding="utf-8")
        if answer.error:
            raise CellFailed(answer.error)
        for name, content in answer.files.items():
            with paths.replacing(runs / name) as temporary:
                temporary.write_bytes(content)

    def leave(self) -> None:
        """Leave the cluster, and end it where this process started it; whoever waits for a notebook is told."""
        if self.client.cluster is not None:
            self.client.cluster.close(timeout=10)
        self.client.close(timeout=10)

    @contextmanager
    def _heard(self, topic: str, on_cell: Callable[[int, int], None], status: Path) -> Iterator[None]:
        """Show the worker's signs of life on a notebook's line meanwhile."""

        def hear(event: tuple[float, dict[str, Any]]) -> None:
            said = event[1]
            if said["cell"] is not None:
                on_cell(*said["cell"])
            if status.parent.is_dir():
                status.write_text(said["doing"], encoding="utf-8")

        self.client.subscribe_topic(topic, hear)
        try:
            yield
        finally:
            if self.client.status == "running":
                self.client.unsubscribe_topic(topic)


@contextmanager
def joined(address: str, console: Console) -> Iterator[Cluster]:
    """Join the cluster at an address (`advlib.tasks.connect`), send what its machines lack, and leave it at the end."""
    cluster = Cluster(tasks.connect(address))
    try:
        workers = f"{cluster.workers} worker{'s' * (cluster.workers != 1)}"
        said = f"Dask at {cluster.address}: {workers}, dashboard {cluster.client.dashboard_link}"
        console.print(said, highlight=False, soft_wrap=True)
        for host, count in send(cluster.client, cluster.needed).items():
            console.print(f"  {count} files of data and weights sent to {host}", highlight=False, soft_wrap=True)
        yield cluster
    finally:
        cluster.leave()


def _places() -> dict[str, Path]:
    return {"downloads": paths.DOWNLOADS, "models": paths.WEIGHTS, "published": places.PUBLISHED}


def digests() -> dict[str, str]:
    """Return the sha256 of every file of data and weights that is here, by "place/path"."""
    return {
        f"{place}/{file.relative_to(folder).as_posix()}": _digest(file)
        for place, folder in _places().items()
        for file in (sorted(folder.rglob("*")) if folder.is_dir() else ())
        if file.is_file() and not file.name.startswith(".")
    }


def _digest(file: Path) -> str:
    status = file.stat()
    return _digest_of(file, status.st_size, status.st_mtime_ns)


@cache
def _digest_of(file: Path, size: int, changed: int) -> str:
    """Read a file once as long as it stays as it is."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _file(name: str) -> Path:
    place, _, rest = name.partition("/")
    return _places()[place] / rest


def missing(needed: dict[str, str]) -> list[str]:
    """Return the names of what is not here, or is another."""
    return [name for name, digest in needed.items() if not _file(name).is_file() or _digest(_file(name)) != digest]


def receive(name: str, content: bytes) -> None:
    """Keep a file that was sent, whole or not at all."""
    with paths.replacing(_file(name)) as temporary:
        temporary.write_bytes(content)


def send(client: Any, needed: dict[str, str]) -> dict[str, int]:
    """Send each machine what it lacks, once however many workers it has; return how many files each got."""
    by_host: dict[str, str] = {}
    for worker, about in client.scheduler_info(n_workers=-1)["workers"].items():
        by_host.setdefault(about["host"], worker)
    sent = {}
    for host, worker in by_host.items():
        names = client.run(missing, needed, workers=[worker])[worker]
        for name in names:
            client.run(receive, name, _file(name).read_bytes(), workers=[worker])
        if names:
            sent[host] = len(names)
    return sent


class _Remote(Board):
    """A board beside a worker: cells go to whoever sent the notebook, and so does what the kernel says."""

    def __init__(self, say: Callable[[Any], None]):
        super().__init__(Console(file=open(os.devnull, "w"), force_terminal=True))  # noqa: SIM115 (no line is shown)
        self.say = say

    @contextmanager
    def line(self, title: str, expected: float | None, status: Path) -> Iterator[Any]:
        """Send a sign of life each second while there is something new."""
        over = threading.Event()

        def watch() -> None:
            before = ""
            while not over.wait(1.0):
                doing = status.read_text(encoding="utf-8").strip() if status.is_file() else ""
                if doing != before:
                    self.say({"cell": None, "doing": doing})
                before = doing

        thread = threading.Thread(target=watch, daemon=True)
        with super().line(title, expected, status) as line:
            shown = line.on_cell

            def on_cell(index: int, total: int) -> None:
                shown(index, total)
                self.say({"cell": (index, total), "doing": ""})

            line.on_cell = on_cell
            thread.start()
            try:
                yield line
            finally:
                over.set()
                thread.join()


def _notebook(order: Order) -> Answer:
    """Execute a notebook beside this worker, whose place is free for the notebook's own tasks meanwhile."""
    from distributed import get_worker, secede

    worker = get_worker()
    secede()
    lacking = missing(order.needed)
    if lacking:
        raise ValueError(
            f"the worker at {worker.address} lacks {len(lacking)} files of data or weights, or has others, "
            f"{lacking[0]} first: if it joined after they were sent, start the same call again"
        )
    with tempfile.TemporaryDirectory(prefix="advlib-") as scratch:
        notebook, output, runs = (Path(scratch) / part / order.name for part in ("in", "out", "runs"))
        for folder in (notebook.parent, output.parent, runs.parent):
            folder.mkdir()
        notebook.write_text(order.content, encoding="utf-8")
        there = Path(order.folder) if Path(order.folder).is_dir() else places.NOTEBOOKS
        environment = order.environment | {"ADVLIB_RUNS": str(runs.parent)}
        board, error = _Remote(lambda said: worker.log_event(order.topic, said)), ""
        try:
            execute(notebook, output, order.parameters, board, None, environment, folder=there)
        except CellFailed as failed:
            error = str(failed)
        files = {
            file.relative_to(runs.parent).as_posix(): file.read_bytes()
            for file in sorted(runs.parent.rglob("*")) if file.is_file()
        }  # fmt: skip
        return Answer(files, output.read_text(encoding="utf-8") if output.is_file() else "", error)
