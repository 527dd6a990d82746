"""BatchNorm's statistics estimated anew, by hand, and in a run that is ended while it validates."""

import os
import signal
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seenn_jax.data import Split, load_dataset
from seenn_jax.errors import Terminated
from seenn_jax.run import build, checkpoints
from seenn_jax.run.folder import DataFacts
from seenn_jax.training import network
from seenn_jax.training.estimation import BATCHES, chosen, make_estimate
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import initial_state
from tests.conftest import optimised
from tests.data.listed import Listed, stream
from tests.training.runs import latest_of, metrics_of

FACTS = DataFacts((2, 2, 1), 4, [0.5], [0.25])


class Scaled(nnx.Module):
    """BatchNorm of its inputs times a parameter."""

    def __init__(self):
        self.scale = nnx.Param(jnp.float32(1))
        self.bn = nnx.BatchNorm(4, momentum=0.9, rngs=nnx.Rngs(0))

    def encode(self, inputs):
        return self.bn(self.scale[...] * inputs.reshape(*inputs.shape[:2], 1, 1, -1))

    def integrate(self, currents, membranes=None):
        return currents[:, :, 0, 0], membranes


def split_of(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 1), np.uint8)
    return Split(images, np.zeros(count, np.int32))


def estimated(config, split, scale=1.0, cutout=0):
    """(state before, after), whose average, where there is one, has the parameters times that."""
    config.random_timesteps = True
    config.augment.update(crop=0, flip=False, cutout=cutout)
    graph, state = initial_state(Scaled(), make_optimizer(config, 10), config.ema)
    if config.ema:
        params = jax.tree.map(lambda x: scale * x, state.average[0])
        state = state._replace(average=(params, state.average[1]))
    anew = make_estimate(graph, FACTS, config, split)
    after = anew(state)
    chex.assert_trees_all_equal(anew(after), after)
    return state, after


def by_hand(split, size):
    """Plain means over batches, of which nothing is augmented, of (mean, variance)."""
    x = (np.float64(chosen(split, size)) / 255 - 0.5) / 0.25
    x = x.reshape(*x.shape[:2], 4)
    return x.mean(1).mean(0), x.var(1).mean(0)


@pytest.mark.parametrize("gradient", ["bptt", "last"])
def test_statistics_are_plain_means_over_batches(make_config, gradient):
    config = make_config(ema=0.0, batch_size=6, accumulate=2, gradient=gradient)
    split = split_of(11)
    before, after = estimated(config, split)
    mean, variance = by_hand(split, 3)
    np.testing.assert_allclose(after.stats["bn"]["mean"][...], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.stats["bn"]["var"][...], variance, rtol=1e-4)
    assert after.params is before.params


def test_those_of_the_average_where_that_is_evaluated(make_config):
    config = make_config(ema=0.5, batch_size=4)
    split = split_of(9)
    before, after = estimated(config, split, 3)
    mean, variance = by_hand(split, 4)
    found = after.average[1]["bn"]
    np.testing.assert_allclose(found["mean"][...], 3 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"][...], 9 * variance, rtol=1e-4)
    chex.assert_trees_all_equal(after.stats, before.stats)


def test_images_are_augmented_as_in_training(make_config):
    white = Split(np.full((40, 2, 2, 1), 255, np.uint8), np.zeros(40, np.int32))
    _, after = estimated(make_config(ema=0.0, batch_size=4), white, cutout=1)
    mean = after.stats["bn"]["mean"][...]
    assert mean.sum() == pytest.approx(3 * 2.0)  # one of four is 0, the others (1 - 0.5) / 0.25
    assert np.ptp(mean) > 0


def test_images_are_from_all_of_a_split_and_each_once():
    split = Split(np.arange(1000, dtype=np.uint16).reshape(-1, 1, 1, 1), np.zeros(1000, np.int32))
    found = chosen(split, 20)
    assert found.shape == (BATCHES, 20, 1, 1, 1)
    assert len(np.unique(found)) == 20 * BATCHES
    assert np.all(np.ptp(found, 1) > 500)
    np.testing.assert_array_equal(found, chosen(split, 20))
    few = chosen(Split(split.images[:5], split.labels[:5]), 2)
    assert few.shape == (2, 2, 1, 1, 1)


def test_images_that_are_read_as_they_are_needed(encoded):
    listed = stream(Listed([encoded(np.full((8, 8, 3), i, np.uint8), "PNG") for i in range(7)]))
    found = chosen(listed, 3)
    assert found.shape == (2, 3, 8, 8, 3)
    assert len(np.unique(found)) == 6


def test_of_images_that_are_read_the_parts_that_training_sees(encoded):
    ramp = np.tile(np.arange(0, 256, 8, np.uint8)[:, None, None], (1, 32, 3))
    found = chosen(stream(Listed([encoded(ramp, "PNG")] * 4)), 4)
    assert len(np.unique(found[0], axis=0)) == 4  # where evaluation sees the same middle of each


def check_statistics(config, workdir):
    """Those of the latest checkpoint are those of its parameters, and not of the steps before."""
    data = load_dataset("digits", validation=150)
    facts = DataFacts.of(data)
    model = build.network(config, facts)
    graph, state = initial_state(model, make_optimizer(config, 10), config.ema)
    state, _ = checkpoints.resumed(workdir, latest_of(workdir)[0], state)
    with optimised():
        after = make_estimate(graph, facts, config, data.train)(state)
    chex.assert_trees_all_close(after.average[1], state.average[1], rtol=1e-4, atol=1e-5)


def test_a_run_of_random_timesteps_resumes_where_it_validated(
    make_config, call_train, tmp_path, monkeypatch
):
    config = make_config(random_timesteps=True, epochs=2, inherit_epochs=0, validate_every=1)
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    call_train(config, whole)
    check_statistics(config, whole)

    told = threading.Event()

    def never_ending(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        told.wait(60)

    monkeypatch.setattr(network, "_make_validate", lambda *_: never_ending)
    with pytest.raises(Terminated):
        call_train(config, ended)
    told.set()
    monkeypatch.undo()
    call_train(config, ended)
    (step, expected), (resumed_step, found) = latest_of(whole), latest_of(ended)
    assert step == resumed_step
    chex.assert_trees_all_equal(expected, found)
    names = [name for name in metrics_of(whole)[0] if "per_second" not in name]
    for one, other in zip(metrics_of(whole), metrics_of(ended), strict=True):
        assert [one[name] for name in names] == [other[name] for name in names]
