"""The network of linear layers: by hand, and in the size that SHD takes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seenn_jax.energy import layers
from seenn_jax.models import build_model
from seenn_jax.models.network import run_all


def test_ticks_by_hand():
    model = build_model("mlp", 2, image_shape=(1, 3, 1), num_classes=2)
    model = nnx.view(model, use_running_average=True)
    first, second = model.layers
    # Statistics at rest leave everything as it is, but for epsilon.
    first.conv.kernel[...] = np.array([[1, 0], [1, 0], [0, 1]], np.float32).reshape(1, 1, 3, 2)
    second.conv.kernel[...] = np.eye(2, dtype=np.float32).reshape(1, 1, 2, 2) * 1.5
    model.head.kernel[...] = np.array([[1, 0], [0, 10]], np.float32)
    # Neuron 0 gets x0 + x1, neuron 1 gets x2; decay 1/2, threshold 1.
    inputs = jnp.array([[1, 1, 0], [0, 0, 0.75], [0, 0, 0.75]], jnp.float32).reshape(1, 3, 1, 3, 1)
    found = run_all(model, inputs, 3)
    np.testing.assert_allclose(found[0], [[1, 0], [0, 0], [0, 10]])


def test_its_size_for_shd():
    model = nnx.eval_shape(lambda: build_model("mlp", 256, image_shape=(1, 700, 1), num_classes=20))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    # Weights, scales and shifts of BatchNorm, and the read-out with its bias.
    assert count == 700 * 256 + 2 * 256 + 256 * 256 + 2 * 256 + 256 * 20 + 20
    model = build_model("mlp", 4, image_shape=(1, 700, 1), num_classes=20)
    found = layers(nnx.view(model, use_running_average=True), (1, 700, 1))
    assert [(layer.receives, layer.macs) for layer in found] == [
        ("pixels", 700 * 4),
        ("spikes", 16),
        ("spikes", 80),
    ]
