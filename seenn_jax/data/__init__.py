"""Images and event data: read once on the host as uint8, augmented on the device.

`sources` and `events` are NumPy alone and yield whole data sets; `augment` and `autoaugment` are
pure JAX and run inside the jitted training step.
"""

from seenn_jax.data.augment import (
    augment,
    channel_statistics,
    count_statistics,
    cutmix,
    mixup,
    normalize,
)
from seenn_jax.data.autoaugment import autoaugment
from seenn_jax.data.sources import Dataset, Split, load_dataset

__all__ = [
    "Dataset",
    "Split",
    "augment",
    "autoaugment",
    "channel_statistics",
    "count_statistics",
    "cutmix",
    "load_dataset",
    "mixup",
    "normalize",
]
