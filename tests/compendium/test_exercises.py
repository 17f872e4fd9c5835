"""Exercises check themselves, without giving the answer away."""

import pytest

from compendium import exercises


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
