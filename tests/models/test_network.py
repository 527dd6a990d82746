"""All ticks at once or one at a time, and the copy for inference: the same answers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.models import MODELS
from seenn_jax.models.network import inference_network, rest, run_all
from seenn_jax.ticks import currents
from tests.models.networks import (
    BATCH,
    DEEP,
    SHAPES,
    TIMESTEPS,
    WIDTH,
    at_random,
    both_ways,
    exact,
    images,
    prepared,
)

EACH = [pytest.param(n, marks=[pytest.mark.slow] if n in DEEP else []) for n in MODELS]

# --- Time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_all_ticks_at_once_equal_ticks_with_carried_membranes(name):
    model, integrate = prepared(name)
    shown = currents(model, images(name, BATCH, TIMESTEPS), TIMESTEPS)
    together = integrate(shown, rest(model, shown))

    membranes, ticks = rest(model, shown[:, :1]), []
    for t in range(TIMESTEPS):
        logits, membranes, spikes = integrate(shown[:, t : t + 1], membranes)
        ticks.append((logits, spikes))
    logits, spikes = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *ticks)
    chex.assert_trees_all_equal((logits, membranes, spikes), together)

    # None of this is for want of spikes: every layer fires and falls silent, ticks differ.
    for layer in spikes:
        assert set(np.unique(layer)) == {0, 1}
        assert 0.01 < layer.mean() < 0.95
    assert all(np.any(logits[:, t] != logits[:, 0]) for t in range(1, TIMESTEPS))
    assert np.any(logits[0] != logits[1])


@pytest.mark.parametrize("name", EACH)
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
    chex.assert_trees_all_equal(at_rest, absent)
    # And others make a difference.
    charged = jax.tree.map(lambda v: v + 0.5, rest(model, shown))
    assert np.any(integrate(shown, charged)[0] != absent[0])


# --- Networks for the engines ---------------------------------------------------------------------


def test_network_for_the_engines_is_the_model():
    model, integrate = prepared("resnet8")
    inputs = images("resnet8", BATCH)
    shown = currents(model, inputs, TIMESTEPS)
    expected, _, _ = integrate(shown, rest(model, shown))
    before = jax.device_get(nnx.state(model))

    network = inference_network(model, SHAPES["resnet8"], TIMESTEPS)
    together, ticks = both_ways(network, inputs)
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(ticks, expected)
    chex.assert_trees_all_equal(jax.device_get(nnx.state(model)), before)


# --- One arithmetic -------------------------------------------------------------------------------


# Of each family a small one, and a deep one for `make test-slow`.
@pytest.mark.parametrize(
    "name",
    [
        "resnet8",
        "vggsnn",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("resnet19", "vgg16", "sew_resnet18_small", "ms_resnet18_small", "qkformer")
        ),
    ],
)
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
