"""Settings given as --config.key=value, and the config file that they change."""

import difflib
import re
import runpy

from absl import flags
from ml_collections import ConfigDict

from seenn_jax.cli.configs import config_path, let_configs_inherit
from seenn_jax.errors import UserError

# What settings are often called elsewhere.
USUAL = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "batch": "batch_size",
    "T": "timesteps",
    "time_steps": "timesteps",
    "dataset": "data.name",
    "data": "data.name",
    "data_dir": "data.dir",
    "model": "model.name",
    "precision": "model.dtype",
    "optim": "optimizer.name",
    "optimizer": "optimizer.name",
}


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
                hint = setting_meant(key, known)
                hint = f"did you mean config.{hint}? The" if hint else "the"
                raise UserError(
                    f"unknown config key {key!r}: {hint} known ones are {', '.join(known)}"
                )
            node = node[part]
        if isinstance(node, ConfigDict):
            raise UserError(
                f"config.{key} is a group of settings: set one of them, "
                f"{', '.join(leaves(node, f'config.{key}.'))}"
            )


def load_config(path: str) -> ConfigDict:
    """What a config file gives; a UserError where it is not there or fails."""
    path = str(config_path(path))
    let_configs_inherit()
    try:
        return runpy.run_path(path)["get_config"]()
    except Exception as error:
        # ml_collections prints the whole config into its answer to an unknown key.
        text = re.sub(r"Other fields present:.*?(?=Did you mean|$)", "", str(error), flags=re.S)
        raise UserError(
            f"the config file {path} fails with {type(error).__name__}: {text}; "
            "mend it, as in configs/digits.py and seenn_jax/config.py"
        ) from error


def setting_meant(name: str, known: list[str]) -> str | None:
    """The setting that a name may be meant for: one that ends so, is often called so, or near."""
    name = name.replace("-", "_")
    name = USUAL.get(name, name)
    same = [key for key in known if key == name or key.endswith(f".{name}")]
    return next(iter([*same, *difflib.get_close_matches(name, known, n=1)]), None)


def with_config_path(arguments: list[str]) -> list[str]:
    """The arguments, `--config` with the path of the file that it names."""
    new, is_next = [], False
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        is_flag = argument.startswith("-") and name == "config"
        if is_flag and equals:
            argument = f"--config={config_path(value)}"
        elif is_next:
            argument = str(config_path(argument))
        is_next = is_flag and not equals
        new.append(argument)
    if is_next:
        raise UserError("--config is empty: give a name or a file, such as --config=digits")
    return new


def leaves(config: ConfigDict, prefix: str = "") -> list[str]:
    """The names of all settings, those in groups as "group.name"."""
    names = []
    for key, value in config.items():
        name = prefix + key
        names += leaves(value, f"{name}.") if isinstance(value, ConfigDict) else [name]
    return names
