"""Event data that is always at hand: digits before a simulated event camera, T = 8 frames.

    python train.py --config=configs/digits_dvs.py
    python evaluate.py --workdir=runs/digits_dvs

A gaze rests, then moves over scikit-learn's digits (`seenn_jax/data/events/camera.py`); each frame
has the same number of events, 28 x 28 pixels of ON and OFF counts, and most of the first are noise.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "digits_dvs"
    config.augment.roll = 2

    config.model.name = "vggsnn"
    config.model.width = 8
    config.model.surrogate = "triangle"
    config.timesteps = 8

    config.epochs = 16
    config.batch_size = 32
    config.optimizer.learning_rate = 0.1
    config.ema = 0.99
    config.validate_every = 4
    return config
