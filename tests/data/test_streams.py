import numpy as np
import pytest

from seenn_jax.data import load_streamed
from seenn_jax.data.images import Framing
from seenn_jax.errors import UserError
from tests.data.listed import stream


class TestStream:
    def test_is_like_an_array(self, listed):
        images = stream(listed(5)).images
        assert images.shape == (5, 8, 8, 3)
        assert (len(images), images.ndim, images.dtype) == (5, 4, np.uint8)
        whole = images[:]
        assert whole.shape == images.shape
        assert whole.dtype == np.uint8
        np.testing.assert_array_equal(images[1:3], whole[1:3])
        np.testing.assert_array_equal(images[np.array([4, 0])], whole[[4, 0]])
        np.testing.assert_array_equal(images[2], whole[2])
        assert images[5:].shape == (0, 8, 8, 3)

    def test_a_truncated_image_is_an_error_that_names_it(self, listed):
        with pytest.raises(UserError, match=r"class/2\.jpg .* `config\.data\.skip_corrupt`=True"):
            stream(listed(4, corrupt=[2])).images[:]

    def test_or_is_left_out_and_counted(self, listed, caplog):
        source = listed(6, corrupt=[1, 4])
        split = stream(source, skip_corrupt=True)
        assert split.size == 6
        assert split.labels.tolist() == [0, 2, 3, 5]
        np.testing.assert_array_equal(split.images[:], stream(source).images[[0, 2, 3, 5]])
        assert "class/1.jpg" in caplog.text
        assert "2 of 6 images are corrupt and left out" in caplog.text


def test_a_fraction_is_held_out(folder):
    folder("a", 10)
    name = folder("b", 10)  # 16 of the 20 are for training
    fraction, number = (
        load_streamed(name, framing=Framing(8), validation=validation) for validation in (0.2, 3)
    )
    assert fraction.validation.size == 3  # 3.2 of them
    assert fraction.validation.indices.tolist() == number.validation.indices.tolist()
    assert fraction.train.indices.tolist() == number.train.indices.tolist()


def test_what_is_held_out_may_be_learnt_too(folder):
    name = folder("a", 10)
    data = load_streamed(name, framing=Framing(8), validation=3, train_on_validation=True)
    assert set(data.validation.indices) < set(data.train.indices)
    assert data.train.size == 8


@pytest.mark.parametrize("validation", [0, 0.01, 0.99, 8])
def test_validation_out_of_range(folder, validation):
    name = folder("a", 10)
    with pytest.raises(UserError, match=f"validation` = {validation} .*hold out 1 to 7"):
        load_streamed(name, framing=Framing(8), validation=validation)
