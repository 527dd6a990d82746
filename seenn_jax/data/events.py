"""Event data: what an event camera saw, as frames of event counts, one frame for each timestep.

A pixel of such a camera says when it became brighter (ON) or darker (OFF), and nothing else. A
recording is cut into T frames of equally many events each, in the order of time ("by count"); their
two channels count the ON and the OFF events of each pixel. Recordings are read from CIFAR10-DVS's
files (AEDAT 2.0), or simulated from digits. NumPy only, no JAX.
"""

import itertools
import logging
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)


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


# --- CIFAR10-DVS ---------------------------------------------------------------------------------

CIFAR10_DVS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SIDE = 48  # to which its 128 x 128 pixels are brought
# A cell that is partly covered by a pixel has parts of its events: counts are kept in quarters of
# an event, up to 63.75 of them.
UNITS = 4
RECORDINGS = 1000  # of each class
_FIRST_LINE = re.compile(rb"#!AER-DAT2\.0\r?\n")
_SENSOR = 128


class Recordings(NamedTuple):
    """Frames of recordings, and what was left out."""

    frames: UInt8[np.ndarray, "N T H W 2"]
    labels: Int32[np.ndarray, "N"]
    is_test: Bool[np.ndarray, "N"]
    skipped: list[str]  # files that could not be read, with their class folders


def cifar10_dvs_files(folder: Path) -> Iterator[tuple[Path, int, bool]]:
    """(file, label, whether it is for testing) of CIFAR10-DVS, as its ten archives have them.

    The division is in cifar10_dvs_test.txt, the same for everybody.

    Raises:
      UserError: class folders or files are missing.
    """
    what = (
        "extract the ten archives of CIFAR10-DVS (doi.org/10.6084/m9.figshare.4724671) into it, or "
        "give the folder that they are in as --config.data.dir"
    )
    missing = [name for name in CIFAR10_DVS if not (folder / name).is_dir()]
    if missing:
        raise UserError(
            f"{folder} has {len(CIFAR10_DVS) - len(missing)} of the {len(CIFAR10_DVS)} class "
            f"folders of CIFAR10-DVS and lacks {', '.join(missing)}: {what}"
        )
    test = held_out()
    for label, name in enumerate(CIFAR10_DVS):
        there = {path.name for path in (folder / name).iterdir()}
        wanted = [f"cifar10_{name}_{number}.aedat" for number in range(RECORDINGS)]
        lacking = [file for file in wanted if file not in there]
        if lacking:
            raise UserError(
                f"the class folder {folder / name} holds {RECORDINGS - len(lacking)} of its "
                f"{RECORDINGS} .aedat files, and not {lacking[0]}, among {len(there)} files in "
                f"all: {what}"
            )
        yield from (
            (folder / name / file, label, number in test[name])
            for number, file in enumerate(wanted)
        )


def held_out() -> dict[str, set[int]]:
    """{class: numbers of its recordings that are for testing}, the published division."""
    text = resources.files("seenn_jax.data").joinpath("cifar10_dvs_test.txt").read_text()
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: set(map(int, numbers)) for name, *numbers in lines}


def read_recordings(
    files: list[tuple[Path, int, bool]], timesteps: int, *, skip_corrupt: bool
) -> Recordings:
    """Frames of the files of `cifar10_dvs_files`: counts in quarters of an event, 48 x 48 pixels.

    Raises:
      UserError: a file can't be read, and they are not to be skipped; tonic is not installed.
    """
    _check_tonic()
    frames = np.empty((len(files), timesteps, SIDE, SIDE, 2), np.uint8)
    kept, skipped = [], []
    for file, label, is_test in files:
        try:
            events = read_aedat(file)
        except UserError as error:
            if not skip_corrupt:
                raise
            _log.warning("left out: %s", error)
            skipped.append(f"{file.parent.name}/{file.name}")
            continue
        counts = UNITS * resize(to_frames(events, timesteps, _SENSOR), SIDE)
        frames[len(kept)] = np.minimum(np.rint(counts), 255)
        kept.append((label, is_test))
    labels, is_test = np.array(kept, np.int32).reshape(-1, 2).T
    return Recordings(frames[: len(kept)], labels, is_test.astype(bool), skipped)


def read_aedat(path: Path) -> Events:
    """The events of a DVS128 camera's AEDAT 2.0 file, upright, in the order of the file.

    A record is two big-endian 32-bit words, address and microseconds. Of an address bit 0 is 0 for
    ON, bits 1 to 7 and 8 to 14 count the sensor's two axes, both backwards and in CIFAR10-DVS with
    the camera on its side (so do SpikingJelly and events-tfds read it), and bit 15 marks what is
    no event of a pixel.

    Raises:
      UserError: it is no such file, has no events, an address outside the sensor, or ends in the
        middle of an event. One that was cut between two events can't be told from a whole one.
    """
    import tonic.io  # Slow to import, and not everybody has it.

    with path.open("rb") as file:
        if not _FIRST_LINE.fullmatch(file.readline()):
            raise _corrupt(path, "it does not begin with the line #!AER-DAT2.0")
        start = file.tell()
        while file.readline().startswith(b"#"):
            start = file.tell()
    size = path.stat().st_size - start
    if size % 8:
        raise _corrupt(path, f"it has {size:,} bytes of events of 8 bytes each, the last cut short")
    # Not tonic's read_dvs_128, which fails in 1.7.0 and turns neither the image nor the polarity;
    # nor its reading of headers, which takes one byte too many where there are no events.
    addresses = tonic.io.get_aer_events_from_file(path, 2.0, start)["address"].astype(np.int64)
    if np.any(addresses > 0xFFFF):
        raise _corrupt(path, f"it has the address {addresses.max()}, and a DVS128 none above 65535")
    addresses = addresses[addresses < 0x8000]
    if not addresses.size:
        raise _corrupt(path, "it has no events")
    last = _SENSOR - 1
    return Events(
        x=last - (addresses >> 8), y=last - ((addresses >> 1) & last), on=(addresses & 1) == 0
    )


def _corrupt(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} (class folder {path.parent.name!r}) is corrupt: {why}; extract it again, or leave "
        "such files out with --config.data.skip_corrupt=true"
    )


def _check_tonic() -> None:
    try:
        import tonic.io  # noqa: F401
    except ImportError as error:
        raise UserError(
            "AEDAT files are read by tonic, which is not installed: "
            "pip install -c requirements.lock -e '.[events]'"
        ) from error


# --- Digits before a simulated camera ------------------------------------------------------------

CAMERA_SIDE = 28
# Brightness is worked out, and a gaze moves, in whole steps, of which a pixel of the camera has 4
# and one of a digit 10; logarithms are rounded to thousandths. All in integers, so that every
# machine gets the same events.
_PER_PIXEL, _PER_DIGIT_PIXEL = 4, 10
_LOG_UNIT = 1000
_BACKGROUND = 255 * _PER_DIGIT_PIXEL**2 // 3  # a digit's brightest spot is 4 times as bright
_THRESHOLDS = (170, 230)  # of the change of log brightness, in its units; one for each pixel
_JITTER = 8  # steps, of the place where a digit lies
_REST = 8  # moments that the gaze rests, before ...
_LEG = 12  # ... three legs of so many, one step each: right, down, back
NOISE = 1500  # events of each recording that have no cause


def record(images: UInt8[np.ndarray, "N h w"], timesteps: int) -> UInt8[np.ndarray, "N T H W 2"]:
    """Frames of what a simulated event camera sees of small images while its gaze moves over them.

    Each pixel compares the logarithm of its brightness with what that was at its last event, and
    fires an event for each threshold that lies between. Thresholds differ from pixel to pixel; what
    pixels compare with at first, where an image lies, and the noise are drawn for each image, from
    one seed. While the gaze rests there is nothing but noise, a move to the right shows the upright
    edges, one downwards the level ones.

    Returns:
      counts of ON and OFF events, 28 x 28 pixels.
    """
    draw = _Draw(0)
    thresholds = draw(*_THRESHOLDS, CAMERA_SIDE, CAMERA_SIDE)
    brightness = _BACKGROUND + np.arange(255 * _PER_DIGIT_PIXEL**2 + 1)
    logarithm = np.rint(_LOG_UNIT * np.log(brightness)).astype(np.int32)
    places = draw(-_JITTER, _JITTER, 2, len(images))
    pixels = images.astype(np.float32)

    def look(move):
        down, right = (
            _overlaps(size, offset + step)
            for size, offset, step in zip(images.shape[1:], places, move, strict=True)
        )
        # Whole numbers far below 2^24: exact, in whatever order they are summed.
        return logarithm[(down @ pixels @ right.transpose(0, 2, 1)).astype(np.int32)]

    moves = _moves()
    reference = look(moves[0]) + draw(0, 1023, len(images), *thresholds.shape) * thresholds // 1024
    reference -= thresholds // 2
    noise = len(images) * NOISE
    packed = [
        _packed(
            np.repeat(np.arange(len(images)), NOISE),
            draw(0, len(moves) - 1, noise),
            draw(0, CAMERA_SIDE - 1, noise),
            draw(0, CAMERA_SIDE - 1, noise),
            draw(0, 1, noise),
            draw,
        )
    ]
    for moment, move in enumerate(moves):
        changes, reference = fire(look(move), reference, thresholds)
        fired = np.nonzero(changes)
        image, y, x = np.repeat(fired, np.abs(changes[fired]), axis=1)
        packed.append(_packed(image, moment, y, x, changes[image, y, x] > 0, draw))
    packed = np.sort(np.concatenate(packed))
    image, y, x, on = packed >> 37, packed >> 7 & 63, packed >> 1 & 63, packed & 1 == 1
    ends = np.searchsorted(image, np.arange(len(images) + 1))
    frames = np.empty((len(images), timesteps, CAMERA_SIDE, CAMERA_SIDE, 2), np.uint8)
    for index, (start, end) in enumerate(itertools.pairwise(ends)):
        events = Events(x[start:end], y[start:end], on[start:end])
        frames[index] = np.minimum(to_frames(events, timesteps, CAMERA_SIDE), 255)
    return frames


def fire(
    level: Int[np.ndarray, "*N H W"],
    reference: Int[np.ndarray, "*N H W"],
    thresholds: Int[np.ndarray, "H W"],
) -> tuple[Int[np.ndarray, "*N H W"], Int[np.ndarray, "*N H W"]]:
    """(events of each pixel, ON positive and OFF negative, its next reference), for a new level."""
    change = level - reference
    events = np.sign(change) * (np.abs(change) // thresholds)
    return events, reference + events * thresholds


class _Draw:
    """Whole numbers from low to high, by the raw words of PCG64, which no NumPy version changes."""

    def __init__(self, seed: int):
        self.bits = np.random.PCG64(seed)

    def __call__(self, low: int, high: int, *shape: int) -> Int[np.ndarray, "..."]:
        words = self.bits.random_raw(np.prod(shape)) >> np.uint64(32)
        return (low + (words * np.uint64(high - low + 1) >> np.uint64(32)).astype(int)).reshape(
            shape
        )


def _moves() -> list[tuple[int, int]]:
    """(down, right) of the gaze at each moment, in steps."""
    there, back = range(1, _LEG + 1), range(_LEG - 1, -1, -1)
    return [
        *[(0, 0)] * _REST,
        *((0, right) for right in there),
        *((down, _LEG) for down in there),
        *((step, step) for step in back),
    ]


def _overlaps(size: int, offset: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N side size"]:
    """Weights of an image's rows (or columns) at the camera's: interpolated, zero outside."""
    camera = _PER_PIXEL * np.arange(CAMERA_SIDE)
    image = _PER_DIGIT_PIXEL * np.arange(size)
    image += (camera[-1] - image[-1]) // 2
    apart = np.abs(camera[:, None] - (image - _LEG // 2 + offset[:, None, None]))
    return np.maximum(_PER_DIGIT_PIXEL - apart, 0).astype(np.float32)


def _packed(image, moment, y, x, on, draw) -> Int[np.ndarray, "E"]:
    """Events as numbers that sort by image, moment and, within one, at random."""
    order = draw(0, 2**16 - 1, len(image))
    return ((((image << 8 | moment) << 16 | order) << 6 | y) << 6 | x) << 1 | on
