"""Networks and neurons by name, and the network of a config."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax.errors import UserError, check_choice
from seenn_jax.models import resnet, vgg
from seenn_jax.models.activations import QCFS, ReLU
from seenn_jax.models.neurons import ILIF, LIF, PLIF
from seenn_jax.tables import Table, check_call, check_given, check_kind

FIRES = (">=", ">")


def strict(config: ConfigDict) -> bool:
    """Whether neurons fire above their threshold only, and not at it.

    Raises:
      UserError: `config.model.fires` is neither.
    """
    check_choice("`config.model.fires`", config.model.fires, FIRES)
    return config.model.fires == ">"


class Neuron(NamedTuple):
    """A row of `NEURONS`.

    Attributes:
      make: `config -> neuron`, what the layers of a network are made with: `(currents, v0=None) ->
        (spikes, v)`, see `neurons.fold`. One that is an `nnx.Module` is copied for each layer.
      spikes: False for an activation, which makes an ordinary network (ANN) of one timestep.
    """

    make: Callable[[ConfigDict], Callable]
    spikes: bool = True


def _check_neuron(what: str, row: Any) -> None:
    check_kind(what, row, Neuron)
    check_call(f"`make` of {what}", row.make, "config")


def _lif(config: ConfigDict) -> LIF:
    model = config.model
    return LIF(
        model.tau,
        model.threshold,
        model.surrogate,
        strict=strict(config),
        reset=model.reset,
        detach_reset=model.detach_reset,
    )


def _ilif(config: ConfigDict) -> ILIF:
    model = config.model
    return ILIF(model.tau, model.threshold, model.largest_spike, model.detach_reset)


NEURONS = Table(
    "NEURONS",
    "activation",
    {
        "lif": Neuron(_lif),
        "plif": Neuron(lambda config: PLIF(_lif(config))),
        "ilif": Neuron(_ilif),
        "qcfs": Neuron(
            lambda config: QCFS(
                config.quantization_levels, config.initial_threshold, tuple(config.training_levels)
            ),
            spikes=False,
        ),
        "relu": Neuron(lambda config: ReLU(), spikes=False),
    },
    _check_neuron,
)

# What a network is called with, and the methods that it has.
_ARGUMENTS = ("width", "image_shape=", "num_classes=", "neuron=", "dtype=", "rngs=")
_METHODS = {
    "encode": ("self", "inputs"),
    "integrate": ("self", "currents", "membranes"),
    "spike_layers": ("self",),
    "replace_neurons": ("self", "replace"),
}


def _check_model(what: str, row: Any) -> None:
    is_class = isinstance(row, type)  # else it makes a network, such as one of a file
    if is_class:
        check_given(what, row, lambda x: issubclass(x, nnx.Module), "a class of nnx.Module")
    check_call(what, row.__init__ if is_class else row, *("self",) * is_class, *_ARGUMENTS)
    smallest = getattr(row, "smallest", None)
    side = lambda x: x == int(x) >= 1  # noqa: E731
    check_given(f"{what}, by its attribute `smallest`,", smallest, side, "a side in pixels")
    for name, arguments in _METHODS.items() if is_class else ():
        check_call(f"the method `{name}` of {what}", getattr(row, name, None), *arguments)


def _check_layers(what: str, found: Any) -> None:
    good = lambda layers: all(isinstance(layer, nnx.Module) for layer in layers)  # noqa: E731
    check_given(f"the method `spike_layers` of {what}", found, good, "a list of layers")


# A class of the arguments of `SpikingResNet`, with its methods and its attribute `smallest`.
MODELS = Table(
    "MODELS",
    "model",
    {
        "resnet8": resnet.ResNet8,
        "resnet18": resnet.ResNet18,
        "resnet19": resnet.ResNet19,
        "resnet19_tet": resnet.ResNet19TET,
        "resnet20": resnet.ResNet20,
        "resnet20_seenn": resnet.ResNet20SEENN,
        "resnet34": resnet.ResNet34,
        "resnet34_small": resnet.ResNet34Small,
        "vgg16": vgg.VGG16,
        "vgg16_qcfs": vgg.VGG16QCFS,
        "vggsnn": vgg.VGGSNN,
        "vggsnn_pool": vgg.VGGSNNPool,
    },
    _check_model,
)
DTYPES = ("bfloat16", "float32", "float64")


def is_ann(config: ConfigDict) -> bool:
    """Whether the config trains an ordinary network, to be converted."""
    return not NEURONS[config.activation].spikes


def training_timesteps(config: ConfigDict) -> int:
    """Timesteps that the trained network runs: T, or 1 of an ordinary one."""
    return 1 if is_ann(config) else config.timesteps


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
      neuron: its spiking layers; LIF with SEENN's constants by default. An activation such as
        `activations.QCFS` makes it an ordinary network, which runs one timestep.
      dtype: of activations and membranes, one of `DTYPES` (float64 is for parity tests and needs
        `jax.enable_x64`); parameters are float32 except there.
      seed: of the initial parameters.

    Raises:
      UserError: an unknown name or dtype, a width below 1, an image too small for the network.
    """
    model_class = MODELS[name]
    check_choice("dtype", dtype, DTYPES)
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise UserError("dtype 'float64' needs JAX_ENABLE_X64=1: set it, or choose 'float32'")
    if width < 1:
        raise UserError(
            f"the model's width is {width}: it must be at least 1; set `config.model.width`"
        )
    if num_classes < 2:
        raise UserError(
            f"the data has {num_classes} class(es), and at least 2 are needed: use other data"
        )
    smallest = model_class.smallest
    if min(image_shape[:2]) < smallest:
        raise UserError(
            f"images of {image_shape[0]}x{image_shape[1]} are too small for {name}: it needs at "
            f"least {smallest}x{smallest}; choose another `config.model.name`"
        )
    model = model_class(
        width,
        image_shape=image_shape,
        num_classes=num_classes,
        neuron=neuron or LIF(),
        dtype=jnp.dtype(dtype),
        rngs=nnx.Rngs(seed),
    )
    _check_layers(MODELS.words(name), model.spike_layers())
    if dtype == "float64":
        nnx.update(model, jax.tree.map(lambda a: a.astype(dtype), nnx.state(model)))
    return model
