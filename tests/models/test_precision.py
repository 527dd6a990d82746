"""Networks in int8: exact spikes, rounded weights; and every precision by every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax import exits
from seenn_jax.engine import METHODS, run_network
from seenn_jax.errors import UserError
from seenn_jax.models import build_model
from seenn_jax.models.activations import QCFS
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import for_inference, inference_network
from seenn_jax.models.neurons import ILIF
from seenn_jax.models.precision import PRECISIONS
from tests.models.networks import (
    BATCH,
    SHAPES,
    TIMESTEPS,
    at_random,
    both_ways,
    exact,
    fitted,
    images,
    logits_of,
    small,
)


def test_integer_network():
    name = "resnet8"
    model = exact(name)
    # Kernels in 1/127 of their largest weight, so that rounding them to int8 changes nothing.
    for layer in model.spike_layers():
        kernel = layer.conv.kernel[...]
        largest = jnp.abs(kernel).max((0, 1, 2))
        layer.conv.kernel[...] = jnp.round(127 * kernel / largest) / 128
    network = inference_network(model, SHAPES[name], TIMESTEPS)
    integer = inference_network(model, SHAPES[name], TIMESTEPS, prepare=PRECISIONS["int8"].prepare)
    kinds = [leaf.dtype for leaf in jax.tree.leaves(integer.params)]
    assert kinds.count(jnp.int8) == len(model.spike_layers()) > 1
    inputs = images(name, BATCH)
    together, ticks = both_ways(integer, inputs)
    expected = jax.jit(network.logits)(network.params, inputs)
    np.testing.assert_array_equal(together, ticks)
    np.testing.assert_array_equal(together, expected)
    assert np.any(together[:, 0] != together[:, 1])


@pytest.mark.parametrize("name", ["resnet8", "vggsnn_pool"])
def test_averages_of_large_integers_are_exact(name):
    model = exact(name, neuron=ILIF(largest_spike=127))
    for layer in model.spike_layers():
        if isinstance(layer, ConvBN):  # as above
            kernel = layer.conv.kernel[...]
            layer.conv.kernel[...] = jnp.round(127 * kernel / jnp.abs(kernel).max((0, 1, 2))) / 128
    networks = [
        inference_network(model, SHAPES[name], 2, prepare=PRECISIONS[precision].prepare)
        for precision in ("float32", "int8")
    ]
    inputs = 128 * images(name, BATCH)
    expected, found = (jax.jit(network.logits)(network.params, inputs) for network in networks)
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(expected) > 64


def test_int8_network():
    """The int8 network is the float one whose weights were rounded: spikes are exact in both."""
    model, images = fitted()
    int8 = inference_network(model, (8, 8, 1), 4, prepare=PRECISIONS["int8"].prepare)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(int8.params)}
    assert dtypes == {jnp.dtype("int8"), jnp.dtype("float32")}

    rounded = nnx.clone(model)
    for layer in rounded.spike_layers():
        kernel = np.asarray(layer.conv.kernel[...])
        step = np.abs(kernel).max((0, 1, 2)) / 127
        layer.conv.kernel[...] = np.round(kernel / step) * step
    expected = logits_of(rounded, images, 4)
    found = jax.jit(int8.logits)(int8.params, images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    exact = inference_network(model, (8, 8, 1), 4)
    assert jnp.abs(found - jax.jit(exact.logits)(exact.params, images)).max() > 1e-4


def test_int8_vgg_leaves_pooled_layers_in_float():
    model = build_model("vgg16", 2, image_shape=(16, 16, 3), num_classes=10)
    network = inference_network(model, (16, 16, 3), 2, prepare=PRECISIONS["int8"].prepare)
    kinds = [leaf.dtype.name for leaf in jax.tree.leaves(network.params) if leaf.ndim == 4]
    assert kinds.count("int8") == 8  # 13 layers less the stem and four that follow a pool
    logits = jax.jit(network.logits)(network.params, jnp.ones((3, 16, 16, 3)))
    assert logits.shape == (3, 2, 10)


def test_outputs_that_are_no_spikes_of_one_cannot_be_int8():
    with pytest.raises(UserError, match=r"`precision` int8 .* stem is a QCFS, .*choose bfloat16"):
        for_inference(small("resnet8", neuron=QCFS(4)), PRECISIONS["int8"].prepare)


def test_unknown_precision():
    with pytest.raises(UserError, match=r"precision 'int9': did you mean 'int8'.*float32, int8"):
        PRECISIONS["int9"]


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs an accelerator")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_on_an_accelerator_answers_depend_on_no_program_and_no_batch(dtype):
    """2,000 images by every method in two batch sizes; sums of floats may still turn a spike."""
    rng, timesteps = np.random.default_rng(0), 3
    model = at_random("resnet19", rng, dtype="float32" if dtype == "float32" else "bfloat16")
    network = inference_network(model, (32, 32, 3), timesteps, prepare=PRECISIONS[dtype].prepare)
    images = jnp.asarray(rng.normal(size=(2000, 32, 32, 3)), jnp.float32)
    scores = exits.confidence(
        exits.accumulate(jax.jit(network.logits)(network.params, images[:500]))
    )
    criterion = exits.above(exits.confidence, float(jnp.median(scores[:, 0])))
    found = [
        jax.jit(
            lambda params, images, method=method, batch=batch: run_network(
                method, network, params, images, criterion, timesteps, batch
            )
        )(network.params, images)
        for method in METHODS
        for batch in (128, 500)
    ]
    assert 1.2 < found[0].timesteps.mean() < 2.8
    allowed = 0 if dtype == "int8" else 2
    for other in found[1:]:
        assert jnp.sum(other.logits.argmax(-1) != found[0].logits.argmax(-1)) <= allowed
        assert jnp.sum(other.timesteps != found[0].timesteps) <= allowed
