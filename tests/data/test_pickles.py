"""Pickles give arrays of bytes, and run nothing."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seenn_jax.data import pickles
from tests.data.made_cifar import python2, python3

PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 6)


class Run:
    """Calls a function as it is unpickled."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("dump", [python2, python3, pickle.dumps])
def test_arrays_lists_and_strings_arrive(dump):
    found = pickles.load(dump({"data": PIXELS, "labels": [3, 1], "names": ["a", "b"]}))
    np.testing.assert_array_equal(found["data"], PIXELS)
    assert found["data"].dtype == np.uint8
    assert found["labels"] == [3, 1]
    assert [pickles.text(name) for name in found["names"]] == ["a", "b"]


def test_an_array_by_columns():
    found = pickles.load(python3({"data": np.asfortranarray(PIXELS)}))
    np.testing.assert_array_equal(found["data"], PIXELS)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_a_pickle_asks_for_is_not_run(tmp_path, protocol):
    mark = tmp_path / "mark"
    harmful = Run(os.mkdir, str(mark))
    with pytest.raises(pickle.UnpicklingError, match=r"asks for posix\.mkdir, .* was not run"):
        pickles.load(pickle.dumps({"data": harmful}, protocol))
    assert not mark.exists()
    pickle.loads(pickle.dumps(harmful, protocol))
    assert mark.exists()  # it would have


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "numpy\nload", "numpy\nndarray.tofile", "_codecs\ndecode", "os\nsystem"],
)
def test_no_other_name_is_known(name):
    with pytest.raises(pickle.UnpicklingError, match=name.replace("\n", r"\.")):
        pickles.load(b"c" + name.encode() + b"\n.")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"data": PIXELS.astype(np.int32)}, "of 'i4' and not of bytes"),
        ({"data": np.array([{}], object)}, "of 'O8' and not of bytes"),
        ({"data": Run(bytes.decode, b"a")}, "asks for"),
        ([1], "holds a list and no dict"),
    ],
    ids=("int32", "objects", "call", "list"),
)
def test_what_is_no_dict_of_bytes_is_said(value, why):
    with pytest.raises(pickle.UnpicklingError, match=why):
        pickles.load(python3(value))


@given(data=st.data())
def test_a_damaged_one_is_one_kind_of_error(data):
    whole = python2({"data": PIXELS, "labels": [1, 2]})
    at = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.binary(max_size=4))
    try:
        found = pickles.load(whole[:at] + change + whole[at + len(change) :])
    except pickle.UnpicklingError:
        return
    assert isinstance(found, dict)


def test_a_memo_that_can_not_be_takes_no_memory():
    whole = b"\x80\x02}r\xff\xff\xff\x07."  # the dict is number 134,217,727
    with pytest.raises(pickle.UnpicklingError, match="number 134217727 of too few"):
        pickles.load(whole)


def test_a_truncated_one():
    whole = python2({"data": PIXELS})
    for length in range(len(whole)):
        with pytest.raises(pickle.UnpicklingError):
            pickles.load(whole[:length])
