"""Event data as frames of event counts, one frame for each timestep.

A pixel of an event camera says when it became brighter (ON) or darker (OFF), and nothing else. A
recording is cut into T frames of equally many events each, in the order of time ("by count"); their
two channels count the ON and the OFF events of each pixel. NumPy only, no JAX.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Events(NamedTuple):
    """Events of one recording in the order of time."""

    x: Int[np.ndarray, "E"]  # column, from the left
    y: Int[np.ndarray, "E"]  # row, from the top
    on: Bool[np.ndarray, "E"]  # became brighter


def to_frames(events: Events, timesteps: int, side: int) -> Int[np.ndarray, "T side side 2"]:
    """Counts of ON (channel 0) and OFF events at each pixel, in T frames of equally many events.

    Event i of E belongs to frame floor(i T / E).
    """
    count = len(events.x)
    frame = np.arange(count) * timesteps // max(count, 1)
    place = ((frame * side + events.y) * side + events.x) * 2 + ~events.on
    shape = (timesteps, side, side, 2)
    return np.bincount(place, minlength=np.prod(shape)).reshape(shape)


def resize(
    frames: Int[np.ndarray, "T before before C"], side: int
) -> Float[np.ndarray, "T side side C"]:
    """The same events on a coarser grid: each pixel's go to the cells it lies in, by area.

    All cells collect from equally large areas, which cells of whole pixels would not.
    """
    before = frames.shape[1]
    # In units of which a pixel has `side` and a cell `before`.
    starts, edges = side * np.arange(before), before * np.arange(side)[:, None]
    shared = np.minimum(starts + side, edges + before) - np.maximum(starts, edges)
    share = np.maximum(shared, 0) / side  # [cells, pixels]
    return np.einsum("rh,thwc,sw->trsc", share, frames, share, optimize=True)
