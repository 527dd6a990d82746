"""SEENN-I on CIFAR-10: spiking ResNet-19 at T = 4, taught by the same network with ReLUs.

    python train.py --config=configs/cifar10_taught.py    # trains runs/cifar10_ann first
    python evaluate.py --workdir=runs/cifar10_taught --exit=confidence --target_timesteps=1.09

It starts from its teacher's weights. Each tick learns the label, the answer of all ticks and that
of the teacher; 236 of 300 epochs run one tick only. One NVIDIA GPU of the Hopper generation takes
17 minutes, and six for the teacher; README.md has the measured accuracy.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.timesteps = 4
    config.model.surrogate = "triangle"
    config.tet_distillation = 1.0
    config.teacher = "runs/cifar10_ann"
    config.teacher_weight = 0.9
    config.init_weights = "runs/cifar10_ann"
    config.epochs = 300
    config.inherit_epochs = 236
    config.validate_every = 20
    return config
