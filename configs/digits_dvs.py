"""Spiking VGGSNN on digits before a simulated event camera: nothing to download; minutes on a CPU.

python train.py --config=configs/digits_dvs.py
python evaluate.py --workdir=runs/digits_dvs
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "digits_dvs"
    config.augment.roll = 2

    config.model.name = "resnet8"
    config.model.width = 8
    config.model.surrogate = "triangle"
    config.timesteps = 8

    config.epochs = 20
    config.batch_size = 64
    config.optimizer.learning_rate = 0.1
    config.ema = 0.99
    config.validate_every = 5
    return config
