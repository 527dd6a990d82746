"""configs/cifar10.py for the TPUs of Colab, in half the epochs.

    python train.py --config=configs/cifar10_colab.py
    python evaluate.py --workdir=runs/cifar10_colab --exit=confidence

256 images a step: 32 for each of the eight cores of a v2 (8 GiB each), or all on the one of a v5e
(16 GiB). `make tpu-check` compiles both and compares their memory with the chip's.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.epochs = 80
    config.inherit_epochs = 64
    return config
