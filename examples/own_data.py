"""A data set from NumPy arrays: an upright or a level bar, in noise.

python train.py --config=configs/digits.py --config.plugins="('examples/own_data.py',)" \
    --config.data.name=bars --config.epochs=5 --workdir=runs/bars
python evaluate.py --workdir=runs/bars
"""

import numpy as np

from seenn_jax import DATASETS, Split


def bars(seed: int, count: int) -> Split:
    """Images uint8 [N, H, W, C] and labels int32 [N]."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 150, (count, 8, 8, 1), np.uint8)
    labels = random.integers(0, 2, count, np.int32)
    places = random.integers(0, 8, count)
    for image, label, place in zip(images, labels, places, strict=True):
        image[(slice(None), place) if label else place] = 220
    return Split(images, labels)


# (training images, test images, number of classes); it is asked for data_dir, timesteps and so on.
DATASETS["bars"] = lambda **asked: (bars(0, 1000), bars(1, 200), 2)
