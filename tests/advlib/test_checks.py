"""The public border: arrays named and explained, files whole, progress where it belongs."""

import numpy as np
import pytest
import torch

from advlib import checks, paths, progress


def test_numpy_and_torch_come_back_as_the_asked_tensor():
    for values in (np.ones((2, 3), dtype=np.float32), torch.ones(2, 3, requires_grad=True)):
        matrix = checks.as_matrix(values, "x")
        assert matrix.dtype == torch.float64 and matrix.shape == (2, 3) and not matrix.requires_grad
    array = np.ones((2, 3))
    assert np.shares_memory(checks.as_matrix(array, "x").numpy(), array)
    assert checks.as_matrix(array[:, ::-1], "x").tolist() == array.tolist()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(3), r"x must be a \(n, d\) array, but has shape \(3,\)"),
        (np.zeros((2, 1, 4, 4)), "flatten images"),
        (np.zeros((0, 3)), "must not be empty"),
        (np.zeros((3, 0)), "must not be empty"),
        (np.array([["a"]]), "must hold real numbers"),
        (np.array([[1j]]), "must hold real numbers"),
        (torch.tensor([[1j]]), "must hold real numbers"),
        (np.array([[np.nan, 1.0]]), "1 of its 2 values are NaN or infinite"),
        (np.array([[-np.inf, np.nan]]), "2 of its 2 values"),
        ([[1.0], [2.0, 3.0]], "its rows differ in length"),
    ],
)
def test_bad_arrays_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        checks.as_matrix(values, "x")


def test_masked_records_are_named():
    """NumPy itself cannot count which of their fields are masked."""
    records = np.ma.masked_array(np.zeros(3, [("x", float), ("y", float)]), mask=[(True, False)] * 3)
    with pytest.raises(ValueError, match="points must hold real numbers, but its dtype is"):
        checks.plain_array(records, "points")


def test_too_few_rows_are_named():
    with pytest.raises(ValueError, match="x needs at least 2 samples"):
        checks.as_matrix(np.zeros((1, 3)), "x", min_rows=2)
    with pytest.raises(ValueError, match=r"\(T, n, d\)"):
        checks.as_matrix(np.zeros((1, 3)), "x", ndim=3)


def test_integers_are_converted_and_said():
    with pytest.warns(UserWarning, match="converted to torch.float64 unscaled"):
        assert checks.as_matrix(np.array([[1, 255]], dtype=np.uint8), "x").tolist() == [[1.0, 255.0]]


def test_different_widths_are_named():
    with pytest.raises(ValueError, match="a and b must have the same number of features"):
        checks.same_columns(torch.zeros(2, 3), "a", torch.zeros(2, 4), "b")


def test_replacing_is_all_or_nothing(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with paths.replacing(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    with pytest.raises(RuntimeError), paths.replacing(target) as temporary:
        temporary.write_text("tw")
        raise RuntimeError
    assert target.read_text() == "one" and list(target.parent.iterdir()) == [target]


def test_progress_goes_to_the_runner_where_there_is_one(tmp_path, monkeypatch, capsys):
    status = tmp_path / "status"
    monkeypatch.setenv(progress.STATUS_FILE, str(status))
    seen = []
    for item in progress.track(range(3), "counting"):
        seen.append((item, status.read_text()))
    assert seen[0] == (0, "counting 0/3") and [i for i, _ in seen] == [0, 1, 2]
    assert status.read_text() == "" and capsys.readouterr().out == ""
    monkeypatch.delenv(progress.STATUS_FILE)
    assert list(progress.track(iter("ab"), "letters", 2)) == ["a", "b"]
