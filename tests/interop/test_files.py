"""Checkpoint files are told by their content; what is none is one sentence."""

import random

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from benchmarks.damages import DAMAGES
from seenn_jax.errors import UserError
from seenn_jax.interop.files import WRAPPERS, read_state_dict
from tests.interop.torch_made import saved

STATE = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.float16([0.5, -2]),
    "brain": np.array([0.5, -3], jnp.bfloat16),
    "count": np.array(7),
}


def as_npz(state, path):
    with path.open("wb") as file:
        np.savez_compressed(file, **state)


# By what they are; all under names that say nothing.
WRITERS = {
    "torch": lambda state, path: path.write_bytes(saved(state)),
    "older torch": lambda state, path: path.write_bytes(saved(state, older=True)),
    "safetensors": lambda state, path: path.write_bytes(safetensors.numpy.save(state)),
    "npz": lambda state, path: as_npz({k: v for k, v in state.items() if k != "brain"}, path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_content_decides(kind, tmp_path):
    path = tmp_path / "c10_res19"
    WRITERS[kind](STATE, path)
    found = read_state_dict(path)
    assert found.keys() == STATE.keys() - ({"brain"} if kind == "npz" else set())
    for name, array in found.items():
        np.testing.assert_array_equal(array, STATE[name].astype(array.dtype))
        assert array.dtype == (np.int64 if name == "count" else np.float32)


def test_a_length_that_begins_like_a_pickle(tmp_path):
    path, sizes = tmp_path / "net", range(1, 80)
    contents = [safetensors.numpy.save({"a" * n: np.ones(1, np.float32)}) for n in sizes]
    alike = [each for each in contents if each[0] == 0x80]
    assert alike
    path.write_bytes(alike[0])
    assert [*read_state_dict(path).values()] == [1]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_and_prefixes(wrapper, tmp_path):
    path = tmp_path / "model_best.pth.tar"
    state = {f"module.{name}": array for name, array in STATE.items()}
    path.write_bytes(saved({"epoch": 3, wrapper: state, "best": np.float64(0.9)}))
    assert read_state_dict(path).keys() == STATE.keys()


OTHERS = {
    "page": (b"<!DOCTYPE html><html>", "is a web page.*and no checkpoint: download the file itsel"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of a file in Git LFS"),
    "empty": (b"", "is empty, and no checkpoint"),
    "text": (b"hello", "is no checkpoint: what torch.save wrote, .safetensors and .npz can be"),
    "list": (saved([STATE["half"]]), "holds a list and no state dict: give a file of what state_"),
    "no tensors": (saved({}), "holds a state dict without tensors"),
    "number inside": (saved({"a": 3}), "has 'a', a int and no tensor"),
    "not finite": (saved({"a": np.float32([np.nan])}), "has 'a' with numbers that are not finite"),
    "cut": (saved(STATE)[:-9], "can't be read as what torch.save wrote"),
    "cut, older": (saved(STATE, older=True)[:-9], "can't be read as what torch.save wrote"),
    "cut tensors": (safetensors.numpy.save(STATE)[:-1], r"can't be read as a \.safetensors file"),
    "pickle": (b"\x80\x02cos\nsystem\n.", "asks for os.system, which no tensor needs and which"),
    "junk": (b"PK\x03\x04junk", r"can't be read as a \.npz file"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_checkpoint_is_one_sentence(name, tmp_path):
    content, match = OTHERS[name]
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=match) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_no_file_and_objects_in_arrays(tmp_path):
    with pytest.raises(UserError, match=r"there is no checkpoint file at .*No such file"):
        read_state_dict(tmp_path / "net.pth")
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    with pytest.raises(UserError, match=r"a\.npz can't be read as a \.npz file .*allow_pickle"):
        read_state_dict(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.array(["text"]))
    with pytest.raises(UserError, match="has 'a' of str"):
        read_state_dict(tmp_path / "b.npz")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_file_is_read_or_one_sentence(kind, tmp_path):
    path, rng, refused = tmp_path / "net", random.Random(0), 0
    WRITERS[kind](STATE, path)
    whole = path.read_bytes()
    for damage in ("flip", "cut", "zeros") * 15:
        path.write_bytes(DAMAGES[damage](whole, rng))
        try:
            read_state_dict(path)
        except UserError as error:  # and nothing else
            refused += "\n" not in str(error)
    assert refused > 15
