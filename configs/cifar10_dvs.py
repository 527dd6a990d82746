"""SEENN-I on CIFAR10-DVS: spiking VGGSNN at T = 10 (Li et al., NeurIPS 2023, CIFAR10-DVS).

    python train.py --config=configs/cifar10_dvs.py --config.data.dir=FOLDER
    python evaluate.py --workdir=runs/cifar10_dvs

FOLDER has the ten class folders, airplane to truck, of 1,000 .aedat files each, as extracted from
the archives of CIFAR10-DVS (Li et al., Frontiers in Neuroscience 2017,
doi.org/10.6084/m9.figshare.4724671); by default cifar10_dvs beside the data sets of TFDS. They
are cut into T frames of equally many events, brought from 128 x 128 to 48 x 48 pixels, and kept in
the cache. The test split, 100 files of each class, is in
seenn_jax/data/events/cifar10_dvs_test.txt. For a GPU; no accuracy has been measured with it yet.
"""

from seenn_jax.config import default_config


def get_config():
    config = default_config()
    config.data.name = "cifar10_dvs"
    config.data.validation = 500
    config.augment.flip = True
    config.augment.roll = 5
    config.augment.rotate = 15.0
    config.augment.cutout = 8

    config.model.name = "vggsnn"
    config.model.width = 64
    config.model.surrogate = "triangle"
    config.model.dtype = "bfloat16"
    config.timesteps = 10

    config.epochs = 100
    config.batch_size = 64
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.ema = 0.999
    config.validate_every = 10
    return config
