"""The error that a user can cause and mend."""

import difflib
import errno
import importlib
import signal
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """One sentence: what is wrong (the value), what is allowed, what to do.

    The command line prints it without a traceback and exits with a non-zero status.
    """


class Terminated(SystemExit):
    """Training was asked to end by SIGTERM, and has saved the step that it reached."""

    def __init__(self, sentence: str):
        super().__init__(128 + signal.SIGTERM)  # as of a program that the signal ended
        self.sentence = sentence


# Of the system, which say nothing of the file that was to be read: too many are open, no memory is
# left, a disk of the network is gone for now. (A MemoryError may well come of a damaged file.)
_PASSING = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)


def raise_passing(error: BaseException) -> None:
    """Raise an error again that must not be taken for a damaged file, which would be left out."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        raise error


def needed(what: str, module: str, package: str = "") -> Any:
    """A module of a package that is an extra.

    Args:
      what: needs it, in words.
      package: its name, where it is not that of the module.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module
        raise UserError(
            f"{what} needs the package {package}, which is not installed: pip install {package}"
        ) from error


def check_choice(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise a UserError that names `value` and what is `allowed`, unless it is one of them."""
    allowed = sorted(allowed)
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    raise UserError(f"unknown {what} {value!r}: {hint} known ones are {', '.join(allowed)}")
