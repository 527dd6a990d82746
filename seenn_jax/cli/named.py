"""The network that the flags of evaluate and predict name."""

from pathlib import Path
from typing import Any

from seenn_jax.errors import UserError, check_choice
from seenn_jax.exits import EXITS
from seenn_jax.run import folder

RUNS = Path("runs")  # where it is looked for where nothing is said


def check_named(values: dict[str, Any]) -> None:
    """Raise a UserError for two networks at once or, without a run, for an unknown exit.

    No plugin of a run can bring that exit.
    """
    if values["weights"] and values["workdir"]:
        raise UserError(
            f"`weights`={values['weights']} and `workdir`={values['workdir']} name two networks: "
            "give one of them"
        )
    if not (values["weights"] or values["workdir"] or folder.runs_in(RUNS)):
        check_choice("exit", values["exit"] or "full", EXITS)
