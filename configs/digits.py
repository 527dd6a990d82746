"""Spiking ResNet-8 on scikit-learn's 8x8 digits: needs no download and no accelerator.

python train.py --config=configs/digits.py
python evaluate.py --exit=confidence
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "digits"
    config.augment.crop = 1

    config.model.name = "resnet8"
    config.model.width = 24
    config.timesteps = 4

    config.epochs = 30
    config.batch_size = 64
    config.optimizer.learning_rate = 0.1
    config.ema = 0.99
    config.validate_every = 5
    return config
