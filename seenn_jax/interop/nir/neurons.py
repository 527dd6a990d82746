"""The neurons of NIR, each tick of which is a forward Euler step of its equations.

With the time step dt, of `nir.CubaLIF`, which has all that the others have a part of:

    i = i + dt / tau_syn (w_in x - i)
    v = v + dt / tau_mem (v_leak - v + r i)
    s = [v > v_threshold],  v = v_reset where s = 1

NIR leaves open whether v sees the old i or the new one: the new one, as in snnTorch. i and v begin
at 0. Without a synapse i is x; `nir.IF` and `nir.I` have dv/dt = r i; `nir.I`, `nir.LI` and
`nir.CubaLI` put out v and never fire.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from seenn_jax.errors import UserError
from seenn_jax.models.neurons import LIF, SURROGATES, fold

# What each kind has: a synapse, a leak, spikes.
KINDS = {
    "CubaLIF": (True, True, True),
    "CubaLI": (True, True, False),
    "LIF": (False, True, True),
    "LI": (False, True, False),
    "IF": (False, False, True),
    "I": (False, False, False),
}
SOFT = "subtract threshold"  # in a node's metadata, of a reset that NIR can't tell
DIGITS = 6  # of numbers as people write them
ROUNDING = 2.0**-22  # relative, of a few operations in float32


class Constant(nnx.BatchStat):
    """Numbers of a layer of neurons that training leaves as they are."""


class Euler(nnx.Module):
    """A layer of neurons: `neuron(currents [B, T, ...], v0=None) -> (spikes, membranes)`.

    Args:
      numbers: by name, each a float or an array of one sample's shape: `decay`, `gain`, `pull` (of
        v = decay v + gain i + pull); of a synapse `synapse_decay`, `synapse_gain`; where it fires,
        `threshold` (at it) and `reset`. Membranes begin at `start`.
      soft: the threshold is subtracted where it fires, and `reset` is not used.
      surrogate: a key of `SURROGATES`.
    """

    def __init__(self, numbers: dict[str, Any], *, soft: bool = False, surrogate: str = "dspike"):
        self.names = tuple(numbers)
        self.soft, self.surrogate = soft, surrogate
        for name, value in numbers.items():
            plain = isinstance(value, float)
            setattr(self, name, value if plain else Constant(jnp.asarray(value, jnp.float32)))

    def __call__(self, currents, v0=None):
        """Return (what it puts out, membranes) of all ticks of `currents`."""
        numbers = {name: self._number(name, currents.dtype) for name in self.names}
        if v0 is None:
            zeros = jnp.zeros((currents.shape[0], *currents.shape[2:]), currents.dtype)
            v0 = zeros + numbers["start"]
            v0 = (v0, zeros) if "synapse_decay" in numbers else v0
        return fold(lambda v, x: self._tick(numbers, v, x), currents, v0)

    def _number(self, name, dtype):
        value = getattr(self, name)
        return value if isinstance(value, float) else value[...].astype(dtype)

    def _tick(self, of, v, x):
        if "synapse_decay" in of:
            v, i = v
            x = i = of["synapse_decay"] * i + of["synapse_gain"] * x
        v = of["decay"] * v + of["gain"] * x + of["pull"]
        out = v
        if "threshold" in of:
            out = SURROGATES[self.surrogate](v - of["threshold"])
            after = v - of["threshold"] if self.soft else of["reset"]
            v = v * (1 - out) + after * out
        return ((v, i) if "synapse_decay" in of else v), out


def neuron_of(name: str, node: Any, dt: float, shape: tuple[int, ...], surrogate: str) -> Callable:
    """The neurons of a node; `models.neurons.LIF` where they are these.

    Args:
      name: of the node.
      dt: the time step, in seconds.
      shape: of its signal, channels first.

    Raises:
      UserError: a number that can't be, or that has another shape.
    """
    kind = type(node).__name__
    synapse, leak, spikes = KINDS[kind]

    def number(field):
        return _number(name, field, getattr(node, field), shape)

    decay, gain, pull = np.float64(1), dt * number("r"), np.float64(0)
    if leak:
        rate = _rate(name, "tau_mem" if synapse else "tau", number, dt)
        decay, gain, pull = 1 - rate, rate * number("r"), rate * number("v_leak")
    numbers = {"decay": _meant(decay, 1 - decay), "gain": _meant(gain), "pull": pull}
    if synapse:
        rate = _rate(name, "tau_syn", number, dt)
        numbers["synapse_decay"] = _meant(1 - rate, rate)
        numbers["synapse_gain"] = _meant(rate * number("w_in"))
    soft = node.metadata.get("reset") == SOFT
    numbers["start"] = _number(name, "metadata", node.metadata.get("initial_membrane", 0.0), ())
    if spikes:
        # NIR fires above its threshold, we at it.
        threshold = np.float32(number("v_threshold"))
        numbers["threshold"] = np.nextafter(threshold, np.float32(np.inf)).astype(float)
        numbers["reset"] = number("v_reset")
    plain = {key: _plain(value) for key, value in numbers.items()}
    of_ours = {"gain": 1.0, "pull": 0.0, "start": 0.0, "reset": 0.0}
    uniform = isinstance(plain["decay"], float) and isinstance(plain.get("threshold"), float)
    if uniform and not (soft or synapse) and all(plain[k] == v for k, v in of_ours.items()):
        return LIF(plain["decay"], plain["threshold"], surrogate)
    return Euler(plain, soft=soft, surrogate=surrogate)


def _rate(name: str, field: str, number: Callable, dt: float) -> np.ndarray:
    tau = number(field)
    # As much below dt as float32 may have rounded it is dt.
    rate = np.minimum(dt / np.where(tau > 0, tau, np.nan), np.inf)
    rate = np.where(np.abs(rate - 1) < ROUNDING, 1.0, rate)
    if not np.all((rate > 0) & (rate <= 1)):
        raise UserError(
            f"node {name!r} has the time constant {field} = {np.min(tau):g} s, and one must be at "
            f"least the time step dt = {dt:g} s: give the `dt` that the graph was made for"
        )
    return rate


def _number(name: str, field: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A number or array of a node, channels last."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"node {name!r} has a {field} that is no number: get the file again") from (
            error
        )
    if array.size == 1:
        array = array.reshape(())
    elif array.shape != shape:
        raise UserError(
            f"node {name!r} has {field} of shape {array.shape} and its signal is of shape {shape}: "
            "both must be the same; write the graph again"
        )
    if not np.all(np.isfinite(np.float32(array))):
        raise UserError(f"node {name!r} has a {field} that is not finite: write the graph again")
    return channels_last(array)


def channels_last(array: np.ndarray) -> np.ndarray:
    """[C, H, W] -> [H, W, C]; what has fewer axes stays."""
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _meant(value: Any, rounded: Any = None) -> Any:
    """Numbers of up to six digits, where they are these but for float32.

    dt / tau is known as well as tau is, which files have in float32; 0.5 comes back as 0.49999998.

    Args:
      rounded: what float32 has rounded besides the value itself.
    """
    slack = ROUNDING * np.maximum(np.abs(value), 0 if rounded is None else np.abs(rounded))
    with np.errstate(divide="ignore"):
        size = np.floor(np.log10(np.abs(value)))
    for digits in range(1, DIGITS + 1):
        unit = 10.0 ** (digits - 1 - np.where(np.isfinite(size), size, 0))
        short = np.round(value * unit) / unit
        value = np.where(np.abs(short - value) <= slack, short, value)
    return value


def _plain(value: Any) -> Any:
    """A float where all are the same; of those of a map, one for each channel where it can be."""
    value = np.asarray(value)
    if np.all(value == value.flat[0]):
        return float(value.flat[0])
    if value.ndim == 3 and np.all(value == value[:1, :1]):
        return value[0, 0]
    return value
