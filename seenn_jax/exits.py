"""When to stop: exit scores of cumulative logits, the exit rule, and the evaluation of exits.

A *score* says how sure the network is: a function of cumulative logits `[..., K]` on the last axis
only, so that the same function serves all timesteps of cached logits `[N, T, K]` and one tick of
an engine `[B, K]`. Larger is surer, within [0, 1]. A sample leaves at the first timestep whose
score exceeds the threshold, at T at the latest; so threshold 1 never exits. Timesteps count from 1.

Other ways to exit are exit times of their own: patience (`streaks` exits like a score),
the oracle (`oracle_exit_times`, needs labels, for analysis only), and a policy, whose exit times
are given and go straight into `at_exit`, `average_timesteps` and `exit_shares`.

One forward pass's logits serve everything here:

    cumulative = accumulate(logits)                          # [N, T, K]
    correct = jnp.argmax(cumulative, -1) == labels[:, None]  # [N, T]
    times = exit_times(confidence(cumulative), 0.9)          # [N]
    accuracy, average = sweep(confidence(cumulative), correct, np.linspace(0, 1, 200))
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real, Shaped

from seenn_jax.errors import UserError, check_choice

# --- Cumulative logits -----------------------------------------------------------------------


def logit_scale(
    timesteps: int, mode: str = "sum", temperature: Float[ArrayLike, "T"] | None = None
) -> Float[Array, "T"]:
    """Return what the sum of the logits up to t is multiplied by at each t.

    An engine that carries the running sum `[B, K]` and its timestep t (scalar or `[B]`, from 1)
    has cumulative logits `running_sum * logit_scale(T, ...)[t - 1, None]`.

    Args:
        timesteps: T.
        mode: "sum" (the official SEENN code) or "mean" (the paper).
        temperature: divides the cumulative logits at each t; ones where None.

    Raises:
        UserError: an unknown mode.
    """
    check_choice("accumulation of logits", mode, ("sum", "mean"))
    counts = jnp.arange(1, timesteps + 1) if mode == "mean" else jnp.ones(timesteps)
    return 1 / (counts * (jnp.ones(timesteps) if temperature is None else jnp.asarray(temperature)))


@functools.partial(jax.jit, static_argnames="mode")
def accumulate(
    logits: Float[ArrayLike, "*N T K"],
    mode: str = "sum",
    temperature: Float[ArrayLike, "T"] | None = None,
) -> Float[Array, "*N T K"]:
    """Return the cumulative logits at each timestep, at least float32; see `logit_scale`.

    The sum runs from left to right, as an engine's does, so that both round alike.
    """
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    ticks = jnp.moveaxis(logits, -2, 0)
    _, sums = jax.lax.scan(lambda total, o: (total + o,) * 2, jnp.zeros_like(ticks[0]), ticks)
    scale = logit_scale(logits.shape[-2], mode, temperature).astype(logits.dtype)
    return jnp.moveaxis(sums, 0, -2) * scale[:, None]


# --- Scores ----------------------------------------------------------------------------------


def _probabilities(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N K"]:
    """Softmax over classes, in at least float32."""
    cumulative = jnp.asarray(cumulative)
    if cumulative.shape[-1] < 2:
        raise UserError(
            f"logits of {cumulative.shape[-1]} class say nothing of how sure the network is: "
            "exit scores need at least 2; use a data set with more classes or --exit=full"
        )
    return jax.nn.softmax(cumulative.astype(jnp.promote_types(cumulative.dtype, jnp.float32)))


@jax.jit
def confidence(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N"]:
    """Return the largest softmax probability (SEENN-I; Li et al. 2023)."""
    return jnp.max(_probabilities(cumulative), axis=-1)


@jax.jit
def entropy(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N"]:
    """Return 1 - H(softmax) / log K: 0 for equal logits, 1 for certainty (DT-SNN, DAC 2023)."""
    probabilities = _probabilities(cumulative)
    nats = jnp.sum(jax.scipy.special.entr(probabilities), axis=-1)
    # H exceeds log K by a rounding error where all logits are equal.
    return jnp.clip(1 - nats / math.log(probabilities.shape[-1]), 0, 1)


@jax.jit
def margin(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N"]:
    """Return the largest softmax probability minus the second largest."""
    top = jax.lax.top_k(_probabilities(cumulative), 2)[0]
    return top[..., 0] - top[..., 1]


SCORES: dict[str, Callable[[Array], Array]] = {
    "confidence": confidence,
    "entropy": entropy,
    "margin": margin,
}


# --- Exit times ------------------------------------------------------------------------------


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
        streak = patience_step(*carry, prediction)
        return (prediction, streak), streak

    start = (columns[0], jnp.zeros(columns.shape[1:], jnp.int32))
    return jnp.moveaxis(jax.lax.scan(tick, start, columns)[1], 0, -1)


def patience_exit_times(predictions: Int[ArrayLike, "*N T"], k: int) -> Int[Array, "*N"]:
    """Return the first timestep that ends k equal predictions in a row, T where none does.

    "BERT loses patience" (Zhou et al. 2020) counts agreements: its patience P is k = P + 1.

    Raises:
        UserError: k < 1.
    """
    if k < 1:
        raise UserError(
            f"patience {k} is too small: it is a number of equal answers in a row; give 1 or more"
        )
    return exit_times(streaks(predictions), k - 1)


def oracle_exit_times(correct: Bool[ArrayLike, "*N T"]) -> Int[Array, "*N"]:
    """Return the first timestep that is right, T where none is. Needs labels: analysis only."""
    return exit_times(jnp.asarray(correct).astype(jnp.int32), 0)


# --- Evaluation ------------------------------------------------------------------------------


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


# --- Checks, on the host ---------------------------------------------------------------------


def check_threshold(value: float | int) -> None:
    """Raise a UserError unless the threshold is within [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(
            f"threshold {value} is outside [0, 1], where exit scores lie: "
            "give one from 0 (leave at once) to 1 (run every timestep)"
        )


def check_finite(logits: Real[ArrayLike, "N ..."]) -> None:
    """Raise a UserError that names the first sample with a NaN or an infinity, if there is one."""
    logits = jnp.asarray(logits)
    bad = ~jnp.all(jnp.isfinite(logits), axis=tuple(range(1, logits.ndim)))
    if bad.any():
        raise UserError(
            f"sample {int(jnp.argmax(bad))} (counted from 0) has logits or scores that are NaN or "
            f"infinite, as have {int(bad.sum())} of {bad.size} samples, and they must be finite: "
            "check this sample's pixels, the checkpoint and the inference dtype"
        )


def check_labels(labels: Int[ArrayLike, "N"] | None, purpose: str) -> None:
    """Raise a UserError if the labels that `purpose` needs are missing (None, or negative)."""
    advice = "use a labelled split, or a criterion or risk that needs no labels"
    if labels is None:
        raise UserError(f"{purpose} needs labels and there are none (None): {advice}")
    unlabelled = np.flatnonzero(np.asarray(labels) < 0)
    if unlabelled.size:
        label = np.asarray(labels)[unlabelled[0]]
        raise UserError(
            f"{purpose} needs labels and sample {unlabelled[0]} (counted from 0) has {label}, "
            f"where 0 or more is a label: {advice}"
        )
