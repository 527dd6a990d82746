"""A layer and its neurons in one kernel, by interpretation: what they do apart, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax import engine, exits
from seenn_jax.models import build_model, fused, neurons
from seenn_jax.models.fused import Block, block_for, conv_fire
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import inference_network
from seenn_jax.models.neurons import LIF, SURROGATES, Renewed, fire
from seenn_jax.models.precision import to_int8
from seenn_jax.models.resnet import ResNet8

SMALL = Block(16, 32, 32, 4, 2)


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel wherever it can be, on a CPU."""
    monkeypatch.setattr(fused, "_gpu", lambda: True)
    monkeypatch.setattr(fused, "PLATFORM", "cpu")
    monkeypatch.setattr(fused, "INTERPRET", True)


def layer_and_inputs(stride=1, out_features=32, height=8, width=8, residual=None):
    """(a layer of 32 channels, spikes, membranes of which some are fresh, residual)."""
    keys = jax.random.split(jax.random.key(stride), 5)
    layer = ConvBN(32, out_features, stride=stride, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.quantize()
    shift = jax.random.normal(keys[4], (out_features,))
    layer.affine = nnx.data((layer.affine[0], nnx.Param(shift)))
    x = jax.random.bernoulli(keys[0], 0.3, (4, 1, height, width, 32)).astype(jnp.int8)
    shape = (4, height // stride, width // stride, out_features)
    old = jax.random.normal(keys[1], shape, jnp.bfloat16)
    v = Renewed(old, jnp.zeros(shape[1:], jnp.bfloat16), jnp.array([True, False, False, True]))
    if residual is not None:
        some = jax.random.normal(keys[2], (4, 1, *shape[1:]), jnp.bfloat16)
        residual = (some > 0).astype(jnp.int8) if residual == "int8" else some
    return layer, x, v, residual


@pytest.mark.parametrize(
    ("shapes", "neuron"),
    [
        ({}, LIF()),
        ({"residual": "int8"}, LIF()),
        ({"residual": "bfloat16", "stride": 2, "out_features": 64}, LIF()),
        ({"height": 4, "width": 12}, LIF(tau=0.25, reset="soft", strict=True, threshold=0.5)),
    ],
)
def test_one_kernel_computes_what_layers_do(shapes, neuron, interpreted, monkeypatch):
    monkeypatch.setattr(fused, "BLOCKS", (SMALL,))
    layer, x, v, residual = layer_and_inputs(**shapes)
    neuron = neuron.in_int8()

    def apart(x, v, residual):
        currents = layer(x)
        return fire(neuron, currents if residual is None else currents + residual, v)

    def one(x, v, residual):
        return conv_fire(layer, neuron, x, v, residual)

    assert "pallas_call" in str(jax.make_jaxpr(one)(x, v, residual))
    wanted, found = jax.jit(apart)(x, v, residual), jax.jit(one)(x, v, residual)
    assert 0.1 < float(wanted[0].mean()) < 0.9
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def lively_network():
    """In which all layers fire."""
    model = build_model("resnet8", 32, image_shape=(8, 8, 1), num_classes=10, dtype="bfloat16")
    for number, (_, module) in enumerate(nnx.iter_graph(model)):
        if isinstance(module, nnx.BatchNorm):
            noise = jax.random.normal(jax.random.key(number), module.bias.shape)
            module.bias[...] = 0.7 * noise + 0.5
            module.scale[...] *= 2
    return model


@pytest.mark.usefixtures("interpreted")
def test_a_network_exits_the_same_with_it():
    model = lively_network()
    network = inference_network(model, (8, 8, 1), 3, prepare=to_int8)
    images = jax.random.normal(jax.random.key(0), (16, 8, 8, 1))
    times = exits.prescribed(jnp.array([1, 3, 1, 2, 1, 1, 3, 2] * 2))

    def run(method):
        program = jax.jit(
            lambda params, x: engine.run_network(method, network, params, x, times, 3, 8)
        )
        return program.trace(network.params, images)

    slots, full = run("slots"), run("full")
    with fused.apart():
        apart = run("slots")
    kernels = [str(traced.jaxpr).count("pallas_call") for traced in (slots, full, apart)]
    assert kernels == [6, 0, 0]
    found, *others = (
        traced.lower().compile()(network.params, images) for traced in (slots, full, apart)
    )
    assert np.count_nonzero(found.logits) == found.logits.size
    for other in others:
        np.testing.assert_array_equal(found.logits, other.logits)


@pytest.mark.usefixtures("interpreted")
def test_a_network_of_ones_own_gets_membranes_at_rest():
    class Own(ResNet8):
        def integrate(self, currents, membranes=None):
            stem, *rest = membranes or (None,) * (1 + len(self.blocks))
            spikes, v = self.neuron(currents, stem)
            after = [v]
            for block, v in zip(self.blocks, rest, strict=True):
                spikes, v = block(spikes, (None, None) if v is None else v)
                after.append(v)
            return self.head(jnp.mean(spikes, (2, 3), dtype=jnp.float32)), tuple(after)

    kinds = {"neuron": LIF(), "dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}
    model = Own(32, image_shape=(8, 8, 1), num_classes=10, **kinds)
    network = inference_network(model, (8, 8, 1), 2, prepare=to_int8)
    times = exits.prescribed(jnp.array([1, 2] * 8))
    images = jax.random.normal(jax.random.key(0), (16, 8, 8, 1))
    found = engine.run_network("slots", network, network.params, images, times, 2, 8)
    assert network.renew is None
    assert found.timesteps.tolist() == [1, 2] * 8


def frozen_layer():
    """One that is not quantised."""
    layer = ConvBN(32, 32, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.freeze()
    return layer


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    "change",
    [
        {"x": jnp.zeros((4, 2, 8, 8, 32), jnp.int8)},  # two ticks
        {"v": None},
        {"neuron": LIF()},  # whose spikes are not int8
        {"neuron": LIF(tau=0.3).in_int8()},
        {"neuron": LIF(tau=jnp.float32(0.5)).in_int8()},
        {"x": jnp.zeros((0, 1, 8, 8, 32), jnp.int8), "v": jnp.zeros((0, 8, 8, 32), jnp.bfloat16)},
        {"layer": frozen_layer()},
    ],
)
def test_what_the_kernel_does_not_compute_stays_apart(change):
    layer, x, v, _ = layer_and_inputs()
    arguments = {"layer": layer, "neuron": LIF().in_int8(), "x": x, "v": v}
    for changed, kernels in (({}, 1), (change, 0)):
        given = arguments | changed
        layer, neuron, x, v = given.values()
        traced = str(jax.make_jaxpr(lambda x, v, a=layer, b=neuron: conv_fire(a, b, x, v))(x, v))
        assert traced.count("pallas_call") == kernels


def test_blocks_divide_a_layer():
    assert block_for(512 * 32 * 32, 128, 128) == fused.BLOCKS[0]
    # 64 pixels: the smallest, so that many processors have some.
    assert block_for(64, 512, 512) == fused.BLOCKS[-1]
    assert block_for(8 * 8, 32, 32) == Block(32, 32, 32, 4, 4)
    assert block_for(8 * 8, 32, 64) == fused.BLOCKS[-1]
    assert block_for(7 * 7, 512, 512) is None
    assert block_for(32, 48, 32) is None


@pytest.mark.usefixtures("interpreted")
def test_arrays_too_large_for_its_offsets_stay_apart():
    layer, _, _, _ = layer_and_inputs()
    fires = lambda x, v: conv_fire(layer, LIF().in_int8(), x, v)  # noqa: E731
    for images, kernels in ((2**20 - 64, 1), (2**20, 0)):
        x = jax.ShapeDtypeStruct((images, 1, 8, 8, 32), jnp.int8)
        v = jax.ShapeDtypeStruct((images, 8, 8, 32), jnp.bfloat16)
        assert str(jax.make_jaxpr(fires)(x, v)).count("pallas_call") == kernels


@pytest.mark.usefixtures("interpreted")
def test_a_surrogate_of_ones_own_stays_apart(monkeypatch):
    own = SURROGATES | {"own": lambda x: (x >= 0).astype(x.dtype)}
    monkeypatch.setattr(neurons, "SURROGATES", own)
    layer, x, v, _ = layer_and_inputs()
    for surrogate, kernels in (("triangle", 1), ("own", 0)):
        neuron = LIF(surrogate=surrogate).in_int8()
        traced = jax.make_jaxpr(lambda x, v, a=neuron: conv_fire(layer, a, x, v))(x, v)
        assert str(traced).count("pallas_call") == kernels


@pytest.mark.usefixtures("interpreted")
def test_in_float64_layers_stay_apart():
    with jax.enable_x64(True):
        layer, x, v, _ = layer_and_inputs()
        traced = jax.make_jaxpr(lambda x, v: conv_fire(layer, LIF().in_int8(), x, v))(x, v)
    assert "pallas_call" not in str(traced)


@pytest.mark.skipif(jax.__version_info__ >= (0, 12), reason="JAX asks for a GPU to lower for one")
def test_it_lowers_for_a_gpu(monkeypatch):
    monkeypatch.setattr(fused, "_gpu", lambda: True)
    layer, x, v, _ = layer_and_inputs()
    one = jax.jit(lambda x, v: conv_fire(layer, LIF().in_int8(), x, v)).trace(x, v)
    assert "triton" in one.lower(lowering_platforms=("cuda",)).as_text()
    assert "triton" not in one.lower(lowering_platforms=("cpu",)).as_text()


def test_without_pallas_for_triton_layers_stay_apart(monkeypatch):
    monkeypatch.setattr(fused, "triton", None)
    layer, x, v, _ = layer_and_inputs()
    traced = jax.make_jaxpr(lambda x, v: conv_fire(layer, LIF().in_int8(), x, v))(x, v)
    fused._gpu.cache_clear()
    assert not fused._gpu()
    fused._gpu.cache_clear()
    assert "pallas_call" not in str(traced)
