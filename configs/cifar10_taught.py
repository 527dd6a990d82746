"""SEENN-I on CIFAR-10: spiking ResNet-19 at T = 2, taught by the same network with ReLUs.

    python train.py --config=configs/cifar10_taught.py    # trains runs/cifar10_ann first
    python evaluate.py --workdir=runs/cifar10_taught --exit=confidence --target_timesteps=1.09

At 1.1 timesteps on average next to none can go beyond t = 2. Each tick learns the label, the answer
of both ticks and that of the teacher; 236 of 300 epochs run one tick only. One NVIDIA GPU of the
Hopper generation takes about a quarter of an hour, and five minutes for the teacher; README.md has
the measured accuracy.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.timesteps = 2
    config.tet_distillation = 1.0
    config.teacher = "runs/cifar10_ann"
    config.epochs = 300
    config.inherit_epochs = 236
    config.validate_every = 20
    return config
