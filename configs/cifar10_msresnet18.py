"""SEENN-I on CIFAR-10: MS-ResNet-18 at T = 4, which adds membrane currents (Hu et al., TNNLS
2024).

    python train.py --config=configs/cifar10_msresnet18.py
    python evaluate.py --exit=confidence

Its authors have no network of this size for CIFAR-10: all settings are those of configs/cifar10.py.
docs/results.md has it after 110 of its epochs.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.model.name = "ms_resnet18_small"
    config.model.width = 64
    return config
