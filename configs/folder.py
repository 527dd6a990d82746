"""SEENN-I on a folder of one's own: spiking ResNet-8 for a few hundred or thousand images.

    python train.py --config=configs/folder.py --config.data.name=/path/to/images
    python evaluate.py --workdir=runs/folder

The folder has one for each class, or train and test, with those in both (docs/imagenet.md). Images
of any size become 48 x 48 pixels; a CPU trains on a thousand in minutes. On a GPU more pixels and a
larger network see more: --config.data.image_size=128 --config.model.name=resnet18
--config.model.width=64 --config.model.dtype=bfloat16.
"""

from configs.digits import get_config as digits


def get_config():
    config = digits()
    config.data.name = "./images"
    config.data.validation = 0.2
    config.data.image_size = 48
    config.data.crop_area = (0.35, 1.0)  # 0.08 leaves too little of an image to learn few from
    config.augment.crop = 0
    config.augment.flip = True

    config.model.width = 16
    config.epochs = 40
    config.inherit_epochs = 30
    config.batch_size = 32
    config.validate_every = 10
    return config
