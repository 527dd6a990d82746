"""Image files of a user's own, as a network takes them. Pillow and NumPy only, no JAX."""

import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from seenn_jax.data.images import EXTENSIONS, Corrupt, cores, decode, identity, record_of
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)

Frame = Callable[[Image.Image], UInt8[np.ndarray, "H W C"]]


class Files:
    """Image files as an array [N, H, W, C] of uint8, decoded in threads when they are indexed.

    A file that can't be read is zeros; the log names it, and its number is in `unreadable`.

    Args:
      paths: of the files.
      frame: brings an image, in RGB, to the size and the colours of the others.
      image_shape: (height, width, channels) that it gives.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, paths: list[Path], frame: Frame, image_shape: tuple[int, int, int]):
        self.paths = paths
        self.shape = (len(paths), *image_shape)
        self.unreadable: set[int] = set()
        self._frame = frame

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: slice) -> UInt8[np.ndarray, "n H W C"]:
        with ThreadPoolExecutor(cores()) as pool:
            images = list(pool.map(self._image, range(len(self))[which]))
        return np.stack(images) if images else np.zeros((0, *self.shape[1:]), np.uint8)

    def _image(self, number: int) -> UInt8[np.ndarray, "H W C"]:
        path = self.paths[number]
        try:
            return self._frame(decode(record_of(path, 0, str(path))))
        except Corrupt as error:
            _log.warning("left out: %s", error)
            self.unreadable.add(number)
            return np.zeros(self.shape[1:], np.uint8)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The files that are named, and the images in the folders that are, however deep, sorted.

    A folder that two symlinks lead to counts once, and one that these lie in not at all. What
    begins with a dot is left out of folders.

    Raises:
      UserError: nothing is there, or a folder has no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(path)
            continue
        if not path.is_dir():
            raise UserError(
                f"{path} is no file and no folder: give image files ({', '.join(EXTENSIONS)}) or "
                "folders of them"
            )
        below = sorted(_below(path))
        if not below:
            raise UserError(
                f"the folder {path} has no image ({', '.join(EXTENSIONS)}): give another one"
            )
        found += below
    return found


def _below(root: Path) -> Iterable[Path]:
    been = set(map(identity, root.resolve().parents))
    for folder, below, names in os.walk(root, followlinks=True):
        here = identity(folder)
        if here in been:  # a symlink has led back
            below.clear()
            continue
        been.add(here)
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            is_image = name.lower().endswith(EXTENSIONS) and not name.startswith(".")
            if is_image and (path.is_file() or not path.exists()):  # a link that leads nowhere
                yield path


def fitted(image: Image.Image, image_shape: tuple[int, int, int]) -> UInt8[np.ndarray, "H W C"]:
    """An image as those of a data set in memory are: (height, width, 1 or 3).

    One of that size stays as it is. Of another one it is the largest part in the middle that has
    the shape, brought to the size.
    """
    height, width, channels = image_shape
    image = image.convert({1: "L", 3: "RGB"}[channels])
    if image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        across, down = min(image.width, width * scale), min(image.height, height * scale)
        left, top = (image.width - across) / 2, (image.height - down) / 2
        box = (left, top, image.width - left, image.height - top)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(image).reshape(image_shape)
