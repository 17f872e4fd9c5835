"""The command line: every wrong call gets one clear sentence and exit status 2."""

import numpy as np
import pytest
from typer.testing import CliRunner

from advlib import cli, datasets, paths
from compendium import exercises
from compendium import nb01_intuition as nb01
from compendium.claims import report

run = CliRunner().invoke


def call(*arguments):
    result = run(cli.app, list(arguments))
    assert not isinstance(result.exception, (ValueError, KeyError)), result.exception
    return result


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "77"], "no notebook starts with '77'"),
        (["run", "--profile", "fast"], "no profile 'fast'"),
        (["run", "-p", "draws"], "NAME=VALUE"),
        (["run", "-p", "draws=[1"], "not a number, a word or a list"),
        (["run", "-p", "nothing=1"], "no chosen notebook has a parameter"),
        (["run", "--update-reference", "-p", "seed=1"], "keeps a profile as it is"),
        (["data", "fetch", "imagenet"], "imagenet"),
        (["train", "alexnet"], "alexnet"),
        (["report", "--profile", "fast"], "no profile 'fast'"),
    ],
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


def test_doctor_says_what_is_there():
    result = call("doctor")
    assert "cores" in result.output and "network mnist-vs22: ok" in result.output


def test_report_without_runs_says_how_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    page = report.write_html("quick").read_text(encoding="utf-8")
    assert "not run yet" in page and "advlib run 01" in page


@pytest.mark.parametrize(
    ("check", "right", "wrong", "refused"),
    [(exercises.choice, " B ", "a", "ab"), (exercises.number, 1.25, 1.3, "1.25")],
)
def test_exercises_check_themselves(capsys, check, right, wrong, refused):
    name = "01.1" if check is exercises.choice else "01.2"
    for answer, words in ((None, "not answered yet"), (right, "right"), (wrong, "not yet")):
        check(name, answer)
        assert words in capsys.readouterr().out
    with pytest.raises(ValueError, match="answer must be"):
        check(name, refused)
    with pytest.raises(ValueError, match="no exercise"):
        check("99.9", right)


def test_images_are_drawn_where_they_were_put():
    image = np.zeros((3, 4, 4))
    image[0, 1, 2] = 1  # red, row 1, column 2
    figure = nb01.image_twins([{"image": image, "twin": image, "epsilon": 0.1, "said": "cat", "said_of_twin": "dog"}])
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (4, 4, 3) and drawn[1, 2, 0] == 1 and drawn.sum() == 1
    difference = figure.axes[2].images[0].get_array()
    np.testing.assert_allclose(difference, 0.5)
