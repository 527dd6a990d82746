import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.data.splits import Split, check_loaded, permutation
from seenn_jax.errors import UserError

IMAGES, LABELS = np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 1])
GOOD = Split(IMAGES, LABELS)


def test_permutation_is_what_it_always_was():
    # PCG64(0) yields 11749869230777074271, 4976686463289251617, 755828109848996024, ...
    assert permutation(3, seed=0).tolist() == [2, 1, 0]


@given(n=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_permutation_has_each_index_once(n, seed):
    assert np.array_equal(np.sort(permutation(n, seed)), np.arange(n))


@pytest.mark.parametrize("classes", [2, 7, ["cat", "dog"], ("cat", "dog")])
def test_what_a_data_set_gives(classes):
    check_loaded("it", (GOOD, GOOD, classes))
    events = Split(np.zeros((3, 5, 4, 4, 2), np.uint8), LABELS.astype(np.int32))
    check_loaded("it", (events, events, classes))


@pytest.mark.parametrize(
    ("loaded", "what"),
    [
        (None, "it gives None: it must give (training images, test images, classes)"),
        ((GOOD, GOOD), "it gives (a Split, a Split): it must give (training"),
        (((IMAGES, LABELS), GOOD, 2), "it must give (training images"),
        ((GOOD, GOOD, 2.0), "it must give (training images"),
        ((GOOD, GOOD, [1, 2]), "it must give (training images"),
        (
            (Split(IMAGES / 255, LABELS), GOOD, 2),
            "training split, gives (float64[3, 4, 4, 1], int64[",
        ),
        (
            (GOOD, Split(IMAGES[..., 0], LABELS), 2),
            "to its test split, gives (uint8[3, 4, 4], int64",
        ),
        ((GOOD, Split(IMAGES[:, 1:], LABELS), 2), "uint8 images [N, H, W, C] of one size"),
        ((GOOD, Split(IMAGES, LABELS[1:]), 2), "to its test split"),
        ((GOOD, Split(IMAGES, LABELS / 1), 2), "to its test split"),
        ((GOOD, GOOD, 1), "and to each a label from 0 to 0"),
        ((Split(IMAGES, LABELS - 1), GOOD, 2), "to each a label from 0 to 1"),
    ],
)
def test_what_is_no_data_set(loaded, what):
    with pytest.raises(UserError, match=re.escape(what)):
        check_loaded("it", loaded)
