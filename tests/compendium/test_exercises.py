"""Exercises: one source each, unsolved ones run and say what is missing, solved ones pass, notebooks carry both."""

import ast
import copy
import io
import re
import time
import warnings
from contextlib import redirect_stderr

import nbformat
import pytest
from typer.testing import CliRunner

from advlib import cli
from compendium import paths as places
from compendium import runner
from compendium.exercises import check, feedback, feedback_on, small, writing

SOURCES = sorted(places.EXERCISES.glob("*.py"))
cli.load_plug_ins()


def cells_of(path):
    return writing.parse(path.read_text(encoding="utf-8"), path.name)


def run(path, solved):
    """What each code cell of a source prints, unsolved or solved; warnings are errors."""
    codes = [cell.solved if solved else cell.unsolved for cell in cells_of(path) if cell.kind == "code"]
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()) as complaints:
        warnings.simplefilter("error")
        texts = writing.printed(codes, path.name)
    assert complaints.getvalue() == ""
    return texts


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Peers warn of their own affairs when they are imported; that is not what is tested."""
    for path in SOURCES:
        feedback.checks_of(places.number(path.stem))


# -------------------------------------------------------------------------------------------------- every exercise


def test_every_notebook_has_its_exercises():
    assert [path.stem for path in SOURCES] == [path.stem for path in runner.notebooks()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_unsolved_exercises_run_and_say_what_is_missing(path):
    began = time.process_time()
    texts = run(path, solved=False)
    assert texts and all(
        re.fullmatch(rf"Exercise {places.number(path.stem)}\.\d: not answered yet\. .{{10,}}\n", t) for t in texts
    )
    assert time.process_time() - began < 2 * len(texts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_solved_exercises_pass(path):
    texts = run(path, solved=True)
    right = rf"Exercise {places.number(path.stem)}\.\d: right\. .{{10,}}\n"
    assert texts and all(re.fullmatch(right, t) for t in texts), texts


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_exercises_are_numbered_explained_and_half_of_them_code(path):
    cells = cells_of(path)
    checks = feedback.checks_of(places.number(path.stem))
    names = [f"{places.number(path.stem)}.{place}" for place in range(1, len(checks) + 1)]
    code = [cell for cell in cells if cell.kind == "code"]
    assert 2 <= len(checks) <= 4
    assert [re.search(r'exercises\.check\("(.+?)"', cell.text)[1] for cell in code] == names
    # Task, cell, explanation, one after the other.
    assert [(cell.kind, cell.solution_only) for cell in cells] == [
        ("markdown", False), ("code", False), ("markdown", True)
    ] * len(checks)  # fmt: skip
    kinds = [re.match(r"\*\*(\d) · (\w+) \(\d+ min\)\.\*\* ", cell.text).groups() for cell in cells[::3]]
    assert [int(number) for number, _ in kinds] == list(range(1, len(checks) + 1))
    assert {kind for _, kind in kinds} <= {"Write", "Build", "Measure", "Change", "Predict", "Explain"}
    assert sum("def my_" in cell.unsolved for cell in code) >= len(checks) / 2
    assert [check.__doc__.split(":")[0] for check in checks] == names


def bound_names(sources):
    found = {}
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = "definition"
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found[node.id] = "value"
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                module = getattr(node, "module", None)
                found |= {alias.asname or alias.name: f"import {module} {alias.name}" for alias in node.names}
    return found


def top_level(source):
    """A cell without the insides of its functions: what it binds in the notebook."""
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_no_answer_overwrites_what_the_notebook_needs(path):
    (notebook,) = runner.notebooks([path.stem])
    code = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    others = bound_names(cell.source for cell in code if writing.TAG not in cell.metadata.get("tags", []))
    mine = bound_names(top_level(text) for cell in cells_of(path) for text in [cell.solved] if cell.kind == "code")
    assert mine and not {name for name, what in mine.items() if name in others and others[name] != what}
    assert all(name.startswith("my_") or what.startswith("import") for name, what in mine.items())


# -------------------------------------------------------------------------------------------- notebooks and solutions


def cells_and_outputs(notebook):
    return [(cell.cell_type, cell.source, cell.metadata, cell.get("outputs")) for cell in notebook.cells]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_notebooks_and_solutions_are_what_the_sources_say(path):
    (file,) = runner.notebooks([path.stem])
    notebook = nbformat.read(file, as_version=4)
    fresh = writing.with_exercises(notebook, cells_of(path), places.number(path.stem))
    again = "run `advlib exercises`"
    assert cells_and_outputs(fresh) == cells_and_outputs(notebook), again
    assert fresh.metadata == notebook.metadata, again
    stored = nbformat.read(file.parent / "solutions" / f"{places.number(path.stem)}.ipynb", as_version=4)
    solved = writing.solutions(writing.title_of(notebook), file.stem, cells_of(path))
    assert [cell.source for cell in stored.cells] == [cell.source for cell in solved.cells], again
    # Their outputs may carry measured numbers, which differ in the last digit between processors.
    said = [cell.outputs[0].text for cell in stored.cells if cell.cell_type == "code"]
    assert said and all(": right. " in text for text in said)


def toy(*sources):
    """A notebook of cells, text for those that begin with "#" and a space."""
    new = {True: nbformat.v4.new_markdown_cell, False: nbformat.v4.new_code_cell}
    cells = [new[source.startswith(("# ", "## ", "text"))](source) for source in sources]
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=9)]
    return nbformat.v4.new_notebook(cells=cells, metadata={"advlib": {"profile": "quick", "source_digest": "old"}})


SOURCE = """
# %% [markdown]
# **1 · Predict (1 min).** What?
#
# - a list

# %%
from compendium import exercises


def my_answer():
    # solution instead of: return None  # write
    if True:
        return 1
    # end of solution


print("two lines")

# %% [markdown] solution
# Because.
"""


@pytest.mark.parametrize(
    ("sources", "kept"),
    [
        (["# T", "x = 1", "run.finish()"], ["# T", "x = 1", "EXERCISES", "run.finish()"]),
        (["# T", "## Limits", "run.finish()"], ["# T", "EXERCISES", "## Limits", "run.finish()"]),
    ],
)  # fmt: skip
def test_exercises_are_replaced_and_nothing_else(sources, kept):
    before = toy(*sources)
    untouched = copy.deepcopy(before)
    made = writing.with_exercises(before, writing.parse(SOURCE, "toy"), "77")
    tagged = [writing.TAG in cell.metadata.get("tags", []) for cell in made.cells]
    first = tagged.index(True)
    assert tagged == [False] * first + [True] * 3 + [False] * (len(tagged) - first - 3)
    found = [cell.source for cell in made.cells]
    assert [*found[:first], "EXERCISES", *found[first + 3 :]] == kept
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(o.execution_count == cell.execution_count for cell in code for o in cell.outputs if "data" in o)
    assert made.metadata.advlib == {"profile": "quick", "source_digest": runner.source_digest(made)}
    assert before == untouched
    twice = writing.with_exercises(made, writing.parse(SOURCE, "toy"), "77")
    assert cells_and_outputs(twice) == cells_and_outputs(made)
    nbformat.validate(twice)


def test_solved_and_unsolved_cells():
    task, code, why = writing.parse(SOURCE, "toy")
    assert task.text == "**1 · Predict (1 min).** What?\n\n- a list" and not task.solution_only
    assert why == writing.Cell("markdown", "Because.", solution_only=True)
    assert "    return None  # write\n\n\nprint" in code.unsolved and "return 1" not in code.unsolved
    assert "    if True:\n        return 1\n\n\nprint" in code.solved and "None" not in code.solved
    assert "solution" not in code.solved + code.unsolved


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "holds no cell"),
        ("# %% [raw]\n# a\n", "is no header"),
        ("# %%\n# solution instead of: x = None\nx = 1\n", "must come in pairs"),
        ("# %%\nx = 1\n# end of solution\n", "must come in pairs"),
        ("# %%\n# solution instead of: x = 1\n# solution instead of: y = 1\n# end of solution\n", "must come in pairs"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(text, words):
    with pytest.raises(ValueError, match=f"toy.*{words}"):
        writing.parse(text, "toy")


def test_a_notebook_without_an_end_is_refused():
    with pytest.raises(ValueError, match="notebook 77 must have a cell that calls run"):
        writing.with_exercises(toy("# T", "x = 1"), writing.parse(SOURCE, "toy"), "77")


@pytest.fixture
def house(tmp_path, monkeypatch):
    for name in ("NOTEBOOKS", "EXERCISES"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setattr(places, name, tmp_path / name.lower())
    nbformat.write(toy("# 77 · Toy: why", "x = 1", "run.finish()"), places.NOTEBOOKS / "77_toy.ipynb")
    (places.EXERCISES / "77_toy.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def test_the_command_writes_notebook_and_solutions(house):
    result = CliRunner().invoke(cli.app, ["exercises", "77"])
    assert result.exit_code == 0, result.output
    assert "written: 77_toy.ipynb" in result.output and "written: solutions/77.ipynb" in result.output
    solved = nbformat.read(places.NOTEBOOKS / "solutions" / "77.ipynb", as_version=4)
    nbformat.validate(solved)
    assert solved.cells[0].source.startswith("# 77 · Toy: solutions") and "](../77_toy.ipynb)" in solved.cells[0].source
    assert "return 1" in solved.cells[2].source and solved.cells[2].outputs[0].text == "two lines\n"
    assert runner.notebooks() == [places.NOTEBOOKS / "77_toy.ipynb"], "solutions are no notebook of their own"


def test_the_command_refuses_an_unknown_name(house):
    result = CliRunner().invoke(cli.app, ["exercises", "12"])
    assert result.exit_code == 2 and "no notebook starts with '12'; there are 77_toy" in result.stderr


# -------------------------------------------------------------------------------------------------- what checks ask


@pytest.mark.parametrize(
    ("name", "answers", "words"),
    [
        ("99.1", [1], "no exercises of notebook '99'"),
        ("1.1", [1], "no exercises of notebook '1'"),
        ("..", [1], "no exercises of notebook"),
        ("01.9", [1], "no exercise '01.9'; there are 01.1 to 01.3"),
        ("01.0", [1], "no exercise '01.0'"),
        ("01", [1], "no exercise '01'"),
        ("01.3", [1], "takes 2 answers .my_mean_over_a, my_mean_over_b., but got 1"),
    ],
)
def test_wrong_calls(name, answers, words):
    with pytest.raises(ValueError, match=words):
        feedback_on(name, *answers)


@pytest.mark.parametrize(
    ("given", "state", "words"),
    [
        (None, "not answered yet", "Write the function."),
        (lambda *a: None, "not answered yet", "returns None: write its body"),
        (7, "not yet", "Hand over the function itself, without calling it, not 7."),
        (lambda *a: "text", "not yet", "must return numbers, but returns str."),
        (lambda *a: [1, 2], "not yet", "must return an array of shape (200, 1, 8, 8), but its shape is (2,)."),
        (lambda images, g, e: images * float("nan"), "not yet", "returns NaN or infinity."),
    ],
)
def test_what_a_function_must_be(given, state, words):
    found = feedback_on("01.1", given)
    assert (found.state, found.name) == (state, "01.1") and words in found.words


@pytest.mark.parametrize("answer", ["1", True, float("inf"), [1]])
def test_what_a_number_must_be(answer):
    found = feedback_on("01.3", answer, 1)
    assert found.state == "not yet" and "`my_mean_over_a` must be a finite number, but is" in found.words


def test_a_missing_number_is_named():
    assert feedback_on("01.3", 2, None).words == "Set `my_mean_over_b` to a number."
    assert feedback_on("05.2", *[None] * 3).words == "Set `my_all_of_1`, `my_all_of_2` and `my_all_of_3` to numbers."


def test_an_error_of_a_students_function_is_shown_with_its_traceback():
    with pytest.raises(ZeroDivisionError):
        feedback_on("01.1", lambda *arguments: 1 / 0)


def test_a_function_that_works_in_place_does_no_harm():
    def in_place(images, gradient, epsilon):
        images += epsilon * (1.0 * (gradient > 0) - (gradient < 0))
        return images.clip(0, 1, out=images)

    assert feedback_on("01.1", in_place).state == "right"


def test_check_prints_its_feedback(capsys):
    check("01.3", 2, 1)
    assert capsys.readouterr().out.startswith("Exercise 01.3: right. Over the denominator")


def test_small_digits():
    images, labels = small.digits(20)
    assert images.shape == (20, 1, 8, 8) and images.dtype == "float32" and 0 <= images.min() <= images.max() <= 1
    assert labels.shape == (20,)
    assert small.reference().shape == (800, 1, 8, 8)
    everything = {image.tobytes() for image in small.reference()}
    assert not any(image.tobytes() in everything for image in small.digits(997)[0])
    with pytest.raises(ValueError, match="count must lie between 1 and the 997 unseen digits, but is 998"):
        small.digits(998)
