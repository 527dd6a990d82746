"""What can't be trained, said before anything is compiled."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from seenn_jax import devices
from seenn_jax.config import default_config, is_policy
from seenn_jax.data import Dataset
from seenn_jax.data.augment import AUGMENTATIONS, augmented_images
from seenn_jax.data.events import i2e
from seenn_jax.data.events.frames import BY
from seenn_jax.data.images import INTERPOLATIONS
from seenn_jax.data.sources import DATASETS, RECORDED, UNBINNED
from seenn_jax.errors import UserError, check_choice
from seenn_jax.models import DTYPES, MODELS, NEURONS, is_ann
from seenn_jax.models.neurons import RESETS, SURROGATES
from seenn_jax.plugins import load_plugins
from seenn_jax.run import build
from seenn_jax.run.settings import misfit, value_of
from seenn_jax.ticks import frames
from seenn_jax.training.gradients import GRADIENTS
from seenn_jax.training.losses import LOSSES
from seenn_jax.training.optimizer import OPTIMIZERS, SCHEDULES
from seenn_jax.training.policy.objective import OBJECTIVES, check_candidates

CHOICES = {
    "data.bin_by": BY,
    "data.encoding": ("", "i2e"),
    "data.interpolation": INTERPOLATIONS,
    "i2e.interpolation": i2e.INTERPOLATIONS,
    "model.name": MODELS,
    "model.dtype": DTYPES,
    "model.surrogate": SURROGATES,
    "model.reset": RESETS,
    "activation": NEURONS,
    "loss": LOSSES,
    "gradient": GRADIENTS,
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": SCHEDULES,
}
AT_LEAST_0 = ("at least 0", lambda value: value >= 0)
AT_LEAST_1 = ("at least 1", lambda value: value >= 1)
ABOVE_0 = ("above 0", lambda value: value > 0)
FRACTION = ("from 0 to 1", lambda value: 0 <= value <= 1)
BELOW_1 = ("at least 0 and below 1", lambda value: 0 <= value < 1)
NUMBERS = {
    "timesteps": AT_LEAST_1,
    "epochs": ("from 1 to 1,000,000", lambda value: 1 <= value <= 1_000_000),
    "batch_size": AT_LEAST_1,
    "accumulate": AT_LEAST_1,
    "validate_every": AT_LEAST_1,
    "data.resize": AT_LEAST_1,
    "checkpoint_every": AT_LEAST_0,
    "rewinds": AT_LEAST_0,
    "data.image_size": ("from 0 to 10,000", lambda value: 0 <= value <= 10_000),
    "data.bin_ms": AT_LEAST_0,
    "data.event_side": ("from 0 to 10,000", lambda value: 0 <= value <= 10_000),
    "i2e.side": ("from 1 to 10,000", lambda value: 1 <= value <= 10_000),
    "i2e.ratio": BELOW_1,
    "data.workers": ("at least -1 and at most 1,000", lambda value: -1 <= value <= 1000),
    "quantization_levels": AT_LEAST_1,
    "initial_threshold": ABOVE_0,
    "model.width": AT_LEAST_1,
    "model.tau": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "model.threshold": ABOVE_0,
    "model.largest_spike": ("from 1 to 127", lambda value: 1 <= value <= 127),
    "tet_weight": FRACTION,
    "tet_distillation": AT_LEAST_0,
    "teacher_weight": FRACTION,
    "teacher_temperature": ABOVE_0,
    "label_smoothing": BELOW_1,
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.momentum": BELOW_1,
    "optimizer.weight_decay": AT_LEAST_0,
    "ema": BELOW_1,
    "augment.crop": ("from 0 to 1,000", lambda value: 0 <= value <= 1000),
    "augment.crop_edge": ("from 0 to 1,000", lambda value: 0 <= value <= 1000),
    "augment.cutout": AT_LEAST_0,
    "augment.roll": AT_LEAST_0,
    "augment.rotate": AT_LEAST_0,
    "augment.mixup": AT_LEAST_0,
    "augment.cutmix": AT_LEAST_0,
}
RANGES = {  # from a smallest to a largest value
    "data.crop_area": ("above 0 and at most 1", lambda low, high: 0 < low <= high <= 1),
    "data.crop_ratio": ("above 0", lambda low, high: 0 < low <= high),
}
OF_IMAGES = ("crop_area", "crop_ratio", "resize", "interpolation")  # that are brought to one size
OF_RECORDINGS = ("bin_by", "bin_ms", "event_side", "saturate")
OF_A_POLICY = {
    "policy.width": AT_LEAST_1,
    "policy.beta": AT_LEAST_0,
    "policy.entropy": AT_LEAST_0,
    "policy.auxiliary": AT_LEAST_0,
    "policy.copies": ("from 1 to 10,000", lambda value: 1 <= value <= 10_000),
    "policy.joint_learning_rate": ABOVE_0,
}
# What a policy's training has no use for, and what is then the only value.
NOT_OF_A_POLICY = {
    "augment.mixup": (0, "0 for a policy, whose images need one label"),
    "augment.cutmix": (0, "0 for a policy, whose images need one label"),
    "data.image_size": (0, "0 for a policy, whose images are in memory"),
    "accumulate": (1, "1 for a policy, whose batches are not divided"),
    "gradient": ("bptt", "'bptt' for a policy, which looks at all ticks"),
    "random_timesteps": (False, "False for a policy, which is for all timesteps"),
    "ema": (0, "0 for a policy, which has no average of its weights"),
}
# Settings that do nothing unless a config is of such a kind. Not those of a spiking network in an
# ordinary one, nor of a teacher where there is none: a config is tried without it.
IDLE = (
    (
        ("init_from",),
        "a policy, with `config.policy.candidates` (a network starts from `config.init_weights`)",
        is_policy,
    ),
    (
        ("joint_epochs", *OF_A_POLICY, "policy.objective"),
        "a policy, with `config.policy.candidates`",
        is_policy,
    ),
    (
        ("training_levels", "quantization_levels", "initial_threshold"),
        "an ordinary network, with `config.activation`=qcfs",
        is_ann,
    ),
    (
        ("model.largest_spike",),
        "integer spikes, with `config.activation`=ilif",
        lambda config: config.activation == "ilif",
    ),
    (("tet_weight",), "`config.loss`=tet", lambda config: config.loss == "tet"),
    (
        ("optimizer.momentum", "optimizer.nesterov"),
        "`config.optimizer.name`=sgd",
        lambda config: config.optimizer.name == "sgd",
    ),
    (("random_timesteps",), "`config.timesteps` above 1", lambda config: config.timesteps > 1),
)


def check_config(config: ConfigDict) -> None:
    """Raise a UserError for the first setting that can't be, without looking at the data.

    The plugins are loaded on the way: what may be chosen is theirs too.
    """
    wrong = misfit(config)
    if wrong:
        raise UserError(f"{wrong[1]}; set `config.{wrong[0]}`")
    load_plugins(config.plugins)
    for key, allowed in CHOICES.items():
        check_choice(f"`config.{key}`", value_of(config, key), allowed)
    if is_ann(config) and config.loss != "mean_ce":
        raise UserError(
            f"`config.loss` is {config.loss!r}, a loss over timesteps, and `config.activation`="
            f"{config.activation} trains an ordinary network, with 'mean_ce': set "
            "`config.loss`=mean_ce"
        )
    for key, (allowed, good) in NUMBERS.items():
        _check(config, key, allowed, good)
    _check_idle(config)
    _check_framing(config)
    _check_encoding(config)
    _check_binning(config)
    _check_epochs(config, "inherit_epochs")
    if config.loss != "tet":
        _check(config, "tet_distillation", f"0 for the loss {config.loss!r}", lambda v: v == 0)
    if config.gradient == "last":
        _check_single_ticks(config)
    if is_ann(config):
        allowed = "False for an ordinary network, which has one timestep"
        _check(config, "random_timesteps", allowed, lambda v: not v)
    for name in config.augment:
        check_choice("setting of `config.augment`", name, AUGMENTATIONS)
    if config.augment.mixup:
        allowed = "0 where `config.augment.mixup` is not"
        _check(config, "augment.cutmix", allowed, lambda v: v == 0)
    if is_policy(config):
        _check_policy(config)
    if config.optimizer.nesterov:
        _check(config, "optimizer.momentum", "above 0 for Nesterov's momentum", lambda v: v > 0)


def _check_idle(config: ConfigDict) -> None:
    for keys, what, used in IDLE:
        for key in keys if not used(config) else ():
            value, usual = value_of(config, key), value_of(default_config(), key)
            if value != usual:
                raise UserError(
                    f"`config.{key}` is {value!r}, which does nothing here: it is for {what}; "
                    f"leave it at {usual!r}"
                )


def _check_framing(config: ConfigDict) -> None:
    for key, (allowed, good) in RANGES.items():
        value = value_of(config, key)
        if not (len(value) == 2 and good(*value)):
            raise UserError(
                f"`config.{key}` is {value}: it must be a smallest and a largest number, "
                f"{allowed}, such as {value_of(default_config(), key)}; set `config.{key}`"
            )
    if not config.data.image_size:
        for key in OF_IMAGES:
            if config.data[key] != default_config().data[key]:
                raise UserError(
                    f"`config.data.{key}` is {config.data[key]} and `config.data.image_size` is 0, "
                    "so that images are kept as they are: set `config.data.image_size`=224 or the "
                    f"like, or leave `config.data.{key}` out"
                )


def _check_single_ticks(config: ConfigDict) -> None:
    """Where each tick has a gradient of its own, the loss must be a mean over them."""
    if is_ann(config):
        only = "an ordinary network, which has one timestep"
        _check(config, "gradient", f"'bptt' for {only}", lambda v: v == "bptt")
    tick_by_tick = "for `config.gradient`=last, which takes the loss of each tick by itself"
    _check(config, "loss", f"'tet' {tick_by_tick}", lambda v: v == "tet")
    _check(config, "tet_distillation", f"0 {tick_by_tick}", lambda v: v == 0)


def _check_encoding(config: ConfigDict) -> None:
    if not config.data.encoding:
        if config.i2e != default_config().i2e:
            raise UserError(
                "`config.i2e` is set and `config.data.encoding` is '', so that nothing becomes "
                "events: set that to i2e, or leave `config.i2e` out"
            )
        return
    build.encoding(config)
    for what, there in (
        (f"`config.activation`={config.activation}, an ordinary network", is_ann(config)),
        ("`config.teacher`, which is shown still images", config.teacher),
        ("`config.policy.candidates`, a policy, which sees a still image", is_policy(config)),
    ):
        if there:
            raise UserError(
                f"`config.data.encoding` is {config.data.encoding!r}, which is not for {what}: "
                "leave one of them out"
            )


def _check_binning(config: ConfigDict) -> None:
    """A plugin's data may be recordings too."""
    if config.data.name in DATASETS and config.data.name not in UNBINNED:
        return
    for key in OF_RECORDINGS:
        if config.data[key] != default_config().data[key]:
            raise UserError(
                f"`config.data.{key}` is {config.data[key]}, which is for recordings of event "
                f"cameras, and `config.data.name` is {config.data.name!r}: leave it out, or give "
                f"one of {', '.join(RECORDED)}"
            )


def _check_policy(config: ConfigDict) -> None:
    check_candidates(config.policy.candidates, config.timesteps)
    check_choice("`config.policy.objective`", config.policy.objective, OBJECTIVES)
    for key, (allowed, good) in OF_A_POLICY.items():
        _check(config, key, allowed, good)
    _check_epochs(config, "joint_epochs")
    if config.teacher:
        raise UserError(
            f"`config.teacher` is {config.teacher!r}, and a policy is trained on its network's "
            "answers alone: set `config.teacher`='', and train the network with a teacher"
        )
    if config.init_weights:
        raise UserError(
            f"`config.init_weights` is {config.init_weights!r}, and a policy is for the network of "
            "a run: set `config.init_weights`='', and `config.init_from` to that run"
        )
    if is_ann(config):
        _check(config, "joint_epochs", "0 for a converted network", lambda v: v == 0)
    for key, (only, why) in NOT_OF_A_POLICY.items():
        _check(config, key, why, lambda value, only=only: value == only)


def _check_epochs(config: ConfigDict, key: str) -> None:
    allowed = f"from 0 to `config.epochs` = {config.epochs}"
    _check(config, key, allowed, lambda value: 0 <= value <= config.epochs)


def _check(config: ConfigDict, key: str, allowed: str, good: Callable[[Any], bool]) -> None:
    value = value_of(config, key)
    if not good(value):
        raise UserError(f"`config.{key}` is {value}: it must be {allowed}; set `config.{key}`")


def open_data(config: ConfigDict) -> Dataset:
    """The data of a config.

    Raises:
      UserError: they are not there, of one class, fewer than a batch, or event data for an ANN;
        the devices can't share a batch.
    """
    devices.check_batch(config.batch_size, config.accumulate)
    dataset = build.dataset(config)
    if dataset.num_classes < 2:
        only = "".join(f", {name!r}" for name in dataset.classes)
        raise UserError(
            f"`config.data.name` is {config.data.name!r}, which has one class{only}: give data of "
            "at least 2, or the path of that folder, if those of the classes lie in it"
        )
    if not config.data.image_size and frames(dataset.train.images):
        _check_for_events(config)
    if config.batch_size > dataset.train.size:
        raise UserError(
            f"`config.batch_size` is {config.batch_size} and {config.data.name} has only "
            f"{dataset.train.size} training images: set `config.batch_size` to at most that"
        )
    _check_augmentations(config, dataset)
    return dataset


def _check_augmentations(config: ConfigDict, dataset: Dataset) -> None:
    """Let them be traced, to see whether they can be for images of this size."""
    side = config.data.image_size
    shape = (side, side, 3) if side else dataset.train.images.shape[1:]
    one = np.ones(shape[-1], np.float32)
    jax.eval_shape(
        lambda key, images: augmented_images(key, images, config.augment, (one, one), "float32"),
        jax.random.key(0),
        jax.ShapeDtypeStruct((2, *shape), np.uint8),
    )


def _check_for_events(config: ConfigDict) -> None:
    if is_ann(config):
        raise UserError(
            f"`config.activation`={config.activation} trains an ordinary network of still images, "
            f"and {config.data.name} is event data: set `config.activation`=lif"
        )
    if config.augment.autoaugment:
        raise UserError(
            f"`config.augment.autoaugment` is for colour images, and {config.data.name} is event "
            "data: set it to false; roll and rotate are for event data too"
        )
