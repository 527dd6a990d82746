"""Spoken words as spikes of an artificial cochlea: SHD and SSC, HDF5 files. No JAX.

Cramer et al., IEEE TNNLS 2022, arXiv 1910.07407. A recording has 700 units, whose spikes are
counted by time; it is a row of 700 pixels of one channel.
"""

import contextlib
import functools
import mmap
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seenn_jax.data.events import recordings
from seenn_jax.data.events.formats import HDF5, other_format
from seenn_jax.data.events.frames import Binning, Events
from seenn_jax.data.events.recordings import Kind, Recording, Unreadable
from seenn_jax.data.images import why
from seenn_jax.data.prepared import default_root
from seenn_jax.data.splits import Loaded
from seenn_jax.errors import UserError, needed

UNITS = 700
# {name: ({file: whether it is for testing}, how many classes}}; what SSC has to validate is among
# the recordings of which the validation split is held out.
SETS = {
    "shd": ({"shd_train.h5": False, "shd_test.h5": True}, 20),
    "ssc": ({"ssc_train.h5": False, "ssc_valid.h5": False, "ssc_test.h5": True}, 35),
}
_PARTS = ("spikes/times", "spikes/units", "labels")
_HEAP = b"GCOL\x01\0\0\0"  # how a global heap begins
# How HDF5 keeps a recording: how many numbers, and where they lie.
_RECORDING = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])
_LONGEST = 60.0  # seconds of a recording: a time of more is none


class File(NamedTuple):
    """An open file: of each recording times in seconds and units, and its label."""

    path: Path
    times: Any
    units: Any
    labels: np.ndarray
    names: tuple[str, ...]  # of the classes, where it has them
    too_long: frozenset[int]  # recordings of more numbers than the file can have


def load(name: str, *, data_dir: str | None, binning: Binning, skip_corrupt: bool) -> Loaded:
    """The (train, test) recordings of `shd` or `ssc`, and the words."""
    folder = Path(data_dir).expanduser() if data_dir else default_root() / name
    files, count = SETS[name]
    with contextlib.ExitStack() as stack:
        opened = [
            (_opened(folder / file, count, stack), is_test) for file, is_test in files.items()
        ]
        names = opened[0][0].names
        classes = names if len(names) == count else tuple(map(str, range(count)))
        found = [
            Recording(
                file.path,
                functools.partial(_recording, file, number),
                int(label),
                is_test,
                f"recording {number} of {file.path.name}",
            )
            for file, is_test in opened
            for number, label in enumerate(file.labels)
        ]
        kind = Kind(name.upper(), (1, UNITS), classes, channels=1)
        return recordings.load(kind, folder, found, binning, skip_corrupt)


def _opened(path: Path, classes: int, stack: contextlib.ExitStack) -> File:
    """A file, checked.

    Raises:
      UserError: h5py is not installed; it is not there, of another format or cut short, lacks a
        part or has one that can't be, or its labels don't match.
    """
    h5py = needed("reading HDF5", "h5py")
    if not path.is_file():
        packed = [each for each in path.parent.glob(f"{path.name}.*")]
        raise UserError(
            f"there is no {path}: "
            + (f"unpack {packed[0]}" if packed else "download it from zenkelab.org")
            + ", or give the folder that it is in as --config.data.dir"
        )
    with path.open("rb") as start:
        other = other_format(start.read(16))
    if other and other != HDF5:
        raise UserError(
            f"{path} is {other}, and here HDF5 is read: give the file that was published, unpacked"
        )
    again = f"download and unpack {path.name} again"
    if _has_broken_heap(path):
        raise UserError(f"{path} can't be read (a list of its recordings is damaged): {again}")
    try:
        file = stack.enter_context(h5py.File(path, "r"))
        _check_parts(path, file)
        times, units, labels = (file[part] for part in _PARTS)
        names = tuple(key.decode() for key in file["extra/keys"][:]) if "extra/keys" in file else ()
        labels = labels[:].astype(np.int64)
        too_long = _too_long(path, times) | _too_long(path, units)
    except UserError:
        raise
    except Exception as error:  # of any kind, where files are damaged
        raise UserError(f"{path} can't be read ({why(error)}): {again}") from error
    if not len(times) == len(units) == len(labels):
        raise UserError(
            f"{path} has {len(labels):,} labels, and {len(times):,} recordings of times and "
            f"{len(units):,} of units: {again}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"{path} has labels from {labels.min()} to {labels.max()}, and there are {classes} "
            f"classes: {again}"
        )
    return File(path, times, units, labels, names, too_long)


def _check_parts(path: Path, file: Any) -> None:
    """Raise a UserError for a part that is missing or has not one entry for each recording."""
    missing = [part for part in _PARTS if part not in file]
    if missing:
        raise UserError(
            f"{path} has no {missing[0]} (it has {', '.join(file) or 'nothing'}): it is an "
            "HDF5 file of something else; give the one that was published"
        )
    for part in _PARTS:
        shape = getattr(file[part], "shape", None)  # a group has none
        if shape is None or len(shape) != 1:
            what = "is a group" if shape is None else f"has the shape {list(shape)}"
            raise UserError(
                f"{path} can't be read: {part} {what}, and must have one entry for each recording, "
                "[N]; give the file that was published"
            )
    if file["labels"].dtype.kind not in "iu":
        raise UserError(
            f"{path} can't be read: labels are {file['labels'].dtype}, and must be the numbers of "
            "classes, whole ones; give the file that was published"
        )


def _has_broken_heap(path: Path) -> bool:
    """Whether a global heap, where recordings lie, has an object of no length.

    HDF5's library would look for its end for ever.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = data.find(_HEAP)
            while 0 <= start <= len(data) - 16:
                (size,) = struct.unpack_from("<Q", data, start + 8)
                place, end = start + 16, min(start + size, len(data))
                while place + 16 <= end:
                    index, length = struct.unpack_from("<H6xQ", data, place)
                    if not index and not length:
                        return True
                    place += 16 + -(-length // 8) * 8 if index else length
                start = data.find(_HEAP, start + 8)
    return False


def _too_long(path: Path, part: Any) -> frozenset[int]:
    """Numbers of the recordings that are said to be longer than their file.

    HDF5's library would take as much memory before it finds that they are not.
    """
    kind, stored = (part.dtype.metadata or {}).get("vlen"), part.id
    if kind is None or stored.get_create_plist().get_nfilters():  # filtered: they can't be seen
        return frozenset()
    chunks = (
        [stored.get_chunk_info(i) for i in range(stored.get_num_chunks())] if part.chunks else ()
    )
    places = [(chunk.chunk_offset[0], chunk.byte_offset, chunk.size) for chunk in chunks]
    if not part.chunks and stored.get_offset() is not None:
        places = [(0, stored.get_offset(), stored.get_storage_size())]
    found: set[int] = set()
    with path.open("rb") as file:
        most = os.fstat(file.fileno()).st_size // np.dtype(kind).itemsize
        for first, offset, size in places:
            file.seek(offset)
            lengths = np.frombuffer(file.read(size), _RECORDING)["length"]
            found |= {first + int(number) for number in np.flatnonzero(lengths > most)}
    return frozenset(found)


def _recording(file: File, number: int) -> Events:
    """The spikes of one recording; its times are from the beginning."""

    def bad(what):
        return Unreadable(
            f"recording {number} of {file.path} is corrupt: {what}; download the file again, or "
            "leave such recordings out with `config.data.skip_corrupt`=true"
        )

    if number in file.too_long:
        raise bad("it is said to be longer than the file")
    try:
        times = np.asarray(file.times[number], np.float64)
        units = np.asarray(file.units[number]).astype(np.int64)
    except Exception as error:  # of any kind, where files are damaged
        raise bad(why(error)) from error
    if times.shape != units.shape or times.ndim != 1:
        raise bad(f"it has {times.size} times and {units.size} units")
    if not times.size:
        raise bad("it has no spikes")
    if not (np.all(times >= 0) and np.all(times < _LONGEST)):
        raise bad(f"it has a time that is none, {times[~((times >= 0) & (times < _LONGEST))][0]}")
    if not (np.all(units >= 0) and np.all(units < UNITS)):
        odd = units[(units < 0) | (units >= UNITS)][0]
        raise bad(f"it has the unit {odd}, and there are {UNITS}, from 0 on")
    t = np.rint(1e6 * times).astype(np.int64)
    return Events(units, np.zeros_like(units), np.ones(units.shape, bool), t)
