"""Whole data sets in host memory: digits, any prepared TFDS data set of images, event data.

A TFDS data set is read without TensorFlow and without a network from the folder it was prepared in.
It is decoded once; the pixels are then kept as uint8 .npy files in the user's cache folder
(`$XDG_CACHE_HOME` or `~/.cache`, under `seenn_jax/`), which may be deleted at any time. Where they
are found, tensorflow_datasets is not even imported. So are the frames of CIFAR10-DVS. NumPy only,
no JAX.
"""

import difflib
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from seenn_jax.data import events
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>\w[\w.+-]*))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# Part of the cache's key: raise it when the meaning of the kept files changes.
_CACHE_FORMAT = 1
_CHUNK = 1000  # Records read at once: far quicker than one by one.


class Split(NamedTuple):
    """Images and their classes, 0 <= label < num_classes.

    Event data has an axis for time, [N, T, H, W, C]: a frame of event counts for each timestep.
    """

    images: UInt8[np.ndarray, "N *T H W C"]
    labels: Int32[np.ndarray, "N"]

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.labels)


class Dataset(NamedTuple):
    """Three disjoint splits: train to fit, validation to choose, test to report.

    Where it is streamed they are `streaming.Stream`s, which are used alike.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    validation: int,
    test: int | None = None,
    seed: int = 0,
    timesteps: int = 1,
    skip_corrupt: bool = False,
) -> Dataset:
    """Load an image classification data set and hold a validation split out of its training images.

    Args:
      name: `digits` (scikit-learn's 1,797 images of 8 x 8 x 1, no preparation needed) or the name
        of a prepared TFDS data set with features image and label: `cifar10`, `cifar10:3.0.2`,
        `imagenet_resized/32x32`. Without a version, the highest one prepared. Its split `train` is
        divided into train and validation; `test` is the test split, or `validation` where there
        is no `test` or its labels are withheld. Or event data: `digits_dvs` (the same digits before
        a simulated camera, `events.record`) or `cifar10_dvs`, from its AEDAT files.
      data_dir: where TFDS data sets are prepared; by default `$TFDS_DATA_DIR`, else
        `~/tensorflow_datasets`. For `cifar10_dvs` the folder of its ten class folders; by default
        `cifar10_dvs` there.
      validation: how many training images to hold out.
      test: how many test images to keep, for short trials; by default all.
      seed: of the permutation that picks the validation (and `test`) images. It belongs to the data
        set, not to a run: leave it alone where results are to be compared. Digits' own division
        into 1,437 training and 360 test images does not depend on it.
      timesteps: T, frames into which event data are cut.
      skip_corrupt: leave out recordings that can't be read; they are named and counted in the log.

    Returns:
      The data set; every split is in memory, in the stored order.

    Raises:
      UserError: the name is unknown, the data set is not prepared, is not in array_record format,
        has other features or images of several sizes, `validation` or `test` is out of range; files
        are missing or corrupt.
    """
    if name.startswith("folder:"):
        raise UserError(
            f"config.data.name is {name!r}, whose images are read as they are needed and brought "
            "to one size: set --config.data.image_size=224 or the like"
        )
    if name == "digits":
        pool, held_out, num_classes = _digits()
    elif name == "digits_dvs":
        pool, held_out, num_classes = _digits_dvs(timesteps)
    elif name == "cifar10_dvs":
        pool, held_out, num_classes = _cifar10_dvs(data_dir, timesteps, skip_corrupt)
    else:
        pool, held_out, num_classes = _prepared(name, data_dir)
    available, reported = len(pool.labels), len(held_out.labels)
    if not 1 <= validation < available:
        raise UserError(
            f"validation = {validation} is not possible: {name!r} has {available} training images, "
            f"so hold out 1 to {available - 1} of them"
        )
    if test is None:
        test = reported
    if not 1 <= test <= reported:
        raise UserError(
            f"test = {test} is not possible: {name!r} has {reported} test images, so keep 1 to "
            f"{reported} of them, or give None for all"
        )
    order = permutation(available, seed)
    return Dataset(
        name=name,
        train=_take(pool, order[validation:]),
        validation=_take(pool, order[:validation]),
        test=_take(held_out, permutation(reported, seed)[:test]),
        num_classes=num_classes,
    )


def _take(split: Split, indices: Int64[np.ndarray, "n"]) -> Split:
    indices = np.sort(indices)
    return Split(split.images[indices], split.labels[indices])


def permutation(n: int, seed: int) -> Int64[np.ndarray, "{n}"]:
    """A permutation that no NumPy version will change.

    NumPy promises a stable stream for a bit generator's raw words, not for Generator.permutation
    (NEP 19).
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


def _digits() -> tuple[Split, Split, int]:
    """The (train and validation, test) images of digits, and its number of classes.

    Stratified: with the images in order of class, and in a fixed random order within one, every
    fifth is a test image.
    """
    from sklearn.datasets import load_digits  # Slow to import.

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    order = permutation(len(labels), seed=0)
    order = order[np.argsort(labels[order], kind="stable")]
    is_test = np.zeros(len(labels), bool)
    is_test[order[::5]] = True
    pool = Split(images[~is_test], labels[~is_test])
    return pool, Split(images[is_test], labels[is_test]), len(bunch.target_names)


@functools.cache
def _digits_dvs(timesteps: int) -> tuple[Split, Split, int]:
    """The digits of `_digits` as a simulated event camera records them; takes seconds."""
    pool, test, num_classes = _digits()
    images = np.concatenate([pool.images, test.images])[..., 0]
    frames, count = events.record(images, timesteps), len(pool.labels)
    return Split(frames[:count], pool.labels), Split(frames[count:], test.labels), num_classes


def _cifar10_dvs(
    data_dir: str | None, timesteps: int, skip_corrupt: bool
) -> tuple[Split, Split, int]:
    """The (train, test) recordings of CIFAR10-DVS, and its number of classes."""
    folder = Path(data_dir).expanduser() if data_dir else _default_root() / "cifar10_dvs"
    files = list(events.cifar10_dvs_files(folder))
    cache = _cache_folder(folder, (file for file, *_ in files), ("frames", timesteps, skip_corrupt))
    loaded = _read_cache(cache)
    if loaded is None:
        _log.info("integrating the recordings in %s, once; this takes minutes", folder)
        read = events.read_recordings(files, timesteps, skip_corrupt=skip_corrupt)
        train, test = (
            Split(read.frames[where], read.labels[where]) for where in (~read.is_test, read.is_test)
        )
        for split in (train, test):
            left = np.bincount(split.labels, minlength=len(events.CIFAR10_DVS))
            if not left.all():
                raise UserError(
                    f"no recording of class {events.CIFAR10_DVS[left.argmin()]!r} in {folder} can "
                    "be read, for training or for testing: extract its archive again"
                )
        loaded = train, test, len(events.CIFAR10_DVS)
        _write_cache(cache, *loaded)
    missing = len(files) - len(loaded[0].labels) - len(loaded[1].labels)
    if missing:
        _log.warning("%d of %d recordings are corrupt and left out", missing, len(files))
    return loaded


def _prepared(name: str, data_dir: str | None) -> tuple[Split, Split, int]:
    """The (train, test) images of a prepared TFDS data set, and its number of classes."""
    folder = prepared_folder(name, data_dir)
    info = (folder / "dataset_info.json").read_bytes()
    cache = _cache_folder(folder, folder.iterdir(), info)
    loaded = _read_cache(cache)
    if loaded is None:
        _log.info("decoding %s from %s, once", name, folder)
        loaded = _decode(name, folder, data_dir)
        _write_cache(cache, *loaded)
    return loaded


def _default_root() -> Path:
    """Where data sets are looked for where nothing is said."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepared_folder(name: str, data_dir: str | None) -> Path:
    """The version folder of `name`, found without tensorflow_datasets, which is slow to import."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UserError(
            f"{name!r} is not the name of a data set: give 'digits' or a TFDS name such as "
            f"'cifar10', 'cifar10:3.0.2' or 'imagenet_resized/32x32'"
        )
    root = Path(data_dir).expanduser() if data_dir else _default_root()
    parent = root / parts["set"] / (parts["config"] or "")
    prepared = {
        info.parent.name: info.parent
        for info in parent.glob("*/dataset_info.json")
        if _VERSION.fullmatch(info.parent.name)
    }
    wanted = parts["version"]
    if wanted is None and prepared:
        wanted = max(prepared, key=lambda version: [int(number) for number in version.split(".")])
    if wanted in prepared:
        return prepared[wanted]
    if not prepared and not parent.exists():
        _check_known(parts["set"])
    there = sorted(path.name for path in parent.glob("[!.]*") if path.is_dir())
    raise UserError(
        f"data set {name!r} is not prepared: there is no {wanted or '<version>'}/dataset_info.json "
        f"in {parent} (it holds {', '.join(there) or 'nothing'}); prepare it once with "
        f"`{_command(name, data_dir)}`, which needs the network and, for CIFAR and most others, "
        f"TensorFlow installed, or run configs/digits.py, which needs neither"
    )


def _command(name: str, data_dir: str | None) -> str:
    """The shell command that prepares `name` in the format that can be read without TensorFlow."""
    where = "" if data_dir is None else f", data_dir={data_dir!r}"
    return (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, file_format='array_record'{where}).download_and_prepare()\""
    )


def _check_known(dataset: str) -> None:
    import tensorflow_datasets as tfds

    known = [
        "digits",
        "digits_dvs",
        "cifar10_dvs",
        *tfds.list_builders(with_community_datasets=False),
    ]
    if dataset in known:
        return
    near = difflib.get_close_matches(dataset, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see tensorflow.org/datasets/catalog"
    raise UserError(f"unknown data set {dataset!r}: neither 'digits' nor a TFDS data set; {hint}")


def _cache_folder(folder: Path, files: Iterable[Path], about: object) -> Path:
    """Where what is made of the files of `folder` is kept: elsewhere once they change."""
    found = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    identity = repr((_CACHE_FORMAT, str(folder.resolve()), found, about))
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "seenn_jax" / f"{folder.parent.name}-{folder.name}-{key}"


def _read_cache(cache: Path) -> tuple[Split, Split, int] | None:
    """What `_write_cache` kept, its pixels mapped rather than read; None where it is not there."""
    if not cache.exists():
        return None
    try:
        num_classes = json.loads((cache / "info.json").read_text())["num_classes"]
        arrays = [np.load(cache / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
    except (OSError, ValueError, KeyError, EOFError) as error:
        _log.warning("%s is damaged (%s)", cache, error)
        return None
    return Split(*arrays[:2]), Split(*arrays[2:]), num_classes


def _write_cache(cache: Path, train: Split, test: Split, num_classes: int) -> None:
    """Keep the decoded pixels; the folder appears under its name only when it is whole."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix="unfinished-") as unfinished:
            staged = Path(unfinished) / "data"
            staged.mkdir()
            for name, array in zip(_ARRAYS, (*train, *test), strict=True):
                np.save(staged / f"{name}.npy", array)
            (staged / "info.json").write_text(json.dumps({"num_classes": num_classes}))
            shutil.rmtree(cache, ignore_errors=True)  # A damaged one.
            os.replace(staged, cache)
    except OSError as error:
        _log.warning("could not keep the decoded images (%s): the next start decodes again", error)
    else:
        _log.info("kept the decoded images in %s", cache)


def _decode(name: str, folder: Path, data_dir: str | None) -> tuple[Split, Split, int]:
    """Read and decode the train and test split of a prepared TFDS data set."""
    builder = open_builder(name, folder, data_dir)
    absl_log = logging.getLogger("absl")
    absl_log.addFilter(_is_not_advice)
    try:
        train, test = (_decode_split(name, split) for split in labelled_splits(name, builder))
    finally:
        absl_log.removeFilter(_is_not_advice)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _unequal(name, train.images.shape[1:], test.images.shape[1:])
    return train, test, builder.info.features["label"].num_classes


def open_builder(name: str, folder: Path, data_dir: str | None) -> Any:
    """TFDS's builder (DatasetBuilder) of a data set of images and labels, prepared in `folder`.

    Raises:
      UserError: it is not in array_record format, array_record is missing, or it has other
        features.
    """
    info = json.loads((folder / "dataset_info.json").read_text())
    formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    if "array_record" not in formats:
        raise UserError(
            f"data set {name!r} is prepared in {folder} as {formats[0]}, which can't be read "
            f"without TensorFlow: delete that folder (or choose another data_dir) and prepare it "
            f"as array_record with `{_command(name, data_dir)}`"
        )
    try:
        import array_record.python.array_record_data_source  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"data set {name!r} can't be read because the package array_record is missing: "
            f"requirements.txt installs it on Linux only (this is {sys.platform}); install it with "
            f"pip if it has a build for this system, or run configs/digits.py, which needs none"
        ) from error
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    features = dict(builder.info.features)
    image, label = features.get("image"), features.get("label")
    if not (
        isinstance(image, tfds.features.Image)
        and image.np_dtype == np.uint8
        and isinstance(label, tfds.features.ClassLabel)
        and label.num_classes
    ):
        kinds = ", ".join(
            f"{key} ({type(value).__name__})" for key, value in sorted(features.items())
        )
        raise UserError(
            f"data set {name!r} has the features {kinds}: choose an image classification data set, "
            f"one with an image (Image, 8 bits a channel) and a label (ClassLabel)"
        )
    return builder


def labelled_splits(
    name: str, builder: Any, decoders: dict | None = None
) -> tuple[Sequence[dict], Sequence[dict]]:
    """The data sources of the train split, and of the first of test and validation with labels.

    Some data sets (imagenet2012 5.1.0) have a `test` split without labels: all are -1.

    Raises:
      UserError: there are no such splits.
    """
    splits = {
        split: builder.as_data_source(split, decoders=decoders) for split in builder.info.splits
    }
    reported = next(
        (s for s in ("test", "validation") if s in splits and splits[s][0]["label"] >= 0), None
    )
    if "train" not in splits or reported is None:
        raise UserError(
            f"data set {name!r} has the splits {', '.join(splits)}: choose one with a train "
            f"split and a test or validation split that has labels"
        )
    return splits["train"], splits[reported]


def _decode_split(name: str, source: Sequence[dict]) -> Split:
    """All records of a TFDS data source, one thread: decoding small images holds the GIL."""
    labels = np.empty(len(source), np.int32)
    images = np.empty((len(source), *source[0]["image"].shape), np.uint8)
    for start in range(0, len(source), _CHUNK):
        chunk = range(start, min(start + _CHUNK, len(source)))
        for i, record in zip(chunk, source.__getitems__(chunk), strict=True):
            if record["image"].shape != images.shape[1:]:
                raise _unequal(name, images.shape[1:], record["image"].shape)
            images[i] = record["image"]
            labels[i] = record["label"]
    if labels.min() < 0:
        raise unlabelled(name)
    return Split(images, labels)


def unlabelled(name: str) -> UserError:
    """What is wrong with a data set that has a label of -1."""
    return UserError(
        f"data set {name!r} has images without a label (-1): choose one that is fully labelled"
    )


def _unequal(name: str, one: tuple[int, ...], other: tuple[int, ...]) -> UserError:
    sizes = " and ".join(" x ".join(map(str, shape)) for shape in (one, other))
    return UserError(
        f"data set {name!r} has images of several sizes, {sizes} among them: set "
        f"--config.data.image_size=224 or the like, to which they are brought as they are read, or "
        f"choose one whose images are all of one size, such as 'cifar10'"
    )


def _is_not_advice(record: logging.LogRecord) -> bool:
    """False for TFDS's advice, at the first image, to install OpenCV; Pillow does as well here."""
    return "OpenCV is not installed" not in record.getMessage()
