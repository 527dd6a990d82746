"""Images and event data: read on the host as uint8, augmented on the device.

`sources` and `events` yield whole data sets, `streaming` reads one as it is needed: NumPy alone.
`augment` and `autoaugment` are pure JAX and run inside the jitted training step.
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
from seenn_jax.data.streaming import Batches, Stream, load_streamed

__all__ = [
    "Batches",
    "Dataset",
    "Split",
    "Stream",
    "augment",
    "autoaugment",
    "channel_statistics",
    "count_statistics",
    "cutmix",
    "load_dataset",
    "load_streamed",
    "mixup",
    "normalize",
]
