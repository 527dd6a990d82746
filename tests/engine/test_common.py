"""Mistakes in what an engine is given are said in one sentence, before anything runs."""

import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.engine import early_exit, run_masked
from seenn_jax.engine.common import check_run
from seenn_jax.errors import UserError
from seenn_jax.exits import Criterion, above, never, patience
from tests.engine.ways import CLASSES, FEATURES, random_inputs, step

SLOTS = 2
RUNS = pytest.mark.parametrize("run", [early_exit, run_masked])


def call(run, step_fn=step, init_state=None, criterion=None):
    init_state = jnp.zeros(CLASSES) if init_state is None else init_state
    return run(step_fn, init_state, random_inputs(3), criterion or never(), 4, SLOTS)


@RUNS
@pytest.mark.parametrize("kind", ["slots", "timesteps"])
def test_fewer_than_one(run, kind):
    arguments = {"slots": 2, "timesteps": 2, kind: 0}
    with pytest.raises(UserError, match=f"`{kind}` is 0: it must be at least 1"):
        run(step, jnp.zeros(CLASSES), random_inputs(3), never(), **arguments)


@pytest.mark.parametrize(
    ("criterion", "kind"), [(0.9, "float"), (exits.confidence, "PjitFunction"), (above, "function")]
)
def test_a_criterion_that_is_none(criterion, kind):
    # Before a criterion's type is checked by whatever checks annotations.
    with pytest.raises(UserError, match=f"the criterion is a {kind}: give a Criterion, such as"):
        check_run(criterion, 4, SLOTS)
    check_run(never(), 4, SLOTS)


def scores_for_exits(memory, z, t, index):
    return memory, exits.confidence(z)


def one_for_all(memory, z, t, index):
    return memory, jnp.any(exits.confidence(z) > 0.9)


def no_memory(memory, z, t, index):
    return exits.confidence(z) > 0.9


@RUNS
@pytest.mark.parametrize(
    ("decide", "returned"),
    [
        (scores_for_exits, r"\(\(\), float32\[2\]\)"),
        (one_for_all, r"\(\(\), bool\[\]\)"),
        (no_memory, r"bool\[2\]"),
        (lambda memory, z, t, index: (memory, None), r"\(\(\), None\)"),
    ],
    ids=["scores", "one for all", "no memory", "nothing"],
)
def test_a_criterion_that_decides_nothing(run, decide, returned):
    message = rf"decide returns {returned}: it must return \(memory, exit\), .*2 slots a boolean"
    with pytest.raises(UserError, match=message):
        call(run, criterion=Criterion((), decide))


@RUNS
def test_a_criterion_that_loses_its_memory(run):
    forgetful = Criterion(patience(2).memory, lambda memory, z, t, index: (memory[0], t > 1))
    message = r"decide returns \(int32\[2\], bool\[2\]\): .*as it is given, \(int32\[2\], int32\[2"
    with pytest.raises(UserError, match=message):
        call(run, criterion=forgetful)


@RUNS
@pytest.mark.parametrize(
    ("step_fn", "returned"),
    [
        (lambda state, x: (x @ np.ones((FEATURES, 5)), state), r"\(float32\[2, 5\], float32\[2, 3"),
        (lambda state, x: step(state, x)[1], r"float32\[2, 3\]:"),
        (lambda state, x: (state, state.sum(-1)), r"\(float32\[2, 3\], float32\[2\]\)"),
        (lambda state, x: (*step(state, x), x), r"\(float32\[2, 3\], float32\[2, 3\], float32\[2,"),
        (lambda state, x: (None, step(state, x)[1]), r"\(None, float32\[2, 3\]\)"),
    ],
    ids=["swapped", "logits alone", "a score", "three", "no state"],
)
def test_a_step_that_returns_something_else(run, step_fn, returned):
    with pytest.raises(UserError, match=rf"step_fn returns {returned}.*with 2 slots; swap them"):
        call(run, step_fn)


@RUNS
def test_a_state_with_a_slot_axis(run):
    # One that broadcasts away ...
    with pytest.raises(UserError, match=r"see whether `init_state` is that of one sample"):
        call(run, init_state=jnp.zeros((SLOTS, CLASSES)))

    def joined(state, x):
        return state, jnp.concatenate([state, x], -1)

    # ... and one that does not.
    message = r"`init_state` has an axis of 2, .*fails on it \(TypeError\): .*without a slot axis"
    with pytest.raises(UserError, match=message):
        call(run, joined, jnp.zeros((SLOTS, CLASSES)))


@RUNS
def test_a_step_that_fails_by_itself_says_so_itself(run):
    def broken(state, x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        call(run, broken)
