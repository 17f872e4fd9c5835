"""A sign of life for anything over a few seconds: a bar on a terminal or in Jupyter, a status line for the runner."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.progress import track as rich_track

Item = TypeVar("Item")

STATUS_FILE = "ADVLIB_PROGRESS"
"""Environment variable: a file that `advlib run` watches while a notebook's kernel works. Bars stay out of the
stored outputs that way."""


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` and show how far the loop has come.

    Parameters
    ----------
    items : iterable
        What to loop over.
    description : str
        What is being done, a few words.
    total : int, optional
        Number of items, where `items` has no length.
    """
    status = os.environ.get(STATUS_FILE)
    if status is None:
        yield from rich_track(items, description=description, total=total, transient=True)
        return
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    shown = 0.0
    for done, item in enumerate(items):
        if time.monotonic() - shown > 0.5:
            # A reader that meets a half-written line shows it for half a second; no lock is worth that.
            Path(status).write_text(f"{description} {done}/{total or '?'}", encoding="utf-8")
            shown = time.monotonic()
        yield item
    Path(status).write_text("", encoding="utf-8")
