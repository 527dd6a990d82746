"""A network of this package by every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.data.events.i2e import I2E
from seenn_jax.engine import METHODS, run_network
from seenn_jax.errors import UserError
from seenn_jax.exits import above
from seenn_jax.models.network import Network, inference_network
from tests.engine.ways import assert_same
from tests.models.networks import fitted, logits_of


def by_each_method(network, images, criterion):
    """What exits leave of 8 slots or images at a time, at T = 4."""
    return [
        jax.jit(
            lambda images, method=method: run_network(
                method, network, network.params, images, criterion, 4, 8
            )
        )(images)
        for method in METHODS
    ]


def test_network():
    model, images = fitted()
    network = inference_network(model, (8, 8, 1), 4)
    unfolded = logits_of(model, images, 4)
    folded = jax.jit(network.logits)(network.params, images)
    np.testing.assert_allclose(folded, unfolded, atol=1e-4)
    assert jnp.abs(unfolded[:, 0] - unfolded[:, 1]).max() > 0  # it spikes

    scores = exits.confidence(exits.accumulate(folded))
    threshold = float(jnp.median(scores[:, 1]))
    criterion = above(exits.confidence, threshold)
    results = by_each_method(network, images, criterion)
    assert len(set(np.asarray(results[0].timesteps).tolist())) > 1
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].timesteps, other.timesteps)
        np.testing.assert_array_equal(results[0].logits, other.logits)
    with pytest.raises(UserError, match="unknown method 'slot'"):
        run_network("slot", network, network.params, images, criterion, 4, 8)


def test_network_with_an_input_for_each_tick():
    model, images = fitted()
    network = inference_network(model, (8, 8, 1), 4)
    # Frames 2 and 3 of sample i are those of another one.
    frames = jnp.stack([images, images, images[::-1], images[::-1]], axis=1)
    logits = jax.jit(network.logits)(network.params, frames)
    still = jax.jit(network.logits)(network.params, images)
    np.testing.assert_allclose(logits[:, :2], still[:, :2], atol=1e-5)
    assert jnp.abs(logits[:, 2] - still[:, 2]).max() > 1e-2

    scores = exits.confidence(exits.accumulate(logits))
    criterion = above(exits.confidence, float(jnp.median(scores[:, 1])))
    results = by_each_method(network, frames, criterion)
    assert len(set(np.asarray(results[0].timesteps).tolist())) > 2
    assert_same(results)
    for method in METHODS:
        with pytest.raises(UserError, match="the inputs have 4 timesteps and T is 5"):
            run_network(method, network, network.params, frames, criterion, 5, 8)


def test_events_that_are_made_of_each_image_when_its_tick_comes():
    def step(params, membranes, frames):
        membranes = 0.5 * membranes + frames.sum((1, 2)) / 8
        return membranes, jnp.where(membranes > 1, membranes, 0)

    def logits(params, frames):
        def tick(membranes, now):
            return step(params, membranes, now)

        _, found = jax.lax.scan(tick, jnp.zeros((len(frames), 2)), jnp.moveaxis(frames, 1, 0))
        return jnp.moveaxis(found, 0, 1)

    network = Network((), lambda params, frames: frames, step, logits, jnp.zeros(2))
    images = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 3), np.uint8)
    criterion = above(exits.confidence, 0.8)
    results = [
        jax.jit(
            lambda images, method=method: run_network(
                method, network, (), images, criterion, 4, 8, encoding=I2E(side=8, ratio=0.3)
            )
        )(images)
        for method in METHODS
    ]
    assert len(set(np.asarray(results[0].timesteps).tolist())) > 2
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].timesteps, other.timesteps)
        np.testing.assert_array_equal(results[0].logits, other.logits)
