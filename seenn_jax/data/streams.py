"""Image data sets too large for memory: decoded from disk as they are needed.

A TFDS data set such as imagenet2012, as `prepared` finds it, or a folder of class folders of image
files. Images of any size and colour become RGB of one size: a random part of them to train on
(`random_box`), the middle to evaluate (`central_box`). Pillow decodes them: at this size OpenCV is
hardly quicker, and it gives back a truncated JPEG as if it were whole.

To train, Grain shuffles, decodes and batches in worker processes. Batch k is a pure function of the
seed and k, whatever the number of workers: Grain's position is the training step, which is in every
checkpoint, and that is all it takes to resume in the middle of an epoch. To evaluate, threads
decode a stretch of a split at a time. NumPy only, no JAX.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from seenn_jax.data.folders import FOLDER, Source, open_folder, open_prepared
from seenn_jax.data.images import Corrupt, central_box, cores, decode, decoded, resized
from seenn_jax.data.sources import DATASETS
from seenn_jax.data.splits import Dataset, named, permutation
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)


class Stream:
    """A split of a streamed data set: a `splits.Split` whose `images` are read when indexed.

    Args:
      source: where its records are ...
      indices: ... and which of them.
      side: of the images, in pixels.
      skip_corrupt: leave out images that can't be read, which takes reading all of them once.
    """

    def __init__(
        self, source: Source, indices: Int64[np.ndarray, "n"], side: int, skip_corrupt: bool
    ):
        self.source, self.indices = source, indices
        self.side, self.skip_corrupt = side, skip_corrupt

    @property
    def size(self) -> int:
        """How many images there are, those that can't be read among them."""
        return len(self.indices)

    @cached_property
    def images(self) -> "Images":
        """All that can be read, as evaluation sees them."""
        if not self.skip_corrupt:
            return Images(self.source, self.indices, self.side)
        with ThreadPoolExecutor(cores()) as pool:
            errors = list(pool.map(self._error, self.indices.tolist()))
        bad = [error for error in errors if error]
        for error in bad:
            _log.warning("left out: %s", error)
        if bad:
            _log.warning("%d of %d images are corrupt and left out", len(bad), len(errors))
        good = self.indices[[error is None for error in errors]]
        return Images(self.source, good, self.side)

    @cached_property
    def labels(self) -> Int32[np.ndarray, "N"]:
        """The classes of `images`."""
        return self.source.labels(self.images.indices)

    def _error(self, index: int) -> str | None:
        try:
            decode(self.source[index])
        except Corrupt as error:
            return str(error)
        return None


class Images:
    """Images as an array [N, H, W, 3] of uint8, decoded when they are indexed."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, source: Source, indices: Int64[np.ndarray, "n"], side: int):
        self.indices = indices
        self.shape = (len(indices), side, side, 3)
        self._source = source

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which) -> UInt8[np.ndarray, "*n H W 3"]:
        chosen = self.indices[which].tolist()
        if isinstance(chosen, int):
            return self._image(chosen)
        with ThreadPoolExecutor(cores()) as pool:
            images = list(pool.map(self._image, chosen))
        return np.stack(images) if images else np.zeros((0, *self.shape[1:]), np.uint8)

    def _image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        image = decoded(self._source[index])
        side = self.shape[1]
        return resized(image, central_box(*image.size, side), side)


def load_streamed(
    name: str,
    *,
    side: int,
    data_dir: str | None = None,
    validation: int,
    skip_corrupt: bool = False,
) -> Dataset:
    """Open an image data set of which no image is read yet.

    Args:
      name: `folder:` and the path of a folder, or a TFDS name as for `sources.load_dataset`. In a
        folder there are `train` and one of `test`, `val`, `validation` (taken in this order), with
        the same class folders in both; or class folders, of whose images, in the order of a fixed
        permutation, every fifth is for testing. Images may lie deeper in a class folder; what
        begins with a dot, and files that are no images by their extension, are ignored.
      side: height and width that images are brought to.
      data_dir, validation: as for `sources.load_dataset`.
      skip_corrupt: leave out images that can't be read; they are named and counted in the log. In
        training, the next image takes the place of such a one.

    Returns:
      The data set; its splits are `Stream`s.

    Raises:
      UserError: no such data set or folder, one of other features, a class folder without an image,
        class folders that differ between train and test, `validation` out of range.
    """
    if name in DATASETS:
        raise UserError(
            f"`config.data.image_size` is {side} and {name!r} is not streamed: set "
            "`config.data.image_size`=0"
        )
    if name.startswith(FOLDER):
        pool, held_out, classes = open_folder(Path(name.removeprefix(FOLDER)).expanduser())
    else:
        pool, held_out, classes = open_prepared(name, data_dir)
    if not 1 <= validation < len(pool[1]):
        raise UserError(
            f"validation = {validation} is not possible: {name!r} has {len(pool[1])} training "
            f"images, so hold out 1 to {len(pool[1]) - 1} of them"
        )

    def stream(source, indices):
        return Stream(source, np.sort(indices), side, skip_corrupt)

    source, available = pool
    order = available[permutation(len(available), seed=0)]
    return Dataset(
        name=name,
        train=stream(source, order[validation:]),
        validation=stream(source, order[:validation]),
        test=stream(*held_out),
        **named(classes),
    )
