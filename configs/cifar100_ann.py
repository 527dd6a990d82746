"""An ordinary ResNet-19 with ReLUs on CIFAR-100, the teacher of configs/cifar100_taught.py.

    python train.py --config=configs/cifar100_ann.py
    python evaluate.py --workdir=runs/cifar100_ann --ann

As configs/cifar10_ann.py.
"""

from configs.cifar10_ann import get_config as cifar10_ann


def get_config():
    config = cifar10_ann()
    config.data.name = "cifar100"
    return config
