"""Running a trained network until each sample is sure: full, masked or with slots.

All three give the same predictions and exit times, and differ in the work they do:

- `run_full` runs all T ticks of every sample; exits are chosen from its logits afterwards.
- `run_masked` runs a batch tick by tick until its last sample has exited.
- `early_exit` runs a fixed number of slots tick by tick; a sample that exits gives its slot to the
  next one of the queue at once, so that no slot waits for another.

They are pure functions, to be called inside `jax.jit`; there is no host round trip per tick. A
network of your own needs nothing of this package's models:

    def step(state, x):                       # one tick of any network, batched over slots
        state = 0.9 * state + x @ weights
        return state, jnp.tanh(state)         # (state, logits)

    criterion = above(exits.confidence, 0.9)
    exited = jax.jit(
        lambda inputs: early_exit(step, jnp.zeros(10), inputs, criterion, timesteps=8, slots=256)
    )(inputs)
    exited.logits.argmax(-1), exited.timesteps
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from seenn_jax import exits
from seenn_jax.devices import data_mesh
from seenn_jax.errors import UserError, check_choice
from seenn_jax.models import Network

# What is left when the queue is empty ends in slots // NARROWING slots, where those are enough for
# a program of their own to pay.
NARROWING = 4
NARROWEST = 16
CHUNK_BYTES = 2**30  # of samples on the device at a time, twice


class Exited(NamedTuple):
    """What an early-exit run leaves of each sample."""

    logits: Float[Array, "N K"]  # cumulative, at the exit
    timesteps: Int[Array, "N"]  # exit time, from 1


class Criterion(NamedTuple):
    """When a sample exits; T at the latest is the engine's doing.

    Attributes:
      memory: what a fresh sample remembers from tick to tick, a pytree of scalars; () for nothing.
      decide: `(memory [S], cumulative logits [S, K], t [S] from 1, sample index [S]) ->
        (memory, exit [S] bool)`.
    """

    memory: Any
    decide: Callable[[Any, Array, Array, Array], tuple[Any, Array]]


def above(score: Callable[[Array], Array], threshold: float | Array) -> Criterion:
    """Exit where a score of `exits.SCORES` exceeds the threshold."""
    return Criterion((), lambda memory, z, t, index: (memory, score(z) > threshold))


def patience(k: int) -> Criterion:
    """Exit after the same answer at k ticks in a row (Zhou et al. 2020)."""

    def decide(memory, cumulative, t, index):
        prediction = jnp.argmax(cumulative, -1).astype(jnp.int32)
        streak = exits.patience_step(*memory, prediction)
        return (prediction, streak), streak >= k

    return Criterion((jnp.int32(0), jnp.int32(0)), decide)


def prescribed(times: Int[Array, "N"]) -> Criterion:
    """Exit sample i at `times[i]`, as a policy or a benchmark says."""
    return Criterion((), lambda memory, z, t, index: (memory, t >= times[index]))


def oracle(labels: Int[Array, "N"]) -> Criterion:
    """Exit as soon as the answer is right. Needs labels: for analysis only."""

    def decide(memory, cumulative, t, index):
        return memory, jnp.argmax(cumulative, -1) == labels[index]

    return Criterion((), decide)


def never() -> Criterion:
    """Run every sample for all T ticks."""
    return Criterion((), lambda memory, z, t, index: (memory, jnp.zeros(t.shape, bool)))


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

    Raises:
      UserError: fewer than one slot or timestep.
    """
    _check_at_least_one("slots", slots)
    _check_at_least_one("timesteps", timesteps)
    inputs = jax.tree.map(jnp.asarray, inputs)
    total_samples = jax.tree.leaves(inputs)[0].shape[0]
    slots = min(slots, max(total_samples, 1))
    count = jnp.int32(total_samples if count is None else count)
    fetch = input_at or (lambda inputs, index, t: jax.tree.map(lambda x: x[index], inputs))
    if total_samples == 0:
        zero = jnp.zeros(1, jnp.int32)
        return _nobody(lambda x: _one_tick(step_fn, init_state, fetch(x, zero, zero)), inputs)

    def tick(state, index, t):
        # An empty slot shows the last sample again; nothing of it is kept.
        return step_fn(state, fetch(inputs, jnp.minimum(index, total_samples - 1), t))

    def body(carry: _Slots) -> _Slots:
        fresh = carry.t == 0
        state, logits = tick(_renew(carry.state, init_state, fresh), carry.index, carry.t)
        memory = _renew(carry.memory, criterion.memory, fresh)
        total = jnp.where(fresh[:, None], 0, carry.total) + logits
        t = carry.t + 1
        cumulative = total if scale is None else total * scale[t - 1, None]
        busy = carry.index < count
        known = jnp.minimum(carry.index, total_samples - 1)
        memory, leave = criterion.decide(memory, cumulative, t, known)
        leave = busy & (leave | (t >= timesteps))
        # A slot whose sample stays writes to the row behind the last one.
        row = jnp.where(leave, carry.index, total_samples)
        position = carry.queue + jnp.cumsum(leave, dtype=jnp.int32) - 1
        return _Slots(
            state=state,
            memory=memory,
            total=total,
            t=jnp.where(leave, 0, t),
            index=jnp.where(leave, jnp.minimum(position, total_samples), carry.index),
            queue=carry.queue + jnp.sum(leave, dtype=jnp.int32),
            logits=carry.logits.at[row].set(cumulative),
            times=carry.times.at[row].set(t),
        )

    zeros = jnp.zeros(slots, jnp.int32)
    state, memory, total = _at_rest(
        lambda state: tick(state, zeros, zeros), init_state, criterion, slots
    )
    start = _Slots(
        state=state,
        memory=memory,
        total=total,
        t=zeros,
        index=jnp.arange(slots, dtype=jnp.int32),
        queue=jnp.int32(slots),
        logits=jnp.zeros((total_samples + 1, total.shape[-1]), total.dtype),
        times=jnp.zeros(total_samples + 1, jnp.int32),
    )
    narrow = slots // NARROWING
    if narrow < NARROWEST:
        narrow = 0
    end = lax.while_loop(lambda carry: jnp.sum(carry.index < count) > narrow, body, start)
    if narrow:
        # The queue is empty: the last few samples move together and finish at a fraction of the
        # cost of ticks that are mostly empty.
        order = jnp.argsort(end.index >= count, stable=True)[:narrow]
        few = jax.tree.map(lambda x: x[order], end[:-3])
        end = lax.while_loop(
            lambda carry: jnp.any(carry.index < count), body, _Slots(*few, *end[-3:])
        )
    return Exited(end.logits[:total_samples], end.times[:total_samples])


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
    _check_at_least_one("slots", slots)
    _check_at_least_one("timesteps", timesteps)
    inputs = jax.tree.map(jnp.asarray, inputs)
    total_samples = jax.tree.leaves(inputs)[0].shape[0]
    slots = min(slots, max(total_samples, 1))
    count = jnp.int32(total_samples if count is None else count)
    prepare = prepare or (lambda x: x)
    if total_samples == 0:
        return _nobody(lambda x: _one_tick(step_fn, init_state, prepare(x)), inputs)

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

        state, memory, zeros = _at_rest(
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
    return replay(full_logits(logits_fn, inputs, slots), criterion, scale=scale)


def full_logits(
    logits_fn: Callable[[Any], Float[Array, "S T K"]],
    inputs: PyTree[Shaped[ArrayLike, "N ..."]],
    slots: int,
) -> Float[Array, "N T K"]:
    """Logits of every tick of every sample, in batches of `slots`; pure, for use inside jit."""
    return in_batches(logits_fn, inputs, slots)


def in_batches(
    function: Callable[[Any], PyTree[Shaped[Array, "S ..."]]],
    inputs: PyTree[Shaped[ArrayLike, "N ..."]],
    slots: int,
) -> PyTree[Shaped[Array, "N ..."]]:
    """`function` of every sample, in batches of `slots`; pure, for use inside jit."""
    _check_at_least_one("slots", slots)
    inputs = jax.tree.map(jnp.asarray, inputs)
    total_samples = jax.tree.leaves(inputs)[0].shape[0]
    slots = min(slots, max(total_samples, 1))
    if total_samples == 0:
        results = jax.eval_shape(lambda x: function(_one_zero(x)), inputs)
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
    carry = (memory, zeros, jnp.ones(samples, bool), zeros, jnp.zeros_like(index))
    ticks = (jnp.arange(1, timesteps + 1, dtype=jnp.int32), jnp.moveaxis(logits, 1, 0))
    (_, _, _, chosen, times), _ = lax.scan(tick, carry, ticks)
    return Exited(chosen, times)


METHODS = ("slots", "masked", "full")


def run_network(
    method: str,
    network: Network,
    params: Any,
    inputs: Shaped[ArrayLike, "N ..."],
    criterion: Criterion,
    timesteps: int,
    slots: int,
    *,
    transform: Callable[[Array], Array] = lambda x: x,
    count: Int[Array, ""] | int | None = None,
    scale: Float[Array, "T"] | None = None,
) -> Exited:
    """Run a network of this package by one of `METHODS`; pure, for use inside jit.

    With slots, the stem is computed again at every tick, from the image: most slots are fresh at
    most ticks, and its currents are the largest tensor that a slot could have to carry. So it is,
    by whatever method, for event data, where tick t of a sample sees its frame t.

    Args:
      network: from `models.inference_network`; its `params` are given apart, so that a jitted
        caller passes them as an argument.
      inputs: still images [N, H, W, C], or event data [N, T, H, W, C], as `transform` takes them.
      transform: images to what the network takes, such as their normalisation.
      criterion, timesteps, slots, count, scale: as for `early_exit`.

    Raises:
      UserError: an unknown method, fewer than one slot or timestep.
    """
    check_choice("method", method, METHODS)

    def encode(images):
        return network.encode(params, transform(images))

    def step(membranes, currents):
        return network.step(params, membranes, currents)

    def whole_step(membranes, images):
        return step(membranes, encode(images))

    frame_at = (lambda x, index, t: x[index, t]) if inputs.ndim == 5 else None
    if frame_at and inputs.shape[1] != timesteps:
        raise UserError(
            f"the inputs have {inputs.shape[1]} timesteps and T is {timesteps}: give as many"
        )
    if method == "full":
        return run_full(
            lambda images: network.logits(params, transform(images)),
            inputs,
            criterion,
            slots,
            scale=scale,
        )
    arguments = (network.at_rest, inputs, criterion, timesteps, slots)
    if method == "masked" and frame_at is None:
        return run_masked(step, *arguments, count=count, scale=scale, prepare=encode)
    run = early_exit if method == "slots" else run_masked
    return run(whole_step, *arguments, count=count, scale=scale, input_at=frame_at)


def over_devices(
    run: Callable[[Any, Any, Array], Any], devices: Sequence[jax.Device] | None = None
) -> Callable[..., Any]:
    """Spread a run over devices (None: all), each with a queue of its own for its share of samples.

    The devices never wait for each other, and what comes out does not depend on their number.

    Args:
      run: `(parameters, inputs [n, ...], count) -> results [n, ...]`, such as `early_exit` on a
        network of these parameters.

    Returns:
      `(parameters, inputs [N, ...], count=N) -> results [N, ...]`, to be jitted; the results are on
      every device, so that every process has them all.
    """
    mesh = data_mesh(devices)
    data, everywhere = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

    def share(parameters, inputs, counts):
        return run(parameters, inputs, counts[0])

    def spread(parameters, inputs, count=None):
        samples = jax.tree.leaves(inputs)[0].shape[0]
        each = -(-samples // mesh.size)
        missing = each * mesh.size - samples

        def pad(x):
            return (
                jnp.concatenate([x, jnp.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x
            )

        counts = jnp.clip(
            (samples if count is None else count) - each * jnp.arange(mesh.size), 0, each
        )
        sharded = jax.shard_map(
            share, mesh=mesh, in_specs=(everywhere, data, data), out_specs=data, check_vma=False
        )
        exited = sharded(parameters, jax.tree.map(pad, inputs), counts)
        exited = jax.tree.map(lambda x: x[:samples], exited)
        return lax.with_sharding_constraint(exited, jax.sharding.NamedSharding(mesh, everywhere))

    return spread


def chunks(images: Any) -> Iterator[np.ndarray]:
    """The rows of an array, or of what is like one and is read as it is indexed, for `in_chunks`.

    Equally many at a time but for the last, and no more than `CHUNK_BYTES`.
    """
    rows = max(1, CHUNK_BYTES // (math.prod(images.shape[1:]) * images.dtype.itemsize))
    count = -(-len(images) // rows)
    rows = -(-len(images) // count)
    return (images[start : start + rows] for start in range(0, len(images), rows))


def in_chunks(run: Callable[[Any, Array], Any], chunks: Iterable[Any]) -> Iterator[Any]:
    """Run a stream that does not fit on the device: chunks in, results (on the host) out.

    Two chunks are on the device at a time, so that it never waits for the host.

    Args:
      run: compiled, `(inputs, count) -> results [n, ...]`, such as `Exited`.
      chunks: pytrees of NumPy arrays [n, ...], all with the n of the first or fewer samples, which
        are filled up.
    """
    size, pending = None, None
    for chunk in chunks:
        count = len(jax.tree.leaves(chunk)[0])
        size = size or count
        if count > size:
            raise UserError(
                f"a chunk has {count} samples and the first one {size}: give chunks of one size, "
                "or shorter ones"
            )

        def fill(x, missing=size - count):
            return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x

        started = (run(jax.tree.map(fill, chunk), jnp.int32(count)), count)
        if pending is not None:
            yield _on_host(*pending)
        pending = started
    if pending is not None:
        yield _on_host(*pending)


def _on_host(results: Any, count: int) -> Any:
    return jax.tree.map(lambda x: x[:count], jax.device_get(results))


def _check_at_least_one(what: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{what} is {value}: it must be at least 1; give a larger number")


def _one_zero(inputs: Any) -> Any:
    """One sample of zeros, with the shapes and dtypes of `inputs`."""
    return jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), inputs)


def _one_tick(step_fn, init_state, x) -> Float[Array, "1 K"]:
    return step_fn(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], init_state), x)[1]


def _nobody(logits_fn: Callable[[Any], Float[Array, "1 K"]], inputs: Any) -> Exited:
    """What is left of no samples; `logits_fn` of one tells the number of classes."""
    logits = jax.eval_shape(lambda x: logits_fn(_one_zero(x)), inputs)
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    return Exited(jnp.zeros((0, logits.shape[-1]), dtype), jnp.zeros(0, jnp.int32))


def _unbatched(batches: Any, samples: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:samples], batches)


def _renew(old: Any, init: Any, fresh: Bool[Array, "S"]) -> Any:
    """`old`, with the rows that are fresh set to `init`; fused into whatever reads it first."""

    def renew(old, init):
        return jnp.where(fresh.reshape(-1, *(1,) * (old.ndim - 1)), init, old)

    return jax.tree.map(renew, old, init)


def _at_rest(tick, init_state, criterion, slots) -> tuple[Any, Any, Float[Array, "S K"]]:
    """(state, criterion's memory, sum of logits) of `slots` fresh samples."""

    def spread(leaf):
        return jnp.broadcast_to(leaf, (slots, *jnp.shape(leaf)))

    state = jax.tree.map(spread, init_state)
    _, logits = jax.eval_shape(tick, state)
    zeros = jnp.zeros((slots, logits.shape[-1]), jnp.promote_types(logits.dtype, jnp.float32))
    return state, jax.tree.map(spread, criterion.memory), zeros
