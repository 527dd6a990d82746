"""Slots, masked and full: same predictions and exit times, whatever the sizes."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax import engine, exits
from seenn_jax.errors import UserError
from seenn_jax.models import build_model, inference_network, run_all

CLASSES, FEATURES = 3, 4
WEIGHTS = np.random.default_rng(0).normal(size=(FEATURES, CLASSES)).astype(np.float32)


def step(state, x):
    """A leaky neuron with hard reset: what it says at t depends on all ticks before."""
    v = 0.5 * state + x @ WEIGHTS
    spikes = (v >= 1).astype(v.dtype)
    return v * (1 - spikes), spikes + 0.1 * v


def all_ticks(timesteps):
    def logits(x):
        state, out = jnp.zeros((len(x), CLASSES)), []
        for _ in range(timesteps):
            state, now = step(state, x)
            out.append(now)
        return jnp.stack(out, 1)

    return logits


def three_ways(inputs, criterion, timesteps, slots, **kwargs):
    rest = jnp.zeros(CLASSES)
    return (
        jax.jit(lambda x: engine.run_full(all_ticks(timesteps), x, criterion, slots, **kwargs))(
            inputs
        ),
        jax.jit(lambda x: engine.run_masked(step, rest, x, criterion, timesteps, slots, **kwargs))(
            inputs
        ),
        jax.jit(lambda x: engine.early_exit(step, rest, x, criterion, timesteps, slots, **kwargs))(
            inputs
        ),
    )


def random_inputs(samples, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, FEATURES)).astype(np.float32)


def assert_same(results):
    first = results[0]
    for other in results[1:]:
        np.testing.assert_array_equal(first.timesteps, other.timesteps)
        np.testing.assert_allclose(first.logits, other.logits, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    samples=st.integers(0, 12),
    timesteps=st.integers(1, 5),
    slots=st.integers(1, 14),
    seed=st.integers(0, 2**16),
)
def test_prescribed_times(samples, timesteps, slots, seed):
    times = np.random.default_rng(seed).integers(1, timesteps + 1, samples).astype(np.int32)
    inputs = random_inputs(samples, seed)
    results = three_ways(inputs, engine.prescribed(jnp.asarray(times)), timesteps, slots)
    assert_same(results)
    np.testing.assert_array_equal(results[0].timesteps, times)
    # By hand: the sum of the sample's own logits up to its time.
    if samples:
        logits = np.asarray(all_ticks(timesteps)(jnp.asarray(inputs)))
        expected = [logits[i, : times[i]].sum(0) for i in range(samples)]
        np.testing.assert_allclose(results[2].logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "criterion",
    [
        engine.above(exits.confidence, 0.6),
        engine.above(exits.entropy, 0.2),
        engine.above(exits.margin, 0.3),
        engine.patience(2),
        engine.oracle(jnp.arange(50) % CLASSES),
        engine.never(),
    ],
    ids=["confidence", "entropy", "margin", "patience", "oracle", "never"],
)
@pytest.mark.parametrize("slots", [1, 7, 64])
def test_criteria(criterion, slots):
    results = three_ways(random_inputs(50), criterion, 6, slots)
    assert_same(results)


def test_criteria_agree_with_exits():
    inputs, timesteps = random_inputs(50), 6
    logits = np.asarray(all_ticks(timesteps)(jnp.asarray(inputs)))
    cumulative = exits.accumulate(logits)
    labels = np.arange(50) % CLASSES
    predictions = cumulative.argmax(-1)
    expected = {
        "confidence": exits.exit_times(exits.confidence(cumulative), 0.6),
        "patience": exits.patience_exit_times(predictions, 3),
        "oracle": exits.oracle_exit_times(predictions == labels[:, None]),
    }
    criteria = {
        "confidence": engine.above(exits.confidence, 0.6),
        "patience": engine.patience(3),
        "oracle": engine.oracle(jnp.asarray(labels)),
    }
    for name, criterion in criteria.items():
        found = three_ways(inputs, criterion, timesteps, 8)[2]
        assert len(set(np.asarray(found.timesteps).tolist())) > 1
        np.testing.assert_array_equal(found.timesteps, expected[name], name)
        np.testing.assert_allclose(
            found.logits, exits.at_exit(cumulative, expected[name]), rtol=1e-5, atol=1e-6
        )


def test_scale_is_a_factor_at_each_timestep():
    scale = jnp.asarray([1.0, 0.5, 4.0])
    times = jnp.asarray([1, 2, 3, 2], jnp.int32)
    inputs = random_inputs(4)
    plain = three_ways(inputs, engine.prescribed(times), 3, 2)[0]
    for scaled in three_ways(inputs, engine.prescribed(times), 3, 2, scale=scale):
        np.testing.assert_allclose(
            scaled.logits, plain.logits * scale[times - 1][:, None], rtol=1e-6
        )


def test_input_of_each_tick():
    inputs = np.random.default_rng(0).normal(size=(9, 4, FEATURES)).astype(np.float32)
    times = jnp.asarray([1, 2, 3, 4, 4, 3, 2, 1, 2], jnp.int32)
    found = engine.early_exit(
        step,
        jnp.zeros(CLASSES),
        inputs,
        engine.prescribed(times),
        4,
        3,
        input_at=lambda x, index, t: x[index, t],
    )
    for i, time in enumerate(times.tolist()):
        state, total = jnp.zeros((1, CLASSES)), 0
        for t in range(time):
            state, now = step(state, inputs[i : i + 1, t])
            total = total + now
        np.testing.assert_allclose(found.logits[i], total[0], rtol=1e-5, atol=1e-6)
    masked = engine.run_masked(
        step,
        jnp.zeros(CLASSES),
        inputs,
        engine.prescribed(times),
        4,
        3,
        input_at=lambda x, index, t: x[index, t],
    )
    assert_same([found, masked])


def test_fresh_samples_start_at_rest():
    """A state at rest that is not zero, as a converted network's; leftovers would be seen."""

    def counting(state, x):
        return state + 1, jnp.stack([state, x], -1)

    found = engine.early_exit(
        counting, jnp.float32(10), np.arange(7.0), engine.prescribed(jnp.ones(7, jnp.int32)), 3, 2
    )
    np.testing.assert_array_equal(found.logits, np.stack([np.full(7, 10), np.arange(7)], -1))


def test_slots_do_only_the_work_that_is_needed():
    """A tick costs the same whoever sits in the slots: count the ticks."""
    times = jnp.asarray([4, 1, 1, 1, 1, 2, 2], jnp.int32)

    def counting(state, x):
        return state, jnp.broadcast_to(state[:1, None], (len(x), 2))

    ticks = []

    def spy(state, x):
        jax.debug.callback(lambda: ticks.append(1), ordered=True)
        return counting(state, x)

    arguments = jnp.float32(0), np.zeros(7), engine.prescribed(times), 4, 2
    jax.block_until_ready(engine.early_exit(spy, *arguments))
    jax.effects_barrier()
    assert len(ticks) == 6  # 12 ticks of samples in two slots, none of them ever empty
    ticks.clear()
    jax.block_until_ready(engine.run_masked(spy, *arguments))
    jax.effects_barrier()
    assert len(ticks) == 4 + 1 + 2 + 2  # each pair waits for its last


@pytest.mark.parametrize(
    ("rows", "expected"), [(8, [7, 7, 7]), (7, [7, 7, 7]), (6, [6, 6, 6, 3]), (100, [21])]
)
def test_chunks_are_equal_and_as_large_as_may_be(monkeypatch, rows, expected):
    array = np.arange(21 * 6, dtype=np.uint8).reshape(21, 3, 2)
    monkeypatch.setattr(engine, "CHUNK_BYTES", 6 * rows)
    found = list(engine.chunks(array))
    assert [len(chunk) for chunk in found] == expected
    np.testing.assert_array_equal(np.concatenate(found), array)


def test_stream_in_chunks():
    inputs = random_inputs(23)
    criterion = engine.above(exits.confidence, 0.6)
    run = jax.jit(
        lambda x, count: engine.early_exit(
            step, jnp.zeros(CLASSES), x, criterion, 5, 4, count=count
        )
    )
    whole = run(inputs, jnp.int32(23))
    chunks = list(engine.in_chunks(run, (inputs[i : i + 8] for i in range(0, 23, 8))))
    assert [len(chunk.timesteps) for chunk in chunks] == [8, 8, 7]
    np.testing.assert_array_equal(np.concatenate([c.timesteps for c in chunks]), whole.timesteps)
    np.testing.assert_allclose(np.concatenate([c.logits for c in chunks]), whole.logits, rtol=1e-6)
    assert list(engine.in_chunks(run, [])) == []
    with pytest.raises(UserError, match="a chunk has 3 samples and the first one 2"):
        list(engine.in_chunks(run, [inputs[:2], inputs[:3]]))


@pytest.mark.parametrize("kind", ["slots", "timesteps"])
def test_fewer_than_one(kind):
    arguments = {"slots": 2, "timesteps": 2, kind: 0}
    for run in (engine.early_exit, engine.run_masked):
        with pytest.raises(UserError, match=f"{kind} is 0: it must be at least 1"):
            run(step, jnp.zeros(CLASSES), random_inputs(3), engine.never(), **arguments)


DEVICES = """
import jax, numpy as np, jax.numpy as jnp
from seenn_jax import engine, exits
weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
def run(weights, x, count):
    def step(v, x):
        v = 0.5 * v + x @ weights
        return v * (v < 1), jnp.tanh(v)
    criterion = engine.above(exits.confidence, 0.5)
    return engine.early_exit(step, jnp.zeros(3), x, criterion, 4, 5, count=count)
assert jax.local_device_count() == 4
for samples in (0, 1, 3, 10, 33):
    x = np.random.default_rng(samples).normal(size=(samples, 4)).astype(np.float32)
    many = jax.jit(engine.over_devices(run))(weights, x)
    one = run(weights, x, None)
    assert np.array_equal(many.timesteps, one.timesteps)
    assert np.allclose(many.logits, one.logits, atol=1e-6)
    assert samples < 10 or len(set(one.timesteps.tolist())) > 1
print("same")
"""


def test_result_does_not_depend_on_the_number_of_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DEVICES],
        env=os.environ | flags,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "same", done.stderr


@pytest.fixture(scope="module")
def trained():
    """A spiking network whose statistics fit its inputs, so that all layers fire."""
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


def test_network(trained):
    model, images = trained
    network = inference_network(model, (8, 8, 1), 4)
    unfolded = run_all(nnx.view(model, use_running_average=True), images, 4)
    folded = jax.jit(network.logits)(network.params, images)
    np.testing.assert_allclose(folded, unfolded, atol=1e-4)
    assert jnp.abs(unfolded[:, 0] - unfolded[:, 1]).max() > 0  # it spikes

    scores = exits.confidence(exits.accumulate(folded))
    threshold = float(jnp.median(scores[:, 1]))
    criterion = engine.above(exits.confidence, threshold)
    results = [
        jax.jit(
            lambda images, method=method: engine.run_network(
                method, network, network.params, images, criterion, 4, 8
            )
        )(images)
        for method in engine.METHODS
    ]
    assert len(set(np.asarray(results[0].timesteps).tolist())) > 1
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].timesteps, other.timesteps)
        np.testing.assert_array_equal(results[0].logits, other.logits)
    with pytest.raises(UserError, match="unknown method 'slot'"):
        engine.run_network("slot", network, network.params, images, criterion, 4, 8)


def test_network_with_an_input_for_each_tick(trained):
    model, images = trained
    network = inference_network(model, (8, 8, 1), 4)
    # Frames 2 and 3 of sample i are those of another one.
    frames = jnp.stack([images, images, images[::-1], images[::-1]], axis=1)
    logits = jax.jit(network.logits)(network.params, frames)
    still = jax.jit(network.logits)(network.params, images)
    np.testing.assert_allclose(logits[:, :2], still[:, :2], atol=1e-5)
    assert jnp.abs(logits[:, 2] - still[:, 2]).max() > 1e-2

    scores = exits.confidence(exits.accumulate(logits))
    criterion = engine.above(exits.confidence, float(jnp.median(scores[:, 1])))
    results = [
        jax.jit(
            lambda frames, method=method: engine.run_network(
                method, network, network.params, frames, criterion, 4, 8
            )
        )(frames)
        for method in engine.METHODS
    ]
    assert len(set(np.asarray(results[0].timesteps).tolist())) > 2
    assert_same(results)
    for method in engine.METHODS:
        with pytest.raises(UserError, match="the inputs have 4 timesteps and T is 5"):
            engine.run_network(method, network, network.params, frames, criterion, 5, 8)


def test_int8_network(trained):
    """The int8 network is the float one whose weights were rounded: spikes are exact in both."""
    model, images = trained
    int8 = inference_network(model, (8, 8, 1), 4, int8=True)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(int8.params)}
    assert dtypes == {jnp.dtype("int8"), jnp.dtype("float32")}

    rounded = nnx.clone(model)
    for layer in rounded.spike_layers():
        kernel = np.asarray(layer.conv.kernel[...])
        step = np.abs(kernel).max((0, 1, 2)) / 127
        layer.conv.kernel[...] = np.round(kernel / step) * step
    rounded = nnx.view(rounded, use_running_average=True)
    expected = run_all(rounded, images, 4)
    found = jax.jit(int8.logits)(int8.params, images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    exact = inference_network(model, (8, 8, 1), 4)
    assert jnp.abs(found - exact.logits(exact.params, images)).max() > 1e-4


def test_int8_vgg_leaves_pooled_layers_in_float():
    model = build_model("vgg16", 2, image_shape=(16, 16, 3), num_classes=10)
    network = inference_network(model, (16, 16, 3), 2, int8=True)
    kinds = [leaf.dtype.name for leaf in jax.tree.leaves(network.params) if leaf.ndim == 4]
    assert kinds.count("int8") == 8  # 13 layers less the stem and four that follow a pool
    logits = network.logits(network.params, jnp.ones((3, 16, 16, 3)))
    assert logits.shape == (3, 2, 10)
