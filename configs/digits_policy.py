"""SEENN-II on digits: a policy for the network of configs/digits.py; minutes on a CPU.

python train.py --config=configs/digits.py
python train.py --config=configs/digits_policy.py
python evaluate.py --workdir=runs/digits_policy --exit=policy --target_timesteps=2
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "digits"
    config.augment.crop = 1

    config.model.name = "resnet8"
    config.model.width = 24
    config.timesteps = 4

    config.policy.candidates = (1, 3)
    config.policy.beta = 1.0
    config.policy.entropy = 0.3
    config.policy.auxiliary = 1.0
    config.policy.copies = 40
    config.epochs = 120
    config.batch_size = 64
    config.optimizer.learning_rate = 0.01
    # Once, at the end: 200 images would decide between checkpoints, by chance.
    config.validate_every = 120
    return config
