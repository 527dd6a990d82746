"""Images and event data: read on the host as uint8, augmented on the device.

`sources` yields whole data sets, `streams` reads one as it is needed: NumPy alone. `augment`,
`autoaugment` and `pixels` are pure JAX and run inside the jitted training step.
"""

from seenn_jax.data.augment import AUGMENTATIONS, Augmentation
from seenn_jax.data.batches import Batches
from seenn_jax.data.pixels import channel_statistics, count_statistics, normalize
from seenn_jax.data.sources import DATASETS, load_dataset
from seenn_jax.data.splits import Dataset, Split
from seenn_jax.data.streams import Stream, load_streamed

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "Augmentation",
    "Batches",
    "Dataset",
    "Split",
    "Stream",
    "channel_statistics",
    "count_statistics",
    "load_dataset",
    "load_streamed",
    "normalize",
]
