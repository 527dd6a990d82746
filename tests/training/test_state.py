"""The step by hand: what decays, how momentum and the average move, which samples are seen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from seenn_jax import run
from seenn_jax.data import autoaugment
from seenn_jax.losses import tet
from seenn_jax.training.state import (
    Given,
    TrainState,
    augmented,
    configured_loss,
    evaluated,
    forward,
    initial_state,
    learning_rate,
    make_optimizer,
    train_step,
    train_steps,
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


# --- Optimiser -------------------------------------------------------------------------------


def test_two_steps_of_nesterov_by_hand(make_config):
    config = make_config(
        optimizer={"learning_rate": 0.5, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True}
    )
    optimizer = make_optimizer(config, steps=2)
    params = {"layer": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    gradient = {"layer": {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}}
    state = optimizer.init(params)

    # Learning rate 1/2. Kernel: g = 1 + 0.1 * 2 = 1.2, m = 1.2, w = 2 - (1.2 + 1.2 / 2) / 2 = 1.1.
    # Bias: g = 1, m = 1, b = 2 - (1 + 1/2) / 2 = 1.25.
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["layer"]["kernel"], 1.1, rtol=1e-6)
    np.testing.assert_allclose(params["layer"]["bias"], 1.25, rtol=1e-6)

    # Cosine at half time: 1/4. Kernel: g = 1.11, m = 0.6 + 1.11 = 1.71, step 1.11 + 0.855 = 1.965.
    # Bias: g = 1, m = 1.5, step 1.75.
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["layer"]["kernel"], 1.1 - 1.965 / 4, rtol=1e-6)
    np.testing.assert_allclose(params["layer"]["bias"], 1.25 - 1.75 / 4, rtol=1e-6)


def test_momentum_without_nesterov_by_hand(make_config):
    changes = {"learning_rate": 1.0, "momentum": 0.5, "weight_decay": 0.0, "nesterov": False}
    optimizer = make_optimizer(make_config(optimizer=changes), steps=1000)
    params = {"kernel": jnp.array(0.0)}
    state = optimizer.init(params)
    moves = []
    for _ in range(2):
        updates, state = optimizer.update({"kernel": jnp.array(1.0)}, state, params)
        moves.append(updates["kernel"].item())
    np.testing.assert_allclose(moves, [-1.0, -1.5], rtol=1e-5)


def test_only_kernels_decay(make_config):
    config = make_config(optimizer={"weight_decay": 0.25, "learning_rate": 1.0, "momentum": 0.0})
    config.optimizer.nesterov = False
    facts = run.DataFacts((8, 8, 1), 10, [0.5], [0.5])
    abstract = nnx.eval_shape(lambda: run.build(config, facts))
    # All ones: where a bias is zero, as at the start, one could not tell whether it decays.
    params = jax.tree.map(lambda p: jnp.ones(p.shape, p.dtype), nnx.state(abstract, nnx.Param))
    optimizer = make_optimizer(config, steps=10)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    moved = {}
    for path, update in nnx.to_flat_state(updates):
        moved.setdefault(path[-1], []).append(np.asarray(update[...]))
    assert moved.keys() == {"kernel", "scale", "bias"}
    assert all((update == -0.25).all() for update in moved["kernel"])
    assert len(moved["kernel"]) == 10  # the stem, 3 x 2 convolutions, 2 shortcuts, the read-out
    assert not any(update.any() for name in ("scale", "bias") for update in moved[name])


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last"),
    [
        # cos^2 of a quarter turn.
        ("cosine", 0.8, 0.4, 0.0),
        # Up from 1/25 of the peak over 30 %, then down to 1/10,000 of the start.
        ("onecycle", 0.8 / 25, None, 0.8 / 25e4),
    ],
)
def test_the_ends_of_the_schedules(make_config, schedule, first, middle, last):
    config = make_config(optimizer={"schedule": schedule, "learning_rate": 0.8})
    rate = learning_rate(config, 100)
    np.testing.assert_allclose(rate(0), first, rtol=1e-5)
    np.testing.assert_allclose(rate(100), last, rtol=1e-5, atol=1e-9)
    if middle is None:
        np.testing.assert_allclose(rate(30), 0.8, rtol=1e-5)
    else:
        np.testing.assert_allclose(rate(50), middle, rtol=1e-5)
    assert max(rate(t) for t in range(101)) <= 0.8 * (1 + 1e-6)


# --- One step --------------------------------------------------------------------------------


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


def test_the_distillation_of_the_config_is_used(config):
    config.loss, config.tet_weight, config.tet_distillation = "tet", 0.0, 2.0
    logits = jnp.log(jnp.array([[[0.5, 0.5], [0.9, 0.1]]]))
    targets = jnp.array([[1.0, 0.0]])
    expected = tet(logits, targets, weight=0.0, distillation=2.0)
    assert configured_loss(config)(logits, targets) == expected
    assert expected != tet(logits, targets, weight=0.0)


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
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.average, expected
    )
    assert evaluated(after) is after.average


def test_the_average_begins_as_a_copy(config):
    config.ema = 0.9
    state, _ = tiny_state(config)
    jax.tree.map(np.testing.assert_array_equal, state.average, (state.params, state.stats))
    # A donated buffer may be in a state once only.
    kernels = state.params["head"]["kernel"][...], state.average[0]["head"]["kernel"][...]
    assert kernels[0].unsafe_buffer_pointer() != kernels[1].unsafe_buffer_pointer()


# --- Memory ----------------------------------------------------------------------------------


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
    facts = run.DataFacts((8, 8, 1), 10, [0.5], [0.5])
    model = run.build(make_config(), facts)
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
    assert np.ptp(plain[1]["blocks"][2]["conv2"]["conv"]["kernel"][...]) > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), plain, recomputed
    )


def test_recomputing_keeps_less(spiking):
    def kept(remat):
        """Bytes between the forward and the backward pass."""
        pull = functools.partial(jax.vjp, has_aux=True)
        found = jax.eval_shape(
            lambda _: of_loss(spiking, remat, lambda loss, params: pull(loss, params)[1]), 0
        )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))

    assert kept(True) < 0.6 * kept(False)


# --- Targets ---------------------------------------------------------------------------------


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


# --- Epochs ----------------------------------------------------------------------------------


def orders(samples, batch_size, epochs, steps, seed):
    """The sample numbers that `train_steps` shows, [epochs, steps an epoch, batch size]."""
    per_epoch = samples // batch_size

    def step(state, given, images, labels):
        seen = state.params.at[state.step].set(labels)
        assert images.shape == (batch_size, 1, 1, 1)
        return state._replace(step=state.step + 1, params=seen), {"first": 1.0 * labels[0]}

    call = jax.jit(
        functools.partial(train_steps, steps=steps, batch_size=batch_size, step_function=step)
    )
    images = jnp.zeros((samples, 1, 1, 1), jnp.uint8)
    seen = jnp.full((epochs * per_epoch, batch_size), -1, jnp.int32)
    state, key = TrainState(jnp.int32(0), seen, None, None, None), Given(np.uint32(seed))
    firsts = []
    for _ in range(epochs * per_epoch // steps):
        state, metrics = call(state, key, images, jnp.arange(samples, dtype=jnp.int32))
        firsts.append(metrics["first"])
    assert state.step == epochs * per_epoch
    seen = np.asarray(state.params)
    # Each metric is its mean over the steps of a call.
    np.testing.assert_allclose(firsts, seen[:, 0].reshape(-1, steps).mean(1), rtol=1e-5)
    return seen.reshape(epochs, per_epoch, batch_size)


@settings(max_examples=8, deadline=None)
@given(
    samples=st.integers(8, 20),
    batch_size=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_epoch_shows_every_sample_at_most_once_in_an_order_of_its_own(samples, batch_size, seed):
    per_epoch = samples // batch_size
    seen = orders(samples, batch_size, epochs=2, steps=per_epoch, seed=seed)
    for epoch in seen.reshape(2, -1):
        assert len(set(epoch)) == per_epoch * batch_size
        assert 0 <= epoch.min() <= epoch.max() < samples
    assert len({epoch.tobytes() for epoch in seen}) == 2
    # The same bits again, however the steps are divided into calls.
    one_by_one = orders(samples, batch_size, epochs=2, steps=1, seed=seed)
    np.testing.assert_array_equal(seen, one_by_one)


def test_another_seed_is_another_order():
    first, again, other = (orders(40, 8, 1, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_all_samples_are_seen_over_a_few_epochs_where_a_batch_leaves_some_out():
    assert len(set(orders(10, 8, epochs=8, steps=1, seed=0).ravel())) == 10


def test_fewer_timesteps_see_the_first_frames_of_event_data(make_config):
    config = make_config(augment={"crop": 0, "flip": True}, ema=0.0, timesteps=2)
    state, step = tiny_state(config)
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 9, (6, 3, 2, 2, 1), np.uint8))
    labels = jnp.arange(6) % 3
    after, metrics = step(state, frames, labels)
    expected, same = step(state, frames[:, :2], labels)
    jax.tree.map(np.testing.assert_array_equal, (after, metrics), (expected, same))
    other, _ = step(state, frames[:, 1:], labels)
    assert not np.array_equal(
        after.params["head"]["kernel"][...], other.params["head"]["kernel"][...]
    )
