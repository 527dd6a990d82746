"""Files of event cameras as these write them, of events (x, y, on, microseconds)."""

import struct

import numpy as np
from hypothesis import strategies as st


def recordings(width, height, most_time=2**20, max_size=20):
    """Lists of events on such a sensor, in the order of time."""
    event = st.tuples(
        st.integers(0, width - 1),
        st.integers(0, height - 1),
        st.booleans(),
        st.integers(0, most_time),
    )
    return st.lists(event, min_size=1, max_size=max_size).map(lambda x: sorted(x, key=at))


def at(event):
    return event[3]


def read_back(events):
    """`Events` as a list of (x, y, on, microseconds)."""
    return list(zip(*(part.tolist() for part in events), strict=True))


def from_start(events):
    """The same, whose first is at 0."""
    return [(x, y, on, t - min(map(at, events))) for x, y, on, t in events]


def atis(events):
    """A .bin file of N-MNIST: 40 bits an event."""
    return b"".join(bytes([x, y]) + (on << 23 | t).to_bytes(3, "big") for x, y, on, t in events)


HEADER = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    b"#Start-Time: 2016-11-17 14:50:23 (TZ+0000)\r\n#!END-HEADER\r\n"
)


def packet(events, kind=1, valid=True, overflow=0, spare=0):
    """A packet of AEDAT 3.1, with room for so many events more."""
    count = len(events)
    words = b"".join(
        struct.pack("<II", x << 17 | y << 2 | on << 1 | valid, t) for x, y, on, t in events
    )
    head = struct.pack(
        "<hhiiiiii", kind, 1, 8, 4, overflow, count + spare, count, count if valid else 0
    )
    return head + words + bytes(8 * spare)


def aedat3(*packets, header=HEADER):
    """An AEDAT 3.1 file."""
    return header + b"".join(packets)


def npz(path, events, **changed):
    """A file as SpikingJelly prepares them; `changed` are other arrays."""
    x, y, on, t = np.array(events).reshape(-1, 4).T
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **({"t": t, "x": x, "y": y, "p": on} | changed))
