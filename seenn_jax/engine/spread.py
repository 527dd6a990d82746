"""Runs spread over devices, and streams that do not fit on them."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from seenn_jax.devices import data_mesh
from seenn_jax.errors import UserError

CHUNK_BYTES = 2**30  # of samples on the device at a time, twice


def over_devices(
    run: Callable[[Any, Any, Array], Any], devices: Sequence[jax.Device] | None = None
) -> Callable[..., Any]:
    """Spread a run over devices (None: all), each with a queue of its own for its share of samples.

    The devices never wait for each other, and what comes out does not depend on their number.

    Args:
      run: `(parameters, inputs [n, ...], count) -> results [n, ...]`, such as `early_exit` on a
        network of these parameters.

    Returns:
      `(parameters, inputs [N, ...], count=N) -> results [N, ...]`, to be jitted; the results are on
      every device, so that every process has them all.
    """
    mesh = data_mesh(devices)
    data, everywhere = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

    def share(parameters, inputs, counts):
        return run(parameters, inputs, counts[0])

    def spread(parameters, inputs, count=None):
        samples = jax.tree.leaves(inputs)[0].shape[0]
        each = -(-samples // mesh.size)
        missing = each * mesh.size - samples

        def pad(x):
            return (
                jnp.concatenate([x, jnp.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x
            )

        counts = jnp.clip(
            (samples if count is None else count) - each * jnp.arange(mesh.size), 0, each
        )
        sharded = jax.shard_map(
            share, mesh=mesh, in_specs=(everywhere, data, data), out_specs=data, check_vma=False
        )
        exited = sharded(parameters, jax.tree.map(pad, inputs), counts)
        exited = jax.tree.map(lambda x: x[:samples], exited)
        return lax.with_sharding_constraint(exited, jax.sharding.NamedSharding(mesh, everywhere))

    return spread


def chunks(images: Any) -> Iterator[np.ndarray]:
    """The rows of an array, or of what is like one and is read as it is indexed, for `in_chunks`.

    Equally many at a time but for the last, and no more than `CHUNK_BYTES`.
    """
    rows = max(1, CHUNK_BYTES // (math.prod(images.shape[1:]) * images.dtype.itemsize))
    count = -(-len(images) // rows)
    rows = -(-len(images) // count)
    return (images[start : start + rows] for start in range(0, len(images), rows))


def in_chunks(
    run: Callable[[Any, Array], Any], chunks: Iterable[Any], size: int | None = None
) -> Iterator[Any]:
    """Run a stream that does not fit on the device: chunks in, results (on the host) out.

    Two chunks are on the device at a time, so that it never waits for the host.

    Args:
      run: compiled, `(inputs, count) -> results [n, ...]`, such as `Exited`.
      chunks: pytrees of NumPy arrays [n, ...], all with the n of the first or fewer samples, which
        are filled up.
      size: that n, where the first may have fewer samples too.
    """
    pending = None
    for chunk in chunks:
        count = len(jax.tree.leaves(chunk)[0])
        size = size or count
        if count > size:
            raise UserError(
                f"a chunk has {count} samples and the first one {size}: give chunks of one size, "
                "or shorter ones"
            )

        def fill(x, missing=size - count):
            return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x

        started = (run(jax.tree.map(fill, chunk), jnp.int32(count)), count)
        if pending is not None:
            yield _on_host(*pending)
        pending = started
    if pending is not None:
        yield _on_host(*pending)


def _on_host(results: Any, count: int) -> Any:
    return jax.tree.map(lambda x: x[:count], jax.device_get(results))
