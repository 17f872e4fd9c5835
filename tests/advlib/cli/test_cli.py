"""The command line: every wrong call gets one clear sentence and exit status 2; plug-ins cannot break it."""

import dataclasses
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from advlib import cli, datasets, paths


def call(*arguments):
    result = CliRunner().invoke(cli.app, list(arguments))
    assert not isinstance(result.exception, (ValueError, KeyError)), result.exception
    return result


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["data", "fetch", "imagenet"], "imagenet"), (["train", "alexnet"], "alexnet")],
)
def test_wrong_calls(arguments, words):
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in " ".join((result.output + result.stderr).split())


def test_data_lists_every_data_set(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = call("data")
    assert result.exit_code == 0
    assert all(name in result.output for name in datasets.NAMES)


@pytest.fixture
def only_the_optional_one_is_missing(monkeypatch):
    found = [dataclasses.replace(row, check="missing" if row.optional else "ok") for row in datasets.status()]
    monkeypatch.setattr(datasets, "status", lambda: found)
    monkeypatch.setattr(datasets, "fetch", lambda names=None: [row for row in found if row.name in (names or row.name)])


def test_an_optional_data_set_that_is_missing_is_no_error(only_the_optional_one_is_missing, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert [row.name for row in datasets.status() if row.optional] == ["pathmnist"]
    assert "missing (optional)" in call("data").output
    assert call("data", "fetch").exit_code == 0
    assert call("data", "fetch", "pathmnist").exit_code == 1  # who asks for it by name wants it
    doctor = call("doctor")
    assert doctor.exit_code == 0, doctor.output
    assert "data pathmnist: missing (optional)" in doctor.output


def test_doctor_says_what_is_there():
    result = call("doctor")
    assert "cores" in result.output and "network mnist-vs22: ok" in result.output


def test_doctor_without_the_repositorys_networks(only_the_optional_one_is_missing, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path / "none")
    result = call("doctor")
    assert result.exit_code == 0 and "networks: none, they come with the repository" in " ".join(result.output.split())


def test_light_commands_import_nothing_heavy():
    code = """import sys
from advlib import cli, datasets
try:
    cli.app(["fit", "none.npy", "-o", "d"])
except SystemExit as ended:
    assert ended.code == 2
import json
print(json.dumps(sorted(sys.modules)))"""
    before = "import sys, json\nfrom advlib import cli, datasets\nprint(json.dumps(sorted(sys.modules)))"
    light, fitting = (
        set(json.loads(subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout))
        for c in (before, code)
    )
    assert not light & {"torch", "matplotlib", "pandas", "sklearn", "scipy", "PIL", "compendium"}
    assert not fitting & {"torchvision", "foolbox", "cleverhans", "advlib.attacks", "compendium", "medmnist"}


class PlugIn:
    """An entry point whose module cannot be imported."""

    name = "broken"

    def load(self):
        raise ModuleNotFoundError("No module named 'nothing'")


@pytest.fixture
def broken_plug_in(monkeypatch):
    monkeypatch.setattr(cli, "entry_points", lambda group: [PlugIn()])
    monkeypatch.setattr(cli, "_plug_ins", {})


def main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["advlib", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr()


def test_a_broken_plug_in_is_not_heard_of_elsewhere(broken_plug_in, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, printed = main(monkeypatch, capsys, "fit", "none.npy", "-o", "d")
    assert status == 2 and "there is no file none.npy" in printed.err and "broken" not in printed.err


def test_a_broken_plug_in_is_named_where_its_command_is_asked_for(broken_plug_in, monkeypatch, capsys):
    status, printed = main(monkeypatch, capsys, "plot", "--all")
    assert status == 2 and printed.out == "" and printed.err.count("\n") == 1
    assert "there is no command 'plot'" in printed.err and "broken (ModuleNotFoundError: No module" in printed.err


def test_an_interruption_that_python_would_swallow_ends_the_command_all_the_same():
    """In a destructor an exception is printed and forgotten, KeyboardInterrupt too."""
    code = """
import os, signal, time
from advlib import cli

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

def run():
    Dying()
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
cli._run = run
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 130, done.stderr
    assert done.stderr.count("advlib: interrupted;") == 1 and "ignored" not in done.stderr
