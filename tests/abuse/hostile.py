"""Arguments that nobody meant: arrays spoilt in one way, scalars of every kind. `SPOILT` and `VALUES` name them."""

import decimal
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse


def _elsewhere(array, value, at):
    changed = np.array(array, dtype=np.float64)
    changed.ravel()[at % changed.size] = value
    return changed


def _strided(array):
    wide = np.repeat(array, 2, axis=-1) if array.ndim else array
    return wide[..., ::2] if array.ndim else wide


def _reversed(array):
    return array[::-1].copy()[::-1]


def _read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


SAME: dict[str, Callable] = {
    "non-contiguous": _strided,
    "column-major": np.asfortranarray,
    "negative strides": _reversed,
    "read-only": _read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "nested lists": lambda a: a.tolist(),
    "tensor": lambda a: torch.from_numpy(a.copy()),
    "transposed tensor": lambda a: torch.from_numpy(np.asfortranarray(a).T.copy()).permute(*range(a.ndim)[::-1]),
    "wider": lambda a: a.astype(np.float64 if a.dtype.kind == "f" else np.int64),
    "widest": lambda a: a.astype(np.longdouble) if a.dtype.kind == "f" else a.astype(np.int64),
    "masked, nothing masked": lambda a: np.ma.masked_array(a),
    "memory-mapped layout": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}
"""The same numbers in another form: the result must be the same. ("nested lists" lose float32.)"""

SPOILT: dict[str, Callable] = {
    "NaN": lambda a, at: _elsewhere(a, np.nan, at),
    "infinity": lambda a, at: _elsewhere(a, np.inf, at),
    "minus infinity": lambda a, at: _elsewhere(a, -np.inf, at),
    "huge": lambda a, at: np.asarray(a, np.float64) * 1e300,
    "beyond float32": lambda a, at: np.asarray(a, np.float64) * 1e39,
    "one huge": lambda a, at: _elsewhere(a, 1.7e308, at),
    "subnormal": lambda a, at: np.asarray(a, np.float64) * 1e-310,
    "subnormal float32": lambda a, at: (np.asarray(a, np.float64) * 1e-40).astype(np.float32),
    "all zero": lambda a, at: np.zeros_like(a),
    "all the same": lambda a, at: np.full_like(a, a.ravel()[at % a.size]),
    "a constant column": lambda a, at: np.where(np.arange(a.shape[-1]) == at % a.shape[-1], a.ravel()[0], a),
    "duplicates": lambda a, at: np.repeat(a[: max(1, len(a) // 2)], 2, axis=0)[: len(a)],
    "negative": lambda a, at: -a - 1,
    "one row": lambda a, at: a[:1],
    "no rows": lambda a, at: a[:0],
    "one row more": lambda a, at: np.concatenate([a, a[:1]]),
    "no columns": lambda a, at: a[..., :0],
    "a column less": lambda a, at: a[..., :-1],
    "an axis more": lambda a, at: a[..., None],
    "an axis less": lambda a, at: a[0],
    "no axis": lambda a, at: a.ravel()[0],
    "flat": lambda a, at: a.ravel(),
    "five axes": lambda a, at: a.reshape(1, *[1] * (4 - a.ndim), *a.shape) if a.ndim < 5 else a,
    "transposed": lambda a, at: a.T,
    "integers": lambda a, at: (np.asarray(a) * 3).astype(np.int64),
    "bytes": lambda a, at: (np.abs(np.asarray(a)) * 3).astype(np.uint8),
    "unsigned, 16 bits": lambda a, at: (np.abs(np.asarray(a)) * 3).astype(np.uint16),
    "unsigned, 64 bits, huge": lambda a, at: np.full(a.shape, 2**64 - 1, np.uint64),
    "half precision": lambda a, at: np.asarray(a).astype(np.float16),
    "booleans": lambda a, at: np.asarray(a) > 0,
    "complex": lambda a, at: np.asarray(a) + 1j,
    "objects": lambda a, at: np.array([object() for _ in range(a.size)], dtype=object).reshape(a.shape),
    "decimals": lambda a, at: np.vectorize(lambda x: decimal.Decimal(float(x)), otypes=[object])(a),
    "strings": lambda a, at: np.asarray(a).astype(str),
    "dates": lambda a, at: np.zeros(a.shape, "datetime64[s]"),
    "records": lambda a, at: np.zeros(a.shape, [("x", "f4"), ("y", "f4")]),
    "masked": lambda a, at: np.ma.masked_array(a, mask=np.arange(a.size).reshape(a.shape) == at % a.size),
    "ragged": lambda a, at: [[0.0], [0.0, 1.0]],
    "empty list": lambda a, at: [],
    "None": lambda a, at: None,
    "a word": lambda a, at: "word",
    "a dictionary": lambda a, at: {"x": 1},
    "a set": lambda a, at: {1.0, 2.0},
    "an object": lambda a, at: object(),
    "a generator": lambda a, at: (row for row in a),
    "a sparse matrix": lambda a, at: sparse.csr_array(np.asarray(a, np.float64).reshape(len(a), -1)),
    "a sparse tensor": lambda a, at: torch.from_numpy(np.array(a)).to_sparse(),
    "a complex tensor": lambda a, at: torch.from_numpy(np.asarray(a) + 1j),
    "a tensor without data": lambda a, at: torch.empty(a.shape, device="meta"),
    "a quantized tensor": lambda a, at: _quantized(a),
    "a bfloat16 tensor": lambda a, at: torch.from_numpy(np.array(a, np.float32)).bfloat16(),
    "an unsigned tensor": lambda a, at: torch.from_numpy((np.abs(np.array(a)) * 3).astype(np.uint16)),
    "a tensor with a gradient": lambda a, at: torch.from_numpy(np.array(a, np.float32)).requires_grad_(),
}
"""Other numbers, or none: the right answer, or an error that names the argument."""

VALUES: dict[str, object] = {
    "None": None, "True": True, "zero": 0, "one": 1, "minus one": -1, "a half": 0.5, "two and a half": 2.5,
    "NaN": float("nan"), "infinity": float("inf"), "minus infinity": float("-inf"), "huge": 1e308, "tiny": 5e-324,
    "huge whole": 10**30, "minus huge": -(10**30), "a word": "word", "no word": "", "bytes": b"1", "a list": [1, 2],
    "no list": [], "a dictionary": {}, "an object": object(), "a class": dict, "a function": len, "complex": 1j,
    "an array": np.arange(3.0), "a NumPy whole": np.int16(1), "a NumPy float": np.float32(0.25),
    "NaT": np.datetime64("NaT"),
    "a tensor": torch.tensor(1.0), "a tuple": (0, 1), "turned round": (1, 0), "a range with NaN": (0.0, float("nan")),
    "three": (0, 1, 2), "a decimal": decimal.Decimal("0.5"), "zero in a list": [0], "words in a list": ["a", None],
    "a path": "/nonexistent/place", "not a number in a list": [float("nan")],
}  # fmt: skip


def _quantized(array):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.from_numpy(np.array(array, np.float32)), 0.1, 0, torch.qint8)
