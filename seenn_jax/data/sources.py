"""Whole data sets in host memory, by name; any other name is that of a set that TFDS prepared.

What takes long to read is decoded once and then kept as uint8 .npy files in the user's cache folder
(`$XDG_CACHE_HOME` or `~/.cache`, under `seenn_jax/`), which may be deleted at any time. NumPy only,
no JAX.
"""

from collections.abc import Callable

from seenn_jax.data import cifar10_dvs, digits
from seenn_jax.data.prepared import prepared
from seenn_jax.data.splits import Dataset, Loaded, named, permutation, take
from seenn_jax.errors import UserError
from seenn_jax.tables import Table

# `(*, data_dir, timesteps, skip_corrupt) -> (training images, test images, classes)`, the last by
# name or as a number; see `load_dataset` for the arguments. Each takes those that it needs.
Loader = Callable[..., Loaded]

DATASETS = Table(
    "DATASETS",
    "data set",
    {
        "digits": lambda **_: digits.still(),
        "digits_dvs": lambda timesteps, **_: digits.recorded(timesteps),
        "cifar10_dvs": cifar10_dvs.load,
    },
)


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    validation: int,
    timesteps: int = 1,
    skip_corrupt: bool = False,
) -> Dataset:
    """Load an image classification data set and hold a validation split out of its training images.

    Args:
      name: a key of `DATASETS`: `digits` (scikit-learn's 1,797 images of 8 x 8 x 1, no preparation
        needed), or event data: `digits_dvs` (the same digits before a simulated camera) or
        `cifar10_dvs`, from its AEDAT files. Or the name of a prepared TFDS data set with features
        image and label: `cifar10`, `cifar10:3.0.2`, `imagenet_resized/32x32`. Without a version,
        the highest one prepared. Its split `train` is divided into train and validation; `test` is
        the test split, or `validation` where there is no `test` or its labels are withheld.
      data_dir: where TFDS data sets are prepared; by default `$TFDS_DATA_DIR`, else
        `~/tensorflow_datasets`. For `cifar10_dvs` the folder of its ten class folders; by default
        `cifar10_dvs` there.
      validation: how many training images to hold out, the same ones always: they belong to the
        data set, not to a run.
      timesteps: T, frames into which event data are cut.
      skip_corrupt: leave out recordings that can't be read; they are named and counted in the log.

    Returns:
      The data set; every split is in memory, in the stored order.

    Raises:
      UserError: the name is unknown, the data set is not prepared, is not in array_record format,
        has other features or images of several sizes, `validation` is out of range; files are
        missing or corrupt.
    """
    if name.startswith("folder:"):
        raise UserError(
            f"`config.data.name` is {name!r}, whose images are read as they are needed and brought "
            "to one size: set `config.data.image_size`=224 or the like"
        )
    if name in DATASETS:
        loaded = DATASETS[name](data_dir=data_dir, timesteps=timesteps, skip_corrupt=skip_corrupt)
    else:
        loaded = prepared(name, data_dir)
    pool, held_out, classes = loaded
    available = len(pool.labels)
    if not 1 <= validation < available:
        raise UserError(
            f"validation = {validation} is not possible: {name!r} has {available} training images, "
            f"so hold out 1 to {available - 1} of them"
        )
    order = permutation(available, seed=0)
    return Dataset(
        name=name,
        train=take(pool, order[validation:]),
        validation=take(pool, order[:validation]),
        test=held_out,
        **named(classes),
    )
