"""SEENN-II on CIFAR-10: a policy for the network of configs/cifar10.py (table 1 of the paper).

    python train.py --config=configs/cifar10.py
    python train.py --config=configs/cifar10_policy.py
    python evaluate.py --workdir=runs/cifar10_policy --exit=policy

One NVIDIA GPU of the Hopper generation trains it in minutes; README.md has the measured accuracy.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "cifar10"
    config.data.validation = 5000
    config.augment.crop = 4
    config.augment.flip = True
    config.augment.autoaugment = True
    config.augment.cutout = 12

    config.model.name = "resnet19"
    config.model.width = 128
    config.model.dtype = "bfloat16"
    config.timesteps = 4

    config.policy.candidates = (1, 2)
    config.policy.beta = 0.3
    config.policy.entropy = 0.3
    config.policy.auxiliary = 1.0
    config.policy.copies = 8
    config.epochs = 60
    config.batch_size = 256
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.validate_every = 20
    return config
