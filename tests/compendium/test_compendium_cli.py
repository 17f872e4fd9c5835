"""advlib run and advlib report: every wrong call gets one clear sentence and exit status 2."""

import pytest
from typer.testing import CliRunner

from advlib import cli
from compendium import paths as places
from compendium import runner
from compendium.site import build, reference

cli.load_plug_ins()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "77"], "no notebook starts with '77'"),
        (["run", "--profile", "fast"], "no profile 'fast'"),
        (["run", "-p", "draws"], "NAME=VALUE"),
        (["run", "-p", "draws=[1"], "not a number, a word or a list"),
        (["run", "-p", "nothing=1"], "no chosen notebook has a parameter"),
        (["run", "--update-reference", "-p", "seed=1"], "keeps a profile as it is"),
        (["run", "01", "--jobs", "0"], "jobs must be at least 1"),
        (["run", "01", "--dask", "127.0.0.1:1"], "nobody listens at tcp://127.0.0.1:1 "),
        (["run", "01", "--dask", "somewhere"], "the address of a scheduler is HOST:PORT"),
        (["report", "--profile", "fast"], "no profile 'fast'"),
        (["compare", "none", "none"], "there is no none: give a metrics.json"),
    ],
)
def test_wrong_calls(arguments, words):
    result = CliRunner().invoke(cli.app, arguments)
    assert not isinstance(result.exception, (ValueError, KeyError)), result.exception
    assert result.exit_code == 2
    assert words in " ".join((result.output + result.stderr).split())


@pytest.mark.parametrize("command", ["run", "report"])
def test_what_needs_the_repository_says_so(tmp_path, monkeypatch, command):
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path / "notebooks")
    result = CliRunner().invoke(cli.app, [command])
    assert result.exit_code == 2 and result.stdout == ""
    assert "this command needs the repository" in result.stderr and result.stderr.count("\n") == 1


def test_what_needs_an_extra_says_so(monkeypatch):
    monkeypatch.setattr("compendium.cli.find_spec", lambda name: None)
    result = CliRunner().invoke(cli.app, ["run"])
    assert result.exit_code == 2 and "pip install 'advlib[compendium]'" in result.stderr


def test_report_without_runs_shows_what_is_stored_and_says_how_to_run(tmp_path, monkeypatch):
    (first,) = runner.notebooks(["01"])
    monkeypatch.setattr(places, "RUNS", tmp_path)
    monkeypatch.setattr(runner, "notebooks", lambda names=(): [first])
    monkeypatch.setattr(build, "documents", dict)
    monkeypatch.setattr(reference, "modules", list)
    result = CliRunner().invoke(cli.app, ["report"])
    folder = tmp_path / "quick" / "report"
    assert result.exit_code == 0 and str(folder / "index.html") in "".join(result.output.split())
    start = (folder / "index.html").read_text(encoding="utf-8")
    assert "Stored outputs" in start and "not run yet" in start and "advlib run 01" in start
    assert (folder / "01_intuition.html").is_file()
