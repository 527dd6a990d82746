"""configs/cifar10.py with spikes that are integers up to 4 (I-LIF; Luo et al., ECCV 2024).

    python train.py --config=configs/cifar10_ilif.py
    python evaluate.py --workdir=runs/cifar10_ilif --exit=confidence --energy

The same schedule as of LIF neurons. A timestep is up to 4 of binary spikes: compare energies, not
timesteps (docs/neurons.md). docs/results.md has a shorter one.
"""

from configs.cifar10 import get_config as cifar10


def get_config():
    config = cifar10()
    config.activation = "ilif"
    return config
