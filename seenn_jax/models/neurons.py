"""Spiking neurons: a pure step `(membrane, current) -> (membrane, spikes)` and its fold over time.

Time is axis 1 everywhere ([B, T, ...]), so that merging batch and time keeps the batch outermost
and a batch that is sharded over devices stays sharded.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Num, PyTree

from seenn_jax.tables import Table, check_call, check_given

# Up to this many ticks the scan is unrolled: the compiler then fuses the ticks with what is around
# them. Longer runs keep the loop, and with it the size of the program.
MAX_UNROLL = 16


def surrogate(derivative: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The Heaviside step H(x) = [x >= 0] whose derivative is replaced by `derivative(x)`."""

    @jax.custom_jvp
    def spike(x):
        return (x >= 0).astype(x.dtype)

    @spike.defjvp
    def _(primals, tangents):
        (x,), (dx,) = primals, tangents
        return spike(x), derivative(x).astype(x.dtype) * dx

    return spike


def dspike_derivative(x: Array, temperature: float = 3.0, region: float = 3.0) -> Array:
    """b sech^2(b x) / (2 tanh(b r)) on |x| <= r, else 0; b = `temperature`, r = `region`.

    Source: Dspike (Li et al., NeurIPS 2021) with the constants of SEENN's CIFAR runs.
    """
    sech2 = 1 - jnp.square(jnp.tanh(temperature * x))
    scale = temperature / (2 * jnp.tanh(temperature * region))
    return jnp.where(jnp.abs(x) <= region, scale * sech2, 0)


def triangle_derivative(x: Array, gamma: float = 1.0) -> Array:
    """max(0, gamma - |x|) / gamma^2, SEENN's surrogate for event data."""
    return jnp.maximum(0, gamma - jnp.abs(x)) / gamma**2


def _check(what: str, row: Any) -> None:
    check_call(what, row, "x")
    some = jax.ShapeDtypeStruct((2,), jnp.float32)
    same = lambda found: (found.shape, found.dtype) == (some.shape, some.dtype)  # noqa: E731
    check_given(what, jax.eval_shape(row, some), same, "spikes, shaped as the x that it takes")


SURROGATES = Table(
    "SURROGATES",
    "surrogate",
    {"dspike": surrogate(dspike_derivative), "triangle": surrogate(triangle_derivative)},
    _check,
)


def lif_step(
    v: Float[Array, "..."],
    current: Float[Array, "..."],
    *,
    tau: float | Float[Array, ""],
    threshold: float,
    spike: Callable[[Array], Array],
    strict: bool = False,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """One tick of a leaky integrate-and-fire neuron with hard reset (SEENN, eq. 1-2).

    v = tau v + current; s = H(v - threshold); v = v (1 - s). Gradient flows through the reset.
    A `strict` one fires at v > threshold: 1 - H(threshold - v), whose derivative is the same.

    Returns:
      (membrane after the reset, spikes), both of the shape and dtype of `current`.
    """
    v = tau * v + current
    s = 1 - spike(threshold - v) if strict else spike(v - threshold)
    return v * (1 - s), s


def if_step(
    v: Float[Array, "..."],
    current: Float[Array, "..."],
    *,
    threshold: Float[Array, ""] | float,
    strict: bool = False,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """One tick of an integrate-and-fire neuron with soft reset (Bu et al., ICLR 2022, eq. 2-4).

    v = v + current; s = H(v - threshold); v = v - threshold s. It fires at v >= threshold: then
    T = L ticks of one current, from threshold / 2, fire as often as QCFS rounds to, halfway between
    two levels too. A `strict` one fires at v > threshold, as in SEENN's code, which rounds those
    down.

    Returns:
      (membrane after the reset, output threshold s)
    """
    v = v + current
    fires = v > threshold if strict else v >= threshold
    output = threshold * fires.astype(v.dtype)
    return v - output, output


def fold(
    step: Callable[[Any, Array], tuple[Any, Array]],
    currents: Float[Array, "B T *features"],
    v0: PyTree[Float[Array, "B *features"]] | None = None,
) -> tuple[Num[Array, "B T *features"], PyTree[Float[Array, "B *features"]]]:
    """Fold `step` over the time axis, from membranes `v0` (None: at rest, zero).

    Neurons with more than a membrane have a tuple of arrays as `v0`.

    Returns:
      (spikes of every tick, membranes after the last one).
    """
    if v0 is None:
        v0 = jnp.zeros((currents.shape[0], *currents.shape[2:]), currents.dtype)
    timesteps = currents.shape[1]
    unroll = timesteps if timesteps <= MAX_UNROLL else 1
    v, spikes = lax.scan(step, v0, jnp.moveaxis(currents, 1, 0), unroll=unroll)
    return jnp.moveaxis(spikes, 0, 1), v


@dataclasses.dataclass(frozen=True)
class LIF:
    """A layer of LIF neurons: `lif(currents, v0=None) -> (spikes, v)`; see `lif_step` and `fold`.

    Attributes:
      tau: decay of the membrane per tick, in (0, 1].
      threshold: membrane at which a neuron fires.
      surrogate: name of the surrogate derivative, a key of `SURROGATES`.
      spike_dtype: of the spikes, where it is not that of the currents: "int8" for quantised
        inference, in which no gradient flows.
      strict: fire above the threshold only.
    """

    tau: float = 0.5
    threshold: float = 1.0
    surrogate: str = "dspike"
    spike_dtype: str | None = None
    strict: bool = False

    def __post_init__(self):
        SURROGATES[self.surrogate]  # an unknown one is a UserError

    def in_int8(self) -> "LIF":
        """The same neurons with spikes in int8, for inference."""
        return dataclasses.replace(self, spike_dtype="int8")

    def __call__(self, currents, v0=None):
        """Return (spikes, membranes) of all ticks of `currents`."""

        def step(v, current):
            v, spikes = lif_step(
                v,
                current,
                tau=self.tau,
                threshold=self.threshold,
                spike=SURROGATES[self.surrogate],
                strict=self.strict,
            )
            return v, spikes if self.spike_dtype is None else spikes.astype(self.spike_dtype)

        spikes, v = fold(step, currents, v0)
        if v0 is not None and currents.shape[1] == 1:
            # Else XLA leaves the membrane to a later kernel that reads everything again: 6 % of a
            # tick of ResNet-19 in slots.
            spikes, v = lax.platform_dependent(
                spikes, v, cpu=lambda *x: x, default=lambda *x: lax.optimization_barrier(x)
            )
        return spikes, v


class IF(nnx.Module):
    """A layer of IF neurons: `neuron(currents, v0=None) -> (threshold * spikes, v)`; see `if_step`.

    Membranes at rest are threshold / 2. They are float32 at least, whatever the currents are: the
    soft reset never clears a membrane, so that rounding errors would add up in it.

    Args:
      threshold: above 0, lambda of the activation that the layer stands for.
      strict: fire above the threshold only.
    """

    def __init__(self, threshold: Float[Array, ""] | float, strict: bool = False):
        self.strict = strict
        self.threshold = nnx.Param(jnp.asarray(threshold))

    def __call__(self, currents, v0=None):
        """Return (outputs, membranes) of all ticks of `currents`."""
        dtype = jnp.promote_types(currents.dtype, jnp.float32)
        threshold = self.threshold[...].astype(dtype)
        if v0 is None:
            v0 = jnp.full((currents.shape[0], *currents.shape[2:]), threshold / 2, dtype)

        def step(v, current):
            v, outputs = if_step(v, current, threshold=threshold, strict=self.strict)
            return v, outputs.astype(currents.dtype)

        return fold(step, currents, v0)


def fire(neuron: Callable, currents: Float[Array, "B T *features"], v: Any) -> tuple[Array, Any]:
    """(spikes, membranes) of a layer of neurons, from membranes `v` (None: at rest).

    Raises:
      UserError: the neurons are somebody's own, and give something else.
    """
    found = neuron(currents, v)
    check_given(
        "the neuron",
        found,
        lambda pair: len(pair) == 2 and pair[0].shape == currents.shape,
        f"(spikes, membranes), the spikes shaped as its currents, {list(currents.shape)}",
    )
    return found


def own(neuron: Callable) -> Callable:
    """A neuron for one layer alone: one with parameters is copied, others can be shared."""
    if not isinstance(neuron, nnx.Module):
        return neuron
    graph, state = nnx.split(neuron)
    return nnx.merge(graph, jax.tree.map(jnp.copy, state))  # two layers share no buffer
