"""What holds for every family of networks, on the least one that has all its kinds of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seenn_jax.engine import METHODS, run_network
from seenn_jax.exits import prescribed
from seenn_jax.models import MODELS, build_model
from seenn_jax.models.network import inference_network, run_all
from seenn_jax.models.precision import PRECISIONS
from seenn_jax.ticks import currents
from tests.models import networks

SHAPE, TICKS = (8, 8, 3), 3


def exact(monkeypatch, kind):
    """A network of exact arithmetic of the class `kind`, and images for it."""
    monkeypatch.setitem(MODELS, "tiny", kind)
    monkeypatch.setitem(networks.SHAPES, "tiny", SHAPE)
    return networks.exact("tiny"), networks.images("tiny", 11)


def check_methods(model, images):
    """Masked and in slots, in float and in int8, samples exit as they do by all ticks at once."""
    for layer in model.spike_layers():
        if hasattr(layer, "conv"):  # weights that int8 leaves as they are
            kernel = layer.conv.kernel[...]
            largest = jnp.abs(kernel).max((0, 1, 2))
            layer.conv.kernel[...] = jnp.round(127 * kernel / largest) / 128
    floats, integer = (
        inference_network(model, SHAPE, TICKS, prepare=PRECISIONS[precision].prepare)
        for precision in ("float32", "int8")
    )
    times = jnp.arange(len(images)) % TICKS + 1

    @jax.jit
    def run(params, integers, images):
        return floats.logits(params, images), [
            run_network(method, integer, integers, images, prescribed(times), TICKS, 4)
            for method in METHODS
        ]

    logits, found = run(floats.params, integer.params, images)
    assert jnp.any(jnp.diff(logits, axis=1))
    summed = [logits[i, :t].sum(0) for i, t in enumerate(times)]
    for way in found:
        np.testing.assert_array_equal(way.timesteps, times)
        np.testing.assert_allclose(way.logits, summed, rtol=1e-6, atol=1e-6)


def check_gradients(kind, neuron):
    """In float64: of all ticks at once, those of a loop over them."""
    with jax.enable_x64(True):
        model = _random(kind, neuron)
        graph, params, rest = nnx.split(nnx.view(model, use_running_average=True), nnx.Param, ...)
        images = jax.random.normal(jax.random.key(1), (2, *SHAPE), jnp.float64)
        weights = jax.random.normal(jax.random.key(2), (2, TICKS, 5), jnp.float64)

        def at_once(params):
            return jnp.sum(weights * run_all(nnx.merge(graph, params, rest), images, TICKS))

        def loop(params):
            network, total, membranes = nnx.merge(graph, params, rest), 0, None
            shown = currents(network, images, 1)
            for t in range(TICKS):
                logits, membranes = network.integrate(shown, membranes)
                total += jnp.sum(weights[:, t] * logits[:, 0])
            return total

        found, expected = jax.jit(lambda p: (jax.grad(at_once)(p), jax.grad(loop)(p)))(params)
        for path, leaf in nnx.to_flat_state(found):
            other = dict(nnx.to_flat_state(expected))[path]
            np.testing.assert_allclose(leaf[...], other[...], rtol=1e-9, atol=1e-12)
            assert np.any(leaf[...]), path


def check_differences(kind, neuron):
    """Of a smooth neuron, in float64: gradients are finite differences along them."""
    with jax.enable_x64(True):
        model = _random(kind, neuron)
        graph, params, rest = nnx.split(nnx.view(model, use_running_average=True), nnx.Param, ...)
        images = jax.random.normal(jax.random.key(1), (2, *SHAPE), jnp.float64)

        @jax.jit
        def loss(params):
            return jnp.sum(run_all(nnx.merge(graph, params, rest), images, 1) ** 2)

        direction = jax.jit(jax.grad(loss))(params)
        squared = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(direction))
        direction = jax.tree.map(lambda leaf: leaf / jnp.sqrt(squared), direction)
        step = 1e-6
        there, back = (
            loss(jax.tree.map(lambda p, d, s=sign: p + s * step * d, params, direction))
            for sign in (1, -1)
        )
        assert squared > 1e-6
        np.testing.assert_allclose((there - back) / (2 * step), jnp.sqrt(squared), rtol=1e-5)


def _random(kind, neuron):
    """A network whose BatchNorms have statistics and scales at random."""
    MODELS["tiny"] = kind
    try:
        model = build_model(
            "tiny", 5, image_shape=SHAPE, num_classes=5, neuron=neuron, dtype="float64"
        )
    finally:
        del MODELS["tiny"]
    rng = np.random.default_rng(3)
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.BatchNorm):
            for part, low, high in (("mean", -0.3, 0.3), ("var", 0.3, 2), ("bias", 0, 1.2)):
                array = getattr(module, part)
                array[...] = jnp.asarray(rng.uniform(low, high, array.shape))
            module.scale[...] = jnp.asarray(rng.uniform(0.6, 1.6, module.scale.shape))
    return model
