"""SEENN-I on ImageNet: spiking ResNet-34 at T = 4 (Li et al., NeurIPS 2023, table 2).

    python train.py --config=configs/imagenet.py
    python evaluate.py --exit=confidence

Needs imagenet2012 as TFDS prepares it (docs/imagenet.md), or any folder of class folders of images:
--config.data.name=folder:/path. Images are decoded by a process for each core, so that the number
of cores may limit the epochs at T = 1. Stopped at any time, it loses 1,000 steps at most. README.md
has the measured speeds; the schedule has not been trained to its end.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "imagenet2012"
    config.data.image_size = 224
    config.data.validation = 10_000
    config.augment.flip = True

    config.model.name = "resnet34"
    config.model.width = 64
    config.model.dtype = "bfloat16"
    config.timesteps = 4

    config.epochs = 100
    config.inherit_epochs = 75
    config.batch_size = 256
    config.label_smoothing = 0.1
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-5
    config.ema = 0.9999
    config.validate_every = 5
    config.checkpoint_every = 1000
    return config
