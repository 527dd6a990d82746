"""The flags of each program, defined by a function and not on import."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from seenn_jax import hosts
from seenn_jax.engine import METHODS
from seenn_jax.errors import UserError
from seenn_jax.evaluation.evaluate import SPLITS
from seenn_jax.exits import EXITS, Choice, Given, Risk, Target, Tolerance
from seenn_jax.models.conversion import PERCENTILE
from seenn_jax.models.precision import PRECISIONS
from seenn_jax.run.tensors import DTYPES


class Flag(NamedTuple):
    """A flag: how absl defines it, its default and what it says of it."""

    define: Callable
    default: Any
    help: str


OF_HOSTS = {
    "multihost": Flag(
        flags.DEFINE_bool,
        False,
        "Be one of several processes, on one or more hosts, that divide the work and share "
        f"--workdir; {', '.join(hosts.VARIABLES)} say which, where JAX does not find out by "
        "itself.",
    ),
    "wait": Flag(
        flags.DEFINE_integer,
        None,
        "With --multihost, seconds that processes wait for each other at the start. Default: "
        f"{hosts.PATIENCE}.",
    ),
}
TRAIN = {
    "workdir": Flag(flags.DEFINE_string, None, "Folder of the run. Default: runs/NAME_OF_CONFIG."),
    **OF_HOSTS,
}
EVALUATE = {
    "exit": Flag(
        flags.DEFINE_string,
        None,
        f"When a sample exits: {', '.join(EXITS)}, or a plugin's. Default: confidence.",
    ),
    "workdir": Flag(
        flags.DEFINE_string,
        None,
        "Folder of the run. Default: the newest in runs/. Several, with commas, for one "
        "--conversion_report.",
    ),
    "weights": Flag(
        flags.DEFINE_string,
        None,
        "Instead of a run, weights: a name, or the path of a .safetensors file.",
    ),
    "threshold": Flag(
        flags.DEFINE_float,
        None,
        "Exit above this score, in [0, 1]; for patience, after so many equal answers in a row; for "
        "a policy, the price of a timestep. Default: chosen on the validation split.",
    ),
    "tolerance": Flag(
        flags.DEFINE_float,
        None,
        "Choose for the largest loss of validation accuracy, a fraction of 1. Default: "
        f"{Tolerance().value}.",
    ),
    "target_timesteps": Flag(
        flags.DEFINE_float, None, "Choose for at most this average of timesteps on validation."
    ),
    "risk": Flag(
        flags.DEFINE_float,
        None,
        "Choose with a guarantee: the risk is at most this (Learn-then-Test) ...",
    ),
    "delta": Flag(flags.DEFINE_float, None, "... but for this probability. Default: 0.1."),
    "loss": Flag(
        flags.DEFINE_string,
        None,
        "What the risk is the mean of: disagreement with all T timesteps (the default), or "
        "accuracy lost by exiting.",
    ),
    "temperature": Flag(
        flags.DEFINE_bool, False, "Fit a temperature for each timestep on the validation split."
    ),
    "method": Flag(flags.DEFINE_string, "slots", f"How exits are run: {', '.join(METHODS)}."),
    "split": Flag(flags.DEFINE_string, "test", f"What is reported: {', '.join(SPLITS)}."),
    "precision": Flag(
        flags.DEFINE_string,
        None,
        f"Of inference: {', '.join(PRECISIONS)}. Default: the run's dtype. int8 rounds weights.",
    ),
    "slots": Flag(
        flags.DEFINE_integer,
        None,
        "Images under way at a time. Default: 256, or the whole split if it is smaller.",
    ),
    "timesteps": Flag(flags.DEFINE_integer, None, "T, at least 1. Default: the run's."),
    "ann": Flag(
        flags.DEFINE_bool,
        False,
        "Evaluate the ordinary network of a run, at one timestep, without converting it.",
    ),
    "percentile": Flag(
        flags.DEFINE_float,
        None,
        "Where the thresholds of a converted ReLU network are put among its activations on "
        f"training images; 100 for their maximum. Default: {PERCENTILE}.",
    ),
    "conversion_report": Flag(
        flags.DEFINE_bool,
        False,
        "Tell how near the converted network comes to the ordinary one, layer by layer; in "
        "WORKDIR/evaluation/conversion.json too.",
    ),
    "energy": Flag(
        flags.DEFINE_bool,
        False,
        "Count synaptic operations, multiply-accumulates, firing rates and the energy of "
        "arithmetic.",
    ),
    "nir": Flag(
        flags.DEFINE_string,
        None,
        "Write the spiking network to this file, in the Neural Intermediate Representation.",
    ),
    "json": Flag(flags.DEFINE_string, None, "Write the result to this file too."),
    "export_weights": Flag(
        flags.DEFINE_string,
        None,
        "Write the network, its exit and all that it needs to this .safetensors file, and a card.",
    ),
    "weights_dtype": Flag(
        flags.DEFINE_string,
        None,
        f"Of the kernels in that file: {', '.join(DTYPES)}. Default: float32.",
    ),
    **OF_HOSTS,
}
# Of predict, those of evaluate.py that say how the run is loaded and when a sample exits ...
_OF_BOTH = (
    *(
        "workdir",
        "weights",
        "exit",
        "threshold",
        "tolerance",
        "target_timesteps",
        "risk",
        "delta",
        "loss",
    ),
    *("precision", "timesteps", "slots"),
)
PREDICT = {
    **{name: EVALUATE[name] for name in _OF_BOTH},
    # ... with other words and defaults for some.
    "workdir": Flag(flags.DEFINE_string, None, "Folder of the run. Default: the newest in runs/."),
    "exit": Flag(
        flags.DEFINE_string,
        None,
        f"When a sample exits: {', '.join(EXITS)}, or a plugin's. Default: as evaluated last.",
    ),
    "slots": Flag(flags.DEFINE_integer, None, "Images under way at a time. Default: 256."),
    "json": Flag(
        flags.DEFINE_string,
        None,
        "Write a line of JSON for each image to this file, or to standard output for -.",
    ),
}
# Old names of flags, which work for one release.
RENAMED = {"patience": "wait", "batch_size": "slots", "dtype": "precision"}


def define(table: dict[str, Flag]) -> None:
    """Define the flags of a program."""
    for name, flag in table.items():
        flag.define(name, flag.default, flag.help)
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def renamed(arguments: list[str], table: dict[str, Flag]) -> list[str]:
    """The arguments with the new names of flags, after a notice for each old one.

    Raises:
      UserError: --patience where it may be meant for --exit=patience.
    """
    new = []
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        target = RENAMED.get(name) if argument.startswith("-") else None
        if target not in table:
            new.append(argument)
            continue
        if name == "patience" and "--exit=patience" in arguments:
            raise UserError(
                f"--patience{equals}{value} is the old name of --wait, the seconds that processes "
                f"wait for each other: for {value or 'so many'} equal answers in a row give "
                f"--threshold={value or '3'}"
            )
        print(
            f"notice: --{name} is now --{target}, and goes with the next release", file=sys.stderr
        )
        new.append(f"--{target}{equals}{value}")
    return new


def choice_of(values: Any) -> Choice | None:
    """How the exit's value is chosen, by the flags of `EVALUATE`; None where nothing is said.

    Raises:
      UserError: two ways at once, or a flag that only goes with another one.
    """
    given = {
        setting: values[setting].value
        for setting in (Given.setting, Target.setting, Risk.setting, Tolerance.setting)
        if values[setting].value is not None
    }
    if len(given) > 1:
        named = " and ".join(f"`{setting}`={value}" for setting, value in given.items())
        raise UserError(f"{named} choose one threshold in different ways: give one of them")
    of_risk = {
        name: values[name].value for name in ("delta", "loss") if values[name].value is not None
    }
    if Risk.setting in given:
        return Risk(given[Risk.setting], **of_risk)
    if of_risk:
        name, value = next(iter(of_risk.items()))
        raise UserError(f"`{name}`={value} goes with `risk`: give that too, or leave it out")
    kinds = {kind.setting: kind for kind in (Given, Target, Tolerance)}
    return next((kinds[setting](value) for setting, value in given.items()), None)
