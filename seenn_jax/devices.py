"""All devices as one mesh with an axis "data": batches are divided among them, the rest is on each.

The devices of other processes too, where `jax.distributed` has joined several. The compiler puts
in the communication (SPMD), so that every computation is written for the whole batch, and its
result does not depend on how many devices there are, but for the order of sums in float32.
"""

import functools
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seenn_jax.errors import UserError

# On a CPU XLA chooses the convolutions of YNNPACK, which leave all cores but one idle.
WITHOUT_YNNPACK = MappingProxyType({"xla_cpu_experimental_ynn_fusion_type": ""})


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices along one axis, "data": those of all processes by default."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def everywhere(devices: Sequence[jax.Device] | None = None) -> NamedSharding:
    """The sharding of what every device has a copy of, such as parameters."""
    return NamedSharding(data_mesh(devices), PartitionSpec())


def divided(devices: Sequence[jax.Device] | None = None) -> NamedSharding:
    """The sharding of a batch: its first axis is divided among the devices."""
    return NamedSharding(data_mesh(devices), PartitionSpec("data"))


def replicate(tree: Any) -> Any:
    """Arrays, the same in every process, put on every device; those that are stay as they are."""
    sharding, several = everywhere(), jax.process_count() > 1

    def put(x):
        if several and isinstance(x, jax.Array) and x.is_fully_addressable:
            x = np.asarray(x)  # from device to device JAX would go through the network
        return jax.device_put(x, sharding)

    return jax.tree.map(put, tree)


def divide(tree: Any) -> Any:
    """A batch, of which every process has its part, divided among the devices."""
    sharding = divided()
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def compiler_options(deterministic: bool) -> dict[str, bool]:
    """XLA's options for a program of training; `config.deterministic` matters on a GPU alone."""
    if deterministic and jax.default_backend() == "gpu":
        return {"xla_gpu_deterministic_ops": True}
    return {}


def for_inference(function: Callable, **options: Any) -> jax.stages.Wrapped:
    """`jax.jit`, with XLA's options for a program that infers alone.

    Training goes without them: its last bits would be others, and it is no faster with them.
    """
    return jax.jit(function, compiler_options=_inference_options(), **options)


@functools.cache
def _inference_options() -> dict[str, str]:
    if jax.default_backend() != "cpu":
        return {}
    options = dict(WITHOUT_YNNPACK)
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # an XLA without this choice
        return {}
    return options


def check_batch(batch_size: int, parts: int) -> None:
    """Raise a UserError where a batch can't be divided among the devices, `parts` times each."""
    devices = jax.device_count()
    whole = devices * parts
    if batch_size % whole == 0:
        return
    below = batch_size // whole * whole
    nearest = f"{below} or {below + whole}" if below else f"{whole}"
    among = f"{devices} device(s)" + (f" in {parts} parts (config.accumulate)" * (parts > 1))
    raise UserError(
        f"`config.batch_size` is {batch_size}, which {among} can't share equally: the nearest that "
        f"they can is {nearest}; set `config.batch_size`"
    )
