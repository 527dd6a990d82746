"""SEENN-I on I2E-CIFAR10: events of CIFAR-10's images, T = 8 (Ma et al., AAAI 2026).

    python train.py --config=configs/i2e_cifar10.py
    python evaluate.py --workdir=runs/i2e_cifar10

Needs CIFAR-10 and nothing else: images become events on the device, in training after a random crop
and flip and by random moves (seenn_jax/data/events/i2e.py), as in the paper ("baseline-II"). Its
network, an MS-ResNet-18, learning rate 0.1, weight decay 2e-4 and label smoothing 0.1 too; it has
256 epochs and the cross-entropy of all ticks together (config.loss="mean_ce"), where here each tick
is taught, and publishes 89.23 %. One NVIDIA GPU of the Hopper generation takes 24 minutes;
docs/results.md has the measured accuracy.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation = 5000
    config.data.encoding = "i2e"
    config.augment.crop_edge = 4
    config.augment.flip = True

    config.model.name = "ms_resnet18_i2e"
    config.model.width = 64
    config.model.dtype = "bfloat16"
    config.timesteps = 8

    config.epochs = 150
    config.batch_size = 128
    config.label_smoothing = 0.1
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 2e-4
    config.ema = 0.999
    config.validate_every = 16
    return config
