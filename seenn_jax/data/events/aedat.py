"""AEDAT files of event cameras, versions 2.0 and 3.1. NumPy only, no JAX."""

import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int

from seenn_jax.data.events.formats import other_format
from seenn_jax.data.events.frames import Events
from seenn_jax.data.events.recordings import Kind, check_place, corrupt
from seenn_jax.errors import UserError

_FIRST_LINE = re.compile(rb"#!AER-DAT(\d)\.(\d)\r?\n")
_END = re.compile(rb"#!END-HEADER\r?\n")
_LINE = 2**20  # bytes of a line of the header, at most
_EVENT2 = np.dtype([("address", ">u4"), ("time", ">u4")])
_EVENT3 = np.dtype([("data", "<u4"), ("time", "<u4")])
_PACKET = np.dtype(
    [
        *(("type", "<i2"), ("source", "<i2"), ("size", "<i4"), ("offset", "<i4")),
        *(("overflow", "<i4"), ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4")),
    ]
)
_POLARITY = 1  # the type of packets of events of pixels


def begin(file: BinaryIO, path: Path, version: str) -> bytes:
    """Read the header of a file of such a version, and return it.

    Raises:
      UserError: it is of another format or version, or cut in its header.
    """
    first = file.readline(_LINE)
    found = _FIRST_LINE.fullmatch(first)
    if found and b".".join(found.groups()).decode() != version:
        there = b".".join(found.groups()).decode()
        raise UserError(
            f"{path} is AEDAT {there}, and here AEDAT {version} is read: give the recordings as "
            "they were published"
        )
    if not found:
        other = other_format(first)
        if other:
            raise UserError(
                f"{path} is {other}, and here AEDAT {version} is read: give the recordings as they "
                "were published, extracted"
            )
        raise corrupt(path, f"it does not begin with the line #!AER-DAT{version}")
    header, start = first, file.tell()
    while (line := file.readline(_LINE)).startswith(b"#"):
        header, start = header + line, file.tell()
        if _END.fullmatch(line):
            return header
    if version != "2.0":
        raise corrupt(path, "it is cut in its header")
    file.seek(start)
    return header


def check_file(path: Path) -> None:
    """Raise an `Unreadable` for what is no file and would be read as one (a pipe has no end)."""
    if not path.is_file():
        raise corrupt(path, "it is no regular file")


def addresses(path: Path) -> Int[np.ndarray, "E 2"]:
    """(address, microseconds) of all events of an AEDAT 2.0 file, two big-endian words each.

    Raises:
      UserError: as `begin`; it ends in the middle of an event.
    """
    check_file(path)
    with path.open("rb") as file:
        begin(file, path, "2.0")
        size = path.stat().st_size - file.tell()
        if size % 8:
            why = f"it has {size:,} bytes of events of 8 bytes each, the last cut short"
            raise corrupt(path, why)
        found = np.fromfile(file, _EVENT2)
    return np.stack([found["address"], found["time"]], axis=1).astype(np.int64)


def read_3_1(path: Path, kind: Kind) -> Events:
    """The valid events of all pixels in an AEDAT 3.1 file; times are those of the camera.

    A packet has a header of 28 bytes and events of two little-endian words: bit 0 says whether it
    is valid, bit 1 is 1 for ON, bits 2 to 16 count rows from the top and bits 17 to 31 columns; the
    other word has microseconds, of which the packet says how often their 31 bits overflowed.

    Raises:
      UserError: as `begin`; it ends in the middle of a packet, has packets that can't be, no
        events, or events off the sensor.
    """
    check_file(path)
    with path.open("rb") as file:
        header = begin(file, path, "3.1")
        data = file.read()
    parts, place = [np.empty((0, 2), np.int64)], 0
    while place < len(data):
        if len(data) - place < _PACKET.itemsize:
            raise corrupt(path, "it ends in the middle of a packet's header")
        packet = np.frombuffer(data, _PACKET, 1, place)[0]
        size, count = int(packet["size"]), int(packet["capacity"])
        place += _PACKET.itemsize
        if not (0 <= packet["valid"] <= packet["number"] <= count and size > 0):
            raise corrupt(path, f"the packet before byte {place:,} has a header that can't be")
        if size * count > len(data) - place:
            raise corrupt(path, f"it ends in a packet of {count:,} events")
        if packet["type"] == _POLARITY:
            if size != _EVENT3.itemsize:
                raise corrupt(path, f"it has events of {size} bytes, and those of pixels have 8")
            found = np.frombuffer(data, _EVENT3, int(packet["number"]), place)
            times = found["time"].astype(np.int64) + (int(packet["overflow"]) << 31)
            valid = (found["data"] & 1) == 1
            parts.append(np.stack([found["data"], times], axis=1)[valid])
        place += size * count
    return _of_words(path, header, np.concatenate(parts), kind)


def _of_words(path: Path, header: bytes, words: Int[np.ndarray, "E 2"], kind: Kind) -> Events:
    data, times = words.T
    events = Events(x=data >> 17, y=data >> 2 & 0x7FFF, on=(data & 2) > 0, t=times)
    camera = re.search(rb"#-?Source \d+: *([ -~]+)", header)
    check_place(path, events, kind, camera[1].decode().strip() if camera else "")
    return events
