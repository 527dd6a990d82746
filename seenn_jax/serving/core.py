"""What runs on the device: slots that take samples as they come, a few ticks a call; pure.

Samples lie in *rows*, which the host gives them; there are more rows than slots, so that some wait
on the device. At each tick a free slot takes the one that has waited longest. A row keeps what is
said of its sample until the host gives the row to another one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from seenn_jax.engine.common import at_rest, check_at_least_one
from seenn_jax.engine.slots import one_tick_of_all
from seenn_jax.exits import Criterion, confidence


class Served(NamedTuple):
    """A network and an exit, to be served; `serving.served` makes one of a loaded run.

    Attributes:
      params: arrays of the network and of the exit, as the functions below take them.
      step: `(params, state [S, ...], input [S, ...]) -> (state, logits [S, K])`, in which no slot
        looks at another.
      at_rest: state of one fresh sample, without the slot axis.
      criterion: `(value, params, inputs [R, ...]) -> Criterion`, value a traced float32 scalar.
      timesteps: T, the latest exit.
      shape, dtype: of a sample's input; with `frames` that of one tick.
      names: of the classes.
      value: of the exit where a request says nothing.
      scale: as for `early_exit`.
      frames: whether each tick has an input of its own.
      beforehand: `(value [A], params, inputs [A, ...]) -> exit times [A]` of an exit that decides
        before the first tick, in place of `criterion`; None of others.
      check: raises a UserError for a value that can't be.
      renew: as for `early_exit`.
    """

    params: Any
    step: Callable[[Any, Any, Any], tuple[Any, Array]]
    at_rest: Any
    criterion: Callable[[Any, Any, Any], Criterion]
    timesteps: int
    shape: tuple[int, ...]
    dtype: Any
    names: tuple[str, ...]
    value: float | int = 0.0
    scale: Float[Any, "T"] | None = None
    frames: bool = False
    beforehand: Callable[[Any, Any, Any], Array] | None = None
    check: Callable[[float | int], None] = lambda value: None
    renew: Callable[[Any, Any, Array], Any] | None = None


class Slots(NamedTuple):
    """What is under way."""

    state: Any  # of the network
    memory: Any  # of the criterion
    total: Float[Array, "S K"]  # running sum of logits
    t: Int[Array, "S"]  # ticks that the slot's sample has had
    index: Int[Array, "S"]  # its row, R for an empty slot


class Rows(NamedTuple):
    """What is known of the samples, and said of them."""

    inputs: Shaped[Array, "R ..."]  # with frames [R, T, ...]
    value: Float[Array, "R"]  # of the exit
    limit: Int[Array, "R"]  # the latest exit
    frames: Int[Array, "R"]  # that have come; T where all ticks see the same
    times: Int[Array, "R"]  # ticks so far
    done: Bool[Array, "R"]
    logits: Float[Array, "R K"]  # cumulative, of the latest tick
    classes: Int[Array, "R T"]  # predicted at each tick so far
    confidence: Float[Array, "R T"]  # largest softmax probability then; NaN: not all finite


class State(NamedTuple):
    """All that lies on the device, and is donated from call to call."""

    slots: Slots
    rows: Rows
    queue: Int[Array, "R"]  # rows that wait for a slot
    head: Int[Array, ""]  # how many of them have one by now
    length: Int[Array, ""]


class Arrivals(NamedTuple):
    """What the host sends with a call: at most A inputs, and rows whose samples are to leave."""

    inputs: Shaped[Any, "A ..."]
    row: Int[Any, "A"]  # R for none
    frame: Int[Any, "A"]  # of its sample, from 0; 0 where all ticks see the same
    value: Float[Any, "A"]
    dropped: Bool[Any, "R"]


class Seen(NamedTuple):
    """What the host gets of a call: of each row its latest tick, and all ticks so far."""

    times: Int[Array, "R"]
    done: Bool[Array, "R"]
    classes: Int[Array, "R"]
    confidence: Float[Array, "R"]
    all_classes: Int[Array, "R T"]
    all_confidence: Float[Array, "R T"]


WORDS = ("row", "frame", "value")  # of each input that comes, as int32


class Packed(NamedTuple):
    """A `Seen` whose first four are one array: each transfer costs the host, however small."""

    latest: Int[Array, "4 R"]
    all_classes: Int[Array, "R T"]
    all_confidence: Float[Array, "R T"]


def packed(seen: Seen) -> Packed:
    """As it goes down."""
    bits = lax.bitcast_convert_type(seen.confidence, jnp.int32)
    latest = jnp.stack([seen.times, seen.done.astype(jnp.int32), seen.classes, bits])
    return Packed(latest, seen.all_classes, seen.all_confidence)


def arrivals_of(inputs: Shaped[Array, "A ..."], words: Int[Array, "N"]) -> Arrivals:
    """What has come, of its two arrays; N = 3 A + R."""
    end = len(WORDS) * len(inputs)
    row, frame, bits = words[:end].reshape(len(WORDS), -1)
    value = lax.bitcast_convert_type(bits, jnp.float32)
    return Arrivals(inputs, row, frame, value, words[end:] > 0)


def empty(served: Served, slots: int, rows: int) -> State:
    """The state before the first request.

    Raises:
      UserError: fewer than one slot or timestep; a `step` that returns something else than (state,
        logits), or a criterion that decides with something else than booleans.
    """
    check_at_least_one("slots", slots)
    check_at_least_one("timesteps", served.timesteps)
    shape = (*(served.timesteps,) * served.frames, *served.shape)
    inputs = jnp.zeros((rows, *shape), served.dtype)
    shown = jax.ShapeDtypeStruct((slots, *served.shape), served.dtype)
    criterion = _criterion(served, served.params, inputs, jnp.zeros(slots))
    state, memory, total = at_rest(
        lambda state: jax.eval_shape(served.step, served.params, state, shown),
        served.at_rest,
        criterion,
        slots,
    )
    # Arrays of their own, which can be donated: a broadcast constant may be shared.
    slots_ = jax.tree.map(
        lambda x: jnp.array(x, copy=True),
        Slots(state, memory, total, jnp.zeros(slots, jnp.int32), jnp.full(slots, rows, jnp.int32)),
    )
    table = Rows(
        inputs=inputs,
        value=jnp.zeros(rows),
        limit=jnp.zeros(rows, jnp.int32),
        frames=jnp.zeros(rows, jnp.int32),
        times=jnp.zeros(rows, jnp.int32),
        done=jnp.zeros(rows, bool),
        logits=jnp.zeros((rows, total.shape[-1]), total.dtype),
        classes=jnp.zeros((rows, served.timesteps), jnp.int32),
        confidence=jnp.zeros((rows, served.timesteps)),
    )
    return State(slots_, table, jnp.zeros(rows, jnp.int32), jnp.int32(0), jnp.int32(0))


def advance(
    served: Served,
    ticks: int,
    params: Any,
    state: State,
    arrivals: Arrivals,
    width: int | None = None,
) -> tuple[State, Seen]:
    """Let in what has come, and run up to `ticks` ticks; pure, for use inside jit.

    A sample's answer stands in its row from the tick at which it exits; its slot takes the next one
    that waits at the next tick. Of several ticks it ends before the last where nothing is left to
    do; for that a GPU's host waits for each tick, and can't send the next call meanwhile.

    Args:
      width: how many slots are computed, into which those with a sample move; None for all. Samples
        beyond it wait for a later call.
    """
    state, all_slots = _let_in(served, params, state, arrivals), state.slots
    width = len(all_slots.t) if width is None else width
    narrow = width < len(all_slots.t)
    if narrow:
        state, behind = _narrowed(state, width)

    def some_left(carry):
        done, now = carry
        waits = (now.head < now.length) & jnp.any(now.slots.index == len(now.queue))
        return (done < ticks) & (waits | jnp.any(_ready(now)))

    def body(carry):
        done, now = carry
        return done + 1, _tick(served, params, _hand_out(now))

    start = (jnp.int32(0), state)
    _, state = body(start) if ticks == 1 else lax.while_loop(some_left, body, start)
    if narrow:
        front = jax.tree.map(lambda old, new: old.at[:width].set(new), behind, state.slots)
        state = state._replace(slots=front)
    rows = state.rows
    latest = jnp.maximum(rows.times - 1, 0)[:, None]

    def now(x):
        return jnp.take_along_axis(x, latest, axis=1)[:, 0]

    return state, Seen(
        *(rows.times, rows.done, now(rows.classes), now(rows.confidence)),
        *(rows.classes, rows.confidence),
    )


def _narrowed(state: State, width: int) -> tuple[State, Slots]:
    """(the state with `width` slots alone, all slots without the samples that those took).

    What the narrow ones leave is written back to the front of the others, in place: to scatter it
    among them would copy the membranes of all.
    """
    slots, nobody = state.slots, len(state.queue)
    (taken,) = jnp.nonzero(slots.index < nobody, size=width, fill_value=len(slots.t))
    index = slots.index.at[taken].get(mode="fill", fill_value=nobody)
    front = jax.tree.map(lambda x: x.at[taken].get(mode="clip"), slots)._replace(index=index)
    behind = slots._replace(index=slots.index.at[taken].set(nobody, mode="drop"))
    return state._replace(slots=front), behind


def _let_in(served: Served, params: Any, state: State, arrivals: Arrivals) -> State:
    """The state with new inputs in their rows, fresh samples at the end of the queue."""
    slots, rows, queue, head, length = state
    count, place = len(queue), arrivals.row
    leaving = arrivals.dropped[jnp.minimum(slots.index, count - 1)]
    index = jnp.where(leaving, count, slots.index)
    first = jnp.where(arrivals.frame == 0, place, count)  # rows of fresh samples
    at = (place, arrivals.frame) if served.frames else place
    frames = rows.frames.at[first].set(0, mode="drop")
    come = arrivals.frame + 1 if served.frames else served.timesteps
    rows = rows._replace(
        inputs=rows.inputs.at[at].set(arrivals.inputs, mode="drop"),
        value=rows.value.at[first].set(arrivals.value, mode="drop"),
        limit=rows.limit.at[first].set(_limits(served, params, arrivals, count), mode="drop"),
        frames=frames.at[place].max(come, mode="drop"),
        times=rows.times.at[first].set(0, mode="drop"),
        done=rows.done.at[first].set(False, mode="drop"),
    )
    # Those that still wait move to the front, in their order, and the fresh ones behind them.
    number = jnp.arange(count)
    waiting = (number >= head) & (number < length) & ~arrivals.dropped[queue]
    both = jnp.concatenate([queue, first])
    stays = jnp.concatenate([waiting, first < count])
    position = jnp.where(stays, jnp.cumsum(stays) - 1, count)
    queue = jnp.zeros_like(queue).at[position].set(both, mode="drop")
    length = jnp.sum(stays, dtype=jnp.int32)
    return State(slots._replace(index=index), rows, queue, jnp.int32(0), length)


def _limits(served: Served, params: Any, arrivals: Arrivals, nobody: int) -> Int[Array, "A"]:
    """The latest exits of what has come; all T, but for an exit that decides beforehand."""
    latest = jnp.full(len(arrivals.row), served.timesteps, jnp.int32)
    beforehand = served.beforehand
    if beforehand is None:
        return latest

    def decide(arrivals):
        return jnp.minimum(latest, beforehand(arrivals.value, params, arrivals.inputs))

    return lax.cond(jnp.any(arrivals.row < nobody), decide, lambda _: latest, arrivals)


def _hand_out(state: State) -> State:
    """Free slots take the rows that have waited longest."""
    slots, _, queue, head, length = state
    free = slots.index == len(queue)
    position = head + jnp.cumsum(free, dtype=jnp.int32) - 1
    takes = free & (position < length)
    # An empty slot shows some row again; nothing of it is kept.
    index = jnp.where(takes, queue[jnp.minimum(position, len(queue) - 1)], slots.index)
    slots = slots._replace(index=index, t=jnp.where(free, 0, slots.t))
    return state._replace(slots=slots, head=head + jnp.sum(takes, dtype=jnp.int32))


def _ready(state: State) -> Bool[Array, "S"]:
    """Slots whose sample has an input for its next tick."""
    index, rows = state.slots.index, state.rows
    known = jnp.minimum(index, len(state.queue) - 1)
    return (index < len(state.queue)) & (state.slots.t < rows.frames[known])


def _tick(served: Served, params: Any, state: State) -> State:
    """One tick of all slots; whoever exits leaves an empty one."""
    old, rows = state.slots, state.rows
    count = len(state.queue)
    known, ready = jnp.minimum(old.index, count - 1), _ready(state)

    def tick(membranes, index, t):
        inputs = rows.inputs[index, t] if served.frames else rows.inputs[index]
        return served.step(params, membranes, inputs)

    slots, cumulative, leave = one_tick_of_all(
        old,
        tick,
        served.at_rest,
        _criterion(served, params, rows.inputs, rows.value[known]),
        rows.limit[known],
        known,
        served.scale,
        served.renew,
    )
    if served.frames:  # a slot without a frame waits as it is
        slots = jax.tree.map(lambda new, old: _where(ready, new, old), slots, old)
    leave &= ready
    row = jnp.where(ready, old.index, count)
    sure = jnp.where(jnp.all(jnp.isfinite(cumulative), -1), confidence(cumulative), jnp.nan)
    answer, at = jnp.argmax(cumulative, -1).astype(jnp.int32), (row, slots.t - 1)
    rows = rows._replace(
        times=rows.times.at[row].set(slots.t, mode="drop"),
        done=rows.done.at[row].set(leave, mode="drop"),
        logits=rows.logits.at[row].set(cumulative, mode="drop"),
        classes=rows.classes.at[at].set(answer, mode="drop"),
        confidence=rows.confidence.at[at].set(sure, mode="drop"),
    )
    slots = slots._replace(index=jnp.where(leave, count, slots.index))
    return state._replace(slots=slots, rows=rows)


def _criterion(
    served: Served, params: Any, inputs: Shaped[Array, "R ..."], values: Float[Array, "S"]
) -> Criterion:
    """The exit's criterion with a value for each slot; of one that decides beforehand, none."""
    if served.beforehand is not None:
        return Criterion((), lambda memory, z, t, index: (memory, jnp.zeros(t.shape, bool)))

    def decide_one(value, memory, logits, t, index):
        one = jax.tree.map(lambda x: x[None], (memory, logits, t, index))
        decided = served.criterion(value, params, inputs).decide(*one)
        return jax.tree.map(lambda x: x[0], decided)

    def decide(memory, cumulative, t, index):
        return jax.vmap(decide_one)(values, memory, cumulative, t, index)

    return Criterion(served.criterion(values[0], params, inputs).memory, decide)


def _where(which: Bool[Array, "S"], new: Array, old: Array) -> Array:
    return jnp.where(which.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
