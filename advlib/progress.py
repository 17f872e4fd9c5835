"""A sign of life for anything over a few seconds: a bar on a terminal or in Jupyter, a status line for the runner."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

STATUS_FILE = "ADVLIB_PROGRESS"
"""Environment variable: a file that `advlib run` watches while a notebook's kernel works. Bars stay out of the
stored outputs that way."""


def track(items: Iterable[Item], description: str | Callable[[], str], total: int | None = None) -> Iterator[Item]:
    """Yield `items` and show how far the loop has come.

    Parameters
    ----------
    items : iterable
        What to loop over.
    description : str or callable
        What is being done, a few words; a callable is asked for them twice a second.
    total : int, optional
        Number of items, where `items` has no length.
    """
    words = description if callable(description) else lambda: description
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    status = os.environ.get(STATUS_FILE)
    shown = 0.0
    if status is None:
        from rich.progress import Progress  # a worker, whose bars nobody sees, can do without

        with Progress(transient=True) as bar:
            task = bar.add_task(words(), total=total)
            for item in items:
                yield item
                if callable(description) and time.monotonic() - shown > 0.5:
                    bar.update(task, description=words())
                    shown = time.monotonic()
                bar.advance(task)
        return
    try:
        for done, item in enumerate(items):
            if time.monotonic() - shown > 0.5:
                # A reader that meets a half-written line shows it for half a second; no lock is worth that.
                Path(status).write_text(f"{words()} {done}/{total or '?'}", encoding="utf-8")
                shown = time.monotonic()
            yield item
    finally:
        Path(status).write_text("", encoding="utf-8")
