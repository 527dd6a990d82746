"""What train.py and evaluate.py share: flags in, and a user's mistake out as one sentence."""

import difflib
import logging
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import ConfigDict

from seenn_jax.errors import UserError


def main(function: Callable[[], None]) -> None:
    """Parse the flags, run `function`, and exit: 0, 2 after a mistake, 130 when interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("seenn_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of every file it writes
    app.define_help_flags()
    try:
        _check_overrides(sys.argv[1:])
        stray = flags.FLAGS(sys.argv)[1:]
        if stray:
            raise UserError(f"unexpected argument {stray[0]!r}: flags look like --name=value")
        _enable_compilation_cache()
        function()
    except (UserError, flags.Error) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command continues from the latest checkpoint", file=sys.stderr)
        sys.exit(130)


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
    for argument in arguments:
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config":
            path = value
        elif name.startswith("config."):
            keys.append(name.removeprefix("config."))
    if path is None:
        return
    config = _load_config(path)
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


def _load_config(path: str) -> ConfigDict:
    if not Path(path).is_file():
        there = sorted(str(p) for p in Path("configs").glob("*.py"))
        raise UserError(
            f"there is no config file {path!r}: give one of {', '.join(there) or 'your own'}"
        )
    try:
        return runpy.run_path(path)["get_config"]()
    except (AttributeError, KeyError) as error:
        raise UserError(f"the config file {path} sets or lacks a key: {error}") from error


def _leaves(config: ConfigDict, prefix: str = "") -> list[str]:
    leaves = []
    for key, value in config.items():
        name = prefix + key
        leaves += _leaves(value, f"{name}.") if isinstance(value, ConfigDict) else [name]
    return leaves
