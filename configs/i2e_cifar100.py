"""SEENN-I on I2E-CIFAR100: events of CIFAR-100's images, T = 8 (Ma et al., AAAI 2026).

    python train.py --config=configs/i2e_cifar100.py
    python evaluate.py --workdir=runs/i2e_cifar100

As configs/i2e_cifar10.py; the paper publishes 60.68 %. For a GPU; not trained here yet.
"""

from configs.i2e_cifar10 import get_config as i2e_cifar10


def get_config():
    config = i2e_cifar10()
    config.data.name = "cifar100"
    return config
