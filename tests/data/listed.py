"""Files in memory, as a source of a stream."""

import dataclasses
import itertools

import numpy as np

from seenn_jax.data import Stream
from seenn_jax.data.images import Framing, Record


@dataclasses.dataclass(frozen=True)
class Listed:
    """A source of files in memory; the label of each is its number."""

    files: list[bytes]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return Record(self.files[index], int(index), f"class/{index}.jpg")

    def labels(self, indices):
        return np.array(indices, np.int32)


def stream(source, *, side=8, skip_corrupt=False):
    return Stream(source, np.arange(len(source)), Framing(side), skip_corrupt)


def some(batches, count):
    """The first batches of an iterator, which is then closed."""
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()
