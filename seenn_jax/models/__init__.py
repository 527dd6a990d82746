"""The networks by name, and the two ways to run any of them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from seenn_jax.errors import UserError, check_choice
from seenn_jax.layers import ConvBN
from seenn_jax.models import resnet, vgg
from seenn_jax.neurons import LIF

MODELS = {
    **{
        name: functools.partial(resnet.SpikingResNet, blocks, **kinds)
        for name, (blocks, kinds) in resnet.STAGES.items()
    },
    "vgg16": functools.partial(vgg.SpikingVGG, vgg.VGG16),
    "vggsnn": functools.partial(vgg.SpikingVGG, vgg.VGGSNN),
}
DTYPES = ("bfloat16", "float32", "float64")


def build_model(
    name: str,
    width: int,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    neuron: Callable | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> nnx.Module:
    """A network with fresh parameters.

    Args:
      name: a key of `MODELS`.
      width: channels of its first layer.
      image_shape: (height, width, channels) of one input.
      num_classes: number of logits, at least 2.
      neuron: its spiking layers; LIF with METHOD's constants by default. An activation such as
        `conversion.QCFS` makes it an ordinary network, which runs one timestep.
      dtype: of activations and membranes, one of `DTYPES` (float64 is for parity tests and needs
        `jax.enable_x64`); parameters are float32 except there.
      seed: of the initial parameters.

    Raises:
      UserError: an unknown name or dtype, a width below 1, an image too small for the network.
    """
    check_choice("model", name, MODELS)
    check_choice("dtype", dtype, DTYPES)
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise UserError("dtype 'float64' needs JAX_ENABLE_X64=1: set it, or choose 'float32'")
    if width < 1:
        raise UserError(
            f"the model's width is {width}: it must be at least 1; set config.model.width"
        )
    if num_classes < 2:
        raise UserError(
            f"the data has {num_classes} class(es), and at least 2 are needed: use other data"
        )
    side, channels = min(image_shape[:2]), image_shape[2]
    smallest = 16 if name.startswith("vgg") else 4
    if side < smallest:
        raise UserError(
            f"images of {image_shape[0]}x{image_shape[1]} are too small for {name}: it needs at "
            f"least {smallest}x{smallest}; choose another config.model.name"
        )
    extra = {}
    if name == "vggsnn":
        if image_shape[0] != image_shape[1]:
            raise UserError(
                f"vggsnn reads out a square map, and images are {image_shape[0]}x{image_shape[1]}: "
                "crop them to a square"
            )
        extra["flatten"] = -(-side // 16)
    model = MODELS[name](
        width,
        in_channels=channels,
        num_classes=num_classes,
        neuron=neuron or LIF(),
        dtype=jnp.dtype(dtype),
        rngs=nnx.Rngs(seed),
        **extra,
    )
    if dtype == "float64":
        nnx.update(model, jax.tree.map(lambda a: a.astype(dtype), nnx.state(model)))
    return model


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
    logits, _ = model.integrate(currents(model, inputs, timesteps))
    return logits


def currents(
    model: nnx.Module, inputs: Float[Array, "..."], timesteps: int
) -> Float[Array, "B T h w D"]:
    """What the first spiking layer receives at each of `timesteps` ticks."""
    still = inputs.ndim == 4
    if not still and inputs.shape[1] != timesteps:
        raise UserError(
            f"the inputs have {inputs.shape[1]} timesteps and T is {timesteps}: give as many"
        )
    first = model.encode(inputs[:, None] if still else inputs)
    shape = (first.shape[0], timesteps, *first.shape[2:])
    return jnp.broadcast_to(first, shape) if still else first


def first_ticks(inputs: Shaped[ArrayLike, "B ..."], timesteps: int) -> Shaped[ArrayLike, "B ..."]:
    """The inputs of the first `timesteps` ticks: fewer frames of event data, still images as is."""
    return inputs[:, :timesteps] if inputs.ndim == 5 else inputs


def rest(model: nnx.Module, currents: Float[Array, "B T H W D"] | jax.ShapeDtypeStruct):
    """Membranes at rest for a batch like `currents`, as `model.integrate` carries them.

    `model` is one for inference: training would update BatchNorm's statistics.
    """
    graph, state = nnx.split(model)
    # What no ticks leave behind is what the neurons start from.
    no_ticks = jnp.zeros((currents.shape[0], 0, *currents.shape[2:]), currents.dtype)
    return jax.jit(lambda state, x: nnx.merge(graph, state).integrate(x)[1])(state, no_ticks)


class Network(NamedTuple):
    """A trained network as pure functions of its parameters, for the engines.

    Attributes:
      params: arrays.
      encode: `(params, inputs [S, H, W, C]) -> currents` of the first layer, without state; of
        event data, the inputs of one tick.
      step: `(params, membranes, currents) -> (membranes, logits [S, K])`, one tick.
      logits: `(params, inputs [S, H, W, C] or [S, T, H, W, C]) -> logits of all ticks [S, T, K]`,
        all ticks at once.
      at_rest: membranes of one fresh sample.
    """

    params: Any
    encode: Callable[[Any, Array], Array]
    step: Callable[[Any, Any, Array], tuple[Any, Array]]
    logits: Callable[[Any, Array], Array]
    at_rest: Any


def inference_network(
    model: nnx.Module, image_shape: tuple[int, int, int], timesteps: int, *, int8: bool = False
) -> Network:
    """The network of a trained model; `model` itself is left as it is.

    Args:
      model: a network of this package with its BatchNorm statistics.
      image_shape: (height, width, channels) of the input of one tick.
      timesteps: T of `Network.logits`.
      int8: spikes, exactly, and the weights that meet spikes, rounded per output channel, are int8;
        membranes and all else stay in the model's dtype. For LIF neurons only.
    """
    model = for_inference(model, int8=int8)
    graph, params = nnx.split(model)

    def encode(params, inputs):
        return nnx.merge(graph, params).encode(inputs[:, None])

    def step(params, membranes, currents):
        logits, membranes = nnx.merge(graph, params).integrate(currents, membranes)
        return membranes, logits[:, 0]

    def logits(params, inputs):
        return run_all(nnx.merge(graph, params), inputs, timesteps)

    image = jnp.zeros((1, *image_shape))
    currents = jax.eval_shape(encode, params, image)
    at_rest = jax.tree.map(lambda v: v[0], rest(nnx.merge(graph, params), currents))
    return Network(params, encode, step, logits, at_rest)


def for_inference(model: nnx.Module, *, int8: bool = False) -> nnx.Module:
    """A copy of a trained model, for inference: the same arithmetic as in training's evaluation.

    Args:
      model: a network of this package with its BatchNorm statistics.
      int8: see `inference_network`.
    """
    model = nnx.view(nnx.clone(model), use_running_average=True)
    if int8:
        for layer in model.spike_layers():
            if isinstance(layer, ConvBN):  # the read-out is computed in float32 in any case
                layer.quantize()
        model.replace_neurons(lambda place, neuron: dataclasses.replace(neuron, spike_dtype="int8"))
    for _, module in nnx.iter_graph(model):
        if isinstance(module, ConvBN) and module.affine is None:
            module.freeze()
    return model
