"""SEENN-I on CIFAR-10: spiking ResNet-19 at T = 4 (Li et al., NeurIPS 2023, table 1).

    python train.py --config=configs/cifar10.py
    python evaluate.py --exit=confidence

One NVIDIA GPU of the Hopper generation trains it in under 10 minutes; README.md has the measured
accuracy.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation = 5000
    config.augment.crop = 4
    config.augment.flip = True
    config.augment.autoaugment = True
    config.augment.cutout = 12

    config.model.name = "resnet19"
    config.model.width = 128
    config.model.dtype = "bfloat16"
    config.timesteps = 4

    config.epochs = 162
    config.inherit_epochs = 130
    config.batch_size = 256
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.ema = 0.999
    config.validate_every = 10
    return config
