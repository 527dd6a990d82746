"""Of what kind each setting is, wherever a config comes from: a file, a flag, run.json, weights."""

import functools
import numbers
from operator import getitem
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from seenn_jax.config import default_config

MOST = 2**31 - 1  # of a whole number, as the devices have it ...
LARGEST = float(np.finfo(np.float32).max)  # ... and of any other
KINDS = {  # by that of the default
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: (f"a whole number of at most {MOST:,}", lambda value: is_whole(value)),
    float: ("a number that float32 can hold", lambda value: is_number(value)),
    str: ("a text", lambda value: isinstance(value, str)),
    tuple: ("several values in brackets", lambda value: isinstance(value, tuple | list)),
}
OTHER_KINDS = {
    "seed": ("from 0 to 2^32 - 1", lambda value: is_whole(value, 2**32 - 1) and value >= 0),
    "data.validation": (
        "a number of images, at least 1, or a fraction of them, above 0 and below 1",
        lambda value: (
            is_number(value) and (0 < value < 1 or (1 <= value <= MOST and value == int(value)))
        ),
    ),
}
# Of these settings in brackets, the values.
ELEMENTS = {
    "plugins": ("names of modules or files", lambda value: isinstance(value, str)),
    "training_levels": (
        f"whole numbers from 1 to {MOST:,}, such as (1, 2, 4, 8), or none (then it is "
        "`config.quantization_levels`)",
        lambda value: is_whole(value) and value >= 1,
    ),
    "policy.candidates": ("whole numbers, such as (1, 2, 4)", lambda value: is_whole(value)),
    "data.crop_area": ("a smallest and a largest number", lambda value: is_number(value)),
    "data.crop_ratio": ("a smallest and a largest number", lambda value: is_number(value)),
}


def misfit(config: ConfigDict) -> tuple[str, str] | None:
    """(setting, what is wrong with it) of the first of another kind than its default, or None."""
    for key, default in flat(default_config().to_dict()).items():
        value = value_of(config, key)
        allowed, good = OTHER_KINDS.get(key) or KINDS[type(default)]
        if not good(value):
            return key, f"`config.{key}` is {value}: it must be {allowed}"
        allowed, good = ELEMENTS.get(key, ("", None))
        for element in value if good else ():
            if not good(element):
                return key, f"`config.{key}` has {element!r}: it must have {allowed}"
    return None


def is_number(value: Any, most: int | float = LARGEST) -> bool:
    """Whether a value is a number of at most this size, and no NaN."""
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and abs(value) <= most


def is_whole(value: Any, most: int = MOST) -> bool:
    """Whether a value is a whole number of at most this size."""
    return isinstance(value, numbers.Integral) and is_number(value, most)


def value_of(config: ConfigDict, key: str) -> Any:
    """A setting by name, one in a group by "group.name"."""
    return functools.reduce(getitem, key.split("."), config)


def flat(tree: dict, prefix: str = "") -> dict:
    """A config as one dict, settings in groups by "group.name"."""
    found = {}
    for key, value in tree.items():
        name = prefix + key
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
