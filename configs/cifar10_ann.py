"""An ordinary ResNet-19 with ReLUs on CIFAR-10, the teacher of configs/cifar10_taught.py.

    python train.py --config=configs/cifar10_ann.py
    python evaluate.py --workdir=runs/cifar10_ann --ann

One NVIDIA GPU of the Hopper generation trains it in about six minutes.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.activation = "relu"
    config.loss = "mean_ce"
    config.epochs = 180
    config.inherit_epochs = 0
    return config
