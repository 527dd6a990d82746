"""ResNets: which layers receive spikes, and the size and work of the paper's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.energy import layers
from seenn_jax.models import build_model
from seenn_jax.models.neurons import LIF
from seenn_jax.models.resnet import SpikingBlock
from tests.models.networks import spike_places


def test_layers_whose_inputs_are_spikes():
    shortcuts = lambda model: [block.shortcut for block in model.blocks]  # noqa: E731
    assert spike_places("resnet18", shortcuts) == [2, 4, 6]
    # Neither the stem nor, after a pool, a shortcut.
    assert spike_places("resnet8", shortcuts) == []
    resnet = lambda model: [  # noqa: E731
        model.stem,
        *(layer for block in model.blocks for layer in (block.conv1, block.conv2)),
    ]
    assert spike_places("resnet8", resnet) == [1, 2, 3, 4, 5, 6]
    # Nor what comes after the stem's pool.
    assert spike_places("resnet34", resnet) == list(range(2, 33))


def parameters(model):
    return {
        path: math.prod(leaf.shape) for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }


def test_resnet19_has_the_papers_size():
    shape = (32, 32, 3)
    model = nnx.eval_shape(lambda: build_model("resnet19", 128, image_shape=shape, num_classes=10))
    sizes = parameters(model)
    # Stem, stages with 6 convolutions, 6 and a projection, 4 and a projection; the linear layer.
    stem = 9 * 3 * 128
    first = 6 * 9 * 128**2
    second = 9 * 128 * 256 + 5 * 9 * 256**2 + 128 * 256
    third = 9 * 256 * 512 + 3 * 9 * 512**2 + 256 * 512
    weights = stem + first + second + third + 512 * 10 + 10
    assert round(weights / 1e6, 2) == 12.56
    assert sum(n for path, n in sizes.items() if "bn" not in path) == weights
    norms = 2 * (7 * 128 + 7 * 256 + 5 * 512)
    assert sum(n for path, n in sizes.items() if "bn" in path) == norms


def test_resnet19_has_the_papers_work():
    shape = (32, 32, 3)
    model = nnx.eval_shape(lambda: build_model("resnet19", 128, image_shape=shape, num_classes=10))
    found = layers(nnx.view(model, use_running_average=True), shape)
    assert sum(layer.macs for layer in found) == pytest.approx(2.285e9, rel=1e-3)


@pytest.mark.parametrize(
    ("in_features", "stride", "projected"), [(4, 1, False), (4, 2, True), (3, 1, True)]
)
def test_block_has_a_shortcut_where_the_shape_changes(in_features, stride, projected):
    block = SpikingBlock(in_features, 4, stride, neuron=LIF(), dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert (block.shortcut is not None) == projected
    block = nnx.view(block, use_running_average=True)
    x = jax.ShapeDtypeStruct((2, 3, 5, 6, in_features), jnp.float32)
    spikes, membranes = jax.eval_shape(block, x)
    size = (-(-5 // stride), 6 // stride, 4)
    assert spikes.shape == (2, 3, *size)
    assert [v.shape for v in membranes] == [(2, *size)] * 2


def test_block_adds_its_input_before_the_last_neuron():
    block = SpikingBlock(1, 1, 1, neuron=LIF(), dtype=jnp.float32, rngs=nnx.Rngs(0))
    for layer in (block.conv1, block.conv2):
        layer.conv.kernel[...] = jnp.zeros((3, 3, 1, 1))
    block.conv2.bn.bias[...] = jnp.array([0.25])
    block = nnx.view(block, use_running_average=True)
    # Membranes with currents 0.75 + 0.25, 0 + 0.25, 0.5 + 0.25: 1 (fires), 0.25, 0.875.
    x = jnp.array([0.75, 0, 0.5]).reshape(1, 3, 1, 1, 1)
    spikes, (v1, v2) = block(x)
    np.testing.assert_array_equal(spikes.ravel(), [1, 0, 0])
    np.testing.assert_array_equal(v1.ravel(), [0])
    np.testing.assert_array_equal(v2.ravel(), [0.875])
