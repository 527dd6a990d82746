"""Decoded pixels kept in the user's cache folder."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from seenn_jax.data.splits import Loaded, Split

_log = logging.getLogger(__name__)

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# Part of the cache's key: raise it when the meaning of the kept files changes.
_CACHE_FORMAT = 2


def cache_root() -> Path:
    """The user's cache folder of this package, which may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "seenn_jax"


def cache_folder(folder: Path, files: Iterable[Path], about: object) -> Path:
    """Where what is made of the files of `folder` is kept: elsewhere once they change."""
    found = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    identity = repr((_CACHE_FORMAT, str(folder.resolve()), found, about))
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_root() / f"{folder.parent.name}-{folder.name}-{key}"


def read_cache(cache: Path) -> Loaded | None:
    """What `write_cache` kept, its pixels mapped rather than read; None where it is not there."""
    if not cache.exists():
        return None
    try:
        classes = json.loads((cache / "info.json").read_text())["classes"]
        arrays = [np.load(cache / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
    except (OSError, ValueError, KeyError, EOFError) as error:
        _log.warning("%s is damaged (%s)", cache, error)
        return None
    return Split(*arrays[:2]), Split(*arrays[2:]), classes


def write_cache(cache: Path, train: Split, test: Split, classes: int | Sequence[str]) -> None:
    """Keep the decoded pixels; the folder appears under its name only when it is whole."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix="unfinished-") as unfinished:
            staged = Path(unfinished) / "data"
            staged.mkdir()
            for name, array in zip(_ARRAYS, (*train, *test), strict=True):
                np.save(staged / f"{name}.npy", array)
            (staged / "info.json").write_text(json.dumps({"classes": classes}))
            shutil.rmtree(cache, ignore_errors=True)  # A damaged one.
            os.replace(staged, cache)
    except OSError as error:
        _log.warning("could not keep the decoded images (%s): the next start decodes again", error)
    else:
        _log.info("kept the decoded images in %s", cache)
