"""The ways to choose the value of an exit: its threshold, patience or price."""

import dataclasses
from typing import ClassVar, NamedTuple


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


Choice = Given | Target | Risk | Tolerance


class Chosen(NamedTuple):
    """The value of an exit, how it was chosen in words, and a guarantee where one was asked for."""

    value: float | int | None
    rule: str
    guarantee: dict | None = None
