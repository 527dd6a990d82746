"""SEENN-I on CIFAR-100: spiking ResNet-19 at T = 4 (Li et al., NeurIPS 2023, table 1).

    python train.py --config=configs/cifar100.py
    python evaluate.py --exit=confidence

As configs/cifar10.py.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.data.name = "cifar100"
    return config
