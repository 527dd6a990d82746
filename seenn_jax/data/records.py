"""Records of a split that TFDS prepared; damaged ones are told from whole ones."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from seenn_jax.data.images import Record, corrupt, to_user, why
from seenn_jax.errors import UserError, raise_passing

_CHUNK = 1000  # records read at once: far quicker than one by one


class Records:
    """The images of a split of a TFDS data set, encoded. It can be pickled.

    A record that can't be read is an image with a `problem`.

    Args:
      name: of the data set.
      source: TFDS's data source of the split, which does not decode images.
      classes: their names.
    """

    def __init__(self, name: str, source: Any, classes: list[str]):
        self.name = name
        self._source, self._classes = source, classes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        try:
            return self._record(index, self._source[index])
        except UserError:
            raise
        except Exception as error:  # of any kind, where a file is damaged
            raise_passing(error)
            return Record(b"", 0, f"number {index} of {self.name!r}", why(error))

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), _CHUNK):
            yield from self.some(range(start, min(start + _CHUNK, len(self))))

    def some(self, numbers: Iterable[int]) -> list[Record]:
        """Records of these numbers, in order."""
        numbers = list(numbers)
        try:
            found = self._source.__getitems__(numbers)
            return [self._record(*each) for each in zip(numbers, found, strict=True)]
        except UserError:
            raise
        except Exception as error:  # as above; which one it is shows when each is read alone
            raise_passing(error)
            return [self[index] for index in numbers]

    def labels(self, indices: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        """The classes of these records, which must be read for it.

        Raises:
          UserError: one can't be read.
        """
        found = []
        for chunk in np.array_split(indices, len(indices) // _CHUNK + 1):
            for record in self.some(chunk.tolist()):
                if record.problem:
                    raise to_user(corrupt(record, record.problem))
                found.append(record.label)
        return np.array(found, np.int32)

    def is_labelled(self) -> bool:
        """Whether there are records, of which the first that can be read has a label."""
        with contextlib.suppress(UserError):
            any(not self[index].problem for index in range(len(self)))
            return len(self) > 0
        return False

    def _record(self, index: int, record: dict) -> Record:
        label, count = int(record["label"]), len(self._classes)
        if label < 0:
            raise UserError(
                f"data set {self.name!r} has images without a label (-1): choose one that is fully "
                "labelled"
            )
        if label >= count:
            raise ValueError(f"its label is {label}, and there are {count} classes from 0")
        file = record.get("file_name", f"number {index}".encode()).decode()
        return Record(record["image"], label, f"{self._classes[label]}/{file}")
