"""What train.py and evaluate.py share: flags in, and a user's mistake out as one sentence."""

import difflib
import functools
import logging
import os
import re
import runpy
import sys
from collections.abc import Callable
from operator import getitem
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags
from ml_collections import ConfigDict

from seenn_jax import hosts, provenance
from seenn_jax.errors import UserError, check_choice

MULTIHOST = (
    "Be one of several processes, on one or more hosts, that divide the work and share --workdir; "
    f"{', '.join(hosts.VARIABLES)} say which, where JAX does not find out by itself."
)
PATIENCE = hosts.PATIENCE
PATIENCE_HELP = "With --multihost, seconds that processes wait for each other at the start."


def main(function: Callable[[], None], interrupted: str = "interrupted") -> None:
    """Parse the flags, run `function`, and exit: 0, 2 after a mistake, 130 when interrupted.

    Args:
      function: what the program does; it reads the flags.
      interrupted: what to say after Ctrl-C.
    """
    # By force: some package that is imported has made a handler of its own by now.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("seenn_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of every file it writes
    app.define_help_flags()
    try:
        _check_overrides(sys.argv[1:])
        stray = _parse(sys.argv)
        if stray:
            raise UserError(f"unexpected argument {stray[0]!r}: flags look like --name=value")
        _enable_compilation_cache()
        function()
    except (UserError, flags.Error) as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; mend that, or choose another path")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        _exit(130)


def join_processes(patience: int) -> None:
    """Join the processes of `--multihost`, and see that all have the same flags and versions.

    Raises:
      UserError: as `hosts.join`; one has other values of the script's flags.
    """
    hosts.join(patience)
    settings = {"revision": provenance.revision(), **provenance.versions()}
    for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
        if isinstance(flag.value, ConfigDict):
            settings |= {
                f"config.{key}": functools.reduce(getitem, key.split("."), flag.value)
                for key in _leaves(flag.value)
            }
        else:
            settings[f"--{flag.name}"] = flag.value
    hosts.check_same(settings)


def _fail(sentence: str) -> NoReturn:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    _exit(2)


def _exit(status: int) -> NoReturn:
    if jax.distributed.is_initialized():
        # Python's way out would wait for the other processes, which may wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _parse(arguments: list[str]) -> list[str]:
    """Parse the flags and return what is no flag; absl's errors as a UserError."""
    try:
        return flags.FLAGS(arguments)[1:]
    except flags.UnrecognizedFlagError as error:
        known = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(arguments[0])]
        check_choice("flag", error.flagname, known)
        raise
    except flags.IllegalFlagValueError as error:
        what = re.match(r"flag --(?P<name>[^=]+)=(?P<value>.*?): ", str(error), re.DOTALL)
        if what is None:
            raise
        name, value = what["name"], what["value"]
        allowed = flags.FLAGS[name].parser.syntactic_help or "true or false"
        raise UserError(f"--{name} is {value!r}: it must be {allowed}; set it to one") from error


def _enable_compilation_cache() -> None:
    """Keep compiled programs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    if not jax.config.jax_compilation_cache_dir:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "seenn_jax" / "xla"))


def _check_overrides(arguments: list[str]) -> None:
    """Raise a UserError for a config file or a `--config.key` that does not exist.

    ml_collections parses the values; its answer to an unknown key is a traceback.
    """
    path, keys = None, []
    following = iter(arguments)
    for argument in following:
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            continue
        if name == "config":
            path = value if equals else next(following, "")
        elif name.startswith("config."):
            keys.append(name.removeprefix("config."))
    if path is None:
        if keys and "config" in flags.FLAGS:
            raise UserError(
                f"--config.{keys[0]} changes a config and --config is missing: give one too, for "
                "example --config=configs/digits.py"
            )
        return
    config = load_config(path)
    for key in keys:
        node = config
        for part in key.split("."):
            if not isinstance(node, ConfigDict) or part not in node:
                known = _leaves(config)
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean config.{near[0]}?" if near else f"see {path}"
                raise UserError(
                    f"unknown config key {key!r}: the known ones are {', '.join(known)}; {hint}"
                )
            node = node[part]
        if isinstance(node, ConfigDict):
            raise UserError(
                f"config.{key} is a group of settings: set one of them, "
                f"{', '.join(_leaves(node, f'config.{key}.'))}"
            )


def load_config(path: str) -> ConfigDict:
    """What a config file gives; a UserError where it is not there or fails."""
    if not Path(path).is_file():
        there = sorted(str(p) for p in Path("configs").glob("*.py"))
        raise UserError(
            f"there is no config file {path!r}: give one of {', '.join(there) or 'your own'}"
        )
    try:
        return runpy.run_path(path)["get_config"]()
    except Exception as error:
        # ml_collections prints the whole config into its answer to an unknown key.
        text = re.sub(r"Other fields present:.*?(?=Did you mean|$)", "", str(error), flags=re.S)
        raise UserError(
            f"the config file {path} fails with {type(error).__name__}: {text}; "
            "mend it, as in configs/digits.py and seenn_jax/config.py"
        ) from error


def _leaves(config: ConfigDict, prefix: str = "") -> list[str]:
    leaves = []
    for key, value in config.items():
        name = prefix + key
        leaves += _leaves(value, f"{name}.") if isinstance(value, ConfigDict) else [name]
    return leaves
