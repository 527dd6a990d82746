"""Digits before a simulated event camera. NumPy only, no JAX."""

import itertools

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from seenn_jax.data.events.frames import Binning, Events, Frames, to_frames

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


def record(images: UInt8[np.ndarray, "N h w"], timesteps: int) -> Shaped[np.ndarray, "N T H W 2"]:
    """Frames of what a simulated event camera sees of small images while its gaze moves over them.

    Each pixel compares the logarithm of its brightness with what that was at its last event, and
    fires an event for each threshold that lies between. Thresholds differ from pixel to pixel; what
    pixels compare with at first, where an image lies, and the noise are drawn for each image, from
    one seed. While the gaze rests there is nothing but noise, a move to the right shows the upright
    edges, one downwards the level ones.

    Returns:
      counts of ON and OFF events, 28 x 28 pixels, as `frames.Frames` has them.
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
    ordered = np.sort(np.concatenate(packed))
    image, y, x, on = ordered >> 37, ordered >> 7 & 63, ordered >> 1 & 63, ordered & 1 == 1
    ends = np.searchsorted(image, np.arange(len(images) + 1))
    shape = (timesteps, CAMERA_SIDE, CAMERA_SIDE, 2)
    frames, binning = Frames(len(images), shape, 1, False), Binning(timesteps)
    for start, end in itertools.pairwise(ends):
        events = Events(x[start:end], y[start:end], on[start:end])
        frames.add(to_frames(events, binning, CAMERA_SIDE, CAMERA_SIDE))
    return frames.array


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
