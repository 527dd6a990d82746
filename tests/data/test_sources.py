import re
from pathlib import Path

import numpy as np
import pytest

from seenn_jax.data.sources import DATASETS, load_dataset
from seenn_jax.errors import UserError
from tests.data.tiny import equal


@pytest.mark.parametrize("validation", [-1, 0, 0.0001, 0.9999, 1437, 9999])
def test_validation_out_of_range(validation):
    with pytest.raises(UserError, match=rf"validation` = {validation} .* hold out 1 to 1436"):
        load_dataset("digits", validation=validation)


def test_a_row_as_it_is_documented_is_taken():
    page = Path(__file__).parents[2] / "docs" / "api.md"
    arguments = re.search(r"`DATASETS` \| `\((\*, [\w, ]+)\)", page.read_text())[1]
    DATASETS.check("a row", eval(f"lambda {arguments}: None"))


def test_always_the_same_images_are_held_out():
    one, same, other = (load_dataset("digits", validation=n) for n in (200, 200, 100))
    assert equal(one.validation, same.validation)
    assert equal(one.train, same.train)
    assert len(other.validation.labels) == 100
    assert equal(one.test, other.test)


def test_what_is_held_out_may_be_learnt_too():
    apart, all_of_it = (
        load_dataset("digits", validation=200, train_on_validation=learnt)
        for learnt in (False, True)
    )
    assert equal(apart.validation, all_of_it.validation)
    every = np.sort(all_of_it.train.images.reshape(1437, -1), axis=0)
    parts = np.concatenate([apart.train.images, apart.validation.images]).reshape(1437, -1)
    np.testing.assert_array_equal(every, np.sort(parts, axis=0))


def test_a_fraction_is_held_out():
    fraction, number = (load_dataset("digits", validation=n) for n in (0.1, 144))  # of 1,437
    assert equal(fraction.validation, number.validation)
    assert equal(fraction.train, number.train)
