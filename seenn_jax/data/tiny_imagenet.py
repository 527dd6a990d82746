"""Tiny ImageNet from its usual folders: 200 classes, 64 x 64 pixels. Pillow and NumPy, no JAX.

The labels of its test images were never published: its validation images are what is reported.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from seenn_jax.data.cache import cache_folder, read_cache, write_cache
from seenn_jax.data.images import EXTENSIONS, Corrupt, cores, corrupt, decode, record_of, to_user
from seenn_jax.data.prepared import default_root
from seenn_jax.data.splits import Loaded, Split
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
SIDE = 64
_NAME = "tiny-imagenet-200"  # of the folder in its archive
_STRETCH = 4096  # images that are decoded at a time
_WHAT = "extract tiny-imagenet-200.zip there, or give the folder that it is in as --config.data.dir"

_Files = list[tuple[Path, int]]  # with labels


def load(*, data_dir: str | None, skip_corrupt: bool) -> Loaded:
    """The training images, the validation images to report on, and the classes.

    Classes are numbered in the order of their WordNet numbers, as their folders are, and called by
    the first of their words. Decoded images are kept in the user's cache folder.

    Raises:
      UserError: files are missing, or can't be read; labels that don't match the images.
    """
    root = Path(data_dir).expanduser() if data_dir else default_root() / "tiny_imagenet"
    folder = next((each for each in (root / _NAME, root) if each.is_dir()), root)
    numbers = sorted(_lines(folder / "wnids.txt"))
    if len({*numbers}) < max(2, len(numbers)):
        raise UserError(f"{folder / 'wnids.txt'} has no classes, or one twice: {_WHAT}")
    parts = list(_training(folder, numbers)), list(_validation(folder, numbers))
    files = [file for part in parts for file, _ in part]
    names = _names(folder, numbers)
    listed = [[(file.name, label) for file, label in part] for part in parts]
    cache = cache_folder(folder, files, (_NAME, skip_corrupt, names, listed))
    loaded = read_cache(cache)
    if loaded is None:
        _log.info("decoding the images in %s, once; this takes a minute", folder)
        train, test = (
            _decoded(part, skip_corrupt, names, folder / place)
            for part, place in zip(parts, ("train", "val"), strict=True)
        )
        loaded = train, test, names
        write_cache(cache, *loaded)
    missing = len(files) - loaded[0].size - loaded[1].size
    if missing:
        _log.warning("%d of %d images are corrupt and left out", missing, len(files))
    return loaded


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"there is no {path}: {_WHAT}")
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()]


def _training(folder: Path, numbers: Sequence[str]) -> Iterator[tuple[Path, int]]:
    for label, number in enumerate(numbers):
        place = folder / "train" / number / "images"
        found = sorted(place.glob("*")) if place.is_dir() else []
        found = [path for path in found if path.name.lower().endswith(EXTENSIONS)]
        if not found:
            raise UserError(f"{place} has no image, and wnids.txt names its class: {_WHAT}")
        yield from ((path, label) for path in found)


def _validation(folder: Path, numbers: Sequence[str]) -> Iterator[tuple[Path, int]]:
    path, labels = (
        folder / "val" / "val_annotations.txt",
        {number: i for i, number in enumerate(numbers)},
    )
    place = folder / "val" / "images"
    there = {each.name for each in place.iterdir()} if place.is_dir() else set()
    for line in _lines(path):
        name, number = (*line.split("\t"), "")[:2]
        if name not in there or number not in labels:
            what = f"there is no {place / name}" if name not in there else "wnids.txt has no such"
            raise UserError(f"{path} says that {name} is of class {number!r}, and {what}: {_WHAT}")
        there.remove(name)
        yield place / name, labels[number]
    odd = sorted(name for name in there if name.lower().endswith(EXTENSIONS))
    if odd:
        raise UserError(f"{path} has no class for {odd[0]} ({len(odd):,} such images): {_WHAT}")


def _names(folder: Path, numbers: Sequence[str]) -> tuple[str, ...]:
    """The first word of each class; its number where there is none, or another has the same."""
    path = folder / "words.txt"
    rows = [line.split("\t", 1) for line in _lines(path)] if path.is_file() else []
    words = {row[0]: row[1].split(",")[0].strip() for row in rows if len(row) == 2}
    found = [words.get(number) or number for number in numbers]
    return tuple(
        name if found.count(name) == 1 else number
        for name, number in zip(found, numbers, strict=True)
    )


def _decoded(files: _Files, skip_corrupt: bool, names: Sequence[str], place: Path) -> Split:
    images, labels = np.empty((len(files), SIDE, SIDE, 3), np.uint8), []
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), _STRETCH):
            part = files[start : start + _STRETCH]
            for (_, label), found in zip(part, pool.map(_image, part), strict=True):
                if isinstance(found, Corrupt):
                    if not skip_corrupt:
                        raise to_user(found)
                    _log.warning("left out: %s", found)
                    continue
                images[len(labels)] = found
                labels.append(label)
    lost = {label for _, label in files} - {*labels}
    if lost:
        raise UserError(
            f"no image of class {names[min(lost)]!r} in {place} can be read: extract "
            "tiny-imagenet-200.zip again"
        )
    return Split(images[: len(labels)], np.array(labels, np.int32))


def _image(file: tuple[Path, int]) -> UInt8[np.ndarray, "64 64 3"] | Corrupt:
    record = record_of(file[0], file[1], str(file[0]))
    try:
        image = decode(record)
        if image.size != (SIDE, SIDE):
            size = " x ".join(map(str, image.size))
            raise corrupt(
                record, f"it has {size} pixels, and those of the data set {SIDE} x {SIDE}"
            )
    except Corrupt as error:
        return error
    return np.asarray(image)
