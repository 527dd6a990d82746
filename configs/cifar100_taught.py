"""SEENN-I on CIFAR-100: spiking ResNet-19 at T = 2, taught by the same network with ReLUs.

    python train.py --config=configs/cifar100_taught.py    # trains runs/cifar100_ann first
    python evaluate.py --workdir=runs/cifar100_taught --exit=confidence --target_timesteps=1.18

As configs/cifar10_taught.py, with two ticks, of which the second learns what the first one lacks.
"""

from configs.cifar10_taught import get_config as cifar10_taught


def get_config():
    config = cifar10_taught()
    config.data.name = "cifar100"
    config.timesteps = 2
    config.teacher = "runs/cifar100_ann"
    config.init_weights = "runs/cifar100_ann"
    return config
