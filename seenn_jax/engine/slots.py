"""Early exit with slots: a sample that exits hands its slot to the next of the queue at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from seenn_jax.engine.common import (
    Exited,
    at_rest,
    check_run,
    nobody,
    one_tick,
    real_ones,
    taken,
)
from seenn_jax.exits.criteria import Criterion

# What is left when the queue is empty ends in slots // NARROWING slots, where those are enough for
# a program of their own to pay.
NARROWING = 4
NARROWEST = 16


class _Slots(NamedTuple):
    """The carry of the loop; S slots, the last row of `logits` and `times` is never read."""

    state: Any  # of the network
    memory: Any  # of the criterion
    total: Float[Array, "S K"]  # running sum of logits
    t: Int[Array, "S"]  # ticks that the slot's sample has had
    index: Int[Array, "S"]  # its sample, N for an empty slot
    queue: Int[Array, ""]  # samples handed out so far
    logits: Float[Array, "N1 K"]
    times: Int[Array, "N1"]


def early_exit(
    step_fn: Callable[[Any, Any], tuple[Any, Array]],
    init_state: PyTree[ArrayLike],
    inputs: PyTree[Shaped[ArrayLike, "N ..."]],
    criterion: Criterion,
    timesteps: int,
    slots: int,
    *,
    count: Int[Array, ""] | int | None = None,
    scale: Float[Array, "T"] | None = None,
    input_at: Callable[[Any, Array, Array], Any] | None = None,
    renew: Callable[[Any, Any, Array], Any] | None = None,
) -> Exited:
    """Run N samples through `slots` slots, each until it exits; pure, for use inside jit.

    Args:
      step_fn: one tick, `(state [S, ...], input [S, ...]) -> (state, logits [S, K])`, in which no
        slot looks at another.
      init_state: state of one fresh sample, without the slot axis.
      inputs: what is shown to a sample at every tick, [N, ...].
      criterion: when a sample exits.
      timesteps: T, the latest exit.
      slots: samples under way at a time; more than N are not used.
      count: only the first `count` of the N samples are real (None: all); rows of the others hold
        zeros.
      scale: factor on the sum of logits at each t (`exits.logit_scale`), None for 1.
      input_at: `(inputs, index [S], t [S] from 0) -> input [S, ...]`; None takes `inputs[index]`.
        For event data, `lambda x, i, t: x[i, t]`.
      renew: `(state, init_state, fresh [S]) -> what step_fn takes`, for one that puts the state of
        fresh samples at rest itself; None gives it a state in which they are.

    Raises:
      UserError: fewer than one slot or timestep, inputs of several lengths, more real samples
        than there are.
    """
    check_run(criterion, timesteps, slots)
    inputs, samples = taken(inputs, criterion)
    slots, count = min(slots, max(samples, 1)), real_ones(count, samples)
    fetch = input_at or (lambda inputs, index, t: jax.tree.map(lambda x: x[index], inputs))
    if samples == 0:
        zero = jnp.zeros(1, jnp.int32)
        return nobody(lambda x: one_tick(step_fn, init_state, fetch(x, zero, zero)), inputs)

    def tick(state, index, t):
        # An empty slot shows the last sample again; nothing of it is kept.
        return step_fn(state, fetch(inputs, jnp.minimum(index, samples - 1), t))

    def body(carry):
        return _all_slots(carry, tick, init_state, criterion, timesteps, count, scale, renew)

    end = _until_done(_start(tick, init_state, criterion, slots, samples), body, count)
    return Exited(end.logits[:samples], end.times[:samples])


def _start(
    tick: Callable, init_state: Any, criterion: Criterion, slots: int, samples: int
) -> _Slots:
    """The first samples at rest, one in each slot."""
    zeros = jnp.zeros(slots, jnp.int32)
    state, memory, total = at_rest(
        lambda state: tick(state, zeros, zeros), init_state, criterion, slots
    )
    return _Slots(
        state=state,
        memory=memory,
        total=total,
        t=zeros,
        index=jnp.arange(slots, dtype=jnp.int32),
        queue=jnp.int32(slots),
        logits=jnp.zeros((samples + 1, total.shape[-1]), total.dtype),
        times=jnp.zeros(samples + 1, jnp.int32),
    )


def _all_slots(
    carry: _Slots,
    tick: Callable[[Any, Array, Array], tuple[Any, Array]],
    init_state: Any,
    criterion: Criterion,
    timesteps: int,
    count: Int[Array, ""],
    scale: Float[Array, "T"] | None,
    renew: Callable[[Any, Any, Array], Any] | None,
) -> _Slots:
    """One tick of all slots; whoever exits hands its slot on. Arguments as for `early_exit`."""
    samples = len(carry.times) - 1
    known = jnp.minimum(carry.index, samples - 1)
    carry, cumulative, leave = one_tick_of_all(
        carry, tick, init_state, criterion, timesteps, known, scale, renew
    )
    leave = (carry.index < count) & leave
    # A slot whose sample stays writes to the row behind the last one.
    row = jnp.where(leave, carry.index, samples)
    position = carry.queue + jnp.cumsum(leave, dtype=jnp.int32) - 1
    return carry._replace(
        t=jnp.where(leave, 0, carry.t),
        index=jnp.where(leave, jnp.minimum(position, samples), carry.index),
        queue=carry.queue + jnp.sum(leave, dtype=jnp.int32),
        logits=carry.logits.at[row].set(cumulative),
        times=carry.times.at[row].set(carry.t),
    )


def one_tick_of_all(
    slots: Any,
    tick: Callable[[Any, Array, Array], tuple[Any, Array]],
    init_state: Any,
    criterion: Criterion,
    timesteps: int | Int[Array, "S"],
    index: Int[Array, "S"],
    scale: Float[Array, "T"] | None,
    renew: Callable[[Any, Any, Array], Any] | None,
) -> tuple[Any, Float[Array, "S K"], Bool[Array, "S"]]:
    """(slots after one tick, cumulative logits, which of them exit); fresh ones are at rest before.

    Args:
      slots: a NamedTuple with at least `state`, `memory`, `total` and `t` of each slot.
      tick: `(state, index, t from 0) -> (state, logits [S, K])`.
      timesteps: T, or the latest exit of each slot.
      index: of the samples in the slots. The rest as for `early_exit`.
    """
    fresh = slots.t == 0
    state = (renew or _at_rest_where)(slots.state, init_state, fresh)
    state, logits = tick(state, index, slots.t)
    memory = _at_rest_where(slots.memory, criterion.memory, fresh)
    total = jnp.where(fresh[:, None], 0, slots.total) + logits
    t = slots.t + 1
    cumulative = total if scale is None else total * scale[t - 1, None]
    memory, leave = criterion.decide(memory, cumulative, t, index)
    slots = slots._replace(state=state, memory=memory, total=total, t=t)
    return slots, cumulative, leave | (t >= timesteps)


def _until_done(start: _Slots, body: Callable[[_Slots], _Slots], count: Int[Array, ""]) -> _Slots:
    """Ticks until every sample has exited."""
    narrow = len(start.t) // NARROWING
    if narrow < NARROWEST:
        narrow = 0
    end = lax.while_loop(lambda carry: jnp.sum(carry.index < count) > narrow, body, start)
    if not narrow:
        return end
    # The queue is empty: the last few samples move together and finish at a fraction of the cost
    # of ticks that are mostly empty.
    order = jnp.argsort(end.index >= count, stable=True)[:narrow]
    few = jax.tree.map(lambda x: x[order], end[:-3])
    return lax.while_loop(lambda carry: jnp.any(carry.index < count), body, _Slots(*few, *end[-3:]))


def _at_rest_where(old: Any, init: Any, fresh: Bool[Array, "S"]) -> Any:
    """`old`, with the rows that are fresh set to `init`; fused into whatever reads it first."""

    def renew(old, init):
        return jnp.where(fresh.reshape(-1, *(1,) * (old.ndim - 1)), init, old)

    return jax.tree.map(renew, old, init)
