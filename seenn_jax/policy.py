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
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key

from seenn_jax.errors import UserError
from seenn_jax.exits import at_exit


def check_candidates(candidates: Sequence[int], timesteps: int) -> None:
    """Raise a UserError unless there are two or more candidates, ascending, within 1..T."""
    shown = ", ".join(map(str, candidates))
    for t in candidates:
        if not 1 <= t <= timesteps:
            raise UserError(
                f"the candidate {t} of config.policy.candidates ({shown}) is outside 1..T = "
                f"{timesteps}: give timesteps from 1 to {timesteps}"
            )
    if len(candidates) < 2 or any(b <= a for a, b in itertools.pairwise(candidates)):
        raise UserError(
            f"config.policy.candidates is ({shown}): it must be two or more different timesteps in "
            "ascending order, such as (1, 2, 4)"
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


def split_outputs(
    outputs: Float[ArrayLike, "N outputs"], candidates: int
) -> tuple[Float[Array, "N C"], Float[Array, "N classes"]]:
    """(logits over the C candidates, over the classes) of what a policy network puts out.

    One that learns the spiking network's answer beside (`models.policy`) puts out three parts: b
    and g, of one number for each candidate, and the logits of that answer. The candidates' logits
    are then b + g H, with H its entropy in nats: how unsure the spiking network will be says much
    about which images are difficult, and a linear read-out could not form it.
    """
    outputs = jnp.asarray(outputs)
    if outputs.shape[1] == candidates:
        return outputs, outputs[:, candidates:]
    base, gain, classes = jnp.split(outputs, [candidates, 2 * candidates], axis=-1)
    log_chances = jax.nn.log_softmax(classes)
    unsure = -jnp.sum(jnp.exp(log_chances) * log_chances, axis=-1, keepdims=True)
    return base + gain * unsure, classes


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


def exit_times(
    logits: Float[ArrayLike, "N C"], candidates: Sequence[int], price: float | ArrayLike = 0.0
) -> Int[Array, "N"]:
    """Each sample's timesteps: argmax_t log v_t - price * t, the earlier of equals.

    A price of 0 is the plain argmax of SEENN-II. Others trade accuracy for timesteps without
    training again: the larger the price, in nats a timestep, the earlier all samples exit.
    """
    candidates = jnp.asarray(candidates, jnp.int32)
    logits = jnp.asarray(logits)
    return candidates[jnp.argmax(logits - price * candidates.astype(logits.dtype), axis=-1)]


def sweep_prices(
    logits: Float[ArrayLike, "N C"], candidates: Sequence[int], size: int
) -> Float[np.ndarray, "M"]:
    """At most `size` ascending prices, 0 among them, spread evenly over where exit times change."""
    changes = _changes(logits, candidates)
    outside = [changes[0] - 1, 0, changes[-1] + 1]
    return np.unique(np.append(np.quantile(changes, np.linspace(0, 1, size - 3)), outside))


def sweep(
    logits: Float[ArrayLike, "N C"],
    candidates: Sequence[int],
    correct: Bool[ArrayLike, "N T"],
    size: int,
) -> tuple[Float[np.ndarray, "M"], Float[np.ndarray, "M"], Float[np.ndarray, "M"]]:
    """(prices, accuracy, average timesteps) at those of `sweep_prices`.

    Args:
      correct: whether the spiking network is right at each timestep.
    """
    prices = sweep_prices(logits, candidates, size)
    times = jax.vmap(lambda price: exit_times(logits, candidates, price))(prices)
    right = jax.vmap(at_exit, (None, 0))(jnp.asarray(correct), times)
    return prices, np.mean(np.asarray(right), 1), np.mean(np.asarray(times), 1)


def mean_accuracy(
    logits: Float[ArrayLike, "N C"], candidates: Sequence[int], correct: Bool[ArrayLike, "N T"]
) -> float:
    """Accuracy over average timesteps, its mean from t_1 to t_C as the price of a timestep falls.

    It tells how well a policy knows which samples gain by more timesteps, whatever they are said to
    be worth. The mean reward does not: at a small beta it is largest where almost all exit at t_1.

    Args:
      correct: whether the spiking network is right at each timestep.
    """
    _, accuracy, average = sweep(logits, candidates, correct, 200)
    # From the highest price to the lowest.
    return float(np.trapezoid(accuracy[::-1], average[::-1]) / (average[0] - average[-1]))


def price_for_timesteps(
    logits: Float[ArrayLike, "N C"], candidates: Sequence[int], target: float
) -> float:
    """The lowest price at which these samples take at most `target` timesteps on average.

    Raises:
      UserError: a target outside of the candidates.
    """
    if not candidates[0] <= target <= candidates[-1]:
        raise UserError(
            f"a target of {target} timesteps on average cannot be met: the policy's candidates "
            f"are from {candidates[0]} to {candidates[-1]}; give a target between them"
        )
    changes = _changes(logits, candidates)
    between = (changes[1:] + changes[:-1]) / 2
    options = np.concatenate([[changes[0] - 1], between, [changes[-1] + 1]])
    low, high = 0, len(options) - 1  # the average falls as the price rises
    while low < high:
        middle = (low + high) // 2
        average = float(jnp.mean(exit_times(logits, candidates, options[middle])))
        low, high = (low, middle) if average <= target + 1e-6 else (middle + 1, high)
    return float(options[low])


def _changes(logits: Float[ArrayLike, "N C"], candidates: Sequence[int]) -> Float[np.ndarray, "M"]:
    """All prices at which two candidates a < b of a sample are equal, ascending.

    These are (log v_b - log v_a) / (t_b - t_a).
    """
    logits, t = np.asarray(logits), np.asarray(candidates)
    pairs = [(a, b) for b in range(len(t)) for a in range(b)]
    found = [(logits[:, b] - logits[:, a]) / np.float32(t[b] - t[a]) for a, b in pairs]
    return np.sort(np.concatenate(found))
