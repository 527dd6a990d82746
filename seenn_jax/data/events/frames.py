"""Event data as frames of event counts, one frame for each timestep.

A pixel of an event camera says when it became brighter (ON) or darker (OFF), and nothing else. A
recording is cut into T frames, of equally many events each, in the order of time ("count"), or of
equal length ("duration"); their two channels count the ON and the OFF events of each pixel. NumPy
only, no JAX.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from seenn_jax.errors import UserError, check_choice

# A cell that is partly covered by a pixel has parts of its events: counts are then kept in quarters
# of an event.
UNITS = 4
BY = ("count", "duration")
_LARGEST = 10**9  # milliseconds of a frame, eleven days, far from what an int64 holds in events


class Events(NamedTuple):
    """Events of one recording in the order of time."""

    x: Int[np.ndarray, "E"]  # column, from the left
    y: Int[np.ndarray, "E"]  # row, from the top
    on: Bool[np.ndarray, "E"]  # became brighter
    # Microseconds from the beginning of the recording; None where a reader does not say.
    t: Int[np.ndarray, "E"] | None = None


class Binning(NamedTuple):
    """How a recording becomes frames.

    Attributes:
      timesteps: T.
      by: "count" or "duration".
      bin_ms: by duration, milliseconds of a frame, and what is later than T of them is left out;
        0 divides each recording into T equal parts.
      side: pixels of the frames' sides; 0 is the data set's own.
      saturate: keep counts up to 255 units only, in a byte each, as older runs did.
    """

    timesteps: int
    by: str = "count"
    bin_ms: int | float = 0
    side: int = 0
    saturate: bool = False

    def check(self) -> None:
        """Raise a UserError for what can't be."""
        check_choice("`config.data.bin_by`", self.by, BY)
        for name, value in (("bin_ms", self.bin_ms), ("event_side", self.side)):
            if not 0 <= value <= _LARGEST:  # nor is NaN
                raise UserError(
                    f"`config.data.{name}` is {value}: set it to a number from 0 to {_LARGEST:,}"
                )
        if self.bin_ms and self.by == "count":
            raise UserError(
                f"`config.data.bin_ms` is {self.bin_ms}, the length of frames by duration, and "
                "`config.data.bin_by` is 'count': set that to duration, or leave it out"
            )


def to_frames(
    events: Events, binning: Binning, height: int, width: int, channels: int = 2
) -> Int[np.ndarray, "T height width channels"]:
    """Counts of ON (channel 0) and OFF events at each pixel; of one channel, of all events."""
    frame = frame_of(events, binning)
    place = (frame * height + events.y) * width + events.x
    if channels == 2:
        place = place * 2 + ~events.on
    shape = (binning.timesteps, height, width, channels)
    return np.bincount(place[frame < binning.timesteps], minlength=np.prod(shape)).reshape(shape)


def frame_of(events: Events, binning: Binning) -> Int[np.ndarray, "E"]:
    """The frame of each event; T or more of what is left out.

    By count event i of E belongs to frame floor(i T / E); by duration that at t, of a recording
    whose last event is at t', to floor(t T / (t' + 1)), or to floor(t / bin).
    """
    count, timesteps = len(events.x), binning.timesteps
    if binning.by == "count" or not count:
        return np.arange(count) * timesteps // max(count, 1)
    time = events.t.astype(np.int64)
    if binning.bin_ms:
        return time // max(1, round(1000 * binning.bin_ms))
    return time * timesteps // (int(time.max()) + 1)


def resize(
    frames: Int[np.ndarray, "T h w C"], height: int, width: int
) -> Float[np.ndarray, "T height width C"]:
    """The same events on a coarser grid: each pixel's go to the cells it lies in, by area.

    All cells collect from equally large areas, which cells of whole pixels would not.
    """
    down, across = _shares(frames.shape[1], height), _shares(frames.shape[2], width)
    return np.einsum("rh,thwc,sw->trsc", down, frames, across, optimize=True)


def _shares(before: int, side: int) -> Float[np.ndarray, "side before"]:
    """Of each pixel of a side, the part that lies in each cell of the coarser one."""
    # In units of which a pixel has `side` and a cell `before`.
    starts, edges = side * np.arange(before), before * np.arange(side)[:, None]
    shared = np.minimum(starts + side, edges + before) - np.maximum(starts, edges)
    return np.maximum(shared, 0) / side


class Frames:
    """Frames of many recordings, in the smallest whole numbers that hold their counts.

    Args:
      count: of recordings at most.
      shape: (T, height, width, channels).
      units: of an event.
      saturate: of `Binning`.
    """

    def __init__(self, count: int, shape: tuple[int, int, int, int], units: int, saturate: bool):
        self._array, self._size, self._units = np.empty((count, *shape), np.uint8), 0, units
        self._most = np.iinfo(np.uint8 if saturate else np.uint16).max
        self._lost = self._total = 0

    def add(self, counts: Shaped[np.ndarray, "T H W C"]) -> None:
        """Append those of one recording, in events."""
        units = np.rint(self._units * counts).astype(np.int64)
        kept = np.minimum(units, self._most)
        self._lost += int((units - kept).sum())
        self._total += int(units.sum())
        if kept.max() > np.iinfo(self._array.dtype).max:
            self._array = self._array.astype(np.uint16)
        self._array[self._size] = kept
        self._size += 1

    @property
    def array(self) -> Shaped[np.ndarray, "N T H W C"]:
        """All, uint8 or uint16."""
        return self._array[: self._size]

    @property
    def loss(self) -> str:
        """What was above the largest count that is kept, in words; "" where nothing was."""
        if not self._lost:
            return ""
        return (
            f"{self._lost / self._total:.1%} of the events are above the largest count of a cell, "
            f"{self._most / self._units:g}, and lost"
        )
