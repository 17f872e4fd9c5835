"""Write the notebooks' exercise cells, and notebooks of worked solutions, from one source each.

The source of notebook NN is `exercises/NN_name.py`, a program that solves all of its exercises, in cells:

    # %% [markdown]            text of both
    # %% [markdown] solution   text of the solution alone
    # %%                       code; in the notebook each solution is replaced by the line that it names

    def my_mean(values):
        # solution instead of: return None  # your line
        return sum(values) / len(values)
        # end of solution

Both kinds of cell are executed here, in one name space a notebook, and what they print is stored with them.
"""

import contextlib
import copy
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from advlib.paths import write_atomically
from compendium import paths as places
from compendium import runner

TAG = "exercise"
CHECKED = "# NBVAL_CHECK_OUTPUT"
"""nbval compares the output of cells with this line: what an unsolved exercise says."""

_HEADER = re.compile(r"# %%( \[markdown\]( solution)?)?")
_SOLUTION = re.compile(r"^( *)# solution instead of: (\S.*)\n((?:.*\n)*?) *# end of solution$", re.M)
_MARK = re.compile(r"^ *# (solution instead of: \S|end of solution$)", re.M)

_INTRODUCTION = """\
## Exercises

Each exercise has a cell of its own: write what is missing, run the cell, and read what the check says. The checks run
your code on small data and compare it with the library or with what must hold; they know the usual mistakes. Answers
have names that begin with `my_`, so that nothing above is overwritten.
[Worked solutions](solutions/{number}.ipynb), [glossary](../docs/glossary.md)."""

_SOLUTIONS = """\
# {title}: solutions of the exercises

From notebook [{stem}](../{stem}.ipynb). Try first: a solution teaches most to those who were stuck."""


@dataclass(frozen=True)
class Cell:
    """One cell of a source.

    Attributes
    ----------
    kind : "markdown" or "code"
    text : str
        As written; of code with its solution and the marks around it.
    solution_only : bool
        Whether it is left out of the notebook.
    """

    kind: str
    text: str
    solution_only: bool = False

    @property
    def solved(self) -> str:
        """The cell of the solutions."""
        return _SOLUTION.sub(lambda found: found[3].removesuffix("\n"), self.text)

    @property
    def unsolved(self) -> str:
        """The cell of the notebook: each solution replaced by the line that its first mark names."""
        return _SOLUTION.sub(r"\1\2", self.text)


def parse(text: str, name: str) -> list[Cell]:
    """Take a source apart.

    Parameters
    ----------
    text : str
        The source; what stands before the first cell is for its readers alone.
    name : str
        What the source is called in messages.

    Raises
    ------
    ValueError
        For a header that is none of the three, marks of solutions that do not pair, or no cell at all.
    """
    cells: list[Cell] = []
    for part in re.split(r"^(?=# %%)", text, flags=re.M)[1:]:
        first, _, body = part.partition("\n")
        header = _HEADER.fullmatch(first.rstrip())
        if not header:
            raise ValueError(f"{name}: {first!r} is no header; write # %%, # %% [markdown] or # %% [markdown] solution")
        if header[1]:
            body = "\n".join(re.sub(r"^# ?", "", line) for line in body.strip("\n").split("\n"))
            cells.append(Cell("markdown", body.strip("\n"), bool(header[2])))
            continue
        cells.append(Cell("code", body.strip("\n")))
        if _MARK.search(cells[-1].solved):
            raise ValueError(f"{name}: `# solution instead of: …` and `# end of solution` must come in pairs")
    if not cells:
        raise ValueError(f"{name} holds no cell: begin each with # %%")
    return cells


def printed(codes: Iterable[str], name: str) -> list[str]:
    """Execute cells of code one after the other in one name space, and return what each prints."""
    names: dict[str, object] = {"__name__": "__main__"}
    texts = []
    for code in codes:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, name, "exec"), names)  # noqa: S102 (exercises/, our own)
        texts.append(out.getvalue().lstrip("\n"))  # a progress bar that has gone leaves an empty line
    return texts


def _notebook_cells(cells: Iterable[Cell], number: str, solved: bool) -> list[NotebookNode]:
    """Make cells of a notebook, executed, without counts."""
    made = []
    for place, cell in enumerate((cell for cell in cells if solved or not cell.solution_only), 1):
        text = cell.solved if solved else cell.unsolved
        marked = cell.kind == "code" and not solved and "exercises.check(" in text
        new = nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
        tags = {} if solved else {"tags": [TAG]}
        made.append(new(f"{CHECKED}\n{text}" if marked else text, id=f"{TAG}-{number}-{place:02d}", metadata=tags))
    code = [cell for cell in made if cell.cell_type == "code"]
    for cell, text in zip(code, printed([cell.source for cell in code], f"exercises of {number}"), strict=True):
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
    return made


def with_exercises(notebook: NotebookNode, cells: Iterable[Cell], number: str) -> NotebookNode:
    """Replace a notebook's exercise cells, and touch nothing else of it but execution counts and the digest.

    They stand before the section on limits, or else before the cell that ends the run.

    Parameters
    ----------
    notebook : NotebookNode
        With outputs; left as it is.
    cells : iterable of Cell
    number : str
        Of the notebook, such as "01".

    Raises
    ------
    ValueError
        If the notebook has neither such a section nor such a cell.
    """
    result = copy.deepcopy(notebook)
    kept = [cell for cell in result.cells if TAG not in cell.metadata.get("tags", [])]
    limits = [i for i, cell in enumerate(kept) if re.search(r"^##? +Limits", cell.source, re.M)]
    ends = [i for i, cell in enumerate(kept) if "run.finish()" in cell.source]
    if not limits + ends:
        raise ValueError(f"notebook {number} must have a cell that calls run.finish(); exercises stand before it")
    place = (limits or ends)[-1]
    heading = Cell("markdown", _INTRODUCTION.format(number=number))
    result.cells = [*kept[:place], *_notebook_cells([heading, *cells], number, solved=False), *kept[place:]]
    return _stamped(result)


def _stamped(notebook: NotebookNode) -> NotebookNode:
    """Count the code cells anew and renew the digest."""
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    about = {**notebook.metadata.get("advlib", {}), "source_digest": runner.source_digest(notebook)}
    notebook.metadata = NotebookNode({**notebook.metadata, "advlib": about})
    return notebook


def solutions(title: str, stem: str, cells: Iterable[Cell]) -> NotebookNode:
    """Make the notebook of worked solutions, executed.

    Parameters
    ----------
    title, stem : str
        Heading and file name of the notebook that they belong to.
    cells : iterable of Cell
    """
    heading = Cell("markdown", _SOLUTIONS.format(title=title, stem=stem))
    notebook = nbformat.v4.new_notebook(cells=_notebook_cells([heading, *cells], places.number(stem), solved=True))
    for cell in notebook.cells:  # solutions lie one folder deeper
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../docs/", "](../../docs/")
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    return _stamped(notebook)


def title_of(notebook: NotebookNode) -> str:
    """Return "01 · Intuition" of a notebook that begins "# 01 · Intuition: why …"."""
    return notebook.cells[0].source.split("\n")[0].removeprefix("# ").split(":")[0]


def write(names: Iterable[str] = ()) -> list[Path]:
    """Write the exercise cells and the solutions of the named notebooks, all when none is named.

    Returns
    -------
    list of Path
        The notebooks and solutions written.

    Raises
    ------
    ValueError
        For an unknown name or a source that cannot be read, before anything of it is written.
    """
    written = []
    for path in runner.notebooks(names):
        source, number = places.EXERCISES / f"{path.stem}.py", places.number(path.stem)
        notebook = nbformat.read(path, as_version=4)
        cells = parse(source.read_text(encoding="utf-8"), source.name)
        pair = {
            path: with_exercises(notebook, cells, number),
            path.parent / "solutions" / f"{number}.ipynb": solutions(title_of(notebook), path.stem, cells),
        }
        for target, made in pair.items():
            target.parent.mkdir(exist_ok=True)
            write_atomically(target, nbformat.writes(made) + "\n")
        written += list(pair)
    return written
