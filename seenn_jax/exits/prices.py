"""Exit times that a policy chose beforehand (SEENN-II), and the price that moves them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from seenn_jax.errors import UserError
from seenn_jax.exits.times import at_exit


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


def exit_times(
    logits: Float[ArrayLike, "N C"], candidates: Sequence[int], price: float | ArrayLike = 0.0
) -> Int[Array, "N"]:
    """Each sample's timesteps: argmax_t log v_t - price * t, the earlier of equals.

    A price of 0 is the plain argmax of SEENN-II. Others trade accuracy for timesteps without
    training again: the larger the price, in nats a timestep, the earlier all samples exit.
    """
    t, logits = jnp.asarray(candidates, jnp.int32), jnp.asarray(logits)
    return t[jnp.argmax(logits - price * t.astype(logits.dtype), axis=-1)]


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
    logits: Float[ArrayLike, "N C"], candidates: Sequence[int], target: float | int
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
