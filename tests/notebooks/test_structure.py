"""Each check of each notebook is live: proved by breaking notebooks and seeing it noticed."""

import ast
import copy
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from structure import MARKER, problems, sanitizer_problems

from compendium import paths as places
from compendium import runner

SANITIZER = Path(__file__).parents[1] / "nbval_sanitize.cfg"
NOTEBOOKS = runner.notebooks()


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_check_is_live(path):
    assert problems(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_shape(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].source.startswith(f"# {places.number(path.stem)} · ")
    assert "Runtime" in cells[0].source
    assert "What you will see" in cells[1].source
    assert all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(cells[2].source).body)
    assert "parameters" in cells[3].metadata.get("tags", [])
    assert f'"{path.stem}"' in cells[4].source
    headings = [c.source for c in cells if c.cell_type == "markdown"]
    for needed in ("## Exercises", "## Limits", "## References"):
        assert any(needed in text for text in headings), needed
    assert cells[-1].source.strip() == "run.finish()"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_papermill_sees_every_parameter(path):
    assert set(papermill.inspect_notebook(str(path))) == set(runner.defaults(path))


def test_sanitizer_rules_are_parsed():
    assert sanitizer_problems(SANITIZER) == []


@pytest.mark.parametrize(
    "text",
    ["", "[a]\nregex: x\nreplace:\n", "[a]\nregex: (\nreplace: Y\n", "[a]\nregex: x\n", "regex: x\nreplace: Y\n"],
    ids=["empty", "empty replacement", "bad regex", "no replacement", "no section"],
)
def test_a_bad_sanitizer_rule_is_noticed(tmp_path, text):
    path = tmp_path / "rules.cfg"
    path.write_text(text)
    try:
        assert sanitizer_problems(path)
    except Exception as error:
        assert "section" in str(error).lower()


def cell_with(notebook, test):
    return next(cell for cell in notebook.cells if test(cell))


def is_marked(cell):
    return cell.cell_type == "code" and MARKER in cell.source


def strip_outputs(notebook):
    cell_with(notebook, is_marked).outputs = []


def strip_count(notebook):
    cell_with(notebook, is_marked).execution_count = None


def misspell_marker(notebook):
    cell = cell_with(notebook, is_marked)
    cell.source = cell.source.replace(MARKER, "# NBVAL_CHECK_OUTPUTS")


def marker_with_company(notebook):
    cell = cell_with(notebook, is_marked)
    cell.source = cell.source.replace(MARKER, MARKER + " verdicts")


def unmark_all(notebook):
    for cell in filter(is_marked, notebook.cells):
        cell.source = cell.source.replace(MARKER + "\n", "")


def switch_off(notebook):
    cell = cell_with(notebook, is_marked)
    cell.source = "# NBVAL_IGNORE_OUTPUT\n" + cell.source


def edit_source(notebook):
    notebook.cells[-1].source += "\n"


def second_parameters_cell(notebook):
    notebook.cells[-1].metadata["tags"] = ["parameters"]


def computed_parameter(notebook):
    cell = runner.parameters_cell(notebook)
    cell.source = cell.source.replace("seed = 0", "seed = int(0)")


def forgotten_parameter(notebook):
    cell = runner.parameters_cell(notebook)
    cell.source += "\nextra = 1  # never handed on"


def equals_sign_in_comment(notebook):
    cell = runner.parameters_cell(notebook)
    cell.source = cell.source.replace("seed = 0  #", "seed = 0  # a=b")


def stored_error(notebook):
    notebook.cells[-1].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])]


MUTATIONS = [
    strip_outputs, strip_count, misspell_marker, marker_with_company, unmark_all, switch_off, edit_source,
    second_parameters_cell, computed_parameter, forgotten_parameter, stored_error,
    equals_sign_in_comment,
]  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_a_dead_check_is_noticed(mutate):
    whole = nbformat.read(NOTEBOOKS[0], as_version=4)
    broken = copy.deepcopy(whole)
    mutate(broken)
    assert not problems(whole) and problems(broken)


def nbval(folder, stored, source=f"{MARKER}\nprint('a > b: True')"):
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=stored)]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "toy.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "toy.ipynb"]
    options = ["--nbval-sanitize-with", str(SANITIZER), "--rootdir", str(folder), "-c", "/dev/null"]
    return subprocess.run(command + options, cwd=folder, capture_output=True, text=True).returncode


def test_nbval_fails_on_another_verdict_and_passes_on_the_same(tmp_path):
    assert nbval(tmp_path, "a > b: True\n") == 0
    assert nbval(tmp_path, "a > b: False\n") == 1
    assert nbval(tmp_path, "took 3.1 s\n", f"{MARKER}\nprint('took 4.5 s')") == 0
