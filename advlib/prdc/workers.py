"""Threads and working memory: how large the pieces of a task are, and who works on them."""

import functools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from advlib.checks import as_number


class Workers:
    """As many threads as torch was given, and the memory that each may use.

    Parameters
    ----------
    device : torch.device
        Where products run; on a GPU one thread asks for them.
    n_features : int
        Of one point.
    memory_gb : float
        For all threads together, in GiB.
    """

    def __init__(self, device: torch.device, n_features: int, memory_gb: float):
        if not 0 < as_number(memory_gb, "memory_gb") < math.inf:
            raise ValueError(f"memory_gb must be a positive number of GiB, but is {memory_gb!r}")
        self.on_gpu = device.type == "cuda"
        self.n_features = n_features
        self.threads = 1 if self.on_gpu else torch.get_num_threads()
        self.share = float(memory_gb) * 2**30 / self.threads  # bytes a thread may use

    def tile_pairs(self) -> int:
        """Pairs in one tile: a tile stays in a core's cache, and were all pairs survivors they would fit the budget."""
        return int(max(2**12, min(2**26 if self.on_gpu else 2**20, self.share / 256)))

    def panel_rows(self, columns: int = 1) -> int:
        """Points worked on at a time, where each takes as many float64 numbers as `columns`, or 8 of its own size."""
        by_budget = self.share / (8 * max(columns, 8 * self.n_features))
        return int(max(1, min(2**13 if self.on_gpu else 512, by_budget)))

    def each_panel(self, task: Callable[[int, int], None], n: int, panel: int) -> None:
        """Run the task on 0 … n − 1 in spans (first, end) of `panel`; see `each`."""
        self.each(task, [(lo, min(lo + panel, n)) for lo in range(0, n, panel)])

    def each(self, task: Callable[..., None], spans: list[tuple[int, ...]]) -> None:
        """Run the task on every span, on as many threads as torch was given, each without inner parallelism.

        Tiles need no barrier between their steps, which inner parallelism would put after each.
        """
        threads = min(self.threads, torch.get_num_threads())
        if threads == 1:
            for span in spans:
                task(*span)
        else:
            running = [_pool(threads).submit(task, *span) for span in spans]
            try:
                for done in running:
                    done.result()
            finally:  # after an error or Ctrl-C, what has not begun need not begin
                for left_over in running:
                    left_over.cancel()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch does not spread further, kept: setting this up anew costs milliseconds each time."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="advlib", initializer=torch.set_num_threads, initargs=(1,))
    together = threading.Barrier(threads)
    for started in [pool.submit(together.wait) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(threads)  # a thread sets its own number and the one that new threads start with
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has the pool, but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
