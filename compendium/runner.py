"""Run notebooks headlessly with papermill: progress on the terminal, reuse of what is still valid, records kept."""

import ast
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import nbformat
from rich.console import Console
from rich.markup import escape

from advlib import paths
from compendium import paths as places
from compendium.claims import parameters as kinds
from compendium.claims import record
from compendium.cluster import Cluster, joined
from compendium.execution import Board, CellFailed, clock, execute, stop_kernels

_TREE = Path(__file__).resolve().parents[1]


class UnknownNotebook(ValueError):
    """A notebook was asked for that is not there."""


def notebooks(names: Iterable[str] = ()) -> list[Path]:
    """Return the notebooks whose file name starts with one of `names`; all, in order, when none is given.

    Raises
    ------
    UnknownNotebook
        When a name fits none.
    """
    there = sorted(places.NOTEBOOKS.glob(f"{places.NUMBERED}.ipynb"))
    chosen: list[Path] = []
    for name in names:
        found = [path for path in there if path.stem.startswith(name.removesuffix(".ipynb"))]
        if not found:
            raise UnknownNotebook(f"no notebook starts with {name!r}; there are {', '.join(p.stem for p in there)}")
        chosen += [path for path in found if path not in chosen]
    return sorted(chosen) if names else there


def parameters_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the one cell tagged `parameters`; raise a ValueError when there is none or more than one."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"a notebook has exactly one cell tagged `parameters`, but this one has {len(cells)}")
    return cells[0]


def defaults(path: Path) -> dict[str, Any]:
    """Read a notebook's parameters and their default values, flat literals; nothing in the cell is run.

    Raises
    ------
    ValueError
        Naming the notebook: it cannot be read, has no `parameters` cell, or that holds anything but NAME = literal.
    """
    try:
        cell = parameters_cell(read(path))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    try:
        body = ast.parse(cell.source).body
        return {line.targets[0].id: ast.literal_eval(line.value) for line in body}
    except (AttributeError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the parameters of {path} must be lines NAME = literal, but are not: {error}") from None


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook, or raise a ValueError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # cells without an id may be read
            notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))
            nbformat.validate(notebook)  # `nbformat.read` would only log what it finds
        return notebook
    except OSError as error:
        raise ValueError(f"the notebook {path} cannot be read: {error.strerror}") from None
    except Exception as error:  # of JSON, of its schema, of the library
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"the notebook {path} is damaged, restore it from the repository: {reason}") from None


def _injected(cell: nbformat.NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def source_digest(notebook: nbformat.NotebookNode) -> str:
    """Digest of a notebook's cells without their outputs: changes exactly when a stored output may be stale."""
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells if not _injected(cell)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def import_closure(source: str) -> list[Path]:
    """Return the files of this tree that a piece of code imports, directly or through others, sorted."""
    finder = ModuleFinder([str(_TREE)])  # and nowhere else: other packages are pinned
    finder.scan_code(compile(source, "<notebook>", "exec"), finder.add_module("__main__"))
    return sorted(Path(module.__file__) for module in finder.modules.values() if module.__file__)


def inputs_digest(path: Path, parameters: dict[str, Any]) -> str:
    """Digest of all that decides a run's numbers: cells, parameters, imported code, published tables, weights, pins.

    Only the code that the notebook imports, by its place in the tree: an edit leaves other notebooks' runs valid.
    """
    notebook = read(path)
    digest = hashlib.sha256(source_digest(notebook).encode())
    digest.update(json.dumps(parameters, sort_keys=True).encode())
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    tree = [
        *import_closure(code),
        *sorted(places.PUBLISHED.rglob("*")),
        *sorted(paths.WEIGHTS.glob("*")),
        paths.HOME / "requirements.lock",
    ]
    for file in tree:
        if file.is_file():
            digest.update(os.path.relpath(file, _TREE).encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook.

    Attributes
    ----------
    status : str
        "ran", "reused" or "failed".
    seconds : float
        Time taken by this call.
    message : str
        The error of a failed run, or why an earlier run still stands.
    """

    notebook: str
    status: str
    seconds: float
    message: str = ""


def expected_seconds(notebook: str, profile: str) -> float | None:
    """Seconds that the stored run of a notebook and profile took; None where none is stored."""
    path = record.reference_path(notebook, profile)
    return record.read(path).get("duration_s") if path.is_file() else None


def _still_valid(folder: Path, name: str, digest: str) -> str:
    """Say since when a finished run in `folder` stands, if it is whole and its inputs had this digest; else ""."""
    stamp = folder / "inputs.sha256"
    whole = all(path.is_file() for path in (folder / f"{name}.ipynb", folder / "metrics.json", stamp))
    if not whole or stamp.read_bytes() != digest.encode():
        return ""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(stamp.stat().st_mtime))
    return f"nothing it depends on has changed since {when}"


def run_notebook(
    path: Path,
    parameters: dict[str, Any],
    console: Console,
    *,
    force: bool = False,
    runs: Path | None = None,
    board: Board | None = None,
    threads: int | None = None,
    cluster: Cluster | None = None,
) -> Outcome:
    """Execute one notebook with `parameters` into `results/runs/<profile>/<notebook>/`.

    A run whose inputs have not changed since is kept. Output and records appear under their final names only when
    the run succeeded; a failed notebook is kept beside them as `failed.ipynb`. On a `cluster`, it runs beside a worker.
    """
    runs = runs or places.RUNS
    folder = runs / parameters["profile"] / path.stem
    digest = inputs_digest(path, parameters)
    valid = _still_valid(folder, path.stem, digest)
    if valid and not force:
        return Outcome(path.stem, "reused", 0.0, valid)

    folder.mkdir(parents=True, exist_ok=True)
    stamp, failed = folder / "inputs.sha256", folder / "failed.ipynb"
    stamp.unlink(missing_ok=True)
    began = time.monotonic()
    environment = {"ADVLIB_RUNS": str(runs)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    expected = expected_seconds(path.stem, parameters["profile"])
    with tempfile.TemporaryDirectory(prefix="advlib-") as scratch, (
        nullcontext(board) if board else Board(console).shown()
    ) as lines:  # fmt: skip
        output = Path(scratch) / path.name
        try:
            (execute if cluster is None else cluster.execute)(path, output, parameters, lines, expected, environment)
        except CellFailed as error:
            if output.is_file():
                shutil.copyfile(output, failed)
            return Outcome(path.stem, "failed", time.monotonic() - began, str(error))
        paths.write_atomically(folder / path.name, output.read_text(encoding="utf-8"))
    failed.unlink(missing_ok=True)
    paths.write_atomically(stamp, digest)
    return Outcome(path.stem, "ran", time.monotonic() - began)


def _plan(names: Iterable[str], profile: str, overrides: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """Return the chosen notebooks, each with its parameters; raise a ValueError for what none of them has."""
    chosen = notebooks(names)
    known = {path: defaults(path) for path in chosen}
    for name in overrides:
        if not any(name in parameters for parameters in known.values()):
            all_known = sorted(set().union(*known.values()))
            raise ValueError(f"no chosen notebook has a parameter {name!r}; there are {', '.join(all_known)}")
    requested = {**record.profile_parameters(profile), **overrides}
    plan = {
        path: {name: requested.get(name, value) for name, value in parameters.items()}
        for path, parameters in known.items()
    }
    for parameters in plan.values():
        kinds.validate(parameters)
    return plan


def forecast(plan: Mapping[Path, Mapping[str, Any]], jobs: int, *, force: bool = False) -> str:
    """Say in one sentence what a plan will do and how long it may take, by the stored records of its profile."""
    waiting = {}
    for path, parameters in plan.items():
        folder = places.RUNS / parameters["profile"] / path.stem
        if force or not _still_valid(folder, path.stem, inputs_digest(path, dict(parameters))):
            waiting[path.stem] = expected_seconds(path.stem, parameters["profile"])
    if not waiting:
        return f"Nothing to run: all {len(plan)} are still valid (--force runs them again)."
    sentence = f"{len(waiting)} of {len(plan)} notebooks to run"
    seconds = [value for value in waiting.values() if value is not None]
    if seconds:
        total = max(sum(seconds) / jobs, max(seconds))
        together = f", {jobs} at a time" if jobs > 1 else ""
        sentence += f"{together}: about {clock(total)} by the stored records"
    missing = [name for name, value in waiting.items() if value is None]
    return sentence + (f"; no record says how long {', '.join(missing)} may take." if missing else ".")


def _threads(jobs: int) -> int | None:
    """How many threads a kernel gets where several run: its share of the cores, unless the caller has said."""
    return max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 and "OMP_NUM_THREADS" not in os.environ else None


def run_all(
    names: Iterable[str],
    profile: str,
    overrides: dict[str, Any],
    console: Console,
    *,
    force: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
) -> list[Outcome]:
    """Run the named notebooks (all when none is named) with a profile's parameters.

    Parameters
    ----------
    names : iterable of str
        Beginnings of notebook names, such as "02" (both 02a and 02b) or "02b".
    profile : str
        A file in `params/`.
    overrides : dict
        Parameters that replace the profile's; each must be one of a chosen notebook.
    force : bool
        Run again what is still valid.
    jobs : int, optional
        Notebooks at a time, each with its share of the cores; by default one, on a cluster one a worker.
    dask : str, optional
        Address of a Dask scheduler, or "local" (`advlib.tasks.connect`), to run them there.

    Returns
    -------
    list of Outcome
        In the order of the notebooks.

    Raises
    ------
    ValueError
        For an unknown notebook, profile or parameter, fewer than one job, or a cluster that cannot be used, before
        anything runs.
    advlib.tasks.ClusterLost
        Where the scheduler goes away; finished notebooks are kept.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, but is {jobs}")
    plan = _plan(names, profile, overrides)
    with nullcontext() if dask is None else joined(dask, console) as cluster:
        jobs = jobs or (1 if cluster is None else min(cluster.workers, len(plan)))
        console.print(forecast(plan, jobs, force=force), highlight=False, soft_wrap=True)
        return _run_plan(plan, console, force, jobs, cluster)


def _run_plan(
    plan: Mapping[Path, dict[str, Any]], console: Console, force: bool, jobs: int, cluster: Cluster | None
) -> list[Outcome]:
    board = Board(console)
    done: dict[Path, Outcome] = {}

    def work(path: Path) -> None:
        outcome = run_notebook(
            path, plan[path], console, force=force, board=board, threads=_threads(jobs), cluster=cluster
        )
        done[path] = outcome
        mark = {"ran": "[green]ran[/]", "reused": "[cyan]reused[/]", "failed": "[red]failed[/]"}[outcome.status]
        detail = escape(outcome.message) if outcome.message else clock(outcome.seconds)
        console.print(f"[{len(done)}/{len(plan)}] {path.stem}  {mark}  {detail}", highlight=False, soft_wrap=True)

    with board.shown():
        if jobs == 1:
            for path in plan:
                work(path)
        else:
            _at_a_time(jobs, work, plan, stop_kernels if cluster is None else cluster.leave)
    return [done[path] for path in plan]


def _at_a_time(jobs: int, work: Callable[[Path], None], plan: Mapping[Path, Any], stop: Callable[[], object]) -> None:
    """Call `work` on each notebook in so many threads, the longest first; `stop` ends them after an interruption."""
    profile = next(iter(plan.values()))["profile"]
    longest_first = sorted(plan, key=lambda path: -(expected_seconds(path.stem, profile) or 0.0))
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(work, path) for path in longest_first]
        try:
            for future in as_completed(waiting):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _whole_streams(outputs: list[Any]) -> list[Any]:
    """Join pieces of one stream: a busy kernel sends in two what a quiet one prints at once."""
    whole = []
    for output in outputs:
        if whole and output.output_type == whole[-1].output_type == "stream" and output.name == whole[-1].name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def store_reference(path: Path, profile: str) -> None:
    """Make a finished run the committed one: its record into `results/reference/`, and what it shows.

    Figures of other profiles than quick lie beside the record; those of the quick one are in the notebook, whose
    outputs are stored. papermill's injected cell is left out of it (the defaults and the quick profile agree, a test
    holds them together), and it is stamped with the digest of the cells that its outputs belong to.
    """
    folder = places.RUNS / profile / path.stem
    metrics = (folder / "metrics.json").read_text(encoding="utf-8")
    paths.write_atomically(record.reference_path(path.stem, profile), metrics)
    if profile != "quick":
        for figure in sorted(folder.glob("*.png")):
            with paths.replacing(places.REFERENCE / f"{path.stem}.{profile}.{figure.name}") as temporary:
                shutil.copyfile(figure, temporary)
        return
    executed = read(folder / path.name)
    executed.cells = [cell for cell in executed.cells if not _injected(cell)]
    for count, cell in enumerate((c for c in executed.cells if c.cell_type == "code"), 1):
        cell.execution_count = count
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags" and value}
        cell.outputs = _whole_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    for cell in executed.cells:
        cell.metadata.pop("papermill", None)
    executed.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "advlib": {"source_digest": source_digest(executed), "profile": profile},
    }
    paths.write_atomically(path, nbformat.writes(executed) + "\n")
