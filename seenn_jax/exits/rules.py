"""The exits by name: what each looks at, how its value is chosen, and when samples leave by it."""

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

from seenn_jax.errors import UserError
from seenn_jax.exits import criteria, prices, scores, thresholds, times
from seenn_jax.exits.checks import check_threshold
from seenn_jax.exits.choose import Choice, Chosen, Given, Risk, Target, Tolerance, too_few
from seenn_jax.tables import Table, called_with

_log = logging.getLogger(__name__)
SWEEP = 200  # values of a sweep


class Answers(NamedTuple):
    """What one forward pass over a split has left, at every t."""

    images: Any  # [N, ...], as they are stored
    labels: Int[np.ndarray, "N"]
    cumulative: Float[np.ndarray, "N T K"]  # logits
    predictions: Int[np.ndarray, "N T"]
    correct: Bool[np.ndarray, "N T"]


@runtime_checkable
class Exit(Protocol):
    """An exit, made for a loaded run.

    Attributes:
      name: as in `EXITS`.
      knob: what its value is called: "threshold", "patience", "price".
      default: how its value is chosen where nothing is said; None if it has none.
      params: arrays that its criterion needs, passed to a compiled program.
    """

    name: str
    knob: str
    default: Choice | None
    params: Any

    def check(self, choice: Choice | None, timesteps: int) -> None:
        """Raise a UserError for a choice that can't be, before anything is computed."""

    def signal(self, answers: Answers) -> Any:
        """What it looks at: [N, T] of a score, [N, C] of a policy; None if it looks at nothing."""

    def choose(self, choice: Any, signal: Any, answers: Any) -> Chosen:
        """Its value, by a `Choice` that `check` lets pass.

        Signal and answers are those of the validation split; None for a `Given`, or for no choice.
        """

    def times(self, signal: Any, value: float | int | None) -> Int[np.ndarray, "N"]:
        """Exit times by cached signals."""

    def sweep(self, signal: Any, correct: Bool[np.ndarray, "N T"]) -> list[dict[str, float]]:
        """Rows of threshold (its value), accuracy and average_timesteps."""

    def criterion(
        self, value: Float[Array, ""] | None, params: Any, images: Array
    ) -> criteria.Criterion:
        """The criterion of these images, traced with the run: one program serves all values.

        Args:
          value: float32, traced; None of an exit that has none.
          params: those of the exit.
        """

    def about(self, answers: Answers, times: Int[np.ndarray, "N"]) -> dict | None:
        """What a report has beside it, None for nothing."""


class Rising:
    """An exit at the first t at which a signal exceeds a value, at T at the latest.

    What a class of one's own must add: a `name`, `signal`, and `criterion`, which must decide alike
    tick by tick. `check_value` may refuse values.
    """

    name = ""
    knob = "threshold"
    default: Choice | None = Tolerance()
    params: Any = ()

    def check(self, choice: Choice | None, timesteps: int) -> None:
        """See `Exit`."""
        if isinstance(choice, Given):
            self.check_value(choice.value, timesteps)
        elif isinstance(choice, Tolerance) and not 0 <= choice.value < 1:
            raise UserError(
                f"`tolerance` is {choice.value}: give a fraction of 1, from 0 to below 1"
            )

    def check_value(self, value: float | int, timesteps: int) -> None:
        """Raise a UserError for a value that can't be."""

    def choose(self, choice: Choice, signal: Any, answers: Any) -> Chosen:
        """See `Exit`."""
        if isinstance(choice, Given):
            return Chosen(choice.value, "as given")
        where = f"chosen on the validation split ({len(answers.correct):,} images)"
        if isinstance(choice, Risk):
            return _certified(choice, signal, answers, where)
        if isinstance(choice, Target):
            value = thresholds.threshold_for_timesteps(signal, choice.value)
            rule = f"{where}: at most {choice.value:g} timesteps on average there"
        else:
            few = too_few(choice, len(answers.correct), asked=choice != self.default)
            if few:
                _log.warning(few)
            value = thresholds.threshold_for_accuracy(signal, answers.correct, choice.value)
            rule = (
                f"{where}: the fewest timesteps on average within {100 * choice.value:g} point of "
                f"its accuracy at T = {answers.correct.shape[1]}"
            )
        return Chosen(value, rule)

    def times(self, signal: Any, value: float | int) -> Int[np.ndarray, "N"]:
        """See `Exit`."""
        return np.asarray(times.exit_times(signal, value))

    def sweep(self, signal: Any, correct: Bool[np.ndarray, "N T"]) -> list[dict[str, float]]:
        """See `Exit`; over values of the signals that decide, the closer the lower they are.

        Most of what is to be seen happens where few samples stay for another timestep.
        """
        inner = []
        if signal.shape[1] > 1:
            inner = np.quantile(signal[:, :-1], np.linspace(0, 1, SWEEP - 2) ** 2)
        grid = np.unique(np.concatenate([[0.0], inner, [1.0]]).astype(signal.dtype))
        return _rows(grid, *times.sweep(signal, correct, grid))

    def about(self, answers: Answers, times: Int[np.ndarray, "N"]) -> None:
        """See `Exit`."""


def _certified(choice: Risk, signal: Any, answers: Answers, where: str) -> Chosen:
    found = thresholds.threshold_with_guarantee(
        signal,
        answers.predictions,
        choice.value,
        choice.delta,
        choice.loss,
        labels=answers.labels,
    )
    what = "certified" if found.certified else "none below 1 could be certified, so all T run"
    rule = (
        f"{where}: {found.loss} risk at most eps = {found.eps:g} with probability "
        f"{1 - found.delta:g} (Learn-then-Test): {what}"
    )
    return Chosen(found.threshold, rule, found._asdict())


def _rows(values: Any, accuracy: Any, average: Any) -> list[dict[str, float]]:
    return [
        {"threshold": float(v), "accuracy": float(a), "average_timesteps": float(m)}
        for v, a, m in zip(values, accuracy, average, strict=True)
    ]


class Score(Rising):
    """An exit by a score: `cumulative logits [..., K] -> [...]`, within [0, 1], larger is surer."""

    def __init__(self, name: str, score: Callable[[Array], Array]):
        self.name, self.score = name, score

    def check_value(self, value: float | int, timesteps: int) -> None:
        """See `Rising`."""
        check_threshold(value)

    def signal(self, answers: Answers) -> Float[np.ndarray, "N T"]:
        """See `Exit`."""
        return np.asarray(self.score(answers.cumulative))

    def criterion(self, value: Real[ArrayLike, ""], params: Any, images: Any) -> criteria.Criterion:
        """See `Exit`."""
        # As `exit_times` rounds it.
        return criteria.above(self.score, jnp.asarray(value, jnp.float32))


class Patience(Rising):
    """An exit after the same answer at `value` ticks in a row: a streak above `value` - 1."""

    name, knob = "patience", "patience"

    def check(self, choice: Choice | None, timesteps: int) -> None:
        """See `Exit`."""
        if isinstance(choice, Risk):
            raise _no_grid(self.name)
        super().check(choice, timesteps)

    def check_value(self, value: float | int, timesteps: int) -> None:
        """See `Rising`."""
        if value not in range(1, timesteps + 1):
            raise UserError(
                f"`threshold`={value} is no patience: give the number of equal answers "
                f"in a row, from 1 to T = {timesteps}"
            )

    def signal(self, answers: Answers) -> Int[np.ndarray, "N T"]:
        """See `Exit`."""
        return np.asarray(times.streaks(answers.predictions))

    def choose(self, choice: Choice, signal: Any, answers: Any) -> Chosen:
        """See `Exit`."""
        chosen = super().choose(choice, signal, answers)
        return (
            chosen if isinstance(choice, Given) else chosen._replace(value=(chosen.value or 0) + 1)
        )

    def times(self, signal: Any, value: float | int) -> Int[np.ndarray, "N"]:
        """See `Exit`."""
        return super().times(signal, value - 1)

    def sweep(self, signal: Any, correct: Bool[np.ndarray, "N T"]) -> list[dict[str, float]]:
        """See `Exit`."""
        grid = np.arange(signal.shape[1])
        return _rows(grid + 1, *times.sweep(signal, correct, grid))

    def criterion(self, value: Real[ArrayLike, ""], params: Any, images: Any) -> criteria.Criterion:
        """See `Exit`."""
        return criteria.patience(jnp.asarray(value, jnp.int32))


class Full:
    """No exit: every sample runs all T timesteps."""

    name, knob, default, params = "full", "threshold", None, ()

    def check(self, choice: Choice | None, timesteps: int) -> None:
        """See `Exit`."""
        if choice is not None:
            others = ", ".join(name for name in EXITS if name != self.name)
            raise UserError(
                f"`{choice.setting}`={choice.value} has no meaning for exit 'full', which runs all "
                f"timesteps: leave it out, or choose one of {others}"
            )

    def signal(self, answers: Answers) -> None:
        """See `Exit`."""

    def choose(self, choice: None, signal: None, answers: None) -> Chosen:
        """See `Exit`."""
        return Chosen(None, "every sample runs all timesteps")

    def times(self, signal: None, value: None) -> None:
        """See `Exit`."""

    def sweep(self, signal: None, correct: Bool[np.ndarray, "N T"]) -> list[dict[str, float]]:
        """See `Exit`."""
        return []

    def criterion(self, value: None, params: Any, images: Any) -> criteria.Criterion:
        """See `Exit`."""
        return criteria.never()

    def about(self, answers: Answers, times: Any) -> None:
        """See `Exit`."""


class Policy:
    """SEENN-II: a policy network chooses each sample's timesteps beforehand; see `prices`.

    Args:
      run: has the policy: `policy_logits(params, images)`, pure, its `policy_params`, `config`, and
        `macs()`, `policy_macs()` of one image and timestep.
    """

    name, knob, default = "policy", "price", Given(0.0)

    def __init__(self, run: Any):
        self.run, self.candidates = run, tuple(run.config.policy.candidates)
        self.params = run.policy_params

    def check(self, choice: Choice | None, timesteps: int) -> None:
        """See `Exit`."""
        if isinstance(choice, Risk):
            raise _no_grid(self.name)
        if isinstance(choice, Tolerance):
            raise UserError(
                f"`tolerance`={choice.value} has no meaning for exit 'policy', whose price is "
                "chosen for an average number of timesteps: give `target_timesteps`"
            )
        if isinstance(choice, Given) and not math.isfinite(choice.value):
            raise UserError(
                f"`threshold`={choice.value} is no price of a timestep: give a number, 0 for the "
                "policy's own choice"
            )
        if timesteps < self.candidates[-1]:
            raise UserError(
                f"`timesteps` is {timesteps} and the policy may choose up to "
                f"{self.candidates[-1]}: give at least that"
            )

    def signal(self, answers: Answers) -> Float[np.ndarray, "N C"]:
        """See `Exit`."""
        return self.run.policy_choices(answers.images)

    def choose(self, choice: Choice, signal: Any, answers: Any) -> Chosen:
        """See `Exit`."""
        if isinstance(choice, Given):
            own = choice == self.default
            return Chosen(
                choice.value, "the most probable candidate of the policy" if own else "as given"
            )
        price = prices.price_for_timesteps(signal, self.candidates, choice.value)
        return Chosen(
            price,
            f"chosen on the validation split ({len(signal):,} images): at most "
            f"{choice.value:g} timesteps on average there",
        )

    def times(self, signal: Any, value: float | int) -> Int[np.ndarray, "N"]:
        """See `Exit`."""
        return np.asarray(prices.exit_times(signal, self.candidates, value))

    def sweep(self, signal: Any, correct: Bool[np.ndarray, "N T"]) -> list[dict[str, float]]:
        """See `Exit`."""
        return _rows(*prices.sweep(signal, self.candidates, correct, SWEEP))

    def criterion(
        self, value: Real[ArrayLike, ""], params: Any, images: Array
    ) -> criteria.Criterion:
        """See `Exit`."""
        values = jnp.broadcast_to(value, images.shape[:1])
        return criteria.prescribed(self.beforehand(values, params, images))

    def beforehand(
        self, values: Real[ArrayLike, "N"], params: Any, images: Array
    ) -> Int[Array, "N"]:
        """Exit times of images by a price for each: what a server asks as they come."""
        logits = self.run.policy_logits(params, images)
        return prices.exit_times(logits, self.candidates, jnp.asarray(values)[:, None])

    def about(self, answers: Answers, exits: Int[np.ndarray, "N"]) -> dict:
        """What the policy costs, and SEENN-I on the same samples at as many timesteps on average.

        That threshold is the one that gives this average on the very samples that are reported,
        which takes no label.
        """
        beside = Score("confidence", scores.confidence)
        signal = beside.signal(answers)
        threshold = thresholds.threshold_for_timesteps(signal, float(np.mean(exits)))
        other = beside.times(signal, threshold)
        return {
            "candidates": list(self.candidates),
            "beta": self.run.config.policy.beta,
            "macs": self.run.policy_macs(),
            "network_macs": self.run.macs(),  # of one timestep
            "collapsed_to": int(exits[0]) if np.all(exits == exits[0]) else None,
            "confidence": {
                "threshold": threshold,
                "accuracy": float(np.mean(times.at_exit(answers.correct, other))),
                "average_timesteps": float(np.mean(other)),
                "sweep": beside.sweep(signal, answers.correct),
            },
        }


def _no_grid(name: str) -> UserError:
    return UserError(
        f"exit '{name}' has no grid of thresholds for `risk`: choose one of "
        f"{', '.join(scores.SCORES)}"
    )


# `run -> Exit`, of a loaded run.
EXITS = Table(
    "EXITS",
    "exit",
    {
        **{
            name: lambda run, name=name, score=score: Score(name, score)
            for name, score in scores.SCORES.items()
        },
        "patience": lambda run: Patience(),
        "policy": lambda run: Policy(run),
        "full": lambda run: Full(),
    },
    called_with("run"),
)
