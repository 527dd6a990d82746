"""SEENN-II: the objective of a policy that chooses each sample's timesteps beforehand.

A policy network sees an input once and gives logits over C candidate timesteps t_1 < ... < t_C;
v = softmax(logits). What it is paid for sending sample i to t is its reward: 2^-(t-1) where the
spiking network is right at t, -beta where it is wrong (Li et al., NeurIPS 2023, section 4.2; the
paper has 2^-t, the official code, as here, twice that).
"""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from seenn_jax.errors import UserError


def check_candidates(candidates: Sequence[int], timesteps: int) -> None:
    """Raise a UserError unless there are two or more candidates, ascending, within 1..T."""
    shown = ", ".join(map(str, candidates))
    for t in candidates:
        if not 1 <= t <= timesteps:
            raise UserError(
                f"the candidate {t} of `config.policy.candidates` ({shown}) is outside 1..T = "
                f"{timesteps}: give timesteps from 1 to {timesteps}"
            )
    if len(candidates) < 2 or any(b <= a for a, b in itertools.pairwise(candidates)):
        raise UserError(
            f"`config.policy.candidates` is ({shown}): it must be two or more different timesteps "
            "in ascending order, such as (1, 2, 4)"
        )


def rewards(
    correct: Bool[Array, "B C"], candidates: Sequence[int], beta: float
) -> Float[Array, "B C"]:
    """Reward of sending each sample to each candidate; see the module's docstring.

    Args:
      correct: whether the spiking network is right at each candidate.
      candidates: in timesteps, from 1.
      beta: the penalty of a wrong answer, at least 0.
    """
    return jnp.where(correct, 2.0 ** (1 - jnp.asarray(candidates)), -beta)


def sample_weights(
    correct_first: Bool[Array, "B"], accuracy: Float[Array, ""] | float
) -> Float[Array, "B"]:
    """Weights that make samples wrong at the first candidate count as much as all others.

    They get r / (1 - r), the others 1, with r the training accuracy at the first candidate: a
    network that fits its training images leaves few of them to learn from.
    """
    rest = jnp.maximum(1 - accuracy, 1e-6)  # where none is wrong, none has this weight
    return jnp.where(correct_first, 1, accuracy / rest)


def expectation(
    key: Key[Array, ""],
    logits: Float[Array, "B C"],
    rewards: Float[Array, "B C"],
    weights: Float[Array, "B"],
) -> Float[Array, ""]:
    """-mean_i w_i sum_t v_t reward_t: exact, so that `key` is not used (official SEENN code)."""
    return -jnp.mean(weights * jnp.sum(jax.nn.softmax(logits) * rewards, axis=-1))


def reinforce(
    key: Key[Array, ""],
    logits: Float[Array, "B C"],
    rewards: Float[Array, "B C"],
    weights: Float[Array, "B"],
) -> Float[Array, ""]:
    """A loss whose gradient estimates that of `expectation`, without bias, from one action each.

    -mean_i w_i (reward_i - b_i) log v_i at the sampled action (Williams 1992); the baseline b_i is
    the mean reward of the other samples of the batch, which does not depend on i's action.
    """
    actions = jax.random.categorical(key, logits)[:, None]
    earned = jnp.take_along_axis(rewards, actions, axis=-1)[:, 0]
    baseline = (jnp.sum(earned) - earned) / max(len(earned) - 1, 1)
    chances = jnp.take_along_axis(jax.nn.log_softmax(logits), actions, axis=-1)[:, 0]
    return -jnp.mean(weights * jax.lax.stop_gradient(earned - baseline) * chances)


def entropy_bonus(logits: Float[Array, "B C"], weights: Float[Array, "B"]) -> Float[Array, ""]:
    """mean_i w_i H(v_i), in nats: rewarded, it keeps a policy from deciding before it has learnt.

    With the bonus times eta in the objective, the best logits are the expected rewards over eta
    (Williams and Peng 1991; Haarnoja et al., ICML 2018), so that they also say how sure it is.
    """
    chances = jax.nn.softmax(logits)
    return -jnp.mean(weights * jnp.sum(chances * jax.nn.log_softmax(logits), axis=-1))


OBJECTIVES: dict[str, Callable[..., Float[Array, ""]]] = {
    "expectation": expectation,
    "reinforce": reinforce,
}
