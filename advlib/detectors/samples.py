"""What a test is given, checked: samples, labels, rows, numbers. Whatever is wrong gets one sentence."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse

from advlib.checks import ArrayLike, plain_array, plain_tensor
from advlib.datasets.large import LargeSamples


def as_samples(values: ArrayLike | LargeSamples, name: str) -> np.ndarray | LargeSamples:
    """Return samples as a finite float array (n, d) or (n, c, h, w), or raise a ValueError in one sentence.

    Samples that stay on disk are returned as they are: they are checked as they are read.
    """
    if isinstance(values, LargeSamples):
        return values
    if isinstance(values, torch.Tensor):
        tensor = plain_tensor(values, name).cpu()
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if sparse.issparse(values):
        raise TypeError(f"{name} must be a dense array, but is a sparse {type(values).__name__}")
    array = plain_array(_numeric(values, name), name)
    if array.ndim == 1:
        raise ValueError(
            f"{name} must be an (n, c, h, w) or (n, d) array, but has shape {array.shape}. Reshape your data: a single "
            "sample is one row"
        )
    if array.ndim not in (2, 4):
        hint = "; grey images need a channel, images[:, None]" if array.ndim == 3 else ""
        raise ValueError(f"{name} must be an (n, c, h, w) or (n, d) array, but has shape {array.shape}{hint}")
    if 0 in array.shape:
        empty = "0 sample(s)" if not len(array) else "0 feature(s)"
        raise ValueError(
            f"{name} must not be empty, but holds {empty} (shape={array.shape}) while a minimum of 1 is required."
        )
    if array.ndim == 4 and array.dtype.kind != "f":
        raise ValueError(
            f"{name} must hold floating point images, but its dtype is {array.dtype}; divide bytes by 255 to get [0, 1]"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        array = array.astype(np.float64 if array.dtype.kind in "iu" and array.dtype.itemsize > 2 else np.float32)
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name} must be finite, but {bad} of its {array.size} values are NaN or infinity")
    return array


def _numeric(values: ArrayLike, name: str) -> ArrayLike:
    """Turn objects into numbers, and say of complex ones what scikit-learn's conventions want to hear."""
    array = np.asarray(values) if hasattr(values, "dtype") and not np.ma.isMaskedArray(values) else None
    if array is None or array.dtype.kind not in "Oc":
        return values
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must hold real numbers; Complex data not supported")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must hold real numbers: {error}; argument must be a string or a number") from None


def extremes(array: np.ndarray | LargeSamples) -> tuple[float, float]:
    """Return the smallest and the largest value."""
    if isinstance(array, LargeSamples):
        return array.extremes
    return float(array.min()), float(array.max())


def check_shape(array: np.ndarray, name: str, shape: tuple[int, ...], value_range: tuple[float, float]) -> None:
    """Raise where samples cannot be compared with the reference: other shape, or images in another range."""
    got = array.shape[1:]
    if got != tuple(shape):
        hint = ""
        if len(got) == 3 == len(shape):
            if (got[2], *got[:2]) == tuple(shape):
                hint = "; channels come first here, images.transpose(0, 3, 1, 2)"
            elif got[0] != shape[0] and got[1:] == tuple(shape[1:]):
                hint = f": {got[0]} colour channels in place of {shape[0]}"
        elif len(got) == 1 and len(shape) == 1:
            raise ValueError(
                f"{name} must have the reference's {shape[0]} features, but X has {got[0]} features, "
                f"but this test is expecting {shape[0]} features as input"
            )
        elif len(got) == 1 and math.prod(shape) == got[0]:
            hint = f"; unflatten the images, batch.reshape(-1, {', '.join(map(str, shape))})"
        words = "(n, " + ", ".join(map(str, shape)) + ")"
        raise ValueError(f"{name} must have the reference's shape {words}, but has shape {array.shape}{hint}")
    if len(got) == 3:
        low, high = value_range
        mine = extremes(array)
        if low >= 0 and high <= 1 and mine[1] > 2 and mine[1] <= 255 and mine[0] >= 0:
            raise ValueError(
                f"{name} must be in the reference's range, 0 to 1, but its values run to {mine[1]:g}: these look like "
                "bytes, divide by 255"
            )
        if high > 2 and mine[1] <= 1 and mine[0] >= 0:
            raise ValueError(
                f"{name} must be in the reference's range, {low:g} to {high:g}, but its values lie between {mine[0]:g} "
                f"and {mine[1]:g}: multiply by 255, or fit on images in [0, 1]"
            )


def as_labels(values: ArrayLike | None, name: str, n: int) -> np.ndarray | None:
    """Return classes as (n,) int64, or None, or raise a ValueError in one sentence."""
    if values is None:
        return None
    array = plain_tensor(values, name)
    array = (array.double() if array.is_floating_point() else array).cpu().numpy()
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) != n:
        raise ValueError(
            f"{name} must hold one whole number a sample, shape ({n},), but has shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    return array.astype(np.int64)


def hold_out(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows 0 … n−1 at random: those to keep, and a fifth (2 at least, if there are 3) to hold out; sorted."""
    if n < 2:
        raise ValueError(f"reference must hold at least 2 samples so that one can be held out, but n_samples = {n}")
    order = rng.permutation(n)
    held = max(min(2, n - 1), n // 5)
    return np.sort(order[held:]), np.sort(order[:held])


def common_classes(labels: np.ndarray, other_labels: np.ndarray, least: int) -> np.ndarray:
    """Return the classes that reference and calibration share, or raise where they differ or one is too small."""
    classes, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < least:
        raise ValueError(
            f"reference_labels must name at least {least} samples of each class, but class "
            f"{classes[sizes.argmin()]} has {sizes.min()}"
        )
    missing, unknown = np.setdiff1d(classes, other_labels), np.setdiff1d(other_labels, classes)
    if len(missing) or len(unknown):
        raise ValueError(
            "reference_labels and calibration_labels must hold the same classes, but "
            + (f"{missing.tolist()} are only in the first" if len(missing) else "")
            + (" and " if len(missing) and len(unknown) else "")
            + (f"{unknown.tolist()} only in the second" if len(unknown) else "")
        )
    return classes


def as_rows(values: Sequence[int], name: str, number: int, n: int) -> np.ndarray:
    """Return rows of a pool of n samples as int64, or raise a ValueError that names the list's number."""
    rows = plain_array(values, name)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must hold non-empty lists of rows, but number {number} has shape {rows.shape} and dtype "
            f"{rows.dtype}"
        )
    if rows.min() < 0 or rows.max() >= n:
        raise ValueError(
            f"{name} must point to the pool's {n} rows, but number {number} has {rows.min()} to {rows.max()}"
        )
    return rows.astype(np.int64)


def level(name: str, value: float) -> float:
    """Return a number in (0, 1), or raise."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must be a number between 0 and 1, but is {value!r}")
    return float(value)
