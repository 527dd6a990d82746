"""The ways to choose the value of an exit: its threshold, patience or price."""

import dataclasses
import math
import numbers
from typing import ClassVar, NamedTuple

from seenn_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Given:
    """This value, whatever the validation split says.

    Attributes:
      value: for a score, a threshold in [0, 1]; for patience, the number of equal answers in a row;
        for a policy, the price of a timestep in nats (`prices.exit_times`).
    """

    setting: ClassVar[str] = "threshold"
    value: float | int


@dataclasses.dataclass(frozen=True)
class Target:
    """The most accurate within an average number of timesteps on the validation split.

    Attributes:
      value: that average, at least 1.
    """

    setting: ClassVar[str] = "target_timesteps"
    value: float | int


@dataclasses.dataclass(frozen=True)
class Risk:
    """A threshold with a guarantee (`thresholds.threshold_with_guarantee`).

    Attributes:
      value: eps, the largest risk, a fraction of 1 ...
      delta: ... but for this probability.
      loss: what the risk is the mean of, "disagreement" with all T timesteps or "accuracy" lost.
    """

    setting: ClassVar[str] = "risk"
    value: float | int
    delta: float = 0.1
    loss: str = "disagreement"


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The fewest timesteps within a loss of accuracy on the validation split, against all T.

    Attributes:
      value: that loss, a fraction of 1.
    """

    setting: ClassVar[str] = "tolerance"
    value: float | int = 0.001


# Images on which a loss of accuracy of 2 points can hardly go unseen: of n images of which none
# loses, the loss is below 3 / n with a probability of 95 % (the rule of three).
FEWEST = 150


def too_few(choice: Tolerance, images: int, asked: bool) -> str | None:
    """What to say where a validation split is too small for a tolerance; None where it is not.

    One that was asked for needs so many images, at least, that one of them is no more than that.
    """
    needed = max(FEWEST, math.ceil(1 / choice.value) if asked and choice.value > 0 else 0)
    if images >= needed:
        return None
    return (
        f"{images:,} validation images are too few to choose for a loss of at most "
        f"{100 * choice.value:g} points: up to {300 / images:.2g} points may be lost unseen "
        f"(with a probability of 95 %); hold out {needed:,} or more in training, or give risk and "
        "delta, for a guarantee"
    )


Choice = Given | Target | Risk | Tolerance


def check_kind(choice: Choice | None) -> None:
    """Raise a UserError for what is no way to choose, or one by what is no number."""
    if choice is None:
        return
    if not isinstance(choice, Choice):
        raise UserError(
            f"`choice` is {choice!r}: give Given(0.9), Target(1.2), Risk(0.05) or "
            "Tolerance(0.001), or leave it out"
        )
    if not isinstance(choice.value, numbers.Real):
        raise UserError(f"`{choice.setting}` is {choice.value!r}: it must be a number; give one")


class Chosen(NamedTuple):
    """The value of an exit, how it was chosen in words, and a guarantee where one was asked for."""

    value: float | int | None
    rule: str
    guarantee: dict | None = None
