"""The pure part: rows, slots that are refilled, frames that are waited for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seenn_jax.exits import Criterion
from seenn_jax.serving import core
from tests.serving.toy import FEATURES, T, every_tick, inputs, offline, toy

SLOTS, ROWS, ROOM = 4, 12, 4


def caller(served, ticks):
    """`(state, {row: input}, value=, frame=, dropped=) -> (state, seen)`, compiled once."""
    program = functools.partial(core.advance, served, ticks)
    program = jax.jit(program, donate_argnums=1, static_argnames="width")

    def call(state, placed=(), value=0.6, frame=0, dropped=(), width=None):
        arrivals = core.Arrivals(
            np.full((ROOM, FEATURES), np.nan, np.float32),
            np.full(ROOM, ROWS, np.int32),
            np.full(ROOM, frame, np.int32),
            np.broadcast_to(np.float32(value), ROOM),
            np.isin(np.arange(ROWS), dropped),
        )
        for place, (row, x) in enumerate(dict(placed).items()):
            arrivals.row[place], arrivals.inputs[place] = row, x
        state, seen = program(served.params, state, arrivals, width=width)
        return state, jax.tree.map(np.asarray, seen)

    return call


@pytest.fixture(scope="module")
def one_tick():
    return caller(toy(), 1)


@pytest.fixture(scope="module")
def frames():
    return caller(toy(frames=True), 2)


# Slots that are not computed wait, whatever they hold.
@pytest.mark.parametrize("widths", [(None,), (1, 2, None)])
def test_rows_are_answered_as_offline_whatever_the_order(one_tick, widths):
    x, values = inputs(60), np.random.default_rng(1).uniform(0.4, 0.9, 60).astype(np.float32)
    numbers, timesteps = offline(x, values)
    cumulative = every_tick(x)[np.arange(60), timesteps - 1]
    state, free, owner, sent = core.empty(toy(), SLOTS, ROWS), list(range(ROWS)), {}, 0
    found, random = {}, np.random.default_rng(2)
    while len(found) < 60:
        count = min(int(random.integers(ROOM + 1)), len(free), 60 - sent)
        rows = [free.pop(int(random.integers(len(free)))) for _ in range(count)]
        owner |= dict(zip(rows, range(sent, sent + count), strict=True))
        value = np.full(ROOM, 0.5, np.float32)
        value[:count] = values[sent : sent + count]
        placed = {row: x[owner[row]] for row in rows}
        sent += count
        state, seen = one_tick(state, placed, value, width=random.choice(widths))
        logits = np.asarray(state.rows.logits)
        for row in [row for row in owner if seen.done[row]]:
            sample = owner.pop(row)
            found[sample] = (logits[row], seen.times[row], seen.classes[row])
            free.append(row)
    np.testing.assert_array_equal([found[i][0] for i in range(60)], cumulative)
    np.testing.assert_array_equal([found[i][1] for i in range(60)], timesteps)
    np.testing.assert_array_equal([found[i][2] for i in range(60)], numbers)


def test_what_waits_is_first_come_first_served_and_may_leave(one_tick):
    x = inputs(9)
    state = core.empty(toy(), SLOTS, ROWS)
    never = 2.0  # no confidence exceeds it
    state, seen = one_tick(state, {row: x[row] for row in (7, 0, 3, 5)}, never)
    assert np.flatnonzero(seen.times).tolist() == [0, 3, 5, 7]
    state, seen = one_tick(state, {row: x[row - 1] for row in (9, 1, 8)}, never)
    assert seen.times[[7, 9, 1, 8]].tolist() == [2, 0, 0, 0]
    # 9 leaves the queue and 5 its slot, which 1 takes, as it has waited longest.
    state, seen = one_tick(state, dropped=(9, 5))
    assert seen.times[[7, 5, 1, 8, 9]].tolist() == [3, 2, 1, 0, 0]
    # A row can be given to another sample in the very call in which its sample leaves.
    state, seen = one_tick(state, {7: x[8]}, never, dropped=(7,))
    assert seen.times[[7, 0, 1, 8]].tolist() == [0, 4, 2, 1]
    for _ in range(4):
        state, seen = one_tick(state)
    wanted = every_tick(x[[8]])[0, 1]  # 8 had waited longer
    np.testing.assert_array_equal(state.rows.logits[7], wanted)
    assert seen.times[[0, 1, 3, 8]].tolist() == [6, 6, 6, 5]
    assert seen.done[[0, 1, 3, 8]].tolist() == [True, True, True, False]


def test_few_slots_are_those_with_a_sample(one_tick):
    x = inputs(4)
    state = core.empty(toy(), SLOTS, ROWS)
    state, _ = one_tick(state, {row: x[row] for row in range(4)}, 2.0)
    state, seen = one_tick(state, dropped=(0, 1, 2), width=1)  # the last slot is left
    assert seen.times[:4].tolist() == [1, 1, 1, 2]
    np.testing.assert_array_equal(state.rows.logits[3], every_tick(x[[3]])[0, 1])
    # The sample under way has the one slot that is computed; the other one waits.
    state, seen = one_tick(state, {5: x[0]}, 2.0, width=1)
    assert seen.times[[3, 5]].tolist() == [3, 0]
    state, seen = one_tick(state, width=2)
    assert seen.times[[3, 5]].tolist() == [4, 1]


def test_all_ticks_of_a_row_are_kept(one_tick):
    x = inputs(1)
    state = core.empty(toy(), SLOTS, ROWS)
    state, seen = one_tick(state, {2: x[0]}, 2.0)
    for _ in range(T - 1):
        state, seen = one_tick(state)
    cumulative = every_tick(x)[0]
    np.testing.assert_array_equal(seen.all_classes[2], cumulative.argmax(-1))
    sure = jax.nn.softmax(cumulative).max(-1)
    np.testing.assert_allclose(seen.all_confidence[2], sure, rtol=1e-6)
    assert seen.confidence[2] == seen.all_confidence[2, -1]


def test_one_sample_that_is_not_finite_harms_no_other(one_tick):
    x = inputs(3)
    x[1] = np.nan
    state = core.empty(toy(), SLOTS, ROWS)
    state, _ = one_tick(state, dict(enumerate(x)), 2.0)
    for _ in range(T - 1):
        state, seen = one_tick(state)
    assert seen.done[:3].all()
    assert np.isnan(seen.confidence[1])
    np.testing.assert_array_equal(
        np.asarray(state.rows.logits)[[0, 2]], every_tick(x[[0, 2]])[:, -1]
    )
    # Nor the next one in its slot.
    state, _ = one_tick(state, {row: x[0] for row in (5, 6, 7, 1)}, 2.0)
    for _ in range(T - 1):
        state, _ = one_tick(state)
    np.testing.assert_array_equal(state.rows.logits[1], every_tick(x[[0]])[0, -1])


def test_a_slot_waits_for_the_next_frame(frames):
    x = inputs(2 * T).reshape(2, T, FEATURES)
    cumulative = every_tick(x)
    state = core.empty(toy(frames=True), SLOTS, ROWS)
    state, seen = frames(state, {3: x[0, 0], 4: x[1, 0]}, 2.0)
    assert seen.times[[3, 4]].tolist() == [1, 1]
    for _ in range(2):  # nothing has come
        state, seen = frames(state)
    assert seen.times[[3, 4]].tolist() == [1, 1]
    state, seen = frames(state, {4: x[1, 1]}, frame=1)
    assert seen.times[[3, 4]].tolist() == [1, 2]
    np.testing.assert_array_equal(state.rows.logits[3], cumulative[0, 0])
    np.testing.assert_array_equal(state.rows.logits[4], cumulative[1, 1])
    for frame in range(1, T):
        state, seen = frames(state, {3: x[0, frame]}, frame=frame)
    np.testing.assert_array_equal(state.rows.logits[3], cumulative[0, -1])
    assert seen.times[[3, 4]].tolist() == [T, 2]
    assert seen.done[[3, 4]].tolist() == [True, False]


def test_an_exit_may_remember_and_may_decide_beforehand():
    def same_twice(value, params, inputs):
        def decide(memory, logits, t, index):
            now = logits.argmax(-1).astype(jnp.int32)
            return now, now == memory

        return Criterion(jnp.int32(-1), decide)

    x = inputs(4)
    classes = np.asarray(every_tick(x).argmax(-1))
    twice = toy(criterion=same_twice)
    _, seen = caller(twice, T)(core.empty(twice, SLOTS, ROWS), dict(enumerate(x)))
    first = [next(t for t in range(1, T) if c[t] == c[t - 1]) + 1 for c in classes]
    assert seen.times[:4].tolist() == first

    bright = toy(
        beforehand=lambda values, params, x: jnp.where(x[:, 0] > values, 2, 99).astype(jnp.int32)
    )
    _, seen = caller(bright, T)(core.empty(bright, SLOTS, ROWS), dict(enumerate(x)), 0.0)
    assert seen.times[:4].tolist() == np.where(x[:, 0] > 0, 2, T).tolist()
