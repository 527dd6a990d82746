"""One image file: decoded, cut and brought to a size. Pillow and NumPy only, no JAX."""

import io
import math
import os
import re
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from seenn_jax.errors import UserError, raise_passing

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
MOST_BYTES = 2**29  # of a file: more than so many pixels take
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What is said of too many pixels is said here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_PNG = b"\x89PNG\r\n\x1a\n"
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
    problem: str = ""  # why it could not be read, if it could not


class Corrupt(ValueError):
    """An image that can't be read; says which, and why."""


def corrupt(record: Record, problem: str) -> Corrupt:
    """What is said of a record that can't be read for such a reason."""
    return Corrupt(f"image {record.name} can't be read ({problem})")


def to_user(error: Corrupt) -> UserError:
    """The same, with what a user can do about it."""
    return UserError(
        f"{error}: replace it, or leave such images out with `config.data.skip_corrupt`=True"
    )


def why(error: Exception) -> str:
    """What an error of another package says, in a line, without the addresses of objects."""
    text = " ".join(str(error).split())
    return re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", text) or type(error).__name__


def content(path: Path) -> bytes:
    """The bytes of a file that may be an image.

    Raises:
      OSError: it can't be read.
      ValueError: it is no regular file (a pipe has no end), or of more than `MOST_BYTES`.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no regular file")
        if about.st_size > MOST_BYTES:
            raise ValueError(f"it has {about.st_size:,} bytes, more than {MOST_BYTES:,}")
        return file.read()


def record_of(path: Path, label: int, name: str) -> Record:
    """The image in a file; one that can't be read has a `problem`."""
    try:
        return Record(content(path), label, name)
    except OSError as error:
        raise_passing(error)
        return Record(b"", label, name, error.strerror or str(error))
    except ValueError as error:
        return Record(b"", label, name, str(error))


def decode(record: Record, mode: str = "RGB", most_pixels: int | None = None) -> Image.Image:
    """The image of a record, upright by its EXIF orientation.

    Grey, CMYK and palettes are converted to `mode`, transparency is dropped where that has none.

    Raises:
      Corrupt: it can't be read to its end, is of another format than `FORMATS`, of more than
        `most_pixels` (None: `MOST_PIXELS`), or has more than 8 bits a channel.
    """
    most_pixels = MOST_PIXELS if most_pixels is None else most_pixels
    try:
        if record.problem:
            raise ValueError(record.problem)
        _check_png(record.data)
        image = Image.open(io.BytesIO(record.data), formats=FORMATS)
        if image.width * image.height > most_pixels:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels, more than {most_pixels:,}"
            )
        image.load()  # to the end, where some formats have their tags
        turn = _TURNS.get(_orientation(image))
        if image.mode != mode:
            if mode != "RGBA":
                image.info.pop("transparency", None)
            image = image.convert(mode)
        return image if turn is None else image.transpose(turn)
    except UnidentifiedImageError as error:
        problem = f"it is no {', '.join(FORMATS)}" if record.data else "it is empty"
        raise corrupt(record, problem) from error
    except _BOMBS as error:
        raise corrupt(record, f"it has more than {MOST_PIXELS:,} pixels") from error
    except Exception as error:  # of any kind: Pillow's decoders meet what nobody thought of
        raise corrupt(record, why(error)) from error


def _check_png(data: bytes) -> None:
    """Raise a ValueError for a PNG of more than 8 bits a channel, or with damaged chunks.

    Pillow cuts the former to 8 bits where they are colours, and sees few of the latter.
    """
    if not data.startswith(_PNG):
        return
    place = len(_PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if kind == b"IHDR" and data[place + 16] > 8:
            raise ValueError("it has more than 8 bits a channel")
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("a checksum in it is wrong")
        if kind == b"IEND":
            return
        place = end + 4
    raise ValueError("it is cut short")


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
        raise to_user(error) from None


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
