"""scikit-learn's digits, as they are and before a simulated event camera."""

import functools

import numpy as np

from seenn_jax.data.events.camera import record
from seenn_jax.data.splits import Split, permutation


def still() -> tuple[Split, Split, int]:
    """The (train and validation, test) images of digits, and its number of classes.

    Stratified: with the images in order of class, and in a fixed random order within one, every
    fifth is a test image.
    """
    from sklearn.datasets import load_digits  # Slow to import.

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    order = permutation(len(labels), seed=0)
    order = order[np.argsort(labels[order], kind="stable")]
    is_test = np.zeros(len(labels), bool)
    is_test[order[::5]] = True
    pool = Split(images[~is_test], labels[~is_test])
    return pool, Split(images[is_test], labels[is_test]), len(bunch.target_names)


@functools.cache
def recorded(timesteps: int) -> tuple[Split, Split, int]:
    """The digits of `still` as a simulated event camera records them; takes seconds."""
    pool, test, num_classes = still()
    images = np.concatenate([pool.images, test.images])[..., 0]
    frames, count = record(images, timesteps), len(pool.labels)
    return Split(frames[:count], pool.labels), Split(frames[count:], test.labels), num_classes
