"""A toy network to serve, and requests to it with everything that can happen to them.

It is a leaky neuron with hard reset, whose sums are exact in float32: its logits are the same in
whatever order a program sums.
"""

import collections
import time

import jax
import jax.numpy as jnp
import numpy as np

from seenn_jax import engine, exits
from seenn_jax.errors import UserError
from seenn_jax.serving import Refused, Served, TooLate

T, FEATURES, CLASSES = 6, 4, 3
WEIGHTS = np.random.default_rng(0).integers(-8, 9, (FEATURES, CLASSES)).astype(np.float32) / 8


def step(params, state, x):
    """One tick."""
    v = 0.5 * state + x @ params
    spikes = (v >= 1).astype(v.dtype)
    return v * (1 - spikes), spikes + 0.125 * v


def criterion(value, params, inputs):
    """Exit where the confidence exceeds the value."""
    return exits.above(exits.confidence, value)


def check(value):
    """Raise a UserError for a value that is no threshold."""
    if not 0 <= value <= 1:
        raise UserError(f"threshold {value} is outside [0, 1]")


def toy(**changes):
    """The network, to be served."""
    served = Served(
        WEIGHTS,
        step,
        jnp.zeros(CLASSES),
        criterion,
        T,
        (FEATURES,),
        np.dtype(np.float32),
        ("ant", "bee", "cow"),
        value=0.6,
        check=check,
    )
    return served._replace(**changes)


def inputs(samples, seed=0):
    """[N, features] in eighths."""
    random = np.random.default_rng(seed)
    return random.integers(-16, 17, (samples, FEATURES)).astype(np.float32) / 8


@jax.jit
def offline(x, values):
    """(numbers, timesteps) of `early_exit`, by a threshold for each sample."""
    criterion = exits.Criterion(
        (), lambda memory, z, t, index: (memory, exits.confidence(z) > values[index])
    )
    exited = engine.early_exit(
        lambda state, x: step(WEIGHTS, state, x), jnp.zeros(CLASSES), x, criterion, T, 8
    )
    return exited.logits.argmax(-1), exited.timesteps


@jax.jit
def every_tick(x):
    """Cumulative logits [N, T, K] of every tick; of event data where x is [N, T, features]."""
    x = x if x.ndim == 3 else jnp.broadcast_to(x[:, None], (len(x), T, FEATURES))

    def tick(carry, x):
        state, total = carry
        state, now = step(WEIGHTS, state, x)
        return (state, total + now), total + now

    zeros = jnp.zeros((len(x), CLASSES))
    return jnp.moveaxis(jax.lax.scan(tick, (zeros, zeros), jnp.moveaxis(x, 1, 0))[1], 0, 1)


def storm(server, count, seed):
    """Ask `count` times, see that every answer is right, and return how many had which end."""
    random = np.random.default_rng(seed)
    x = inputs(count, seed)
    bad = random.random(count) < 0.02
    x[bad, 0] = np.nan
    values = random.choice(np.float32([0.0, 0.5, 0.7, 1.0]), count)
    told, futures, counts = collections.Counter(), {}, collections.Counter()
    recent = collections.deque(maxlen=30)
    for i in range(count):
        options = {"deadline": random.exponential(0.002)} if random.random() < 0.3 else {}
        try:
            future = server.submit(x[i], exit=float(values[i]), **options)
        except Refused:
            counts["refused"] += 1
            time.sleep(0.0005)
            continue
        future.add_done_callback(lambda _, i=i: told.update([i]))
        futures[i] = future
        recent.append(i)
        if random.random() < 0.1:  # one that waits, is under way or is answered by now
            futures[int(random.choice(recent))].cancel()
    for future in futures.values():
        if not future.cancelled():
            future.exception()  # once it is answered
    numbers, timesteps = (
        np.asarray(each) for each in offline(np.where(bad[:, None], 0, x), values)
    )
    cumulative = np.asarray(every_tick(x)).argmax(-1)
    for i, future in futures.items():
        counts[_end_of(future, bad[i], (numbers[i], timesteps[i]), cumulative[i])] += 1
    while sum(told.values()) < len(futures):  # callbacks come after the answer
        time.sleep(0.001)
    assert told == dict.fromkeys(futures, 1), "a request was answered twice"
    return counts


def _end_of(future, bad, whole, cumulative):
    """How a request ended, which must be right."""
    error = None if future.cancelled() else future.exception()
    if future.cancelled():
        return "cancelled"
    if isinstance(error, TooLate):
        return "too late"
    if error is not None:
        assert bad
        assert "not finite" in str(error)
        return "not finite"
    answer = future.result()
    assert not bad
    if answer.complete:
        assert (answer.number, answer.timesteps) == whole
        return "answered"
    assert answer.number == cumulative[answer.timesteps - 1]
    return "answered so far"


def check_counters(server, counts):
    """See that a server has counted what came of `storm`."""
    found = server.counters()
    answers = counts["answered"] + counts["answered so far"]
    assert found["answers"] == answers
    assert found["late"] == counts["answered so far"]
    assert found["cancelled"] == counts["cancelled"]
    assert found["failed"] == counts["too late"] + counts["not finite"]
    assert found["refused"] == counts["refused"]
    assert found["requests"] == counts.total() - counts["refused"]
    assert (sum(found["exits"]), found["waiting"]) == (counts["answered"], 0)
