"""The programs and their flags: defined by a function and not on import, which takes no time."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from seenn_jax.errors import UserError


class Flag(NamedTuple):
    """A flag.

    Attributes:
      define: how absl defines it.
      group: under which `--help` has it.
      value: what stands for its value there; "" of one that is on or off.
      help: what it says of it, in a line.
      default: its value where nothing is said.
    """

    define: Callable
    group: str
    value: str
    help: str
    default: Any = None


def _switch(group: str, help: str) -> Flag:
    """A flag that is on or off."""
    return Flag(flags.DEFINE_bool, group, "", help, False)


_NETWORK, _EXIT, _WHAT, _FILES, _HOSTS = (
    "The network",
    "When a sample exits",
    "What is evaluated",
    "Files",
    "Several processes",
)
OF_HOSTS = {
    "multihost": _switch(_HOSTS, "be one of several, which share --workdir (docs/devices.md)"),
    "wait": Flag(flags.DEFINE_integer, _HOSTS, "SECONDS", "for each other at the start; else 300"),
}
TRAIN = {
    "workdir": Flag(flags.DEFINE_string, "The run", "DIR", "its folder; else runs/NAME_OF_CONFIG"),
    **OF_HOSTS,
}
_OF_BOTH = {
    "workdir": Flag(
        flags.DEFINE_string, _NETWORK, "DIR", "folder of the run; else the newest in runs/"
    ),
    "weights": Flag(
        flags.DEFINE_string, _NETWORK, "NAME|FILE", "weights instead of a run: a name, or a file"
    ),
    "checkpoint": Flag(
        flags.DEFINE_integer, _NETWORK, "STEP", "of the run; else the best on validation"
    ),
    "precision": Flag(
        flags.DEFINE_string, _NETWORK, "NAME", "bfloat16, float32 or int8; else the run's"
    ),
    "timesteps": Flag(flags.DEFINE_integer, _NETWORK, "T", "at least 1; else the run's"),
    "exit": Flag(
        flags.DEFINE_string,
        _EXIT,
        "NAME",
        "confidence (default), entropy, margin, patience, policy or full",
    ),
    "threshold": Flag(
        flags.DEFINE_float,
        _EXIT,
        "X",
        "above this score, 0 to 1; a patience in timesteps; a policy's price",
    ),
    "tolerance": Flag(
        flags.DEFINE_float, _EXIT, "X", "largest loss of validation accuracy; else 0.001"
    ),
    "target_timesteps": Flag(
        flags.DEFINE_float, _EXIT, "X", "at most this average of timesteps on validation"
    ),
    "risk": Flag(flags.DEFINE_float, _EXIT, "X", "with a guarantee: the risk is at most this ..."),
    "delta": Flag(flags.DEFINE_float, _EXIT, "X", "... but for this probability; else 0.1"),
    "loss": Flag(
        flags.DEFINE_string, _EXIT, "NAME", "what the risk is of: disagreement (default), accuracy"
    ),
}
EVALUATE = {
    **_OF_BOTH,
    "temperature": _switch(_EXIT, "fit a temperature for each timestep on validation"),
    "ann": _switch(_NETWORK, "the ordinary network of a run, before it is converted"),
    "percentile": Flag(
        flags.DEFINE_float,
        _NETWORK,
        "P",
        "of activations, where thresholds of ReLUs are put; else 99.9",
    ),
    "split": Flag(
        flags.DEFINE_string, _WHAT, "NAME", "test (default), validation or train", "test"
    ),
    "data_dir": Flag(
        flags.DEFINE_string, _WHAT, "DIR", "where the data are now; else as in training"
    ),
    "data_name": Flag(flags.DEFINE_string, _WHAT, "NAME", "other data, or a folder of images"),
    "method": Flag(
        flags.DEFINE_string,
        _WHAT,
        "NAME",
        "how exits are run: slots (default), masked or full",
        "slots",
    ),
    "slots": Flag(flags.DEFINE_integer, _WHAT, "N", "images under way at a time; else 256"),
    "energy": _switch(_WHAT, "count operations, firing rates and picojoules too"),
    "conversion_report": _switch(_WHAT, "compare converted networks with their sources, by layer"),
    "json": Flag(flags.DEFINE_string, _FILES, "FILE", "write the result there too"),
    "export_weights": Flag(
        flags.DEFINE_string, _FILES, "FILE", "write weights (.safetensors) and their card (.md)"
    ),
    "weights_dtype": Flag(
        flags.DEFINE_string, _FILES, "NAME", "of their kernels: float32 (default), bfloat16, int8"
    ),
    "nir": Flag(
        flags.DEFINE_string, _FILES, "FILE", "write the network in NIR (docs/energy-nir.md)"
    ),
    "nir_lossy": _switch(_FILES, "of a converted network too, with what NIR can't tell beside it"),
    **OF_HOSTS,
}
PREDICT = {
    **_OF_BOTH,
    "exit": _OF_BOTH["exit"]._replace(
        help="confidence, entropy, margin, patience, policy, full; else as evaluated"
    ),
    "data_dir": Flag(
        flags.DEFINE_string,
        _EXIT,
        "DIR",
        "where the data to choose on are now; else as in training",
    ),
    "data_name": Flag(flags.DEFINE_string, _EXIT, "NAME", "other data to choose on"),
    "slots": Flag(flags.DEFINE_integer, _FILES, "N", "images under way at a time; else 256"),
    "json": Flag(
        flags.DEFINE_string, _FILES, "FILE", "write a line of JSON for each image; - for stdout"
    ),
}
IMPORT = {
    "workdir": Flag(flags.DEFINE_string, "The run", "DIR", "a new folder; else runs/NAME_OF_FILE"),
    "data": Flag(
        flags.DEFINE_string, "The run", "NAME", "cifar10, cifar100, cifar10_dvs or imagenet2012"
    ),
    "timesteps": Flag(flags.DEFINE_integer, "The run", "T", "else 4; 8 to convert, 10 of events"),
    "levels": Flag(flags.DEFINE_integer, "The run", "L", "of QCFS activations; else 8"),
}
EXPORT = {
    **{name: _OF_BOTH[name] for name in ("workdir", "weights", "checkpoint", "precision")},
    "safetensors": Flag(
        flags.DEFINE_string, _FILES, "FILE", "its parameters in the names of PyTorch code"
    ),
    "onnx": Flag(flags.DEFINE_string, _FILES, "FILE", "one tick as a graph, membranes in and out"),
    "stablehlo": Flag(flags.DEFINE_string, _FILES, "FILE", "the same as a program for jax alone"),
    "slots": Flag(flags.DEFINE_integer, _FILES, "N", "images in a tick; else 1"),
}
_SERVING = "The server"
SERVE = {
    **{name: flag for name, flag in PREDICT.items() if name not in ("slots", "json")},
    "host": Flag(
        flags.DEFINE_string, _SERVING, "NAME", "where it listens; else 127.0.0.1", "127.0.0.1"
    ),
    "port": Flag(flags.DEFINE_integer, _SERVING, "N", "and on which port; else 8000", 8000),
    "slots": Flag(flags.DEFINE_integer, _SERVING, "N", "images under way at a time; else 64", 64),
    "ticks_per_call": Flag(
        flags.DEFINE_integer, _SERVING, "N", "before the host looks again; else 1", 1
    ),
    "queue": Flag(flags.DEFINE_integer, _SERVING, "N", "images that may wait; else 1024", 1024),
    "body": Flag(flags.DEFINE_integer, _SERVING, "MIB", "largest body of a request; else 16", 16),
    "resize": Flag(
        flags.DEFINE_bool,
        _SERVING,
        "",
        "bring images of other sizes to the network's (default); --noresize refuses them",
        True,
    ),
}


class Program(NamedTuple):
    """A program, as `--help` has it; {} in examples is how it is called."""

    about: str
    examples: dict[str, str]
    flags: dict[str, Flag]
    arguments: str = ""


PROGRAMS = {
    "train": Program(
        "Train the network of a config, or continue where its run stopped.",
        {
            "{} --config=digits": "in runs/digits",
            "{} --config=digits --config.epochs=5 --config.optimizer.learning_rate=0.05": "",
            "{} --config=my_config.py --workdir=runs/mine": "a config file of yours",
            "{} --config=digits --config.init_weights=digits-resnet8": "fine-tune",
        },
        TRAIN,
    ),
    "evaluate": Program(
        "Evaluate a network with early exit, by a threshold chosen on held-out images.",
        {
            "{}": "the newest run",
            "{} --workdir=runs/digits --exit=entropy": "",
            "{} --target_timesteps=1.15": "for an average",
            "{} --risk=0.05 --delta=0.1": "with a guarantee",
            "{} --weights=digits-resnet8": "trained weights",
        },
        EVALUATE,
    ),
    "predict": Program(
        "Classify image files, by the exit that evaluate chose last.",
        {
            "{} --workdir=runs/digits a.png b.png": "",
            "{} --weights=digits-resnet8 FOLDER --json=found.jsonl": "",
            "{} --workdir=runs/digits --exit=margin --threshold=0.8 a.png": "",
        },
        PREDICT,
        "FILE_OR_FOLDER ...",
    ),
    "import": Program(
        "Make a run of a checkpoint of SEENN's, QCFS's or TET's code (docs/interop.md).",
        {
            "{} c10_res19 --workdir=runs/res19": "",
            "{} resnet18.pth --workdir=runs/resnet18 --levels=4": "of QCFS activations",
            "{} vggsnn.safetensors --data=cifar10_dvs": "in runs/vggsnn",
        },
        IMPORT,
        "FILE",
    ),
    "export": Program(
        "Write a network for other software: PyTorch, ONNX, StableHLO (docs/interop.md).",
        {
            "{} --workdir=runs/digits --onnx=digits.onnx": "",
            "{} --weights=digits-resnet8 --onnx=tick.onnx --slots=16": "16 at a time",
            "{} --workdir=runs/res19 --safetensors=res19.safetensors": "",
        },
        EXPORT,
    ),
    "serve": Program(
        "Answer images over HTTP, by the exit that evaluate chose last.",
        {
            "{} --weights=digits-resnet8": "http://127.0.0.1:8000",
            "{} --workdir=runs/digits --slots=32 --port=8080": "",
        },
        SERVE,
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


def choice_of(values: Any) -> Any:
    """How the exit's value is chosen, by the flags of `EVALUATE`; None where nothing is said.

    Returns: a `seenn_jax.exits.Choice`.

    Raises:
      UserError: two ways at once, or a flag that only goes with another one.
    """
    from seenn_jax.exits import Given, Risk, Target, Tolerance  # Slow to import.

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
