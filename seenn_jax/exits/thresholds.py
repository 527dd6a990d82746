"""Choosing the threshold and the temperatures on a validation split, from its cached logits.

Every function here takes what one forward pass over the split has left: `scores [N, T]` of
`seenn_jax.exits` and, where labels are needed, whether each prediction is right. Runs on the host,
not inside jit. The test split has no business here.

`threshold_for_accuracy` and `threshold_for_timesteps` are exact: they look at every threshold at
which any exit time of the split changes, and take one between two scores. `streaks` may stand in
for scores; the answer is then patience minus 1.
"""

import math
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Real

from seenn_jax.errors import UserError, check_choice
from seenn_jax.exits.checks import check_finite, check_labels
from seenn_jax.exits.times import exit_totals

# 200 thresholds from 1 to 0, dense towards 1, where scores crowd; all of them differ in float32.
# The second is float32's last number below 1: only scores that are rounded to 1 exceed it.
GUARANTEE_GRID = 1 - np.append([0, 2.0**-24], np.geomspace(1e-6, 1, 198))


def check_split(values: Real[ArrayLike, "N ..."]) -> None:
    """Raise a UserError unless there are samples to choose on, and all values are finite."""
    if np.shape(values)[0] == 0:
        raise UserError(
            "the validation split has 0 samples, where at least 1 is needed to choose on: "
            "hold out a larger one"
        )
    check_finite(values)


def _candidates(scores: Real[np.ndarray, "N T"]) -> Real[np.ndarray, "M"]:
    """Return, ascending, every threshold at which some exit time changes, and 0 and 1.

    Between two neighbouring scores all thresholds do the same; the lower of the two stands for
    them. So scores that saturate at exactly 1 leave at the largest score below 1. Equal candidates
    stay, for a shape (hence a compiled sweep) that depends on N and T alone.
    """
    surest = np.maximum.accumulate(scores[:, :-1], axis=1)
    return np.sort(np.append(surest, [0, 1]).astype(scores.dtype))


def _halfway(candidates: Real[np.ndarray, "M"], chosen: Real[np.generic, ""]) -> float:
    """The threshold halfway from a candidate to the next one, which does the same.

    The last bit of a score depends on the program that computes it, so no sample's own may decide.
    Streaks are exact, and stay.
    """
    higher = candidates[candidates > chosen]
    if not (len(higher) and np.issubdtype(candidates.dtype, np.floating)):
        return float(chosen)
    middle = chosen + (higher[0] - chosen) / 2
    return float(middle if middle < higher[0] else chosen)


def threshold_for_accuracy(
    scores: Real[ArrayLike, "N T"], correct: Bool[ArrayLike, "N T"], tolerance: float | int = 0.001
) -> float:
    """Return the threshold with the fewest timesteps at nearly the accuracy of all T.

    Among all thresholds whose accuracy on these samples is at least that of T timesteps minus
    `tolerance`, the one with the smallest average timesteps; 1 (never exit) always qualifies.

    Args:
        scores: exit score at each timestep.
        correct: whether the prediction is right at each timestep.
        tolerance: largest loss of accuracy, a fraction of 1.

    Raises:
        UserError: tolerance outside [0, 1], no samples, scores that are not finite.
    """
    if not 0 <= tolerance <= 1:
        raise UserError(
            f"tolerance {tolerance} is outside [0, 1]: it is a loss of accuracy, a fraction of 1; "
            "give 0.001 for a tenth of a point"
        )
    check_split(scores)
    scores, correct = np.asarray(scores), np.asarray(correct)
    candidates = _candidates(scores)
    right, timesteps = map(np.asarray, exit_totals(scores, correct, candidates))
    # In whole samples, so that 0.29 * 100 = 28.999... allows 29.
    allowed = math.floor(tolerance * len(scores) + 1e-6)
    # Exit times grow with the threshold, so the lowest that qualifies has the fewest timesteps.
    lowest = np.argmax(right >= correct[:, -1].sum() - allowed)
    # Of those with the same exits the highest: 1 where none exits.
    return _halfway(candidates, candidates[timesteps == timesteps[lowest]][-1])


def threshold_for_timesteps(scores: Real[ArrayLike, "N T"], target: float | int) -> float:
    """Return the threshold with the largest average timesteps that does not exceed the target.

    Args:
        scores: exit score at each timestep.
        target: average timesteps, within [1, T].

    Raises:
        UserError: a target outside [1, T] or below what threshold 0 gives (a score of exactly 0
            does not exceed it), no samples, scores that are not finite.
    """
    check_split(scores)
    scores = np.asarray(scores)
    n, steps = scores.shape
    if not 1 <= target <= steps:
        raise UserError(
            f"a target of {target} timesteps on average cannot be met: "
            f"samples take from 1 to {steps}; give a target in [1, {steps}]"
        )
    candidates = _candidates(scores)
    timesteps = np.asarray(exit_totals(scores, np.zeros(scores.shape, bool), candidates)[1])
    if timesteps[0] > target * n + 1e-6:
        raise UserError(
            f"a target of {target} timesteps on average cannot be met: threshold 0 already takes "
            f"{timesteps[0] / n:.4f}, as scores of exactly 0 never exit; give at least that"
        )
    return _halfway(candidates, candidates[timesteps <= target * n + 1e-6][-1])


class Guarantee(NamedTuple):
    """What `threshold_with_guarantee` has certified, and on what."""

    threshold: float  # exit where score > threshold
    certified: bool  # False: no threshold below 1 passed; threshold is 1, all T timesteps run
    loss: str  # what the risk is the mean of
    eps: float  # the risk is at most this ...
    delta: float  # ... but for this probability
    n: int  # samples calibrated on
    empirical_risk: float  # mean loss on those samples at the threshold
    p_value: float  # of "the risk exceeds eps" at the threshold
    average_timesteps: float  # on those samples at the threshold


def exit_losses(
    predictions: Int[ArrayLike, "N T"], loss: str, labels: Int[ArrayLike, "N"] | None = None
) -> Bool[np.ndarray, "N T"]:
    """Return whether exiting at each t loses; see `threshold_with_guarantee`."""
    predictions = np.asarray(predictions)
    if loss == "disagreement":
        return predictions != predictions[:, -1:]
    wrong = predictions != np.asarray(labels)[:, None]
    return wrong & ~wrong[:, -1:]


def threshold_with_guarantee(
    scores: Float[ArrayLike, "N T"],
    predictions: Int[ArrayLike, "N T"],
    eps: float | int,
    delta: float | int = 0.1,
    loss: str = "disagreement",
    labels: Int[ArrayLike, "N"] | None = None,
    grid: Float[ArrayLike, "M"] = GUARANTEE_GRID,
) -> Guarantee:
    """Return a threshold with P(risk <= eps) >= 1 - delta: Learn-then-Test, fixed sequence.

    The probability is over draws of the n calibration samples; the risk is the mean loss over the
    distribution that they, and the test data, come from. Walking down the grid, threshold k has
    p-value BinomCDF(losses_k; n, eps); the walk stops at the first that exceeds delta, and the
    threshold before it is the answer.

    Args:
        scores: exit score at each timestep.
        predictions: predicted class at each timestep.
        eps: largest risk, within (0, 1).
        delta: largest probability that the risk exceeds it, within (0, 1).
        loss: 1 for a sample, else 0: "disagreement" where the prediction at its exit is not that
            of all T; "accuracy" where it is right at T and wrong at its exit (needs labels).
        labels: true classes.
        grid: falls strictly from 1 and stays in [0, 1]. Fixed before looking at these samples, or
            the guarantee is void.

    Raises:
        UserError: eps or delta outside (0, 1), a grid that is empty or does not fall strictly from
            1, an unknown loss, missing labels, scores that are not finite, or fewer samples than
            log(delta) / log(1 - eps), with which nothing can be certified.

    References:
        Angelopoulos et al. 2021, arXiv 2110.01052; for early exits, Jazbec et al. 2024,
        arXiv 2405.20915.
    """
    check_choice("loss", loss, ("accuracy", "disagreement"))
    predictions, grid, n = np.asarray(predictions), np.asarray(grid), len(predictions)
    _check_guarantee(eps, delta, grid, n)
    check_finite(scores)
    if loss == "accuracy":
        check_labels(labels, "the risk of losing accuracy")
    losses = exit_losses(predictions, loss, labels)
    lost, timesteps = (np.asarray(x)[::-1] for x in exit_totals(scores, losses, grid[::-1]))
    p_values = _binomial_cdf(lost, n, eps)
    passed = np.append(p_values <= delta, False)
    k = max(int(np.argmin(passed)) - 1, 0)
    return Guarantee(
        # As rounded to the dtype of the scores: the number that they have been compared with.
        threshold=float(grid[k].astype(np.asarray(scores).dtype)),
        certified=k > 0,
        loss=loss,
        eps=eps,
        delta=delta,
        n=n,
        empirical_risk=float(lost[k] / n),
        p_value=float(p_values[k]),
        average_timesteps=float(timesteps[k] / n),
    )


def _binomial_cdf(
    counts: Real[np.ndarray, "M"], n: int, chance: float | int
) -> Float[np.ndarray, "M"]:
    import scipy.special  # Slow to import.

    return scipy.special.bdtr(counts.astype(float), n, chance)


def _check_guarantee(
    eps: float | int, delta: float | int, grid: Float[np.ndarray, "M"], n: int
) -> None:
    for name, value in (("risk eps", eps), ("delta", delta)):
        if not 0 < value < 1:
            raise UserError(
                f"{name} = {value} is outside (0, 1): it is a fraction of 1; give one such as 0.01"
            )
    if grid.size == 0 or grid[0] != 1 or grid[-1] < 0 or not np.all(np.diff(grid) < 0):
        raise UserError(
            f"the grid of thresholds {np.array2string(grid, threshold=6)} is empty or unsorted: "
            "it must fall strictly from 1 to no less than 0; leave it out for the default grid"
        )
    needed = math.ceil(math.log(delta) / math.log1p(-eps))
    if n < needed:
        raise UserError(
            f"{n} validation samples are too few to certify a risk of at most {eps} with "
            f"probability {1 - delta:g}: it takes at least {needed}; hold out more samples, "
            "or raise the risk or delta"
        )
