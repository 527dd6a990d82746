"""One image file: decoded, cut and brought to a size. Pillow and NumPy only, no JAX."""

import io
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from seenn_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Of ImageNet's pixels, and what networks for such images are commonly given.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZE = 256 / 224  # of the shorter side to that of the central crop
AREA = (0.08, 1.0)  # of a random crop, of the image
RATIO = (3 / 4, 4 / 3)  # of its width to its height
INTERPOLATIONS = {
    name: Image.Resampling[name.upper()]
    for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # some of Pillow's others start programs
MOST_PIXELS = 100_000_000
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_TURN = Image.Transpose
# What puts an image of each EXIF orientation upright, as ImageOps.exif_transpose does, which fails
# where other tags are damaged.
_TURNS = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_270,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_90,
}


class Record(NamedTuple):
    """An image as it is on disk."""

    data: bytes
    label: int
    name: str  # with its class


class Corrupt(ValueError):
    """An image that can't be read; says which, and why."""


def decode(record: Record) -> Image.Image:
    """The image of a record in RGB, upright by its EXIF orientation.

    Grey, CMYK and palettes are converted, transparency is dropped.

    Raises:
      Corrupt: it can't be read to its end, is of another format than `FORMATS`, of more than
        `MOST_PIXELS`, or has more than 8 bits a channel.
    """
    try:
        image = Image.open(io.BytesIO(record.data), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}"
            )
        if image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits a channel")
        image.load()  # to the end, where some formats have their tags
        turn = _TURNS.get(_orientation(image))
        image = image.convert("RGB")
        return image if turn is None else image.transpose(turn)
    except UnidentifiedImageError as error:
        why = f"it is no {', '.join(FORMATS)}" if record.data else "it is empty or gone"
        raise Corrupt(f"image {record.name} can't be read ({why})") from error
    except (OSError, SyntaxError, ValueError, *_BOMBS) as error:
        raise Corrupt(f"image {record.name} can't be read ({error})") from error


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of any kind: damaged tags don't make a picture unreadable
        return 1


def decoded(record: Record) -> Image.Image:
    """As `decode`, with what a user can do about it as a UserError."""
    try:
        return decode(record)
    except Corrupt as error:
        raise UserError(
            f"{error}: replace it, or leave such images out with `config.data.skip_corrupt`=True"
        ) from None


Range = tuple[int | float, int | float]  # the smallest and the largest
Box = tuple[
    int | float, int | float, int | float, int | float
]  # left, top, right, bottom, in pixels of the image


def central_box(width: int, height: int, side: int, resize: int | float = RESIZE) -> Box:
    """The middle square of an image whose shorter side is brought to `resize` times `side`.

    Rounded as the usual resize to 256 and centre crop of 224 are (torchvision), and in pixels of
    the original, so that both are one step.
    """
    short = round(side * resize)
    new = [max(short, int(length * short / min(width, height))) for length in (width, height)]
    left, top = (round((length - side) / 2) for length in new)
    across, down = width / new[0], height / new[1]
    return left * across, top * down, (left + side) * across, (top + side) * down


def random_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    area: Range = AREA,
    ratio: Range = RATIO,
) -> Box:
    """A random part of an image, of an area and a shape in these ranges (Szegedy et al. 2015).

    After ten that do not fit, the largest in the middle that has such a shape.
    """
    for _ in range(10):
        pixels = width * height * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        across, down = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < across <= width and 0 < down <= height:
            left, top = (int(rng.integers(n + 1)) for n in (width - across, height - down))
            return left, top, left + across, top + down
    across = min(width, max(1, round(height * ratio[1])))
    down = min(height, max(1, round(width / ratio[0])))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def resized(
    image: Image.Image, box: Box, side: int, interpolation: str = "bilinear"
) -> UInt8[np.ndarray, "H W 3"]:
    """A box of an image at `side` x `side` pixels, by one of `INTERPOLATIONS`.

    Each pixel weighs those near it, linearly if nothing is said.
    """
    return np.asarray(image.resize((side, side), INTERPOLATIONS[interpolation], box))


class Framing(NamedTuple):
    """How images of any size are brought to one.

    Attributes:
      side: of the squares that they become, in pixels.
      area, ratio: of random parts, see `random_box`.
      resize: of the shorter side to that of the middle, see `central_box`.
      interpolation: a key of `INTERPOLATIONS`.
    """

    side: int
    area: Range = AREA
    ratio: Range = RATIO
    resize: int | float = RESIZE
    interpolation: str = "bilinear"

    def middle(self, image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
        """What evaluation sees of an image."""
        return self._cut(image, central_box(*image.size, self.side, self.resize))

    def part(self, image: Image.Image, rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """What training sees of it, another part each time."""
        return self._cut(image, random_box(rng, *image.size, self.area, self.ratio))

    def _cut(self, image: Image.Image, box: Box) -> UInt8[np.ndarray, "H W 3"]:
        return resized(image, box, self.side, self.interpolation)


def identity(folder: Path | str) -> tuple[int, int]:
    """What a folder is known by, by whatever path."""
    there = os.stat(folder)
    return there.st_dev, there.st_ino


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
