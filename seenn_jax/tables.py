"""Tables: what can be chosen by name. A plugin adds rows to them (see `plugins`).

A row of somebody's own may be of another kind, take other arguments or give something else than it
must: the checks here say so in a sentence, where JAX would fail much later and at length.
"""

import inspect
from collections.abc import Callable
from typing import Any

from seenn_jax.errors import UserError, check_choice

ALL: dict[str, "Table"] = {}  # every table by its name
_SEE = "see docs/adding.md"


class Table(dict[str, Any]):
    """Rows by name; an unknown name is a UserError that lists the known ones, as is a taken one.

    Args:
      name: what the table is called in the code, such as "NEURONS".
      what: what a row is, in words.
      rows: the first rows.
      check: `(row in words, row)`, raises a UserError for a row that can't be.
    """

    def __init__(
        self, name: str, what: str, rows: dict[str, Any], check: Callable[[str, Any], object]
    ):
        super().__init__(rows)
        self.what, self.check = what, check
        ALL[name] = self

    def __missing__(self, name: str) -> Any:
        check_choice(self.what, name, self)

    def __setitem__(self, name: str, row: Any) -> None:
        if name in self:
            raise UserError(f"the {self.what} {name!r} is there already: choose another name")
        self.check(self.words(name), row)
        super().__setitem__(name, row)

    def words(self, name: str) -> str:
        """A row in words."""
        return f"the {self.what} {name!r}"


def called_with(*arguments: str) -> Callable[[str, Any], None]:
    """The check of rows that are functions of these arguments."""
    return lambda what, row: check_call(what, row, *arguments)


def check_kind(what: str, found: Any, kind: type) -> None:
    """Raise a UserError for what is no `kind`."""
    if not isinstance(found, kind):
        name = {type: "a class", str: "a text"}.get(kind, f"a seenn_jax.{kind.__name__}")
        raise UserError(f"{what} is {_described(found)}: it must be {name}; {_SEE}")


def check_call(what: str, function: Any, *arguments: str) -> None:
    """Raise a UserError unless a function can be called with arguments of these names.

    Those that end in "=" are given by name. Nothing is known of functions that are written in C.
    """
    asked = ", ".join(arguments)
    if not callable(function):
        raise UserError(f"{what} is {_described(function)}: it must take ({asked}); {_SEE}")
    named = [argument[:-1] for argument in arguments if argument.endswith("=")]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments[: len(arguments) - len(named)], **dict.fromkeys(named))
    except TypeError as error:
        takes = ", ".join(str(p.replace(annotation=p.empty)) for p in signature.parameters.values())
        raise UserError(
            f"{what} takes ({takes}) and is called with ({asked}): give it these arguments; {_SEE}"
        ) from error


def check_given(what: str, found: Any, good: Callable[[Any], Any], wanted: str) -> None:
    """Raise a UserError unless what a function gave is good; `good` may fail on it."""
    try:
        fine = bool(good(found))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        fine = False
    if not fine:
        raise UserError(f"{what} gives {_described(found)}: it must give {wanted}; {_SEE}")


def _described(found: Any) -> str:
    """What something is, in few words."""
    if isinstance(found, tuple) and type(found) is tuple and len(found) <= 4:
        return f"({', '.join(map(_described, found))})"
    if hasattr(found, "shape") and hasattr(found, "dtype"):
        return f"{found.dtype}{list(found.shape)}"
    if found is None or isinstance(found, bool | int | float):
        return str(found)
    name = type(found).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
