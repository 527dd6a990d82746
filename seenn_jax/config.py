"""Every setting of an experiment with its default; the files in configs/ say what differs."""

import math

from ml_collections import ConfigDict

from seenn_jax.errors import UserError, check_choice
from seenn_jax.losses import LOSSES
from seenn_jax.models import DTYPES, MODELS
from seenn_jax.neurons import SURROGATES
from seenn_jax.policy import OBJECTIVES, check_candidates

SCHEDULES = ("cosine", "onecycle")
ACTIVATIONS = ("lif", "qcfs", "relu")


def default_config() -> ConfigDict:
    """The defaults. The result is locked: setting an unknown key raises AttributeError."""
    config = ConfigDict()
    config.seed = 0

    config.data = ConfigDict()
    # Or "digits_dvs", "cifar10_dvs" (event data), or any TFDS image classification data set.
    config.data.name = "digits"
    # Where TFDS prepared it, "" is TFDS's own default; of cifar10_dvs, see its config.
    config.data.dir = ""
    config.data.note = ""  # a remark on this copy of the data, printed beside every figure on it
    # Leave out files that can't be read, say which, and count them; else the first one is an error.
    config.data.skip_corrupt = False
    config.data.validation = 200  # images held out of the training split, the same for every seed
    # Images are kept in memory as they are; or, with a side in pixels, read as they are needed and
    # cut to squares of it, at random to train on. For data that don't fit, and "folder:/path".
    config.data.image_size = 0
    config.data.workers = -1  # processes that read them; -1 is one for each core, 0 none

    # On the device, drawn anew for every image and epoch; 0 or False turns one off.
    config.augment = ConfigDict()
    config.augment.crop = 0  # pixels of padding before a random crop
    config.augment.flip = False  # left to right
    config.augment.cutout = 0  # side of an erased square
    config.augment.autoaugment = False  # the policy learnt for CIFAR-10, before all others
    config.augment.roll = 0  # largest shift along each axis, in pixels, cyclical
    config.augment.rotate = 0.0  # largest turn, in degrees
    config.augment.mixup = 0.0  # alpha of its Beta distribution
    config.augment.cutmix = 0.0  # likewise; not both

    config.model = ConfigDict()
    config.model.name = "resnet8"
    config.model.width = 16  # channels of the first layer
    config.model.tau = 0.5  # decay of the membrane a timestep
    config.model.threshold = 1.0  # membrane at which a neuron fires
    config.model.surrogate = "dspike"
    config.model.dtype = "float32"  # of activations; parameters stay float32

    # "lif" trains a spiking network. The others train an ordinary one, at one timestep, which
    # evaluate.py converts: "qcfs" quantised activations of learnt thresholds, "relu" its baseline.
    config.activation = "lif"
    config.quantization_levels = 8  # L of "qcfs"
    # L in training, shared among the samples of a batch, such as (1, 2, 4, 8): accurate at early
    # timesteps once converted. () for quantization_levels.
    config.training_levels = ()
    config.initial_threshold = 2.0  # lambda of "qcfs", from which it is learnt
    # T, and the frames of event data; of a converted network, what it is evaluated with.
    config.timesteps = 4
    config.epochs = 30
    # Of these, the first so many run one timestep only (time inheritance training, Deng et al.,
    # ICLR 2022, section 4.3): a good start for T timesteps at 1/T of the cost.
    config.inherit_epochs = 0
    config.batch_size = 64  # of a step, on all devices together
    # Parts of a batch whose gradients are computed one after the other and averaged, for memory;
    # BatchNorm normalises each by itself.
    config.accumulate = 1
    config.remat = False  # compute BatchNorm and neurons again for the gradient, for memory

    config.loss = "tet"  # teaches each tick; or "mean_ce", the answer at T
    config.tet_weight = 1e-3  # of TET's mean-squared error
    config.tet_distillation = 0.0  # weight in TET of each tick learning the answer of all ticks
    config.label_smoothing = 0.0

    # The run of an ordinary network, which is shown the same images and whose answer each tick
    # learns too (distillation, Hinton et al. 2015); "" for none.
    config.teacher = ""
    config.teacher_weight = 0.5  # of its part of the loss, from 0 to 1; the rest is config.loss
    config.teacher_temperature = 3.0  # divides both networks' logits

    config.optimizer = ConfigDict()  # SGD; weight decay on kernels only
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "cosine"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.ema = 0.0  # decay a step of an average of the weights, which is then what is evaluated

    # SEENN-II: with candidates, train.py trains a policy for the spiking network of another run.
    config.init_from = ""  # that run; "" is the newest one that fits, beside the policy's own
    config.joint_epochs = 0  # of config.epochs, the last so many train the network too
    config.policy = ConfigDict()
    config.policy.candidates = ()  # timesteps to choose from, such as (1, 2, 4)
    config.policy.width = 16  # channels of the policy network's first stage
    config.policy.objective = "expectation"  # exact, or "reinforce", by sampled actions
    config.policy.beta = 1.0  # penalty of a wrong answer
    config.policy.entropy = 0.0  # weight of the entropy of its choices, which is rewarded
    # Weight of the cross-entropy to the network's own answer at the first candidate, which the
    # policy network learns beside its choices (distillation, Hinton et al. 2015): a network that
    # fits its training images leaves few mistakes to learn from what is difficult, but says of
    # every image how sure it is.
    config.policy.auxiliary = 0.0
    # Augmented copies of the training images for which the network's answers are computed, once;
    # epoch after epoch the policy sees one after the other.
    config.policy.copies = 10
    config.policy.joint_learning_rate = 0.01  # of the network in the joint epochs

    config.validate_every = 1  # epochs between validations; each one writes a checkpoint
    config.checkpoint_every = 0  # steps between further checkpoints, to resume within an epoch
    config.lock()
    return config


def is_ann(config: ConfigDict) -> bool:
    """Whether the config trains an ordinary network, to be converted."""
    return config.activation != "lif"


def is_policy(config: ConfigDict) -> bool:
    """Whether the config trains a policy (SEENN-II)."""
    return len(config.policy.candidates) > 0


def training_timesteps(config: ConfigDict) -> int:
    """Timesteps that the trained network runs: T, or 1 of an ordinary one."""
    return 1 if is_ann(config) else config.timesteps


def check_config(config: ConfigDict) -> None:
    """Raise a UserError for the first setting that can't be, without looking at the data."""
    check_choice("config.model.name", config.model.name, MODELS)
    check_choice("config.model.dtype", config.model.dtype, DTYPES)
    check_choice("config.model.surrogate", config.model.surrogate, SURROGATES)
    check_choice("config.activation", config.activation, ACTIVATIONS)
    check_choice("config.loss", config.loss, LOSSES)
    check_choice("config.optimizer.schedule", config.optimizer.schedule, SCHEDULES)

    if is_ann(config) and config.loss != "mean_ce":
        raise UserError(
            f"config.loss is {config.loss!r}, a loss over timesteps, and config.activation="
            f"{config.activation} trains an ordinary network, with 'mean_ce': set "
            "--config.loss=mean_ce"
        )

    def check(key, allowed, good):
        value = config
        for part in key.split("."):
            value = value[part]
        if not (math.isfinite(value) and good(value)):
            raise UserError(f"config.{key} is {value}: it must be {allowed}; set --config.{key}")

    check("seed", "from 0 to 2^32 - 1", lambda v: 0 <= v < 2**32)
    for key in (
        "timesteps",
        "epochs",
        "batch_size",
        "accumulate",
        "validate_every",
        "data.validation",
    ):
        check(key, "at least 1", lambda v: v >= 1)
    for key in ("checkpoint_every", "data.image_size"):
        check(key, "at least 0", lambda v: v >= 0)
    check("data.workers", "at least -1", lambda v: v >= -1)
    check("quantization_levels", "at least 1", lambda v: v >= 1)
    for levels in config.training_levels:
        if levels < 1:
            raise UserError(
                f"config.training_levels has {levels}: levels must be at least 1; give some such "
                "as (1, 2, 4, 8), or () for config.quantization_levels"
            )
    check("initial_threshold", "above 0", lambda v: v > 0)
    check("model.width", "at least 1", lambda v: v >= 1)
    check("model.tau", "above 0 and at most 1", lambda v: 0 < v <= 1)
    check("model.threshold", "above 0", lambda v: v > 0)
    epochs = config.epochs
    check("inherit_epochs", f"from 0 to config.epochs = {epochs}", lambda v: 0 <= v <= epochs)
    check("tet_weight", "from 0 to 1", lambda v: 0 <= v <= 1)
    check("tet_distillation", "at least 0", lambda v: v >= 0)
    if config.loss != "tet":
        check("tet_distillation", f"0 for the loss {config.loss!r}", lambda v: v == 0)
    check("teacher_weight", "from 0 to 1", lambda v: 0 <= v <= 1)
    check("teacher_temperature", "above 0", lambda v: v > 0)
    check("label_smoothing", "at least 0 and below 1", lambda v: 0 <= v < 1)
    check("optimizer.learning_rate", "above 0", lambda v: v > 0)
    check("optimizer.momentum", "at least 0 and below 1", lambda v: 0 <= v < 1)
    check("optimizer.weight_decay", "at least 0", lambda v: v >= 0)
    check("ema", "at least 0 and below 1", lambda v: 0 <= v < 1)
    for key in ("crop", "cutout", "roll", "rotate", "mixup", "cutmix"):
        check(f"augment.{key}", "at least 0", lambda v: v >= 0)
    if config.augment.mixup:
        check("augment.cutmix", "0 where config.augment.mixup is not", lambda v: v == 0)
    if is_policy(config):
        check_candidates(config.policy.candidates, config.timesteps)
        check_choice("config.policy.objective", config.policy.objective, OBJECTIVES)
        check("policy.width", "at least 1", lambda v: v >= 1)
        check("policy.beta", "at least 0", lambda v: v >= 0)
        check("policy.entropy", "at least 0", lambda v: v >= 0)
        check("policy.auxiliary", "at least 0", lambda v: v >= 0)
        check("policy.copies", "at least 1", lambda v: v >= 1)
        check("policy.joint_learning_rate", "above 0", lambda v: v > 0)
        check("joint_epochs", f"from 0 to config.epochs = {epochs}", lambda v: 0 <= v <= epochs)
        if config.teacher:
            raise UserError(
                f"config.teacher is {config.teacher!r}, and a policy is trained on its network's "
                "answers alone: set --config.teacher='', and train the network with a teacher"
            )
        if is_ann(config):
            check("joint_epochs", "0 for a converted network", lambda v: v == 0)
        for key in ("mixup", "cutmix"):
            check(f"augment.{key}", "0 for a policy, whose images need one label", lambda v: v == 0)
        check("data.image_size", "0 for a policy, whose images are in memory", lambda v: v == 0)
        check("accumulate", "1 for a policy, whose batches are not divided", lambda v: v == 1)
        check("ema", "0 for a policy, which has no average of its weights", lambda v: v == 0)
    if config.optimizer.nesterov:
        check("optimizer.momentum", "above 0 for Nesterov's momentum", lambda v: v > 0)
