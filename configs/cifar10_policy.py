"""SEENN-II on CIFAR-10: a policy for spiking ResNet-19 at T = 2 (Li et al., NeurIPS 2023, table 1).

    python train.py --config=configs/cifar10.py --config.timesteps=2 --config.epochs=194 \\
        --config.tet_distillation=1 --workdir=runs/cifar10_t2
    python train.py --config=configs/cifar10_policy.py
    python evaluate.py --workdir=runs/cifar10_policy --exit=policy --target_timesteps=1.18

At 1.2 timesteps on average next to none can go beyond t = 2, so the network learns two, for as long
as that of configs/cifar10.py learns four, and each learns the answer of both. One NVIDIA GPU of
the Hopper generation trains the policy in minutes; README.md has the measured accuracy.
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
    config.timesteps = 2

    config.policy.candidates = (1, 2)
    config.policy.width = 32
    config.policy.beta = 0.3
    config.policy.entropy = 0.3
    config.policy.auxiliary = 1.0
    config.policy.copies = 60
    config.epochs = 540
    config.batch_size = 256
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    # Once, at the end: a few of 5,000 images would decide between checkpoints, by chance.
    config.validate_every = 540
    return config
