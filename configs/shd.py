"""SEENN-I on spoken digits as spikes: a network of linear layers at T = 14 (Cramer et al. 2022).

    python train.py --config=configs/shd.py --config.data.dir=FOLDER
    python evaluate.py --workdir=runs/shd

FOLDER has shd_train.h5 and shd_test.h5, unpacked; by default shd beside the data sets of TFDS. Each
frame counts the spikes of 700 units in 100 ms, so that an exit at tick t has heard the first t
tenths of a second. Nothing is recurrent but the membranes. For a CPU, in minutes; no accuracy has
been measured with it yet. The same for SSC, with 35 words:

    python train.py --config=configs/shd.py --config.data.name=ssc --config.data.dir=FOLDER
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "shd"
    config.data.validation = 0.1
    config.data.bin_by = "duration"
    config.data.bin_ms = 100.0

    config.model.name = "mlp"
    config.model.width = 256
    config.model.surrogate = "triangle"
    config.timesteps = 14

    config.epochs = 30
    config.batch_size = 128
    config.optimizer.learning_rate = 0.1
    config.ema = 0.99
    config.validate_every = 5
    return config
