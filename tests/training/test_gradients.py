"""Tick by tick against a loop from its definition, its memory; timesteps at random."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.models.neurons import LIF, SURROGATES, fire
from seenn_jax.ticks import first_ticks
from seenn_jax.training.gradients import GRADIENTS, at_random
from seenn_jax.training.losses import tet

FEATURES, CLASSES, BATCH, T = 4, 3, 6, 3


class Tiny(nnx.Module):
    """BatchNorm, two layers of neurons, linear layers."""

    def __init__(self):
        self.bn = nnx.BatchNorm(FEATURES, rngs=nnx.Rngs(0))
        self.middle = nnx.Linear(FEATURES, 5, rngs=nnx.Rngs(1))
        self.head = nnx.Linear(5, CLASSES, rngs=nnx.Rngs(2))

    def encode(self, inputs):
        return self.bn(inputs.reshape(*inputs.shape[:2], 1, 1, FEATURES))

    def integrate(self, currents, membranes=None):
        first, second = (None, None) if membranes is None else membranes
        spikes, first = fire(LIF(), currents[:, :, 0, 0], first)
        spikes, second = fire(LIF(), 2 * self.middle(spikes), second)
        return self.head(spikes), (first, second)


GRAPH, PARAMS, STATS = nnx.split(Tiny(), nnx.Param, nnx.BatchStat)


def batch(*ticks, size=BATCH):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(0.5, 1, (size, *ticks, 2, 2, 1)), jnp.float32)
    labels = rng.integers(0, CLASSES, size)
    return images, jax.nn.one_hot(labels, CLASSES), jnp.asarray(labels, jnp.int32)


def loss(inputs):
    return tet


def gradient(name, timesteps=T):
    return jax.jit(GRADIENTS[name](GRAPH, loss, timesteps, False))


def loop(params, images, targets):
    """The mean over ticks of each one's loss, in which membranes are numbers; logits; BatchNorm."""
    spike, total, logits, means, membranes = SURROGATES["dspike"], 0, [], [], [0, 0]
    for t in range(T):
        x = images[:, t].reshape(BATCH, FEATURES)
        means.append(x.mean(0))
        x = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)
        x = x * params["bn"]["scale"][...] + params["bn"]["bias"][...]
        for layer, number in (("middle", 0), ("head", 1)):
            v = 0.5 * jax.lax.stop_gradient(membranes[number]) + (x if number == 0 else 2 * x)
            s = spike(v - 1)
            membranes[number] = v * (1 - s)
            x = s @ params[layer]["kernel"][...] + params[layer]["bias"][...]
        logits.append(x)
        total = total + tet(x[:, None], targets) / T
    return total, (jnp.stack(logits, 1), jnp.stack(means).mean(0))


def test_each_tick_has_a_gradient_of_its_own():
    images, targets, labels = batch(T)
    (value, (accuracy, stats)), grads = gradient("last")(PARAMS, STATS, images, targets, labels)
    with_loop = jax.jit(jax.value_and_grad(loop, has_aux=True))
    (expected, (logits, mean)), slopes = with_loop(PARAMS, images, targets)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    chex.assert_trees_all_close(grads, slopes, rtol=1e-4, atol=1e-6)
    assert np.any(grads["middle"]["kernel"][...])
    assert accuracy == np.mean(logits.mean(1).argmax(-1) == labels)
    # One step of the running statistics, by the mean over ticks.
    np.testing.assert_allclose(stats["bn"]["mean"][...], 0.01 * mean, rtol=1e-4, atol=1e-6)
    # Through time it is another one.
    _, others = gradient("bptt")(PARAMS, STATS, images, targets, labels)
    assert not np.allclose(others["middle"]["kernel"][...], grads["middle"]["kernel"][...], 1e-2)


def test_of_one_tick_both_are_the_same():
    found = [gradient(name, 1)(PARAMS, STATS, *batch()) for name in GRADIENTS]
    chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)


def test_memory_grows_with_ticks_through_time_alone():
    def bytes_of(name, timesteps):
        program = gradient(name, timesteps).lower(PARAMS, STATS, *batch(size=512)).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert bytes_of("last", 12) == bytes_of("last", 3)
    assert bytes_of("bptt", 12) > 2 * bytes_of("bptt", 3)


@pytest.mark.parametrize("index", [0, T - 1])
def test_a_number_of_timesteps_is_a_branch(index):
    at = functools.partial(GRADIENTS["bptt"], GRAPH, loss, remat=False)
    drawn = jax.jit(lambda index, *batch: at_random(at_ticks(at), T, index)(PARAMS, STATS, *batch))
    images, *rest = batch(T)
    (value, (accuracy, stats)), grads = drawn(jnp.int32(index), images, *rest)
    few = first_ticks(images, index + 1)
    (expected, (right, moved)), slopes = gradient("bptt", index + 1)(PARAMS, STATS, few, *rest)
    chex.assert_trees_all_close(
        (value, accuracy, grads), (expected, right, slopes), rtol=1e-4, atol=1e-6
    )
    chex.assert_trees_all_close(stats, moved if index == T - 1 else STATS, rtol=1e-5)


def at_ticks(at):
    return lambda count: at(timesteps=count)
