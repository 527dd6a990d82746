"""An exit made of its row, and what its methods give: checked, as it may be somebody's own."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from seenn_jax.errors import UserError
from seenn_jax.exits.choose import Choice, Chosen
from seenn_jax.exits.criteria import Criterion
from seenn_jax.exits.rules import EXITS, Answers, Exit, Rising
from seenn_jax.tables import check_call, check_given

_METHODS = ("check", "signal", "choose", "times", "sweep", "criterion", "about")
_ABOUT = {"candidates", "beta", "macs", "network_macs", "collapsed_to", "confidence"}
_ROW = {"threshold", "accuracy", "average_timesteps"}  # of a sweep


def make_exit(name: str, run: Any) -> Exit:
    """The exit of this name, for a loaded run.

    Raises:
      UserError: there is none, or it lacks something of `Exit`.
    """
    exit, what = EXITS[name](run), EXITS.words(name)
    kinds = Choice if isinstance(exit, Rising) else Choice | None
    attributes = {
        "name": (f"{name!r}, as it is called in the table", lambda x: x.name == name),
        "knob": ("a text, what its value is called", lambda x: isinstance(x.knob, str)),
        "default": ("a way to choose, such as Given(0.5)", lambda x: isinstance(x.default, kinds)),
        "params": ("arrays, or ()", lambda x: all(map(_is_array, jax.tree.leaves(x.params)))),
    }
    for attribute, (wanted, good) in attributes.items():
        check_given(what, exit, good, f"what has `{attribute}`: {wanted}")
    for method in _METHODS:
        arguments = list(inspect.signature(getattr(Exit, method)).parameters)[1:]
        check_call(f"the method `{method}` of {what}", getattr(exit, method, None), *arguments)
    return exit


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | float | int)


def _of(exit: Exit, method: str) -> str:
    return f"the method `{method}` of {EXITS.words(exit.name)}"


def chosen_by(exit: Exit, choice: Choice | None, signal: Any, answers: Any) -> Chosen:
    """What `exit.choose` gives."""
    found = exit.choose(choice, signal, answers)
    good = lambda x: isinstance(x, Chosen) and (x.value is None or np.isfinite(x.value))  # noqa: E731
    check_given(_of(exit, "choose"), found, good, "a Chosen of a finite value, or None")
    return found


def signal_of(exit: Exit, answers: Answers) -> Any:
    """What `exit.signal` gives."""
    found, shape = exit.signal(answers), answers.correct.shape
    if isinstance(exit, Rising):
        wanted = f"numbers [N, T], here {list(shape)}"
        check_given(
            _of(exit, "signal"),
            found,
            lambda x: x.shape == shape and jnp.issubdtype(x.dtype, np.number),
            wanted,
        )
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


def criterion_of(exit: Exit, value: Any, params: Any, images: Any) -> Criterion:
    """What `exit.criterion` gives, traced."""
    try:
        found = exit.criterion(value, params, images)
    except jax.errors.ConcretizationTypeError as error:
        raise UserError(
            f"{_of(exit, 'criterion')} makes a Python value of what is traced: use jax.numpy, "
            "and compare with `value`, so that one program serves all values; see docs/adding.md"
        ) from error
    wanted = "a Criterion, such as above(confidence, value)"
    check_given(_of(exit, "criterion"), found, lambda x: isinstance(x, Criterion), wanted)
    return found


def about_of(exit: Exit, answers: Answers, times: Int[np.ndarray, "N"]) -> dict | None:
    """What `exit.about` gives."""
    found = exit.about(answers, times)
    good = lambda x: x is None or x.keys() >= _ABOUT  # noqa: E731
    check_given(_of(exit, "about"), found, good, f"a dict of {', '.join(sorted(_ABOUT))}, or None")
    return found
