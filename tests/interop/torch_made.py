"""Files as torch.save writes them, made without torch."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from unittest import mock

import numpy as np

from seenn_jax.interop.torch_files import DTYPES, MAGIC


def _module(name, *members):
    """A module that pickle finds them in."""
    module = types.ModuleType(name)
    for member in members:
        member.__module__ = name
        setattr(module, member.__name__, member)
    return module


def _rebuild_tensor_v2():
    """Named, and not called."""


STORAGES = {np.dtype(dtype): type(name, (), {}) for name, dtype in DTYPES.items()}
MODULES = {
    "torch": _module("torch", *STORAGES.values()),
    "torch._utils": _module("torch._utils", _rebuild_tensor_v2),
}


class _Storage:
    def __init__(self, flat, key):
        self.flat, self.key = flat, key


class _Pickler(pickle.Pickler):
    def __init__(self, file, storages):
        super().__init__(file, 2)
        self.storages = storages

    def reducer_override(self, value):
        if not isinstance(value, np.ndarray):
            return NotImplemented
        base = value
        while isinstance(base.base, np.ndarray):
            base = base.base
        storage = next((s for s in self.storages if s.flat is base), None)
        if storage is None:
            storage = _Storage(base, str(len(self.storages)))
            self.storages.append(storage)
        offset = value.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        strides = tuple(step // value.itemsize for step in value.strides)
        about = (storage, offset // value.itemsize, value.shape, strides, False)
        return _rebuild_tensor_v2, (*about, collections.OrderedDict())

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        kind = STORAGES[value.flat.dtype]
        return ("storage", kind, value.key, "cpu", value.flat.size)


def saved(value, older=False):
    """The bytes of a file; `older` is the format before the zip archives."""
    storages, file = [], io.BytesIO()
    with mock.patch.dict(sys.modules, MODULES):
        _Pickler(file, storages).dump(value)
    if older:
        about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
        head = b"".join(pickle.dumps(each, 2) for each in (MAGIC, 1001, about))
        keys = pickle.dumps([s.key for s in storages], 2)
        raw = b"".join(struct.pack("<q", s.flat.size) + s.flat.tobytes() for s in storages)
        return head + file.getvalue() + keys + raw
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("net/data.pkl", file.getvalue())
        archive.writestr("net/byteorder", "little")
        for storage in storages:
            archive.writestr(f"net/data/{storage.key}", storage.flat.tobytes())
    return whole.getvalue()
