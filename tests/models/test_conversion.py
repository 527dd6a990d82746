"""Conversion against numbers worked by hand and plain NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax import exits
from seenn_jax.engine import METHODS, run_network
from seenn_jax.errors import UserError
from seenn_jax.models import build_model, conversion
from seenn_jax.models.activations import QCFS, ReLU, inverse_softplus, qcfs
from seenn_jax.models.conversion import calibrate, compare, convert, layer_outputs
from seenn_jax.models.layers import ConvBN
from seenn_jax.models.network import inference_network, rest, run_all
from seenn_jax.models.neurons import IF, LIF
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.models.transformers import QKFormer
from seenn_jax.ticks import currents
from tests.models.networks import logits_of

PROPERTY = settings(deadline=None, max_examples=25)
SHAPE = (8, 8, 3)
T = 4
PLACES = ["stem", *(f"blocks.{i}.neuron{j}" for i in range(3) for j in (1, 2))]
thresholds = st.floats(0.0625, 16, width=32)


def small(neuron=None):
    neuron = QCFS(8) if neuron is None else neuron
    model = build_model("resnet8", 6, image_shape=SHAPE, num_classes=5, neuron=neuron)
    return nnx.view(model, use_running_average=True)


def images(count=5):
    rng = np.random.default_rng(1)
    return jnp.asarray(0.25 * rng.integers(-6, 7, (count, *SHAPE)), jnp.float32)


def exact():
    """A converted network all of whose sums are exact in float32: multiples of powers of two."""
    snn = convert(small(), SHAPE)
    for _, module in nnx.iter_graph(snn):
        if isinstance(module, ConvBN):
            module.conv.kernel[...] = jnp.round(module.conv.kernel[...] * 16) / 16
            module.bn.var[...] = jnp.full_like(module.bn.var[...], 1 - module.bn.epsilon)
    snn.head.kernel[...] = jnp.round(snn.head.kernel[...] * 16) / 16
    snn.replace_neurons(lambda place, neuron: IF(2.0 if place == "stem" else 1.0))
    return snn


# --- One layer ------------------------------------------------------------------------------------


def average_output(x, threshold, timesteps):
    shown = jnp.broadcast_to(jnp.asarray(x, jnp.float32), (1, timesteps, len(x)))
    return np.asarray(IF(jnp.float32(threshold))(shown)[0].sum(1)[0] / timesteps)


@PROPERTY
@given(thresholds, st.sampled_from([1, 3, 8, 13]))
def test_with_t_ticks_on_the_grid_of_l_levels_a_layer_is_exact(threshold, levels):
    on_grid = np.arange(-3, levels + 4) * np.float32(threshold) / levels
    outputs = average_output(on_grid, threshold, levels)
    np.testing.assert_allclose(outputs, qcfs(jnp.asarray(on_grid), threshold, levels), rtol=1e-5)
    # As many spikes as levels: no rounding hides one.
    spikes = np.clip(np.arange(-3, levels + 4), 0, levels)
    np.testing.assert_allclose(outputs * levels / threshold, spikes, atol=1e-4)


@PROPERTY
@given(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([1, 4, 8]))
def test_halfway_between_two_levels_too(threshold, levels):
    """It fires at the threshold itself. All numbers are exact here, so that ties are ties."""
    x = np.arange(-6, 2 * levels + 7) * threshold / (2 * levels)
    expected = qcfs(jnp.asarray(x, jnp.float32), threshold, levels)
    np.testing.assert_array_equal(average_output(x, threshold, levels), expected)
    assert np.any(expected == threshold)


# --- A network ------------------------------------------------------------------------------------


def test_a_network_is_evaluated_and_converted_with_its_own_levels():
    """A source of several training levels is, for inference, the same as one of none."""
    mixed, plain = (small(QCFS(8, 2.0, levels)) for levels in ((1, 2), ()))
    for model in (mixed, plain):  # networks that training left in its own mode
        nnx.update(model, nnx.state(plain))
    training = nnx.view(mixed, use_running_average=False)
    found = [
        jax.jit(network.logits)(network.params, images())
        for network in (inference_network(m, SHAPE, 1) for m in (training, plain))
    ]
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(
        *(logits_of(convert(m, SHAPE), images(), T) for m in (mixed, plain))
    )


def test_a_converted_network_is_the_same_at_once_and_tick_by_tick():
    snn = exact()
    graph, state = nnx.split(snn)
    integrate = jax.jit(lambda state, x, v: layer_outputs(nnx.merge(graph, state), x, v))
    shown = currents(snn, images(), T)
    resting = rest(snn, shown)
    together = integrate(state, shown, resting)
    membranes, ticks = resting, []
    for t in range(T):
        logits, membranes, outputs = integrate(state, shown[:, t : t + 1], membranes)
        ticks.append((logits, outputs))
    logits, outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *ticks)
    chex.assert_trees_all_equal((logits, membranes, outputs), together)
    # Membranes rest at half the threshold, and no membranes are membranes at rest.
    assert {float(v) for leaf in jax.tree.leaves(resting) for v in np.unique(leaf)} == {1.0, 0.5}
    # None of this is for want of spikes.
    assert set(np.unique(outputs["stem"])) == {0, 2}
    for place, layer in outputs.items():
        assert place == "stem" or set(np.unique(layer)) == {0, 1}
    assert all(np.any(logits[:, t] != logits[:, 0]) for t in range(1, T))


def test_all_ways_to_run_exits_agree():
    network = inference_network(exact(), SHAPE, T)
    inputs = images(30)
    criterion = exits.above(exits.confidence, 0.5)
    found = [
        jax.jit(
            lambda x, method=method: run_network(
                method, network, network.params, x, criterion, T, 4
            )
        )(inputs)
        for method in METHODS
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].timesteps, other.timesteps)
        np.testing.assert_array_equal(found[0].logits, other.logits)
    # Samples leave at different times, so that slots hold fresh ones beside old ones.
    assert len(np.unique(found[0].timesteps)) > 2


def test_an_ann_is_a_network_of_one_timestep_without_membranes():
    ann = small()
    network = inference_network(ann, SHAPE, 1)
    assert jax.tree.leaves(network.at_rest) == []
    expected = logits_of(ann, images(), 1)
    at_once = jax.jit(network.logits)(network.params, images())
    np.testing.assert_allclose(at_once, expected, rtol=1e-4)
    step = jax.jit(lambda p, x: network.step(p, network.at_rest, network.encode(p, x)))
    membranes, found = step(network.params, images())
    np.testing.assert_allclose(found, expected[:, 0], rtol=1e-4)
    assert jax.tree.leaves(membranes) == []


def test_each_layer_has_its_own_threshold_and_keeps_it():
    ann = small()
    before = jax.device_get(nnx.state(ann))
    ann.blocks[1].neuron2.raw[...] = inverse_softplus(jnp.float32(3.5))
    snn = convert(ann, SHAPE)
    found = conversion.thresholds_of(snn)
    assert list(found) == PLACES
    expected = {place: 2.0 for place in found} | {"blocks.1.neuron2": 3.5}
    assert found == pytest.approx(expected, rel=1e-5)
    assert isinstance(snn, SpikingResNet)
    assert isinstance(ann.neuron, QCFS)
    np.testing.assert_array_equal(before["head"]["kernel"], snn.head.kernel[...])


def test_gradients_reach_every_threshold():
    ann = small()
    graph, params, rest_of_it = nnx.split(ann, nnx.Param, ...)
    loss = lambda p: jnp.sum(run_all(nnx.merge(graph, p, rest_of_it), images(), 1)[..., 0])  # noqa: E731
    grads = jax.jit(jax.grad(loss))(params)
    slopes = [g for path, g in nnx.to_flat_state(grads) if path[-1] == "raw"]
    assert len(slopes) == 7
    assert all(np.isfinite(g[...]) and g[...] != 0 for g in slopes)


# --- What can't be converted ----------------------------------------------------------------------


def gelu(x, v0=None):
    return jax.nn.gelu(x), None


class MaxPooled(SpikingResNet):
    stages = (1,)

    def integrate(self, currents, membranes=None):
        pooled = nnx.max_pool(currents[:, 0], (2, 2), strides=(2, 2))
        return super().integrate(pooled[:, None], membranes)


def max_pooled():
    options = {"neuron": QCFS(4), "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    model = MaxPooled(6, image_shape=SHAPE, num_classes=5, **options)
    return nnx.view(model, use_running_average=True)


class Attending(QKFormer):
    """Without its max pooling."""

    token_blocks, self_blocks = (), 1


def attending():
    options = {"neuron": QCFS(4), "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    model = Attending(6, image_shape=SHAPE, num_classes=5, **options)
    return nnx.view(model, use_running_average=True)


class Looked(SpikingResNet):
    """With a function that takes nothing and one that gives nothing, of which no spikes come."""

    stages = (1,)

    def integrate(self, currents, membranes=None):
        jax.debug.callback(lambda x: None, currents)
        return super().integrate(currents + jax.jit(lambda: jnp.zeros(()))(), membranes)


def test_functions_without_arguments_or_results_are_no_obstacle():
    options = {"neuron": QCFS(4), "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    model = Looked(6, image_shape=SHAPE, num_classes=5, **options)
    assert conversion.unconvertible(model, SHAPE) is None


def with_raw(value):
    ann = small()
    ann.blocks[0].neuron1.raw[...] = jnp.float32(value)
    return ann


@pytest.mark.parametrize(
    ("make", "found", "match"),
    [
        (lambda: small(neuron=gelu), None, r"stem is a gelu, which has no spiking.*qcfs or relu"),
        (lambda: small(neuron=LIF()), None, r"stem is a layer of LIF neurons.*spikes already"),
        (lambda: convert(small(), SHAPE), None, r"layer of IF neurons.*spikes already"),
        (lambda: small(neuron=ReLU()), None, r"stem is a ReLU.*conversion\.calibrate"),
        (lambda: small(neuron=ReLU()), {"stem": 0.0}, r"stem has the threshold 0\.0.*positive"),
        (lambda: small(neuron=ReLU()), {"stem": -1.0}, r"stem has the threshold -1\.0"),
        (lambda: with_raw(-1e4), None, r"blocks\.0\.neuron1 has the threshold 0\.0"),
        (lambda: with_raw(np.nan), None, r"blocks\.0\.neuron1 has the threshold nan"),
        (max_pooled, None, r"max pooling \(to a map of 4x4x6\).*average pooling.*`ann`"),
        (attending, None, r"a product of spikes with spikes, as in attention"),
    ],
    ids=["gelu", "LIF", "IF", "ReLU", "0", "negative", "underflow", "nan", "pooling", "attention"],
)
def test_what_cannot_be_converted_is_named(make, found, match):
    with pytest.raises(UserError, match=match):
        convert(make(), SHAPE, found)


# --- Calibration and comparison -------------------------------------------------------------------


@pytest.mark.parametrize("percentile", [90.0, 100.0])
def test_thresholds_of_relus_are_percentiles_of_their_outputs(percentile):
    ann = small(neuron=ReLU())
    batches = [images(8)[:4], images(8)[4:]]
    found = calibrate(ann, batches, percentile)
    outputs = jax.jit(lambda x: layer_outputs(ann, currents(ann, x, 1))[2])
    parts = [jax.device_get(outputs(batch)) for batch in batches]
    over_batches = np.max if percentile == 100 else np.mean
    for place, threshold in found.items():
        expected = over_batches([np.percentile(part[place], percentile) for part in parts])
        assert threshold == pytest.approx(expected, rel=1e-4)
    snn = convert(ann, SHAPE, found)
    assert conversion.thresholds_of(snn) == pytest.approx(found)


@pytest.mark.parametrize("percentile", [0.0, 100.1, float("nan")])
def test_percentiles_that_cannot_be(percentile):
    with pytest.raises(UserError, match=f"the percentile is {percentile}: .*at most 100"):
        calibrate(small(neuron=ReLU()), [images()], percentile)


def test_the_comparison_is_what_numpy_finds():
    ann = small()
    snn = convert(ann, SHAPE)
    x = images(6)
    run = jax.jit(lambda x: [layer_outputs(m, currents(m, x, t)) for m, t in ((ann, 1), (snn, 4))])
    (logits, _, wanted), (spiking, _, outputs) = run(x)
    labels = np.array(logits[:, 0].argmax(-1))
    labels[0] = (labels[0] + 1) % 5
    found = compare(ann, snn, [(x[:3], labels[:3]), (x[3:], labels[3:])], (1, 4))
    assert found["ann_accuracy"] == pytest.approx(5 / 6)
    assert found["timesteps"] == [1, 4]
    predictions = np.asarray(spiking).cumsum(1).argmax(-1)
    right = (predictions == labels[:, None]).mean(0)
    assert found["accuracy"] == pytest.approx([right[0], right[3]])
    assert [layer["place"] for layer in found["layers"]] == PLACES
    for layer in found["layers"]:
        target = np.asarray(wanted[layer["place"]][:, 0])
        run = np.asarray(outputs[layer["place"]])
        errors = [np.abs(run[:, :t].mean(1) - target).mean() for t in (1, 4)]
        assert layer["error"] == pytest.approx(errors, rel=1e-4)
        assert layer["threshold"] == pytest.approx(2, rel=1e-5)
    assert found["layers"][0]["error"][1] > 0


def test_the_first_layer_is_exact_at_t_equal_l():
    ann = small()
    found = compare(ann, convert(ann, SHAPE), [(images(), np.zeros(5, int))], (8,))
    assert found["layers"][0]["error"][0] < 1e-6
    assert found["layers"][1]["error"][0] > 1e-6
