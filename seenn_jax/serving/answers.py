"""What a server answers, refuses and counts."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seenn_jax.errors import UserError

LATENCIES = 4096  # the latest, of which the quantiles are
QUANTILES = (0.5, 0.9, 0.99)


class Answer(NamedTuple):
    """What a server answers for one image.

    Attributes:
      number: of the predicted class.
      name: of it; its number as text where the data have no names.
      confidence: the largest softmax probability at the exit.
      timesteps: that the image took, from 1.
      complete: whether it exited. Otherwise its deadline came first, or its frames ended, and this
        is the answer so far.
      seconds: from `submit` to the answer.
      ticks: (number, confidence) at each tick up to the exit, where they were asked for.
    """

    number: int
    name: str
    confidence: float
    timesteps: int
    complete: bool
    seconds: float
    ticks: tuple[tuple[int, float], ...] = ()


class Refused(UserError):
    """The queue is full."""


class Stopped(UserError):
    """The server takes no more."""


class TooLate(TimeoutError):
    """A deadline came before the first tick: there is no answer so far."""


class Counters:
    """What has happened to images so far; written by one thread at a time."""

    def __init__(self, timesteps: int):
        self.requests = self.answers = self.refused = self.cancelled = 0
        self.late = self.failed = 0
        self.exits = [0] * timesteps  # by t, of complete answers
        self.seconds = 0.0  # of all answers
        self._latest: collections.deque[float] = collections.deque(maxlen=LATENCIES)

    def answered(self, answers: Sequence[Answer]) -> None:
        """Count answers."""
        exits, seconds = self.exits, [answer.seconds for answer in answers]
        self.answers += len(answers)
        self.seconds += sum(seconds)
        self._latest.extend(seconds)
        for answer in answers:
            if answer.complete:
                exits[answer.timesteps - 1] += 1
            else:
                self.late += 1

    def as_dict(self) -> dict[str, Any]:
        """The counts, and quantiles of the latest latencies in seconds (None before the first)."""
        latest = list(self._latest)
        quantiles = np.quantile(latest, QUANTILES).tolist() if latest else [None] * len(QUANTILES)
        counts = {name: value for name, value in vars(self).items() if name != "_latest"}
        counts["exits"] = list(self.exits)
        return {**counts, "latency": dict(zip(QUANTILES, quantiles, strict=True))}
