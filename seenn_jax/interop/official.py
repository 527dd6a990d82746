"""Checkpoints of the official SEENN code (PyTorch) into the networks of this package.

Their names are those of Intelligent-Computing-Lab-Yale/SEENN: models/resnet.py, spike_vgg.py and
spike_vgg_dvs.py (VGGSNNwoAP); and, of networks with QCFS activations, those of the QCFS authors'
ResNets (putshua/ANN_SNN_QCFS: Models/ResNet.py). Their VGG-16 has two hidden linear layers of 4096
with activations before the last, which the one here has not, so that its files can't be read.
"""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.models.activations import QCFS, inverse_softplus
from seenn_jax.models.resnet import SpikingResNet
from seenn_jax.models.vgg import SpikingVGG


def load_official(model: nnx.Module, path: str | Path) -> None:
    """Replace the parameters and BatchNorm statistics of `model` by those of a file.

    Args:
      model: a ResNet-19, VGG-16 or VGGSNN of `models.build_model`, or a ResNet with
        `conversion.QCFS` activations, of the same width and classes.
      path: `.pth`/`.pt` (a state dict; needs torch, opened with `weights_only=True`) or `.npz` with
        the same names.

    Raises:
      UserError: the file is absent, of another kind, or of another network.
    """
    load_state_dict(model, read_state_dict(path))


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Names and arrays of a `.pth`, `.pt` or `.npz` file; see `load_official`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint file at {path}: give the path of a .pth or .npz")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix not in (".pth", ".pt"):
        raise UserError(f"{path} ends in {path.suffix!r}: a .pth, .pt or .npz file can be read")
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"reading {path} needs torch, which is not installed: pip install torch, or convert "
            "the file to .npz where torch is"
        ) from error
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {name: tensor.numpy() for name, tensor in state.items()}


def load_state_dict(model: nnx.Module, state: Mapping[str, np.ndarray]) -> None:
    """As `load_official`, from names and arrays in PyTorch's layout (OIHW)."""
    # A model that was trained under DataParallel has "module." before every name.
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): array for name, array in state.items()}
    arrays = convert(model, state)
    names = official_names(model).values()
    # `seqbn.module` is the same BatchNorm, listed a second time.
    unused = {n for n in state if ".seqbn." not in n and "num_batches" not in n} - set(names)
    if unused:
        raise UserError(
            f"the checkpoint has {min(unused)!r}, which this {type(model).__name__} has not: it is "
            "of another architecture; build the network that it was saved from"
        )
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        variable.set_value(jnp.asarray(arrays[path], variable.dtype))


def convert(model: nnx.Module, state: Mapping[str, np.ndarray]) -> dict[tuple, np.ndarray]:
    """Arrays of a PyTorch state dict (or of its gradients) by path, in the layout of `model`.

    QCFS thresholds become the parameters behind them; their gradients are not converted.

    Paths whose name `state` lacks altogether are left out only for BatchNorm statistics, which
    have no gradient.
    """
    arrays = {}
    names = official_names(model)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        name = names[path]
        if name not in state:
            if name.endswith(("running_mean", "running_var")):
                continue
            raise UserError(
                f"the checkpoint has no {name!r}, which {type(model).__name__} needs: it is of "
                "another architecture; build the network that it was saved from"
            )
        array = np.asarray(state[name])
        if name.endswith(".up"):
            array = _raw_threshold(name, array)
        array = _channels_last(array, model.last_map if getattr(model, "flat", False) else None)
        if array.shape != variable.shape:
            raise UserError(
                f"the checkpoint's {name!r} has the shape {array.shape} (channels last) and the "
                f"network's has {variable.shape}: build it with the checkpoint's width and classes"
            )
        arrays[path] = array
    return arrays


def _raw_threshold(name: str, threshold: np.ndarray) -> np.ndarray:
    if not np.all(threshold > 0):
        raise UserError(
            f"the checkpoint's {name!r} is {threshold}, and thresholds must be positive: it can't "
            "be converted; train it again"
        )
    return np.asarray(inverse_softplus(jnp.asarray(threshold, float).squeeze()))


def _channels_last(array: np.ndarray, last_map: tuple[int, int] | None) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and last_map is not None:
        # PyTorch flattens channels first.
        array = array.reshape(len(array), -1, *last_map).transpose(0, 2, 3, 1)
        return array.reshape(len(array), -1).T
    return array.T


def official_names(model: nnx.Module) -> dict[tuple, str]:
    """The official code's name of every parameter and statistic, by its path in `model`."""
    unknown = UserError(
        f"a {type(model).__name__} such as this has no counterpart in the official code: it has "
        "ResNet-19, VGG-16 and VGGSNN, and with QCFS activations ResNet-18, -20 and -34"
    )
    thresholds = {}
    if isinstance(model, SpikingVGG):
        layers, head = _vgg_layers(model)
    elif isinstance(model, SpikingResNet) and isinstance(model.neuron, QCFS):
        layers, thresholds, head = _qcfs_layers(model)
    elif isinstance(model, SpikingResNet):
        layers, head = _resnet_layers(model)
    else:
        raise unknown
    names = {("head", "kernel"): f"{head}.weight", ("head", "bias"): f"{head}.bias"}
    for path, (conv, norm) in layers.items():
        names |= {
            (*path, "conv", "kernel"): f"{conv}.weight",
            (*path, "conv", "bias"): f"{conv}.bias",
            (*path, "bn", "scale"): f"{norm}.weight",
            (*path, "bn", "bias"): f"{norm}.bias",
            (*path, "bn", "mean"): f"{norm}.running_mean",
            (*path, "bn", "var"): f"{norm}.running_var",
        }
    names |= {(*path, "raw"): f"{layer}.up" for path, layer in thresholds.items()}
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
    if not names.keys() >= set(paths):
        raise unknown
    return {path: names[path] for path in paths}


def _resnet_layers(model: SpikingResNet) -> tuple[dict[tuple, tuple[str, str]], str]:
    layers = {("stem",): ("conv1", "bn.bn")}
    stage, index = 1, 0
    for number, block in enumerate(model.blocks):
        if number > 0 and block.shortcut is not None:
            stage, index = stage + 1, 0
        name, path = f"layer{stage}.{index}", ("blocks", number)
        layers[(*path, "conv1")] = (f"{name}.conv1.module", f"{name}.bn1.bn")
        layers[(*path, "conv2")] = (f"{name}.conv2.module", f"{name}.bn2.bn")
        if block.shortcut is not None:
            shortcut = (f"{name}.downsample.1.module", f"{name}.downsample.2.bn")
            layers[(*path, "shortcut", "projection")] = shortcut
        index += 1
    return layers, "fc1.module"


def _qcfs_layers(model: SpikingResNet) -> tuple[dict[tuple, tuple[str, str]], dict, str]:
    layers, thresholds = {("stem",): ("conv1.0", "conv1.1")}, {("neuron",): "conv1.2"}
    stage, index = 2, 0
    for number, block in enumerate(model.blocks):
        if number > 0 and block.shortcut is not None:
            stage, index = stage + 1, 0
        name, path = f"conv{stage}_x.{index}", ("blocks", number)
        chain = f"{name}.residual_function"
        layers[(*path, "conv1")] = (f"{chain}.0", f"{chain}.1")
        layers[(*path, "conv2")] = (f"{chain}.3", f"{chain}.4")
        layers[(*path, "shortcut")] = (f"{name}.shortcut.0", f"{name}.shortcut.1")
        thresholds[(*path, "neuron1")] = f"{chain}.2"
        thresholds[(*path, "neuron2")] = f"{name}.relu"
        index += 1
    return layers, thresholds, "fc"


def _vgg_layers(model: SpikingVGG) -> tuple[dict[tuple, tuple[str, str]], str]:
    layers, position = {}, 0
    for index, pool in enumerate(model.pools):
        path, name = ("convs", index), f"features.{position}"
        if model.flat:
            layers[path] = (f"{name}.fwd.module.0", f"{name}.fwd.module.1")
            position += 1
        else:
            # Each of convolution, BatchNorm, neuron and pool has a place in the chain.
            layers[path] = (f"{name}.module", f"features.{position + 1}.bn")
            position += 3 if pool == 1 else 4
    return layers, "classifier.module" if model.flat else "classifier.0.module"
