"""Pickles of dicts of byte arrays, lists and strings, read without running what they say.

A pickle is a program, which may call whatever can be imported. Here the few names that an array
needs stand for functions of this file, which build arrays of bytes, and every other name is
refused.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np


class _Array:
    """What NumPy's `_reconstruct` and the state that follows it say."""

    def __init__(self, *_: Any):
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, columns_first, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array has no dtype")
        flat = np.frombuffer(data, np.uint8)
        self.value = flat.reshape(shape[::-1]).T if columns_first else flat.reshape(shape)


class _Dtype:
    """Of bytes, the only ones there are."""

    def __init__(self, code: str | bytes, *_: Any):
        if code not in ("u1", b"u1", "|u1", b"|u1"):
            raise pickle.UnpicklingError(f"an array is of {code!r} and not of bytes")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which bytes don't have."""


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r}")
    return text.encode("latin1")


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,  # as NumPy 2 writes it
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no array of bytes needs and which was not run"
            )
        return _NAMES[module, name]


def load(data: bytes) -> dict[str, Any]:
    """The dict of a pickle, of Python 2 or 3; its keys are text, its arrays of uint8.

    Raises:
      UnpicklingError: it is damaged, no dict, or asks for more than arrays of bytes need.
    """
    try:
        check_memo(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # of any kind, where a pickle is damaged
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__} and no dict")
    return {text(key): _array(value) for key, value in content.items()}


def check_memo(data: bytes) -> None:
    """Raise an UnpicklingError for a memo of more than there is, for which gigabytes are taken."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.endswith("PUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"it remembers number {argument} of too few things")


def text(value: Any) -> str:
    """A string of Python 3, or of Python 2, whose strings are bytes."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _array(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value
