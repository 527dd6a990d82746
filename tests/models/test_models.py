import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax import engine, exits
from seenn_jax.energy import layers
from seenn_jax.errors import UserError
from seenn_jax.models import (
    MODELS,
    build_model,
    currents,
    first_ticks,
    inference_network,
    rest,
    run_all,
)
from seenn_jax.models.policy import seen
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.neurons import LIF

ROOT = Path(__file__).parents[2]
SHAPES = dict.fromkeys(MODELS, (8, 8, 3)) | {
    "resnet34": (16, 16, 3),
    "vgg16": (16, 16, 3),
    "vggsnn": (16, 16, 2),
}
BATCH, TIMESTEPS, CLASSES = 2, 4, 5
WIDTH = 6  # more than the channels that have a convolution of their own


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


# --- Time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_all_ticks_at_once_equal_ticks_with_carried_membranes(name):
    model, integrate = prepared(name)
    shown = currents(model, images(name, BATCH, TIMESTEPS), TIMESTEPS)
    together = integrate(shown, rest(model, shown))

    membranes, ticks = rest(model, shown[:, :1]), []
    for t in range(TIMESTEPS):
        logits, membranes, spikes = integrate(shown[:, t : t + 1], membranes)
        ticks.append((logits, spikes))
    logits, spikes = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *ticks)
    jax.tree.map(np.testing.assert_array_equal, (logits, membranes, spikes), together)

    # None of this is for want of spikes: every layer fires and falls silent, ticks differ.
    for layer in spikes:
        assert set(np.unique(layer)) == {0, 1}
        assert 0.02 < layer.mean() < 0.9
    assert all(np.any(logits[:, t] != logits[:, 0]) for t in range(1, TIMESTEPS))
    assert np.any(logits[0] != logits[1])


@pytest.mark.parametrize("name", MODELS)
def test_still_images_are_the_same_at_each_tick(name):
    model, integrate = prepared(name)
    still = images(name, BATCH)
    repeated = jnp.repeat(still[:, None], TIMESTEPS, 1)
    shown = currents(model, still, TIMESTEPS)
    np.testing.assert_array_equal(shown, currents(model, repeated, TIMESTEPS))
    assert shown.shape[:2] == (BATCH, TIMESTEPS)
    assert np.any(shown[0] != shown[1])
    if name == "resnet8":
        logits, _, _ = integrate(shown, rest(model, shown))
        for inputs in (still, repeated):
            run = jax.jit(lambda inputs: run_all(model, inputs, TIMESTEPS))
            np.testing.assert_array_equal(run(inputs), logits)


def test_the_first_ticks_and_what_a_policy_sees():
    frames, still = jnp.arange(48).reshape(2, 3, 2, 2, 2), jnp.arange(16).reshape(2, 2, 2, 2)
    np.testing.assert_array_equal(first_ticks(frames, 2), frames[:, :2])
    np.testing.assert_array_equal(seen(frames), frames[:, 0])
    for look in (seen, lambda x: first_ticks(x, 2)):
        np.testing.assert_array_equal(look(still), still)


def test_statistics_of_still_images_are_those_of_the_same_at_each_tick():
    once, repeated = exact("resnet8"), exact("resnet8")
    still = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)
    a = currents(once, still, TIMESTEPS)
    b = currents(repeated, jnp.repeat(still[:, None], TIMESTEPS, 1), TIMESTEPS)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(once.stem.bn.var[...], repeated.stem.bn.var[...], rtol=1e-5)
    assert np.all(once.stem.bn.var[...] != exact("resnet8").stem.bn.var[...])


@pytest.mark.parametrize("name", MODELS)
def test_rest_is_zero_and_shaped_like_the_membranes(name):
    model = nnx.view(exact(name, dtype="bfloat16"), use_running_average=True)
    shape = (BATCH, TIMESTEPS, *SHAPES[name][:2], WIDTH)
    resting = rest(model, jnp.ones(shape, jnp.bfloat16))
    assert not any(v.any() for v in jax.tree.leaves(resting))
    # One tick or many, from rest or from nowhere: the carry keeps its structure.
    for ticks, before in ((1, resting), (TIMESTEPS, None)):
        x = jax.ShapeDtypeStruct((BATCH, ticks, *shape[2:]), jnp.bfloat16)
        _, after = jax.eval_shape(model.integrate, x, before)
        assert jax.tree.structure(after) == jax.tree.structure(resting)
        described = [(v.shape, v.dtype) for v in jax.tree.leaves(after)]
        assert described == [(v.shape, v.dtype) for v in jax.tree.leaves(resting)]
        assert {dtype for _, dtype in described} == {jnp.dtype("bfloat16")}


def test_no_membranes_are_membranes_at_rest():
    model, integrate = prepared("vggsnn")
    shown = currents(model, images("vggsnn", BATCH, 1), 1)
    at_rest, absent = integrate(shown, rest(model, shown)), integrate(shown, None)
    jax.tree.map(np.testing.assert_array_equal, at_rest, absent)
    # And others make a difference.
    charged = jax.tree.map(lambda v: v + 0.5, rest(model, shown))
    assert np.any(integrate(shown, charged)[0] != absent[0])


# --- Networks for the engines -------------------------------------------------------------------


def run_network(network, inputs):
    """Logits of all ticks at once, and of one tick at a time."""
    shown = jax.jit(network.encode)(network.params, inputs)
    membranes = jax.tree.map(lambda v: jnp.stack([v] * len(inputs)), network.at_rest)
    step, ticks = jax.jit(network.step), []
    for _ in range(TIMESTEPS):
        membranes, logits = step(network.params, membranes, shown)
        ticks.append(logits)
    return jax.jit(network.logits)(network.params, inputs), jnp.stack(ticks, 1)


def test_network_for_the_engines_is_the_model():
    model, integrate = prepared("resnet8")
    inputs = images("resnet8", BATCH)
    shown = currents(model, inputs, TIMESTEPS)
    expected, _, _ = integrate(shown, rest(model, shown))
    before = jax.device_get(nnx.state(model))

    network = inference_network(model, SHAPES["resnet8"], TIMESTEPS)
    together, ticks = run_network(network, inputs)
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(ticks, expected)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(nnx.state(model)), before)


def test_layers_whose_inputs_are_spikes():
    def places(name, layers):
        model = nnx.eval_shape(lambda: small(name))
        chosen = {id(layer) for layer in model.spike_layers()}
        return [place for place, layer in enumerate(layers(model)) if id(layer) in chosen]

    # All but the stem, and but what comes after a pool: 0 1 P 2 3 P 4 5 6 P 7 8 9 P 10 11 12.
    assert places("vgg16", lambda model: model.convs) == [1, 3, 5, 6, 8, 9, 11, 12]
    assert places("vggsnn", lambda model: model.convs) == [1, 2, 3, 4, 5, 6, 7]
    assert places("vggsnn", lambda model: [model.head]) == [0]
    assert places("vgg16", lambda model: [model.head]) == []
    shortcuts = lambda model: [block.shortcut for block in model.blocks]  # noqa: E731
    assert places("resnet18", shortcuts) == [2, 4, 6]
    # Neither the stem nor, after a pool, a shortcut.
    assert places("resnet8", shortcuts) == []
    resnet = lambda model: [  # noqa: E731
        model.stem,
        *(layer for block in model.blocks for layer in (block.conv1, block.conv2)),
    ]
    assert places("resnet8", resnet) == [1, 2, 3, 4, 5, 6]
    # Nor what comes after the stem's pool.
    assert places("resnet34", resnet) == list(range(2, 33))


def test_integer_network():
    name = "resnet8"
    model = exact(name)
    # Kernels in 1/127 of their largest weight, so that rounding them to int8 changes nothing.
    for layer in model.spike_layers():
        kernel = layer.conv.kernel[...]
        largest = jnp.abs(kernel).max((0, 1, 2))
        layer.conv.kernel[...] = jnp.round(127 * kernel / largest) / 128
    network = inference_network(model, SHAPES[name], TIMESTEPS)
    integer = inference_network(model, SHAPES[name], TIMESTEPS, int8=True)
    kinds = [leaf.dtype for leaf in jax.tree.leaves(integer.params)]
    assert kinds.count(jnp.int8) == len(model.spike_layers()) > 1
    inputs = images(name, BATCH)
    together, ticks = run_network(integer, inputs)
    expected = jax.jit(network.logits)(network.params, inputs)
    np.testing.assert_array_equal(together, ticks)
    np.testing.assert_array_equal(together, expected)
    assert np.any(together[:, 0] != together[:, 1])


# --- Sizes --------------------------------------------------------------------------------------


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
    ("name", "width", "image_shape", "classes"),
    [
        ("resnet19", 1, (4, 4, 1), 2),
        ("resnet19", 3, (30, 17, 2), 7),
        ("resnet8", 5, (5, 9, 4), 3),
        ("resnet8", 16, (28, 28, 1), 10),
        ("resnet18", 2, (4, 4, 1), 2),
        ("resnet20", 3, (30, 17, 2), 7),
        ("resnet34", 2, (4, 5, 1), 2),
        ("resnet34", 2, (75, 64, 3), 10),
        ("vgg16", 1, (16, 16, 1), 2),
        ("vgg16", 3, (31, 50, 2), 7),
        ("vggsnn", 1, (16, 16, 1), 2),
        ("vggsnn", 3, (17, 17, 5), 11),
        ("vggsnn", 2, (48, 48, 2), 10),
    ],
)
def test_any_width_size_channels_and_classes(name, width, image_shape, classes):
    model = nnx.eval_shape(
        lambda: build_model(name, width, image_shape=image_shape, num_classes=classes)
    )
    graph, state = nnx.split(nnx.view(model, use_running_average=True))
    inputs = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    logits = jax.eval_shape(lambda state, x: run_all(nnx.merge(graph, state), x, 3), state, inputs)
    assert logits.shape == (2, 3, classes)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("name", MODELS)
def test_width_is_that_of_the_first_layer(name):
    model = nnx.eval_shape(lambda: build_model(name, 6, image_shape=(16, 16, 3), num_classes=2))
    first = model.stem if name.startswith("resnet") else model.convs[0]
    size = 7 if name == "resnet34" else 3
    assert first.conv.kernel.shape == (size, size, 3, 6)


@pytest.mark.parametrize("name", ["resnet8", "vgg16"])
def test_bfloat16_is_for_activations_alone(name):
    state = nnx.state(nnx.eval_shape(lambda: small(name, dtype="bfloat16")))
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    model = nnx.view(exact(name, dtype="bfloat16"), use_running_average=True)
    x = jax.ShapeDtypeStruct((2, *SHAPES[name]), jnp.bfloat16)
    shown = jax.eval_shape(lambda x: currents(model, x, 3), x)
    logits, _ = jax.eval_shape(model.integrate, shown)
    assert shown.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32


def test_parameters_follow_the_seed(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", functools.partial(SpikingResNet, (1,)))
    monkeypatch.setitem(SHAPES, "tiny", (4, 4, 4))
    a, again, other = (jax.tree.leaves(nnx.state(small("tiny", seed=s))) for s in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(a, again, strict=True))
    assert any(not np.array_equal(x, y) for x, y in zip(a, other, strict=True))


# --- Mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width", "changes", "message"),
    [
        ("resnet17", 4, {}, r"model 'resnet17': .*resnet19, .*, vgg16, vggsnn.*did you mean"),
        ("resnet8", 4, {"dtype": "float16"}, r"dtype 'float16': .*bfloat16, float32, float64"),
        ("resnet8", 4, {"dtype": "float64"}, r"'float64' needs JAX_ENABLE_X64=1.*'float32'"),
        ("resnet8", 0, {}, r"width is 0: it must be at least 1; set config.model.width"),
        ("resnet8", 4, {"image_shape": (3, 8, 3)}, r"3x8 are too small for resnet8.*4x4"),
        ("vgg16", 4, {"image_shape": (32, 15, 3)}, r"32x15 are too small for vgg16.*16x16"),
        ("vggsnn", 4, {"image_shape": (15, 15, 2)}, r"15x15 are too small for vggsnn.*16x16"),
        ("vggsnn", 4, {"image_shape": (48, 32, 2)}, r"square map, and images are 48x32: crop"),
    ],
)
def test_mistakes(name, width, changes, message):
    arguments = {"image_shape": (32, 32, 3), "num_classes": 10} | changes
    with pytest.raises(UserError, match=message):
        build_model(name, width, **arguments)


# --- One arithmetic ------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["resnet19", "vgg16"])
def test_an_answer_in_bfloat16_depends_on_no_program_and_no_batch(name):
    rng, timesteps = np.random.default_rng(0), 3
    model = at_random(name, rng)
    images = jnp.asarray(rng.integers(-100, 101, (8, 32, 32, 3)) / 64, jnp.bfloat16)
    graph, state = nnx.split(nnx.view(model, use_running_average=True))
    expected = jax.jit(lambda s, x: run_all(nnx.merge(graph, s), x, timesteps))(state, images)
    assert jnp.abs(jnp.diff(expected, axis=1)).max() > 0.01  # the ticks are not all alike

    network = inference_network(model, (32, 32, 3), timesteps)
    encode, step, logits = map(jax.jit, (network.encode, network.step, network.logits))

    def one_after_the_other(images):
        shown, membranes, found = encode(network.params, images), None, []
        membranes = jax.tree.map(
            lambda v: jnp.broadcast_to(v, (len(images), *v.shape)), network.at_rest
        )
        for _ in range(timesteps):
            membranes, now = step(network.params, membranes, shown)
            found.append(now)
        return jnp.stack(found, 1)

    np.testing.assert_array_equal(logits(network.params, images), expected)
    np.testing.assert_array_equal(one_after_the_other(images), expected)
    np.testing.assert_array_equal(one_after_the_other(images[:3]), expected[:3])
    np.testing.assert_array_equal(logits(network.params, images[:3]), expected[:3])


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs an accelerator")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_on_an_accelerator_answers_depend_on_no_program_and_no_batch(dtype):
    """2,000 images by every method in two batch sizes; sums of floats may still turn a spike."""
    rng, timesteps = np.random.default_rng(0), 3
    model = at_random("resnet19", rng, dtype="float32" if dtype == "float32" else "bfloat16")
    network = inference_network(model, (32, 32, 3), timesteps, int8=dtype == "int8")
    images = jnp.asarray(rng.normal(size=(2000, 32, 32, 3)), jnp.float32)
    scores = exits.confidence(
        exits.accumulate(jax.jit(network.logits)(network.params, images[:500]))
    )
    criterion = engine.above(exits.confidence, float(jnp.median(scores[:, 0])))
    found = [
        jax.jit(
            lambda params, images, method=method, batch=batch: engine.run_network(
                method, network, params, images, criterion, timesteps, batch
            )
        )(network.params, images)
        for method in engine.METHODS
        for batch in (128, 500)
    ]
    assert 1.2 < found[0].timesteps.mean() < 2.8
    allowed = 0 if dtype == "int8" else 2
    for other in found[1:]:
        assert jnp.sum(other.logits.argmax(-1) != found[0].logits.argmax(-1)) <= allowed
        assert jnp.sum(other.timesteps != found[0].timesteps) <= allowed
