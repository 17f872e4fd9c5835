"""advlib run and advlib report: every wrong call gets one clear sentence and exit status 2."""

import pytest
from typer.testing import CliRunner

from advlib import cli
from compendium import paths as places
from compendium.claims import report

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
        (["report", "--profile", "fast"], "no profile 'fast'"),
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


def test_report_without_runs_says_how_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RUNS", tmp_path)
    page = report.write_html("quick").read_text(encoding="utf-8")
    assert "not run yet" in page and "advlib run 01" in page
