"""ResNets: which layers receive spikes, and the size and work of the paper's."""

import math

import pytest
from flax import nnx

from seenn_jax.energy import layers
from seenn_jax.models import build_model
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
