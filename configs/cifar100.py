"""SEENN-I on CIFAR-100: spiking ResNet-19 at T = 4 (Li et al., NeurIPS 2023, table 1).

    python train.py --config=configs/cifar100.py
    python evaluate.py --exit=confidence

As configs/cifar10.py.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "cifar100"
    config.data.validation = 5000
    config.augment.autoaugment = True
    config.augment.crop = 4
    config.augment.flip = True
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
