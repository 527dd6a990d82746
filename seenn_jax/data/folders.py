"""Where the images of a streamed data set lie: folders of class folders, or what TFDS prepared."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64

from seenn_jax.data import prepared
from seenn_jax.data.images import EXTENSIONS, Record
from seenn_jax.data.splits import permutation
from seenn_jax.errors import UserError

FOLDER = "folder:"


@runtime_checkable
class Source(Protocol):
    """Records by number. It can be pickled."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def labels(self, indices: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        """Their classes, without decoding an image."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """The images of class folders."""

    root: Path
    files: list[tuple[str, int]]  # path below the root, class

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        name, label = self.files[index]
        try:
            data = Path(self.root, name).read_bytes()
        except OSError:
            data = b""  # which is no image: as bad as a damaged one
        return Record(data, label, name)

    def labels(self, indices: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        """The classes of these files."""
        return np.array([self.files[index][1] for index in indices], np.int32)


class Prepared:
    """The images of a split of a TFDS data set, encoded."""

    def __init__(self, name: str, records: Any, classes: list[str]):
        self.name = name
        self._records = records
        self._classes = classes

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._records[index]
        label = self._label(record)
        file = record.get("file_name", f"number {index}".encode()).decode()
        return Record(record["image"], label, f"{self._classes[label]}/{file}")

    def labels(self, indices: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        """The classes of these records, which must be read for it."""
        chunks = np.array_split(indices, len(indices) // 1000 + 1)
        found = (self._records.__getitems__(chunk.tolist()) for chunk in chunks if len(chunk))
        return np.array([self._label(record) for chunk in found for record in chunk], np.int32)

    def _label(self, record: dict) -> int:
        if record["label"] < 0:
            raise prepared.unlabelled(self.name)
        return int(record["label"])


_Part = tuple[Source, Int64[np.ndarray, "_"]]  # a source, and which of its records


def open_prepared(name: str, data_dir: str | None) -> tuple[_Part, _Part, list[str]]:
    """(training part, test part, classes) of a data set that TFDS prepared."""
    folder = prepared.prepared_folder(name, data_dir)
    builder = prepared.open_builder(name, folder, data_dir)
    import tensorflow_datasets as tfds

    classes = builder.info.features["label"].names
    encoded = {"image": tfds.decode.SkipDecoding()}
    splits = prepared.labelled_splits(name, builder, encoded)
    train, test = (Prepared(name, records, classes) for records in splits)
    return (train, np.arange(len(train))), (test, np.arange(len(test))), classes


def open_folder(root: Path) -> tuple[_Part, _Part, list[str]]:
    """(training part, test part, classes) of a folder; see `streams.load_streamed`."""
    if not root.is_dir():
        raise UserError(
            f"`config.data.name` is '{FOLDER}{root}' and there is no such folder: give the path of "
            "one with a folder of images for each class"
        )
    below = _folders(root)
    test = next((name for name in ("test", "val", "validation") if name in below), None)
    if "train" in below and test:
        parts = [_class_folders(root / name) for name in ("train", test)]
        classes, others = (list(part) for part in parts)
        if classes != others:
            odd = sorted(set(classes) ^ set(others))[0]
            raise UserError(
                f"{root}/train and {root}/{test} must have the same class folders, and {odd!r} is "
                "in one of them only: add it to the other, or delete it"
            )
        train, held_out = (
            Folder(root / name, _files(part))
            for name, part in zip(("train", test), parts, strict=True)
        )
        train_part, test_part = ((part, np.arange(len(part))) for part in (train, held_out))
        return train_part, test_part, classes
    by_class = _class_folders(root)
    all_files = Folder(root, _files(by_class))
    is_test, start = np.zeros(len(all_files), bool), 0
    for files in by_class.values():
        is_test[start + permutation(len(files), seed=0)[::5]] = True
        start += len(files)
    return (
        (all_files, np.flatnonzero(~is_test)),
        (all_files, np.flatnonzero(is_test)),
        list(by_class),
    )


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_folders(root: Path) -> dict[str, list[str]]:
    """{class: the paths of its images below `root`, in order}."""
    found = {}
    for name in _folders(root):
        files = [
            os.path.relpath(os.path.join(folder, file), root)
            for folder, _, names in os.walk(root / name)
            for file in names
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        ]
        if not files:
            raise UserError(
                f"class folder {root / name} has no image ({', '.join(EXTENSIONS)}): put some into "
                "it, or delete it"
            )
        found[name] = sorted(files)
    if not found:
        raise UserError(
            f"{root} has no class folders: put the images of each class into a folder of its own "
            "there"
        )
    return found


def _files(by_class: dict[str, list[str]]) -> list[tuple[str, int]]:
    return [(file, label) for label, files in enumerate(by_class.values()) for file in files]
