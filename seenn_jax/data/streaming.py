"""Image data sets too large for memory: decoded from disk as they are needed.

A TFDS data set such as imagenet2012, prepared as `sources` says, or a folder of class folders of
image files. Images of any size and colour become RGB of one size: a random part of them to train on
(`random_box`), the middle to evaluate (`central_box`). Pillow decodes them: at this size OpenCV is
hardly quicker, and it gives back a truncated JPEG as if it were whole.

To train, Grain shuffles, decodes and batches in worker processes. Batch k is a pure function of the
seed and k, whatever the number of workers: Grain's position is the training step, which is in every
checkpoint, and that is all it takes to resume in the middle of an epoch. To evaluate, threads
decode a stretch of a split at a time. NumPy only, no JAX.
"""

import dataclasses
import gc
import io
import logging
import math
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from absl import flags
from jaxtyping import Int32, Int64, UInt8
from PIL import Image

from seenn_jax.data import sources
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)

FOLDER = "folder:"
IN_MEMORY = (
    "digits",
    "digits_dvs",
    "cifar10_dvs",
)  # data sets of their own kind, of which `sources` knows
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Of ImageNet's pixels, and what networks for such images are commonly given.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZE = 256 / 224  # of the shorter side to that of the central crop
AREA = (0.08, 1.0)  # of a random crop, of the image
RATIO = (3 / 4, 4 / 3)  # of its width to its height
_WRITTEN = 2  # batches that each worker has ready, besides the one that it makes


class Record(NamedTuple):
    """An image as it is on disk."""

    data: bytes
    label: int
    name: str  # with its class


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

    def __init__(self, name: str, records: Sequence[dict], classes: list[str]):
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
            raise sources.unlabelled(self.name)
        return int(record["label"])


class Stream:
    """A split of a streamed data set: a `sources.Split` whose `images` are read when indexed.

    Args:
      source: where its records are ...
      indices: ... and which of them.
      side: of the images, in pixels.
      skip_corrupt: leave out images that can't be read, which takes reading all of them once.
    """

    def __init__(
        self, source: Source, indices: Int64[np.ndarray, "n"], side: int, skip_corrupt: bool
    ):
        self.source, self.indices = source, indices
        self.side, self.skip_corrupt = side, skip_corrupt

    @property
    def size(self) -> int:
        """How many images there are, those that can't be read among them."""
        return len(self.indices)

    @cached_property
    def images(self) -> "Images":
        """All that can be read, as evaluation sees them."""
        if not self.skip_corrupt:
            return Images(self.source, self.indices, self.side)
        with ThreadPoolExecutor(cores()) as pool:
            errors = list(pool.map(self._error, self.indices.tolist()))
        bad = [error for error in errors if error]
        for error in bad:
            _log.warning("left out: %s", error)
        if bad:
            _log.warning("%d of %d images are corrupt and left out", len(bad), len(errors))
        good = self.indices[[error is None for error in errors]]
        return Images(self.source, good, self.side)

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

    def __init__(self, source: Source, indices: Int64[np.ndarray, "n"], side: int):
        self.indices = indices
        self.shape = (len(indices), side, side, 3)
        self._source = source

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
        image = _decoded(self._source[index])
        side = self.shape[1]
        return resized(image, central_box(*image.size, side), side)


class Corrupt(ValueError):
    """An image that can't be read; says which, and why."""


def load_streamed(
    name: str,
    *,
    side: int,
    data_dir: str | None = None,
    validation: int,
    skip_corrupt: bool = False,
) -> sources.Dataset:
    """Open an image data set of which no image is read yet.

    Args:
      name: `folder:` and the path of a folder, or a TFDS name as for `sources.load_dataset`. In a
        folder there are `train` and one of `test`, `val`, `validation` (taken in this order), with
        the same class folders in both; or class folders, of whose images, in the order of a fixed
        permutation, every fifth is for testing. Images may lie deeper in a class folder; what
        begins with a dot, and files that are no images by their extension, are ignored.
      side: height and width that images are brought to.
      data_dir, validation: as for `sources.load_dataset`.
      skip_corrupt: leave out images that can't be read; they are named and counted in the log. In
        training, the next image takes the place of such a one.

    Returns:
      The data set; its splits are `Stream`s.

    Raises:
      UserError: no such data set or folder, one of other features, a class folder without an image,
        class folders that differ between train and test, `validation` out of range.
    """
    if name in IN_MEMORY:
        raise UserError(
            f"config.data.image_size is {side} and {name!r} is not streamed: set "
            "--config.data.image_size=0"
        )
    if name.startswith(FOLDER):
        pool, held_out, classes = _open_folder(Path(name.removeprefix(FOLDER)).expanduser())
    else:
        pool, held_out, classes = _open_prepared(name, data_dir)
    if not 1 <= validation < len(pool[1]):
        raise UserError(
            f"validation = {validation} is not possible: {name!r} has {len(pool[1])} training "
            f"images, so hold out 1 to {len(pool[1]) - 1} of them"
        )

    def stream(source, indices):
        return Stream(source, np.sort(indices), side, skip_corrupt)

    source, available = pool
    order = available[sources.permutation(len(available), seed=0)]
    return sources.Dataset(
        name=name,
        train=stream(source, order[validation:]),
        validation=stream(source, order[:validation]),
        test=stream(*held_out),
        num_classes=len(classes),
    )


_Part = tuple[Source, Int64[np.ndarray, "_"]]  # a source, and which of its records


def _open_prepared(name: str, data_dir: str | None) -> tuple[_Part, _Part, list[str]]:
    folder = sources.prepared_folder(name, data_dir)
    builder = sources.open_builder(name, folder, data_dir)
    import tensorflow_datasets as tfds

    classes = builder.info.features["label"].names
    encoded = {"image": tfds.decode.SkipDecoding()}
    splits = sources.labelled_splits(name, builder, encoded)
    train, test = (Prepared(name, records, classes) for records in splits)
    return (train, np.arange(len(train))), (test, np.arange(len(test))), classes


def _open_folder(root: Path) -> tuple[_Part, _Part, list[str]]:
    if not root.is_dir():
        raise UserError(
            f"config.data.name is '{FOLDER}{root}' and there is no such folder: give the path of "
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
        train, test = (
            Folder(root / name, _files(part))
            for name, part in zip(("train", test), parts, strict=True)
        )
        return (train, np.arange(len(train))), (test, np.arange(len(test))), classes
    by_class = _class_folders(root)
    all_files = Folder(root, _files(by_class))
    is_test, start = np.zeros(len(all_files), bool), 0
    for files in by_class.values():
        is_test[start + sources.permutation(len(files), seed=0)[::5]] = True
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


# --- One image -----------------------------------------------------------------------------------


def decode(record: Record) -> Image.Image:
    """The image of a record in RGB; grey, CMYK and palettes are converted, transparency is dropped.

    Raises:
      Corrupt: it can't be read to its end, or has more than 8 bits a channel.
    """
    try:
        image = Image.open(io.BytesIO(record.data))
        if image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits a channel")
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = "it is empty or gone" if not record.data else error
        raise Corrupt(f"image {record.name} can't be read ({why})") from error


def _decoded(record: Record) -> Image.Image:
    try:
        return decode(record)
    except Corrupt as error:
        raise UserError(
            f"{error}: replace it, or leave such images out with --config.data.skip_corrupt=True"
        ) from None


Box = tuple[
    int | float, int | float, int | float, int | float
]  # left, top, right, bottom, in pixels of the image


def central_box(width: int, height: int, side: int) -> Box:
    """The middle square of an image whose shorter side is brought to `RESIZE` times `side`.

    Rounded as the usual resize to 256 and centre crop of 224 are (torchvision), and in pixels of
    the original, so that both are one step.
    """
    short = round(side * RESIZE)
    new = [max(short, int(length * short / min(width, height))) for length in (width, height)]
    left, top = (round((length - side) / 2) for length in new)
    across, down = width / new[0], height / new[1]
    return left * across, top * down, (left + side) * across, (top + side) * down


def random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """A random part of an image, of an area in `AREA` and a shape in `RATIO` (Szegedy et al. 2015).

    After ten that do not fit, the largest in the middle that has such a shape.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(*map(math.log, RATIO)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = (int(rng.integers(n + 1)) for n in (width - across, height - down))
            return left, top, left + across, top + down
    across = min(width, round(height * RATIO[1]))
    down = min(height, round(width / RATIO[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def resized(image: Image.Image, box: Box, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """A box of an image at `side` x `side` pixels; each weighs those near it linearly."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box))


# --- Batches to train on -------------------------------------------------------------------------


class _Example:
    """`(number in the stream, generator) -> image, label and the record that could not be read`."""

    def __init__(self, stream: Stream):
        self.stream = stream

    def __call__(self, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        stream, skipped = self.stream, -1
        for shift in range(stream.size):
            index = int(stream.indices[(number + shift) % stream.size])
            record = stream.source[index]
            try:
                image = decode(record) if stream.skip_corrupt else _decoded(record)
            except Corrupt:
                skipped = index
                continue
            pixels = resized(image, random_box(rng, *image.size), stream.side)
            return {
                "image": pixels,
                "label": np.int32(record.label),
                "skipped": np.int64(skipped),
            }
        raise UserError("no image of the training split can be read: replace them")


class Batches(Iterator[tuple[UInt8[np.ndarray, "B H W 3"], Int32[np.ndarray, "B"]]]):
    """Batches of (images, labels), each epoch in an order of its own.

    What does not fill a batch is left out of that epoch. `close` it, to end the workers.

    Args:
      stream: the split.
      batch_size: images in a batch, of all processes together.
      seed: of the orders and the crops.
      start, stop: numbers of the first batch and of the one after the last; None: without end.
      workers: processes that make batches; 0 makes them in this one, -1 is one for each core.
      process: (number of this process, number of processes), each of which has its part of every
        batch.
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        stop: int | None = None,
        workers: int = -1,
        process: tuple[int, int] = (0, 1),
    ):
        import grain  # Slow to import.

        if not flags.FLAGS.is_parsed():  # Grain reads its flags, in whatever program.
            flags.FLAGS.mark_as_parsed()
        self._stream = stream
        self.skipped: set[int] = set()  # records that could not be read, so far
        each = batch_size // process[1]
        used = stream.size // batch_size * batch_size
        workers = cores() if workers < 0 else workers
        shuffled = grain.MapDataset.range(stream.size).seed(seed).shuffle()
        examples = shuffled.random_map(_Example(stream))[:used]
        batches = examples[process[0] :: process[1]].batch(each).repeat()
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        in_order = batches[start:stop].to_iter_dataset(options)
        if workers:
            needed = workers * (_WRITTEN + 2) * each * stream.side**2 * 3
            in_order = grain.experimental.WithOptionsIterDataset(
                in_order,
                grain.experimental.DatasetOptions(min_shm_size=_smallest_shared(needed)),
            ).mp_prefetch(
                grain.MultiprocessingOptions(workers, per_worker_buffer_size=_WRITTEN),
                worker_init_fn=_end_with_parent,
            )
        self._iterator = iter(in_order)

    def __next__(self) -> tuple[UInt8[np.ndarray, "B H W 3"], Int32[np.ndarray, "B"]]:
        batch = next(self._iterator)
        for index in set(batch["skipped"].tolist()) - self.skipped - {-1}:
            self.skipped.add(index)
            name = self._stream.source[index].name
            _log.warning("left out: image %s can't be read (%d so far)", name, len(self.skipped))
        return batch["image"], batch["label"]

    def close(self) -> None:
        """End the worker processes."""
        self._iterator.close()
        self._iterator = iter(())
        gc.collect()  # of cycles that hold shared memory, which would be warned of at exit


def _end_with_parent(worker: int, workers: int) -> None:
    """In a worker: end as soon as the training process is gone, were it killed."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _smallest_shared(needed: int) -> int:
    """Bytes from which on an array goes through shared memory: none where there is too little."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free < needed:
        _log.warning(
            "%s has less than the %.1f GiB that batches need: they go through pipes, more slowly",
            memory,
            needed / 2**30,
        )
        return sys.maxsize
    return 0


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
