"""The network that the flags of evaluate, predict, export and serve name."""

from pathlib import Path
from typing import Any

from seenn_jax.errors import UserError, check_choice
from seenn_jax.exits import EXITS, Chosen, Exit
from seenn_jax.run import folder, weights
from seenn_jax.run.inference import Predictor, load

RUNS = Path("runs")  # where it is looked for where nothing is said
# Arguments of `load` as they are.
PASSED_ON = ("precision", "timesteps", "data_dir", "data_name", "checkpoint")


def loaded(values: dict[str, Any]) -> Predictor:
    """The network that the flags of predict, export and serve name."""
    source = (
        weights.read(values["weights"])
        if values["weights"]
        else Path(values["workdir"] or folder.newest(RUNS))
    )
    passed_on: Any = {name: values.get(name) for name in PASSED_ON}
    return load(source, **passed_on)


def check_data_used(run: Predictor, values: dict[str, Any]) -> None:
    """Raise a UserError where the place of the data is given, and nothing was looked up there."""
    for name in ("data_dir", "data_name"):
        if values[name] and "dataset" not in vars(run):
            raise UserError(
                f"`{name}`={values[name]} is of the data that a threshold is chosen on, and here "
                "none is: leave it out, or ask for one by `tolerance`, `target_timesteps` or `risk`"
            )


def exit_words(exit: Exit, chosen: Chosen, timesteps: int) -> str:
    """When samples exit, in words."""
    if chosen.value is None:
        return f"{exit.name} exit: {chosen.rule} (T = {timesteps})"
    return f"{exit.name} exit, {exit.knob} {chosen.value:.6g} (T = {timesteps}), {chosen.rule}"


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
        check_choice("exit", values.get("exit") or "full", EXITS)
