"""One notebook in a kernel of its own: papermill, a sign of life on the terminal, the failing cell's name."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from advlib.progress import STATUS_FILE


class CellFailed(Exception):
    """A notebook stopped: in which cell, and why."""


_running: set[PapermillNotebookClient] = set()

STARTS = 3
"""Kernels started for a notebook before it is given up: another program can take a port just before the kernel does."""


class _ReportingEngine(NBClientEngine):
    """papermill's own engine, telling a callback which cell begins; the kernel has its own environment and folder."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, on_cell, environment, folder, **kwargs):
        announce = nb_man.cell_start

        def cell_start(cell, cell_index=None, **options):
            on_cell(cell_index, len(nb_man.nb.cells))
            return announce(cell, cell_index, **options)

        nb_man.cell_start = cell_start
        for _ in range(STARTS):
            client = PapermillNotebookClient(
                nb_man, kernel_name=kernel_name, startup_timeout=60, timeout=None, log=logging.getLogger("papermill"),
                # The kernel's own log would break the live line; errors of cells arrive as exceptions.
                extra_arguments=["--IPKernelApp.log_level=50"],
            )  # fmt: skip
            _running.add(client)
            try:
                return client.execute(env=environment, cwd=str(folder))
            except RuntimeError as error:
                if client not in _running or "before replying to kernel_info" not in str(error):
                    raise
            finally:
                _running.discard(client)
        raise CellFailed(
            f"the kernel died {STARTS} times before its first cell; was it killed, or did the memory run out?"
        )


papermill_engines.register("advlib", _ReportingEngine)


def stop_kernels() -> None:
    """Kill every kernel that runs, so that a thread which waits for one comes back."""
    for client in list(_running):
        _running.discard(client)  # so that no other is started in its place
        process = getattr(getattr(client.km, "provisioner", None), "process", None)
        if process is not None:
            process.kill()


def clock(seconds: float) -> str:
    """Write a duration: 1:05, or 2:03:00 from an hour on."""
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:0{2 if hours else 1}d}:{whole % 60:02d}"


class _Line:
    """One live line: notebook, cell, elapsed, expected, and what the kernel says it is doing."""

    def __init__(self, console: Console, title: str, expected: float | None, status: Path):
        self.console, self.title, self.expected, self.status = console, title, expected, status
        self.began = time.monotonic()
        self.cell, self.cells = 0, 0
        self._said = -1

    def __rich__(self) -> Text:
        expected = f" of about {clock(self.expected)}" if self.expected else ""
        doing = self.status.read_text(encoding="utf-8").strip() if self.status.is_file() else ""
        where = f"cell {self.cell}/{self.cells}" if self.cells else "starting the kernel"
        elapsed = clock(time.monotonic() - self.began)
        return Text(f"  {self.title}  {where}  {elapsed}{expected}  {doing}", overflow="ellipsis", no_wrap=True)

    def on_cell(self, index: int, total: int) -> None:
        self.cell, self.cells = index + 1, total
        # A log file shows no live line: say every fourth cell instead.
        if not self.console.is_terminal and index // 4 != self._said:
            self._said = index // 4
            self.console.print(self.__rich__())


class Board:
    """The live lines of all notebooks that run now."""

    def __init__(self, console: Console):
        self.console = console
        self._lines: list[_Line] = []
        self._lock = threading.Lock()

    def __rich__(self) -> Group:
        with self._lock:
            return Group(*self._lines)

    @contextmanager
    def shown(self) -> Iterator["Board"]:
        """Keep the lines on the terminal meanwhile."""
        with Live(self, console=self.console, refresh_per_second=2, transient=True):
            yield self

    @contextmanager
    def line(self, *about: Any) -> Iterator[_Line]:
        """Add a line for one notebook meanwhile."""
        line = _Line(self.console, *about)
        with self._lock:
            self._lines.append(line)
        try:
            yield line
        finally:
            with self._lock:
                self._lines.remove(line)


def first_line(source: str) -> str:
    """Return the first line of a cell that is neither empty nor a comment; "" where there is none."""
    lines = (line.strip() for line in source.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def headings(cells: list[nbformat.NotebookNode]) -> Iterator[str]:
    """Yield for each cell the last heading at or before it, "" before the first."""
    heading = ""
    for cell in cells:
        if cell.cell_type == "markdown" and "papermill-error-cell-tag" not in cell.metadata.get("tags", []):
            heading = next(reversed(re.findall(r"^#+ (.+)", cell.source, re.M)), heading)
        yield heading


def _name_of(error: papermill.PapermillExecutionError, executed: Path) -> str:
    """Name a failed cell as a reader finds it: number, section, first line."""
    cells = nbformat.read(executed, as_version=4).cells
    sections = (heading for cell, heading in zip(cells, headings(cells), strict=True) if cell.source == error.source)
    section = next(sections, "")
    where = f" of the section “{section}”" if section else ""
    return f"cell In [{error.exec_count}]{where}, `{first_line(error.source)}`"


def execute(
    notebook: Path,
    output: Path,
    parameters: dict[str, Any],
    board: Board,
    expected: float | None,
    environment: dict,
    *,
    folder: Path | None = None,
) -> None:
    """Execute a notebook, with a live line on the board.

    Parameters
    ----------
    notebook, output : Path
        What is executed; where the executed copy goes, whole or up to the cell that failed.
    parameters : dict
        For the notebook's `parameters` cell.
    board : Board
    expected : float or None
        Seconds that it may take.
    environment : dict
        Variables of the kernel besides those of this process.
    folder : Path, optional
        Where the kernel works; by default where the notebook lies.

    Raises
    ------
    CellFailed
        Naming the cell and the error.
    """
    status = output.with_name("status")
    with board.line(notebook.stem, expected, status) as line:
        on_cell: Callable[[int, int], None] = line.on_cell
        try:
            papermill.execute_notebook(
                str(notebook), str(output), parameters=parameters, engine_name="advlib", progress_bar=False,
                log_output=False, kernel_name="python3", on_cell=on_cell, folder=folder or notebook.parent,
                environment={**os.environ, **environment, STATUS_FILE: str(status)},
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            raise CellFailed(f"{_name_of(error, output)}: {error.ename}: {error.evalue}") from None
        except DeadKernelError:
            raise CellFailed(
                f"cell {line.cell} of {line.cells}: the kernel died; was it killed, or did the memory run out?"
            ) from None
