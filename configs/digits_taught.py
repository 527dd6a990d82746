"""Spiking ResNet-8 on digits at T = 2, taught by the same network with ReLUs; minutes on a CPU.

python train.py --config=configs/digits_taught.py    # trains runs/digits_ann first
python evaluate.py --workdir=runs/digits_taught
"""

from configs.digits import get_config as digits


def get_config():
    config = digits()
    config.timesteps = 2
    config.tet_distillation = 1.0
    config.teacher = "runs/digits_ann"
    return config
