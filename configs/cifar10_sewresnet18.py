"""SEENN-I on CIFAR-10: SEW-ResNet-18 at T = 4, which adds spikes (Fang et al., NeurIPS 2021).

    python train.py --config=configs/cifar10_sewresnet18.py
    python evaluate.py --exit=confidence

Its authors have no network of this size for CIFAR-10: all settings are those of configs/cifar10.py.
docs/results.md has a shorter schedule.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.model.name = "sew_resnet18_small"
    config.model.width = 64
    return config
