"""SEENN-I on DVS128 Gesture: spiking VGGSNN at T = 10 (Amir et al., CVPR 2017, DVS128 Gesture).

    python train.py --config=configs/dvs128_gesture.py --config.data.dir=FOLDER
    python evaluate.py --workdir=runs/dvs128_gesture

FOLDER has what DvsGesture.tar.gz holds (.aedat files, their labels and the two lists of trials), or
events_np as SpikingJelly prepares it; by default dvs128_gesture beside the data sets of TFDS. A
gesture is cut into T frames of equally many events, brought from 128 x 128 to 48 x 48 pixels; its
test split is the official one. No flips: left and right are classes. For a GPU; no accuracy has
been measured with it yet.
"""

from configs.cifar10_dvs import get_config as cifar10_dvs


def get_config():
    config = cifar10_dvs()
    config.data.name = "dvs128_gesture"
    config.data.validation = 0.1
    config.augment.flip = False
    config.epochs = 200
    config.batch_size = 16
    config.optimizer.learning_rate = 0.05
    config.validate_every = 20
    return config
