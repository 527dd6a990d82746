"""SEENN-I on N-Caltech101: spiking VGGSNN at T = 10 (Orchard et al., Frontiers in Neurosc. 2015).

    python train.py --config=configs/n_caltech101.py --config.data.dir=FOLDER
    python evaluate.py --workdir=runs/n_caltech101

FOLDER has the class folders of .bin files, as Caltech101.zip holds them, or training, validation
and testing of these (docs/event-data.md says what is tested on); by default n_caltech101 beside the
data sets of TFDS. Recordings are cut into T frames of equally many events, and their 240 x 180
pixels are brought to 48 x 48. For a GPU; no accuracy has been measured with it yet.
"""

from configs.cifar10_dvs import get_config as cifar10_dvs


def get_config():
    config = cifar10_dvs()
    config.data.name = "n_caltech101"
    config.data.validation = 0.1
    return config
