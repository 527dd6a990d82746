"""Checkpoints come back as they were, the best and the latest are kept, mistakes are named."""

import json
import logging
import math
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from seenn_jax.errors import UserError
from seenn_jax.run import build, folder, stored
from seenn_jax.run.checkpoints import best_step, open_checkpoints, restore, save, steps
from seenn_jax.training.optimizer import make_optimizer
from seenn_jax.training.step import initial_state

FACTS = folder.DataFacts((8, 8, 1), 10, [0.5], [0.5])


def shapes_of(config):
    """A whole state with an average; of shapes and dtypes only."""

    def fresh():
        model = build.network(config, FACTS)
        return initial_state(model, make_optimizer(config, 10), config.ema)[1]

    return jax.eval_shape(fresh)


def state_of(config):
    """The same, every array of it random."""
    random = np.random.default_rng(0)

    def noise(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.asarray(random.integers(0, 1000, leaf.shape), leaf.dtype)
        return jnp.asarray(random.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(noise, shapes_of(config))


def test_a_whole_state_comes_back_bit_for_bit(tmp_path, make_config):
    state = state_of(make_config())
    assert state.average is not None
    with open_checkpoints(tmp_path) as manager:
        save(manager, 7, state, 0.5)
    # Leaving the block has waited for the writing.
    assert steps(tmp_path) == [7]
    template = jax.eval_shape(lambda: state)
    chex.assert_trees_all_equal(restore(tmp_path, 7, template), state, strict=True)
    part = restore(tmp_path, 7, {"average": template.average})
    chex.assert_trees_all_equal(part, {"average": state.average}, strict=True)


def test_a_state_may_be_overwritten_while_it_is_being_written(tmp_path):
    """The loop donates a state to the next step as soon as `save` returns."""
    state = {"kernel": jnp.arange(2**20, dtype=jnp.float32)}
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    expected = np.arange(2**20, dtype=np.float32)
    with open_checkpoints(tmp_path) as manager:
        save(manager, 1, state, 0.5)
        for _ in range(20):
            state = overwrite(state)
        jax.block_until_ready(state)
    np.testing.assert_array_equal(stored.arrays(tmp_path, 1)["kernel"], expected)


@pytest.mark.parametrize(
    ("accuracies", "kept", "best"),
    [
        ([0.5], [1], 1),
        ([0.5, 0.9, 0.7, 0.2], [2, 3, 4], 2),
        ([0.5, 0.9, 0.9, 0.2], [3, 4], 3),  # of several, the latest
        ([0.5, 0.5, 0.5], [2, 3], 3),
        ([0.1, 0.2, 0.3], [2, 3], 3),
        ([0.3, 0.2, 0.1, -math.inf], [1, 3, 4], 1),
    ],
)
def test_the_best_and_the_two_latest_are_kept(tmp_path, accuracies, kept, best):
    with open_checkpoints(tmp_path) as manager:
        for step, accuracy in enumerate(accuracies, start=1):
            save(manager, step, {"x": jnp.full(2, step)}, accuracy)
    assert steps(tmp_path) == kept
    assert best_step(tmp_path) == best
    np.testing.assert_array_equal(stored.arrays(tmp_path, best)["x"], [best, best])
    # Nothing is left of the others.
    assert len(list((tmp_path / "checkpoints").iterdir())) == len(kept)


def test_another_architecture_is_named(tmp_path, make_config):
    with open_checkpoints(tmp_path) as manager:
        save(manager, 7, state_of(make_config()), 0.5)
    wider = shapes_of(make_config(model={"width": 6}))
    more = {"params": {"gate": jax.ShapeDtypeStruct((2,), jnp.float32)}}
    with pytest.raises(UserError) as caught:
        restore(tmp_path, 7, wider)
    message = str(caught.value)
    assert "params.blocks.0.conv1.bn.bias is (6,)" in message
    assert "the checkpoint has it as (16,)" in message
    assert f"{tmp_path}/checkpoints/7" in message
    with pytest.raises(UserError, match=r"params\.gate is \(2,\) .* checkpoint lacks it"):
        restore(tmp_path, 7, more)


def test_reading_changes_nothing_and_says_nothing(tmp_path, caplog, contents):
    with open_checkpoints(tmp_path) as manager:
        save(manager, 7, {"x": jnp.zeros(2)}, 0.5)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    logging.getLogger("absl").setLevel(logging.WARNING)
    caplog.clear()
    restore(tmp_path, best_step(tmp_path), {"x": jnp.zeros(2)})
    assert caplog.text == ""
    assert logging.getLogger("absl").level == logging.WARNING
    assert contents(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_what_a_killed_process_left_behind_does_no_harm(tmp_path):
    """Orbax writes into a folder of another name, or without the file that says it is whole."""
    with open_checkpoints(tmp_path) as manager:
        save(manager, 7, {"x": jnp.zeros(2)}, 0.5)
    folder = tmp_path / "checkpoints"
    for name in ("8.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-1700000000000000", "deleted/3"):
        shutil.copytree(folder / "7", folder / name)
    assert steps(tmp_path) == [7]
    assert best_step(tmp_path) == 7
    with open_checkpoints(tmp_path) as manager:
        assert manager.latest_step() == 7
        save(manager, 8, {"x": jnp.ones(2)}, 0.6)
    assert sorted(path.name for path in folder.iterdir()) == ["7", "8"]
    np.testing.assert_array_equal(stored.arrays(tmp_path, 8)["x"], [1, 1])


def test_names_are_readable_without_this_package(tmp_path, make_config):
    """A checkpoint is a flat dict of arrays by dotted names."""
    state = state_of(make_config())
    with open_checkpoints(tmp_path) as manager:
        save(manager, 7, state, 0.5)
    names = set(ocp.PyTreeCheckpointHandler().metadata(tmp_path / "checkpoints/7/default").keys())
    assert {"step", "params.stem.conv.kernel", "stats.blocks.0.conv1.bn.mean"} <= names
    assert "average.0.stem.conv.kernel" in names
    assert len(names) == len(jax.tree.leaves(state))


def test_checkpoints_of_older_runs_are_ranked_too(tmp_path):
    """Their metric was called accuracy, and they have no checksum."""
    with open_checkpoints(tmp_path) as manager:
        save(manager, 1, {"x": jnp.zeros(2)}, 0.7)
        save(manager, 2, {"x": jnp.ones(2)}, 0.5)
    for step, accuracy in ((1, 0.7), (2, 0.5)):
        path = tmp_path / f"checkpoints/{step}/metrics/metrics"
        assert json.loads(path.read_text())["score"] == accuracy
        path.write_text(json.dumps({"accuracy": accuracy}))
    assert best_step(tmp_path) == 1
    np.testing.assert_array_equal(stored.arrays(tmp_path, 2)["x"], [1, 1])
    with open_checkpoints(tmp_path) as manager:
        save(manager, 3, {"x": jnp.zeros(2)}, 0.6)
    assert steps(tmp_path) == [1, 2, 3]
