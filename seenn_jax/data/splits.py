"""Splits of a data set in memory, and how images are held out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8, UInt16

from seenn_jax.errors import UserError
from seenn_jax.tables import check_given


class Split(NamedTuple):
    """Images and their classes, 0 <= label < num_classes.

    Event data has an axis for time, [N, T, H, W, C]: a frame of event counts for each timestep, of
    uint16 where a byte does not hold them.
    """

    images: UInt8[np.ndarray, "N *T H W C"] | UInt16[np.ndarray, "N T H W C"]
    labels: Int32[np.ndarray, "N"]

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.labels)


class Dataset(NamedTuple):
    """Three disjoint splits: train to fit, validation to choose, test to report.

    Where it is streamed they are `streams.Stream`s, which are used alike.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    classes: tuple[str, ...] = ()  # their names, where they have any


# Training images, test images, and the names of the classes or how many there are.
Loaded = tuple[Split, Split, int | Sequence[str]]


def named(classes: int | Sequence[str]) -> dict:
    """Fields of a `Dataset` of classes that are given by name, or only counted."""
    if isinstance(classes, int):
        return {"num_classes": classes}
    return {"num_classes": len(classes), "classes": tuple(classes)}


def check_loaded(what: str, loaded: Any) -> None:
    """Raise a UserError for what is no `Loaded`."""

    def good(found):
        *splits, classes = found
        names = named(classes).get("classes", ())
        fine = len(splits) == 2 and all(isinstance(name, str) for name in names)
        return fine and all(
            isinstance(part, np.ndarray)
            for split in splits
            for part in (split.images, split.labels)
        )

    wanted = (
        "(training images, test images, classes), the images as seenn_jax.Split, the classes by "
        "name or how many they are"
    )
    check_given(what, loaded, good, wanted)
    train, test, classes = loaded
    count = named(classes)["num_classes"]
    for title, (images, labels) in (("training", train), ("test", test)):
        fine = (
            images.ndim in (4, 5)
            and images.dtype.name in ("uint8", *(("uint16",) if images.ndim == 5 else ()))
            and images.shape[1:] == train.images.shape[1:]
            and labels.shape == images.shape[:1]
            and labels.dtype.kind in "iu"
            and (not labels.size or 0 <= labels.min() <= labels.max() < count)
        )
        check_given(
            f"{what}, to its {title} split,",
            (images, labels),
            lambda _, fine=fine: fine,
            f"uint8 images [N, H, W, C] of one size, and to each a label from 0 to {count - 1}",
        )


def held_out(validation: int | float, name: str, available: int) -> int:
    """How many of so many training images `validation` is: a number, or a fraction below 1.

    Raises:
      UserError: none, all or more of them.
    """
    count = round(validation * available) if validation < 1 else validation
    if not 1 <= count < available:
        raise UserError(
            f"`config.data.validation` = {validation} is not possible: {name!r} has {available} "
            f"training images, so hold out 1 to {available - 1} of them, or a fraction "
            "of them below 1"
        )
    return int(count)


def take(split: Split, indices: Int64[np.ndarray, "n"]) -> Split:
    """The samples number `indices`, in the stored order."""
    indices = np.sort(indices)
    return Split(split.images[indices], split.labels[indices])


def permutation(n: int, seed: int) -> Int64[np.ndarray, "{n}"]:
    """A permutation that no NumPy version will change.

    NumPy promises a stable stream for a bit generator's raw words, not for Generator.permutation
    (NEP 19).
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")
