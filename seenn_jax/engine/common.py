"""What the ways to run exits share, and the mistakes that they say."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seenn_jax.errors import UserError
from seenn_jax.exits.criteria import Criterion
from seenn_jax.tables import check_call

BATCH = 256  # samples in one forward pass, or slots, where nothing else is asked for


class Exited(NamedTuple):
    """What an early-exit run leaves of each sample."""

    logits: Float[Array, "N K"]  # cumulative, at the exit
    timesteps: Int[Array, "N"]  # exit time, from 1


def check_run(criterion: Any, timesteps: int, slots: int) -> None:
    """Raise a UserError unless there is a criterion, a timestep and a slot."""
    check_criterion(criterion)
    check_at_least_one("slots", slots)
    check_at_least_one("timesteps", timesteps)


def check_criterion(criterion: Any) -> None:
    """Raise a UserError for what is no criterion."""
    if not isinstance(criterion, Criterion):
        raise UserError(
            f"the criterion is a {type(criterion).__name__}: give a Criterion, such as "
            "above(confidence, 0.9), patience(3) or one of your own"
        )
    arguments = ("memory", "cumulative", "t", "index")
    check_call("the criterion's `decide`", criterion.decide, *arguments)


def check_at_least_one(what: str, value: int) -> None:
    """Raise a UserError unless the value is a whole number, at least 1."""
    try:
        whole = operator.index(value) == value and not isinstance(value, bool)
    except TypeError:
        whole = False
    if not whole:
        raise UserError(f"`{what}` is {value!r}: it must be a whole number, at least 1; give one")
    if value < 1:
        raise UserError(f"`{what}` is {value}: it must be at least 1; give a larger number")


def taken(inputs: Any, criterion: Criterion | None = None) -> tuple[Any, int]:
    """(inputs as arrays, how many samples they are of).

    Raises:
      UserError: inputs that are not of one length, or not of that of the criterion.
    """
    inputs = jax.tree.map(jnp.asarray, inputs)
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1 or () in lengths:
        raise UserError(
            f"the inputs are {_shapes(inputs)}: give arrays [N, ...], all of one N, of which each "
            "sample has a row"
        )
    [[samples]] = lengths
    if criterion is not None and criterion.samples not in (None, samples):
        raise UserError(
            f"the criterion has times of {criterion.samples:,} samples, and the inputs are of "
            f"{samples:,}: give a time for each"
        )
    return inputs, samples


def real_ones(count: Int[Array, ""] | int | None, samples: int) -> Int[Array, ""]:
    """How many of the samples are real, as for `early_exit`.

    Raises:
      UserError: more than there are, or no number of them.
    """
    if count is None:
        return jnp.int32(samples)
    if not isinstance(count, jax.core.Tracer):
        try:
            good = 0 <= operator.index(count) <= samples
        except TypeError:
            good = False
        if not good:
            raise UserError(
                f"`count` is {count}, and the inputs are of {samples:,} samples: give a whole "
                "number from 0 to that"
            )
    return jnp.clip(jnp.asarray(count, jnp.int32), 0, samples)


def one_zero(inputs: Any) -> Any:
    """One sample of zeros, with the shapes and dtypes of `inputs`."""
    return jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), inputs)


def one_tick(step_fn: Callable, init_state: Any, x: Any) -> Float[Array, "1 K"]:
    """Logits of one fresh sample's first tick."""
    return step_fn(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], init_state), x)[1]


def nobody(logits_fn: Callable[[Any], Float[Array, "1 K"]], inputs: Any) -> Exited:
    """What is left of no samples; `logits_fn` of one tells the number of classes."""
    logits = jax.eval_shape(lambda x: logits_fn(one_zero(x)), inputs)
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    return Exited(jnp.zeros((0, logits.shape[-1]), dtype), jnp.zeros(0, jnp.int32))


def at_rest(
    tick: Callable[[Any], tuple[Any, Array]], init_state: Any, criterion: Criterion, slots: int
) -> tuple[Any, Any, Float[Array, "S K"]]:
    """(state, criterion's memory, sum of logits) of `slots` fresh samples.

    Raises:
      UserError: a tick that returns something else than (state, logits), or a criterion that
        decides with something else than booleans.
    """

    def spread(leaf):
        return jnp.broadcast_to(leaf, (slots, *jnp.shape(leaf)))

    state, memory = jax.tree.map(spread, (init_state, criterion.memory))
    logits = _logits_of(tick, state, init_state, slots)
    zeros = jnp.zeros((slots, logits.shape[-1]), jnp.promote_types(logits.dtype, jnp.float32))
    check_decision(criterion, memory, zeros)
    return state, memory, zeros


def _logits_of(tick: Callable, state: Any, init_state: Any, slots: int) -> jax.ShapeDtypeStruct:
    try:
        result = jax.eval_shape(tick, state)
    except Exception as error:
        if any(jnp.shape(leaf)[:1] == (slots,) for leaf in jax.tree.leaves(init_state)):
            raise UserError(
                f"`init_state` has an axis of {slots}, as many as there are slots, and step_fn "
                f"fails on it ({type(error).__name__}): give the state of one fresh sample, "
                "without a slot axis"
            ) from error
        raise
    returned = result if isinstance(result, tuple) and len(result) == 2 else (None, None)
    logits = returned[1]
    if getattr(logits, "ndim", 0) == 2 and logits.shape[0] == slots:
        kinds = [_kinds(state, x) for x in (returned[0], state)]
        if kinds[0] == kinds[1]:
            return logits
    raise UserError(
        f"step_fn returns {_shapes(result)}: it must return (state, logits), the state shaped as "
        f"it is given, {_shapes(state)}, and the logits [slots, classes] with {slots} slots; "
        "swap them, or see whether `init_state` is that of one sample"
    )


def _kinds(given: Any, state: Any) -> tuple:
    """What a state must have in common with the one that was given, as its leaves have it."""
    # A Python number becomes of whatever dtype it must be.
    loose = [getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(given)]
    leaves, tree = jax.tree.flatten(state)
    if len(leaves) != len(loose):
        return (tree,)
    dtypes = [
        None if is_loose else jnp.result_type(x) for x, is_loose in zip(leaves, loose, strict=True)
    ]
    return tree, dtypes, [jnp.shape(x) for x in leaves]


def check_decision(criterion: Criterion, memory: Any, logits: Array) -> None:
    """Raise a UserError for a criterion that decides with something else than booleans.

    Args:
      memory: of the criterion, for each slot.
      logits: [S, K].
    """
    count = jnp.zeros(len(logits), jnp.int32)
    result = jax.eval_shape(criterion.decide, memory, logits, count + 1, count)
    pair = result if isinstance(result, tuple) and len(result) == 2 else (None, None)
    kept, leave = pair
    kind, shape = getattr(leave, "dtype", None), getattr(leave, "shape", None)
    good = kind == jnp.bool and shape == count.shape
    if not good or jax.tree.map(jnp.shape, kept) != jax.tree.map(jnp.shape, memory):
        raise UserError(
            f"the criterion's decide returns {_shapes(result)}: it must return (memory, exit), the "
            f"memory shaped as it is given, {_shapes(memory)}, and for each of {len(logits)} slots "
            "a boolean that says whether it exits; compare a score with a threshold"
        )


def _shapes(tree: Any) -> str:
    """A pytree of arrays in words."""
    return str(jax.tree.map(lambda x: f"{x.dtype.name}{list(x.shape)}", tree)).replace("'", "")
