"""What PyTorch saves, read without PyTorch and without running what a file says.

A checkpoint is a pickle, which may call whatever can be imported, and the raw numbers of its
tensors: in a zip archive, or since before PyTorch 1.6 behind one another. Here the few names that
tensors and dicts need stand for functions of this file, and every other name is refused.
"""

import collections
import io
import itertools
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from seenn_jax.data.pickles import check_memo

DTYPES = {
    "BFloat16Storage": jnp.bfloat16,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ShortStorage": np.int16,
}
MAGIC = 0x1950A86A20F9469CFC6C  # the first number of the older format
TREES = ("torch.nn.", "torchvision.", "spikingjelly.")  # modules, as of whole networks


class Unreadable(ValueError):
    """A file that is damaged, or asks for more than tensors need."""


def load(content: bytes) -> Any:
    """What `torch.save` wrote, with arrays for its tensors.

    Raises:
      Unreadable: it is damaged, or holds other objects than tensors, dicts, lists and numbers.
    """
    try:
        return _of_zip(content) if zipfile.is_zipfile(io.BytesIO(content)) else _older(content)
    except Unreadable:
        raise
    except Exception as error:  # of any kind, where a file is damaged
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def is_one(content: bytes) -> bool:
    """Whether this may be of `torch.save`: a pickle, or an archive with one."""
    return content[:1] == b"\x80" or (content[:2] == b"PK" and b"/data.pkl" in content)


def _of_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise Unreadable(f"an archive has {len(pickles)} pickles named data.pkl, and not one")
        folder = pickles[0].removesuffix("data.pkl")

        def part(name):
            if archive.getinfo(folder + name).file_size > len(content):
                raise Unreadable(f"{name} is said to be larger than the file")
            return archive.read(folder + name)

        if folder + "byteorder" in archive.namelist() and part("byteorder") != b"little":
            raise Unreadable("its numbers are not little-endian")
        read: dict[str, bytes] = {}

        def storage(key, dtype, count):
            read[key] = read[key] if key in read else part(f"data/{key}")
            return np.frombuffer(read[key], dtype, count)

        return _unpickled(io.BytesIO(part("data.pkl")), storage)


def _older(content: bytes) -> Any:
    """Pickles of a magic number, versions, the object and the keys of its storages; these."""
    file = io.BytesIO(content)
    storages: dict[str, np.ndarray] = {}

    def storage(key, dtype, count):
        if key not in storages:
            needed = sum(each.nbytes for each in storages.values())
            if not 0 <= count * np.dtype(dtype).itemsize <= len(content) - needed:
                raise Unreadable("a tensor is said to be larger than the file")
            storages[key] = np.zeros(count, dtype)  # which is filled below
        return storages[key]

    if _unpickled(file, storage) != MAGIC:
        raise Unreadable("it does not begin as what torch.save wrote")
    _, about, found, keys = (_unpickled(file, storage) for _ in range(4))
    if not about.get("little_endian"):
        raise Unreadable("its numbers are not little-endian")
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        flat = storages[key]
        if count != flat.size:
            raise Unreadable(f"a tensor has {count} numbers and {flat.size} were expected")
        flat[:] = np.frombuffer(file.read(flat.nbytes), flat.dtype, count)
    return found


def _unpickled(file: io.BytesIO, storage: Callable) -> Any:
    check_memo(file.getbuffer()[file.tell() :].tobytes())
    return _Unpickler(file, storage).load()


class _Unpickler(pickle.Unpickler):
    """Args: storage: `(key, dtype, count) -> its numbers`."""

    def __init__(self, file: io.BytesIO, storage: Callable):
        super().__init__(file, encoding="latin1")
        self.storage = storage
        # Made anew for each file, which could set attributes of them.
        self.names = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *of: _tensor(*of),
            ("torch._utils", "_rebuild_tensor"): lambda *of: _tensor(*of),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("torch", "Size"): lambda sizes=(): tuple(sizes),
            ("torch", "device"): lambda *of: "device",
            # A number of NumPy's, such as the best accuracy that stands beside a state dict.
            ("numpy", "dtype"): lambda code, *_: _Dtype(code),
            **{
                (module, "scalar"): lambda dtype, data: dtype.number(data)
                for module in ("numpy.core.multiarray", "numpy._core.multiarray")
            },
            ("_codecs", "encode"): lambda text, *_: text.encode("latin1"),
            **{("torch", name): np.dtype(dtype) for name, dtype in DTYPES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.names:
            return self.names[module, name]
        if module.startswith(TREES) or (module, name) == ("torch", "nn"):
            raise Unreadable(
                f"it holds a whole network ({module}.{name}) and no state dict: load it where its "
                "code is, and save what state_dict() gives"
            )
        raise Unreadable(
            f"it asks for {module}.{name}, which no tensor needs and which was not run"
        )

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise Unreadable("a tensor has numbers of an unknown kind")
        return self.storage(str(key), dtype, int(count))


class _Dtype:
    """Of a number of NumPy's."""

    def __init__(self, code: Any):
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "biuf":
            raise Unreadable(f"a number is of {code!r}")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which are little-endian in all that is read."""

    def number(self, data: Any) -> Any:
        """The number in these bytes."""
        data = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(data, self.dtype, 1)[0].item()


def _tensor(storage: np.ndarray, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """A view of a storage."""
    sizes = list(itertools.chain(shape, strides, [offset]))
    if len(shape) != len(strides) or not all(isinstance(n, int) and n >= 0 for n in sizes):
        raise Unreadable("a tensor has a shape that can't be")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count and not (count <= storage.size and last < storage.size):
        raise Unreadable("a tensor has more numbers than its storage")
    item = storage.itemsize
    return np.lib.stride_tricks.as_strided(
        storage[offset if count else 0 :], shape, [step * item for step in strides]
    )
