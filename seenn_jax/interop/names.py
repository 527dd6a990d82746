"""What the parameters of a network are called in the PyTorch code that it comes from.

Of QCFS in the older spelling; see `sources`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.models.activations import QCFS
from seenn_jax.models.residual import SEWResNet
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.models.vgg import SpikingVGG


class Layers(NamedTuple):
    """Names there by paths here.

    Attributes:
      convolutions: of the convolution, and of its BatchNorm.
      linears: of linear layers.
      thresholds: of QCFS activations.
    """

    convolutions: dict[tuple, tuple[str, str]]
    linears: dict[tuple, str]
    thresholds: dict[tuple, str]


def official_names(model: nnx.Module) -> dict[tuple, str]:
    """The name in its source of every parameter and statistic, by its path in `model`.

    Raises:
      UserError: a network that no source has.
    """
    layers, names = _layers(model), {}
    for path, linear in layers.linears.items():
        names |= {(*path, "kernel"): f"{linear}.weight", (*path, "bias"): f"{linear}.bias"}
    for path, (conv, norm) in layers.convolutions.items():
        names |= {
            (*path, "conv", "kernel"): f"{conv}.weight",
            (*path, "conv", "bias"): f"{conv}.bias",
            (*path, "bn", "scale"): f"{norm}.weight",
            (*path, "bn", "bias"): f"{norm}.bias",
            (*path, "bn", "mean"): f"{norm}.running_mean",
            (*path, "bn", "var"): f"{norm}.running_var",
        }
    names |= {(*path, "raw"): f"{layer}.up" for path, layer in layers.thresholds.items()}
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
    if not names.keys() >= set(paths):
        raise _unknown(model)
    return {path: names[path] for path in paths}


def _unknown(model: nnx.Module) -> UserError:
    return UserError(
        f"a {type(model).__name__} such as this has no counterpart in the official code: it has "
        "ResNet-19, VGG-16, VGGSNN and SEW-ResNets, and with QCFS activations ResNet-18, -20, -34 "
        "and a VGG-16 of its own"
    )


def _layers(model: nnx.Module) -> Layers:
    if isinstance(model, SpikingVGG):
        if model.hidden:
            return _qcfs_vgg(model)
        return _vggsnn(model) if model.flat else _vgg(model)
    if isinstance(model, SpikingResNet):
        if isinstance(model.neuron, QCFS):
            return _qcfs_resnet(model)
        return _tet_resnet(model) if model.hidden else _resnet(model)
    if isinstance(model, SEWResNet):
        return _sew_resnet(model)
    raise _unknown(model)


def _places(model: SpikingResNet | SEWResNet) -> Iterator[tuple[tuple, int, int, Any]]:
    """(path, stage from 0, number in it, block) of each block."""
    places = [(stage, i) for stage, count in enumerate(model.stages) for i in range(count)]
    for number, (place, block) in enumerate(zip(places, model.blocks, strict=True)):
        yield (("blocks", number), *place, block)


def _resnet(model: SpikingResNet) -> Layers:
    shortcut = ("downsample.1.module", "downsample.2.bn")
    layers = _blocks(model, ".module", ("shortcut", "projection"), shortcut)
    return Layers({("stem",): ("conv1", "bn.bn"), **layers}, {("head",): "fc1.module"}, {})


def _tet_resnet(model: SpikingResNet) -> Layers:
    shortcut = ("downsample.layer.module", "downsample.bn.bn")
    layers = {("stem",): ("conv1", "bn1.bn"), **_blocks(model, "", ("shortcut",), shortcut)}
    return Layers(layers, {("hidden_layers", "linears", 0): "fc1", ("head",): "fc2"}, {})


def _blocks(model: SpikingResNet, conv: str, place: tuple, shortcut: tuple[str, str]) -> dict:
    """Of SEENN's and TET's blocks; how a convolution's name ends, and where shortcuts are."""
    layers = {}
    for path, stage, number, block in _places(model):
        name = f"layer{stage + 1}.{number}"
        for index in (1, 2):
            layers[*path, f"conv{index}"] = (f"{name}.conv{index}{conv}", f"{name}.bn{index}.bn")
        if block.shortcut is not None:
            layers[*path, *place] = tuple(f"{name}.{part}" for part in shortcut)
    return layers


def _qcfs_resnet(model: SpikingResNet) -> Layers:
    layers, thresholds = {("stem",): ("conv1.0", "conv1.1")}, {("neuron",): "conv1.2"}
    for path, stage, number, _ in _places(model):
        name = f"conv{stage + 2}_x.{number}"
        chain = f"{name}.residual_function"
        layers[*path, "conv1"] = (f"{chain}.0", f"{chain}.1")
        layers[*path, "conv2"] = (f"{chain}.3", f"{chain}.4")
        layers[*path, "shortcut"] = (f"{name}.shortcut.0", f"{name}.shortcut.1")
        thresholds[*path, "neuron1"] = f"{chain}.2"
        thresholds[*path, "neuron2"] = f"{name}.relu"
    return Layers(layers, {("head",): "fc"}, thresholds)


def _sew_resnet(model: SEWResNet) -> Layers:
    layers = {("stem",): ("conv1", "bn1")}
    for path, stage, number, block in _places(model):
        name = f"layer{stage + 1}.{number}"
        for index in range(len(block.convs)):
            layers[*path, "convs", index] = (f"{name}.conv{index + 1}", f"{name}.bn{index + 1}")
        layers[*path, "shortcut"] = (f"{name}.downsample.0", f"{name}.downsample.1")
    return Layers(layers, {("head",): "fc"}, {})


def _vgg(model: SpikingVGG) -> Layers:
    layers, position = {}, 0
    for index, pool in enumerate(model.pools):
        layers["convs", index] = (f"features.{position}.module", f"features.{position + 1}.bn")
        # Each of convolution, BatchNorm, neuron and pool has a place in the chain.
        position += 3 if pool == 1 else 4
    return Layers(layers, {("head",): "classifier.0.module"}, {})


def _vggsnn(model: SpikingVGG) -> Layers:
    layers, position = {}, 0
    for index, pool in enumerate(model.pools):
        name = f"features.{position}.fwd.module"
        layers["convs", index] = (f"{name}.0", f"{name}.1")
        position += 1 if pool == 1 else 2
    return Layers(layers, {("head",): "classifier.module"}, {})


def _qcfs_vgg(model: SpikingVGG) -> Layers:
    layers, thresholds, stage, position = {}, {}, 1, 0
    for index, pool in enumerate(model.pools):
        name = f"layer{stage}."
        layers["convs", index] = (f"{name}{position}", f"{name}{position + 1}")
        thresholds["neurons", index] = f"{name}{position + 2}"
        # Convolution, BatchNorm, activation, dropout; a pool ends the stage.
        stage, position = (stage, position + 4) if pool == 1 else (stage + 1, 0)
    linears = {("head",): f"classifier.{1 + 3 * len(model.hidden)}"}
    for index in range(len(model.hidden)):
        linears["hidden_layers", "linears", index] = f"classifier.{1 + 3 * index}"
        thresholds["hidden_layers", "neurons", index] = f"classifier.{2 + 3 * index}"
    return Layers(layers, linears, thresholds)
