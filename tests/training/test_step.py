"""The step by hand: how parameters and the average move, and what is taught."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.data.autoaugment import autoaugment
from seenn_jax.run import build, folder
from seenn_jax.training.gradients import forward
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import (
    Given,
    _draw,
    augmented,
    evaluated,
    initial_state,
    train_step,
)

KEY = jax.random.key(0)
NORMALIZATION = np.array([0.5], np.float32), np.array([0.25], np.float32)


class Tiny(nnx.Module):
    """A network of this package's kind that compiles at once: BatchNorm and a linear layer."""

    def __init__(self):
        self.bn = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

    def encode(self, inputs):
        return self.bn(inputs.reshape(*inputs.shape[:2], 1, 1, -1))

    def integrate(self, currents, membranes=None):
        return self.head(currents[:, :, 0, 0]), membranes


def tiny_state(config, steps=10):
    optimizer = make_optimizer(config, steps)
    graph, state = initial_state(Tiny(), optimizer, config.ema)
    step = functools.partial(
        train_step,
        graph=graph,
        optimizer=optimizer,
        config=config,
        normalization=NORMALIZATION,
        num_classes=3,
        timesteps=config.timesteps,
    )
    key = Given(np.uint32(config.seed))
    return state, jax.jit(lambda state, *batch: step(state, key, *batch))


def batch(seed=0, size=6):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (size, 2, 2, 1), np.uint8)
    return jnp.asarray(images), jnp.asarray(random.integers(0, 3, size, np.int32))


@pytest.fixture
def config(make_config):
    return make_config(augment={"crop": 0}, ema=0.0)


# --- One step -------------------------------------------------------------------------------------


def test_a_step_moves_parameters_and_statistics(config):
    state, step = tiny_state(config)
    images, labels = batch()
    after, metrics = step(state, images, labels)
    assert after.step == 1
    kernel = [s.params["head"]["kernel"][...] for s in (state, after)]
    mean = [s.stats["bn"]["mean"][...] for s in (state, after)]
    assert not np.array_equal(*kernel)
    assert not np.array_equal(*mean)
    assert evaluated(after) == (after.params, after.stats)

    # The metrics are those before the step, of this batch: once more in NumPy.
    x = (np.asarray(images, np.float32) / 255 - 0.5).reshape(6, 4) / 0.25
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    logits = x @ np.asarray(kernel[0])
    logarithms = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    cross_entropy = -logarithms[np.arange(6), labels].mean()
    loss = 0.999 * cross_entropy + 0.001 * np.square(logits - 1).mean()
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    assert metrics["accuracy"] == np.mean(logits.argmax(-1) == labels)
    assert metrics["gradient_norm"] > 0


def test_the_loss_of_the_config_is_used(config):
    images, labels = batch()
    losses = {}
    for name, weight in (("mean_ce", 1e-3), ("tet", 0.0), ("tet", 1.0)):
        config.loss, config.tet_weight = name, weight
        state, step = tiny_state(config)
        losses[name, weight] = float(step(state, images, labels)[1]["loss"])
    # All ticks of this network are alike, so that TET without its second term is cross-entropy.
    np.testing.assert_allclose(losses["tet", 0.0], losses["mean_ce", 1e-3], rtol=1e-6)
    assert losses["tet", 1.0] != losses["tet", 0.0]


@pytest.mark.parametrize(
    ("step_number", "decay"),
    # min(ema, (1 + step) / (10 + step))
    [(0, 0.1), (8, 0.5), (10, 0.55), (989, 0.9)],
)
def test_the_average_warms_up(config, step_number, decay):
    config.ema = 0.9
    state, step = tiny_state(config, steps=2000)
    old = jax.tree.map(lambda a: a + 1.0, state.average)
    state = state._replace(step=jnp.int32(step_number), average=old)
    after, _ = step(state, *batch())
    expected = jax.tree.map(
        lambda new, old: decay * old + (1 - decay) * new, (after.params, after.stats), old
    )
    chex.assert_trees_all_close(after.average, expected, rtol=1e-5, atol=1e-6)
    assert evaluated(after) is after.average


def test_the_average_begins_as_a_copy(config):
    config.ema = 0.9
    state, _ = tiny_state(config)
    chex.assert_trees_all_equal(state.average, (state.params, state.stats))
    # A donated buffer may be in a state once only.
    kernels = state.params["head"]["kernel"][...], state.average[0]["head"]["kernel"][...]
    assert kernels[0].unsafe_buffer_pointer() != kernels[1].unsafe_buffer_pointer()


def test_fewer_timesteps_see_the_first_frames_of_event_data(make_config):
    config = make_config(augment={"crop": 0, "flip": True}, ema=0.0, timesteps=2)
    state, step = tiny_state(config)
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 9, (6, 3, 2, 2, 1), np.uint8))
    labels = jnp.arange(6) % 3
    after, metrics = step(state, frames, labels)
    expected, same = step(state, frames[:, :2], labels)
    chex.assert_trees_all_equal((after, metrics), (expected, same))
    other, _ = step(state, frames[:, 1:], labels)
    assert not np.array_equal(
        after.params["head"]["kernel"][...], other.params["head"]["kernel"][...]
    )


def test_the_number_of_timesteps_is_drawn_for_each_step(make_config):
    config = make_config(
        augment={"crop": 0}, ema=0.0, timesteps=3, random_timesteps=True, loss="mean_ce"
    )
    state, step = tiny_state(config)
    found = [int(_draw(Given(np.uint32(0)), jnp.int32(s), 3)) for s in range(60)]
    assert {found.count(index) > 10 for index in range(3)} == {True}
    for number in (found.index(0), found.index(2)):
        after, metrics = step(state._replace(step=jnp.int32(number)), *batch())
        assert metrics["timesteps"] == found[number] + 1
        # The running statistics are those of all timesteps.
        moved = not np.array_equal(after.stats["bn"]["mean"][...], state.stats["bn"]["mean"][...])
        assert moved == (found[number] == 2)


# --- Memory ---------------------------------------------------------------------------------------


def test_two_accumulated_parts_by_hand(make_config):
    """Every second sample is one part: normalised by itself, and half of the gradient."""
    config = make_config(augment={"crop": 0}, ema=0.0, accumulate=2)
    state, step = tiny_state(config)
    images, labels = batch()
    after, metrics = step(state, images, labels)

    kernel = np.asarray(state.params["head"]["kernel"][...])
    x = (np.asarray(images, np.float32) / 255 - 0.5).reshape(6, 4) / 0.25
    mean, variance, gradients, losses, right = np.zeros(4), np.ones(4), [], [], []
    for own, y in ((x[0::2], labels[0::2]), (x[1::2], labels[1::2])):
        # In its turn, each part moves the running statistics by 1 %.
        mean = 0.99 * mean + 0.01 * own.mean(0)
        variance = 0.99 * variance + 0.01 * own.var(0)
        normal = (own - own.mean(0)) / np.sqrt(own.var(0) + 1e-5)
        logits = normal @ kernel
        chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        cross_entropy = -np.log(chances[np.arange(3), y]).mean()
        losses.append(0.999 * cross_entropy + 0.001 * np.square(logits - 1).mean())
        right.append(logits.argmax(-1) == y)
        wrong = 0.999 * (chances - np.eye(3)[y]) / 3 + 0.001 * 2 * (logits - 1) / 9
        gradients.append(normal.T @ wrong)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(right), rtol=1e-6)
    np.testing.assert_allclose(after.stats["bn"]["mean"][...], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.stats["bn"]["var"][...], variance, rtol=1e-5)
    # The first step of Nesterov's momentum is 1.9 gradients.
    gradient = np.mean(gradients, 0) + 5e-4 * kernel
    moved = kernel - 0.1 * 1.9 * gradient
    np.testing.assert_allclose(after.params["head"]["kernel"][...], moved, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def spiking(make_config):
    """(structure, params, statistics, inputs) of a network that spikes."""
    facts = folder.DataFacts((8, 8, 1), 10, [0.5], [0.5])
    model = build.network(make_config(), facts)
    return *nnx.split(model, nnx.Param, nnx.BatchStat), jax.random.normal(KEY, (6, 8, 8, 1))


def of_loss(spiking, remat, do):
    graph, params, stats, inputs = spiking

    def loss(params):
        logits, after = forward(graph, params, stats, inputs, 3, remat)
        return jnp.sum(jnp.square(logits)), after

    return jax.jit(lambda params: do(loss, params))(params)


def test_recomputing_changes_no_gradient(spiking):
    gradient = functools.partial(jax.value_and_grad, has_aux=True)
    plain, recomputed = (
        of_loss(spiking, remat, lambda loss, params: gradient(loss)(params))
        for remat in (False, True)
    )
    assert np.ptp(plain[1]["blocks"][0]["conv2"]["conv"]["kernel"][...]) > 0
    chex.assert_trees_all_close(plain, recomputed, rtol=1e-4, atol=1e-4)


def test_recomputing_keeps_less(spiking):
    def kept(remat):
        """Bytes between the forward and the backward pass."""
        pull = functools.partial(jax.vjp, has_aux=True)
        found = jax.eval_shape(
            lambda _: of_loss(spiking, remat, lambda loss, params: pull(loss, params)[1]), 0
        )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))

    assert kept(True) < 0.6 * kept(False)


# --- Targets --------------------------------------------------------------------------------------


def targets_with(config, **changes):
    with config.unlocked():
        config.update(changes)
    images, labels = batch(size=64)
    return (
        augmented(jax.random.key(0), images, labels, config, NORMALIZATION, 3),
        np.asarray(jax.nn.one_hot(labels, 3)),
        (np.asarray(images, np.float32) / 255 - 0.5) / 0.25,
    )


def test_plain_targets_are_one_hot_and_inputs_normalised(config):
    (inputs, targets), one_hot, normalised = targets_with(config)
    np.testing.assert_array_equal(targets, one_hot)
    np.testing.assert_allclose(inputs, normalised, rtol=1e-5, atol=1e-6)


def test_labels_are_smoothed(config):
    (_, targets), one_hot, _ = targets_with(config, label_smoothing=0.3)
    np.testing.assert_allclose(targets, 0.7 * one_hot + 0.1, rtol=1e-5)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_reaches_the_targets(config, name):
    (inputs, targets), one_hot, normalised = targets_with(config, augment={name: 1.0})
    changed = np.flatnonzero((one_hot != np.roll(one_hot, 1, 0)).any(-1))
    weights = targets[changed, one_hot[changed].argmax(-1)]
    # One lambda for the batch, and the neighbour's class has the rest.
    np.testing.assert_allclose(weights, weights[0], rtol=1e-6)
    weight = float(weights[0])
    assert 0 < weight < 1
    np.testing.assert_allclose(
        targets, weight * one_hot + (1 - weight) * np.roll(one_hot, 1, 0), atol=1e-6
    )
    if name == "mixup":
        mixed = weight * normalised + (1 - weight) * np.roll(normalised, 1, 0)
        np.testing.assert_allclose(inputs, mixed, atol=1e-5)
    else:
        stayed = np.isclose(inputs, normalised).mean()
        assert stayed == pytest.approx(weight, abs=0.05)  # few pixels are equal by chance


def test_mixing_smoothed_labels_keeps_distributions(config):
    (_, targets), _, _ = targets_with(config, label_smoothing=0.3, augment={"mixup": 0.5})
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    assert targets.min() >= 0.1 - 1e-6


def test_autoaugment_comes_first_and_changes_no_other_draw(config):
    config.augment.update(crop=1, flip=True, cutout=3)
    images, labels = batch(size=64)
    images = images.repeat(2, 1).repeat(2, 2)
    key = jax.random.key(0)

    def inputs(images, autoaugment):
        config.augment.autoaugment = autoaugment
        return augmented(key, images, labels, config, NORMALIZATION, 3)[0]

    without, found = inputs(images, False), inputs(images, True)
    assert not np.array_equal(found, without)
    policy_key = jax.random.split(jax.random.split(key)[0], 4)[3]
    changed = autoaugment(policy_key, images, jnp.full(images.shape[-1], 127.5))
    np.testing.assert_array_equal(found, inputs(changed, False))


def test_augmentation_is_drawn_anew_at_every_step_and_again_after_a_resume(config):
    config.augment.crop = 1
    state, step = tiny_state(config)
    images, labels = batch()
    losses = [
        float(step(state._replace(step=jnp.int32(number)), images, labels)[1]["loss"])
        for number in (0, 1, 2, 1)
    ]
    assert len(set(losses[:3])) == 3
    assert losses[3] == losses[1]
