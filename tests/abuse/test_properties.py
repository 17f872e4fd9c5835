"""Every public function, every argument, spoilt in every way: the right answer or an error that names the argument."""

import contextlib
import copy
import inspect
import signal
import warnings
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from calls import CALLS, NOT_HERE
from hostile import SAME, SPOILT, VALUES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from tally import case, times

from compendium.site import reference

ARRAYS = [(name, argument) for name, call in CALLS.items() for argument in call.arrays]
SCALARS = [(name, argument) for name, call in CALLS.items() for argument in call.scalars]
SECONDS = 30.0
WORK = ("steps", "epochs", "directions", "draws")  # 10³⁰ of these is a long time, not an error


def frozen_bytes(value):
    """Everything that a call could change in place."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.tobytes() + str((value.dtype, value.shape)).encode()
    if (
        isinstance(value, torch.Tensor)
        and not value.is_meta
        and value.layout == torch.strided
        and not value.is_quantized
    ):
        return value.detach().to(torch.complex128 if value.is_complex() else torch.float64).numpy().tobytes()
    return None


def numbers(result):
    """All numbers in a result, as arrays."""
    if isinstance(result, torch.Tensor):
        yield result.detach().double().numpy()
    elif sparse.issparse(result):
        yield result.toarray().astype(float)
    elif isinstance(result, np.ndarray | np.number | float | int | bool):
        yield np.asarray(result, dtype=float)
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from numbers(value)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from numbers(value)
    elif hasattr(result, "p_value"):
        yield np.asarray([result.p_value])


@contextlib.contextmanager
def at_most(seconds):
    """Break off what hangs."""

    def stop(*_):
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(name, arguments, spoilt):
    """Call it; return the result, or None where it refused properly. Anything else fails."""
    call = CALLS[name]
    before = {key: frozen_bytes(value) for key, value in arguments.items()}
    with at_most(SECONDS), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = call.function(**arguments)
        except (ValueError, TypeError, FileNotFoundError, FloatingPointError) as error:
            words = str(error)
            documented = {"name": FileNotFoundError, "max_lr": FloatingPointError}.get(spoilt, ValueError)
            assert isinstance(error, (ValueError, TypeError, documented)), repr(error)
            assert any(each in words for each in (spoilt, *call.says.get(spoilt, ()))), (
                f"{spoilt} is not named: {words}"
            )
            result = None
    ours = [str(w.message) for w in caught if not issubclass(w.category, UserWarning)]
    assert not ours and len(caught) <= 4, [str(w.message) for w in caught]
    assert before == {key: frozen_bytes(value) for key, value in arguments.items()}, "an input was changed in place"
    return result


def spoil(name, argument, how, at=0):
    arguments = copy.copy(CALLS[name].good)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            arguments[argument] = SPOILT[how](np.asarray(arguments[argument]), at)
        except (ValueError, TypeError, IndexError, RuntimeError):
            return None  # this array cannot be spoilt in this way
    return arguments


class Problems(list):
    """What went wrong in each case, so that one failure does not hide the others."""

    @contextlib.contextmanager
    def of(self, what):
        case()
        try:
            yield
        except Exception as error:
            self.append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_spoilt_arrays_are_refused_by_name_or_answered(name, argument):
    problems = Problems()
    for how in SPOILT:
        arguments = spoil(name, argument, how)
        if arguments is None:
            continue
        with problems.of(how):
            result = outcome(name, arguments, argument)
            refused = ("NaN", "infinity", "minus infinity", "complex", "strings", "objects", "masked", "ragged")
            assert result is None or how not in refused or CALLS[name].any_number, "not refused"
            assert CALLS[name].any_number or not any(np.isnan(each).any() for each in numbers(result)), "gives NaN"
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_the_same_numbers_in_another_form_give_the_same(name, argument):
    problems, good = Problems(), CALLS[name].good
    expected = list(numbers(outcome(name, dict(good), argument)))
    for how, change in SAME.items():
        with problems.of(how):
            result = outcome(name, {**good, argument: change(good[argument])}, argument)
            if result is None:
                assert how == "nested lists", "is refused"
                continue
            for a, b in zip(expected, numbers(result), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("name", "argument"), SCALARS)
def test_senseless_values_are_refused_by_name_or_taken(name, argument):
    problems = Problems()
    for how, value in VALUES.items():
        if how == "huge whole" and argument in WORK:
            continue
        with problems.of(how):
            outcome(name, {**CALLS[name].good, argument: value}, argument)
    assert not problems, "\n".join(problems)


@settings(max_examples=times(150, 4000), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(ARRAYS), st.lists(st.sampled_from(list(SPOILT)), min_size=1, max_size=3), st.integers(0, 10**6))
def test_arrays_spoilt_several_times_over(which, hows, at):
    name, argument = which
    arguments = copy.copy(CALLS[name].good)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for how in hows:
            try:
                arguments[argument] = SPOILT[how](np.asarray(arguments[argument]), at)
            except Exception:  # what is spoilt already need not take a second blow
                break
    case()
    outcome(name, arguments, argument)


def public():
    """Public functions and methods of the library, as room.name or room.Class.method."""
    for module in reference.modules():
        room = module.__name__.removeprefix("advlib.")
        for name, thing in reference.members(module):
            if inspect.isclass(thing):
                for method, function in vars(thing).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{room}.{name}.{method}"
            elif inspect.isroutine(thing):
                yield f"{room}.{name}"


def test_every_public_function_is_tried():
    tried = {member for call in CALLS.values() for member in call.covers}
    assert [
        name for name in public() if name not in tried and name not in NOT_HERE and "architectures" not in name
    ] == []
