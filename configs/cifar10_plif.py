"""configs/cifar10.py with a decay that each layer learns (PLIF; Fang et al., ICCV 2021).

    python train.py --config=configs/cifar10_plif.py
    python evaluate.py --workdir=runs/cifar10_plif --exit=confidence

The same schedule as of LIF neurons. docs/results.md has a shorter one.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.activation = "plif"
    return config
