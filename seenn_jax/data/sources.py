"""Whole data sets in host memory, by name; any other name is that of a set that TFDS prepared.

What takes long to read is decoded once and then kept as uint8 .npy files in the user's cache folder
(`$XDG_CACHE_HOME` or `~/.cache`, under `seenn_jax/`), which may be deleted at any time. NumPy only,
no JAX.
"""

import functools
from collections.abc import Callable

from seenn_jax.data import cifar, digits, tiny_imagenet
from seenn_jax.data.cifar import CIFARS
from seenn_jax.data.events import atis, cifar10_dvs, dvs128_gesture, shd
from seenn_jax.data.events.frames import Binning
from seenn_jax.data.folders import path_of
from seenn_jax.data.prepared import prepared
from seenn_jax.data.splits import Dataset, Loaded, check_loaded, held_out, named, permutation, take
from seenn_jax.errors import UserError
from seenn_jax.tables import Table, called_with

# `(*, data_dir, timesteps, skip_corrupt, download, binning) -> (training images, test images,
# classes)`, the last by name or as a number; see `load_dataset` for the arguments. Each takes those
# that it needs.
Loader = Callable[..., Loaded]

# Event data from files, each loaded with (*, data_dir, binning, skip_corrupt).
RECORDED: dict[str, Callable[..., Loaded]] = {
    "cifar10_dvs": cifar10_dvs.load,
    "dvs128_gesture": dvs128_gesture.load,
    "n_mnist": atis.load_n_mnist,
    "n_caltech101": atis.load_n_caltech101,
    **{name: functools.partial(shd.load, name) for name in shd.SETS},
}

# Those of the package that are no recordings.
UNBINNED = ("digits", "digits_dvs", *CIFARS, "tiny_imagenet")

DATASETS = Table(
    "DATASETS",
    "data set",
    {
        "digits": lambda **_: digits.still(),
        "digits_dvs": lambda timesteps, **_: digits.recorded(timesteps),
        **{
            name: lambda data_dir, binning, skip_corrupt, load=load, **_: load(
                data_dir=data_dir, binning=binning, skip_corrupt=skip_corrupt
            )
            for name, load in RECORDED.items()
        },
        **{
            name: lambda data_dir, download, skip_corrupt, name=name, **_: cifar.load(
                name, data_dir=data_dir, download=download, skip_corrupt=skip_corrupt
            )
            for name in CIFARS
        },
        "tiny_imagenet": lambda data_dir, skip_corrupt, **_: tiny_imagenet.load(
            data_dir=data_dir, skip_corrupt=skip_corrupt
        ),
    },
    called_with("data_dir=", "timesteps=", "skip_corrupt=", "download=", "binning="),
)


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    validation: int | float,
    train_on_validation: bool = False,
    timesteps: int = 1,
    skip_corrupt: bool = False,
    download: bool = False,
    binning: Binning | None = None,
) -> Dataset:
    """Load an image classification data set and hold a validation split out of its training images.

    Args:
      name: a key of `DATASETS`: `digits` (scikit-learn's 1,797 images of 8 x 8 x 1, no preparation
        needed), `cifar10` or `cifar100` in any form (`cifar.load`), or event data, such as
        `cifar10_dvs`. Or the name of a prepared TFDS data set with features image and label:
        `svhn_cropped`, `cifar10:3.0.2`, `imagenet_resized/32x32`. Without a version, the highest
        one prepared. Its split `train` is divided into train and validation; `test` is the test
        split, or `validation` where there is no `test` or its labels are withheld.
      data_dir: where TFDS data sets are prepared, or the archives of CIFAR lie; by default
        `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`. Of recordings their own folder.
      validation: how many training images to hold out, or what fraction of them, below 1. The same
        ones always: they belong to the data set, not to a run.
      train_on_validation: they are among the training images all the same.
      timesteps: T, frames into which event data are cut.
      skip_corrupt: leave out recordings, and images that TFDS prepared, that can't be read; they
        are named and counted in the log.
      binning: how recordings become these frames; None is by count.
      download: fetch the archive of `cifar10` or `cifar100` where it is in no form there.

    Returns:
      The data set; every split is in memory, in the stored order.

    Raises:
      UserError: the name is unknown, the data set is not prepared, is not in array_record format,
        has other features or images of several sizes, `validation` is out of range; files are
        missing or corrupt.
    """
    if name in DATASETS:
        asked = {"data_dir": data_dir, "skip_corrupt": skip_corrupt, "download": download}
        binning = binning or Binning(timesteps)
        loaded = DATASETS[name](**asked, timesteps=timesteps, binning=binning)
        check_loaded(DATASETS.words(name), loaded)
    else:
        loaded = _of_tfds(name, data_dir, download, skip_corrupt)
    pool, test, classes = loaded
    if not len(test.labels):
        raise UserError(
            f"data set {name!r} has no test images, so that nothing could be reported: give it some"
        )
    count = held_out(validation, name, len(pool.labels))
    order = permutation(len(pool.labels), seed=0)
    return Dataset(
        name=name,
        train=take(pool, order[0 if train_on_validation else count :]),
        validation=take(pool, order[:count]),
        test=test,
        **named(classes),
    )


def _of_tfds(name: str, data_dir: str | None, download: bool, skip_corrupt: bool) -> Loaded:
    if path_of(name, data_dir):
        raise UserError(
            f"`config.data.name` is {name!r}, a folder, whose images are read as they are needed "
            "and brought to one size: set `config.data.image_size`=224 or the like"
        )
    if download:
        raise UserError(
            f"`config.data.download` is for {' and '.join(CIFARS)}, and `config.data.name` is "
            f"{name!r}: leave it out, and let TFDS prepare that data set"
        )
    return prepared(name, data_dir, skip_corrupt)
