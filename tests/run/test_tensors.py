"""A network as tensors and back: bit for bit in float32, rounded by hand in fewer bits."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.models import build_model
from seenn_jax.models.precision import to_int8
from seenn_jax.run import tensors
from seenn_jax.run.tensors import differing, of_model, rounded, to_model, widened


@pytest.fixture(scope="module")
def model():
    return build_model("resnet8", 4, image_shape=(8, 8, 1), num_classes=3, seed=1)


def state_of(model):
    return nnx.state(model, (nnx.Param, nnx.BatchStat))


def test_float32_comes_back_bit_for_bit(model):
    found = of_model(model)
    assert {"stem.conv.kernel", "stem.bn.mean", "blocks.2.conv1.conv.kernel", "head.bias"} <= set(
        found
    )
    assert {tensor.dtype for tensor in found.values()} == {np.dtype(np.float32)}
    other = build_model("resnet8", 4, image_shape=(8, 8, 1), num_classes=3, seed=2)
    back = to_model(other, widened(found), "it")
    chex.assert_trees_all_equal(state_of(back), state_of(model))
    # The template is left as it is.
    assert not np.array_equal(other.head.kernel[...], model.head.kernel[...])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_kernels_that_meet_spikes_are_narrow(model, dtype):
    found = of_model(model, dtype)
    narrow = {name for name, tensor in found.items() if tensor.dtype == jnp.dtype(dtype)}
    blocks = [f"blocks.{n}.conv{m}" for n in (0, 1, 2) for m in (1, 2)]
    # What a shortcut averages is no spikes; the stem sees pixels.
    assert narrow == {f"{place}.conv.kernel" for place in blocks}
    scales = {name for name in found if name.endswith("kernel.scale")}
    assert scales == ({f"{name}.scale" for name in narrow} if dtype == "int8" else set())
    assert set(widened(found)) == set(of_model(model))


def test_rounding_to_int8_by_hand():
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, :, 0] = [1.27, -0.014, 0.016]  # in steps of 0.01: 127, -1.4, 1.6
    narrow, scale = tensors._in_int8(kernel)
    assert scale == pytest.approx([0.01, 1e-12 / 127])
    assert narrow[0, 0, :, 0].tolist() == [127, -1, 2]
    assert narrow[0, 0, :, 1].tolist() == [0, 0, 0]
    wide = widened({"k": narrow, "k.scale": scale})
    np.testing.assert_allclose(wide["k"][0, 0, :, 0], [1.27, -0.01, 0.02], rtol=1e-6)


def test_stored_in_int8_it_is_what_inference_in_int8_makes_of_it(model):
    stored, plain = rounded(model, "int8"), nnx.clone(model)
    once = nnx.clone(stored)
    for each in (plain, once):
        to_int8(each)
    for mine, other in zip(plain.spike_layers(), once.spike_layers(), strict=True):
        kernel = mine.conv.kernel[...]
        assert kernel.dtype == jnp.int8
        np.testing.assert_array_equal(kernel, other.conv.kernel[...])
        chex.assert_trees_all_close(mine.running(), other.running(), rtol=1e-6)
    # Rounded again it stays as it is.
    again = rounded(stored, "int8")
    chex.assert_trees_all_close(state_of(again), state_of(stored), rtol=1e-6)


def test_what_does_not_fit_is_named(model):
    found = of_model(model)
    for change, named in (
        ({"head.bias": np.zeros(4, np.float32)}, r"head\.bias is of shape \(4,\) in it and of"),
        ({"gate": np.zeros(4, np.float32)}, r"gate is of shape \(4,\) in it and missing in the"),
    ):
        with pytest.raises(UserError, match=f"x is of another architecture: {named}"):
            to_model(model, found | change, "x")
    del found["head.bias"]
    with pytest.raises(UserError, match=r"head\.bias is missing in it and of shape \(3,\) in the"):
        to_model(model, found, "x")


def test_nothing_differs_between_the_same():
    one = {"a": np.zeros(3), "b": np.ones((2, 2))}
    assert differing(one, one) == []
    assert differing({"a": np.zeros(3)}, one) == [
        "b is missing in it and of shape (2, 2) in the network"
    ]
