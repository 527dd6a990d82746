"""The steps of a policy, alone and together with its network, by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.models.network import run_all
from seenn_jax.training.policy.answers import view
from seenn_jax.training.policy.step import frozen_step, joint_step
from seenn_jax.training.step import Given, augmented
from tests.training.policy.conftest import EPOCH


def policy_loss_by_hand(outputs, c, classes):
    """(loss, probabilities) of a policy over t = 1, 3; the network was right on 0.8 at t = 1."""
    outputs = np.asarray(outputs)
    base, gain, own = outputs[:, :2], outputs[:, 2:4], np.asarray(jax.nn.softmax(outputs[:, 4:]))
    v = np.asarray(jax.nn.softmax(base - gain * np.sum(own * np.log(own), 1, keepdims=True)))
    beside = -(classes * np.log(own)).sum(1)
    weights = np.where(c[:, 0], 1, 4)
    terms = 0.5 * ~c - np.array([1, 0.25]) * c
    return np.mean(weights * (v * terms).sum(1)) + 0.25 * beside.mean(), v


def test_one_step_of_the_policy_by_hand(made, dataset):
    graphs, state, optimizers, config, facts = made
    images, labels = (jnp.asarray(x[:8]) for x in dataset.train)
    index = jnp.arange(8)
    rng = np.random.default_rng(0)
    correct = jnp.asarray(rng.random((8, 2, 2)) < 0.6)
    classes = rng.dirichlet(np.ones(10), (8, 2)).astype(np.float16)
    state = state._replace(first_accuracy=jnp.float32(0.8), step=jnp.int32(EPOCH + 3))
    step = functools.partial(
        frozen_step,
        graphs=graphs,
        optimizers=optimizers,
        config=config,
        facts=facts,
        steps_per_epoch=EPOCH,
    )
    shown = images, labels, index, correct, jnp.asarray(classes)
    after, metrics = jax.jit(step)(state, Given(np.uint32(config.seed)), *shown)

    @jax.jit
    def outputs(policy):
        # In the second epoch it is shown the second copy.
        inputs = view(images, index, jnp.int32(1), jax.random.key(config.seed), config, facts)
        return run_all(nnx.merge(graphs.policy, *policy, copy=True), inputs, 1)[:, 0]

    c = np.asarray(correct[:, 1])
    expected, v = policy_loss_by_hand(outputs(state.policy), c, classes[:, 1])
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((v * c).sum(1).mean(), rel=1e-5)
    assert float(metrics["timesteps"]) == pytest.approx((v * [1, 3]).sum(1).mean(), rel=1e-5)
    # The network stays as it is, the policy does not.
    chex.assert_trees_all_equal(after.params, state.params)
    assert not np.array_equal(
        after.policy[0]["head"]["kernel"][...], state.policy[0]["head"]["kernel"][...]
    )
    assert after.step == state.step + 1


def test_one_step_of_both_by_hand(made, dataset):
    graphs, state, optimizers, config, facts = made
    images, labels = (jnp.asarray(x[:8]) for x in dataset.train)
    state = state._replace(first_accuracy=jnp.float32(0.8), step=jnp.int32(5))
    step = functools.partial(
        joint_step, graphs=graphs, optimizers=optimizers, config=config, facts=facts
    )
    unused = jnp.zeros((8, 1, 2), bool), jnp.zeros((8, 1, 10), jnp.float16)
    shown = images, labels, jnp.arange(8), *unused
    _, metrics = jax.jit(step)(state, Given(np.uint32(config.seed)), *shown)

    @jax.jit
    def outputs(state):
        key = jax.random.fold_in(jax.random.key(config.seed), 5)
        inputs, targets = augmented(key, images, labels, config, facts.normalization, 10)
        model = nnx.merge(graphs.network, state.params, state.stats, copy=True)
        chooser = nnx.merge(graphs.policy, *state.policy, copy=True)
        return targets, run_all(model, inputs, 3), run_all(chooser, inputs, 1)[:, 0]

    targets, o, chosen = jax.device_get(outputs(state))
    at_1, at_3 = o[:, 0], o.sum(1)
    c = np.stack([at_1.argmax(1) == labels, at_3.argmax(1) == labels], 1)
    expected, v = policy_loss_by_hand(chosen, c, np.asarray(jax.nn.softmax(at_1)))

    def cross_entropy(logits):
        return -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(1)

    tet = 0.999 * np.mean([cross_entropy(o[:, t]) for t in range(3)]) + 1e-3 * np.mean((o - 1) ** 2)
    at_exits = v[:, 0] * cross_entropy(at_1) + v[:, 1] * cross_entropy(at_3 / 3)
    assert float(metrics["loss"]) == pytest.approx(expected + tet + at_exits.mean(), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((v * c).sum(1).mean(), rel=1e-5)
