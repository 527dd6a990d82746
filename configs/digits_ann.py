"""An ordinary ResNet-8 with ReLUs on digits, the teacher of configs/digits_taught.py.

python train.py --config=configs/digits_ann.py
python evaluate.py --workdir=runs/digits_ann --ann
"""

from configs.digits import get_config as digits


def get_config():
    config = digits()
    config.activation = "relu"
    config.loss = "mean_ce"
    return config
