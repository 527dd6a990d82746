"""Small networks for tests: of exact arithmetic, of random statistics, of fitted ones."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seenn_jax.models import MODELS, build_model
from seenn_jax.models.network import run_all
from seenn_jax.models.neurons import LIF

SHAPES = dict.fromkeys(MODELS, (8, 8, 3)) | {
    "ms_resnet18": (16, 16, 3),
    "ms_resnet18_i2e": (16, 16, 2),
    "ms_resnet34": (16, 16, 3),
    "resnet34": (16, 16, 3),
    "sew_resnet18": (16, 16, 3),
    "sew_resnet34": (16, 16, 3),
    "sew_resnet50": (16, 16, 3),
    "vgg16": (16, 16, 3),
    "vgg16_qcfs": (32, 32, 3),
    "vggsnn": (16, 16, 2),
    "vggsnn_pool": (16, 16, 2),
}
# Of the same blocks as others, and more of them; or of families that have tests of their own.
DEEP = (
    *(name for name in MODELS if name.startswith(("ms_", "sew_", "qk", "spik"))),
    *("resnet18", "resnet19", "resnet19_tet", "resnet20_seenn", "resnet34", "resnet34_small"),
    *("vgg16_qcfs", "vggsnn_pool"),
)
BATCH, TIMESTEPS, CLASSES = 2, 4, 5
WIDTH = 6  # more than the channels that have a convolution of their own


def logits_of(model, inputs, timesteps):
    """`run_all` of a network for inference, as one program: op by op it is hundreds of them."""
    graph, state = nnx.split(nnx.view(model, use_running_average=True))
    return jax.jit(lambda state, x: run_all(nnx.merge(graph, state), x, timesteps))(state, inputs)


def small(name, **kwargs):
    return build_model(
        name, WIDTH, **({"image_shape": SHAPES[name], "num_classes": CLASSES} | kwargs)
    )


def spread(rng, shape, unit, low=-4, high=4):
    """Random multiples of `unit`."""
    return jnp.asarray(unit * rng.integers(low, high + 1, shape), jnp.float32)


def exact(name, **kwargs):
    """A network with random parameters and statistics whose inference is exact in float32.

    All of them are multiples of powers of two, and variances are 1/16, 1/4 and 1 less epsilon. So
    the compiler may sum and fuse as it likes: neurons that just reach the threshold still agree.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        kind = path[-2].key
        if kind == "kernel":
            fan_in = math.prod(leaf.shape[:-1])
            # Each output's weights sum to about zero, or else deep layers forget the input.
            weights = np.resize([1, -1, 2, -2, 4, -4], (leaf.shape[-1], fan_in))
            weights = rng.permuted(weights, axis=1).T.reshape(leaf.shape)
            return jnp.asarray(weights * 2.0 ** -round(math.log2(fan_in) / 2), jnp.float32)
        if kind == "var":
            return jnp.asarray(rng.choice([1 / 16, 1 / 4, 1], leaf.shape) - 1e-5, jnp.float32)
        if kind == "scale":
            return spread(rng, leaf.shape, 0.25, low=2)
        if kind == "mean":
            return spread(rng, leaf.shape, 0.125)
        return spread(rng, leaf.shape, 0.25, low=-2)

    graph, state = nnx.split(nnx.eval_shape(lambda: small(name, **kwargs)))
    return nnx.merge(graph, jax.tree.map_with_path(draw, state))


@functools.cache
def prepared(name):
    """An exact network, and its `integrate` compiled, which also returns the spikes.

    Returns:
      (model, `(currents, membranes) -> (logits, membranes, spikes of each layer)`)
    """
    seen = []

    def neuron(currents, v0=None):
        spikes, v = LIF()(currents, v0)
        seen.append(spikes)
        return spikes, v

    model = nnx.view(exact(name, neuron=neuron), use_running_average=True)
    graph, state = nnx.split(model)

    @jax.jit
    def integrate(state, currents, membranes):
        seen.clear()
        logits, after = nnx.merge(graph, state).integrate(currents, membranes)
        return logits, after, tuple(seen)

    return model, functools.partial(integrate, state)


def images(name, *leading):
    return spread(np.random.default_rng(1), (*leading, *SHAPES[name]), 0.25, low=-6, high=6)


def both_ways(network, inputs):
    """Logits of all ticks at once, and of one tick at a time."""
    shown = jax.jit(network.encode)(network.params, inputs)
    membranes = jax.tree.map(lambda v: jnp.stack([v] * len(inputs)), network.at_rest)
    step, ticks = jax.jit(network.step), []
    for _ in range(TIMESTEPS):
        membranes, logits = step(network.params, membranes, shown)
        ticks.append(logits)
    return jax.jit(network.logits)(network.params, inputs), jnp.stack(ticks, 1)


def at_random(name, rng, dtype="bfloat16"):
    """A network with statistics, scales and biases at random.

    Its kernels are multiples of 2^-10: their sums are exact in float32, in whatever order, which
    is the library's and may depend on the batch.
    """
    model = build_model(name, 8, image_shape=(32, 32, 3), num_classes=CLASSES, dtype=dtype, seed=1)
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.BatchNorm):
            size = module.mean.shape
            module.mean[...] = jnp.float32(rng.normal(0, 0.3, size))
            module.var[...] = jnp.float32(rng.uniform(0.3, 2, size))
            module.scale[...] = jnp.float32(rng.uniform(0.5, 1.5, size))
            module.bias[...] = jnp.float32(rng.normal(0, 0.3, size))
        if isinstance(module, nnx.Conv | nnx.Linear):
            module.kernel[...] = jnp.round(module.kernel[...] * 2**10) / 2**10
            if isinstance(module, nnx.Conv) and module.bias is not None:
                module.bias[...] = jnp.float32(rng.normal(0, 0.3, module.bias.shape))
    return model


def spike_places(name, layers):
    """Which of `layers(model)`, by number, receive spikes and nothing else."""
    model = nnx.eval_shape(lambda: small(name))
    chosen = {id(layer) for layer in model.spike_layers()}
    return [place for place, layer in enumerate(layers(model)) if id(layer) in chosen]


@functools.cache
def fitted():
    """(a spiking network, its images): its statistics fit them, so that all layers fire."""
    model = build_model("resnet8", 4, image_shape=(8, 8, 1), num_classes=10)
    images = jax.random.normal(jax.random.key(0), (37, 8, 8, 1))
    # Each block sees what the blocks before it send with statistics of their own.
    update = jax.jit(lambda graph, state: _updated(graph, state, images), static_argnums=0)
    graph, state = nnx.split(model)
    for _ in range(60):
        state = update(graph, state)
    return nnx.merge(graph, state), images


def _updated(graph, state, images):
    model = nnx.merge(graph, state, copy=True)
    run_all(model, images, 4)
    return nnx.state(model)
