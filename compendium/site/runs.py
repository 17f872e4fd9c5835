"""What each notebook's run left behind: record and executed notebook, of a profile's own run or the stored one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from compendium import paths as places
from compendium import runner
from compendium.claims import record
from compendium.execution import first_line, headings
from compendium.site import notebook as notebooks


@dataclass(frozen=True)
class NotebookRun:
    """One notebook as the site shows it.

    Attributes
    ----------
    name, title : str
        File name without ending; first heading.
    record : dict or None
        What `metrics.json` holds.
    executed : NotebookNode or None
        The notebook with its outputs.
    stored : bool
        Whether record and outputs are those of the repository, because nothing was run here.
    """

    name: str
    title: str
    record: dict[str, Any] | None
    executed: nbformat.NotebookNode | None
    stored: bool

    @property
    def page(self) -> str | None:
        """Name of the notebook's page; None where there are no outputs to show."""
        return f"{self.name}.html" if self.executed else None

    @property
    def slowest(self) -> list[tuple[float, str, str]]:
        """Cells that took a second or more, the slowest first: (seconds, heading of the section, first line)."""
        if self.executed is None:
            return []
        cells = zip(self.executed.cells, headings(self.executed.cells), strict=True)
        timed = [(cell.metadata.get("papermill", {}).get("duration") or 0.0, heading, cell) for cell, heading in cells]
        found = [(seconds, heading, first_line(cell.source)) for seconds, heading, cell in timed if seconds >= 1]
        return sorted(found, reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    return record.read(path, whole=True) if path.is_file() else None


def collect(profile: str) -> list[NotebookRun]:
    """Gather the notebooks in their order, each with this profile's own run or, for want of one, the stored record.

    The notebooks of the repository hold the outputs of the quick profile; there a stored run has a page as well.
    """
    found = []
    for path in runner.notebooks():
        executed, metrics = (places.RUNS / profile / path.stem / name for name in (path.name, "metrics.json"))
        mine = executed.is_file() and metrics.is_file()
        shown = runner.read(executed if mine else path)
        content = _read(metrics if mine else record.reference_path(path.stem, profile))
        stored = content is not None and not mine
        has_page = mine or (stored and profile == "quick" and any(cell.get("outputs") for cell in shown.cells))
        found.append(NotebookRun(path.stem, notebooks.title(shown), content, shown if has_page else None, stored))
    return found
