"""configs/cifar10.py for the TPUs of Colab, v5e-1 and v6e-1, in half the epochs.

    python train.py --config=configs/cifar10_colab.py --config.data.download=true
    python evaluate.py --workdir=runs/cifar10_colab --exit=confidence

Each is one core, with 16 and 32 GiB, and 256 images a step fit both: `make tpu-check` compiles for
them. It has not been run on one yet; docs/results.md has the time that the compiler expects.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.epochs = 80
    config.inherit_epochs = 64
    config.validate_every = 5  # a session that ends early loses so many epochs at most
    return config
