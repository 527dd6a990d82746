"""Networks as state dicts of the PyTorch code that has them too, in its names and layouts.

Reading such a file (`official`) gives the same network, bit for bit. In PyTorch:

    network.load_state_dict(safetensors.torch.load_file("net.safetensors"), strict=False)

Not strictly, as that code lists some of its layers twice.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flax import nnx
from ml_collections import ConfigDict

from seenn_jax.config import default_config
from seenn_jax.errors import UserError
from seenn_jax.interop.names import official_names
from seenn_jax.interop.official import reads_map
from seenn_jax.interop.sources import Source, source_of
from seenn_jax.paths import check_new, put


def _newer(name: str) -> str:
    """A name in the newer spelling of QCFS; see `sources`."""
    return re.sub(r"\.up$", ".thresh", re.sub(r"\.relu\.up$", ".act.thresh", name))


SPELLINGS: tuple[Callable[[str], str], ...] = (_newer, str)
SETTINGS = ("tau", "threshold", "reset")  # of neurons, which that code has as constants


def write(path: str | Path, run: Any) -> Source:
    """Write the network of a loaded run to a .safetensors file; one to convert as it is trained.

    Args:
      path: of a new file.
      run: of `seenn_jax.load`.

    Returns:
      the code that has such networks.

    Raises:
      UserError: the file exists or can't be written; no code has such a network.
    """
    path, trained = Path(path), run.trained
    check_new("safetensors", path)
    state, source = named(trained.network(trained.config)[0], trained.config)
    put(path, safetensors.numpy.save(state, metadata={"format": "pt"}))
    return source


def named(model: nnx.Module, config: ConfigDict) -> tuple[dict[str, np.ndarray], Source]:
    """(its state dict, the code that has such networks), of a network as it is trained.

    Thresholds are float64, from which the parameters behind them come back.

    Args:
      config: with which it was built.

    Raises:
      UserError: no code has such a network.
    """
    state = state_dict(model)
    asked = (config.model.name, config.activation, config.model.fires)
    for spelling in SPELLINGS:
        found = {spelling(name): array for name, array in state.items()}
        source = source_of(found)
        if (source.model, source.activation, source.fires) == asked:
            break
    else:
        raise UserError(
            f"a {asked[0]!r} of {asked[1]!r} neurons that fire at v {asked[2]} their threshold has "
            f"no counterpart: in its names it would be taken for {source.about}, {source.model!r} "
            f"of {source.activation!r} at v {source.fires}; export it as ONNX, StableHLO or NIR"
        )
    for name in SETTINGS if config.activation == "lif" else ():
        value = config.model[name]
        theirs = source.tau if name == "tau" else default_config().model[name]
        if value != theirs:
            raise UserError(
                f"`config.model.{name}` is {value}, and {source.about} has {theirs}, which no "
                "state dict can change: export it as ONNX, StableHLO or NIR"
            )
    return found, source


def state_dict(model: nnx.Module) -> dict[str, np.ndarray]:
    """Parameters and statistics by their names in that code, of QCFS in the older spelling."""
    names, from_map, state = official_names(model), reads_map(model), {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        array, name = np.asarray(variable[...]), names[path]
        if name.endswith(".up"):
            array = np.logaddexp(0, np.float64(array)).reshape(1)
        last_map = model.last_map if path[:-1] == from_map else None
        state[name] = np.ascontiguousarray(_channels_first(array, last_map))
    return state


def _channels_first(array: np.ndarray, last_map: tuple[int, int] | None) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2 and last_map is not None:
        outputs = array.shape[1]
        return array.T.reshape(outputs, *last_map, -1).transpose(0, 3, 1, 2).reshape(outputs, -1)
    return array.T
