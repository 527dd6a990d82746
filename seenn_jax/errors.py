"""The error that a user can cause and mend."""

import difflib
import signal
from collections.abc import Iterable


class UserError(ValueError):
    """One sentence: what is wrong (the value), what is allowed, what to do.

    The command line prints it without a traceback and exits with a non-zero status.
    """


class Terminated(SystemExit):
    """Training was asked to end by SIGTERM, and has saved the step that it reached."""

    def __init__(self, sentence: str):
        super().__init__(128 + signal.SIGTERM)  # as of a program that the signal ended
        self.sentence = sentence


def check_choice(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise a UserError that names `value` and what is `allowed`, unless it is one of them."""
    allowed = sorted(allowed)
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    raise UserError(f"unknown {what} {value!r}: {hint} known ones are {', '.join(allowed)}")
