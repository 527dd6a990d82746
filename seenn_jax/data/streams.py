"""Image data sets too large for memory: decoded from disk as they are needed.

A TFDS data set such as imagenet2012, as `prepared` finds it, or a folder of class folders of image
files. Images of any size and colour become RGB of one size: a random part of them to train on, the
middle to evaluate (`images.Framing`). Pillow decodes them: at this size OpenCV is hardly quicker,
and it gives back a truncated JPEG as if it were whole.

To train, Grain shuffles, decodes and batches in worker processes. Batch k is a pure function of the
seed and k, whatever the number of workers: Grain's position is the training step, which is in every
checkpoint, and that is all it takes to resume in the middle of an epoch. To evaluate, threads
decode a stretch of a split at a time. NumPy only, no JAX.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from seenn_jax.data.cifar import CIFARS
from seenn_jax.data.folders import Source, open_folder, open_prepared, path_of
from seenn_jax.data.images import Corrupt, Framing, cores, decode, decoded
from seenn_jax.data.sources import DATASETS
from seenn_jax.data.splits import Dataset, held_out, named, permutation
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)


class Stream:
    """A split of a streamed data set: a `splits.Split` whose `images` are read when indexed.

    Args:
      source: where its records are ...
      indices: ... and which of them.
      framing: how they are brought to one size.
      skip_corrupt: leave out images that can't be read, which takes reading all of them once.
    """

    def __init__(
        self, source: Source, indices: Int64[np.ndarray, "n"], framing: Framing, skip_corrupt: bool
    ):
        self.source, self.indices = source, indices
        self.framing, self.skip_corrupt = framing, skip_corrupt

    @property
    def side(self) -> int:
        """Height and width of the images, in pixels."""
        return self.framing.side

    @property
    def size(self) -> int:
        """How many images there are, those that can't be read among them."""
        return len(self.indices)

    @cached_property
    def images(self) -> "Images":
        """All that can be read, as evaluation sees them."""
        if not self.skip_corrupt:
            return Images(self.source, self.indices, self.framing)
        with ThreadPoolExecutor(cores()) as pool:
            errors = list(pool.map(self._error, self.indices.tolist()))
        bad = [error for error in errors if error]
        for error in bad:
            _log.warning("left out: %s", error)
        if bad:
            _log.warning("%d of %d images are corrupt and left out", len(bad), len(errors))
        good = self.indices[[error is None for error in errors]]
        return Images(self.source, good, self.framing)

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

    def __init__(self, source: Source, indices: Int64[np.ndarray, "n"], framing: Framing):
        self.indices = indices
        self.shape = (len(indices), framing.side, framing.side, 3)
        self._source, self._framing = source, framing

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
        return self._framing.middle(decoded(self._source[index]))


def load_streamed(
    name: str,
    *,
    framing: Framing,
    data_dir: str | None = None,
    validation: int | float,
    train_on_validation: bool = False,
    skip_corrupt: bool = False,
) -> Dataset:
    """Open an image data set of which no image is read yet.

    Args:
      name: a folder, as a path or `folder:` and a path (`folders.path_of`), or a TFDS name as for
        `sources.load_dataset`. In a folder there are `train` and one of `test`, `val`, `validation`
        (taken in this order), with the same class folders in both; or class folders, of whose
        images, in the order of a fixed permutation, every fifth is for testing. Images may lie
        deeper in a class folder, and behind symlinks; what begins with a dot is ignored, files that
        are no images by their extension are left out and counted in the log.
      framing: how images are brought to one size.
      data_dir, validation, train_on_validation: as for `sources.load_dataset`.
      skip_corrupt: leave out images that can't be read; they are named and counted in the log. In
        training, the next image takes the place of such a one.

    Returns:
      The data set; its splits are `Stream`s.

    Raises:
      UserError: no such data set or folder, one of other features, a class folder without an image,
        class folders that differ between train and test, `validation` out of range.
    """
    if name in DATASETS and name not in CIFARS:  # which TFDS may have prepared too
        raise UserError(
            f"`config.data.image_size` is {framing.side} and {name!r} is not streamed: set "
            "`config.data.image_size`=0"
        )
    folder = None if name in DATASETS else path_of(name, data_dir)
    if folder:
        (source, available), test, classes = open_folder(folder)
    else:
        (source, available), test, classes = open_prepared(name, data_dir)
    count = held_out(validation, name, len(available))

    def stream(source, indices):
        return Stream(source, np.sort(indices), framing, skip_corrupt)

    order = available[permutation(len(available), seed=0)]
    return Dataset(
        name=name,
        train=stream(source, order[0 if train_on_validation else count :]),
        validation=stream(source, order[:count]),
        test=stream(*test),
        **named(classes),
    )
