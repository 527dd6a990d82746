"""Settings given as --config.key=value, and the config file that they change."""

import difflib
import re
import runpy
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from seenn_jax.errors import UserError


def check_overrides(arguments: list[str]) -> None:
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
                known = leaves(config)
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean config.{near[0]}?" if near else f"see {path}"
                raise UserError(
                    f"unknown config key {key!r}: the known ones are {', '.join(known)}; {hint}"
                )
            node = node[part]
        if isinstance(node, ConfigDict):
            raise UserError(
                f"config.{key} is a group of settings: set one of them, "
                f"{', '.join(leaves(node, f'config.{key}.'))}"
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


def leaves(config: ConfigDict, prefix: str = "") -> list[str]:
    """The names of all settings, those in groups as "group.name"."""
    names = []
    for key, value in config.items():
        name = prefix + key
        names += leaves(value, f"{name}.") if isinstance(value, ConfigDict) else [name]
    return names
