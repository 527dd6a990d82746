"""A loaded run as programs that need jax alone to run: StableHLO, by `jax.export`.

    from pathlib import Path
    import jax.export
    program = jax.export.deserialize(bytearray(Path("slots.stablehlo").read_bytes()))
    logits, timesteps = program.call(images, np.int32(len(images)), np.float32(0.9))

Parameters and normalisation are in the file; images are uint8, as they are stored, or uint16, event
counts of a run whose data need it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp

from seenn_jax import engine, exits
from seenn_jax.errors import UserError, needed
from seenn_jax.models import fused
from seenn_jax.paths import check_new, put
from seenn_jax.run.inference import Predictor

PLATFORMS = ("cpu", "cuda", "tpu")


def write_tick(
    path: str | Path, run: Predictor, slots: int = 1, *, platforms: Sequence[str] = PLATFORMS
) -> None:
    """Write one tick: `(images, fresh, *membranes) -> (logits, *membranes)`.

    Images are uint8 [slots, H, W, C], `fresh` booleans [slots]: where one is set, the membranes are
    those at rest, whatever is given. Shapes of membranes are those of `program.in_avals[2:]`.
    Logits [slots, K] are of this tick alone, to be summed.

    Args:
      path: of a new file.
      run: of `seenn_jax.load`.
      slots: samples at a time.
      platforms: that it can run on.

    Raises:
      UserError: the file exists or can't be written; flatbuffers is not installed; no slots; an
        unknown platform.
    """
    tick, arguments = tick_of(run, slots)
    _write(Path(path), tick, arguments, platforms)


def tick_of(run: Predictor, slots: int) -> tuple[Callable, list[jax.ShapeDtypeStruct]]:
    """(the function of `write_tick`, shapes of its arguments); parameters are constants in it."""
    engine.common.check_at_least_one("slots", slots)
    network, leaves = run.network, jax.tree.leaves(run.network.at_rest)
    structure = jax.tree.structure(network.at_rest)

    def tick(images, fresh, *membranes):
        kept = [
            jnp.where(fresh.reshape(-1, *(1,) * rest.ndim), rest, v)
            for rest, v in zip(leaves, membranes, strict=True)
        ]
        currents = network.encode(network.params, run.transform(images))
        after, logits = network.step(network.params, jax.tree.unflatten(structure, kept), currents)
        return logits, *jax.tree.leaves(after)

    shapes = [((*run.facts.image_shape,), run.facts.dtype), ((), jnp.bool_)]
    shapes += [(leaf.shape, leaf.dtype) for leaf in leaves]
    return tick, [jax.ShapeDtypeStruct((slots, *shape), dtype) for shape, dtype in shapes]


def write_slots(
    path: str | Path,
    run: Predictor,
    images: int,
    exit: str = "confidence",
    *,
    slots: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Write the loop of early exit: `(images, count, value) -> (logits, timesteps)`.

    Images are uint8 [N, H, W, C] (event data [N, T, H, W, C]), of which the first `count`, an
    int32, are looked at; `value`, a float32, is that of the exit. Logits [N, K] are cumulative, at
    the exit of each image, and timesteps [N] from 1.

    Args:
      path: of a new file.
      run: of `seenn_jax.load`.
      images: N.
      exit: a key of `EXITS`; not one without a value.
      slots: images under way at a time; None is the run's.
      platforms: that it can run on.

    Raises:
      UserError: the file exists or can't be written; flatbuffers is not installed; no images or
        slots; an unknown exit or platform.
    """
    engine.common.check_at_least_one("images", images)
    slots = run.batch if slots is None else slots
    engine.common.check_at_least_one("slots", slots)
    rule, temperatures = exits.make_exit(exit, run), run.temperatures
    scale = None if temperatures is None else exits.logit_scale(run.timesteps, temperatures)

    def loop(images, count, value):
        ends = engine.run_network(
            "slots",
            run.network,
            run.network.params,
            images,
            rule.criterion(value, rule.params, images),
            run.timesteps,
            slots,
            transform=run.transform,
            encoding=run.encoding,
            count=count,
            scale=scale,
        )
        return ends.logits, ends.timesteps

    arguments = [
        jax.ShapeDtypeStruct((images, *run.facts.stored(run.timesteps)), run.facts.dtype),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.float32),
    ]
    _write(Path(path), loop, arguments, platforms)


def _write(path: Path, function: Callable, arguments: list, platforms: Sequence[str]) -> None:
    check_new("path", path)
    unknown = set(platforms) - {*PLATFORMS, "rocm"}
    if unknown or not platforms:
        raise UserError(
            f"`platforms` are {', '.join(platforms) or 'none'}: give some of "
            f"{', '.join(PLATFORMS)}, rocm"
        )
    needed("writing a program", "flatbuffers")  # by jax
    with fused.apart():
        exported = jax.export.export(jax.jit(function), platforms=tuple(platforms))(*arguments)
    put(path, bytes(exported.serialize()))
