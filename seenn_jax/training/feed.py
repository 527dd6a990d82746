"""Many steps in one call: batches from data on the devices, or from the host."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped, UInt8
from ml_collections import ConfigDict
from rich.console import Console

from seenn_jax import devices
from seenn_jax.data import Batches, Stream
from seenn_jax.errors import UserError
from seenn_jax.training.step import Given


def train_steps(
    state: Any,
    given: Given,
    images: UInt8[Array, "N *T H W C"],
    *targets: Shaped[Array, "N ..."],
    steps: int,
    batch_size: int,
    step_function: Callable[..., tuple[Any, dict]],
    batch_sharding: jax.sharding.Sharding | None = None,
) -> tuple[Any, dict[str, Float[Array, ""]]]:
    """`steps` steps in one scan over data on the device; they must lie within one epoch.

    Every epoch is a permutation of its own of the N samples; what does not fill a batch is left
    out of that epoch.

    Args:
      state: has a `step`.
      targets: what `step_function(state, given, images, *targets)` is shown of each sample of a
        batch besides its image, such as its label.
      batch_sharding: how a batch is divided among devices, all of which have the data; None for
        one device.

    Returns:
      (next state, mean of each metric)
    """
    steps_per_epoch = len(images) // batch_size
    epoch, position = state.step // steps_per_epoch, state.step % steps_per_epoch
    # Split off once more, so that no order shares its key with an augmentation.
    key = jax.random.fold_in(jax.random.split(given.key)[0], epoch)
    order = jax.random.permutation(key, len(images))
    chosen = jax.lax.dynamic_slice_in_dim(order, position * batch_size, steps * batch_size)

    def body(state, batch):
        chosen = [x[batch] for x in (images, *targets)]
        if batch_sharding is not None:
            chosen = jax.lax.with_sharding_constraint(chosen, batch_sharding)
        return step_function(state, given, *chosen)

    state, metrics = jax.lax.scan(body, state, chosen.reshape(steps, batch_size))
    return state, jax.tree.map(jnp.mean, metrics)


def jitted_steps(
    step_function: Callable[..., tuple[Any, dict]],
    *,
    steps: int,
    batch_size: int,
    among: Sequence[jax.Device] | None = None,
    options: Mapping[str, bool] = MappingProxyType({}),
) -> jax.stages.Wrapped:
    """`train_steps`, jitted: `(state, given, images, *targets) -> (state, metrics)`.

    The state is donated.

    Args:
      among: devices that divide each batch and all have the data; by default all there are.
      options: of the compiler, as `devices.compiler_options`.
    """
    call = functools.partial(
        train_steps,
        steps=steps,
        batch_size=batch_size,
        step_function=step_function,
        batch_sharding=devices.divided(among),
    )
    everywhere = devices.everywhere(among)
    return jax.jit(
        call,
        donate_argnums=0,
        in_shardings=everywhere,
        out_shardings=everywhere,
        compiler_options=dict(options),
    )


# Steps in one call at most. XLA's CPU backend runs a convolution inside a loop on fewer threads.
STEPS_PER_CALL = {"cpu": 1}
DEFAULT_STEPS_PER_CALL = 50


def steps_per_call(steps_per_epoch: int, most: int) -> int:
    """The largest divisor of an epoch that is at most `most`: one compiled call serves all."""
    return max(n for n in range(1, most + 1) if steps_per_epoch % n == 0)


def compiled_steps(
    state: Any, given: Given, data: Any, config: ConfigDict, console: Console
) -> Callable[[Callable, str], Callable[[Any], tuple[Any, dict, int]]]:
    """`(step function of a batch of data, its name) -> call`, with `call(state)` as in `Task`.

    All devices have the data, a few hundred megabytes at most, and divide each batch among them.
    """
    data, step = devices.replicate((given, *data)), int(state.step)
    state = jax.eval_shape(lambda state: state, state)  # its buffers will be donated
    most = STEPS_PER_CALL.get(jax.default_backend(), DEFAULT_STEPS_PER_CALL)
    # A run that resumes within an epoch must come to its end.
    steps_per_epoch = len(data[1]) // config.batch_size
    steps = steps_per_call(math.gcd(steps_per_epoch, step), most)
    options = devices.compiler_options(config.deterministic)

    def compiled(step_function, name):
        jitted = jitted_steps(
            step_function, steps=steps, batch_size=config.batch_size, options=options
        )
        program = _compile(jitted, state, data, name, console)
        return lambda state: (*program(state, *data), steps)

    return compiled


def _compile(
    jitted: jax.stages.Wrapped, state: Any, data: tuple[Any, ...], name: str, console: Console
) -> Callable[..., tuple[Any, dict]]:
    """`(state, *data) -> (state, metrics)`."""
    console.print(
        f"Compiling the training step for {name}; this takes up to two "
        "minutes the first time and seconds from the cache afterwards."
    )
    started = time.perf_counter()
    try:
        program = jitted.lower(state, *data).compile()
    except jax.errors.JaxRuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise UserError(
            f"`config.deterministic` is True, which the compiler can't do for {name} "
            f"({str(error).splitlines()[0]}): set `config.deterministic` to False"
        ) from None
    console.print(f"Compiled in {time.perf_counter() - started:.0f} s.")
    return program


def host_batches(state: Any, stream: Stream, config: ConfigDict) -> Batches:
    """The batches from a state to the end, from the host, so that a resumed run sees the same."""
    return Batches(
        stream,
        config.batch_size,
        seed=config.seed,
        start=int(state.step),
        stop=stream.size // config.batch_size * config.epochs,
        workers=config.data.workers,
        process=(jax.process_index(), jax.process_count()),
    )


def streamed_steps(
    state: Any, given: Given, batches: Batches, config: ConfigDict, console: Console
) -> Callable[[Callable, str], Callable[[Any], tuple[Any, dict, int]]]:
    """As `compiled_steps`, with a step a call and its batch from the host.

    The next batch goes to the devices while a step runs.
    """
    state, given = jax.eval_shape(lambda state: state, state), devices.replicate(given)
    ahead = []

    def fetch():
        return devices.divide(next(batches))

    def compiled(step_function, name):
        if not ahead:
            ahead.append(fetch())
        copied = devices.everywhere()
        shardings = (copied, copied, *(x.sharding for x in ahead[0]))
        jitted = jax.jit(
            step_function,
            donate_argnums=0,
            in_shardings=shardings,
            out_shardings=copied,
            compiler_options=devices.compiler_options(config.deterministic),
        )
        program = _compile(jitted, state, (given, *ahead[0]), name, console)

        def call(state):
            state, metrics = program(state, given, *ahead.pop())
            with contextlib.suppress(StopIteration):  # after the last step
                ahead.append(fetch())
            return state, metrics, 1

        return call

    return compiled
