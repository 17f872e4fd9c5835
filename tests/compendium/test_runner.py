"""Headless runs: progress said, valid results reused, failures kept apart, references stored whole."""

import io
import json
import os

import nbformat
import pytest
import yaml
from rich.console import Console

from compendium import execution, runner, summaries
from compendium import paths as places
from compendium.claims import record

CODE = """run = record.start("99_toy", profile=profile, seed=seed, draws=draws)"""


def toy(folder, body="run.metric('x', float(run.rng('x').random()))", name="99_toy"):
    cells = [
        nbformat.v4.new_markdown_cell("# 99 · Toy"),
        nbformat.v4.new_code_cell("from compendium.claims import record"),
        nbformat.v4.new_code_cell(
            'profile = "quick"  # p\nseed = 0  # s\ndraws = 3  # d', metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell(CODE),
        nbformat.v4.new_code_cell(body),
        nbformat.v4.new_code_cell("run.finish()"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture
def house(tmp_path, monkeypatch):
    for name in ("NOTEBOOKS", "RUNS", "REFERENCE", "PROFILES"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(places, name, folder)
    (places.PROFILES / "quick.yaml").write_text(yaml.safe_dump({"profile": "quick", "seed": 0}))
    (places.PROFILES / "paper.yaml").write_text(
        yaml.safe_dump({"profile": "paper", "seed": 0, "draws": 9, "images": 0})
    )
    toy(places.NOTEBOOKS)
    return tmp_path


@pytest.fixture
def log():
    return Console(file=io.StringIO(), width=200)


def said(log):
    return log.file.getvalue()


def metrics(profile="quick"):
    return json.loads((places.RUNS / profile / "99_toy" / "metrics.json").read_text())


def test_run_reuse_and_rerun(house, log):
    (first,) = runner.run_all([], "quick", {}, log)
    assert first.status == "ran" and "cell" in said(log) and "99_toy  ran" in said(log)
    value = metrics()["metrics"]["x"]
    (second,) = runner.run_all([], "quick", {}, log)
    assert second.status == "reused" and "nothing it depends on has changed" in said(log)
    (forced,) = runner.run_all([], "quick", {}, log, force=True)
    assert forced.status == "ran" and metrics()["metrics"]["x"] == value
    (other,) = runner.run_all([], "quick", {"seed": 1}, log)
    assert other.status == "ran" and metrics()["metrics"]["x"] != value
    toy(places.NOTEBOOKS, body="run.metric('x', 1)")
    (edited,) = runner.run_all([], "quick", {}, log)
    assert edited.status == "ran" and metrics()["metrics"]["x"] == 1

    ran = places.RUNS / "quick" / "99_toy" / "99_toy.ipynb"
    busy = nbformat.read(ran, as_version=4)
    busy.cells[-1].outputs += [
        nbformat.v4.new_output("stream", name=name, text=text)
        for name, text in (("stdout", "a"), ("stdout", "b\n"), ("stderr", "c"))
    ]
    nbformat.write(busy, ran)
    runner.store_reference(places.NOTEBOOKS / "99_toy.ipynb", "quick")
    stored = nbformat.read(places.NOTEBOOKS / "99_toy.ipynb", as_version=4)
    assert [c.execution_count for c in stored.cells if c.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert stored.metadata["advlib"]["source_digest"] == runner.source_digest(stored)
    assert not any("papermill" in c.metadata for c in stored.cells)
    *_, first, second = (output.text for output in stored.cells[-1].outputs)
    assert first.endswith("\nab\n") and second == "c"  # one print, one output
    assert record.references("quick")[0]["metrics"] == {"x": 1}
    # The stored outputs are no input: what was run is still valid.
    assert runner.run_all([], "quick", {}, log)[0].status == "reused"


def test_a_profile_gives_each_notebook_what_it_has(house, log):
    runner.run_all(["99"], "paper", {}, log)
    assert metrics("paper")["parameters"] == {"profile": "paper", "seed": 0, "draws": 9}


def test_a_failed_run_is_kept_apart_and_named(house, log):
    toy(places.NOTEBOOKS, body="raise RuntimeError('no luck')")
    (outcome,) = runner.run_all([], "quick", {}, log)
    assert outcome.status == "failed" and "no luck" in outcome.message
    assert [p.name for p in (places.RUNS / "quick" / "99_toy").iterdir()] == ["failed.ipynb"]
    toy(places.NOTEBOOKS)
    assert runner.run_all([], "quick", {}, log)[0].status == "ran"
    assert not (places.RUNS / "quick" / "99_toy" / "failed.ipynb").exists()


@pytest.mark.parametrize(
    ("names", "profile", "overrides", "words"),
    [
        (["42"], "quick", {}, "no notebook starts with '42'"),
        ([], "fast", {}, "no profile 'fast'; there are paper, quick"),
        ([], "quick", {"draw": 3}, "no chosen notebook has a parameter 'draw'; there are draws, profile, seed"),
        ([], "quick", {"draws": "many"}, "draws must be a whole number"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(house, log, names, profile, overrides, words):
    with pytest.raises(ValueError, match=words):
        runner.run_all(names, profile, overrides, log)
    assert not list(places.RUNS.iterdir())


def test_a_notebook_without_parameters_is_refused():
    with pytest.raises(ValueError, match="exactly one cell tagged"):
        runner.parameters_cell(nbformat.v4.new_notebook())


def test_digest_sees_cells_and_not_outputs():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 1")])
    before = runner.source_digest(notebook)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    assert runner.source_digest(notebook) == before
    notebook.cells[0].source = "a = 2"
    assert runner.source_digest(notebook) != before


def test_several_at_a_time(house, log, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    toy(places.NOTEBOOKS, body="import os; run.metric('x', int(os.environ['OMP_NUM_THREADS']))")
    toy(places.NOTEBOOKS, body="# a comment\nraise RuntimeError('no luck')", name="98_toy")
    toy(places.NOTEBOOKS, body="import os; os._exit(1)", name="97_toy")
    outcomes = runner.run_all([], "quick", {}, log, jobs=3)
    assert [(o.notebook, o.status) for o in outcomes] == [("97_toy", "failed"), ("98_toy", "failed"), ("99_toy", "ran")]
    assert "cell 6 of 7: the kernel died" in outcomes[0].message
    assert outcomes[1].message == (
        "cell In [5] of the section “99 · Toy”, `raise RuntimeError('no luck')`: RuntimeError: no luck"
    )
    assert metrics()["metrics"]["x"] == max(1, os.cpu_count() // 3)
    assert "3 of 3 notebooks to run; no record says how long 97_toy, 98_toy, 99_toy may take." in said(log)
    table = Console(file=io.StringIO(), width=200)
    table.print(summaries.of_runs(outcomes, "quick"))
    assert len(said(table).splitlines()) < 24 and said(table).count("failed") == 2


@pytest.mark.parametrize(("failures", "status"), [(1, "ran"), (3, "failed")])
def test_a_kernel_whose_port_was_taken_is_started_again(house, log, monkeypatch, failures, status):
    toy(places.NOTEBOOKS)
    execute, started = execution.PapermillNotebookClient.execute, []

    def start(client, **options):
        started.append(client)
        if len(started) <= failures:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return execute(client, **options)

    monkeypatch.setattr(execution.PapermillNotebookClient, "execute", start)
    (outcome,) = runner.run_all([], "quick", {}, log)
    assert outcome.status == status and len(started) == min(failures + 1, execution.STARTS)
    assert status == "ran" or outcome.message.startswith("the kernel died 3 times before its first cell")
    assert not execution._running


def test_a_kernel_that_was_stopped_is_not_started_again(house, log, monkeypatch):
    toy(places.NOTEBOOKS)

    def stopped(client, **options):
        execution.stop_kernels()
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(execution.PapermillNotebookClient, "execute", stopped)
    with pytest.raises(RuntimeError, match="before replying"):
        runner.run_all([], "quick", {}, log)


def test_what_a_call_will_take_is_said_before(house, log):
    plan = {}
    for name, seconds in (("97_toy", 30), ("98_toy", 90), ("99_toy", 3600)):
        toy(places.NOTEBOOKS, name=name)
        stored = {"duration_s": seconds}
        record.reference_path(name, "quick").write_text(json.dumps(stored))
        plan[places.NOTEBOOKS / f"{name}.ipynb"] = {"profile": "quick", "seed": 0, "draws": 3}
    assert runner.forecast(plan, 1) == "3 of 3 notebooks to run: about 1:02:00 by the stored records."
    assert runner.forecast(plan, 2) == "3 of 3 notebooks to run, 2 at a time: about 1:00:00 by the stored records."
    first = list(plan)[-1]
    runner.run_notebook(first, plan[first], log)
    assert runner.forecast(plan, 1).startswith("2 of 3 notebooks to run: about 2:00 ")
    assert runner.forecast({first: plan[first]}, 1).startswith("Nothing to run: all 1 are still valid")
    assert runner.forecast({first: plan[first]}, 1, force=True).startswith("1 of 1 notebooks to run: about 1:00:00")
