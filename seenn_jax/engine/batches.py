"""Batches that run until their last sample has exited, or all ticks, exits chosen afterwards."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree, Shaped

from seenn_jax.engine.common import (
    Exited,
    at_rest,
    check_at_least_one,
    check_criterion,
    check_decision,
    check_run,
    nobody,
    one_tick,
    one_zero,
    real_ones,
    taken,
)
from seenn_jax.exits.criteria import Criterion


def run_masked(
    step_fn: Callable[[Any, Any], tuple[Any, Array]],
    init_state: PyTree[ArrayLike],
    inputs: PyTree[Shaped[ArrayLike, "N ..."]],
    criterion: Criterion,
    timesteps: int,
    slots: int,
    *,
    count: Int[Array, ""] | int | None = None,
    scale: Float[Array, "T"] | None = None,
    prepare: Callable[[Any], Any] | None = None,
    input_at: Callable[[Any, Array, Array], Any] | None = None,
) -> Exited:
    """Run batches of `slots` samples tick by tick, each until its last sample has exited.

    Args:
      prepare: what is computed once a batch, on its inputs, before the first tick (None: nothing);
        `step_fn` gets its result. Where `input_at` is given, it is not used. The rest as for
        `early_exit`.
    """
    check_run(criterion, timesteps, slots)
    inputs, total_samples = taken(inputs, criterion)
    slots, count = min(slots, max(total_samples, 1)), real_ones(count, total_samples)
    prepare = prepare or (lambda x: x)
    if total_samples == 0:
        return nobody(lambda x: one_tick(step_fn, init_state, prepare(x)), inputs)

    def batch(start):
        index = start + jnp.arange(slots, dtype=jnp.int32)
        known = jnp.minimum(index, total_samples - 1)
        held = None if input_at else prepare(jax.tree.map(lambda x: x[known], inputs))

        def shown(t):
            return input_at(inputs, known, jnp.full(slots, t)) if input_at else held

        def body(carry):
            state, memory, total, t, active, logits, times = carry
            state, now = step_fn(state, shown(t))
            total, t = total + now, t + 1
            cumulative = total if scale is None else total * scale[t - 1]
            memory, leave = criterion.decide(memory, cumulative, jnp.full(slots, t), known)
            leave = active & (leave | (t >= timesteps))
            logits = jnp.where(leave[:, None], cumulative, logits)
            return state, memory, total, t, active & ~leave, logits, jnp.where(leave, t, times)

        state, memory, zeros = at_rest(
            lambda state: step_fn(state, shown(jnp.int32(0))), init_state, criterion, slots
        )
        carry = (state, memory, zeros, jnp.int32(0), index < count, zeros, jnp.zeros_like(index))
        end = lax.while_loop(lambda carry: jnp.any(carry[4]), body, carry)
        return Exited(*end[5:])

    starts = jnp.arange(0, total_samples, slots, dtype=jnp.int32)
    return _unbatched(lax.map(batch, starts), total_samples)


def run_full(
    logits_fn: Callable[[Any], Float[Array, "S T K"]],
    inputs: PyTree[Shaped[ArrayLike, "N ..."]],
    criterion: Criterion,
    slots: int,
    *,
    scale: Float[Array, "T"] | None = None,
) -> Exited:
    """Run all T ticks of batches of `slots` samples, and choose the exits from the logits.

    Args:
      logits_fn: `input [S, ...] -> logits of every tick [S, T, K]`. The rest as for `early_exit`.
    """
    return replay(in_batches(logits_fn, inputs, slots), criterion, scale=scale)


def in_batches(
    function: Callable[[Any], PyTree[Shaped[Array, "S ..."]]],
    inputs: PyTree[Shaped[ArrayLike, "N ..."]],
    slots: int,
) -> PyTree[Shaped[Array, "N ..."]]:
    """`function` of every sample, in batches of `slots`; pure, for use inside jit."""
    check_at_least_one("slots", slots)
    inputs, total_samples = taken(inputs)
    slots = min(slots, max(total_samples, 1))
    if total_samples == 0:
        results = jax.eval_shape(lambda x: function(one_zero(x)), inputs)
        return jax.tree.map(lambda x: jnp.zeros((0, *x.shape[1:]), x.dtype), results)

    def batch(start):
        known = jnp.minimum(start + jnp.arange(slots, dtype=jnp.int32), total_samples - 1)
        return function(jax.tree.map(lambda x: x[known], inputs))

    starts = jnp.arange(0, total_samples, slots, dtype=jnp.int32)
    return _unbatched(lax.map(batch, starts), total_samples)


def replay(
    logits: Float[Array, "N T K"], criterion: Criterion, *, scale: Float[Array, "T"] | None = None
) -> Exited:
    """The exits of a criterion from the cached logits of every tick."""
    check_criterion(criterion)
    samples, timesteps, classes = logits.shape
    index = jnp.arange(samples, dtype=jnp.int32)

    def tick(carry, now):
        memory, total, active, chosen, times = carry
        t, logits = now
        total = total + logits
        cumulative = total if scale is None else total * scale[t - 1]
        memory, leave = criterion.decide(memory, cumulative, jnp.full(samples, t), index)
        leave = active & (leave | (t >= timesteps))
        chosen = jnp.where(leave[:, None], cumulative, chosen)
        return (memory, total, active & ~leave, chosen, jnp.where(leave, t, times)), None

    memory = jax.tree.map(lambda m: jnp.broadcast_to(m, (samples,)), criterion.memory)
    zeros = jnp.zeros((samples, classes), jnp.promote_types(logits.dtype, jnp.float32))
    check_decision(criterion, memory, zeros)
    carry = (memory, zeros, jnp.ones(samples, bool), zeros, jnp.zeros_like(index))
    ticks = (jnp.arange(1, timesteps + 1, dtype=jnp.int32), jnp.moveaxis(logits, 1, 0))
    (_, _, _, chosen, times), _ = lax.scan(tick, carry, ticks)
    return Exited(chosen, times)


def _unbatched(batches: Any, samples: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:samples], batches)
