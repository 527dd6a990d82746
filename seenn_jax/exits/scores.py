"""Cumulative logits, and exit scores of them: how sure the network is."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from seenn_jax.errors import UserError


def logit_scale(
    timesteps: int, temperature: Float[ArrayLike, "T"] | None = None
) -> Float[Array, "T"]:
    """Return what the sum of the logits up to t is multiplied by at each t.

    An engine that carries the running sum `[B, K]` and its timestep t (scalar or `[B]`, from 1)
    has cumulative logits `running_sum * logit_scale(T, ...)[t - 1, None]`.

    Args:
        timesteps: T.
        temperature: divides the cumulative logits at each t; ones where None.
    """
    return 1 / (jnp.ones(timesteps) if temperature is None else jnp.asarray(temperature))


@jax.jit
def accumulate(
    logits: Float[ArrayLike, "*N T K"], temperature: Float[ArrayLike, "T"] | None = None
) -> Float[Array, "*N T K"]:
    """Return the cumulative logits at each timestep, at least float32; see `logit_scale`.

    They are sums, as in the official SEENN code. The sum runs from left to right, as an engine's
    does, so that both round alike.
    """
    logits = jnp.asarray(logits)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    ticks = jnp.moveaxis(logits, -2, 0)
    _, sums = jax.lax.scan(lambda total, o: (total + o,) * 2, jnp.zeros_like(ticks[0]), ticks)
    scale = logit_scale(logits.shape[-2], temperature).astype(logits.dtype)
    return jnp.moveaxis(sums, 0, -2) * scale[:, None]


def _probabilities(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N K"]:
    """Softmax over classes, in at least float32."""
    cumulative = jnp.asarray(cumulative)
    if cumulative.shape[-1] < 2:
        raise UserError(
            f"logits of {cumulative.shape[-1]} class say nothing of how sure the network is: "
            "exit scores need at least 2; use a data set with more classes or exit 'full'"
        )
    return jax.nn.softmax(cumulative.astype(jnp.promote_types(cumulative.dtype, jnp.float32)))


@jax.jit
def confidence(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N"]:
    """Return the largest softmax probability (SEENN-I; Li et al. 2023).

    Args:
        cumulative: summed logits [..., K], of one tick or of several.

    Returns:
        [...], within [0, 1].

    Raises:
        UserError: logits of one class.
    """
    return jnp.max(_probabilities(cumulative), axis=-1)


@jax.jit
def entropy(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N"]:
    """Return 1 - H(softmax) / log K: 0 for equal logits, 1 for certainty (DT-SNN, DAC 2023).

    Args:
        cumulative: summed logits [..., K], of one tick or of several.

    Returns:
        [...], within [0, 1].

    Raises:
        UserError: logits of one class.
    """
    probabilities = _probabilities(cumulative)
    nats = jnp.sum(jax.scipy.special.entr(probabilities), axis=-1)
    # H exceeds log K by a rounding error where all logits are equal.
    return jnp.clip(1 - nats / math.log(probabilities.shape[-1]), 0, 1)


@jax.jit
def margin(cumulative: Float[ArrayLike, "*N K"]) -> Float[Array, "*N"]:
    """Return the largest softmax probability minus the second largest.

    Args:
        cumulative: summed logits [..., K], of one tick or of several.

    Returns:
        [...], within [0, 1].

    Raises:
        UserError: logits of one class.
    """
    top = jax.lax.top_k(_probabilities(cumulative), 2)[0]
    return top[..., 0] - top[..., 1]


SCORES: dict[str, Callable[[Array], Array]] = {
    "confidence": confidence,
    "entropy": entropy,
    "margin": margin,
}
