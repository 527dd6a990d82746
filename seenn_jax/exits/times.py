"""Exit times from scores, and what they give: accuracy, average timesteps, sweeps, AET."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real, Shaped

from seenn_jax.errors import UserError


@jax.jit
def exit_times(
    scores: Real[ArrayLike, "*N T"], threshold: float | Real[ArrayLike, ""]
) -> Int[Array, "*N"]:
    """Return the first timestep, from 1, whose score exceeds the threshold; T where none does.

    The threshold is rounded to the dtype of the scores before they are compared.
    """
    scores = jnp.asarray(scores)
    exceeds = scores > jnp.asarray(threshold, jnp.result_type(scores, float))
    return jnp.argmax(exceeds.at[..., -1].set(True), axis=-1).astype(jnp.int32) + 1


def patience_step(
    previous: Int[ArrayLike, "*N"], streak: Int[ArrayLike, "*N"], prediction: Int[ArrayLike, "*N"]
) -> Int[Array, "*N"]:
    """Return how many ticks in a row the prediction has now been the same.

    A fresh sample has streak 0, and then any `previous` will do.
    """
    return jnp.where(jnp.asarray(prediction) == previous, jnp.asarray(streak) + 1, 1)


@jax.jit
def streaks(predictions: Int[ArrayLike, "*N T"]) -> Int[Array, "*N T"]:
    """Return, at each timestep, for how many in a row the prediction has been the same (from 1).

    They serve as scores: patience k exits where the streak exceeds the threshold k - 1.
    """
    columns = jnp.moveaxis(jnp.asarray(predictions), -1, 0)

    def tick(carry, prediction):
        previous, streak = carry
        streak = patience_step(previous, streak, prediction)
        return (prediction, streak), streak

    start = (columns[0], jnp.zeros(columns.shape[1:], jnp.int32))
    return jnp.moveaxis(jax.lax.scan(tick, start, columns)[1], 0, -1)


def oracle_exit_times(correct: Bool[ArrayLike, "*N T"]) -> Int[Array, "*N"]:
    """Return the first timestep that is right, T where none is. Needs labels: analysis only."""
    return exit_times(jnp.asarray(correct).astype(jnp.int32), 0)


def at_exit(
    values: Shaped[ArrayLike, "N T *rest"], times: Int[ArrayLike, "N"]
) -> Shaped[Array, "N *rest"]:
    """Return each sample's value (prediction, correctness, logits ...) at its exit time."""
    values = jnp.asarray(values)
    return values[jnp.arange(values.shape[0]), jnp.asarray(times) - 1]


def static_accuracy(correct: Bool[ArrayLike, "N T"]) -> Float[Array, "T"]:
    """Return the accuracy, a fraction of 1, where every sample exits at t."""
    return jnp.mean(jnp.asarray(correct), axis=0)


def average_timesteps(times: Int[ArrayLike, "N"]) -> Float[Array, ""]:
    """Return the mean exit time in timesteps."""
    return jnp.mean(jnp.asarray(times))


def exit_shares(times: Int[ArrayLike, "N"], timesteps: int) -> Float[Array, "T"]:
    """Return the fraction of samples that exit at each of the timesteps 1 ... T."""
    return jnp.mean(jnp.asarray(times)[:, None] == jnp.arange(1, timesteps + 1), axis=0)


def aet(accuracy: Float[ArrayLike, "T"]) -> Float[Array, ""]:
    """Return the average earliness of the truth (AET) in timesteps, from the static accuracy A_t.

    AET = sum_t t (A_t - A_{t-1}) + T (1 - A_T) = T - sum_{t<T} A_t (Li et al. 2023).
    """
    accuracy = jnp.asarray(accuracy)
    return accuracy.shape[0] - jnp.sum(accuracy[:-1])


def oracle_aet(correct: Bool[ArrayLike, "N T"]) -> Float[Array, ""]:
    """Return the mean of `oracle_exit_times`, the "empirical" AET. Needs labels: analysis only."""
    return average_timesteps(oracle_exit_times(correct))


@jax.jit
def exit_totals(
    scores: Real[ArrayLike, "N T"],
    values: Int[ArrayLike, "N T"] | Bool[ArrayLike, "N T"],
    thresholds: Real[ArrayLike, "M"],
) -> tuple[Int[Array, "M"], Int[Array, "M"]]:
    """Sum, over the samples, values at the exit and exit times, for each of many thresholds.

    A sample is still there after t where its largest score up to t is at most the threshold. So
    both sums are steps at those running maxima: each is sorted into its place among the
    thresholds, and a cumulative sum over thresholds does the rest. Exact, in O(NT log M) time and
    O(NT + M) memory.

    Args:
        scores: finite.
        values: integers or booleans.
        thresholds: ascending (equal ones are allowed); not checked here.
    """
    scores, values = jnp.asarray(scores), jnp.asarray(values).astype(jnp.int32)
    dtype = jnp.result_type(scores, float)
    thresholds = jnp.asarray(thresholds).astype(dtype)
    surest = jax.lax.cummax(scores.astype(dtype)[:, :-1], axis=1)
    place = jnp.searchsorted(thresholds, surest.ravel())  # the first threshold that holds it back
    size = thresholds.shape[0]

    def total(values):
        steps = jnp.zeros(size, jnp.int32).at[place].add(jnp.diff(values).ravel(), mode="drop")
        return jnp.sum(values[:, 0]) + jnp.cumsum(steps)

    timesteps = jnp.arange(1, scores.shape[1] + 1, dtype=jnp.int32)
    return total(values), total(jnp.broadcast_to(timesteps, scores.shape))


def sweep(
    scores: Real[ArrayLike, "N T"],
    correct: Bool[ArrayLike, "N T"],
    thresholds: Real[ArrayLike, "M"],
) -> tuple[Float[Array, "M"], Float[Array, "M"]]:
    """Return accuracy (a fraction of 1) and average timesteps at each threshold; see `exit_totals`.

    Args:
        scores: of cached logits, or streaks.
        correct: whether the prediction is right at each timestep.
        thresholds: ascending, known on the host (not traced).

    Raises:
        UserError: thresholds that are empty or not ascending.
    """
    thresholds = np.asarray(thresholds)
    if thresholds.size == 0:
        raise UserError("the grid of thresholds is empty: give at least one threshold in [0, 1]")
    falls = np.flatnonzero(~(thresholds[1:] >= thresholds[:-1]))
    if falls.size:
        before, after = thresholds[falls[0] : falls[0] + 2]
        raise UserError(
            f"the grid of thresholds is not sorted: {before} comes before {after}; "
            "give them in ascending order"
        )
    right, timesteps = exit_totals(scores, correct, thresholds)
    n = jnp.asarray(scores).shape[0]
    return right / n, timesteps / n
