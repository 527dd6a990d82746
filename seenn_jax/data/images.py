"""One image file: decoded, cut and brought to a size. Pillow and NumPy only, no JAX."""

import io
import math
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from seenn_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Of ImageNet's pixels, and what networks for such images are commonly given.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZE = 256 / 224  # of the shorter side to that of the central crop
AREA = (0.08, 1.0)  # of a random crop, of the image
RATIO = (3 / 4, 4 / 3)  # of its width to its height


class Record(NamedTuple):
    """An image as it is on disk."""

    data: bytes
    label: int
    name: str  # with its class


class Corrupt(ValueError):
    """An image that can't be read; says which, and why."""


def decode(record: Record) -> Image.Image:
    """The image of a record in RGB; grey, CMYK and palettes are converted, transparency is dropped.

    Raises:
      Corrupt: it can't be read to its end, or has more than 8 bits a channel.
    """
    try:
        image = Image.open(io.BytesIO(record.data))
        if image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits a channel")
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = "it is empty or gone" if not record.data else error
        raise Corrupt(f"image {record.name} can't be read ({why})") from error


def decoded(record: Record) -> Image.Image:
    """As `decode`, with what a user can do about it as a UserError."""
    try:
        return decode(record)
    except Corrupt as error:
        raise UserError(
            f"{error}: replace it, or leave such images out with `config.data.skip_corrupt`=True"
        ) from None


Box = tuple[
    int | float, int | float, int | float, int | float
]  # left, top, right, bottom, in pixels of the image


def central_box(width: int, height: int, side: int) -> Box:
    """The middle square of an image whose shorter side is brought to `RESIZE` times `side`.

    Rounded as the usual resize to 256 and centre crop of 224 are (torchvision), and in pixels of
    the original, so that both are one step.
    """
    short = round(side * RESIZE)
    new = [max(short, int(length * short / min(width, height))) for length in (width, height)]
    left, top = (round((length - side) / 2) for length in new)
    across, down = width / new[0], height / new[1]
    return left * across, top * down, (left + side) * across, (top + side) * down


def random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """A random part of an image, of an area in `AREA` and a shape in `RATIO` (Szegedy et al. 2015).

    After ten that do not fit, the largest in the middle that has such a shape.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = (int(rng.integers(n + 1)) for n in (width - across, height - down))
            return left, top, left + across, top + down
    across = min(width, round(height * RATIO[1]))
    down = min(height, round(width / RATIO[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def resized(image: Image.Image, box: Box, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """A box of an image at `side` x `side` pixels; each weighs those near it linearly."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box))


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
