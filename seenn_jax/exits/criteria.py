"""When a sample exits, decided at each tick: what an engine asks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from seenn_jax.errors import UserError
from seenn_jax.exits.times import patience_step


class Criterion(NamedTuple):
    """When a sample exits; T at the latest is the engine's doing.

    Attributes:
      memory: what a fresh sample remembers from tick to tick, a pytree of scalars; () for nothing.
      decide: `(memory [S], cumulative logits [S, K], t [S] from 1, sample index [S]) ->
        (memory, exit [S] bool)`.
      samples: N, where it knows of so many samples alone.
    """

    memory: Any
    decide: Callable[[Any, Array, Array, Array], tuple[Any, Array]]
    samples: int | None = None


def above(score: Callable[[Array], Array], threshold: float | Array) -> Criterion:
    """Exit where a score `[S, K] -> [S]`, such as those of `SCORES`, exceeds the threshold."""
    if not callable(score):
        raise UserError(
            f"the score is {score!r}: give a function of logits first, such as confidence, and "
            "then its threshold"
        )
    return Criterion((), lambda memory, z, t, index: (memory, score(z) > threshold))


def patience(k: int | Int[Array, ""]) -> Criterion:
    """Exit after the same answer at k ticks in a row (Zhou et al. 2020)."""

    def decide(memory, cumulative, t, index):
        prediction = jnp.argmax(cumulative, -1).astype(jnp.int32)
        previous, streak = memory
        streak = patience_step(previous, streak, prediction)
        return (prediction, streak), streak >= k

    return Criterion((jnp.int32(0), jnp.int32(0)), decide)


def prescribed(times: Int[ArrayLike, "N"]) -> Criterion:
    """Exit sample i at `times[i]`, as a policy or a benchmark says."""
    times = jnp.asarray(times)
    return Criterion((), lambda memory, z, t, index: (memory, t >= times[index]), len(times))


def never() -> Criterion:
    """Run every sample for all T ticks."""
    return Criterion((), lambda memory, z, t, index: (memory, jnp.zeros(t.shape, bool)))
