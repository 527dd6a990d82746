"""An exit made of its row, and what its methods give: checked, as it may be somebody's own."""

import inspect
from typing import Any

import numpy as np
from jaxtyping import Int

from seenn_jax.exits.choose import Choice, Chosen
from seenn_jax.exits.rules import EXITS, Answers, Exit, Rising
from seenn_jax.tables import check_call, check_given

_ATTRIBUTES = ("name", "knob", "default", "params")
_METHODS = ("check", "signal", "choose", "times", "sweep", "criterion", "about")
_ABOUT = {"candidates", "beta", "macs", "network_macs", "collapsed_to", "confidence"}
_ROW = {"threshold", "accuracy", "average_timesteps"}  # of a sweep


def make_exit(name: str, run: Any) -> Exit:
    """The exit of this name, for a loaded run.

    Raises:
      UserError: there is none, or it lacks something of `Exit`.
    """
    exit, what = EXITS[name](run), EXITS.words(name)
    for attribute in _ATTRIBUTES:
        check_given(what, exit, lambda x, a=attribute: hasattr(x, a), f"what has a `{attribute}`")
    for method in _METHODS:
        arguments = list(inspect.signature(getattr(Exit, method)).parameters)[1:]
        check_call(f"the method `{method}` of {what}", getattr(exit, method, None), *arguments)
    return exit


def _of(exit: Exit, method: str) -> str:
    return f"the method `{method}` of {EXITS.words(exit.name)}"


def chosen_by(exit: Exit, choice: Choice | None, signal: Any, answers: Any) -> Chosen:
    """What `exit.choose` gives."""
    found = exit.choose(choice, signal, answers)
    good = lambda x: isinstance(x, Chosen) and (x.value is None or np.isfinite(x.value))  # noqa: E731
    check_given(_of(exit, "choose"), found, good, "a Chosen of a value, or None, and words")
    return found


def signal_of(exit: Exit, answers: Answers) -> Any:
    """What `exit.signal` gives."""
    found, shape = exit.signal(answers), answers.correct.shape
    if isinstance(exit, Rising):
        wanted = f"numbers [N, T], here {list(shape)}"
        check_given(_of(exit, "signal"), found, lambda x: np.shape(x) == shape, wanted)
    return found


def times_of(exit: Exit, signal: Any, value: Any, answers: Answers) -> Int[np.ndarray, "N"]:
    """What `exit.times` gives; all T of one that gives none."""
    found, (count, timesteps) = exit.times(signal, value), answers.correct.shape
    if found is None:
        return np.full(count, timesteps)

    def good(x):
        return (
            x.shape == (count,)
            and np.issubdtype(x.dtype, np.integer)
            and np.all((x >= 1) & (x <= timesteps))
        )

    check_given(_of(exit, "times"), found, good, f"integers [N] from 1 to {timesteps}, or None")
    return np.asarray(found)


def sweep_of(exit: Exit, signal: Any, answers: Answers) -> list[dict[str, float]]:
    """What `exit.sweep` gives."""
    found = exit.sweep(signal, answers.correct)
    good = lambda rows: all(row.keys() >= _ROW for row in rows)  # noqa: E731
    check_given(_of(exit, "sweep"), found, good, f"a list of dicts of {', '.join(sorted(_ROW))}")
    return found


def about_of(exit: Exit, answers: Answers, times: Int[np.ndarray, "N"]) -> dict | None:
    """What `exit.about` gives."""
    found = exit.about(answers, times)
    good = lambda x: x is None or x.keys() >= _ABOUT  # noqa: E731
    check_given(_of(exit, "about"), found, good, f"a dict of {', '.join(sorted(_ABOUT))}, or None")
    return found
