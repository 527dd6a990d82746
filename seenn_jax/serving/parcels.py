"""What goes to the device with a call and comes back: one array each, for a transfer costs the
host, however small.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped, UInt8

from seenn_jax.serving.core import Arrivals, Seen, Served

WORDS = ("row", "frame", "value")  # of each input, 4 bytes each


class Parcel(NamedTuple):
    """What a call brings, as bytes, and views of them to fill in."""

    sent: UInt8[np.ndarray, "B"]
    words: Int[np.ndarray, "3 A"]
    dropped: Int[np.ndarray, "R"]
    inputs: Shaped[np.ndarray, "A ..."]


class Packed(NamedTuple):
    """A `Seen` whose first four are one array."""

    latest: Int[Array, "4 R"]
    all_classes: Int[Array, "R T"]
    all_confidence: Float[Array, "R T"]


def nothing(served: Served, room: int, rows: int) -> Parcel:
    """A parcel without inputs, with place for A = `room`, and R = `rows`."""
    parts = _parts(served, room, rows)
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in parts]
    sent = np.zeros(sum(sizes), np.uint8)
    found = np.split(sent, np.cumsum(sizes)[:-1])
    views = [x.view(dtype).reshape(shape) for x, (shape, dtype) in zip(found, parts, strict=True)]
    views[0][0] = rows
    return Parcel(sent, *views)


def arrivals(served: Served, sent: UInt8[Array, "B"], room: int, rows: int) -> Arrivals:
    """What was put into a parcel; pure, for use inside jit."""
    views, end = [], 0
    for shape, dtype in _parts(served, room, rows):
        start, end = end, end + math.prod(shape) * dtype.itemsize
        views.append(sent[start:end].view(dtype).reshape(shape))
    (row, frame, bits), dropped, inputs = views
    return Arrivals(inputs, row, frame, lax.bitcast_convert_type(bits, jnp.float32), dropped > 0)


def packed(seen: Seen) -> Packed:
    """What comes back; pure, for use inside jit."""
    bits = lax.bitcast_convert_type(seen.confidence, jnp.int32)
    latest = jnp.stack([seen.times, seen.done.astype(jnp.int32), seen.classes, bits])
    return Packed(latest, seen.all_classes, seen.all_confidence)


def _parts(served: Served, room: int, rows: int) -> list[tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each view; words first, so that all lie at multiples of 4 bytes."""
    word, inputs = np.dtype(np.int32), jax.dtypes.canonicalize_dtype(served.dtype)
    shapes = (len(WORDS), room), (rows,), (room, *served.shape)
    return list(zip(shapes, (word, word, inputs), strict=True))
