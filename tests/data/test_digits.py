import numpy as np

from seenn_jax.data import load_dataset
from tests.data.tiny import contents


def test_sizes_and_scale():
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits", validation=137)
    assert [len(split.labels) for split in dataset[1:4]] == [1300, 137, 360]
    assert dataset.train.images.shape == (1300, 8, 8, 1)
    assert dataset.num_classes == 10
    assert contents(*dataset[1:4]) == {
        (np.array([round(p * 255 / 16) for p in image], np.uint8).tobytes(), int(label))
        for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }


def test_a_fifth_of_each_class_is_for_testing():
    dataset = load_dataset("digits", validation=1)
    train, validation, test = (np.bincount(s.labels, minlength=10) for s in dataset[1:4])
    assert np.all(np.abs(test - (train + validation + test) / 5) <= 1)


def test_digits_dvs():
    dataset = load_dataset("digits_dvs", validation=137, timesteps=2)
    still = load_dataset("digits", validation=137)
    for moving, image in zip(dataset[1:4], still[1:4], strict=True):
        assert moving.images.shape == (len(image.labels), 2, 28, 28, 2)
        np.testing.assert_array_equal(moving.labels, image.labels)
    # Where a digit is bright something happens, in every frame; in a dark corner there is noise.
    counts = dataset.train.images.mean((0, 1, 4), dtype=np.float64)
    assert counts[8:20, 8:20].mean() > 2 * counts[:3, :3].mean() > 0
