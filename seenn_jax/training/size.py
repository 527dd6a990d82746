"""What can't fit into memory, said before any of it is allocated."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import jax
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax.errors import UserError
from seenn_jax.models import training_timesteps
from seenn_jax.run import build
from seenn_jax.run.folder import DataFacts

_WIDE = 1024  # channels, below which a network fits anywhere, and is not traced for a second
_SIZE = {"bfloat16": 2, "float32": 4, "float64": 8}  # bytes
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def check_size(config: ConfigDict, facts: DataFacts) -> None:
    """Raise a UserError where the network of a config, or a batch in it, can't fit."""
    width = config.model.width
    check_parameters(lambda: build.network(config, facts), "config.model.width", width)
    _check_batch(config, facts)


def check_parameters(make: Callable[[], nnx.Module], setting: str, width: int) -> None:
    """Raise a UserError where a network, its gradient and its momentum take more than there is.

    Args:
      make: the network; it is only traced.
      setting, width: what it is as wide as.
    """
    if width <= _WIDE:
        return
    try:
        parameters = nnx.state(nnx.eval_shape(make), nnx.Param)
    except (OverflowError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"`{setting}` is {width}, which is too large for any array: lower it"
        ) from error
    needed = 3 * sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(parameters))
    if needed > memory():
        raise UserError(
            f"`{setting}` is {width}, and parameters, gradients and momentum of such a network "
            f"take {_gib(needed)}, where a device has {_gib(memory())}: lower it"
        )


def _check_batch(config: ConfigDict, facts: DataFacts) -> None:
    """Raise a UserError where the first layer alone, for a device's part of a batch, can't fit.

    That layer has a quarter of the rows and columns of an image at least, where it has a stride of
    2 and is pooled.
    """
    height, width, channels = facts.image_shape
    images = config.batch_size / config.accumulate / jax.device_count()
    timesteps = training_timesteps(config)
    at_once = 1 if config.gradient == "last" else timesteps
    values = (height / 4) * (width / 4) * config.model.width * at_once + height * width * channels
    needed = images * values * _SIZE[config.model.dtype]
    if needed > memory():
        raise UserError(
            f"`config.batch_size` is {config.batch_size}, and for images of {height} x {width}, "
            f"`config.timesteps`={timesteps} and `config.model.width`={config.model.width} the "
            f"first layer alone takes {_gib(needed)}, where a device has {_gib(memory())}: lower "
            "one of them, or raise `config.accumulate`"
        )


def memory() -> int:
    """Bytes that a device may use; of a CPU what this machine, or this container, has."""
    found = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in found:
        return found["bytes_limit"]
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CGROUP.read_text().strip() if _CGROUP.is_file() else ""
    return min(there, int(limit)) if limit.isdigit() else there


def _gib(count: int | float) -> str:
    return f"{count / 2**30:,.1f} GiB"
