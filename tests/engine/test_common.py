"""Mistakes in what an engine is given are said in one sentence, before anything runs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax import exits
from seenn_jax.engine import early_exit, run_masked
from seenn_jax.engine.common import check_run
from seenn_jax.errors import UserError
from seenn_jax.exits import Criterion, above, never, patience, prescribed
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


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", ["slots", "timesteps"])
@pytest.mark.parametrize("value", [2.5, "3", None, True])
def test_no_whole_number(kind, value):
    with pytest.raises(UserError, match=rf"`{kind}` is {value!r}: it must be a whole number"):
        check_run(never(), **{"slots": 2, "timesteps": 2, kind: value})


@pytest.mark.usefixtures("unchecked")
@RUNS
@pytest.mark.parametrize("count", [-1, 4, 2.5])
def test_no_count_of_real_samples(run, count):
    with pytest.raises(UserError, match=rf"`count` is {count}, and the inputs are of 3 samples"):
        run(step, jnp.zeros(CLASSES), random_inputs(3), never(), 4, SLOTS, count=count)


@RUNS
def test_a_traced_count_above_all_is_all(run):
    def call(count):
        return run(step, jnp.zeros(CLASSES), random_inputs(3), never(), 4, SLOTS, count=count)

    chex.assert_trees_all_equal(jax.jit(call)(9), call(3))


@pytest.mark.usefixtures("unchecked")
@RUNS
@pytest.mark.parametrize("inputs", [{}, {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}, [1.0, 2.0]])
def test_inputs_that_are_not_of_one_length(run, inputs):
    with pytest.raises(UserError, match=r"give arrays \[N, ...\], all of one N"):
        run(lambda state, x: (state, state), jnp.zeros(CLASSES), inputs, never(), 4, SLOTS)


@pytest.mark.usefixtures("unchecked")
@RUNS
def test_times_of_other_samples(run):
    times = np.array([1, 2])
    with pytest.raises(UserError, match="times of 2 samples, and the inputs are of 3: give a time"):
        call(run, criterion=prescribed(times))
    found = call(run, criterion=prescribed([1, 3, 2]))
    assert found.timesteps.tolist() == [1, 3, 2]


@RUNS
def test_a_state_of_another_dtype(run):
    def floats(state, x):
        return state + 0.5, x[:, :CLASSES]

    with pytest.raises(UserError, match=r"step_fn returns \(float32.*as it is given, int32"):
        call(run, floats, jnp.zeros(CLASSES, jnp.int32))
    assert call(run, floats, 0).timesteps.tolist() == [4] * 3  # a number becomes what it must be


@pytest.mark.usefixtures("unchecked")
def test_a_threshold_in_the_place_of_a_score():
    with pytest.raises(UserError, match=r"the score is 0\.9: give a function of logits first"):
        above(0.9, exits.confidence)


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
