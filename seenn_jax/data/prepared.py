"""Data sets that TFDS prepared, read without TensorFlow and without a network."""

import contextlib
import difflib
import json
import logging
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from seenn_jax.data.cache import cache_folder, read_cache, write_cache
from seenn_jax.data.images import Corrupt, cores, to_user, why
from seenn_jax.data.images import decode as decode_image
from seenn_jax.data.records import Records
from seenn_jax.data.splits import Loaded, Split
from seenn_jax.errors import UserError, raise_passing

_log = logging.getLogger(__name__)
_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>\w[\w.+-]*))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO = "dataset_info.json"
_SPLITS = ("train", "test", "validation")  # to learn; to report, the first that has labels
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of Pillow, by the number of channels


def prepared(name: str, data_dir: str | None, skip_corrupt: bool) -> Loaded:
    """The (train, test) images of a prepared TFDS data set, and its classes."""
    folder = prepared_folder(name, data_dir)
    _check_files(folder)
    info = (folder / _INFO).read_bytes()
    cache = cache_folder(folder, folder.iterdir(), info)
    kept = read_cache(cache)
    if kept is not None:
        return kept
    _log.info("decoding %s from %s, once", name, folder)
    train, test, classes, skipped = decode(name, folder, data_dir, skip_corrupt)
    if not skipped:
        write_cache(cache, train, test, classes)
    return train, test, classes


def default_root() -> Path:
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
    root = Path(data_dir).expanduser() if data_dir else default_root()
    parent = root / parts["set"] / (parts["config"] or "")
    wanted = parts["version"]
    found = _versions(parent).get(wanted) if wanted else newest(parent)
    if found is not None:
        return found
    if not parent.exists():
        _check_known(parts["set"])
    there = sorted(path.name for path in parent.glob("[!.]*") if path.is_dir())
    raise UserError(
        f"data set {name!r} is not prepared: there is no {wanted or '<version>'}/dataset_info.json "
        f"in {parent} (it holds {', '.join(there) or 'nothing'}); prepare it once with "
        f"`{_command(name, data_dir)}`, which needs the network and, for CIFAR and most others, "
        f"TensorFlow installed, or run configs/digits.py, which needs neither"
    )


def newest(parent: Path) -> Path | None:
    """The folder of the highest version of a data set that is prepared in `parent`, if any is."""
    found = _versions(parent)
    by_number = sorted(found, key=lambda version: [int(number) for number in version.split(".")])
    return found[by_number[-1]] if found else None


def _versions(parent: Path) -> dict[str, Path]:
    return {
        info.parent.name: info.parent
        for info in parent.glob(f"*/{_INFO}")
        if _VERSION.fullmatch(info.parent.name)
    }


def formats(folder: Path) -> list[str]:
    """The formats of the files that TFDS prepared in a version folder."""
    try:
        info = json.loads((folder / _INFO).read_text())
        return [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / _INFO} is damaged ({why(error)}): restore it, or delete {folder} and "
            "prepare that data set again"
        ) from error


def _check_files(folder: Path) -> None:
    """Raise a UserError for what is no file and would be read as one (a pipe has no end)."""
    for path in folder.iterdir():
        if not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is no regular file: restore it, or delete it")


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
        *("cifar10_dvs", "dvs128_gesture", "n_mnist", "n_caltech101", "shd", "ssc"),
        "tiny_imagenet",
        *tfds.list_builders(with_community_datasets=False),
    ]
    if dataset in known:
        return
    near = difflib.get_close_matches(dataset, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see tensorflow.org/datasets/catalog"
    raise UserError(
        f"unknown data set {dataset!r}: neither 'digits', nor a data set of TFDS, nor a folder "
        f"that is there; {hint}"
    )


def decode(
    name: str, folder: Path, data_dir: str | None, skip_corrupt: bool
) -> tuple[Split, Split, list[str], int]:
    """Read and decode the train and test split of a prepared TFDS data set.

    Returns:
      (train, test, classes, how many records were left out)
    """
    splits, classes, mode = open_records(name, folder, data_dir)
    decoded = [_decode_split(records, mode, skip_corrupt) for records in splits]
    (train, test), skipped = decoded, sum(map(len, splits)) - sum(part.size for part in decoded)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise _unequal(name, train.images.shape[1:], test.images.shape[1:])
    return train, test, classes, skipped


def open_records(
    name: str, folder: Path, data_dir: str | None
) -> tuple[tuple[Records, Records], list[str], str]:
    """((records to train on, to test on), classes, Pillow's mode of the images) of a data set.

    Raises:
      UserError: as `open_builder`; there are no such splits, or files lack records.
    """
    _check_files(folder)
    builder = open_builder(name, folder, data_dir)
    import tensorflow_datasets as tfds

    try:
        classes = builder.info.features["label"].names
        encoded = {"image": tfds.decode.SkipDecoding()}
        splits = {
            split: Records(name, builder.as_data_source(split, decoders=encoded), classes)
            for split in builder.info.splits
        }
        wrong = _wrong_files(builder)
    except Exception as error:  # of any kind, where files are damaged
        raise_passing(error)
        raise _damaged(name, folder, why(error), data_dir) from error
    if wrong:
        raise _damaged(name, folder, wrong, data_dir)
    reported = next((s for s in _SPLITS[1:] if s in splits and splits[s].is_labelled()), None)
    if "train" not in splits or reported is None:
        raise UserError(
            f"data set {name!r} has the splits {', '.join(splits)}: choose one with a train "
            f"split and a test or validation split that has labels"
        )
    mode = _MODES.get(builder.info.features["image"].shape[-1], "RGB")
    return (splits["train"], splits[reported]), classes, mode


def _wrong_files(builder: Any) -> str | None:
    """What is wrong with the number of records in the files of a data set, if anything is.

    Half a millisecond a file; those of other splits may be gone.
    """
    from array_record.python import array_record_module

    def count(file):
        reader = array_record_module.ArrayRecordReader(os.fspath(file.filename))
        with contextlib.closing(reader):
            return reader.num_records()

    splits = [builder.info.splits[name] for name in _SPLITS if name in builder.info.splits]
    files = [file for split in splits for file in split.file_instructions]
    with ThreadPoolExecutor(cores()) as pool:
        for file, found in zip(files, pool.map(count, files), strict=True):
            if found != file.examples_in_shard:
                return (
                    f"{file.filename} has {found:,} records, and {_INFO} says "
                    f"{file.examples_in_shard:,}"
                )
    return None


def _damaged(name: str, folder: Path, problem: str, data_dir: str | None) -> UserError:
    return UserError(
        f"data set {name!r} in {folder} is damaged ({problem}): delete that folder and prepare it "
        f"again with `{_command(name, data_dir)}`"
    )


def open_builder(name: str, folder: Path, data_dir: str | None) -> Any:
    """TFDS's builder (DatasetBuilder) of a data set of images and labels, prepared in `folder`.

    Raises:
      UserError: it is not in array_record format, array_record is missing, or it has other
        features.
    """
    there = formats(folder)
    if "array_record" not in there:
        raise UserError(
            f"data set {name!r} is prepared in {folder} as {there[0]}, which can't be read "
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

    try:
        builder = tfds.builder_from_directory(folder)
        features = dict(builder.info.features)
    except Exception as error:  # of any kind, where the JSON files are damaged
        raise_passing(error)
        raise _damaged(name, folder, why(error), data_dir) from error
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


def _decode_split(records: Records, mode: str, skip_corrupt: bool) -> Split:
    """All records of a split, one thread: decoding small images holds the GIL."""
    images, labels, count = np.empty(0, np.uint8), np.empty(len(records), np.int32), 0
    for record in records:
        try:
            image = np.asarray(decode_image(record, mode))
        except Corrupt as error:
            if not skip_corrupt:
                raise to_user(error) from None
            _log.warning("left out: %s", error)
            continue
        image = image.reshape(*image.shape[:2], -1)
        if not count:
            images = np.empty((len(records), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise _unequal(records.name, images.shape[1:], image.shape)
        images[count], labels[count] = image, record.label
        count += 1
    if not count:
        raise UserError(
            f"data set {records.name!r} has a split of which no image can be read: prepare it again"
        )
    if count < len(records):
        left = len(records) - count
        _log.warning("%d of %d images are corrupt and left out", left, len(records))
    return Split(images[:count], labels[:count])


def _unequal(name: str, one: tuple[int, ...], other: tuple[int, ...]) -> UserError:
    sizes = " and ".join(" x ".join(map(str, shape)) for shape in (one, other))
    return UserError(
        f"data set {name!r} has images of several sizes, {sizes} among them: set "
        f"`config.data.image_size`=224 or the like, to which they are brought as they are read, or "
        f"choose one whose images are all of one size, such as 'cifar10'"
    )
