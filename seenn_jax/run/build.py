"""From a run's config and the facts of its data to its data set and its networks."""

import logging
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax.data import (
    DATASETS,
    Dataset,
    Split,
    Stream,
    load_dataset,
    load_streamed,
    normalize,
)
from seenn_jax.data.events.frames import Binning
from seenn_jax.data.events.i2e import I2E
from seenn_jax.data.folders import path_of
from seenn_jax.data.images import Framing
from seenn_jax.engine.common import BATCH
from seenn_jax.errors import UserError, check_choice
from seenn_jax.models import NEURONS, build_model, conversion, is_ann, strict
from seenn_jax.models.policy import build_policy
from seenn_jax.run.facts import DataFacts
from seenn_jax.tables import check_call
from seenn_jax.ticks import first_ticks

_log = logging.getLogger(__name__)
CALIBRATION = 2048  # training images that thresholds of ReLUs are taken from


def dataset(config: ConfigDict) -> Dataset:
    """The data set of a config; see `sources.load_dataset` and `streams.load_streamed`."""
    options = {
        "data_dir": config.data.dir or None,
        "validation": config.data.validation,
        "train_on_validation": config.data.train_on_validation,
        "skip_corrupt": config.data.skip_corrupt,
    }
    if config.data.image_size:
        return load_streamed(config.data.name, framing=framing(config), **options)
    return load_dataset(
        config.data.name,
        timesteps=config.timesteps,
        download=config.data.download,
        binning=binning(config),
        **options,
    )


def binning(config: ConfigDict) -> Binning:
    """How recordings become the frames of a config."""
    data = config.data
    return Binning(config.timesteps, data.bin_by, data.bin_ms, data.event_side, data.saturate)


def encoding(config: ConfigDict) -> I2E | None:
    """What makes events of the still images of a config, if anything does.

    Raises:
      UserError: an encoding that is none, or can't be.
    """
    if not config.data.encoding:
        return None
    check_choice("`config.data.encoding`", config.data.encoding, ("i2e",))
    found = I2E(config.i2e.side, config.i2e.ratio, config.i2e.interpolation)
    found.check(config.timesteps)
    return found


def facts_of(found: Dataset, config: ConfigDict) -> DataFacts:
    """What the network of a config must know of a data set.

    Raises:
      UserError: event data, of which an encoding is to make events.
    """
    facts, events = DataFacts.of(found), encoding(config)
    if events is None:
        return facts
    if facts.frames:
        raise UserError(
            f"`config.data.encoding` is {config.data.encoding!r}, which makes events of still "
            f"images, and {config.data.name!r} is event data: leave it out"
        )
    return facts.encoded(events, config.timesteps)


def frames_of(
    config: ConfigDict, facts: DataFacts, timesteps: int
) -> Callable[[jax.Array], jax.Array]:
    """`images as they are stored -> what the network sees`, before normalisation; pure."""
    events = encoding(config) if facts.still else None
    return (lambda x: x) if events is None else (lambda x: events.frames(x, timesteps))


def dataset_of_run(config: ConfigDict, facts: DataFacts, other: bool = False) -> Dataset:
    """The data set of a run, which its network can take.

    Args:
      other: it need not be the one that the run was trained on.

    Raises:
      UserError: as `dataset`; its images are of another shape or other classes.
    """
    try:
        found = dataset(config)
    except UserError as error:
        where = "`data_name`" if _is_folder(config) else "`data_dir` or `data_name`"
        raise UserError(f"{error}; where the data have moved, give {where}") from error
    here = facts_of(found, config)
    for name in ("image_shape", "still", "frames", "num_classes", "classes"):
        theirs, ours = getattr(here, name), getattr(facts, name)
        if theirs != ours and not (name == "classes" and not (theirs and ours)):
            raise UserError(
                f"{config.data.name!r} has {name} {theirs}, and the run was trained on data with "
                f"{ours}: give data that fit, by `data_name` or `data_dir`"
            )
    ours, theirs = ([*each.mean, *each.std, *each.still_statistics] for each in (facts, here))
    learnt_all = config.data.train_on_validation  # as checkpoints of others, normalised otherwise
    if not (other or learnt_all or np.allclose(theirs, ours, 1e-6, 0)):
        _log.warning(
            "the training images of %s are others than those that the run was trained on (their "
            "mean or standard deviation differ): it may have learnt images that are held out now",
            config.data.name,
        )
    return found


def open_data(config: ConfigDict, facts: DataFacts, timesteps: int, other: bool) -> Dataset:
    """`dataset_of_run`; of event data the first timesteps."""
    found = dataset_of_run(config, facts, other)
    if not facts.frames:
        return found
    if timesteps > facts.frames:
        raise UserError(
            f"`timesteps` is {timesteps} and {found.name} was trained on with {facts.frames} "
            "frames of a recording, one for each timestep: give at most that"
        )
    if facts.still:
        return found

    def cut(split):
        return Split(first_ticks(split.images, timesteps), split.labels)

    return found._replace(
        train=cut(found.train), validation=cut(found.validation), test=cut(found.test)
    )


def move_data(config: ConfigDict, data_dir: str | None, data_name: str | None) -> None:
    """Put the place of the data, or other data, into a run's config, where they are given.

    Raises:
      UserError: a folder for a run whose images were not read as they are needed; a place to look
        in for data that are a folder themselves.
    """
    config.data.dir = data_dir or config.data.dir
    config.data.name = data_name or config.data.name
    if data_dir and _is_folder(config):
        raise UserError(
            f"`data_dir`={data_dir} is where data are looked for by their name, and here they are "
            f"the folder {config.data.name}: give the path of that folder as `data_name`"
        )
    if data_name and _is_folder(config) and not config.data.image_size:
        raise UserError(
            f"`data_name`={data_name} is a folder, and the run was trained on images that are kept "
            "as they are: give the name of such data, or train with `config.data.image_size`"
        )


def _is_folder(config: ConfigDict) -> bool:
    """Whether the data of a config are a folder of class folders, there or not."""
    data = config.data
    return data.name not in DATASETS and path_of(data.name, data.dir or None) is not None


def framing(config: ConfigDict) -> Framing:
    """How images of any size are brought to that of a config."""
    data = config.data
    return Framing(
        data.image_size, data.crop_area, data.crop_ratio, data.resize, data.interpolation
    )


def network(config: ConfigDict, facts: DataFacts) -> nnx.Module:
    """The network of a config, with fresh parameters."""
    model = config.model
    return build_model(
        model.name,
        model.width,
        image_shape=facts.image_shape,
        num_classes=facts.num_classes,
        neuron=_neuron(config),
        dtype=model.dtype,
        seed=config.seed,
    )


def _neuron(config: ConfigDict) -> Callable:
    """What the layers of a network are made with."""
    found = NEURONS[config.activation].make(config)
    what = f"what `make` of {NEURONS.words(config.activation)} gives"
    check_call(what, found, "currents", "v0")
    return found


def convert(
    model: nnx.Module,
    config: ConfigDict,
    facts: DataFacts,
    dataset: Dataset | None,
    percentile: float | None = None,
    thresholds: dict[str, float] | None = None,
) -> nnx.Module:
    """The spiking network of a run's ANN, for inference; see `conversion.convert`.

    ReLUs without `thresholds` are calibrated on `CALIBRATION` images drawn from the training split
    of `dataset`, which nothing else reads, with `percentile` (None: `conversion.PERCENTILE`).
    """
    model = nnx.view(model, use_running_average=True)
    if config.activation == "relu" and thresholds is None:
        pool = dataset.train.images
        order = np.random.default_rng(0).permutation(len(pool))[:CALIBRATION]
        some = Split(pool[order], np.zeros(len(order), np.int32))  # labels that nothing reads
        images = (images for images, _ in batches(some, config, facts))
        percentile = conversion.PERCENTILE if percentile is None else percentile
        thresholds = conversion.calibrate(model, images, percentile)
    return conversion.convert(model, facts.image_shape, thresholds, strict(config))


def unconvertible(config: ConfigDict, facts: DataFacts) -> str | None:
    """What keeps the ANN of a config from becoming a spiking network, in words, or None."""
    if not is_ann(config):
        return None
    model = nnx.eval_shape(lambda: network(config, facts))
    return conversion.unconvertible(model, facts.image_shape)


def batches(
    split: Split | Stream, config: ConfigDict, facts: DataFacts
) -> Iterator[tuple[jax.Array, np.ndarray]]:
    """(normalised images, labels) of a split, `BATCH` at a time."""
    for start in range(0, len(split.labels), BATCH):
        images = jnp.asarray(split.images[start : start + BATCH])
        inputs = normalize(images, *facts.normalization, dtype=config.model.dtype)
        yield inputs, split.labels[start : start + BATCH]


def policy(config: ConfigDict, facts: DataFacts) -> nnx.Module:
    """The policy network of a config, with fresh parameters."""
    return build_policy(
        config.policy.width,
        image_shape=facts.image_shape,
        candidates=len(config.policy.candidates),
        classes=facts.num_classes if config.policy.auxiliary else 0,
        dtype=config.model.dtype,
        seed=config.seed,
    )
