"""Files of torch.save are read without it, and nothing that they say is run."""

import argparse
import collections
import pickle
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.interop.torch_files import DTYPES, MAGIC, Unreadable, load
from tests.interop.torch_made import saved

FORMATS = pytest.mark.parametrize("older", [False, True], ids=["zip", "older"])


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_tensors_of_every_dtype(dtype, older):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = load(saved({"a": array, "n": 3}, older))
    assert found["a"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found["a"], array)
    assert found["n"] == 3


@FORMATS
def test_views_and_shared_storages(older):
    base = np.arange(24, dtype=np.float32)
    rows = base[:12].reshape(3, 4)
    views = [base, rows.T, rows[1:, ::2], base[4:], np.zeros((0, 3), np.float32)]
    state = collections.OrderedDict((str(n), view) for n, view in enumerate(views))
    for name, found in load(saved(state, older)).items():
        np.testing.assert_array_equal(found, state[name])


class Harmful:
    ran = False

    def __reduce__(self):
        return exec, ("from tests.interop import test_torch_files as t; t.Harmful.ran = True",)


@FORMATS
def test_nothing_is_run(older):
    with pytest.raises(Unreadable, match=r"asks for (builtins|__builtin__)\.exec, .* was not run"):
        load(saved({"a": Harmful()}, older))
    assert not Harmful.ran
    with pytest.raises(Unreadable, match=r"asks for argparse\.Namespace"):
        load(saved({"args": argparse.Namespace(lr=0.1)}, older))


def test_a_whole_network_is_called_one():
    content = pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    content += b"ctorch.nn.modules.container\nSequential\n."
    with pytest.raises(Unreadable, match=r"whole network .torch\.nn\.modules\.container\.Sequent"):
        load(content)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("shape", (2, 4)), "more numbers than its storage"),
        (("strides", (3, 4)), "more numbers than its storage"),
        (("shape", (2, -3)), "a shape that can't be"),
        (("offset", 1), "more numbers than its storage"),
        (("offset", "a"), "a shape that can't be"),
    ],
)
def test_a_tensor_stays_within_its_storage(change, match):
    from seenn_jax.interop.torch_files import _tensor

    fits = {"offset": 0, "shape": (2, 3), "strides": (3, 1)}
    np.testing.assert_array_equal(_tensor(np.arange(6), *fits.values()), np.arange(6).reshape(2, 3))
    with pytest.raises(Unreadable, match=match):
        _tensor(np.arange(6), *(fits | dict([change])).values())


def test_what_is_too_large_is_not_made():
    content = saved({"a": np.zeros(3, np.float32)}, older=True)
    # The size in the pickle, one byte, becomes a large one.
    at = content.index(b"cpu") + 5
    assert content[at : at + 2] == b"K\x03"
    large = content[:at] + b"J" + struct.pack("<i", 2**31 - 1) + content[at + 2 :]
    with pytest.raises(Unreadable, match="said to be larger than the file"):
        load(large)


def test_every_cut_is_one_kind_of_error():
    for older in (False, True):
        content = saved({"a": np.arange(9, dtype=jnp.bfloat16)}, older)
        for length in range(1, len(content), 7):
            with pytest.raises(Unreadable):
                load(content[:length])
