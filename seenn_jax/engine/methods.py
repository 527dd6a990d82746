"""The ways to run a network of this package, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Shaped

from seenn_jax.data.events.i2e import I2E
from seenn_jax.engine.batches import run_full, run_masked
from seenn_jax.engine.common import Exited
from seenn_jax.engine.slots import early_exit
from seenn_jax.exits.criteria import Criterion
from seenn_jax.models.network import Network
from seenn_jax.tables import Table, called_with, check_given
from seenn_jax.ticks import input_at


def run_network(
    method: str,
    network: Network,
    params: Any,
    inputs: Shaped[ArrayLike, "N ..."],
    criterion: Criterion,
    timesteps: int,
    slots: int,
    *,
    transform: Callable[[Array], Array] = lambda x: x,
    encoding: I2E | None = None,
    count: Int[Array, ""] | int | None = None,
    scale: Float[Array, "T"] | None = None,
) -> Exited:
    """Run a network of this package by one of `METHODS`; pure, for use inside jit.

    With slots, the stem is computed again at every tick, from the image: most slots are fresh at
    most ticks, and its currents are the largest tensor that a slot could have to carry. So it is,
    by whatever method, for event data, where tick t of a sample sees its frame t.

    Args:
      network: from `models.inference_network`; its `params` are given apart, so that a jitted
        caller passes them as an argument.
      inputs: still images [N, H, W, C], or event data [N, T, H, W, C], as `transform` takes them.
      transform: images to what the network takes, such as their normalisation.
      encoding: makes the frames, which `transform` takes then, of still images: with slots and
        masked the one of each tick as it is needed.
      criterion, timesteps, slots, count, scale: as for `early_exit`.

    Raises:
      UserError: an unknown method, fewer than one slot or timestep.
    """
    run = METHODS[method]
    frame_at, frames = input_at(inputs, timesteps), lambda images: images
    if encoding is not None:
        frame_at = lambda images, index, t: encoding.frame_at(images[index], t)  # noqa: E731
        frames = lambda images: encoding.frames(images, timesteps)  # noqa: E731
    bound = _Bound(
        encode=lambda images: network.encode(params, transform(images)),
        step=lambda membranes, currents: network.step(params, membranes, currents),
        logits=lambda images: network.logits(params, transform(frames(images))),
        renew=network.renew,
    )
    arguments = (network.at_rest, inputs, criterion, timesteps, slots)
    found = run(bound, arguments, {"count": count, "scale": scale}, frame_at)
    check_given(
        METHODS.words(method),
        found,
        lambda x: isinstance(x, Exited) and (x.logits.ndim, x.timesteps.ndim) == (2, 1),
        "an Exited of logits [N, K] and timesteps [N]",
    )
    return found


class _Bound(NamedTuple):
    """A network with its parameters, of images as they are stored."""

    encode: Callable[[Array], Array]
    step: Callable[[Any, Array], tuple[Any, Array]]
    logits: Callable[[Array], Array]
    renew: Callable[[Any, Any, Array], Any] | None

    def whole_step(self, membranes, images):
        return self.step(membranes, self.encode(images))


def _slots(bound, arguments, options, frame_at):
    if len(jax.tree.leaves(arguments[1])[0]) == 1:  # nobody waits for the slot
        return _masked(bound, arguments, options, frame_at)
    return early_exit(bound.whole_step, *arguments, **options, input_at=frame_at, renew=bound.renew)


def _masked(bound, arguments, options, frame_at):
    if frame_at:
        return run_masked(bound.whole_step, *arguments, **options, input_at=frame_at)
    return run_masked(bound.step, *arguments, **options, prepare=bound.encode)


def _full(bound, arguments, options, frame_at):
    _, inputs, criterion, _, slots = arguments
    return run_full(bound.logits, inputs, criterion, slots, scale=options["scale"])


METHODS = Table(
    "METHODS",
    "method",
    {"slots": _slots, "masked": _masked, "full": _full},
    called_with("bound", "arguments", "options", "frame_at"),
)
