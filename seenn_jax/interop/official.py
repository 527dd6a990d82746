"""Checkpoints of SEENN's, QCFS's, TET's and SpikingJelly's code (PyTorch) into networks of ours.

Which they are stands in `sources`, what their parameters are called in `names`, how files are read
in `files`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax.config import default_config
from seenn_jax.errors import UserError, check_choice
from seenn_jax.interop.files import read_state_dict, without_prefix
from seenn_jax.interop.names import official_names
from seenn_jax.interop.sources import Source, canonical, source_of
from seenn_jax.run import build, checkpoints, folder
from seenn_jax.run.folder import DataFacts

__all__ = ["convert", "load_official", "load_state_dict", "make_run"]


class Data(NamedTuple):
    """What networks were trained on: side of the images, and what all of this code normalises by.

    Mean and standard deviation are of pixels scaled to 0..1. Event data are given as the counts
    they are, and those here are divided by 255 first.
    """

    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATA = {
    "cifar10": Data(32, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Data(32, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "cifar10_dvs": Data(48, (0.0, 0.0), (1 / 255, 1 / 255)),
    "imagenet2012": Data(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
BY_CLASSES = {100: "cifar100", 1000: "imagenet2012"}


def load_official(model: nnx.Module, path: str | Path) -> None:
    """Replace the parameters and BatchNorm statistics of `model` by those of a file.

    Args:
      model: of `models.build_model`, of the same architecture, width and classes as the file's;
        its neurons `conversion.QCFS` where the file has thresholds.
      path: of a state dict; see `files.read_state_dict`.

    Raises:
      UserError: the file is absent, of another kind, or of another network; the model is untouched.
    """
    load_state_dict(model, read_state_dict(path))


def load_state_dict(model: nnx.Module, state: Mapping[str, np.ndarray]) -> None:
    """As `load_official`, from names and arrays in PyTorch's layout (OIHW)."""
    known = canonical(without_prefix(state))
    arrays = convert(model, known)
    unused = known.keys() - set(official_names(model).values())
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
    arrays, state = {}, canonical(state)
    names, from_map = official_names(model), reads_map(model)
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
        array = _channels_last(array, model.last_map if path[:-1] == from_map else None)
        if array.shape != variable.shape:
            raise UserError(
                f"the checkpoint's {name!r} has the shape {array.shape} (channels last) and the "
                f"network's has {variable.shape}: build it with the checkpoint's width and classes"
            )
        arrays[path] = array
    return arrays


def reads_map(model: nnx.Module) -> tuple | None:
    """The path of the linear layer that reads all positions of a map, where one does."""
    if not getattr(model, "flat", False):
        return None
    return ("hidden_layers", "linears", 0) if model.hidden else ("head",)


def _raw_threshold(name: str, threshold: np.ndarray) -> np.ndarray:
    if threshold.size != 1 or not np.all((threshold > 0) & np.isfinite(threshold)):
        raise UserError(
            f"the checkpoint's {name!r} is {threshold}, and thresholds must be positive and finite "
            "numbers: it can't be converted; train it again"
        )
    # In float64, in which `state_dict` writes them: then they come back with every bit.
    value = threshold.astype(np.float64).squeeze()
    return np.asarray(value + np.log(-np.expm1(-value)))


def _channels_last(array: np.ndarray, last_map: tuple[int, int] | None) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and last_map is not None and not array.shape[1] % math.prod(last_map):
        # PyTorch flattens channels first.
        array = array.reshape(len(array), -1, *last_map).transpose(0, 2, 3, 1)
        return array.reshape(len(array), -1).T
    return array.T


# --- A run of it ---------------------------------------------------------------------------------


def make_run(
    path: str | Path,
    workdir: str | Path,
    *,
    data: str | None = None,
    timesteps: int | None = None,
    levels: int | None = None,
) -> Source:
    """Write a run whose network is a checkpoint's, for all that takes a run but more training.

    Args:
      path: of the file; see `files.read_state_dict`.
      workdir: a new folder.
      data: that it was trained on, a key of `DATA`; None goes by its channels and classes.
      timesteps: T; None is 4, 8 of a network to convert, 10 of event data.
      levels: L of QCFS activations, which the file does not have; None is 8. The ordinary network
        needs it, and not what it is converted to.

    Returns:
      where the file comes from.

    Raises:
      UserError: the file can't be read or is of no known network; the folder is there; data whose
        images the network can't take.
    """
    path, workdir = Path(path), Path(workdir)
    if workdir.exists():
        raise UserError(f"`workdir`={workdir} exists already: give the name of a new folder")
    state = read_state_dict(path)
    try:
        source = source_of(state)
        config, facts = _described(source, canonical(state), data, timesteps, levels)
        model = build.network(config, facts)
        load_state_dict(model, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    about = {"path": path.name, "source": source.about}
    folder.claim(workdir, config, facts, started_from=about)
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    with checkpoints.open_checkpoints(workdir) as manager:
        checkpoints.save(manager, 1, {"params": params, "stats": stats}, 0.0)
    return source


def _described(
    source: Source,
    state: Mapping[str, np.ndarray],
    data: str | None,
    timesteps: int | None,
    levels: int | None,
) -> tuple[ConfigDict, DataFacts]:
    width, channels = map(int, state[source.first].shape[:2])
    classes = len(state[source.last])
    events, converted = channels == 2, source.activation == "qcfs"
    name = data or ("cifar10_dvs" if events else BY_CLASSES.get(classes, "cifar10"))
    check_choice("`data`", name, DATA)
    side, mean, std = DATA[name]
    if len(mean) != channels:
        raise UserError(
            f"it takes images of {channels} channel(s) and those of {name!r} have {len(mean)}: "
            "give the `data` that it was trained on"
        )
    config = default_config()
    config.update(activation=source.activation, epochs=1)
    config.timesteps = timesteps or (10 if events else 8 if converted else 4)
    config.model.update(name=source.model, width=width, fires=source.fires)
    config.model.update(surrogate=source.surrogate, tau=source.tau)
    config.quantization_levels = levels or config.quantization_levels
    config.loss = "mean_ce" if converted else "tet"
    config.data.name = name
    config.data.image_size = side if name == "imagenet2012" else 0
    # All of these train on every training image, so that nothing can be chosen on them.
    config.data.train_on_validation = True
    frames = config.timesteps if events else 0
    return config, DataFacts((side, side, channels), classes, list(mean), list(std), frames)
