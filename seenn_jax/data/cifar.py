"""CIFAR-10 and CIFAR-100 in whatever form they are there: TFDS's, or their official archives.

These have the same images in different orders. They are brought into one that depends on the images
alone, so that the same pixels give the same run whichever way they came. NumPy only, no JAX.
"""

import functools
import gzip
import hashlib
import logging
import pickle
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from seenn_jax.data import pickles, prepared
from seenn_jax.data.cache import cache_folder, cache_root, read_cache, write_cache
from seenn_jax.data.download import download as fetch
from seenn_jax.data.splits import Loaded, Split
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
HOME = "https://www.cs.toronto.edu/~kriz/"
_SIDE, _PIXELS = 32, 3 * 32 * 32

# (pixels, red, green and blue apart; labels) of a file; a ValueError says what is wrong with it.
_Rows = tuple[UInt8[np.ndarray, "N D"], Sequence[int] | np.ndarray]


class Form(NamedTuple):
    """A form in which a data set is published."""

    archive: str
    folder: str  # what it unpacks to
    train: tuple[str, ...]  # files there
    test: str
    names: str  # the file with the names of the classes
    read: Callable[[bytes], _Rows]
    read_names: Callable[[bytes], list[str]]


class Official(NamedTuple):
    """A data set as its home page has it; the archive of `forms[-1]` is what is fetched."""

    classes: int
    forms: tuple[Form, ...]
    md5: str  # of that archive


# --- Files ---------------------------------------------------------------------------------------


def _pickled(labels: str) -> Callable[[bytes], _Rows]:
    """Reads a batch of the "python version"."""

    def read(data):
        content = pickles.load(data)
        pixels, found = content.get("data"), content.get(labels)
        if not (isinstance(pixels, np.ndarray) and pixels.ndim == 2 and isinstance(found, list)):
            raise ValueError(f"it has no array 'data' and list {labels!r}")
        if not all(isinstance(label, int) for label in found):
            raise ValueError("it has labels that are no integers")
        return pixels, found

    return read


def _pickled_names(key: str) -> Callable[[bytes], list[str]]:
    def read(data):
        found = pickles.load(data).get(key)
        if not isinstance(found, list):
            raise ValueError(f"it has no list {key!r}")
        return [pickles.text(name) for name in found]

    return read


def _binary(before: int) -> Callable[[bytes], _Rows]:
    """Reads a batch of the "binary version", of so many bytes before each image, the label last."""

    def read(data):
        size = before + _PIXELS
        if len(data) % size:
            raise ValueError(f"it has {len(data):,} bytes, which is no multiple of {size:,}")
        rows = np.frombuffer(data, np.uint8).reshape(-1, size)
        return rows[:, before:], rows[:, before - 1]

    return read


def _lines(data: bytes) -> list[str]:
    return data.decode("ascii", "replace").split()


CIFARS = {
    "cifar10": Official(
        10,
        (
            Form(
                "cifar-10-python.tar.gz",
                "cifar-10-batches-py",
                tuple(f"data_batch_{i}" for i in range(1, 6)),
                "test_batch",
                "batches.meta",
                _pickled("labels"),
                _pickled_names("label_names"),
            ),
            Form(
                "cifar-10-binary.tar.gz",
                "cifar-10-batches-bin",
                tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
                "test_batch.bin",
                "batches.meta.txt",
                _binary(1),
                _lines,
            ),
        ),
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar100": Official(
        100,
        (
            Form(
                "cifar-100-python.tar.gz",
                "cifar-100-python",
                ("train",),
                "test",
                "meta",
                _pickled("fine_labels"),
                _pickled_names("fine_label_names"),
            ),
            Form(
                "cifar-100-binary.tar.gz",
                "cifar-100-binary",
                ("train.bin",),
                "test.bin",
                "fine_label_names.txt",
                _binary(2),  # the coarse label and the fine one
                _lines,
            ),
        ),
        "03b5dce01913d631647c71ecec9e9cb8",
    ),
}


# --- Data sets -----------------------------------------------------------------------------------


def load(name: str, *, data_dir: str | None, download: bool, skip_corrupt: bool = False) -> Loaded:
    """The (train, test) images of a key of `CIFARS`, in an order of their own, and its classes.

    They are kept in the user's cache folder. What is read is the first that is there in `data_dir`,
    the data folder and the cache folder: in each, what TFDS prepared as array_record, and of each
    form of `CIFARS` the archive and the folder that it unpacks to.

    Args:
      data_dir: None for the data folder, `prepared.default_root`. May be the archive or its folder
        itself.
      download: fetch the archive to the cache folder where there is none of them.
      skip_corrupt: leave out records of TFDS's that can't be read; an archive is whole or an error.

    Raises:
      UserError: there is none; it is damaged; it can't be fetched.
    """
    path, read = find(name, data_dir, skip_corrupt) or _fetched(name, data_dir, download)
    files = path.iterdir() if path.is_dir() else [path]
    cache = cache_folder(path, files, (name, "by content"))
    loaded = read_cache(cache)
    if loaded is None:
        _log.info("decoding %s from %s, once", name, path)
        train, test, classes, skipped = read()
        loaded = by_content(train), by_content(test), classes
        if not skipped:
            write_cache(cache, *loaded)
    return loaded


def by_content(split: Split) -> Split:
    """The images in the order of a digest of their pixels and label, whatever order they had."""
    digests = [
        hashlib.sha256(int(label).to_bytes(4, "big") + image.tobytes()).digest()
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    order = np.array(sorted(range(len(digests)), key=digests.__getitem__), int)
    return Split(split.images[order], split.labels[order])


# Where it is, and what reads it: train, test, classes, how many were left out.
_Found = tuple[Path, Callable[[], tuple[Split, Split, list[str], int]]]


def find(name: str, data_dir: str | None, skip_corrupt: bool = False) -> _Found | None:
    """The first form of a data set that is there, see `load`; None where there is none."""
    for place in _places(data_dir):
        folder = prepared.newest(place / name)
        if folder is not None and "array_record" in prepared.formats(folder):
            return folder, functools.partial(prepared.decode, name, folder, data_dir, skip_corrupt)
        for form in CIFARS[name].forms:
            for file, there in ((form.archive, Path.is_file), (form.folder, Path.is_dir)):
                path = place if place.name == file else place / file
                if there(path):
                    return path, functools.partial(read_official, path, name, form)
    return None


def _places(data_dir: str | None) -> list[Path]:
    asked = [Path(data_dir).expanduser()] if data_dir else []
    return [*asked, prepared.default_root(), cache_root()]


def _fetched(name: str, data_dir: str | None, download: bool) -> _Found:
    form, md5 = CIFARS[name].forms[-1], CIFARS[name].md5
    if not download:
        files = ", ".join(f"{form.archive}, {form.folder}/" for form in CIFARS[name].forms)
        places = ", ".join(map(str, dict.fromkeys(_places(data_dir))))
        raise UserError(
            f"data set {name!r} is nowhere: looked for what TFDS prepared as array_record "
            f"({name}/<version>/) and for {files} in {places}; put one of them there, give its "
            "folder as `config.data.dir`, have the archive fetched with "
            "`config.data.download`=true, or run configs/digits.py, which needs none"
        )
    path = cache_root() / form.archive
    fetch(HOME + form.archive, md5, path)
    return path, functools.partial(read_official, path, name, form)


def read_official(path: Path, name: str, form: Form) -> tuple[Split, Split, list[str], int]:
    """(train, test, names of classes, 0 left out) of an archive or the folder that it makes.

    Raises:
      UserError: a file is missing, damaged, or has other labels or sizes than it should.
    """
    classes = CIFARS[name].classes
    files = _unpacked(path, form) if path.is_dir() else _packed(path, form)

    def read(file, how) -> Any:
        if file not in files:
            raise _damaged(path, f"it lacks {file}")
        try:
            return how(files.pop(file))
        except (ValueError, pickle.UnpicklingError) as error:
            raise _damaged(path / file, str(error)) from error

    names = read(form.names, form.read_names)
    if len(names) != classes:
        raise _damaged(path / form.names, f"it names {len(names)} classes and not {classes}")
    parts = {
        file: read(file, lambda data: _images(*form.read(data), classes))
        for file in (*form.train, form.test)
    }
    test = parts.pop(form.test)
    for file, part in parts.items():
        # As there are five training images for each test image.
        if not part.size or len(parts) * part.size != 5 * test.size:
            raise _damaged(
                path / file, f"it has {part.size:,} images and {form.test} has {test.size:,}"
            )
    return (
        Split(*(np.concatenate(arrays) for arrays in zip(*parts.values(), strict=True))),
        test,
        names,
        0,
    )


def _images(pixels: np.ndarray, labels: Sequence[int] | np.ndarray, classes: int) -> Split:
    if pixels.shape != (len(labels), _PIXELS):
        raise ValueError(f"it has pixels {list(pixels.shape)} for {len(labels):,} labels")
    wrong = [label for label in labels if not 0 <= label < classes]
    if wrong:
        raise ValueError(f"it has the label {wrong[0]}, and there are {classes} classes from 0")
    images = pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), np.array(labels, np.int32))


def _unpacked(folder: Path, form: Form) -> dict[str, bytes]:
    wanted = (*form.train, form.test, form.names)
    return {file: (folder / file).read_bytes() for file in wanted if (folder / file).is_file()}


def _packed(archive: Path, form: Form) -> dict[str, bytes]:
    """Files of an archive, in memory: none is written anywhere."""
    wanted = {f"{form.folder}/{file}": file for file in (*form.train, form.test, form.names)}
    found = {}
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    file = wanted.get(posixpath.normpath(member.name))
                    if file and member.isreg():
                        found[file] = tar.extractfile(member).read()
            while stream.read(2**20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise _damaged(archive, f"{type(error).__name__}: {error}") from error
    return found


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} can't be read, {why}: fetch the archive again, or unpack it again")
