"""Decoded pixels kept in the user's cache folder."""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from seenn_jax.data.splits import Loaded, Split
from seenn_jax.paths import unfinished

_log = logging.getLogger(__name__)

_PIXELS = ("uint8", "uint16")  # the latter of event counts that a byte does not hold
_ARRAYS = {
    "train_images": _PIXELS,
    "train_labels": ("int32",),
    "test_images": _PIXELS,
    "test_labels": ("int32",),
}
_ABOUT = "info.json"
_NAME = re.compile("-[0-9a-f]{16}$")
_FILES = {_ABOUT, *(f"{name}.npy" for name in _ARRAYS)}
# Part of the cache's key: raise it when the meaning of the kept files changes.
_CACHE_FORMAT = 4


def cache_root() -> Path:
    """The user's cache folder of this package, which may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "seenn_jax"


def cache_folder(folder: Path, files: Iterable[Path], about: object) -> Path:
    """Where what is made of the files of `folder` is kept: elsewhere once they change.

    `about` is all else that decides it, such as the labels and splits of the files.
    """
    stats = ((os.path.relpath(file, folder), file.stat()) for file in files)
    found = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    identity = repr((_CACHE_FORMAT, str(folder.resolve()), found, about))
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_root() / f"{folder.parent.name}-{folder.name}-{key}"


def read_cache(cache: Path) -> Loaded | None:
    """What `write_cache` kept, its pixels mapped rather than read.

    None where it is not there, or where any of it is not as it was written, which the log says.
    Checksums take 0.1 s for CIFAR-10's 184 MB, and bring into memory what is needed next anyway.
    """
    if not cache.exists():
        return None
    found = _read(cache)
    if isinstance(found, Exception):
        _log.warning("%s is damaged (%s): its data are decoded again", cache, found)
        return None
    loaded, note = found
    if note:
        _log.warning("%s: %s", cache, note)
    return loaded


def _read(cache: Path) -> tuple[Loaded, str] | Exception:
    """(what was kept, what is to be said of it)."""
    try:
        about = json.loads((cache / _ABOUT).read_text())
        classes, note = about["classes"], about.get("note", "")
        arrays = [np.load(cache / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
        if about["checksum"] != _checksum(arrays, classes):
            raise ValueError("its checksum is another one")
        _check(arrays, classes)
    except Exception as error:  # of any kind, where files are damaged
        return error
    return (Split(*arrays[:2]), Split(*arrays[2:]), classes), note


def _checksum(arrays: Sequence[np.ndarray], classes: int | Sequence[str]) -> int:
    """Of all that is kept. CRC-32 is the fastest that comes with Python, 1.5 GB/s."""
    about = [(array.shape, array.dtype.str) for array in arrays]
    found = zlib.crc32(json.dumps([about, classes]).encode())
    for array in arrays:
        found = zlib.crc32(array.data, found)
    return found


def _check(arrays: Sequence[np.ndarray], classes: int | Sequence[str]) -> None:
    """Raise a ValueError for arrays that are no images and labels of so many classes."""
    count = classes if isinstance(classes, int) else len(classes)
    for (images, labels), split in zip((arrays[:2], arrays[2:]), ("train", "test"), strict=True):
        if images.ndim < 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{split} has images {list(images.shape)} and labels {list(labels.shape)}"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < count:
            raise ValueError(f"{split} has labels that are none of {count} classes")
    for array, (name, dtypes) in zip(arrays, _ARRAYS.items(), strict=True):
        if array.dtype.name not in dtypes:
            raise ValueError(f"{name} is of {array.dtype.name} and not of {' or '.join(dtypes)}")


def write_cache(
    cache: Path, train: Split, test: Split, classes: int | Sequence[str], note: str = ""
) -> None:
    """Keep the decoded pixels; the folder appears under its name only when it is whole.

    `note` is what the log is to say of them whenever they are read.
    What another process has put there meanwhile stays. What older versions kept is deleted.
    """
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(cache.parent) as folder:
            staged = folder / "data"
            staged.mkdir()
            arrays = [np.ascontiguousarray(array) for array in (*train, *test)]
            for name, array in zip(_ARRAYS, arrays, strict=True):
                np.save(staged / f"{name}.npy", array)
            about = {"classes": classes, "checksum": _checksum(arrays, classes), "note": note}
            (staged / _ABOUT).write_text(json.dumps({"format": _CACHE_FORMAT, **about}))
            _put(staged, cache)
            older = [kept.name for kept in cache.parent.iterdir() if _move_older(kept, folder)]
    except OSError as error:
        _log.warning("could not keep the decoded images (%s): the next start decodes again", error)
        return
    _log.info("kept the decoded images in %s", cache)
    if older:
        _log.info("deleted there what an older version had decoded: %s", ", ".join(sorted(older)))


def _put(staged: Path, cache: Path) -> None:
    """Give a whole folder its name, unless another process has put a whole one there."""
    for number in itertools.count():
        try:
            staged.rename(cache)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        if not isinstance(_read(cache), Exception):
            return
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            cache.rename(staged.with_name(f"damaged-{number}"))


def _move_older(kept: Path, folder: Path) -> bool:
    """Move what an older version kept into a folder that is deleted; whether it was that.

    It has the name, the files and nothing but the files of such a folder: else it stays.
    """
    try:
        ours = _NAME.search(kept.name) and not kept.is_symlink()
        if not ours or {path.name for path in kept.iterdir()} != _FILES:
            return False
        about = json.loads((kept / _ABOUT).read_text())
        if about.get("format", 0) >= _CACHE_FORMAT:  # at first the format was not named
            return False
        kept.rename(folder / kept.name)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False
    return True
