"""Every setting of an experiment with its default; the files in configs/ say what differs."""

from ml_collections import ConfigDict, config_dict


def default_config() -> ConfigDict:
    """The defaults. The result is locked: setting an unknown key raises AttributeError."""
    config = ConfigDict()
    config.seed = 0
    # Modules that add rows to the tables (a neuron, a network, data ...), or paths of .py files:
    # see docs/adding.md. Training, evaluation and prediction import them.
    config.plugins = ()
    for settings in (
        _data,
        _augment,
        _i2e,
        _model,
        _activation,
        _time,
        _loss,
        _optimizer,
        _policy,
        _saving,
    ):
        settings(config)
    config.lock()
    return config


def is_policy(config: ConfigDict) -> bool:
    """Whether the config trains a policy (SEENN-II)."""
    return len(config.policy.candidates) > 0


def _data(config: ConfigDict) -> None:
    """What is learnt from."""
    config.data = ConfigDict()
    # Or "cifar10", "cifar100", "tiny_imagenet"; "digits_dvs", "cifar10_dvs", "dvs128_gesture",
    # "n_mnist", "n_caltech101", "shd", "ssc" (event data); any TFDS image classification data set,
    # or a folder of class folders: "/path", "./path", "folder:path".
    config.data.name = "digits"
    # Where TFDS prepared it, or the archive of CIFAR lies; "" is TFDS's own default. Of
    # event data and Tiny ImageNet, their folder: see docs/event-data.md.
    config.data.dir = ""
    config.data.download = False  # fetch the archive of CIFAR where it is not there
    config.data.note = ""  # a remark on this copy of the data, printed beside every figure on it
    # Leave out files that can't be read, say which, and count them; else the first one is an error.
    config.data.skip_corrupt = False
    # Images held out of the training split, the same for every seed; or, below 1, a fraction of it.
    config.data.validation = config_dict.placeholder(object)
    config.data.validation = 200
    # Learn these too. Then nothing can be chosen on them: the last checkpoint is taken, and
    # evaluation needs a threshold that was fixed beforehand.
    config.data.train_on_validation = False
    # Recordings of event cameras become T frames of equally many events each, by "count", or of
    # equal length, by "duration".
    config.data.bin_by = "count"
    config.data.bin_ms = 0.0  # milliseconds of a frame by duration; 0 is the T-th part of each
    config.data.event_side = 0  # pixels of the sides of their frames; 0 is the data set's own
    # Cut off the counts of a cell at what a byte holds (63.75 events of CIFAR10-DVS), as runs that
    # are older than this setting did; the log says how many events are lost.
    config.data.saturate = False
    # "i2e" shows the network T ticks of events that are made of still images, on the device; see
    # config.i2e.
    config.data.encoding = ""
    # Images are kept in memory as they are; or, with a side in pixels, read as they are needed and
    # cut to squares of it, at random to train on. For data that don't fit, and folders.
    config.data.image_size = 0
    config.data.crop_area = (0.08, 1.0)  # smallest and largest random part, of the image ...
    config.data.crop_ratio = (3 / 4, 4 / 3)  # ... and ratio of its width to its height
    config.data.resize = 256 / 224  # of the shorter side to that of the middle, to evaluate
    config.data.interpolation = "bilinear"
    config.data.workers = -1  # processes that read them; -1 is one for each core, 0 none


def _augment(config: ConfigDict) -> None:
    """On the device, drawn anew for every image and epoch; 0 or False turns one off."""
    config.augment = ConfigDict()
    config.augment.crop = 0  # pixels of padding before a random crop
    config.augment.crop_edge = 0  # the same with the colours of the border, as for I2E
    config.augment.flip = False  # left to right
    config.augment.cutout = 0  # side of an erased square
    config.augment.autoaugment = False  # the policy learnt for CIFAR-10, before all others
    config.augment.roll = 0  # largest shift along each axis, in pixels, cyclical
    config.augment.rotate = 0.0  # largest turn, in degrees
    config.augment.mixup = 0.0  # alpha of its Beta distribution
    config.augment.cutmix = 0.0  # likewise; not both


def _i2e(config: ConfigDict) -> None:
    """Events of still images (AAAI 2026), with config.data.encoding = "i2e"."""
    config.i2e = ConfigDict()
    config.i2e.side = 128  # pixels to which images are brought
    config.i2e.ratio = 0.07  # of an image's range of brightness, above which a change is an event
    config.i2e.interpolation = "bicubic"


def _model(config: ConfigDict) -> None:
    """The network."""
    config.model = ConfigDict()
    config.model.name = "resnet8"
    config.model.width = 16  # channels of the first layer
    config.model.tau = 0.5  # decay of the membrane a timestep
    config.model.threshold = 1.0  # membrane at which a neuron fires
    config.model.fires = ">="  # at its threshold and above it; or ">", as some networks of others
    config.model.surrogate = "dspike"
    config.model.reset = "hard"  # to 0 where a neuron fires; or "soft", by its threshold
    config.model.detach_reset = False  # let no gradient flow through the reset
    # D of "ilif": the largest spike, of one timestep, which is up to so many binary ones
    config.model.largest_spike = 4
    config.model.dtype = "float32"  # of activations; parameters stay float32
    # Start from these (fine-tuning): the name of weights, a .safetensors file, or a run; "" for
    # none. The same architecture; the last layer is new for other classes.
    config.init_weights = ""


def _activation(config: ConfigDict) -> None:
    """What its layers are made of."""
    # "lif" trains a spiking network. So do "plif", of a learnt decay that begins as
    # config.model.tau, and "ilif", whose spikes are integers and whose reset is soft. "qcfs" and
    # "relu" train an ordinary one, at one timestep, which evaluate.py converts: quantised
    # activations of learnt thresholds, and the baseline.
    config.activation = "lif"
    config.quantization_levels = 8  # L of "qcfs"
    # L in training, shared among the samples of a batch, such as (1, 2, 4, 8): accurate at early
    # timesteps once converted. () for quantization_levels.
    config.training_levels = ()
    config.initial_threshold = 2.0  # lambda of "qcfs", from which it is learnt


def _time(config: ConfigDict) -> None:
    """Timesteps, epochs and batches."""
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
    # The same seed gives the same network on a GPU too, where operations that add up in any order,
    # and algorithms that are chosen by a stopwatch, would give another one each time.
    config.deterministic = True
    config.remat = False  # compute BatchNorm and neurons again for the gradient, for memory
    # Through all ticks, or "last": within each tick alone (SLTT), for memory that does not grow
    # with T. Of the loss "tet", which is a mean over ticks.
    config.gradient = "bptt"
    # Draw a number of timesteps from 1 to T for each step, to learn each of them. The program is
    # compiled for each, and takes (T + 1) / 2 T of the time.
    config.random_timesteps = False


def _loss(config: ConfigDict) -> None:
    """What is taught."""
    config.loss = "tet"  # teaches each tick; or "mean_ce", the answer at T
    config.tet_weight = 1e-3  # of TET's mean-squared error
    config.tet_distillation = 0.0  # weight in TET of each tick learning the answer of all ticks
    config.label_smoothing = 0.0

    # The run of an ordinary network, which is shown the same images and whose answer each tick
    # learns too (distillation, Hinton et al. 2015); "" for none.
    config.teacher = ""
    config.teacher_weight = 0.5  # of its part of the loss, from 0 to 1; the rest is config.loss
    config.teacher_temperature = 3.0  # divides both networks' logits


def _optimizer(config: ConfigDict) -> None:
    """How it is learnt."""
    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # with momentum; or "adamw"; weight decay on kernels only
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "cosine"  # or "warmup_cosine", "onecycle"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.ema = 0.0  # decay a step of an average of the weights, which is then what is evaluated


def _policy(config: ConfigDict) -> None:
    """SEENN-II."""
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


def _saving(config: ConfigDict) -> None:
    """Validation and checkpoints."""
    config.validate_every = 1  # epochs between validations; each one writes a checkpoint
    config.checkpoint_every = 0  # steps between further checkpoints, to resume within an epoch
    # How often a run may go back to its latest checkpoint, and see other batches from there, where
    # a loss, a gradient or a logit is not finite; then, and with 0 at once, it ends.
    config.rewinds = 0
