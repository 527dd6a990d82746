"""Which samples are seen, and how many steps a call takes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from seenn_jax import devices
from seenn_jax.errors import UserError
from seenn_jax.training import feed
from seenn_jax.training.feed import train_steps
from seenn_jax.training.step import Given, TrainState


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


def test_calls_come_to_the_end_of_an_epoch_from_its_middle(monkeypatch, make_config):
    monkeypatch.setitem(feed.STEPS_PER_CALL, jax.default_backend(), 50)

    def step(state, given, images):
        return state._replace(step=state.step + 1), {"seen": images.sum()}

    def taken(start):
        state = TrainState(jnp.int32(start), None, None, None, None)
        data = (np.ones((80, 1, 1, 1), np.uint8),)
        quiet, key = Console(quiet=True), Given(np.uint32(0))
        compiled = feed.compiled_steps(state, key, data, make_config(batch_size=2), quiet)
        return compiled(step, "a test")(state)[2]

    # Of 40 steps an epoch: as many as divide it and come to its end from 26 and 50.
    assert [taken(start) for start in (0, 80, 26, 50)] == [40, 40, 2, 10]


@given(st.integers(1, 2000), st.integers(1, 100))
def test_steps_per_call_is_the_largest_divisor(steps_per_epoch, most):
    steps = feed.steps_per_call(steps_per_epoch, most)
    assert 1 <= steps <= most
    assert steps_per_epoch % steps == 0
    assert not any(steps_per_epoch % n == 0 for n in range(steps + 1, most + 1))


def test_steps_per_call_by_hand():
    assert feed.steps_per_call(175, 50) == 35
    assert feed.steps_per_call(173, 50) == 1
    assert feed.steps_per_call(20, 50) == 20


def test_programs_of_training_are_deterministic_on_a_gpu_where_asked(monkeypatch):
    assert devices.compiler_options(True) == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert devices.compiler_options(True) == {"xla_gpu_deterministic_ops": True}
    assert devices.compiler_options(False) == {}


def test_options_are_given_to_the_compiler():
    def step(state, given, images):
        return state._replace(step=state.step + 1), {}

    jitted = feed.jitted_steps(step, steps=1, batch_size=1, options={"no_such_option": True})
    state, key = TrainState(jnp.int32(0), None, None, None, None), Given(np.uint32(0))
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        jitted.lower(state, key, np.ones((2, 1, 1, 1), np.uint8)).compile()


def test_what_has_no_deterministic_form_is_named(make_config):
    def step(state, given, images):
        raise jax.errors.JaxRuntimeError("select-and-scatter has no deterministic form\nmore")

    state = TrainState(jnp.int32(0), None, None, None, None)
    data, key = (np.ones((2, 1, 1, 1), np.uint8),), Given(np.uint32(0))
    compiled = feed.compiled_steps(state, key, data, make_config(batch_size=2), Console(quiet=True))
    with pytest.raises(UserError) as error:
        compiled(step, "1 timestep(s)")
    assert str(error.value) == (
        "`config.deterministic` is True, which the compiler can't do for 1 timestep(s) "
        "(select-and-scatter has no deterministic form): set `config.deterministic` to False"
    )
