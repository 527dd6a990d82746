"""Data sets that TFDS prepared, read without TensorFlow and without a network."""

import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seenn_jax.data.cache import cache_folder, read_cache, write_cache
from seenn_jax.data.splits import Loaded, Split
from seenn_jax.errors import UserError

_log = logging.getLogger(__name__)
_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>\w[\w.+-]*))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 1000  # Records read at once: far quicker than one by one.


def prepared(name: str, data_dir: str | None) -> Loaded:
    """The (train, test) images of a prepared TFDS data set, and its classes."""
    folder = prepared_folder(name, data_dir)
    info = (folder / "dataset_info.json").read_bytes()
    cache = cache_folder(folder, folder.iterdir(), info)
    loaded = read_cache(cache)
    if loaded is None:
        _log.info("decoding %s from %s, once", name, folder)
        loaded = decode(name, folder, data_dir)
        write_cache(cache, *loaded)
    return loaded


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
        for info in parent.glob("*/dataset_info.json")
        if _VERSION.fullmatch(info.parent.name)
    }


def formats(folder: Path) -> list[str]:
    """The formats of the files that TFDS prepared in a version folder."""
    info = json.loads((folder / "dataset_info.json").read_text())
    return [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]


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
    raise UserError(
        f"unknown data set {dataset!r}: neither 'digits', nor a data set of TFDS, nor a folder "
        f"that is there; {hint}"
    )


def decode(name: str, folder: Path, data_dir: str | None) -> Loaded:
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
    return train, test, builder.info.features["label"].names


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


def _decode_split(name: str, source: Any) -> Split:
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
        f"`config.data.image_size`=224 or the like, to which they are brought as they are read, or "
        f"choose one whose images are all of one size, such as 'cifar10'"
    )


def _is_not_advice(record: logging.LogRecord) -> bool:
    """False for TFDS's advice, at the first image, to install OpenCV; Pillow does as well here."""
    return "OpenCV is not installed" not in record.getMessage()
