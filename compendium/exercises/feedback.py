"""What a check asks of an answer, and how it answers."""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from compendium import paths as places

_HERE = Path(__file__).parent


Answer = Callable[..., Any]
"""A function that a student wrote, handed over by its name."""


class Open(Exception):
    """There is no answer yet; the message says what is missing."""


class Off(Exception):
    """An answer is wrong; the message says what is off, or what to try."""


@dataclass(frozen=True)
class Feedback:
    """What a check says about an answer.

    Attributes
    ----------
    name : str
        Notebook and number, such as "01.2".
    state : "not answered yet", "not yet" or "right"
    words : str
        What is missing, what is off, or what the answer shows.
    """

    name: str
    state: str
    words: str

    def __str__(self) -> str:
        return f"Exercise {self.name}: {self.state}. {self.words}"


def check(name: str, *answers: Any) -> None:
    """Print what is missing, what is off, or that it is right; see `feedback_on`."""
    print(feedback_on(name, *answers))


def feedback_on(name: str, *answers: Any) -> Feedback:
    """Check an answer. Those that the check annotates as floats must be finite numbers.

    Parameters
    ----------
    name : str
        Notebook and number, such as "01.2".
    *answers : function, number, array or None
        As many as the exercise asks for; None stands for one that is not there yet.

    Returns
    -------
    Feedback

    Raises
    ------
    ValueError
        For an exercise that does not exist, or the wrong number of answers. What a student's function raises is
        passed on, with its traceback.
    """
    function = _check_of(name)
    wanted = inspect.signature(function).parameters
    if len(answers) != len(wanted):
        raise ValueError(f"exercise {name} takes {len(wanted)} answers ({', '.join(wanted)}), but got {len(answers)}")
    try:
        if all(parameter.annotation is float for parameter in wanted.values()):
            answers = numbers(**dict(zip(wanted, answers, strict=True)))
        return Feedback(name, "right", function(*answers))
    except Open as missing:
        return Feedback(name, "not answered yet", str(missing))
    except Off as mistake:
        return Feedback(name, "not yet", str(mistake))


def checks_of(number: str) -> list[Callable[..., str]]:
    """Return the checks of notebook `number`, such as "01" or "02a": the public functions of its module, in order."""
    found = sorted(_HERE.glob(f"nb{number}_*.py"))
    if not re.fullmatch(r"\d\d[a-z]?", number) or not found:
        there = ", ".join(places.number(path.stem)[2:] for path in sorted(_HERE.glob(f"nb{places.NUMBERED}.py")))
        raise ValueError(f"no exercises of notebook {number!r}; there are those of {there}")
    module = importlib.import_module(f"compendium.exercises.{found[0].stem}")
    own = [check for check in vars(module).values() if getattr(check, "__module__", "") == module.__name__]
    return [check for check in own if not check.__name__.startswith("_")]


def _check_of(name: str) -> Callable[..., str]:
    number, _, place = name.partition(".")
    checks = checks_of(number)
    if not place.isdigit() or not 1 <= int(place) <= len(checks):
        raise ValueError(f"no exercise {name!r}; there are {number}.1 to {number}.{len(checks)}")
    return checks[int(place) - 1]


def require(holds: bool, mistake: str) -> None:
    """Raise `Off` with what is wrong unless something holds."""
    if not holds:
        raise Off(mistake)


def close(given: Any, wanted: Any, rtol: float = 1e-6, atol: float = 1e-9) -> bool:
    """Whether numbers or arrays of one shape are equal to rounding."""
    return np.shape(given) == np.shape(wanted) and bool(np.allclose(given, wanted, rtol=rtol, atol=atol))


def mistaken(given: Any, wanted: Any, mistakes: dict[str, Any], rtol: float = 1e-6) -> None:
    """Raise `Off` with the words of the mistake whose result is the given one, unless that is the wanted one, too."""
    if wanted is not None and close(given, wanted, rtol):
        return
    for words, result in mistakes.items():
        require(not close(given, result, rtol), words)


def expect(
    given: Any, wanted: Any, mistakes: dict[str, Any], otherwise: str, rtol: float = 1e-6, atol: float = 1e-9
) -> None:
    """Require the wanted result: else say which mistake gives the given one, or `otherwise`."""
    mistaken(given, wanted, mistakes, rtol)
    require(close(given, wanted, rtol, atol), otherwise)


def numbers(**answers: Any) -> list[float]:
    """Return answers that must be numbers as floats; the keywords are the names that the notebook gives them."""
    missing = [f"`{name}`" for name, answer in answers.items() if answer is None]
    if missing:
        before = ", ".join(missing[:-1])
        raise Open(f"Set {before} and {missing[-1]} to numbers." if before else f"Set {missing[0]} to a number.")
    for name, answer in answers.items():
        is_number = isinstance(answer, (Real, np.number)) and not isinstance(answer, (bool, np.bool_))
        require(is_number and np.isfinite(answer), f"`{name}` must be a finite number, but is {answer!r}.")
    return [float(answer) for answer in answers.values()]


def called(function: Any, *arguments: Any, shape: tuple[int, ...] | None = (), finite: bool = True) -> np.ndarray:
    """Call a student's function on copies of the arguments and return what comes out as a float64 array.

    Parameters
    ----------
    function : callable
        From the notebook; one that returns None is not written yet.
    *arguments : Any
        Arrays are copied, so that a function that works in place does no harm.
    shape : tuple of int or None
        Wanted shape, () for one number; None accepts any.
    finite : bool
        Whether NaN and infinity are refused.
    """
    if function is None:
        raise Open("Write the function.")
    name = getattr(function, "__name__", repr(function))
    require(callable(function), f"Hand over the function itself, without calling it, not {function!r}.")
    copies = [value.copy() if isinstance(value, np.ndarray) else value for value in arguments]
    result = function(*copies)
    if result is None:
        raise Open(f"`{name}` returns None: write its body, and end it with `return`.")
    try:
        array = np.asarray(result, dtype=np.float64)
    except (TypeError, ValueError):
        raise Off(f"`{name}` must return numbers, but returns {type(result).__name__}.") from None
    wanted = "one number" if shape == () else f"an array of shape {shape}"
    require(shape is None or array.shape == shape, f"`{name}` must return {wanted}, but its shape is {array.shape}.")
    require(not finite or bool(np.isfinite(array).all()), f"`{name}` returns NaN or infinity.")
    return array
