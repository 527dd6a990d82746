"""The two ways to run any network: all ticks at once, and one tick with carried membranes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from seenn_jax.models.layers import ConvBN
from seenn_jax.models.neurons import Renewed
from seenn_jax.tables import check_given
from seenn_jax.ticks import currents


def run_all(
    model: nnx.Module, inputs: Float[Array, "..."], timesteps: int
) -> Float[Array, "B T K"]:
    """Logits of every tick, all ticks at once.

    Args:
      model: a network of this package.
      inputs: [B, H, W, C], shown at every tick (direct encoding; its stem is computed once), or
        [B, T, H, W, C] with an input of its own for each tick.
      timesteps: T.
    """
    found = model.integrate(currents(model, inputs, timesteps))
    check_given(
        "the method `integrate` of the network",
        found,
        lambda pair: len(pair) == 2 and pair[0].ndim == 3 and pair[0].shape[1] == timesteps,
        f"(logits, membranes), the logits [B, T, K] with T = {timesteps}",
    )
    return found[0]


def rest(model: nnx.Module, currents: Float[Array, "B T H W D"] | jax.ShapeDtypeStruct):
    """Membranes at rest for a batch like `currents`, as `model.integrate` carries them.

    `model` is one for inference: training would update BatchNorm's statistics.
    """
    graph, state = nnx.split(model)
    # What no ticks leave behind is what the neurons start from.
    no_ticks = jnp.zeros((currents.shape[0], 0, *currents.shape[2:]), currents.dtype)
    return jax.jit(lambda state, x: nnx.merge(graph, state).integrate(x)[1])(state, no_ticks)


def renew(old: Any, rest: Any, fresh: Bool[Array, "S"]) -> Any:
    """Membranes for `Network.step`, which puts those of fresh samples at rest as it reads them.

    Args:
      old: after a tick, of each slot.
      rest: of one sample, at rest.
      fresh: which slots have another sample now.
    """
    return jax.tree.map(lambda old, rest: Renewed(old, rest, fresh), old, rest)


class Network(NamedTuple):
    """A trained network as pure functions of its parameters, for the engines.

    Attributes:
      params: a list of arrays: a call has no classes to look through.
      encode: `(params, inputs [S, H, W, C]) -> currents` of the first layer, without state; of
        event data, the inputs of one tick.
      step: `(params, membranes, currents) -> (membranes, logits [S, K])`, one tick; membranes as
        they were returned, or as `renew` has them.
      logits: `(params, inputs [S, H, W, C] or [S, T, H, W, C]) -> logits of all ticks [S, T, K]`,
        all ticks at once.
      at_rest: membranes of one fresh sample.
      renew: as for `engine.early_exit`.
    """

    params: list[Array]
    encode: Callable[[Any, Array], Array]
    step: Callable[[Any, Any, Array], tuple[Any, Array]]
    logits: Callable[[Any, Array], Array]
    at_rest: Any
    renew: Callable[[Any, Any, Array], Any] | None = None


def inference_network(
    model: nnx.Module,
    image_shape: tuple[int, int, int],
    timesteps: int,
    *,
    prepare: Callable[[nnx.Module], None] = lambda model: None,
) -> Network:
    """The network of a trained model; `model` itself is left as it is.

    Args:
      model: a network of this package with its BatchNorm statistics.
      image_shape: (height, width, channels) of the input of one tick.
      timesteps: T of `Network.logits`.
      prepare: as in `precision.Precision`.
    """
    model = for_inference(model, prepare)
    graph, state = nnx.split(model)
    params, structure = jax.tree.flatten(state)

    def merged(params):
        return nnx.merge(graph, structure.unflatten(params))

    def encode(params, inputs):
        return merged(params).encode(inputs[:, None])

    def step(params, membranes, currents):
        logits, membranes = merged(params).integrate(currents, membranes)
        return membranes, logits[:, 0]

    def logits(params, inputs):
        return run_all(merged(params), inputs, timesteps)

    image = jnp.zeros((1, *image_shape))
    currents = jax.eval_shape(encode, params, image)
    at_rest = jax.tree.map(lambda v: v[0], rest(merged(params), currents))
    later = renew if getattr(model, "renews", False) else None
    return Network(params, encode, step, logits, at_rest, later)


def for_inference(
    model: nnx.Module, prepare: Callable[[nnx.Module], None] = lambda model: None
) -> nnx.Module:
    """A copy of a trained model, for inference: the same arithmetic as in training's evaluation.

    Args:
      model: a network of this package with its BatchNorm statistics.
      prepare: as in `precision.Precision`.
    """
    model = nnx.view(nnx.clone(model), use_running_average=True)
    prepare(model)
    for _, module in nnx.iter_graph(model):
        if isinstance(module, ConvBN) and module.affine is None:
            module.freeze()
    return model
