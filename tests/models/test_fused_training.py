"""BatchNorm and neurons of a training step in one kernel each way, by interpretation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.models import build_model, fused, fused_training
from seenn_jax.models.fused import conv_fire
from seenn_jax.models.fused_training import How, Sizes, Tile, norm_fire, tile_for
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import run_all
from seenn_jax.models.neurons import LIF, PLIF, fire

ROUNDING = 2**-7  # of bfloat16, twice


@pytest.fixture
def interpreted(monkeypatch):
    """The kernels wherever they can be, on a CPU."""
    monkeypatch.setattr(fused, "_gpu", lambda: True)
    monkeypatch.setattr(fused, "PLATFORM", "cpu")
    monkeypatch.setattr(fused, "INTERPRET", True)
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def layer_of(features=64, stride=1, size=3, bn=None):
    """A layer of 16 channels in training, with a scale and a bias of its own for each."""
    layer = ConvBN(16, features, size, stride, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    if bn is not None:
        layer.bn = nnx.data(bn)
        return nnx.view(layer, use_running_average=False)
    keys = jax.random.split(jax.random.key(1), 2)
    layer.bn.scale[...] += 0.2 * jax.random.normal(keys[0], (features,))
    layer.bn.bias[...] += 0.5 * jax.random.normal(keys[1], (features,))
    return nnx.view(layer, use_running_average=False)


def inputs(ticks, stride=1, features=64):
    """(spikes that come, a residual, a gradient of the spikes that go)."""
    keys = jax.random.split(jax.random.key(ticks), 3)
    x = jax.random.bernoulli(keys[0], 0.3, (4, ticks, 8, 8, 16)).astype(jnp.bfloat16)
    shape = (4, ticks, 8 // stride, 8 // stride, features)
    residual = jax.random.bernoulli(keys[1], 0.2, shape).astype(jnp.bfloat16)
    return x, residual, jax.random.normal(keys[2], shape, jnp.bfloat16)


def apart(layer, neuron, x, residual):
    """The layers one after the other."""
    currents = layer(x)
    return fire(neuron, currents if residual is None else currents + residual, None)


def trained(way, layer, neuron, x, residual, g):
    """(spikes, membranes, gradients of x and of the parameters, running statistics)."""
    graph, params, stats = nnx.split(layer, nnx.Param, ...)

    def run(params, x, residual):
        model = nnx.merge(graph, params, stats, copy=True)
        spikes, v = way(model, neuron, x, residual)
        return spikes, (v, nnx.state(model, nnx.BatchStat))

    spikes, back, (v, after) = jax.vjp(run, params, x, residual, has_aux=True)
    return spikes, v, back(g), after


def has_kernels(layer, neuron, x, v, residual=None):
    """Whether `conv_fire` runs such a layer by the kernels."""
    graph, state = nnx.split(layer)

    def run(x):
        return conv_fire(nnx.merge(graph, state, copy=True), neuron, x, v, residual)[0]

    return "pallas_call" in str(jax.make_jaxpr(run)(x))


def assert_close(found, wanted, rounding=ROUNDING):
    """Gradients, by bfloat16's rounding of their largest."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=rounding * np.abs(b).max(), rtol=0)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("ticks", "stride", "adds", "neuron"),
    [
        (4, 1, True, LIF()),
        (1, 1, False, LIF()),
        (2, 2, False, LIF(reset="soft", surrogate="triangle", tau=0.25)),
        (3, 1, True, LIF(detach_reset=True, strict=True, threshold=0.5)),
    ],
)
def test_the_kernels_compute_what_layers_do(ticks, stride, adds, neuron):
    layer, (x, residual, g) = layer_of(stride=stride), inputs(ticks, stride)
    arguments = layer, neuron, x, residual if adds else None
    assert has_kernels(layer, neuron, x, None, arguments[3])

    def one(layer, neuron, x, residual):
        return conv_fire(layer, neuron, x, None, residual)

    found, wanted = trained(one, *arguments, g), trained(apart, *arguments, g)
    assert 0.05 < float(wanted[0].mean()) < 0.95
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert_close(found[2], wanted[2])
    for a, b in zip(jax.tree.leaves(found[3]), jax.tree.leaves(wanted[3]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("interpreted")
def test_gradients_flow_through_the_membranes_as_through_those_of_layers():
    layer, (x, residual, _) = layer_of(), inputs(2)
    graph, params, stats = nnx.split(layer, nnx.Param, ...)

    def gradient(way):
        def loss(params, x, residual):
            model = nnx.merge(graph, params, stats, copy=True)
            return jnp.sum(jnp.square(way(model, LIF(), x, residual)[1].astype(jnp.float32)))

        return jax.grad(loss, (0, 1, 2))(params, x, residual)

    found = gradient(lambda layer, neuron, x, more: conv_fire(layer, neuron, x, None, more))
    wanted = gradient(apart)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(wanted))
    assert_close(found, wanted, 2 * ROUNDING)


@pytest.mark.parametrize("tile", [Tile(8, 64), Tile(4, 64), Tile(8, 32)])
def test_a_tile_changes_nothing(tile, monkeypatch):
    keys = jax.random.split(jax.random.key(0), 3)
    y = 2 * jax.random.normal(keys[0], (4, 3, 16, 64), jnp.bfloat16)
    g = jax.random.normal(keys[1], y.shape, jnp.bfloat16)
    scale, bias = 1 + 0.1 * jax.random.normal(keys[2], (2, 64))

    def run(platform):
        how = How(LIF(), 1e-5, platform, interpret=True)
        found, back = jax.vjp(lambda *x: norm_fire(*x, None, how), y, scale, bias)
        return found, back((g, jnp.zeros(64), jnp.zeros(64)))

    monkeypatch.setattr(fused_training, "TILES", (tile,))
    (found, of_found), (wanted, of_wanted) = run("cpu"), run("cuda")
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_close(of_found, of_wanted)


def test_tiles_divide_what_a_layer_gives():
    # ResNet-19 at 256 images: each program has 8 pixels of all ticks.
    sizes = ((1024, 128), (256, 256), (64, 512))
    assert {tile_for(Sizes(256, 4, *size)) for size in sizes} == {Tile(8, 128)}
    assert tile_for(Sizes(4, 4, 16, 64)) == Tile(8, 64)
    assert tile_for(Sizes(4, 4, 49, 64)) is None
    assert tile_for(Sizes(4, 4, 64, 24)) is None


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    "change",
    [
        {"neuron": PLIF(LIF())},
        {"neuron": LIF(tau=jnp.float32(0.5))},
        {"v": jnp.zeros((4, 8, 8, 64), jnp.bfloat16)},
        {"layer": nnx.view(layer_of(), use_running_average=True)},
        {"layer": layer_of(features=24)},
        {"layer": layer_of(size=2)},
        {"layer": layer_of(bn=nnx.BatchNorm(64, use_bias=False, rngs=nnx.Rngs(0)))},
        {"layer": layer_of(bn=type("Own", (nnx.BatchNorm,), {})(64, rngs=nnx.Rngs(0)))},
        {"neuron": LIF(tau=0.7)},
        {"residual": jnp.zeros((4, 2, 8, 8, 64), jnp.float32)},
        {"x": jnp.zeros((0, 2, 8, 8, 16), jnp.bfloat16)},
        {"x": jnp.zeros((4, 17, 8, 8, 16), jnp.bfloat16)},
    ],
)
def test_what_the_kernels_do_not_compute_stays_apart(change):
    arguments = {"layer": layer_of(), "neuron": LIF(), "x": inputs(2)[0], "v": None}
    for changed, kernels in (({}, True), (change, False)):
        assert has_kernels(**(arguments | changed)) is kernels


@pytest.mark.usefixtures("interpreted")
def test_several_devices_keep_the_layers_apart(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert not has_kernels(layer_of(), LIF(), inputs(2)[0], None)


@pytest.mark.usefixtures("interpreted")
def test_a_network_learns_the_same_with_it():
    model = build_model("resnet8", 64, image_shape=(8, 8, 1), num_classes=10, dtype="bfloat16")
    graph, params, stats = nnx.split(nnx.view(model, use_running_average=False), nnx.Param, ...)
    images = jax.random.normal(jax.random.key(0), (8, 8, 8, 1))

    def loss(params):
        logits = run_all(nnx.merge(graph, params, stats, copy=True), images, 2)
        return jnp.mean(jnp.square(logits - jnp.arange(10.0)))

    traced = jax.make_jaxpr(jax.grad(loss))(params)
    assert str(traced).count("pallas_call") == 12  # two layers of three blocks, both ways
    found = jax.jit(jax.value_and_grad(loss))(params)
    with fused.apart():
        wanted = jax.jit(jax.value_and_grad(lambda params: loss(params)))(params)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-3)
    for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(wanted[1]), strict=True):
        a, b = np.ravel(a), np.ravel(b)
        assert a @ b > 0.99 * np.linalg.norm(a) * np.linalg.norm(b)
