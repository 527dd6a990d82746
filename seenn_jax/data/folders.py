"""Where the images of a streamed data set lie: folders of class folders, or what TFDS prepared."""

import collections
import dataclasses
import logging
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64

from seenn_jax.data import prepared
from seenn_jax.data.images import EXTENSIONS, Record, identity, record_of
from seenn_jax.data.splits import permutation
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
FOLDER = "folder:"
_PATHS = ("/", "./", "../", "~")  # how the name of a data set begins that is a path


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
        return record_of(Path(self.root, name), label, name)

    def labels(self, indices: Int64[np.ndarray, "n"]) -> Int32[np.ndarray, "n"]:
        """The classes of these files."""
        return np.array([self.files[index][1] for index in indices], np.int32)


_Part = tuple[Source, Int64[np.ndarray, "_"]]  # a source, and which of its records


def open_prepared(name: str, data_dir: str | None) -> tuple[_Part, _Part, list[str]]:
    """(training part, test part, classes) of a data set that TFDS prepared."""
    folder = prepared.prepared_folder(name, data_dir)
    (train, test), classes, _ = prepared.open_records(name, folder, data_dir)
    return (train, np.arange(len(train))), (test, np.arange(len(test))), classes


def path_of(name: str, data_dir: str | None) -> Path | None:
    """The folder that is meant by the name of a data set, None where it is no folder's.

    One is meant by `folder:PATH`, and by a path that begins as one, or is there and not the name of
    a data set that TFDS prepared.
    """
    path = Path(name.removeprefix(FOLDER)).expanduser()
    if name.startswith((FOLDER, *_PATHS)):
        return path
    root = Path(data_dir).expanduser() if data_dir else prepared.default_root()
    return path if name and path.is_dir() and prepared.newest(root / name) is None else None


def open_folder(root: Path) -> tuple[_Part, _Part, list[str]]:
    """(training part, test part, classes) of a folder; see `streams.load_streamed`."""
    if not root.is_dir():
        raise UserError(
            f"`config.data.name` is '{root}' and there is no such folder: give the path of one "
            "with a folder of images for each class"
        )
    left_out: collections.Counter[str] = collections.Counter()
    parts = _parts(root, left_out)
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common(5))
        _log.warning(
            "%s: left out %d files that are no images by their kind (%s; images are %s)",
            root,
            left_out.total(),
            kinds,
            ", ".join(EXTENSIONS),
        )
    return parts


def _parts(root: Path, left_out: collections.Counter[str]) -> tuple[_Part, _Part, list[str]]:
    below = _folders(root)
    test = next((name for name in ("test", "val", "validation") if name in below), None)
    if below == ["train"]:
        raise UserError(
            f"{root} has train and none of test, val and validation: add one with the same class "
            f"folders, or give {root}/train itself, of whose images every fifth is then for testing"
        )
    if "train" in below and test:
        parts = [_class_folders(root / name, left_out) for name in ("train", test)]
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
    by_class = _class_folders(root, left_out)
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


def _class_folders(root: Path, left_out: collections.Counter[str]) -> dict[str, list[str]]:
    """{class: the paths of its images below `root`, in order}; the others are counted."""
    found = {}
    for name in _folders(root):
        files = sorted(_images(root, name, left_out))
        if not files:
            raise UserError(
                f"class folder {root / name} has no image ({', '.join(EXTENSIONS)}): put some into "
                "it, or delete it"
            )
        found[name] = files
    if not found:
        raise UserError(
            f"{root} has no class folders: put the images of each class into a folder of its own "
            "there"
        )
    return found


def _images(root: Path, name: str, left_out: collections.Counter[str]) -> list[str]:
    """Paths below `root` of the images in a folder there, however deep and behind symlinks."""
    found: list[str] = []
    top = root.resolve()
    # A folder, and those that it lies in.
    ahead: list[tuple[str, tuple]] = [(name, tuple(map(identity, (top, *top.parents))))]
    while ahead:
        folder, above = ahead.pop()
        here = identity(root / folder)
        if here in above:
            _log.warning("left out: %s leads back to a folder that it lies in", root / folder)
            continue
        with os.scandir(root / folder) as entries:
            for entry in (each for each in entries if not each.name.startswith(".")):
                path, link = f"{folder}/{entry.name}", entry.is_symlink()
                if os.path.isdir(entry.path) if link else entry.is_dir():
                    ahead.append((path, (*above, here)))
                elif not (os.path.isfile(entry.path) if link else entry.is_file()):
                    left_out["no regular file"] += 1  # a pipe would be read without an end
                elif path.lower().endswith(EXTENSIONS):
                    found.append(path)
                else:
                    left_out[Path(path).suffix.lower() or "without an extension"] += 1
    return found


def _files(by_class: dict[str, list[str]]) -> list[tuple[str, int]]:
    return [(file, label) for label, files in enumerate(by_class.values()) for file in files]
