"""Checks of arrays at the public border: one sentence that names the argument, what it was and what it must be."""

import math
import operator
import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy import sparse

ArrayLike = np.ndarray | torch.Tensor


def usual_device() -> str | None:
    """Where networks and manifolds go that are given no device: what `ADVLIB_DEVICE` names, such as "cuda"."""
    return os.environ.get("ADVLIB_DEVICE") or None


def as_matrix(
    values: ArrayLike,
    name: str,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    min_rows: int = 1,
    ndim: int = 2,
    check_finite: bool = True,
) -> torch.Tensor:
    """Return `values` as a finite floating tensor with `ndim` axes, or raise.

    Parameters
    ----------
    values : (n, d) array or tensor
        Real numbers; integer and boolean input is converted, with a warning that says so.
    name : str
        The caller's name for the argument, used in messages.
    dtype : torch.dtype
        Floating type of the result.
    device : torch.device, optional
        Where the result lives; a tensor stays where it is by default, an array goes to the CPU.
    min_rows : int
        Fewest samples (second-to-last axis) that make sense to the caller.
    ndim : int
        2 for one sample matrix, 3 for a stack of them, (T, n, d).
    check_finite : bool
        False leaves NaN and infinity to a later call of `finite`.

    Returns
    -------
    torch.Tensor
        Of `dtype`; shares memory with `values` where no conversion was needed.

    Raises
    ------
    ValueError
        Naming the argument, when it has the wrong number of axes, too few rows, no columns, a dtype that is not
        real, or a NaN or infinity.
    """
    shape_words = "(n, d)" if ndim == 2 else "(T, n, d)"
    tensor = plain_tensor(values, name)
    if tensor.ndim != ndim:
        raise ValueError(
            f"{name} must be a {shape_words} array, but has shape {tuple(tensor.shape)}; "
            "flatten images to one row each, for instance images.reshape(len(images), -1)"
        )
    if 0 in tensor.shape:
        raise ValueError(f"{name} must not be empty, but has shape {tuple(tensor.shape)}")
    if tensor.shape[-2] < min_rows:
        raise ValueError(f"{name} needs at least {min_rows} samples, but has shape {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        warnings.warn(
            f"{name} has dtype {tensor.dtype} and was converted to {dtype} unscaled: "
            "make sure every argument uses the same range ([0, 1] or 0 to 255)",
            UserWarning,
            stacklevel=3,
        )
    tensor = tensor.to(device=device, dtype=dtype)
    return finite(tensor, name) if check_finite else tensor


def plain_array(values: ArrayLike, name: str) -> np.ndarray:
    """Return `values` as an array that any library takes: real numbers of at most 64 bits, no mask, native order.

    Parameters
    ----------
    values : array or nested sequence
        Of any shape.
    name : str
        The caller's name for the argument, used in messages.

    Returns
    -------
    np.ndarray
        `values` itself where nothing had to change. Unsigned integers of more than 8 bits, with which torch does not
        reckon, become int64, or float64 where that is too small.

    Raises
    ------
    ValueError, TypeError
        Naming the argument: rows of several lengths, values that are no real numbers, masked values; a sparse matrix.
    """
    if getattr(getattr(values, "dtype", None), "names", None):  # records, whose masked fields NumPy does not count
        raise ValueError(f"{name} must hold real numbers, but its dtype is {values.dtype}")
    if np.ma.is_masked(values):
        masked = int(np.ma.count_masked(values))
        raise ValueError(f"{name} must have no masked values, but has {masked}: leave those samples out or fill them")
    if sparse.issparse(values):
        raise TypeError(f"{name} must be a dense array, but is a sparse {type(values).__name__}")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers, but its rows differ in length") from error
    if array.dtype.kind not in "fiub":
        hint = ". Complex data not supported" if array.dtype.kind == "c" else ""  # scikit-learn's own words
        raise ValueError(f"{name} must hold real numbers, but its dtype is {array.dtype}{hint}")
    if array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # infinity is found, and named, by whoever wants finite numbers
            return array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        fits = not array.size or int(array.max()) <= np.iinfo(np.int64).max
        return array.astype(np.int64 if fits else np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def plain_tensor(values: ArrayLike, name: str) -> torch.Tensor:
    """Return `values` as a dense tensor of real numbers without a gradient; memory is shared where torch can.

    Raises
    ------
    ValueError
        Naming the argument: as `plain_array`; a tensor that is sparse, quantized, complex or without data.
    """
    if not isinstance(values, torch.Tensor):
        return torch.from_numpy(np.require(plain_array(values, name), requirements=["C", "W"]))
    if values.layout != torch.strided or values.is_quantized or values.is_meta:
        kind = "quantized" if values.is_quantized else "without data" if values.is_meta else "sparse"
        raise ValueError(f"{name} must be a dense tensor of numbers, but is {kind}")
    if values.is_complex():
        raise ValueError(f"{name} must hold real numbers, but its dtype is {values.dtype}")
    wide = values.dtype in (torch.uint16, torch.uint32, torch.uint64)
    return values.detach().long() if wide else values.detach()


def image_tensor(values: ArrayLike, name: str = "images") -> torch.Tensor:
    """Return `values` as `plain_tensor` does, or raise a ValueError unless they are images (n, c, h, w)."""
    tensor = plain_tensor(values, name)
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise ValueError(f"{name} must be a non-empty (n, c, h, w) array, but has shape {tuple(tensor.shape)}")
    return tensor


def class_labels(values: ArrayLike, count: int, *, negative: bool = False) -> torch.Tensor:
    """Return labels as an int64 tensor, or raise a ValueError unless they are one class for each of `count` images.

    `negative` lets numbers below 0 pass, which are no class.
    """
    tensor = plain_tensor(values, "labels")
    if tensor.shape != (count,):
        raise ValueError(f"labels must be one an image, shape ({count},), but has shape {tuple(tensor.shape)}")
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ValueError(f"labels must be integers, but has dtype {tensor.dtype}")
    if not negative and int(tensor.min()) < 0:
        raise ValueError(f"labels must be at least 0, but has {int(tensor.min())}")
    return tensor.long()


def of_kind(kind: ArrayLike, tensor: torch.Tensor) -> ArrayLike:
    """Return a tensor as NumPy or torch (on its device), as `kind` is."""
    return tensor.to(kind.device) if isinstance(kind, torch.Tensor) else tensor.cpu().numpy()


def whole_number(value: Any, name: str, least: int | None = None) -> int:
    """Return a whole number as an int, or raise a ValueError that names it; booleans are none."""
    try:
        whole = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        whole = None
    if whole is not None and least is not None and whole < least:
        raise ValueError(f"{name} must be at least {least}, but is {whole}")
    if whole is None or abs(whole) >= 2**63:
        words = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be a whole number{words}, but is {value!r}")
    return whole


def listed(values: Any, name: str) -> list:
    """Return the entries of a sequence, or raise a ValueError that names it."""
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"{name} must be a list, but is {values!r}") from None


def checked_seed(value: Any, name: str = "random_state") -> None:
    """Raise a ValueError unless `value` is a whole number of at least 0, a NumPy generator or None."""
    if value is not None and not isinstance(value, np.random.Generator):
        try:
            whole_number(value, name, 0)
        except ValueError:
            raise ValueError(
                f"{name} must be a whole number of at least 0, a numpy.random.Generator or None, but is {value!r}"
            ) from None


def one_of(value: Any, name: str, known: Iterable[str]) -> None:
    """Raise a ValueError that says what there is unless `value` is one of the `known` words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, but is {value!r}")


def as_number(value: Any, name: str) -> float:
    """Return a real number as a float, NaN and infinity too, or raise a ValueError that names it."""
    try:
        if not isinstance(value, bool | str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    raise ValueError(f"{name} must be a number, but is {value!r}")


def finite_number(value: Any, name: str) -> float:
    """Return a finite real number as a float, or raise a ValueError that names it."""
    found = as_number(value, name)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be a finite number, but is {value!r}")
    return found


def finite(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Return `tensor`, or raise a ValueError that names it and counts the values that are NaN or infinite."""
    # One pass instead of five: a sum of finite numbers can only overflow, a NaN or infinity never leaves it.
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} must be finite, but {bad} of its {tensor.numel()} values are NaN or infinite")
    return tensor


def same_columns(first: torch.Tensor, first_name: str, second: torch.Tensor, second_name: str) -> None:
    """Raise a ValueError unless the two sample matrices have the same number of features."""
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"{first_name} and {second_name} must have the same number of features, "
            f"but have shapes {tuple(first.shape)} and {tuple(second.shape)}"
        )
