"""Pieces of work one after another, or on a Dask cluster: the one place that knows whether there is one.

Whoever splits work writes it as a function of an item and calls `map_tasks`. Without a cluster that is a loop, and
nothing of Dask is imported. The numbers are the same either way: what a task draws comes from a seed of its own, never
from how work was split or who did it.

There is a cluster where the variable `ADVLIB_DASK` names its scheduler (a notebook's kernel under `advlib run --dask`)
or where the process has a `distributed.Client` (`connect` makes one). Inside a task there is none: tasks do not wait
for tasks.
"""

import ctypes
import functools
import hashlib
import itertools
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from advlib import __version__
from advlib.progress import STATUS_FILE, track

Item = TypeVar("Item")
Result = TypeVar("Result")

ADDRESS = "ADVLIB_DASK"
"""Environment variable: address of the scheduler that `map_tasks` sends tasks to."""

PATIENCE = 9.0
"""Seconds after which an address where nobody answers, or a cluster without workers, is given up."""


class ClusterLost(RuntimeError):
    """The scheduler, or every worker that took a task, went away."""


class WrongWorker(ValueError):
    """A worker runs other code or another NumPy, and would give other numbers."""


def map_tasks(
    function: Callable[..., Result],
    items: Iterable[Item],
    description: str,
    *,
    shared: Sequence[Any] = (),
    total: int | None = None,
    client: Any = None,
    quiet: bool = False,
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item, *shared)) for each item, in the order in which they are done.

    Parameters
    ----------
    function : callable
        Of module level, so that it can be sent. It must give the same whoever calls it and in whatever order.
    items : iterable
        Taken in their order, each only when there is someone to do it.
    description : str
        What is being done, a few words.
    shared : sequence
        Arguments that all tasks take: sent once to each worker that needs them.
    total : int, optional
        Number of items, where `items` has no length.
    client : distributed.Client, optional
        Whom to send tasks to, instead of `current`.
    quiet : bool
        Whether to show no progress, where the function itself does.

    Raises
    ------
    ClusterLost
        Where the scheduler is gone, or a task has ended several workers; what was yielded before stands.
    WrongWorker
        Where a worker has another version.
    Exception
        Whatever the function raises.
    """
    cluster = client or current()
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    if cluster is not None:
        done = _on(cluster, function, items, description, shared)
        yield from done if quiet else track(done, description, total)
        return
    for item in items if quiet else track(items, description, total):
        yield item, function(item, *shared)


def _on(
    cluster: Any, function: Callable, items: Iterable[Any], description: str, shared: Sequence[Any]
) -> Iterator[tuple]:
    from distributed import CancelledError, as_completed
    from distributed.scheduler import KilledWorker

    place = cluster.scheduler.address if cluster.scheduler else "?"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it is large
            # A task and not scattered: what was scattered is lost with the workers that held it.
            held = [cluster.submit(functools.partial(_given, argument), pure=False) for argument in shared]
        waiting, sent, futures, future = iter(items), as_completed(), {}, None
        while True:
            # A few for each thread, so that no worker waits and the scheduler holds few arguments.
            room = 2 * sum(cluster.nthreads().values()) + 2 - len(futures)
            for item in itertools.islice(waiting, max(room, 0)):
                future = cluster.submit(_checked, stamp(), function, item, *held, pure=False)
                futures[future] = item
                sent.add(future)
            if not futures:
                break
            future = next(sent)
            yield futures.pop(future), future.result()  # popped, so that the cluster need not keep it
    except KilledWorker as error:
        raise ClusterLost(
            f"a task of {description!r} ended {error.allowed_failures + 1} workers one after another, the last at "
            f"{error.last_worker.address}: did its memory run out? What was done is kept; the same call goes on there"
        ) from None
    except (CancelledError, TimeoutError, OSError):
        # Of a cluster just lost, the client may still say that it is running; of the task, it knows for certain.
        if future is not None and future.status == "error":
            raise  # the task's own, such as a full disk
        raise ClusterLost(
            f"the Dask scheduler at {place} is gone; what was done is kept, and the same call goes on there (--resume)"
        ) from None


def _given(argument: Any) -> Any:
    """Return an argument of all tasks, by a task of its own: sent to one worker, and from worker to worker."""
    return argument


def _checked(expected: dict[str, str], function: Callable[..., Result], item: Any, *shared: Any) -> Result:
    """Do a task on a worker, on one thread; refuse where it would give other numbers."""
    wrong = difference(expected, stamp())
    if wrong:
        raise WrongWorker(f"the worker on {socket.gethostname()} is refused: {wrong}")
    settle()
    os.environ.setdefault(STATUS_FILE, os.devnull)  # a task's own bars would go to whoever started the worker
    return function(item, *shared)


@functools.cache
def stamp() -> dict[str, str]:
    """Return the versions that decide the numbers, and a digest of the packages' own code."""
    digest = hashlib.sha256()
    tree = Path(__file__).parents[1]
    for package in ("advlib", "compendium"):  # the second where there is one: a clone has both, and sends tasks of both
        for file in sorted((tree / package).rglob("*.py")):
            digest.update(file.relative_to(tree).as_posix().encode() + b"\n" + file.read_bytes())
    others = {name: metadata.version(name) for name in ("numpy", "torch")}
    return {"advlib": __version__, "code": digest.hexdigest()[:12], **others}


def difference(expected: dict[str, str], found: dict[str, str]) -> str:
    """Say in what two stamps differ; "" where they agree."""
    wrong = [f"{name} {found.get(name)} in place of {value}" for name, value in expected.items()
             if found.get(name) != value]  # fmt: skip
    return f"it has {', '.join(wrong)}" if wrong else ""


def settle() -> None:
    """Keep torch on one thread, as a worker has one task at a time, and memory between tasks."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    _keep_memory()


@functools.cache
def _keep_memory() -> None:
    """Let glibc keep up to 256 MiB that were freed, for this process.

    Dask starts workers with MALLOC_TRIM_THRESHOLD_=65536: every temporary array goes back to the system and comes anew,
    page by page, which makes the tasks of `advlib.prdc.blocked` take 2.5 times as long.
    """
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(trim, 2**28)
            mallopt(mmap, 2**25)  # the most it takes


def current() -> Any:
    """Return the `distributed.Client` that tasks go to; None where there is none, and inside a task."""
    address = os.environ.get(ADDRESS)
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return connect(address) if address else None
    try:
        distributed.get_worker()
        return None
    except ValueError:  # not inside a task
        pass
    try:
        return distributed.Client.current()
    except ValueError:
        return connect(address) if address else None


def connect(address: str) -> Any:
    """Return a client of the scheduler at `address`, all of whose workers have this process' versions.

    Parameters
    ----------
    address : str
        Such as "tcp://10.0.0.1:8786"; without a protocol TCP is meant. "local" starts a cluster on this machine: a
        worker of one thread for each core, which ends with this process.

    Returns
    -------
    distributed.Client

    Raises
    ------
    ValueError
        Where Dask is not installed, nobody listens within `PATIENCE` seconds or no worker is there.
    WrongWorker
        Where a worker has another version of advlib or NumPy, or more than one thread.
    """
    if find_spec("distributed") is None:
        raise ValueError("a cluster needs Dask, which is not installed: pip install 'advlib[dask]'")
    from distributed import Client, LocalCluster

    if address == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        cluster = LocalCluster(n_workers=cores, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
        return verified(Client(cluster), "local")
    address = address if "://" in address else f"tcp://{address}"
    _listens(address)
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=True)
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {address}: {error or 'it took too long'}") from None
    return verified(client, address)


def _listens(address: str) -> None:
    """Ask the port first: Dask itself asks again and again where nobody listens, and waits for ever for one silent."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ValueError(f"the address of a scheduler is HOST:PORT, such as tcp://10.0.0.1:8786, but is {address!r}")
    try:
        with socket.create_connection((host, port), timeout=PATIENCE / 2) as line:
            said = b"\0" if parts.scheme == "tls" else line.recv(8)
    except TimeoutError:
        said = b""
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"nobody listens at {address} ({why}): is the scheduler running?") from None
    # A scheduler speaks first, and begins with how many frames will follow: few.
    if not said or int.from_bytes(said, "little") > 1000:
        raise ValueError(f"no Dask scheduler answers at {address}: whoever listens there does not speak as one")


def verified(client: Any, address: str) -> Any:
    """Return the client, or close it and raise where a worker is missing or would give other numbers."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE if address != "local" else 60)
        found = client.run(stamp, on_error="return")
    except TimeoutError:
        client.close()
        raise ValueError(f"the scheduler at {address} has no worker after {PATIENCE:.0f} seconds") from None
    for worker, answer in found.items():
        wrong = f"it cannot run advlib ({answer})" if isinstance(answer, BaseException) else difference(stamp(), answer)
        if wrong:
            client.close()
            raise WrongWorker(f"the worker at {worker} is refused: {wrong}")
    threaded = {worker: count for worker, count in client.nthreads().items() if count > 1}
    if threaded:
        client.close()
        worker, count = next(iter(threaded.items()))
        raise WrongWorker(
            f"the worker at {worker} is refused: it has {count} threads, but torch's random numbers are one stream a "
            "process; start one worker a core, dask worker --nworkers N --nthreads 1"
        )
    client.run(settle)
    return client
