"""Checks of arrays at the public border: one sentence that names the argument, what it was and what it must be."""

import os
import warnings

import numpy as np
import torch

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
    tensor = _real_tensor(values, name, shape_words)
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


def _real_tensor(values: ArrayLike, name: str, shape_words: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        tensor = values.detach()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} must be a {shape_words} array, but its rows differ in length") from error
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, but its dtype is {array.dtype}")
        tensor = torch.as_tensor(np.ascontiguousarray(array))
    if tensor.is_complex():
        raise ValueError(f"{name} must hold real numbers, but its dtype is {tensor.dtype}")
    return tensor


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


def whole(name: str, value: int, least: int) -> int:
    """Return a whole number of at least `least` as an int, or raise a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, but is {value!r}")
    return int(value)
