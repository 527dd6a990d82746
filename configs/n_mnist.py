"""SEENN-I on N-MNIST: spiking VGGSNN at T = 8 (Orchard et al., Frontiers in Neuroscience 2015).

    python train.py --config=configs/n_mnist.py --config.data.dir=FOLDER
    python evaluate.py --workdir=runs/n_mnist

FOLDER has the folders Train and Test of .bin files, or events_np as SpikingJelly prepares it; by
default n_mnist beside the data sets of TFDS. Three saccades of 100 ms move the camera; a recording
is cut into T frames of equally many events, of 34 x 34 pixels. For a GPU; no accuracy has been
measured with it yet.
"""

from configs.cifar10_dvs import get_config as cifar10_dvs


def get_config():
    config = cifar10_dvs()
    config.data.name = "n_mnist"
    config.data.validation = 5000
    config.augment.flip = False
    config.augment.roll = 3
    config.augment.cutout = 0

    config.model.width = 16
    config.timesteps = 8

    config.epochs = 20
    config.batch_size = 128
    config.validate_every = 5
    return config
